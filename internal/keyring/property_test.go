package keyring

import (
	"context"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// `make ci` has the same lives each time, and `make soak` others (scripts/test.sh). After a change of
// the ring live some thousand, which take a minute without the race detector:
// go test ./internal/keyring -run Invariants -rapid.checks=3000
func init() {
	lives := "40"
	if soak() {
		lives = "1000"
	}
	_ = flag.Set("rapid.checks", lives)
}

// soak reports whether long tests are to run in their long form.
func soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// TestInvariants lives a ring's life at random: time passes, or stands still and
// then jumps, in either direction; the process is killed and started; the store
// fails in both ways, for a moment or for long; a keeper is away, or gets new keys; keys are
// rotated, also at once, and revoked; there are one or two algorithms. After
// each step the promises of Ring are held against what an outsider can know: the
// key sets that were served, the tokens that were signed, the rows.
func TestInvariants(t *testing.T) {
	t.Setenv("GODEBUG", "cryptocustomrand=1") // keys come from Source.Rand, so that a failure repeats
	db := newDatabase(t)
	rapid.Check(t, func(rt *rapid.T) {
		for _, table := range []string{"signing_keys", "registered_keys", "used_kids", "settings"} {
			if _, err := db.Exec(t.Context(), "DELETE FROM "+table); err != nil {
				rt.Fatal(err)
			}
		}
		mode := rapid.SampledFrom([]string{inDatabase, inMemory, inKeeper}).Draw(rt, "mode")
		w := newWorld(t, rt, sqlstore.New(db), mode)
		actions := map[string]func(*rapid.T){
			"":            w.invariants,
			"live":        w.live,
			"freeze":      w.freeze,
			"clock back":  w.clockBack,
			"kill":        w.kill,
			"store fails": w.storeFails,
			"store works": w.storeWorks,
			"rotate":      w.rotate,
			"revoke":      w.revoke,
		}
		if mode == inKeeper {
			actions["keeper has a new key"] = w.newKept
			actions["keeper is away"] = w.keeperAway
			actions["keeper is back"] = w.keeperBack
		}
		rt.Repeat(actions)
	})
}

// inKeeper is the mode of keys that a keeper has.
const inKeeper = "keeper"

// A repeatable source of randomness gives the same keys each time. Package ecdsa reads one byte first,
// or does not, at random (crypto/internal/randutil): such a byte is not taken from the source.
type repeatable struct{ io.Reader }

func (r repeatable) Read(p []byte) (int, error) {
	if len(p) == 1 {
		return 1, nil
	}
	return r.Reader.Read(p)
}

// A served is a key set as a cache may hold it.
type served struct {
	age  time.Duration // of the world, when it was served last
	kids []string
}

// A signed is a token that was signed and must verify.
type signed struct {
	kid   string
	until time.Time // leeway included
}

// A published key is in the key set.
type published struct {
	age     time.Duration // of the world, when it was seen there first
	follows bool          // another key signed then
}

type world struct {
	t      *testing.T
	rt     *rapid.T
	clock  *clock
	store  *faulty
	keeper *keeper // of inKeeper
	random io.Reader
	mode   string
	cfg    Config
	policy policy
	ring   *Ring // nil: the process is down

	age       time.Duration // how long the world has existed; a clock put back does not change it
	caches    []served      // what a cache that honours MaxAge may hold, oldest first
	tokens    []signed
	current   map[string]string // who signed last, by algorithm
	published map[string]published
	removed   map[string]bool // kids that were published and are not any more
	revoked   map[string]bool
	believed  map[string]bool      // kids that were in the store when a life began
	lapsed    map[string]bool      // by algorithm: none signed, because the store or the process was away for too long
	excused   map[string]bool      // by algorithm: the last key was revoked, and its successor need not be known
	good      map[string]time.Time // by algorithm: when the store and the keeper last did all that was asked
	late      map[string]time.Time // by algorithm: until then the next key may ripen that was due while store or keeper were away
	atOnce    time.Time            // when a rotation at once was asked for last
	ripening  time.Time            // until then a new life may have no key
	putBack   bool                 // the clock was, once
	dark      int                  // for how many seconds nothing signed, with a store and a keeper that work
}

func newWorld(t *testing.T, rt *rapid.T, s store.Store, mode string) *world {
	c := &clock{now: start}
	w := &world{t: t, rt: rt, clock: c, store: &faulty{Store: s}, mode: mode, random: repeatable{rand.NewChaCha8([32]byte{})},
		current: map[string]string{}, published: map[string]published{}, removed: map[string]bool{}, revoked: map[string]bool{},
		believed: map[string]bool{}, excused: map[string]bool{}, lapsed: map[string]bool{}, good: map[string]time.Time{}, late: map[string]time.Time{}}
	w.cfg = testConfig(t, w.store, c)
	w.cfg.PublishAhead = rapid.SampledFrom([]time.Duration{0, publishAhead}).Draw(rt, "ahead")
	w.cfg.Algorithms = [][]string{{accesstoken.EdDSA}, {accesstoken.EdDSA, accesstoken.ES256}}[rapid.IntRange(0, 1).Draw(rt, "second algorithm")]
	w.policy = testPolicy
	w.policy.ahead = max(w.cfg.PublishAhead, w.cfg.MaxAge)
	switch mode {
	case inDatabase:
		w.cfg.Source = keysource.Sealed{Box: newBox(t, 1), Rand: w.random}
	case inMemory:
		w.cfg.Source = keysource.Memory{Rand: w.random}
	case inKeeper:
		w.keeper = &keeper{}
		w.keeper.makeFor(t, accesstoken.EdDSA, w.random)
		w.cfg.Source = outside(t, w.keeper)
	}
	w.boot()
	return w
}

// boot starts the process, if the store and the keeper let it.
func (w *world) boot() {
	for _, k := range rows(w.t, w.store.Store) {
		if State(k, w.clock.Now()) != Removed {
			w.comesBack(k.ID) // the row was not deleted, and a clock is back
		}
		w.believed[k.ID] = true // to have been published, as Open believes
	}
	w.mayRipen()
	w.cfg.Registerer = prometheus.NewRegistry()
	ring, err := Open(context.Background(), w.cfg)
	if err != nil {
		return
	}
	w.ring = ring
	w.worked(w.cfg.Algorithms[0], nil)
	if w.mode == inMemory {
		clear(w.current) // nobody can verify their tokens
		w.tokens = nil
	}
}

// comesBack notes that a key may be published again that was removed. Then caches have to learn of it
// again.
func (w *world) comesBack(kid string) {
	if w.removed[kid] {
		delete(w.removed, kid)
		delete(w.published, kid)
	}
}

// mayRipen notes that a process with its keys in memory, which has none now, must
// wait for the next one if there are others that a cache may hold.
func (w *world) mayRipen() {
	own, others := false, false
	for _, k := range rows(w.t, w.store.Store) {
		switch State(k, w.clock.Now()) {
		case Removed, Revoked:
			continue
		}
		held := false
		if w.ring != nil {
			_, held = w.ring.Key(k.ID)
		}
		own, others = own || held, others || !held
	}
	if w.mode == inMemory && !own && others {
		w.ripening = w.clock.Now().Add(w.policy.ripen())
	}
}

func (w *world) refresh() {
	if w.ring == nil {
		w.boot()
	}
	if w.ring != nil { // as Run does at once
		w.mayRipen()
		err := w.ring.Refresh(context.Background())
		for _, algorithm := range w.cfg.Algorithms {
			w.worked(algorithm, err)
		}
	}
	w.observe()
}

// worked notes whether the store and the keeper did all that was asked for an algorithm. One whose
// key the keeper does not have holds up no other. If they had not for longer than slack, the next key
// may be known only now, and not be ripe when the present one stops.
func (w *world) worked(algorithm string, err error) {
	if err != nil && !(w.well() && w.unused(algorithm)) {
		return
	}
	now, former := w.clock.Now(), w.row(w.current[algorithm])
	if now.Sub(w.good[algorithm]) > w.policy.slack() && (former == nil || now.Add(w.policy.follow()).After(w.policy.end(*former))) {
		w.late[algorithm] = now.Add(w.policy.follow())
	}
	w.good[algorithm] = now
}

// well reports whether the store and the keeper work.
func (w *world) well() bool { return w.store.next == nil && (w.keeper == nil || w.keeper.err == nil) }

// unused reports whether a key can be made, or the keeper has one that was never used.
func (w *world) unused(algorithm string) bool {
	if w.keeper == nil {
		return true
	}
	keys, _ := w.keeper.Keys(context.Background(), algorithm)
	if len(keys) == 0 {
		return false
	}
	kid := accesstoken.Key{Algorithm: algorithm, Public: keys[len(keys)-1].Public()}.Thumbprint()
	_, used := w.published[kid]
	return !used && !w.revoked[kid] && !slices.ContainsFunc(rows(w.t, w.store.Store), func(k store.Key) bool { return k.ID == kid })
}

// live lets time pass with Run at work.
func (w *world) live(rt *rapid.T) {
	for range rapid.IntRange(1, 20).Draw(rt, "seconds") {
		w.move(time.Second)
		w.observe()
		w.refresh()
		if w.dark++; w.ring != nil && w.signer() != "" || !w.well() || !w.unused(w.cfg.Algorithms[0]) {
			w.dark = 0
		}
	}
}

// freeze lets time pass with the process standing still, or puts the clock forward.
func (w *world) freeze(rt *rapid.T) {
	w.move(time.Duration(rapid.IntRange(1, 300_000).Draw(rt, "milliseconds")) * time.Millisecond)
	w.observeSigner() // a request can be the first to wake
	w.refresh()
}

func (w *world) clockBack(rt *rapid.T) {
	w.putBack, w.dark = true, 0
	back := time.Duration(rapid.IntRange(1, 300).Draw(rt, "seconds")) * time.Second
	w.clock.Move(-back)
	for algorithm := range w.good {
		w.good[algorithm] = w.clock.Now()
	}
	w.tokens = nil // they come from the future
	for _, k := range rows(w.t, w.store.Store) {
		if w.mode == inKeeper && State(k, w.clock.Now()) != Removed {
			w.comesBack(k.ID) // its time has not ended any more
		}
	}
	w.refresh()
}

func (w *world) kill(*rapid.T) {
	w.ring, w.dark = nil, 0
	w.refresh()
}

func (w *world) storeFails(rt *rapid.T) {
	faults := rapid.SliceOfN(rapid.SampledFrom([]fault{works, notPersisted, persisted}), 1, 8).Draw(rt, "faults")
	i := -1
	w.store.next = func() fault { i++; return faults[i%len(faults)] }
	w.refresh()
}

func (w *world) storeWorks(*rapid.T) {
	w.store.next = nil
	w.refresh()
}

func (w *world) rotate(rt *rapid.T) {
	atOnce := rapid.Bool().Draw(rt, "at once")
	if err := RequestRotation(context.Background(), w.store.Store, w.clock.Now(), atOnce); err != nil {
		rt.Fatal(err)
	}
	if atOnce {
		w.atOnce = w.clock.Now()
	}
	w.refresh()
}

func (w *world) revoke(rt *rapid.T) {
	keys := rows(w.t, w.store.Store)
	if len(keys) == 0 {
		return
	}
	row := keys[rapid.IntRange(0, len(keys)-1).Draw(rt, "key")]
	kid := row.ID
	cameLast := w.cameLast(row)
	if err := w.store.Store.Update(context.Background(), func(r store.Records) error {
		_, err := RevokeIn(context.Background(), r, Alone{}, kid, w.clock.Now())
		return err
	}); err != nil {
		rt.Fatal(err)
	}
	w.revoked[kid] = true
	if kid == w.current[row.Algorithm] || cameLast {
		w.excused[row.Algorithm] = true
	}
	w.tokens = slices.DeleteFunc(w.tokens, func(s signed) bool { return s.kid == kid })
	if w.ring != nil {
		w.mayRipen()
		_ = w.ring.ReplaceRevoked(context.Background(), kid)
		if _, published := w.ring.Key(kid); published || w.signer() == kid {
			rt.Fatalf("the revoked key %s is used", kid)
		}
	}
	w.refresh()
}

func (w *world) newKept(rt *rapid.T) {
	w.keeper.makeFor(w.t, rapid.SampledFrom(w.cfg.Algorithms).Draw(rt, "algorithm"), w.random)
	w.refresh()
}

func (w *world) keeperAway(*rapid.T) {
	w.keeper.err = keysource.ErrKeeperAway
	w.refresh()
}

func (w *world) keeperBack(*rapid.T) {
	w.keeper.err = nil
	w.refresh()
}

func (w *world) move(d time.Duration) {
	w.clock.Move(d)
	w.age += d
}

func (w *world) signer() string {
	s, err := w.ring.Signer()
	if err != nil {
		return ""
	}
	return s.KeyID()
}

// signerFor returns the kid that signs for an algorithm, or "".
func (w *world) signerFor(algorithm string) string {
	turn, ok := w.ring.view.Load().signing[algorithm]
	if !ok || !w.clock.Now().Before(turn.until) {
		return ""
	}
	return turn.signer.KeyID()
}

// observe is a request that fetches the key set and one that logs in.
func (w *world) observe() {
	if w.ring == nil {
		return
	}
	var kids []string
	for _, k := range w.ring.Public().Keys() {
		kids = append(kids, k.ID)
		if w.removed[k.ID] {
			if !w.keepersLast(k.ID) {
				w.rt.Fatalf("the kid %s was removed and came back", k.ID)
			}
			w.comesBack(k.ID)
		}
		if w.revoked[k.ID] && w.store.next == nil {
			w.rt.Fatalf("the revoked key %s is published", k.ID)
		}
		if _, known := w.published[k.ID]; !known {
			follows := false
			for _, algorithm := range w.cfg.Algorithms {
				signs := w.signerFor(algorithm)
				follows = follows || signs != "" && signs != k.ID
			}
			w.published[k.ID] = published{w.age, follows && !w.lapsed[k.Algorithm]}
		}
	}
	if n := len(w.caches); n > 0 && slices.Equal(w.caches[n-1].kids, kids) {
		w.caches[n-1].age = w.age
	} else {
		if n > 0 {
			for _, kid := range w.caches[n-1].kids {
				w.removed[kid] = w.removed[kid] || !slices.Contains(kids, kid)
			}
		}
		w.caches = append(w.caches, served{w.age, kids})
	}
	w.observeSigner()
}

// keepersLast reports whether a key is the one of a keeper that goes on after its time has ended,
// while nobody could prolong it: no other one of its algorithm is published or has come to sign
// since.
func (w *world) keepersLast(kid string) bool {
	if w.mode != inKeeper {
		return false
	}
	this, _ := w.ring.Key(kid)
	for _, k := range w.ring.Published() {
		if k.ID != kid && k.Algorithm == this.Algorithm {
			return false
		}
	}
	last := slices.MaxFunc(slices.DeleteFunc(rows(w.t, w.store.Store), func(k store.Key) bool {
		return k.Algorithm != this.Algorithm || !k.RevokedAt.IsZero()
	}), byActivation)
	return last.ID == kid
}

func (w *world) observeSigner() {
	if w.ring == nil {
		return
	}
	for _, algorithm := range w.cfg.Algorithms {
		kid := w.signerFor(algorithm)
		if kid == "" {
			if w.clock.Now().Sub(w.good[algorithm]) > w.policy.slack() {
				w.lapsed[algorithm] = true // its next key may follow one of the other algorithm
			}
			continue
		}
		w.lapsed[algorithm] = false
		if kid != w.current[algorithm] {
			if !w.excused[algorithm] {
				w.mayBegin(algorithm, kid)
			}
			w.current[algorithm], w.excused[algorithm] = kid, false
		}
		until := w.clock.Now().Add(w.policy.tokenDuration + w.policy.leeway)
		w.tokens = append(w.tokens, signed{kid, until})
	}
}

// mayBegin holds that a key that begins to sign has been published for as long as is promised,
// and that every cache has it, unless none of the keys that a cache may have can sign any more.
func (w *world) mayBegin(algorithm, kid string) {
	row := row(w.t, w.store.Store, kid)
	if p := w.published[kid]; p.follows && !w.putBack {
		since := w.age - p.age
		if w.believed[kid] {
			since = w.clock.Now().Sub(row.CreatedAt)
		}
		want := w.policy.ahead
		if former := w.row(w.current[algorithm]); former != nil && former.ActivateAt.Before(w.atOnce) {
			want = w.policy.maxAge
		}
		if since < want {
			w.rt.Fatalf("%s of %s signs after %v, and not %v, after %s", kid, algorithm, since, want, w.current[algorithm])
		}
	}
	if w.mode != inMemory && w.believed[kid] {
		return
	}
	if w.putBack && superseded(nil, w.tombstones(algorithm), w.clock.Now()) {
		return // by the clock that was put back, a revoked key may have come to sign after the former one
	}
	for _, c := range w.caches {
		if c.age <= w.age-w.policy.maxAge || slices.Contains(c.kids, kid) {
			continue
		}
		for _, other := range c.kids {
			if !w.removed[other] && !w.revoked[other] {
				w.rt.Fatalf("%s signs, but %v ago the key set was %v", kid, w.age-c.age, c.kids)
			}
		}
	}
}

// tombstones returns the rows of the revoked keys of an algorithm.
func (w *world) tombstones(algorithm string) []store.Key {
	return slices.DeleteFunc(rows(w.t, w.store.Store), func(k store.Key) bool { return k.Algorithm != algorithm || k.RevokedAt.IsZero() })
}

// cameLast reports whether a key, by its times, was the last of its algorithm that came to sign, or
// signs.
func (w *world) cameLast(row store.Key) bool {
	now := w.clock.Now()
	later := func(k store.Key) bool {
		return k.Algorithm == row.Algorithm && k.RevokedAt.IsZero() && !k.ActivateAt.After(now) && byActivation(k, row) > 0
	}
	phase := State(row, now)
	return phase == Active || phase == Retiring && !slices.ContainsFunc(rows(w.t, w.store.Store), later)
}

// row returns the row of a key in the store, or nil.
func (w *world) row(kid string) *store.Key {
	for _, k := range rows(w.t, w.store.Store) {
		if k.ID == kid {
			return &k
		}
	}
	return nil
}

// wellBefore holds that what is wrong comes of a store or keeper that was away for too long, or of
// a clock that was put back.
func (w *world) wellBefore(algorithm, wrong string) {
	now := w.clock.Now()
	if since := now.Sub(w.good[algorithm]); !w.putBack && now.After(w.ripening) && now.After(w.late[algorithm]) && since <= w.policy.slack() {
		w.rt.Fatalf("%s, although the store was well %v ago", wrong, since)
	}
}

func (w *world) invariants(rt *rapid.T) {
	w.rt = rt
	w.observe()
	if w.ring == nil {
		return
	}
	now := w.clock.Now()
	count := map[string]int{}
	for _, k := range w.ring.Published() {
		phase := string(State(k.Row, now)) + " key for " + k.Algorithm
		if count[phase]++; count[phase] > 1 && !w.putBack && (State(k.Row, now) == Active || State(k.Row, now) == Published) {
			rt.Fatalf("there is more than one %s", phase)
		}
	}
	unreplaced := false
	for _, algorithm := range w.cfg.Algorithms {
		kid := w.signerFor(algorithm)
		if kid != "" {
			if _, published := w.ring.Key(kid); !published {
				rt.Fatalf("%s signs and is not published", kid)
			}
			if w.row(kid) == nil {
				rt.Fatalf("%s signs and is not in the store", kid)
			}
		}
		excused := w.excused[algorithm] && (!w.well() || !w.unused(algorithm))
		unreplaced = unreplaced || excused
		if kid == "" && w.current[algorithm] != "" && !w.lapsed[algorithm] && !excused {
			w.wellBefore(algorithm, "nothing signs for "+algorithm)
		}
	}
	if w.signer() == "" && !unreplaced {
		w.wellBefore(w.cfg.Algorithms[0], "nothing signs")
	}
	// Behind a clock that was ahead a key may look as if it had not signed yet, and is
	// ripened again.
	if time.Duration(w.dark)*time.Second > 2*w.policy.follow() {
		rt.Fatalf("nothing signed for %d seconds, although the store is well", w.dark)
	}
	for _, s := range w.tokens {
		if _, ok := w.ring.Key(s.kid); !ok && now.Before(s.until) {
			rt.Fatalf("a token of %s does not verify, %v before its end", s.kid, s.until.Sub(now))
		}
	}
	w.tokens = slices.DeleteFunc(w.tokens, func(s signed) bool { return !now.Before(s.until) })
}
