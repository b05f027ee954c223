package keyring

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// publishAhead is longer than a key set may be cached in the tests.
const publishAhead = 40 * time.Second

// publishedFor returns for how long the key that signs now had been published when it began to,
// living until it does.
func publishedFor(t *testing.T, r *Ring, c *clock, before string) time.Duration {
	t.Helper()
	published := map[string]time.Time{}
	for range 300 {
		for _, k := range r.Public().Keys() {
			if published[k.ID].IsZero() {
				published[k.ID] = c.Now()
			}
		}
		if kid := signing(t, r); kid != before {
			return c.Now().Sub(published[kid])
		}
		live(t, r, c, time.Second)
	}
	t.Fatal("no other key signs")
	return 0
}

// Whatever makes a key follow another, it is published for PublishAhead before it signs, and
// the one before signs meanwhile. With atOnce it is published for MaxAge.
func TestPublishAhead(t *testing.T) {
	for _, mode := range modes {
		for name, c := range map[string]struct {
			ask  func(t *testing.T, r *Ring, now time.Time) error
			want time.Duration
		}{
			"scheduled": {func(*testing.T, *Ring, time.Time) error { return nil }, publishAhead + 2*time.Second},
			"asked for": {func(t *testing.T, r *Ring, now time.Time) error {
				return RequestRotation(t.Context(), r.cfg.Store, now, false)
			}, publishAhead + 2*time.Second},
			"at once": {func(t *testing.T, r *Ring, now time.Time) error {
				return RequestRotation(t.Context(), r.cfg.Store, now, true)
			}, testPolicy.ripen()},
		} {
			t.Run(mode+"/"+name, func(t *testing.T) {
				s, clock := newStore(t), &clock{now: start}
				cfg := testConfig(t, s, clock)
				cfg.Source, cfg.PublishAhead = source(t, mode), publishAhead
				r := open(t, cfg)
				first := signing(t, r)
				live(t, r, clock, time.Second)
				if err := c.ask(t, r, clock.Now()); err != nil {
					t.Fatal(err)
				}
				if got := publishedFor(t, r, clock, first); got < c.want || got > c.want+2*time.Second && name != "scheduled" {
					t.Errorf("it was published for %v, want %v", got, c.want)
				}
			})
		}
	}
}

// Of a ring's keys at most one is published and does not sign yet, however often a rotation is
// asked for, and the first request is met in its time.
func TestOneSuccessor(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	cfg.PublishAhead = publishAhead
	r := open(t, cfg)
	first := signing(t, r)
	for i := range 60 {
		live(t, r, c, time.Second)
		if i%5 == 0 {
			if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
				t.Fatal(err)
			}
		}
		count := map[Phase]int{}
		for _, k := range rows(t, s) {
			count[State(k, c.Now())]++
		}
		if count[Published] > 1 || count[Active] > 1 {
			t.Fatalf("after %ds: %v", i, count)
		}
		if signing(t, r) != first && i < 40 {
			t.Fatalf("after %ds another key signs", i)
		}
	}
	if signing(t, r) == first {
		t.Error("a minute after the first request the first key signs")
	}
}

// A ring holds a key for each algorithm. The first one signs; the others are made in the
// background, and published for as long as a key that follows another.
func TestSeveralAlgorithms(t *testing.T) {
	for _, mode := range modes {
		s, c := newStore(t), &clock{now: start}
		cfg := testConfig(t, s, c)
		cfg.Source, cfg.PublishAhead = source(t, mode), publishAhead
		cfg.Algorithms = []string{accesstoken.ES256, accesstoken.EdDSA}
		r := open(t, cfg)
		if r.Public().Len() != 1 {
			t.Fatalf("%s: Open made %d keys, and only one is waited for", mode, r.Public().Len())
		}
		live(t, r, c, time.Second)
		states := map[string]Phase{}
		for _, k := range rows(t, s) {
			states[k.Algorithm] = State(k, c.Now())
		}
		if states[accesstoken.ES256] != Active || states[accesstoken.EdDSA] != Published {
			t.Errorf("%s: %v", mode, states)
		}
		for range 250 { // over two rotations of each
			live(t, r, c, time.Second)
			if got, err := r.Signer(); err != nil || got.Algorithm() != accesstoken.ES256 {
				t.Fatalf("%s: %v, %v", mode, got, err)
			}
		}
		active := 0
		for _, k := range rows(t, s) {
			if State(k, c.Now()) == Active {
				active++
			}
		}
		if active != 2 || len(r.view.Load().signing) != 2 {
			t.Errorf("%s: %d keys are active, and %d may sign", mode, active, len(r.view.Load().signing))
		}
	}
}

