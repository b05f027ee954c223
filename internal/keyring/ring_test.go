package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func TestStateByTimes(t *testing.T) {
	k := testPolicy.date(store.Key{ID: "k"}, start, start.Add(17*time.Second))
	for _, c := range []struct {
		at   time.Duration
		want Phase
	}{
		{-time.Microsecond, Pending},
		{0, Published},
		{17*time.Second - time.Microsecond, Published},
		{17 * time.Second, Active},
		{117*time.Second - time.Microsecond, Active},
		{117 * time.Second, Retiring},
		{152*time.Second - time.Microsecond, Retiring}, // 10 s slack, 20 s token, 5 s leeway
		{152 * time.Second, Removed},
	} {
		if got := State(k, start.Add(c.at)); got != c.want {
			t.Errorf("after %v: %s, want %s", c.at, got, c.want)
		}
	}
	k.RevokedAt = start
	if got := State(k, start.Add(20*time.Second)); got != Revoked {
		t.Errorf("revoked: %s", got)
	}
}

func TestFirstKeySignsAtOnce(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	r := open(t, testConfig(t, s, c))
	kid := signing(t, r)
	if public, ok := r.Key(kid); !ok || kid != public.Thumbprint() {
		t.Errorf("kid %q, want the thumbprint %q, because other replicas may share the key", kid, public.Thumbprint())
	}
	if err := check(r, sign(t, r, c.Now()), c.Now()); err != nil {
		t.Error(err)
	}
	if got := State(row(t, s, kid), c.Now()); got != Active {
		t.Errorf("the row says %s", got)
	}
}

func TestEveryAlgorithmSurvivesARestart(t *testing.T) {
	for _, alg := range accesstoken.Algorithms() {
		s, c := newStore(t), &clock{now: start}
		cfg := testConfig(t, s, c)
		cfg.Algorithms = []string{alg}
		before := open(t, cfg)
		compact := sign(t, before, c.Now())

		after := open(t, cfg)
		if signing(t, after) != signing(t, before) {
			t.Errorf("%s: another key signs after the restart", alg)
		}
		if err := check(after, compact, c.Now()); err != nil {
			t.Errorf("%s: a token from before the restart: %v", alg, err)
		}
	}
}

func TestRotation(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	r := open(t, testConfig(t, s, c))
	first := signing(t, r)

	// Up to its lead (ripen 17 s, slack 10 s) there is one key.
	live(t, r, c, 72*time.Second)
	if n := r.Public().Len(); n != 1 {
		t.Fatalf("%d keys, want 1", n)
	}
	set := r.Public()
	live(t, r, c, time.Second)
	if n := r.Public().Len(); n != 2 || r.Public() == set {
		t.Fatalf("%d keys, want the next one published", n)
	}
	set = r.Public()
	live(t, r, c, 26*time.Second)
	if signing(t, r) != first {
		t.Fatal("the next key signs too soon")
	}
	late := sign(t, r, c.Now())
	live(t, r, c, time.Second)
	second := signing(t, r)
	if second == first || second == "" {
		t.Fatalf("after the key's time %q signs", second)
	}
	if r.Public() != set {
		t.Error("the key set is another one although no key came or went")
	}
	if got := State(row(t, s, first), c.Now()); got != Retiring {
		t.Errorf("the first key is %s", got)
	}
	for range 25 {
		if err := check(r, late, c.Now()); err != nil && !errors.Is(err, accesstoken.ErrExpired) {
			t.Fatalf("the last token of the retired key: %v", err)
		}
		live(t, r, c, time.Second)
	}
	live(t, r, c, 10*time.Second)
	if _, ok := r.Key(first); ok {
		t.Error("the retired key is still published")
	}
	if got := rows(t, s); len(got) != 1 || got[0].ID != second {
		t.Errorf("the store has %d rows", len(got))
	}
}

