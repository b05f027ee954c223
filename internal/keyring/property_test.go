package keyring

import (
	"context"
	"flag"
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
)

// A life takes a tenth of a second, several with the race detector. After a change
// here run some hundred: go test ./internal/keyring -run Invariants -rapid.checks=500
func init() {
	lives := "12"
	if soak() {
		lives = "200"
	}
	_ = flag.Set("rapid.checks", lives)
}

// soak reports whether long tests are to run in their long form.
func soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// TestInvariants lives a ring's life at random: time passes, or stands still and
// then jumps, in either direction; the process is killed and started; the store
// fails in both ways, for a moment or for long; keys are rotated and revoked. After
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
		mode := rapid.SampledFrom(modes).Draw(rt, "mode")
		w := newWorld(t, rt, sqlstore.New(db), mode)
		rt.Repeat(map[string]func(*rapid.T){
			"":            w.invariants,
			"live":        w.live,
			"freeze":      w.freeze,
			"clock back":  w.clockBack,
			"kill":        w.kill,
			"store fails": w.storeFails,
			"store works": w.storeWorks,
			"rotate":      w.rotate,
			"revoke":      w.revoke,
		})
	})
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

type world struct {
	t     *testing.T
	rt    *rapid.T
	clock *clock
	store *faulty
	mode  string
	cfg   Config
	ring  *Ring // nil: the process is down

	age      time.Duration // how long the world has existed; a clock put back does not change it
	caches   []served      // what a cache that honours MaxAge may hold, oldest first
	tokens   []signed
	current  string          // who signed last
	removed  map[string]bool // kids that were published and are not any more
	revoked  map[string]bool
	believed map[string]bool // kids that were in the store when a life began
	excused  bool            // the last key was revoked: its successor need not be known
	good     time.Time       // when the store last did all that was asked
	ripening time.Time       // until then a new life may have no key
	putBack  bool            // the clock was, once
	dark     int             // for how many seconds nothing signed, with a store that works
}

func newWorld(t *testing.T, rt *rapid.T, s store.Store, mode string) *world {
	c := &clock{now: start}
	w := &world{t: t, rt: rt, clock: c, store: &faulty{Store: s},
		removed: map[string]bool{}, revoked: map[string]bool{}, believed: map[string]bool{}}
	w.cfg = testConfig(t, w.store, c)
	w.mode = mode
	random := rand.NewChaCha8([32]byte{})
	if w.cfg.Source = (keysource.Sealed{Box: newBox(t, 1), Rand: random}); mode == inMemory {
		w.cfg.Source = keysource.Memory{Rand: random}
	}
	w.boot()
	return w
}

// boot starts the process, if the store lets it.
func (w *world) boot() {
	for _, k := range rows(w.t, w.store.Store) {
		delete(w.removed, k.ID) // the row could not be deleted, and a clock may be back
		w.believed[k.ID] = true // to have been published, as Open believes
	}
	w.mayRipen()
	w.cfg.Registerer = prometheus.NewRegistry()
	ring, err := Open(context.Background(), w.cfg)
	if err != nil {
		return
	}
	w.ring, w.good = ring, w.clock.Now()
	if w.mode == inMemory {
		w.current, w.tokens = "", nil // nobody can verify them
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
		w.ripening = w.clock.Now().Add(testPolicy.ripen())
	}
}

func (w *world) refresh() {
	if w.ring == nil {
		w.boot()
	} else {
		w.mayRipen()
		if err := w.ring.Refresh(context.Background()); err == nil {
			w.good = w.clock.Now()
		}
	}
	w.observe()
}