// Another algorithm becomes the first one: its key signs when it has been published for
// long enough, and the former one until then. If it was there already, it signs at once.
func TestFirstAlgorithmChanges(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after []string
		atOnce        bool
	}{
		"new":              {[]string{accesstoken.ES256}, []string{accesstoken.EdDSA}, false},
		"new beside":       {[]string{accesstoken.ES256}, []string{accesstoken.EdDSA, accesstoken.ES256}, false},
		"swapped":          {[]string{accesstoken.ES256, accesstoken.EdDSA}, []string{accesstoken.EdDSA, accesstoken.ES256}, true},
		"one of them left": {[]string{accesstoken.ES256, accesstoken.EdDSA}, []string{accesstoken.EdDSA}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newStore(t), &clock{now: start}
			cfg := testConfig(t, s, c)
			cfg.KeyDuration, cfg.PublishAhead, cfg.Algorithms = time.Hour, publishAhead, tt.before
			r := open(t, cfg)
			live(t, r, c, 50*time.Second)
			former := sign(t, r, c.Now())
			cfg.Algorithms = tt.after
			r = open(t, cfg)
			if err := check(r, former, c.Now()); err != nil {
				t.Errorf("a token of the former algorithm: %v", err)
			}
			var since time.Duration
			for ; since < 2*time.Minute; since += time.Second {
				got, err := r.Signer()
				if err != nil {
					t.Fatalf("after %v: %v", since, err)
				}
				if got.Algorithm() == tt.after[0] {
					break
				}
				live(t, r, c, time.Second)
			}
			if tt.atOnce && since > 0 || !tt.atOnce && (since < publishAhead || since > publishAhead+4*time.Second) {
				t.Errorf("the first algorithm signs after %v", since)
			}
			live(t, r, c, 3*time.Minute)
			if got, err := r.Signer(); err != nil || got.Algorithm() != tt.after[0] {
				t.Errorf("later %v, %v signs", got, err)
			}
		})
	}
}

// A ring without algorithms makes no key.
func TestNoAlgorithms(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	cfg.Algorithms = nil
	r := open(t, cfg)
	live(t, r, c, 5*time.Second)
	if got := signing(t, r); got != "" || len(rows(t, s)) > 0 || r.Public().Len() > 0 {
		t.Errorf("%q signs, %d rows", got, len(rows(t, s)))
	}
}

// A keeper has the keys that it was given.
type keeper struct {
	mu   sync.Mutex // guards keys while a ring runs
	keys []keysource.Kept
	err  error
	asks int
}

func (k *keeper) Keys(_ context.Context, algorithm string) ([]keysource.Kept, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asks++
	var keys []keysource.Kept
	for _, key := range k.keys {
		if _, edwards := key.Public().(ed25519.PublicKey); edwards == (algorithm == accesstoken.EdDSA) {
			keys = append(keys, key)
		}
	}
	return keys, k.err
}
func (k *keeper) Ping(context.Context) error { return k.err }
func (k *keeper) Close() error               { return nil }

// make makes a key at the keeper and returns its kid.
func (k *keeper) make(t testing.TB) string {
	t.Helper()
	return k.makeFor(t, accesstoken.EdDSA, rand.Reader)
}

