package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// testPolicy is what the tests' rings live by: a poll is a second, slack ten,
// a key ripens for 17 seconds.
var testPolicy = policy{
	keyDuration:   100 * time.Second,
	tokenDuration: 20 * time.Second,
	leeway:        5 * time.Second,
	maxAge:        15 * time.Second,
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)

func newStore(t testing.TB) store.Store { return sqlstore.New(newDatabase(t)) }

// newDatabase opens a fresh SQLite database.
func newDatabase(t testing.TB) *sqldb.DB {
	t.Helper()
	return sqldbtest.Open(t)
}

func newBox(t testing.TB, b byte) *seal.Box {
	t.Helper()
	box, err := seal.New(bytes.Repeat([]byte{b}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// A clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var errInjected = errors.New("injected")

// What a faulty store does with a call.
type fault int

const (
	works        fault = iota
	notPersisted       // fails, and nothing was written
	persisted          // fails, although it was written
)

// A faulty store is the real one, until next says otherwise.
type faulty struct {
	store.Store
	next func() fault // nil: works
}

func (f *faulty) around(call func() error) error {
	what := works
	if f.next != nil {
		what = f.next()
	}
	if what == notPersisted {
		return errInjected
	}
	err := call()
	if err == nil && what == persisted {
		return errInjected
	}
	return err
}

func (f *faulty) Keys(ctx context.Context) (keys []store.Key, err error) {
	err = f.around(func() error { keys, err = f.Store.Keys(ctx); return err })
	return keys, err
}

func (f *faulty) Setting(ctx context.Context, name string) (value string, err error) {
	err = f.around(func() error { value, err = f.Store.Setting(ctx, name); return err })
	return value, err
}

func (f *faulty) DeleteKey(ctx context.Context, kid string) error {
	return f.around(func() error { return f.Store.DeleteKey(ctx, kid) })
}

func (f *faulty) Update(ctx context.Context, g func(store.Records) error) error {
	return f.around(func() error { return f.Store.Update(ctx, g) })
}

// Where the private keys of a test are.
const (
	inDatabase = "database"
	inMemory   = "memory"
)

var modes = []string{inDatabase, inMemory}

// source is a new source of the mode.
func source(t testing.TB, mode string) keysource.Source {
	if mode == inMemory {
		return keysource.Memory{Rand: rand.Reader}
	}
	return sealed(newBox(t, 1))
}

func sealed(box *seal.Box) keysource.Source { return keysource.Sealed{Box: box, Rand: rand.Reader} }

func testConfig(t testing.TB, s Store, c *clock) Config {
	return Config{
		Source:        sealed(newBox(t, 1)),
		Algorithms:    []string{accesstoken.EdDSA},
		KeyDuration:   testPolicy.keyDuration,
		TokenDuration: testPolicy.tokenDuration,
		Leeway:        testPolicy.leeway,
		MaxAge:        testPolicy.maxAge,
		InstanceID:    "auth-0",
		Store:         s,
		Peers:         Alone{},
		Now:           c.Now,
		Logger:        slog.New(slog.DiscardHandler),
		Registerer:    prometheus.NewRegistry(),
	}
}

func open(t testing.TB, cfg Config) *Ring {
	t.Helper()
	cfg.Registerer = prometheus.NewRegistry()
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func refresh(t testing.TB, r *Ring) {
	t.Helper()
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// live lets time pass as Run would.
func live(t testing.TB, r *Ring, c *clock, d time.Duration) {
	t.Helper()
	for ; d > 0; d -= time.Second {
		c.Move(min(d, time.Second))
		refresh(t, r)
	}
}

// signing returns the kid that signs now, or "" if none may.
func signing(t testing.TB, r *Ring) string {
	t.Helper()
	s, err := r.Signer()
	if err != nil {
		if p := problem.From(err); !errors.Is(err, ErrNoSigningKey) || p.Kind != problem.Unavailable || p.RetryAfter <= 0 {
			t.Fatalf("Signer: %v, retry after %v", err, p.RetryAfter)
		}
		return ""
	}
	return s.KeyID()
}

// sign makes a token that lives as long as the policy lets it.
func sign(t testing.TB, r *Ring, now time.Time) string {
	t.Helper()
	s, err := r.Signer()
	if err != nil {
		t.Fatal(err)
	}
	id, err := token.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := s.Sign(token.Access{ClientID: token.FirstParty, Issuer: "i", Subject: "s", Audience: []string{"a"}, ID: id,
		IssuedAt: now, ExpiresAt: now.Add(testPolicy.tokenDuration)})
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func check(r *Ring, compact string, now time.Time) error {
	rules := &accesstoken.Rules{Issuer: "i", Audience: []string{"a"}, Leeway: testPolicy.leeway}
	_, err := rules.Check(compact, now, r.Public().Find)
	return err
}

func rows(t testing.TB, s store.Keys) []store.Key {
	t.Helper()
	keys, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func row(t testing.TB, s store.Keys, kid string) store.Key {
	t.Helper()
	for _, k := range rows(t, s) {
		if k.ID == kid {
			return k
		}
	}
	t.Fatalf("no row for the key %s", kid)
	return store.Key{}
}

// value reads a metric, of several the one with that label.
func value(t testing.TB, c prometheus.Collector, label string) float64 {
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
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric with the label %q", label)
	return 0
}

// unused says of every kid that it was never used.
func unused(string) bool { return false }
