package tiered

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
)

// A clock is held by the test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A server keeps copies as redisstate.Copies does; TestServer holds it to that. It
// never lets one go by itself, as if somebody wrote it again and again.
type server struct {
	mu     sync.Mutex
	copies map[state.Key]state.Record
	fault  func(operation string) error // nil: none
}

func newServer() *server { return &server{copies: map[state.Key]state.Record{}} }

func (s *server) fail(fault func(operation string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func (s *server) ask(operation string) error {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(operation)
}

func (s *server) Get(key state.Key) (state.Record, error) {
	if err := s.ask("get"); err != nil {
		return state.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, found := s.copies[key]
	if !found {
		return state.Record{}, state.ErrNotFound
	}
	r.Key = key
	return r, nil
}

func (s *server) Write(copies []redisstate.Copy) error {
	if err := s.ask("write"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range copies {
		if held, found := s.copies[c.Key]; !found || held.Version == c.From || held.Version == c.Version {
			s.copies[c.Key] = c.Record
		} else {
			delete(s.copies, c.Key)
		}
	}
	return nil
}

const (
	kind   = "session"
	margin = 5 * time.Second
)

var (
	key     = state.Key{Kind: kind, Owner: "owner", ID: "id"}
	secret  = []byte("the cluster's secret")
	errLost = state.ErrUnavailable.Because(errors.New("injected"))
)

// A world is a truth, a server, and replicas.
type world struct {
	clock  *clock
	truth  *flaky
	server *server
}

func newWorld() *world {
	w := &world{clock: &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, server: newServer()}
	w.truth = &flaky{Store: memstate.New(w.clock.Now)}
	return w
}

func (w *world) replica(change func(*Config)) *Store {
	cfg := Config{
		Truth: w.truth, Redis: w.server, Kind: kind, Secret: secret, Log: func() string { return "log" }, Margin: margin,
		Now: w.clock.Now, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

// flaky is a truth that fails: a write is not done, or done all the same.
type flaky struct {
	state.Store
	before, after error
}

func (f *flaky) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if f.before != nil {
		return 0, f.before
	}
	next, err := f.Store.Swap(ctx, key, version, value, ttl)
	return next, errors.Join(err, f.after)
}

// put writes a record, and waits until it is copied.
func put(t *testing.T, s *Store, key state.Key, value string, ttl time.Duration) int64 {
	t.Helper()
	version, err := s.Put(t.Context(), key, []byte(value), ttl)
	if err != nil {
		t.Fatal(err)
	}
	s.settle(t)
	return version
}

func (s *Store) settle(t *testing.T) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// want looks for a copy; "" is none.
func want(t *testing.T, s *Store, key state.Key, value string) {
	t.Helper()
	copied, found := s.Copy(key)
	if found != (value != "") || string(copied.Value) != value {
		t.Fatalf("the copy of %v is %q, %v, want %q", key, copied.Value, found, value)
	}
	if found {
		if copied.Key != key {
			t.Errorf("the copy of %v is one of %v", key, copied.Key)
		}
		if r, err := s.Get(t.Context(), key); err == nil && string(r.Value) == value && r.Version != copied.Version {
			t.Errorf("the copy has version %d, the record %d", copied.Version, r.Version)
		}
	}
}

// What one replica writes, each finds a copy of.
func TestAWriteIsCopied(t *testing.T) {
	w := newWorld()
	a, b := w.replica(nil), w.replica(nil)
	version, err := a.Create(t.Context(), key, []byte("one"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a.settle(t)
	want(t, b, key, "one")
	version, err = b.Swap(t.Context(), key, version, []byte("two"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b.settle(t)
	want(t, a, key, "two")

	// Neither did this.
	if _, err := a.Create(t.Context(), key, []byte("not"), time.Hour); !errors.Is(err, state.ErrExists) {
		t.Fatal(err)
	}
	if _, err := a.Swap(t.Context(), key, version+1, []byte("not"), time.Hour); !errors.Is(err, state.ErrChanged) {
		t.Fatal(err)
	}
	a.settle(t)
	want(t, b, key, "two")
}

// Records of another kind are secrets, or are used once.
func TestOtherKindsAreNotCopied(t *testing.T) {
	w := newWorld()
	s := w.replica(nil)
	other := state.Key{Kind: "mfa_pending_secret", Owner: "owner", ID: "id"}
	put(t, s, other, "secret", time.Hour)
	r, err := s.Get(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	s.Keep(w.clock.Now(), r)
	s.settle(t)
	if len(w.server.copies) > 0 {
		t.Errorf("redis has %v", w.server.copies)
	}
}

// What was read is copied if there is no copy.
func TestKeep(t *testing.T) {
	w := newWorld()
	s := w.replica(nil)
	asOf := w.clock.Now()
	put(t, s, key, "one", time.Hour)
	one, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	clear(w.server.copies)
	s.Keep(asOf, one)
	s.settle(t)
	want(t, s, key, "one")

	// Another write was in between, so that what was read is not put over it.
	put(t, s, key, "two", time.Hour) // its order is not known, so that there is no copy
	want(t, s, key, "")
	put(t, s, key, "three", time.Hour)
	s.Keep(asOf, one)
	s.settle(t)
	want(t, s, key, "")
}

// A copy lives for a minute, and ends before its record, also in a Redis that lets
// nothing go.
func TestTheEndOfACopy(t *testing.T) {
	for ttl, life := range map[time.Duration]time.Duration{
		time.Hour:              CopyLife,
		CopyLife + margin:      CopyLife,
		30 * time.Second:       30*time.Second - margin,
		margin + 2*time.Second: 2 * time.Second,
		margin:                 0,
		time.Second:            0,
	} {
		w := newWorld()
		s := w.replica(nil)
		copied := func(how string) {
			t.Helper()
			if life > 0 {
				w.clock.advance(life - time.Millisecond)
				want(t, s, key, how)
				w.clock.advance(time.Millisecond)
			}
			want(t, s, key, "")
		}
		put(t, s, key, "written", ttl)
		copied("written")

		clear(w.server.copies)
		put(t, s, key, "read", ttl)
		clear(w.server.copies)
		r, err := s.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		s.Keep(w.clock.Now(), r)
		s.settle(t)
		copied("read")
	}
}

// A record was read a minute ago by a process that stood still since.
func TestWhatWasReadLongAgoIsNoCopy(t *testing.T) {
	w := newWorld()
	s := w.replica(nil)
	put(t, s, key, "one", time.Hour)
	clear(w.server.copies)
	asOf := w.clock.Now()
	r, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.advance(CopyLife)
	s.Keep(asOf, r)
	s.settle(t)
	want(t, s, key, "")
}

// Nobody without the secret makes a copy, changes one, or moves it.
func TestForgedCopy(t *testing.T) {
	w := newWorld()
	s, stranger := w.replica(nil), w.replica(func(c *Config) { c.Secret = []byte("another") })
	put(t, s, key, "genuine", time.Hour)
	genuine := w.server.copies[key]
	refuses := func(what string, key state.Key, change func(r *state.Record)) {
		t.Helper()
		before := s.metric(t, "reads_total", "refused")
		forged := genuine
		forged.Value = bytes.Clone(genuine.Value)
		change(&forged)
		w.server.copies[key] = forged
		want(t, s, key, "")
		if s.metric(t, "reads_total", "refused") != before+1 {
			t.Errorf("%s was not counted", what)
		}
	}
	for i := range genuine.Value {
		refuses(fmt.Sprint("byte ", i), key, func(r *state.Record) { r.Value[i] ^= 1 })
		refuses(fmt.Sprint("cut at ", i), key, func(r *state.Record) { r.Value = r.Value[:i] })
	}
	refuses("longer", key, func(r *state.Record) { r.Value = append(r.Value, 0) })
	refuses("another version", key, func(r *state.Record) { r.Version++ })
	refuses("a later end", key, func(r *state.Record) { r.Expires = r.Expires.Add(time.Millisecond) })
	for _, other := range []state.Key{
		{Kind: kind, Owner: "owner", ID: "other"}, {Kind: kind, Owner: "other", ID: "id"}, {Kind: "other", Owner: "owner", ID: "id"},
		{Kind: kind, Owner: "ownerid", ID: ""}, {Kind: kind, Owner: "owne", ID: "rid"},
	} {
		refuses("another key", other, func(*state.Record) {})
	}
	refuses("another secret", key, func(r *state.Record) {
		*r = stranger.seals.seal(state.Record{Key: key, Value: []byte("forged"), Version: 1, Expires: w.clock.Now().Add(time.Hour)})
	})
	w.server.fail(func(string) error { return fmt.Errorf("redis: %w", state.ErrUnreadable) })
	refuses("what is no record", key, func(*state.Record) {})
	w.server.fail(nil)
	w.server.copies[key] = genuine
	want(t, s, key, "genuine")
	want(t, stranger, key, "")
}

// A copy from before the database went back to an older state says nothing: its log
// has another name since.
func TestAnotherLog(t *testing.T) {
	w := newWorld()
	log := "before"
	s := w.replica(func(c *Config) { c.Log = func() string { return log } })
	put(t, s, key, "value", time.Hour)
	want(t, s, key, "value")
	log = "after"
	want(t, s, key, "")
}

// Replicas without a secret have none in common.
func TestWithoutASecret(t *testing.T) {
	w := newWorld()
	alone := func(c *Config) { c.Secret = nil }
	a, b := w.replica(alone), w.replica(alone)
	put(t, a, key, "mine", time.Hour)
	want(t, a, key, "mine")
	want(t, b, key, "")
}

// The truth fails, before the write or after it: the copy is as old as it was, and
// comes to its end.
func TestAWriteFails(t *testing.T) {
	for name, fail := range map[string]func(*flaky){
		"not persisted": func(f *flaky) { f.before = errLost },
		"persisted":     func(f *flaky) { f.after = errLost },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			s := w.replica(nil)
			version := put(t, s, key, "old", time.Hour)
			fail(w.truth)
			if _, err := s.Swap(t.Context(), key, version, []byte("new"), time.Hour); !errors.Is(err, state.ErrUnavailable) {
				t.Fatal(err)
			}
			s.settle(t)
			want(t, s, key, "old")
			w.clock.advance(CopyLife)
			want(t, s, key, "")
		})
	}
}

// Redis fails, before it has done something or after it: the write is answered, and
// no later version is replaced by an earlier one.
func TestRedisFailsAtAWrite(t *testing.T) {
	w := newWorld()
	a, b := w.replica(nil), w.replica(nil)
	one := put(t, a, key, "one", time.Hour)
	w.server.fail(func(string) error { return errLost })
	two, err := a.Swap(t.Context(), key, one, []byte("two"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a.settle(t)
	w.server.fail(nil)
	want(t, b, key, "one")
	if _, err = b.Swap(t.Context(), key, two, []byte("three"), time.Hour); err != nil {
		t.Fatal(err)
	}
	b.settle(t)
	want(t, b, key, "") // one may be the later: nobody knows
}

// Redis does not answer: one caller finds out, and after the rest one tries again.
func TestRedisDoesNotAnswer(t *testing.T) {
	w := newWorld()
	var logged strings.Builder
	s := w.replica(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	put(t, s, key, "value", time.Hour)
	asked := 0
	w.server.fail(func(string) error { asked++; return errLost })
	look := func(wantAsked int, value string) {
		t.Helper()
		asked = 0
		for range 3 {
			want(t, s, key, value)
		}
		if asked != wantAsked {
			t.Errorf("redis was asked %d times in three looks, want %d", asked, wantAsked)
		}
	}
	degraded := func(want bool) {
		t.Helper()
		if got := s.next.Load() != 0; got != want {
			t.Errorf("degraded: %v", got)
		}
	}
	degraded(false)
	look(1, "")
	degraded(true)
	w.clock.advance(rest - 1)
	look(0, "")
	w.clock.advance(1)
	look(1, "") // the one that tries
	w.clock.advance(rest)
	w.server.fail(func(string) error { asked++; return nil })
	look(3, "value")
	degraded(false)
	if n := strings.Count(logged.String(), "redis does not answer"); n != 1 {
		t.Errorf("the log says %d times that redis does not answer", n)
	}
	if n := strings.Count(logged.String(), "answers again"); n != 1 {
		t.Errorf("the log says %d times that redis answers again", n)
	}
}

// Of many callers at the end of a rest one tries, and the others do not wait for it.
func TestOneTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := w.replica(nil)
		w.server.fail(func(string) error { return errLost })
		s.Copy(key)
		w.clock.advance(rest)
		var tries, over atomic.Int32
		gate := make(chan struct{})
		w.server.fail(func(string) error { tries.Add(1); <-gate; return errLost })
		for range 20 {
			go func() { s.Copy(key); over.Add(1) }()
		}
		synctest.Wait()
		if tries.Load() != 1 || over.Load() != 19 {
			t.Errorf("%d tried, and %d did not wait", tries.Load(), over.Load())
		}
		close(gate)
	})
}

// A Redis that answers with an error, such as one without memory, is not away.
func TestAnErrorIsAnAnswer(t *testing.T) {
	w := newWorld()
	s := w.replica(nil)
	w.server.fail(func(string) error {
		return errors.New("OOM command not allowed when used memory > 'maxmemory'")
	})
	put(t, s, key, "value", time.Hour)
	if s.next.Load() != 0 {
		t.Error("redis is left alone")
	}
	if n := s.metric(t, "redis_errors_total", "write"); n != 1 {
		t.Errorf("%v errors were counted", n)
	}
}

// Writes do not wait for a Redis that hangs, however many there are.
func TestWritesDoNotWait(t *testing.T) {
	w := newWorld()
	gate := make(chan struct{})
	w.server.fail(func(string) error { <-gate; return nil })
	s := w.replica(nil)
	for i := range 3 * maxPending {
		if _, err := s.Put(t.Context(), state.Key{Kind: kind, Owner: "o", ID: fmt.Sprint(i)}, nil, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	s.settle(t)
	if n := len(w.server.copies); n == 0 {
		t.Error("no copies were made")
	}
}

// What is written while copies are gathered is written together, and no more of it
// than may be.
func TestCopiesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		calls := 0
		w.server.fail(func(string) error { calls++; return nil })
		s := w.replica(nil)
		for i := range maxPending + 10 {
			if _, err := s.Put(t.Context(), state.Key{Kind: kind, Owner: "o", ID: fmt.Sprint(i)}, nil, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		s.settle(t)
		if n := len(w.server.copies); n != maxPending || calls != 1 {
			t.Errorf("%d copies were made in %d calls, want %d in one", n, calls, maxPending)
		}
		put(t, s, key, "value", time.Hour) // the next ones are gathered anew
		want(t, s, key, "value")
	})
}

// What the caller does with a value afterwards does not change the copy.
func TestAValueStaysTheCallers(t *testing.T) {
	w := newWorld()
	s := w.replica(nil)
	value := []byte("value")
	if _, err := s.Put(t.Context(), key, value, time.Hour); err != nil {
		t.Fatal(err)
	}
	value[0] = 'X'
	s.settle(t)
	want(t, s, key, "value")
}

func TestMetrics(t *testing.T) {
	w := newWorld()
	s := w.replica(nil)
	want(t, s, key, "")
	put(t, s, key, "value", time.Hour)
	want(t, s, key, "value")
	w.server.fail(func(string) error { return errLost })
	want(t, s, key, "")
	want(t, s, key, "")
	for _, m := range []struct {
		name, label string
		want        float64
	}{
		{"reads_total", "hit", 1}, {"reads_total", "miss", 1}, {"reads_total", "bypassed", 2},
		{"redis_errors_total", "get", 1}, {"redis_errors_total", "write", 0}, {"degraded", "", 1},
	} {
		if got := s.metric(t, m.name, m.label); got != m.want {
			t.Errorf("watchword_state_tier_%s %s is %v, want %v", m.name, m.label, got, m.want)
		}
	}
}

// metric reads a metric of the tier; 0 if nothing was counted yet.
func (s *Store) metric(t *testing.T, name, label string) (value float64) {
	t.Helper()
	families, err := s.cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "watchword_state_tier_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				value += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return value
}
