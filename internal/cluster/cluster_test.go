package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const testSecret = "0123456789abcdef0123456789abcdef"

// A clock is the real one, moved by the test.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) Move(d time.Duration) { c.ahead.Add(int64(d)) }

// A logBuffer is a log that a test reads.
type logBuffer = testenv.Log

// A testRegistry is the real one, until it is away; it counts its readings.
type testRegistry struct {
	*sqlstore.Store
	db   *sqldb.DB
	away atomic.Bool
	hung atomic.Bool // it does not even fail
	read atomic.Int64
}

var errAway = errors.New("away")

func (r *testRegistry) RegistryVersion(ctx context.Context) (int64, error) {
	r.read.Add(1)
	if r.away.Load() {
		return 0, errAway
	}
	if r.hung.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return r.Store.RegistryVersion(ctx)
}

func openRegistry(t testing.TB) *testRegistry {
	t.Helper()
	db := sqldbtest.Open(t)
	return &testRegistry{Store: sqlstore.New(db), db: db}
}

// keys are a replica's own.
type keys struct {
	set atomic.Pointer[accesstoken.KeySet]
}

func (k *keys) Public() *accesstoken.KeySet    { return k.set.Load() }
func (k *keys) Published() []keyring.PublicKey { return nil }

func config(r Registry, c *clock, instance string) Config {
	return Config{
		Registry: r, Secret: testSecret, Instance: instance, Version: "test", MaxAge: 10 * time.Second,
		Algorithms: accesstoken.Algorithms(), Now: c.Now, Incarnation: rand.Text(),
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Refresh: time.Hour, Client: func(string) *http.Client { return http.DefaultClient }, Notify: func() {},
	}
}

// join starts a replica without keys. It looks at the registry when the test says so.
func join(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	c, err := Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Serve(&keys{})
	return c
}

// waiting is what a replica waits for.
func waiting(c *Cluster) string { return problem.From(c.NoSigner(keyring.ErrNoSigningKey)).Error() }

// patient has a replica, which does not run yet, give a look all the time that it takes on
// a machine that does a lot besides.
func patient(c *Cluster) *Cluster {
	c.lookup.timeout = time.Minute
	return c
}

// run starts the loop of a replica and ends it with the test.
func run(t testing.TB, c *Cluster) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func look(t testing.TB, c *Cluster) {
	t.Helper()
	if err := c.round(t.Context(), timing.RegistryTimeout); err != nil {
		t.Fatal(err)
	}
}