func TestRestartInTheMiddleOfARotation(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	r := open(t, testConfig(t, s, c))
	first := signing(t, r)
	live(t, r, c, 75*time.Second)
	r = open(t, testConfig(t, s, c))
	if signing(t, r) != first || r.Public().Len() != 2 {
		t.Fatalf("after a restart %q signs of %d keys", signing(t, r), r.Public().Len())
	}
	live(t, r, c, 25*time.Second)
	if kid := signing(t, r); kid == first || kid == "" || len(rows(t, s)) != 2 {
		t.Fatalf("%q signs, %d rows", kid, len(rows(t, s)))
	}
}

func TestStoreAwayAtRotation(t *testing.T) {
	c := &clock{now: start}
	s := &faulty{Store: newStore(t)}
	r := open(t, testConfig(t, s, c))
	first := signing(t, r)
	s.next = func() fault { return notPersisted }

	var last string
	for elapsed := time.Second; elapsed < 110*time.Second; elapsed += time.Second {
		c.Move(time.Second)
		if err := r.Refresh(t.Context()); !errors.Is(err, errInjected) {
			t.Fatalf("after %v: %v", elapsed, err)
		}
		if signing(t, r) != first {
			t.Fatalf("after %v the last known good key does not sign, although it may until 110s", elapsed)
		}
		last = sign(t, r, c.Now())
	}
	c.Move(time.Second)
	if kid := signing(t, r); kid != "" {
		t.Fatal("a key signs whose tokens would outlive it, before Refresh")
	}
	if err := r.Refresh(t.Context()); err == nil || signing(t, r) != "" {
		t.Fatal("a key signs whose tokens would outlive it")
	}
	if got := value(t, r.metrics.failures, ""); got != 110 {
		t.Errorf("%v failures counted", got)
	}
	if got := value(t, r.metrics.rotation, ""); got != 0 {
		t.Errorf("the next rotation is said to be at %v", got)
	}
	for range 24 {
		if err := check(r, last, c.Now()); err != nil && !errors.Is(err, accesstoken.ErrExpired) {
			t.Fatalf("the last token: %v", err)
		}
		c.Move(time.Second)
		_ = r.Refresh(t.Context())
	}

	// It comes back before the key is removed: the key's life is made longer, until
	// the next one is ripe.
	s.next = nil
	refresh(t, r)
	if signing(t, r) != first {
		t.Fatal("the key does not sign although the store is back")
	}
	live(t, r, c, 17*time.Second)
	if kid := signing(t, r); kid == first || kid == "" {
		t.Fatalf("the next key is ripe, but %q signs", kid)
	}
}

func TestFailedButPersisted(t *testing.T) {
	for _, mode := range modes {
		c := &clock{now: start}
		s := &faulty{Store: newStore(t)}
		cfg := testConfig(t, s, c)
		cfg.Source = source(t, mode)
		r := open(t, cfg)
		live(t, r, c, 72*time.Second)

		calls := 0 // Keys, Setting, Update
		s.next = func() fault {
			if calls++; calls == 3 {
				return persisted
			}
			return works
		}
		c.Move(time.Second)
		if err := r.Refresh(t.Context()); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		if len(rows(t, s.Store)) != 2 {
			t.Fatal("the key was not persisted: this test tests nothing")
		}
		if r.Public().Len() != 1 {
			t.Errorf("%s: a key is published that is not known to be in the store", mode)
		}
		if got := value(t, r.metrics.keys, "pending"); got != 1 {
			t.Errorf("%s: %v keys pending", mode, got)
		}
		s.next = nil
		refresh(t, r)
		if len(rows(t, s)) != 2 || r.Public().Len() != 2 {
			t.Errorf("%s: %d rows and %d published keys, want the same key taken up", mode, len(rows(t, s)), r.Public().Len())
		}
	}
}