// live lets time pass with Run at work.
func (w *world) live(rt *rapid.T) {
	for range rapid.IntRange(1, 20).Draw(rt, "seconds") {
		w.move(time.Second)
		w.observe()
		w.refresh()
		if w.dark++; w.ring != nil && w.signer() != "" || w.store.next != nil {
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
	w.good = w.clock.Now()
	w.tokens = nil // they come from the future
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

func (w *world) rotate(*rapid.T) {
	if err := RequestRotation(context.Background(), w.store.Store, w.clock.Now()); err != nil {
		w.rt.Fatal(err)
	}
	w.refresh()
}

func (w *world) revoke(rt *rapid.T) {
	keys := rows(w.t, w.store.Store)
	if len(keys) == 0 {
		return
	}
	kid := keys[rapid.IntRange(0, len(keys)-1).Draw(rt, "key")].ID
	if err := w.store.Store.Update(context.Background(), func(r store.Records) error {
		_, err := RevokeIn(context.Background(), r, Alone{}, kid, w.clock.Now())
		return err
	}); err != nil {
		rt.Fatal(err)
	}
	w.revoked[kid] = true
	w.excused = w.excused || kid == w.current
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

// observe is a request that fetches the key set and one that logs in.
func (w *world) observe() {
	if w.ring == nil {
		return
	}
	var kids []string
	for _, k := range w.ring.Public().Keys() {
		kids = append(kids, k.ID)
		if w.removed[k.ID] {
			w.rt.Fatalf("the kid %s was removed and came back", k.ID)
		}
		if w.revoked[k.ID] && w.store.next == nil {
			w.rt.Fatalf("the revoked key %s is published", k.ID)
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

func (w *world) observeSigner() {
	if w.ring == nil {
		return
	}
	kid := w.signer()
	if kid == "" {
		return
	}
	if kid != w.current {
		w.mayBegin(kid)
		w.current, w.excused = kid, false
	}
	until := w.clock.Now().Add(testPolicy.tokenDuration + testPolicy.leeway)
	w.tokens = append(w.tokens, signed{kid, until})
}

// mayBegin holds that every cache has the key that begins to sign, unless none of
// the keys that a cache may have can sign any more, or the last one was revoked.
func (w *world) mayBegin(kid string) {
	if w.mode == inDatabase && w.believed[kid] {
		return
	}
	for _, c := range w.caches {
		if c.age <= w.age-testPolicy.maxAge || slices.Contains(c.kids, kid) || w.excused {
			continue
		}
		for _, other := range c.kids {
			if !w.removed[other] && !w.revoked[other] {
				w.rt.Fatalf("%s signs, but %v ago the key set was %v", kid, w.age-c.age, c.kids)
			}
		}
	}
}

func (w *world) invariants(rt *rapid.T) {
	w.rt = rt
	w.observe()
	if w.ring == nil {
		return
	}
	now := w.clock.Now()
	kid := w.signer()
	if kid != "" {
		if _, published := w.ring.Key(kid); !published {
			rt.Fatalf("%s signs and is not published", kid)
		}
		if !slices.ContainsFunc(rows(w.t, w.store.Store), func(k store.Key) bool { return k.ID == kid }) {
			rt.Fatalf("%s signs and is not in the store", kid)
		}
	}
	unreplaced := w.excused && w.store.next != nil
	if kid == "" && !w.putBack && now.After(w.ripening) && !unreplaced && now.Sub(w.good) <= testPolicy.slack() {
		rt.Fatalf("nothing signs, although the store was well %v ago", now.Sub(w.good))
	}
	// Behind a clock that was ahead a key may look as if it had not signed yet, and is
	// ripened again.
	if time.Duration(w.dark)*time.Second > 2*testPolicy.ripen() {
		rt.Fatalf("nothing signed for %d seconds, although the store is well", w.dark)
	}
	for _, s := range w.tokens {
		if _, ok := w.ring.Key(s.kid); !ok && now.Before(s.until) {
			rt.Fatalf("a token of %s does not verify, %v before its end", s.kid, s.until.Sub(now))
		}
	}
	w.tokens = slices.DeleteFunc(w.tokens, func(s signed) bool { return !now.Before(s.until) })
}