// row is that of a new key, vouched for under the tests' secret.
func row(t testing.TB, now time.Time, instance, algorithm string) store.Key {
	t.Helper()
	private, err := token.GenerateKey(rand.Reader, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	public := accesstoken.Key{Algorithm: algorithm, Public: private.Public()}
	public.ID = instance + "-" + public.Thumbprint()
	return rowOfKey(t, now, instance, public)
}

// sharedRow is the row of a new key that several replicas sign with.
func sharedRow(t testing.TB, now time.Time, instance, algorithm string) store.Key {
	t.Helper()
	private, err := token.GenerateKey(rand.Reader, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	public := accesstoken.Key{Algorithm: algorithm, Public: private.Public()}
	public.ID = public.Thumbprint()
	return rowOfKey(t, now, instance, public)
}

func rowOfKey(t testing.TB, now time.Time, instance string, public accesstoken.Key) store.Key {
	t.Helper()
	var err error
	k := store.Key{
		ID: public.ID, Instance: instance, Algorithm: public.Algorithm,
		CreatedAt: now.UTC().Truncate(time.Microsecond), RemoveAt: now.Add(time.Hour).UTC().Truncate(time.Microsecond),
	}
	k.ActivateAt, k.RetireAt = k.CreatedAt, k.RemoveAt
	if k.PublicJWK, err = public.MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	return vouch(k)
}

func vouch(k store.Key) store.Key {
	s, err := newSecret(testSecret)
	if err != nil {
		panic(err)
	}
	k.MAC = s.key(k)
	return k
}

// renamed is the row with another kid, vouched for.
func renamed(k store.Key, kid string) store.Key {
	k.PublicJWK = []byte(strings.Replace(string(k.PublicJWK), k.ID, kid, 1))
	k.ID = kid
	return vouch(k)
}

func create(t testing.TB, r *testRegistry, k store.Key) {
	t.Helper()
	if err := r.CreateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

// count reads a counter, of several the one with that label.
func count(t testing.TB, c prometheus.Collector, label string) int {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if label == "" || m.GetLabel()[0].GetValue() == label {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	t.Fatalf("nothing is counted for %q", label)
	return 0
}

// A key of a replica whose clock is ahead stands where its maker has it.
func TestStatusByTheMakersClock(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	c.Move(5 * time.Second)
	cl := join(t, config(r, c, "auth-0"))
	create(t, r, row(t, c.Now(), "auth-0", accesstoken.ES256))
	look(t, cl)
	status, err := ReadStatus(t.Context(), r, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	if k := status.Replicas[0].Keys[0]; k.Phase != keyring.Active {
		t.Errorf("its active key is %s", k.Phase)
	}
}

// What is not vouched for, or speaks for somebody else, is not taken in, and is
// counted once however often it is read.
func TestOnlyWhatIsVouchedFor(t *testing.T) {
	c := &clock{}
	now := c.Now()
	good := row(t, now, "auth-1", accesstoken.ES256)
	for _, tt := range []struct {
		name   string
		reason string
		change func(k *store.Key)
	}{
		{"as it is", "", func(*store.Key) {}},
		{"no MAC", wrongMAC, func(k *store.Key) { k.MAC = nil }},
		{"another secret", wrongMAC, func(k *store.Key) {
			s, err := newSecret(strings.ToUpper(testSecret))
			if err != nil {
				t.Fatal(err)
			}
			k.MAC = s.key(*k)
		}},
		{"the MAC of another purpose", wrongMAC, func(k *store.Key) {
			s, err := newSecret(testSecret)
			if err != nil {
				t.Fatal(err)
			}
			s.keys = s.replicas
			k.MAC = s.key(*k)
		}},
		{"another public key under the MAC", wrongMAC, func(k *store.Key) { k.PublicJWK = row(t, now, "auth-1", accesstoken.ES256).PublicJWK }},
		{"a longer life under the MAC", wrongMAC, func(k *store.Key) { k.RemoveAt = k.RemoveAt.Add(time.Hour) }},
		{"the kid of another replica", wrongOwner, func(k *store.Key) { k.Instance = "auth-2"; *k = vouch(*k) }},
		{"a kid of another key", wrongOwner, func(k *store.Key) {
			other := row(t, now, "auth-1", accesstoken.ES256)
			k.PublicJWK = []byte(strings.Replace(string(other.PublicJWK), other.ID, k.ID, 1))
			*k = vouch(*k)
		}},
		{"a shared key", "", func(k *store.Key) { *k = sharedRow(t, now, "auth-1", accesstoken.ES256) }},
		{"a shared key without a MAC", wrongMAC, func(k *store.Key) { *k = sharedRow(t, now, "auth-1", accesstoken.ES256); k.MAC = nil }},
		{"a shared key under the MAC of another one", wrongMAC, func(k *store.Key) {
			*k = sharedRow(t, now, "auth-1", accesstoken.ES256)
			k.MAC = sharedRow(t, now, "auth-1", accesstoken.ES256).MAC
		}},
		{"a shared key of another replica under its MAC", wrongMAC, func(k *store.Key) { *k = sharedRow(t, now, "auth-1", accesstoken.ES256); k.Instance = "auth-2" }},
		{"the thumbprint of another key", wrongOwner, func(k *store.Key) {
			*k = renamed(sharedRow(t, now, "auth-1", accesstoken.ES256), sharedRow(t, now, "auth-1", accesstoken.ES256).ID)
		}},
		{"half a thumbprint", wrongOwner, func(k *store.Key) {
			*k = sharedRow(t, now, "auth-1", accesstoken.ES256)
			*k = renamed(*k, k.ID[:22])
		}},
		{"a shared kid in the row alone", wrongOwner, func(k *store.Key) {
			k.ID = strings.TrimPrefix(k.ID, "auth-1-")
			*k = vouch(*k)
		}},
		{"another algorithm in the row", wrongAlgorithm, func(k *store.Key) { k.Algorithm = accesstoken.EdDSA; *k = vouch(*k) }},
		{"an algorithm that is not accepted", wrongAlgorithm, func(k *store.Key) { *k = row(t, now, "auth-1", accesstoken.EdDSA) }},
		{"no key", wrongKey, func(k *store.Key) { k.PublicJWK = []byte(`{}`); *k = vouch(*k) }},
		{"a private key", wrongKey, func(k *store.Key) {
			k.PublicJWK = []byte(strings.Replace(string(k.PublicJWK), "{", `{"d":"AA",`, 1))
			*k = vouch(*k)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := openRegistry(t)
			cfg := config(r, c, "auth-0")
			cfg.Algorithms = []string{accesstoken.ES256}
			log := &logBuffer{}
			cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
			cl := join(t, cfg)
			k := good
			tt.change(&k)
			create(t, r, k)
			look(t, cl)
			c.Move(timing.Beat)
			look(t, cl)
			if _, ok := cl.Keys().Key(k.ID); ok != (tt.reason == "") {
				t.Errorf("taken in: %v", ok)
			}
			for _, reason := range []string{wrongMAC, wrongOwner, wrongAlgorithm, wrongKey} {
				want := 0
				if reason == tt.reason {
					want = 1
				}
				if got := count(t, cl.metrics.rejected, reason); got != want {
					t.Errorf("%d rejected for %q, want %d", got, reason, want)
				}
			}
			saidOnce(t, log, tt.reason)
		})
	}
}

// A key stays until its end, though its row and the whole registry are gone; one
// that was revoked goes at once and does not come back.
func TestLastKnownGood(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	cl := join(t, config(r, c, "auth-0"))
	kept, revoked := row(t, c.Now(), "auth-1", accesstoken.ES256), row(t, c.Now(), "auth-1", accesstoken.ES256)
	create(t, r, kept)
	create(t, r, revoked)
	look(t, cl)
	if cl.Keys().Len() != 2 {
		t.Fatalf("%d keys", cl.Keys().Len())
	}
	if err := r.DeleteKey(t.Context(), kept.ID); err != nil {
		t.Fatal(err)
	}
	taken := revoked
	taken.RevokedAt = c.Now()
	if err := r.UpdateKey(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	look(t, cl)
	if err := r.UpdateKey(t.Context(), revoked); err != nil { // as if it had not been
		t.Fatal(err)
	}
	look(t, cl)
	if _, ok := cl.Keys().Key(revoked.ID); ok {
		t.Error("a revoked key came back")
	}
	r.away.Store(true)
	c.Move(59 * time.Minute)
	set := cl.Keys()
	if _, err := cl.Find(kept.ID); err != nil {
		t.Errorf("a key is gone before its end: %v", err)
	}
	if err := cl.round(t.Context(), timing.RegistryTimeout); !errors.Is(err, errAway) {
		t.Fatal(err)
	}
	if cl.Keys() != set {
		t.Error("the set was made anew, and nothing had changed")
	}
	c.Move(time.Minute)
	if err := cl.round(t.Context(), timing.RegistryTimeout); !errors.Is(err, errAway) {
		t.Fatal(err)
	}
	if n := cl.Keys().Len(); n != 0 {
		t.Errorf("%d keys after their end", n)
	}
}

// Others have a key when each that lives has seen it, and caches when MaxAge has
// passed since, the longest of all.
func TestEverybodyHasAKey(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	mine := join(t, config(r, c, "auth-0"))
	slow := config(r, c, "auth-1")
	slow.MaxAge = 2 * time.Minute
	other := join(t, slow)
	k := row(t, c.Now(), "auth-0", accesstoken.ES256)
	create(t, r, k)
	look(t, mine)
	look(t, mine)
	c.Move(3 * time.Minute)
	if mine.Have(k.ID) {
		t.Fatal("the other replica has not seen the key")
	}
	if !strings.Contains(waiting(mine), "auth-1") {
		t.Errorf("it waits for %q", waiting(mine))
	}
	look(t, other)
	look(t, mine)
	c.Move(time.Minute) // and the clock goes on while the machine does other things
	if mine.Have(k.ID) {
		t.Fatal("a cache may hold a key set of the other replica without the key")
	}
	c.Move(time.Minute)
	if !mine.Have(k.ID) {
		t.Fatal("everybody has it")
	}
	if mine.Have("auth-0-other") {
		t.Fatal("nobody knows that one")
	}
	// One that leaves is not waited for.
	next := row(t, c.Now(), "auth-0", accesstoken.ES256)
	create(t, r, next)
	look(t, mine)
	if err := other.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	look(t, mine)
	c.Move(2 * time.Minute)
	if !mine.Have(next.ID) {
		t.Error("it waits for a replica that has left")
	}
}

// A key whose algorithm a live replica does not accept is not used while its maker, who
// is told, waits; it holds up nobody when its maker has gone or was there before.
func TestAlgorithmThatIsNotAccepted(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	mine := join(t, config(r, c, "auth-0"))
	old := row(t, c.Now(), "auth-0", accesstoken.EdDSA)
	create(t, r, old)
	strict := config(r, c, "auth-1")
	strict.Algorithms = []string{accesstoken.ES256}
	other, third := join(t, strict), join(t, config(r, c, "auth-2"))
	known := func(k store.Key) bool {
		for range 2 {
			for _, cl := range []*Cluster{mine, other, third} {
				c.Move(timing.Beat)
				look(t, cl)
			}
		}
		c.Move(10 * time.Second)
		return mine.Have(k.ID) || third.Have(k.ID)
	}
	first := row(t, c.Now(), "auth-2", accesstoken.ES256)
	create(t, r, first)
	if !known(first) {
		t.Fatal("a key that was there before holds up another one")
	}
	k := row(t, c.Now(), "auth-0", accesstoken.EdDSA)
	create(t, r, k)
	if known(k) {
		t.Error("auth-1 would refuse its tokens")
	}
	if !strings.Contains(waiting(mine), "auth-1") {
		t.Errorf("it waits for %q", waiting(mine))
	}
	later := row(t, c.Now(), "auth-2", accesstoken.ES256)
	create(t, r, later)
	for rounds := 0; !known(later); rounds++ {
		if rounds == 10 {
			t.Fatal("a key that everybody accepts is held up for good by one that somebody does not")
		}
	}
	held := row(t, c.Now(), "auth-0", accesstoken.EdDSA)
	create(t, r, held)
	if known(held) {
		t.Error("auth-1 would refuse the tokens of the next one, too")
	}
	if err := mine.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	mine = third
	next := row(t, c.Now(), "auth-2", accesstoken.ES256)
	create(t, r, next)
	if !known(next) {
		t.Error("a key that nobody will use holds up another one")
	}
}

// After the restore of an older backup versions begin again at a lower one: what was
// made before it is waited for as what is made after it.
func TestRestoredRegistry(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	mine, other := join(t, config(r, c, "auth-0")), join(t, config(r, c, "auth-1"))
	if mine.AnyKey(time.Time{}) {
		t.Error("it knows a key, and there is none")
	}
	k := row(t, c.Now(), "auth-0", accesstoken.ES256)
	create(t, r, k)
	look(t, mine)
	look(t, other)
	for _, statement := range []string{"DELETE FROM signing_keys", "DELETE FROM registered_keys", "DELETE FROM used_kids", "UPDATE registry_head SET version = 0"} {
		if _, err := r.db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	look(t, mine)
	c.Move(10 * time.Second)
	if !mine.AnyKey(time.Time{}) {
		t.Error("it does not know the key any more")
	}
	if mine.Have(k.ID) {
		t.Error("its row is gone: who comes now does not learn of it")
	}
	create(t, r, k)
	look(t, mine)
	c.Move(10 * time.Second)
	if mine.Have(k.ID) {
		t.Error("the other one has not read the restored registry")
	}
	look(t, other)
	look(t, mine)
	c.Move(10 * time.Second)
	if !mine.Have(k.ID) {
		t.Error("everybody has it")
	}
}

// What holds a replica without a key up is said as it is: another replica, which is
// logged and counted when it takes long, caches, or the database.
func TestWaiting(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	log, cfg := &logBuffer{}, config(r, c, "auth-0")
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	mine, other := join(t, cfg), join(t, config(r, c, "auth-1"))
	k := row(t, c.Now(), "auth-0", accesstoken.ES256)
	create(t, r, k)
	says := func(want string) {
		t.Helper()
		if got := waiting(mine); !strings.Contains(got, want) {
			t.Errorf("it waits for %q", got)
		}
	}
	for range 3 {
		look(t, mine)
		says("auth-1")
		c.Move(cfg.MaxAge / 2)
	}
	look(t, mine)
	if n := count(t, mine.metrics.heldUp, ""); n != 1 || strings.Count(log.String(), "a live replica has not taken in") != 1 {
		t.Errorf("held up %d times, and the log says %s", n, log)
	}
	look(t, other)
	look(t, mine)
	says("no cache")
	c.Move(cfg.MaxAge * 4 / 10)
	says("; 6 s are left")
	if left := problem.From(mine.NoSigner(keyring.ErrNoSigningKey)).RetryAfter; left <= 5*time.Second || left > 6*time.Second {
		t.Errorf("Retry-After is %v", left)
	}
	c.Move(-cfg.MaxAge * 4 / 10)
	r.away.Store(true)
	if err := mine.round(t.Context(), timing.RegistryTimeout); err == nil {
		t.Fatal("the registry is there")
	}
	says("no cache")
	c.Move(cfg.MaxAge)
	says("the database")
}

// A silent replica is not waited for, except for the time that it needs to get the key
// from the key's maker: it may be cut off from the registry and go on serving key sets.
func TestSilentReplica(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	cfg := config(r, c, "auth-0")
	mine := join(t, cfg)
	join(t, config(r, c, "auth-1"))
	k := row(t, c.Now(), "auth-0", accesstoken.ES256)
	create(t, r, k)
	look(t, mine)
	c.Move(time.Hour)
	if mine.Have(k.ID) {
		t.Fatal("a live replica has not seen it")
	}
	if _, err := r.db.Exec(t.Context(), "UPDATE replicas SET beat_at = beat_at - ? WHERE instance = 'auth-1'", timing.LiveFor.Microseconds()); err != nil {
		t.Fatal(err)
	}
	c.Move(-time.Hour)
	look(t, mine)
	c.Move(cfg.MaxAge)
	if mine.Have(k.ID) {
		t.Error("the silent replica may serve key sets without it")
	}
	c.Move(timing.LiveFor + timing.CutOff - cfg.MaxAge)
	look(t, mine)
	c.Move(cfg.MaxAge)
	if !mine.Have(k.ID) {
		t.Error("it waits for a silent replica")
	}
}

// sign gives a replica's row the MAC that it has in the tests' cluster.
func sign(t testing.TB, r store.Replica) store.Replica {
	t.Helper()
	s, err := newSecret(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	r.MAC = s.replica(r)
	return r
}

// A replica whose row another one took says so, and enters again when it may.
func TestUsurped(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	cl := join(t, config(r, c, "auth-0"))
	usurper := sign(t, store.Replica{Instance: "auth-0", Incarnation: "x"})
	if _, err := r.EnterRegistry(t.Context(), usurper, 0); err != nil {
		t.Fatal(err)
	}
	for range 10 { // for as long as the other one beats
		beatAhead(t, r, "auth-0") // the database's clock is the machine's, which may be busy for longer than LiveFor
		look(t, cl)
		if !errors.Is(cl.Ready(), errTwice) {
			t.Fatalf("ready: %v", cl.Ready())
		}
		c.Move(timing.Beat)
		if err := r.Beat(t.Context(), usurper, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.LeaveRegistry(t.Context(), "auth-0", "x"); err != nil {
		t.Fatal(err)
	}
	c.Move(timing.Beat)
	look(t, cl)
	if err := cl.Ready(); err != nil {
		t.Error(err)
	}
}

// beatAhead puts the beat of a replica ahead of the database's clock.
func beatAhead(t testing.TB, r *testRegistry, instance string) {
	t.Helper()
	if _, err := r.db.Exec(t.Context(), "UPDATE replicas SET beat_at = beat_at + ? WHERE instance = ?", time.Hour.Microseconds(), instance); err != nil {
		t.Fatal(err)
	}
}

// A row that nobody vouches for takes no live replica out of service, however young it
// looks; one that somebody kept and wrote again does so for no longer than timing.LiveFor.
func TestForgedPlace(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	log, cfg := &logBuffer{}, config(r, c, "auth-0")
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	cl := join(t, cfg)
	take := func(row store.Replica) {
		t.Helper()
		if _, err := r.EnterRegistry(t.Context(), row, 0); err != nil {
			t.Fatal(err)
		}
		beatAhead(t, r, "auth-0")
		c.Move(timing.Beat)
		look(t, cl)
	}
	take(store.Replica{Instance: "auth-0", Incarnation: "x", MAC: make([]byte, 32)})
	if err := cl.Ready(); err != nil {
		t.Errorf("by a forged row: %v", err)
	}
	if n, lines := count(t, cl.metrics.rejected, wrongMAC), strings.Count(log.String(), "not believed"); n != 1 || lines != 1 {
		t.Errorf("it is counted %d times and logged %d times", n, lines)
	}
	take(sign(t, store.Replica{Instance: "auth-0", Incarnation: "y"}))
	if !errors.Is(cl.Ready(), errTwice) {
		t.Errorf("ready: %v", cl.Ready())
	}
	for range 5 {
		c.Move(timing.Beat)
		look(t, cl)
	}
	if err := cl.Ready(); err != nil {
		t.Errorf("by a row that does not beat: %v", err)
	}
}

// A replica that died when its beat lay ahead of the database's clock, which was put
// back since, keeps neither its heir nor a key of another one waiting for long.
func TestBeatAhead(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	mine := join(t, config(r, c, "auth-0"))
	join(t, config(r, c, "auth-1"))
	beatAhead(t, r, "auth-1")
	k := row(t, c.Now(), "auth-0", accesstoken.ES256)
	create(t, r, k)
	look(t, mine)
	c.Move(timing.Beat)
	look(t, mine)
	c.Move(timing.LiveFor + timing.CutOff)
	if mine.Have(k.ID) {
		t.Fatal("it may live")
	}
	look(t, mine)
	c.Move(10 * time.Second)
	if !mine.Have(k.ID) {
		t.Error("it is waited for although it does not beat")
	}

	synctest.Test(t, func(t *testing.T) {
		c, r := &clock{}, openRegistry(t)
		join(t, config(r, c, "auth-1"))
		beatAhead(t, r, "auth-1")
		began := time.Now()
		_, err := Join(t.Context(), config(r, c, "auth-1"))
		if waited := time.Since(began); err != nil || waited < timing.LiveFor || waited > timing.LiveFor+timing.Beat {
			t.Errorf("after %v: %v", waited, err)
		}
	})
}

// A hundred tokens at once that name an unknown key are one look; two thousand
// random names are one, too, and keep no good key from being found.
func TestUnknownKeys(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	cl := patient(join(t, config(r, c, "auth-0")))
	run(t, cl)
	good := row(t, c.Now(), "auth-1", accesstoken.ES256)
	create(t, r, good)
	var wg sync.WaitGroup
	var missed atomic.Int64
	for range 100 {
		wg.Go(func() {
			if _, err := cl.Find(good.ID); err != nil {
				missed.Add(1)
			}
		})
	}
	wg.Wait()
	if missed.Load() != 0 {
		t.Errorf("%d of 100 did not find a key that is there", missed.Load())
	}

	before := count(t, cl.metrics.lookups, unknown)
	began := time.Now()
	for i := range 2 * maxNegatives {
		kid := fmt.Sprintf("auth-1-%043d", i)
		wg.Go(func() {
			if _, err := cl.Find(kid); !errors.Is(err, accesstoken.ErrUnknownKey) {
				t.Errorf("%s: %v", kid, err)
			}
		})
		if i%100 == 0 {
			if _, err := cl.Find(good.ID); err != nil {
				t.Error(err)
			}
		}
	}
	late := row(t, c.Now(), "auth-1", accesstoken.ES256)
	create(t, r, late)
	cl.Ring() // as its maker does
	deadline := time.Now().Add(time.Minute)
	for _, ok := cl.Keys().Key(late.ID); !ok; _, ok = cl.Keys().Key(late.ID) {
		if time.Now().After(deadline) {
			t.Fatal("a new key was not found under the flood")
		}
	}
	wg.Wait()
	t.Logf("random names took %v", time.Since(began).Round(time.Millisecond))
	if got := count(t, cl.metrics.lookups, unknown) - before; got != 1 {
		t.Errorf("%d looks for random names", got)
	}
	if len(cl.lookup.unknown.until) > maxNegatives {
		t.Errorf("%d names are remembered", len(cl.lookup.unknown.until))
	}

	c.Move(cooldown)
	if _, err := cl.Find("no-thumbprint"); !errors.Is(err, accesstoken.ErrUnknownKey) {
		t.Error(err)
	}
	if count(t, cl.metrics.lookups, unknown)-before != 1 {
		t.Error("a look for a name that is none of ours")
	}
}

// soak reports whether long tests are to run in their long form.
func soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// Invented names without end cause no more than two looks a minute, at the registry or
// at the peers, and keep out no key that appears meanwhile.
func TestFloodOfNames(t *testing.T) {
	seconds, each := 121, int64(2*maxWaiting+100)
	if soak() {
		each = 10_000
	}
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprint("away ", away), func(t *testing.T) {
			t.Parallel()
			c, r := &clock{}, openRegistry(t)
			maker := join(t, config(openRegistry(t), c, "auth-1"))
			var body atomic.Pointer[[]byte]
			publish := func(keys ...store.Key) {
				set := keySet(t, keys...)
				body.Store(&set)
			}
			publish()
			peer := serve(t, func(w http.ResponseWriter, r *http.Request) { honest(maker, *body.Load())(w, r) })
			cfg := config(r, c, "auth-0")
			cfg.Peers = at(peer.URL)
			cl := join(t, cfg)
			r.away.Store(away)
			poll := func() { // what Run does
				if err := cl.round(t.Context(), timing.RegistryTimeout); (err != nil) != away {
					t.Fatal(err)
				}
				if away {
					askAll(t, cl)
				}
			}
			poll()
			var names, waiting atomic.Int64
			var late store.Key
			readBefore, askedBefore, looks, began := r.read.Load(), peer.asked.Load(), 0, c.Now()
			for second := range seconds {
				var flood sync.WaitGroup
				names.Store(0)
				for range 2 * maxWaiting {
					waiting.Add(1)
					flood.Go(func() {
						defer waiting.Add(-1)
						for names.Add(1) <= each {
							if _, err := cl.Find("auth-1-" + rand.Text() + "00000000000000000"); err == nil {
								t.Error("found")
							}
						}
					})
				}
				if second == seconds/2 {
					late = row(t, c.Now(), "auth-1", accesstoken.ES256)
					create(t, r, late)
					publish(late)
				}
				// Until all that go on wait for the next look.
				for deadline := time.Now().Add(time.Minute); names.Load() < each || waiting.Load() > cl.lookup.unknown.held(); time.Sleep(100 * time.Microsecond) {
					if time.Now().After(deadline) {
						t.Fatalf("%d names, %d wait", names.Load(), waiting.Load())
					}
				}
				select {
				case <-cl.lookup.bell:
					looks++
					poll()
				default:
				}
				poll()
				flood.Wait()
				if late.ID != "" {
					if _, err := cl.Find(late.ID); err != nil {
						t.Errorf("a key that is there: %v", err)
					}
				}
				if second == 0 {
					looks = 0
					readBefore, askedBefore = r.read.Load(), peer.asked.Load()
				}
				c.Move(time.Second)
			}
			polls := int64(seconds - 1)
			allowed := int64(2 * c.Now().Sub(began) / time.Minute) // the clock goes on while the test computes
			if read := r.read.Load() - readBefore - polls; read > allowed || read != int64(looks) {
				t.Errorf("%d looks at the registry beside the polls, for %d rings", read, looks)
			}
			asked := peer.asked.Load() - askedBefore
			if away {
				asked -= polls
			}
			if asked > allowed {
				t.Errorf("the peer was asked %d times beside the polls", asked)
			}
		})
	}
}

// held is how many requests wait for a look.
func (n *negatives) held() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	held := int64(n.waiting)
	if n.looking {
		held++
	}
	return held
}

// What nobody could be asked about is not refused, whether or not somebody looks for
// it; what cannot be one of our keys is.
func TestNobodyToAsk(t *testing.T) {
	for name, cut := range map[string]func(r *testRegistry){
		"away": func(r *testRegistry) { r.away.Store(true) },
		"hung": func(r *testRegistry) { r.hung.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, r := &clock{}, openRegistry(t)
				cl := join(t, config(r, c, "auth-0"))
				run(t, cl)
				cut(r)
				late := row(t, c.Now(), "auth-1", accesstoken.ES256)
				create(t, r, late)
				want := func(kid string, want error) {
					t.Helper()
					if _, err := cl.Find(kid); !errors.Is(err, want) {
						t.Errorf("%s: %v", kid, err)
					}
				}
				want(late.ID, ErrKeysUnavailable) // before it is known that the registry does not answer
				time.Sleep(timing.RegistryPoll + timing.RegistryTimeout)
				if !cl.lookup.cutOff() {
					t.Fatal("it has not noticed")
				}
				c.Move(cooldown)
				var wg sync.WaitGroup
				for range 2 * maxWaiting { // one looks, some wait, the others are told at once
					wg.Go(func() { want(late.ID, ErrKeysUnavailable) })
				}
				wg.Wait()
				want("hello", accesstoken.ErrUnknownKey)
				if n := count(t, cl.metrics.lookups, unavailable); n != 1+2*maxWaiting {
					t.Errorf("%d are counted", n)
				}
				r.away.Store(false)
				r.hung.Store(false)
				time.Sleep(timing.RegistryPoll + timing.RegistryTimeout) // the look that hangs ends, and another one is made
				synctest.Wait()
				want(late.ID, nil)
				c.Move(cooldown)
				want(row(t, c.Now(), "auth-1", accesstoken.ES256).ID, accesstoken.ErrUnknownKey)
			})
		})
	}
}

// A replica that slept looks before it answers; one that merely cannot reach the
// registry does not make its clients wait each time.
func TestSlept(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	cl := patient(join(t, config(r, c, "auth-0")))
	k := row(t, c.Now(), "auth-1", accesstoken.ES256)
	create(t, r, k)
	if _, ok := cl.Keys().Key(k.ID); ok {
		t.Fatal("it looked already; the test shows nothing")
	}
	c.Move(timing.LiveFor + time.Second)
	run(t, cl)
	if _, ok := cl.Keys().Key(k.ID); !ok {
		t.Error("it answered without looking")
	}
	r.away.Store(true)
	c.Move(timing.LiveFor + time.Second)
	cl.Keys()
	began := time.Now()
	for range 1000 {
		cl.Keys()
	}
	if took := time.Since(began); took > 30*time.Second { // each that waits, waits for a second or so
		t.Errorf("1,000 answers took %v while the registry was away", took)
	}
}

// A clock that is off by more than replicas may differ is said once, and once more
// when it is right again.
func TestClockOffset(t *testing.T) {
	c, log := &clock{}, &logBuffer{}
	c.Move(-timing.Leeway - 2*time.Second)
	cfg := config(openRegistry(t), c, "auth-0")
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	cl := join(t, cfg)
	for step, want := range []struct {
		move          time.Duration
		differ, agree int
	}{
		{0, 1, 0},
		{timing.Beat / 10, 1, 0},
		{timing.Leeway + 2*time.Second - timing.Beat/10, 1, 1},
		{2 * timing.Beat, 1, 1},
		{timing.Leeway, 2, 1},
	} {
		c.Move(want.move)
		look(t, cl)
		if got := log.String(); strings.Count(got, "differ by too much") != want.differ || strings.Count(got, "agree again") != want.agree {
			t.Fatalf("step %d: the log says %s", step, got)
		}
	}
	ahead := 2*timing.Beat + timing.Leeway
	if got := gauge(t, cl.metrics.clock); math.Abs(got-ahead.Seconds()) > 4 {
		t.Errorf("the clock is ahead by %v, and the metric says %v s", ahead, got)
	}
}

// What lies within the time that the question was under way is not held against a
// clock.
func TestClockOffsetOfASlowAnswer(t *testing.T) {
	c, log := &clock{}, &logBuffer{}
	cfg := config(openRegistry(t), c, "auth-0")
	cl := join(t, cfg)
	cl.cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	database := time.Now().UTC()
	ask := func(offset, took time.Duration) {
		cl.registry.compareClocks(t.Context(), database.Add(offset-took/2), database.Add(offset+took/2), database)
	}
	ask(timing.Leeway+time.Second, 3*time.Second)
	if log.String() != "" {
		t.Errorf("the log says %s", log)
	}
	ask(-timing.Leeway-time.Second, time.Second)
	ask(-timing.Leeway+time.Second, 3*time.Second) // may still be so
	if got := log.String(); strings.Count(got, "differ by too much") != 1 || strings.Contains(got, "agree again") {
		t.Errorf("the log says %s", got)
	}
	if got := gauge(t, cl.metrics.clock); got != -4 {
		t.Errorf("the metric says %v", got)
	}
}

// gauge reads a gauge without labels.
func gauge(t testing.TB, g prometheus.Gauge) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(g)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}