func TestRotationRequest(t *testing.T) {
	for _, mode := range modes {
		s, c := newStore(t), &clock{now: start}
		cfg := testConfig(t, s, c)
		cfg.Source = source(t, mode)
		r := open(t, cfg)
		first := signing(t, r)
		live(t, r, c, 10*time.Second)
		if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
			t.Fatal(err)
		}
		live(t, r, c, time.Second)
		if r.Public().Len() != 2 || signing(t, r) != first {
			t.Fatalf("%s: not replaced, or at once: %d keys", mode, r.Public().Len())
		}
		live(t, r, c, 16*time.Second)
		if signing(t, r) != first {
			t.Fatalf("%s: the new key is not ripe, but signs", mode)
		}
		live(t, r, c, time.Second)
		second := signing(t, r)
		if second == first {
			t.Fatalf("%s: the old key still signs", mode)
		}
		live(t, r, c, 35*time.Second)
		if r.Public().Len() != 1 || signing(t, r) != second {
			t.Errorf("%s: %d keys, want the old one removed and no third", mode, r.Public().Len())
		}
	}
}

// Rotation is asked for when the next key is published already. That one has signed nothing, so
// it is the one that follows, as soon as it was published for long enough.
func TestRotationRequestDuringARotation(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	r := open(t, testConfig(t, s, c))
	first := signing(t, r)
	live(t, r, c, 74*time.Second)
	next := r.Public().Keys()[1].ID
	if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
		t.Fatal(err)
	}
	live(t, r, c, 15*time.Second)
	if kid := signing(t, r); kid != first {
		t.Errorf("%q signs, want the first key until the next one was published for 17s", kid)
	}
	live(t, r, c, time.Second)
	if kid := signing(t, r); kid != next {
		t.Errorf("%q signs, want the key that was published already", kid)
	}
	live(t, r, c, 50*time.Second)
	if len(rows(t, s)) != 1 {
		t.Errorf("%d rows", len(rows(t, s)))
	}
}

// A replica that learns of a key late has served key sets without it.
func TestKeyLearntLateRipensFirst(t *testing.T) {
	c := &clock{now: start}
	shared := newStore(t)
	away := &faulty{Store: shared}
	a, b := open(t, testConfig(t, shared, c)), open(t, testConfig(t, away, c))
	first := signing(t, a)
	away.next = func() fault { return notPersisted }
	live(t, a, c, 101*time.Second)
	second := signing(t, a)
	if _, known := b.Key(second); known || signing(t, b) != first || second == first {
		t.Fatal("this test tests nothing")
	}
	away.next = nil
	refresh(t, b)
	for range 15 { // the first key may sign for nine seconds, then none
		if signing(t, b) == second {
			t.Fatal("a key signs that caches do not know")
		}
		live(t, b, c, time.Second)
	}
	if kid := signing(t, b); kid != second {
		t.Errorf("%q signs, want the ripe key", kid)
	}
}

// Whether a shorter life of the current key reached the store or not, it is kept to.
func TestRotationOfUnknownFate(t *testing.T) {
	c := &clock{now: start}
	s := &faulty{Store: newStore(t)}
	cfg := testConfig(t, s, c)
	r := open(t, cfg)
	first := signing(t, r)
	if err := RequestRotation(t.Context(), s, c.Now().Add(time.Second), false); err != nil {
		t.Fatal(err)
	}
	c.Move(time.Second)
	calls := 0 // Keys, Setting, Update; then it is away
	s.next = func() fault {
		switch calls++; {
		case calls < 3:
			return works
		case calls == 3:
			return persisted
		default:
			return notPersisted
		}
	}
	var last string
	for signing(t, r) != "" {
		last = sign(t, r, c.Now())
		_ = r.Refresh(t.Context())
		c.Move(time.Second)
	}
	if since := c.Now().Sub(start); since != 28*time.Second {
		t.Errorf("it signed for %v, want the 17s that the next key ripens and the slack", since)
	}
	s.next = nil
	r = open(t, cfg)
	for ; c.Now().Before(start.Add(52 * time.Second)); c.Move(time.Second) {
		refresh(t, r)
		if _, ok := r.Key(first); !ok {
			t.Fatal("the key is gone before its last token")
		}
		if err := check(r, last, c.Now()); err != nil && !errors.Is(err, accesstoken.ErrExpired) {
			t.Fatal(err)
		}
	}
}