// makeFor makes one for EdDSA or ES256.
func (k *keeper) makeFor(t testing.TB, algorithm string, random io.Reader) string {
	t.Helper()
	private, err := token.GenerateKey(random, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	kid := accesstoken.Key{Algorithm: algorithm, Public: private.Public()}.Thumbprint()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = append(k.keys, keysource.Kept{Signer: private, Ref: kid[:8]})
	return kid
}

func outside(t testing.TB, k *keeper) keysource.Source {
	return keysource.Outside{Name: keysource.NameHSM, Keeper: k, Box: newBox(t, 1)}
}

// Keys that a keeper has are never made here: one goes on until there is another one, which
// then is published, signs, and is shared by all replicas; none is used twice.
func TestKeysOfAKeeper(t *testing.T) {
	s, c, hsm := newStore(t), &clock{now: start}, &keeper{}
	cfg := testConfig(t, s, c)
	cfg.Source, cfg.PublishAhead = outside(t, hsm), publishAhead
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no key for EdDSA") {
		t.Fatalf("without a key: %v", err)
	}
	first := hsm.make(t)
	a, b := open(t, cfg), open(t, cfg)
	if signing(t, a) != first || signing(t, b) != first || len(rows(t, s)) != 1 {
		t.Fatalf("%q and %q sign, want %q", signing(t, a), signing(t, b), first)
	}
	hsm.asks = 0
	for range 1000 { // ten times its active time
		live(t, a, c, time.Second)
		if signing(t, a) != first {
			t.Fatalf("%q signs, and there is no other key", signing(t, a))
		}
	}
	if hsm.asks > 20 {
		t.Errorf("the keeper was asked %d times", hsm.asks)
	}
	refresh(t, b)
	second := hsm.make(t)
	if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
		t.Fatal(err)
	}
	for range int((time.Minute+publishAhead)/time.Second) + 3 { // they ask once a minute
		live(t, a, c, time.Second)
		refresh(t, b)
	}
	if signing(t, a) != second || signing(t, b) != second {
		t.Fatalf("%q and %q sign, want %q", signing(t, a), signing(t, b), second)
	}
	// It is revoked: no older key takes its place.
	if _, err := RevokeIn(t.Context(), s, Alone{}, second, c.Now()); err != nil {
		t.Fatal(err)
	}
	if err := a.ReplaceRevoked(t.Context(), second); !errors.Is(err, keysource.ErrNoNewKey) {
		t.Errorf("%v, want ErrNoNewKey", err)
	}
	if kid := signing(t, a); kid != "" {
		t.Errorf("%q signs", kid)
	}
	third := hsm.make(t)
	refresh(t, a)
	refresh(t, b)
	if signing(t, a) != third || signing(t, b) != third {
		t.Errorf("%q and %q sign, want %q at once", signing(t, a), signing(t, b), third)
	}
	// Long after the row of the second key is gone it is not used again.
	hsm.keys = append(hsm.keys[:1:1], hsm.keys[2], hsm.keys[1])
	for range 600 {
		live(t, a, c, time.Second)
		if kid := signing(t, a); kid != third {
			t.Fatalf("%q signs", kid)
		}
	}
}

// If no replica runs for so long that the time of a keeper's only key ends, the key goes on
// afterwards, and after that, too; so it does in a process that stood still, or whose store was away,
// for as long. A key that was revoked does not.
func TestKeysOfAKeeperAfterALongStop(t *testing.T) {
	c, hsm := &clock{now: start}, &keeper{}
	s := &faulty{Store: newStore(t)}
	cfg := testConfig(t, s, c)
	cfg.Source = outside(t, hsm)
	first := hsm.make(t)
	r := open(t, cfg)
	live(t, r, c, time.Second)
	s.next = func() fault { return notPersisted }
	c.Move(testPolicy.longest())
	if err := r.Refresh(t.Context()); err == nil || signing(t, r) != "" || r.Public().Len() != 0 {
		t.Fatalf("%v; %q signs, and its time has ended", err, signing(t, r))
	}
	s.next = nil
	refresh(t, r)
	if signing(t, r) != first {
		t.Fatalf("%q signs when the store is back", signing(t, r))
	}
	for range 3 {
		c.Move(30 * 24 * time.Hour)
		stood := r // until now
		if r = open(t, cfg); signing(t, r) != first {
			t.Fatalf("%q signs, want the only key that there is", signing(t, r))
		}
		refresh(t, stood)
		if signing(t, stood) != first {
			t.Fatalf("%q signs in the process that stood still", signing(t, stood))
		}
		live(t, r, c, time.Second)
		if got := rows(t, s); len(got) != 1 || State(got[0], c.Now()) != Active {
			t.Fatalf("the rows are %v", got)
		}
	}
	// The row of one that was followed by another is deleted as others are.
	second := hsm.make(t)
	if err := RequestRotation(t.Context(), s, c.Now(), true); err != nil {
		t.Fatal(err)
	}
	live(t, r, c, 200*time.Second)
	if got := rows(t, s); signing(t, r) != second || len(got) != 1 {
		t.Fatalf("%q signs, %d rows", signing(t, r), len(got))
	}
	if _, err := RevokeIn(t.Context(), s, Alone{}, second, c.Now()); err != nil {
		t.Fatal(err)
	}
	c.Move(30 * 24 * time.Hour)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, keysource.ErrNoNewKey) {
		t.Errorf("a revoked key: %v, want ErrNoNewKey", err)
	}
	c.Move(time.Second)
	if r, err := Open(t.Context(), cfg); !errors.Is(err, keysource.ErrNoNewKey) {
		t.Errorf("a revoked key whose row is gone: %v, want ErrNoNewKey; %+v signs", err, r)
	}
}