func TestAnotherAlgorithmReplacesTheKey(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	compact := sign(t, open(t, cfg), c.Now())
	cfg.Algorithms = []string{accesstoken.ES256}
	c.Move(time.Second)
	r := open(t, cfg)
	if got, _ := r.Signer(); got.Algorithm() != accesstoken.EdDSA {
		t.Fatal("the new algorithm signs before its key is known")
	}
	live(t, r, c, 17*time.Second)
	if got, _ := r.Signer(); got.Algorithm() != accesstoken.ES256 {
		t.Error("the old algorithm still signs")
	}
	if err := check(r, compact, c.Now()); err != nil {
		t.Error(err)
	}
}

func revoke(t testing.TB, s store.Store, kid string, now time.Time) store.Key {
	t.Helper()
	var k store.Key
	if err := s.Update(t.Context(), func(rec store.Records) (err error) {
		k, err = RevokeIn(t.Context(), rec, Alone{}, kid, now)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRevokedKeyIsReplacedAtOnce(t *testing.T) {
	for _, mode := range modes {
		s, c := newStore(t), &clock{now: start}
		cfg := testConfig(t, s, c)
		cfg.Source = source(t, mode)
		r := open(t, cfg)
		first, compact := signing(t, r), sign(t, r, c.Now())

		k := revoke(t, s, first, c.Now())
		if k.ID != first || !k.RemoveAt.Equal(start.Add(135*time.Second)) {
			t.Errorf("%s: RevokeIn returned %+v", mode, k)
		}
		if err := r.ReplaceRevoked(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.Key(first); ok {
			t.Errorf("%s: the revoked key is published", mode)
		}
		if err := check(r, compact, c.Now()); !errors.Is(err, accesstoken.ErrUnknownKey) {
			t.Errorf("%s: its token: %v", mode, err)
		}
		if kid := signing(t, r); kid == first || kid == "" {
			t.Errorf("%s: %q signs", mode, kid)
		}
		if again := revoke(t, s, first, c.Now().Add(time.Hour)); !again.RevokedAt.Equal(k.RevokedAt) {
			t.Errorf("%s: revoked twice: %v", mode, again.RevokedAt)
		}
		if mode == inDatabase {
			if after := open(t, cfg); signing(t, after) != signing(t, r) || after.Public().Len() != 1 {
				t.Errorf("after a restart %q signs of %d keys", signing(t, after), after.Public().Len())
			}
		}
	}
}

func TestPublishedKeyTakesOverFromARevokedOne(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	r := open(t, testConfig(t, s, c))
	first := signing(t, r)
	live(t, r, c, 89*time.Second) // the next one is published for 16 s
	next := r.Public().Keys()[1].ID
	revoke(t, s, first, c.Now())
	live(t, r, c, time.Second) // as another process sees it
	if kid := signing(t, r); kid != next {
		t.Errorf("%q signs, want the key that is published already", kid)
	}
	if k := row(t, s, next); State(k, c.Now()) != Active {
		t.Errorf("its row says %s", State(k, c.Now()))
	}
}

func TestRevokedKeyIsDroppedThoughTheStoreIsAway(t *testing.T) {
	c := &clock{now: start}
	s := &faulty{Store: newStore(t)}
	r := open(t, testConfig(t, s, c))
	first := signing(t, r)
	revoke(t, s.Store, first, c.Now())
	s.next = func() fault { return notPersisted }
	if err := r.ReplaceRevoked(t.Context(), first); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	if _, ok := r.Key(first); ok || signing(t, r) != "" {
		t.Fatal("the revoked key is used or published")
	}
	s.next = nil
	refresh(t, r)
	if kid := signing(t, r); kid == first || kid == "" {
		t.Errorf("%q signs", kid)
	}
}

// The key before the revoked one could still sign for a while. It does not.
func TestRevocationDoesNotReviveTheKeyBefore(t *testing.T) {
	c := &clock{now: start}
	s := &faulty{Store: newStore(t)}
	r := open(t, testConfig(t, s, c))
	first := signing(t, r)
	live(t, r, c, 101*time.Second)
	second := signing(t, r)
	revoke(t, s.Store, second, c.Now())
	s.next = func() fault { return notPersisted }
	_ = r.ReplaceRevoked(t.Context(), second)
	if kid := signing(t, r); kid != "" {
		t.Fatalf("%q signs", kid)
	}
	s.next = nil
	refresh(t, r)
	if kid := signing(t, r); kid == "" || kid == first || kid == second {
		t.Errorf("%q signs, want a fresh key", kid)
	}
}

// A key that was revoked while no process could replace it is replaced at once by the process that
// starts next: by the key that is published already, or else by a new one, whether another algorithm
// signs meanwhile or not. So it is with keys in the database and at a keeper.
func TestRevokedKeyIsReplacedByTheNextProcess(t *testing.T) {
	for mode, hsm := range map[string]*keeper{inDatabase: nil, inKeeper: {}} {
		for _, published := range []bool{false, true} {
			s, c := newStore(t), &clock{now: start}
			cfg := testConfig(t, s, c)
			cfg.PublishAhead, cfg.Algorithms = publishAhead, []string{accesstoken.EdDSA, accesstoken.ES256}
			if hsm != nil {
				cfg.Source = outside(t, hsm)
				hsm.makeFor(t, accesstoken.ES256, rand.Reader)
				hsm.make(t)
			}
			r := open(t, cfg)
			first := signing(t, r)
			live(t, r, c, 44*time.Second) // the second algorithm signs
			if hsm != nil {
				hsm.make(t)
			}
			if published {
				live(t, r, c, 14*time.Second)
			}
			before := len(rows(t, s))
			revoke(t, s, first, c.Now())
			c.Move(time.Second)

			r = open(t, cfg)
			refresh(t, r)
			kid, created := r.view.Load().signing[accesstoken.EdDSA].signer, len(rows(t, s)) > before
			if kid == nil || kid.KeyID() == first || created == published {
				t.Errorf("%s, the next one published: %t: %v signs for the first algorithm, another key was made: %t", mode, published, kid, created)
			}
		}
	}
}

func TestDamagedKeyCanBeRevoked(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	kid := signing(t, open(t, cfg))
	k := row(t, s, kid)
	k.Sealed[len(k.Sealed)-1] ^= 1
	if err := s.UpdateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "keys revoke") {
		t.Fatalf("got %v", err)
	}
	revoke(t, s, kid, c.Now())
	if got := signing(t, open(t, cfg)); got == "" || got == kid {
		t.Errorf("%q signs", got)
	}
}

func TestRevokeUnknownKey(t *testing.T) {
	s := newStore(t)
	if _, err := RevokeIn(t.Context(), s, Alone{}, "auth-0-nothing", start); !errors.Is(err, ErrUnknownKey) {
		t.Error(err)
	}
}

func TestKeysInMemoryDoNotSurvive(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	cfg.Source = source(t, inMemory)
	before := open(t, cfg)
	old, compact := signing(t, before), sign(t, before, c.Now())
	if k := row(t, s, old); k.Sealed != nil {
		t.Fatal("a private key is in the database")
	}

	after := open(t, cfg)
	if err := check(after, compact, c.Now()); !errors.Is(err, accesstoken.ErrUnknownKey) {
		t.Errorf("a key of a former life is trusted: %v", err)
	}
	// The old key set may be in caches: the new key is published first.
	for range 17 {
		if kid := signing(t, after); kid != "" {
			t.Fatalf("%q signs, though caches do not know it", kid)
		}
		live(t, after, c, time.Second)
	}
	kid := signing(t, after)
	if kid == "" || kid == old {
		t.Fatalf("%q signs", kid)
	}
	live(t, after, c, 118*time.Second)
	for _, k := range rows(t, s) {
		if k.ID == old {
			t.Error("the row of the former life was not cleaned up")
		}
	}
}

func TestRowsOfLostInstancesAreCleanedUp(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	cfg.Source, cfg.InstanceID = source(t, inMemory), "auth-1"
	lost := signing(t, open(t, cfg))
	cfg.InstanceID = "auth-0"
	r := open(t, cfg)
	has := func() bool {
		return slices.ContainsFunc(rows(t, s), func(k store.Key) bool { return k.ID == lost })
	}
	c.Move(135*time.Second + timing.ForeignRows - time.Microsecond)
	refresh(t, r)
	if !has() {
		t.Error("the row of another instance was deleted too soon")
	}
	c.Move(time.Microsecond)
	refresh(t, r)
	if has() {
		t.Error("the row of another instance was not deleted")
	}
}

func TestWrongStorageKeyIsRefused(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	open(t, cfg)
	before := rows(t, s)
	cfg.Source = sealed(newBox(t, 2))
	_, err := Open(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "storage key") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if after := rows(t, s); len(after) != 1 || string(after[0].Sealed) != string(before[0].Sealed) {
		t.Error("the store was changed")
	}
}

func TestStorageKeyCanBeChanged(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	compact := sign(t, open(t, cfg), c.Now())
	oldKey, newKey := make([]byte, seal.KeySize), make([]byte, seal.KeySize)
	for i := range oldKey {
		oldKey[i], newKey[i] = 1, 2
	}
	both, err := seal.New(newKey, oldKey)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Source = sealed(both)
	r := open(t, cfg)
	if err := check(r, compact, c.Now()); err != nil {
		t.Error(err)
	}
	live(t, r, c, 140*time.Second)
	one, err := seal.New(newKey)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Source = sealed(one)
	if after := open(t, cfg); signing(t, after) != signing(t, r) {
		t.Error("another key signs once the old storage key is given up")
	}
}

// Who can write the database cannot make us trust a key.
func TestPlantedRowsAreNotTrusted(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	r := open(t, cfg)
	genuine := row(t, s, signing(t, r))

	evil, err := newKey(t.Context(), cfg, accesstoken.EdDSA, start.Add(time.Hour), unused)
	if err != nil {
		t.Fatal(err)
	}
	for name, sealed := range map[string][]byte{
		"public half alone":     nil,
		"another row's sealed":  genuine.Sealed,
		"under a key of theirs": newBox(t, 9).Seal([]byte("der"), "signing_keys/"+evil.row.ID),
		"garbage":               []byte("garbage"),
	} {
		planted := testPolicy.date(evil.row, c.Now(), c.Now())
		planted.ID, planted.Sealed = evil.row.ID+"-"+strings.ReplaceAll(name, " ", "-"), sealed
		if err := s.CreateKey(t.Context(), planted); err != nil {
			t.Fatal(err)
		}
		before := value(t, r.metrics.rejected, rejectedMAC)
		refresh(t, r)
		if sealed != nil && value(t, r.metrics.rejected, rejectedMAC) != before+1 {
			t.Errorf("%s: nobody is told", name)
		}
		if _, ok := r.Key(planted.ID); ok || r.Public().Len() != 1 || signing(t, r) != genuine.ID {
			t.Errorf("%s: trusted", name)
		}
		if err := s.DeleteKey(t.Context(), planted.ID); err != nil {
			t.Fatal(err)
		}
	}
	// The public column is not believed either.
	genuine.PublicJWK = evil.row.PublicJWK
	if err := s.DeleteKey(t.Context(), genuine.ID); err != nil {
		t.Fatal(err)
	}
	moved := genuine
	moved.ID = genuine.ID + "x"
	if err := s.CreateKey(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	if got := signing(t, open(t, cfg)); got == moved.ID || got == genuine.ID {
		t.Errorf("a row under another name: %q signs", got)
	}
}

// A gate lets nobody write until all have seen what there is to do.
type gate struct {
	store.Store
	seen *sync.WaitGroup
}

func (g gate) Update(ctx context.Context, f func(store.Records) error) error {
	g.seen.Done()
	g.seen.Wait()
	return g.Store.Update(ctx, f)
}

func TestProcessesOnOneDatabaseShareTheirKeys(t *testing.T) {
	const processes = 8
	c := &clock{now: start}
	g := gate{newStore(t), new(sync.WaitGroup)}
	rings := make([]*Ring, processes)
	together := func(do func(i int) error) {
		t.Helper()
		g.seen.Add(processes)
		var wg sync.WaitGroup
		for i := range processes {
			wg.Go(func() {
				if err := do(i); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	agree := func(keys int) {
		t.Helper()
		for _, r := range rings {
			if kid := signing(t, r); kid == "" || kid != signing(t, rings[0]) {
				t.Fatalf("%q and %q sign", kid, signing(t, rings[0]))
			}
		}
		if n := len(rows(t, g)); n != keys {
			t.Fatalf("%d keys were made, want %d", n, keys)
		}
	}

	together(func(i int) (err error) {
		rings[i], err = Open(t.Context(), testConfig(t, g, c))
		return err
	})
	agree(1)
	c.Move(80 * time.Second)
	together(func(i int) error { return rings[i].Refresh(t.Context()) })
	agree(2)
	c.Move(20 * time.Second)
	for _, r := range rings {
		refresh(t, r)
	}
	agree(2)
}

func TestClockPutBack(t *testing.T) {
	for _, back := range []time.Duration{time.Minute, 24 * time.Hour} {
		s, c := newStore(t), &clock{now: start}
		cfg := testConfig(t, s, c)
		r := open(t, cfg)
		kid := signing(t, r)
		c.Move(-back)
		refresh(t, r)
		if signing(t, r) != kid {
			t.Fatalf("-%v: the key that signed does not", back)
		}
		r = open(t, cfg)
		if signing(t, r) != kid {
			t.Fatalf("-%v: the key that signed does not after a restart", back)
		}
		live(t, r, c, 105*time.Second)
		if second := signing(t, r); second == kid || second == "" {
			t.Errorf("-%v: %q signs after a key's time", back, second)
		}
	}
}

// The next key was made by a clock that was ahead. It is not waited for.
func TestClockPutBackDuringARotation(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	r := open(t, testConfig(t, s, c))
	first := signing(t, r)
	live(t, r, c, 75*time.Second)
	next := r.Public().Keys()[1].ID
	c.Move(-24 * time.Hour)
	live(t, r, c, 2*time.Second)
	if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
		t.Fatal(err)
	}
	for range 17 {
		live(t, r, c, time.Second)
		if signing(t, r) != first {
			t.Fatalf("%q signs before the next key can", signing(t, r))
		}
	}
	live(t, r, c, time.Second)
	if kid := signing(t, r); kid != next {
		t.Errorf("%q signs, want the key that was next", kid)
	}
	if k := row(t, s, next); k.RetireAt.Sub(c.Now()) > testPolicy.keyDuration {
		t.Errorf("it retires at %v", k.RetireAt)
	}
}

// A clock is put back over two rotations. By it, the key that signs was not even made, and another
// one comes before it. It goes on signing all the same, and its tokens verify until they expire, also after
// a restart, or if its row is lost.
func TestClockPutBackOverTwoRotations(t *testing.T) {
	for _, then := range []string{"", "restart", "lose the row"} {
		s, c := newStore(t), &clock{now: start}
		cfg := testConfig(t, s, c)
		r := open(t, cfg)
		last := ""
		for range 2 {
			live(t, r, c, time.Second)
			before := signing(t, r)
			if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
				t.Fatal(err)
			}
			live(t, r, c, testPolicy.ripen()+time.Second)
			if last = signing(t, r); last == before {
				t.Fatal("no other key signs")
			}
		}
		c.Move(-5 * time.Minute)
		refresh(t, r)
		if signing(t, r) != last {
			t.Fatal("the key that signed does not")
		}
		compact, until := sign(t, r, c.Now()), c.Now().Add(testPolicy.tokenDuration+testPolicy.leeway)
		for c.Now().Before(until) {
			if err := check(r, compact, c.Now()); err != nil {
				t.Fatalf("%s: %v, %v before its end", then, err, until.Sub(c.Now()))
			}
			switch then {
			case "restart":
				r = open(t, cfg)
			case "lose the row":
				if err := s.DeleteKey(t.Context(), last); err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Fatal(err)
				}
			}
			live(t, r, c, time.Second)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	for want, change := range map[string]func(*Config){
		"tokens.algorithm":    func(cfg *Config) { cfg.Algorithms = []string{"HS256"} },
		"tokens.key_duration": func(cfg *Config) { cfg.KeyDuration = cfg.TokenDuration - 1 },
		"may be cached":       func(cfg *Config) { cfg.MaxAge = cfg.KeyDuration },
		"cluster.instance_id": func(cfg *Config) { cfg.InstanceID = "" },
		"printable ASCII":     func(cfg *Config) { cfg.InstanceID = "two words" },
	} {
		cfg := testConfig(t, s, c)
		change(&cfg)
		if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if n := len(rows(t, s)); n != 0 {
		t.Errorf("%d keys were made", n)
	}
}

// Run is the same with timers, and with readers beside it.
func TestRunRotates(t *testing.T) {
	synctest.Test(t, runRotates)
}

func runRotates(t *testing.T) {
	cfg := testConfig(t, newStore(t), nil)
	cfg.Now = time.Now
	cfg.KeyDuration, cfg.TokenDuration, cfg.MaxAge, cfg.Leeway = time.Second, 500*time.Millisecond, 200*time.Millisecond, 0
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })

	var mu sync.Mutex
	seen := map[string]bool{}
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			// For three keys and what the last one ripens, with readings at moments at which Run works.
			for range int(3 * cfg.KeyDuration / (5 * time.Millisecond)) {
				time.Sleep(5 * time.Millisecond)
				s, err := r.Signer()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				seen[s.KeyID()] = true
				mu.Unlock()
				if _, ok := r.Key(s.KeyID()); !ok {
					t.Error("a key signs that is not published")
				}
			}
		})
	}
	readers.Wait()
	cancel()
	wg.Wait()
	if len(seen) < 3 {
		t.Errorf("%d keys signed in the time of three", len(seen))
	}
	if families, err := registry.Gather(); err != nil || len(families) != 5 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
}

func TestSignerAllocatesNothing(t *testing.T) {
	r := open(t, testConfig(t, newStore(t), &clock{now: start}))
	if n := testing.AllocsPerRun(100, func() { _, _ = r.Signer() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Replicas on one database whose tokens live for different times, one of them
// configured anew now and then: no token outlives its key in either key set, and
// there is nearly always somebody who signs.
func TestReplicasWhoseTokensLiveDifferentlyLong(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	lives := []time.Duration{time.Minute, 2 * time.Hour, 20 * time.Minute}
	boot := func(life time.Duration) (*Ring, time.Duration) {
		cfg := testConfig(t, s, c)
		cfg.KeyDuration, cfg.TokenDuration, cfg.MaxAge = 3*time.Hour, life, 30*time.Second
		return open(t, cfg), life + cfg.Leeway
	}
	needed := map[string]time.Time{} // by kid: until when a token that it signed is accepted
	a, lifeOfA := boot(lives[0])
	b, lifeOfB := boot(lives[1])
	silent, step := 0, 2
	if soak() {
		step = 1
	}
	for minute := 0; minute < 20*60; minute += step {
		c.Move(time.Duration(step) * time.Minute)
		switch {
		case minute%300 == 150:
			b, lifeOfB = boot(lives[minute/300%len(lives)])
		case minute%240 == 100:
			if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
				t.Fatal(err)
			}
		}
		refresh(t, a)
		refresh(t, b)
		for r, life := range map[*Ring]time.Duration{a: lifeOfA, b: lifeOfB} {
			if kid := signing(t, r); kid != "" {
				needed[kid] = latest(needed[kid], c.Now().Add(life))
			} else {
				silent++
			}
		}
		refresh(t, a) // what b has changed
		for kid, until := range needed {
			_, inA := a.Key(kid)
			_, inB := b.Key(kid)
			if c.Now().Before(until) && !(inA && inB) {
				t.Fatalf("minute %d: %s is needed until %v, and gone (%t, %t)", minute, kid, until, inA, inB)
			}
		}
	}
	if len(needed) < 6 || silent > 10 {
		t.Errorf("%d keys signed, and at %d readings none", len(needed), silent)
	}
}