// A key that its keeper has lost is not waited for: another one takes its place, after as long
// as a cache needs to learn of it.
func TestKeeperLosesAKey(t *testing.T) {
	s, c, hsm := newStore(t), &clock{now: start}, &keeper{}
	cfg := testConfig(t, s, c)
	cfg.Source = outside(t, hsm)
	first := hsm.make(t)
	if kid := signing(t, open(t, cfg)); kid != first {
		t.Fatalf("%q signs", kid)
	}
	hsm.keys = nil
	second := hsm.make(t)
	c.Move(time.Second)
	r := open(t, cfg)
	if kid := signing(t, r); kid != "" {
		t.Fatalf("%q signs at once", kid)
	}
	live(t, r, c, testPolicy.ripen())
	if kid := signing(t, r); kid != second {
		t.Errorf("%q signs, want %q", kid, second)
	}
}

// A keeper that is away ends nothing that is known, and a start waits for it.
func TestKeeperAway(t *testing.T) {
	s, c, hsm := newStore(t), &clock{now: start}, &keeper{}
	cfg := testConfig(t, s, c)
	cfg.Source = outside(t, hsm)
	first := hsm.make(t)
	r := open(t, cfg)
	hsm.err = keysource.ErrKeeperAway
	if _, err := Open(t.Context(), cfg); !errors.Is(err, keysource.ErrKeeperAway) {
		t.Errorf("a start: %v", err)
	}
	for range 108 { // until its time is over, and the slack
		c.Move(time.Second)
		_ = r.Refresh(t.Context())
		if signing(t, r) != first {
			t.Fatal("the key was dropped")
		}
	}
	hsm.err = nil
	refresh(t, r)
	if signing(t, r) != first {
		t.Error("the key does not go on")
	}
}

// Rows of a keeper's keys are authenticated like others, and a row that names another key, or the
// same kid with another private half, is not believed.
func TestRowsOfAKeeperAreAuthentic(t *testing.T) {
	s, c, hsm := newStore(t), &clock{now: start}, &keeper{}
	cfg := testConfig(t, s, c)
	cfg.Source = outside(t, hsm)
	kid := hsm.make(t)
	open(t, cfg)
	forged := row(t, s, kid)
	forged.RemoveAt = forged.RemoveAt.Add(time.Hour)
	if err := s.UpdateKey(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	cfg.Source = keysource.Outside{Name: keysource.NameHSM, Keeper: hsm, Box: newBox(t, 1)}
	r, err := Open(t.Context(), cfg)
	if err == nil {
		if _, known := r.Key(kid); known {
			t.Error("a changed row is believed")
		}
	}
	if keysource.NameOf(forged.Sealed) != keysource.NameHSM {
		t.Errorf("the source of the row is %s", keysource.NameOf(forged.Sealed))
	}
}

// After a total stop a key in memory need not wait for caches that have ended: only for the rest
// of the time, since the last replica stopped.
func TestAfterATotalStop(t *testing.T) {
	for since, want := range map[time.Duration]time.Duration{
		0:                testPolicy.ripen(), // unknown
		time.Second:      testPolicy.maxAge - time.Second,
		10 * time.Second: testPolicy.maxAge - 10*time.Second,
		time.Minute:      0,
		-time.Hour:       testPolicy.ripen(), // a clock was put back
	} {
		s, c := newStore(t), &clock{now: start}
		cfg := testConfig(t, s, c)
		cfg.Source = source(t, inMemory)
		peers := &fakePeers{have: map[string]bool{}}
		cfg.Peers = peers
		open(t, cfg)
		c.Move(10 * time.Second)
		if since != 0 {
			peers.stopped = c.Now()
			c.Move(since)
		}
		before := rows(t, s)[0].ID
		r := open(t, cfg)
		for _, k := range rows(t, s) {
			peers.have[k.ID] = true
		}
		refresh(t, r)
		var waited time.Duration
		for ; signing(t, r) == "" && waited < time.Minute; waited += time.Second {
			live(t, r, c, time.Second)
		}
		if kid := signing(t, r); kid == before || waited != want {
			t.Errorf("stopped for %v: it waited for %v, want %v", since, waited, want)
		}
	}
}

// An algorithm whose key cannot be made does not hold up the others: they rotate, and rows of
// removed keys are deleted. The failure is logged once.
func TestOneAlgorithmWithoutAKey(t *testing.T) {
	for _, algorithms := range [][]string{{accesstoken.ES256, accesstoken.EdDSA}, {accesstoken.EdDSA, accesstoken.ES256}} {
		t.Run(algorithms[1], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { oneAlgorithmWithoutAKey(t, algorithms) })
		})
	}
}

func oneAlgorithmWithoutAKey(t *testing.T, algorithms []string) {
	var log testenv.Log
	s, hsm := newStore(t), &keeper{}
	cfg := testConfig(t, s, nil)
	cfg.Now, cfg.Logger = time.Now, slog.New(slog.NewTextHandler(&log, nil))
	cfg.Source, cfg.Algorithms = outside(t, hsm), []string{accesstoken.EdDSA}
	first := hsm.make(t)
	open(t, cfg)
	time.Sleep(time.Second)
	cfg.Algorithms = algorithms // the first key signs for the algorithm that has none
	if algorithms[0] != accesstoken.EdDSA {
		hsm.makeFor(t, accesstoken.ES256, rand.Reader)
	}
	r := open(t, cfg)
	if algorithms[0] != accesstoken.EdDSA { // its key is revoked, and there is no other one
		time.Sleep(time.Minute)
		for _, k := range rows(t, s) {
			if k.Algorithm == accesstoken.ES256 {
				if _, err := RevokeIn(t.Context(), s, Alone{}, k.ID, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	time.Sleep(time.Minute)
	if kid := signing(t, r); kid != first {
		t.Errorf("%q signs, want %q", kid, first)
	}
	second := hsm.make(t)
	if err := RequestRotation(t.Context(), s, time.Now(), false); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Minute) // the keeper is asked once a minute
	if kid := signing(t, r); kid != second {
		t.Errorf("%q signs, want %q", kid, second)
	}
	time.Sleep(testPolicy.keyDuration + time.Minute)
	if slices.ContainsFunc(rows(t, s), func(k store.Key) bool { return k.ID == first }) {
		t.Error("the row of the removed key is still there")
	}
	cancel()
	running.Wait()
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), accesstoken.ES256) {
		t.Errorf("%d errors were logged, want one that names the algorithm:\n%s", n, log.String())
	}
}

// What was asked for once with atOnce does not make later rotations faster.
func TestAtOnceHoldsOnce(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	cfg.KeyDuration, cfg.PublishAhead = time.Hour, publishAhead
	r := open(t, cfg)
	for _, want := range []time.Duration{testPolicy.ripen(), publishAhead} {
		live(t, r, c, time.Second)
		before := signing(t, r)
		if err := RequestRotation(t.Context(), s, c.Now(), want < publishAhead); err != nil {
			t.Fatal(err)
		}
		if got := publishedFor(t, r, c, before); got < want || got > want+12*time.Second {
			t.Errorf("it was published for %v, want %v", got, want)
		}
	}
}

// A key of a former algorithm that is published and signs nothing yet is replaced by one of the
// algorithm that is wanted. Several that sign nothing yet, as a clock that was put back leaves
// them, stay.
func TestPublishedKeysThatAreNotWanted(t *testing.T) {
	p := testPolicy
	p.ahead = publishAhead
	current := p.date(store.Key{ID: "current"}, start.Add(-time.Minute), start.Add(-time.Minute))
	next := func(id, algorithm string, after time.Duration) store.Key {
		return p.date(store.Key{ID: id, Algorithm: algorithm}, start.Add(-time.Second), start.Add(after))
	}
	d := demand{ours: func(store.Key) bool { return true }, wrong: func(k store.Key) bool { return k.Algorithm == "former" }}
	for name, c := range map[string]struct {
		next    []store.Key
		deletes []string
		create  bool
	}{
		"of a former algorithm":     {[]store.Key{next("a", "former", 40*time.Second)}, []string{"a"}, true},
		"one of them":               {[]store.Key{next("a", "former", 40*time.Second), next("b", "", 41*time.Second)}, []string{"a"}, false},
		"several":                   {[]store.Key{next("a", "", 40*time.Second), next("b", "", 60*time.Second), next("c", "", 80*time.Second)}, nil, false},
		"one, and there it is well": {[]store.Key{next("a", "", 40*time.Second)}, nil, false},
	} {
		got := p.plan(append(c.next, current), d, start)
		if !slices.Equal(got.deletes, c.deletes) || got.create != c.create || c.create && len(got.updates) != 1 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
