package limit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
)

// A clock goes only when a test says so.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// A store is a state.Store that notes what is asked of it, and fails as a test says.
type watched struct {
	state.Store

	mu    sync.Mutex
	calls []string                    // "get attempts", ...
	wrote map[state.Key][]string      // the values of each record that was written, in order
	fail  func() (before, after bool) // nil: never
}

func (s *watched) note(op string, key state.Key) (after bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, op+" "+key.Kind)
	if s.fail == nil {
		return false, nil
	}
	before, after := s.fail()
	if before {
		return false, state.ErrUnavailable
	}
	return after, nil
}

func failed(after bool, err error) error {
	if after {
		return state.ErrUnavailable
	}
	return err
}

func (s *watched) Get(ctx context.Context, key state.Key) (state.Record, error) {
	after, err := s.note("get", key)
	if err != nil {
		return state.Record{}, err
	}
	r, err := s.Store.Get(ctx, key)
	return r, failed(after, err)
}

// written makes a write and notes it, both at once, so that the order is right.
func (s *watched) written(op string, key state.Key, value []byte, write func() (int64, error)) (int64, error) {
	after, err := s.note(op, key)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	version, err := write()
	if err == nil {
		if s.wrote == nil {
			s.wrote = map[state.Key][]string{}
		}
		s.wrote[key] = append(s.wrote[key], string(value))
	}
	return version, failed(after, err)
}

func (s *watched) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	return s.written("put", key, value, func() (int64, error) { return s.Store.Put(ctx, key, value, ttl) })
}

func (s *watched) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	return s.written("create", key, value, func() (int64, error) { return s.Store.Create(ctx, key, value, ttl) })
}

func (s *watched) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	return s.written("swap", key, value, func() (int64, error) { return s.Store.Swap(ctx, key, version, value, ttl) })
}

func (s *watched) Delete(ctx context.Context, key state.Key) error {
	after, err := s.note("delete", key)
	if err != nil {
		return err
	}
	return failed(after, s.Store.Delete(ctx, key))
}

func (s *watched) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	after, err := s.note("limit", key)
	if err != nil {
		return state.Decision{}, err
	}
	d, err := s.Store.Limit(ctx, key, rate)
	return d, failed(after, err)
}

func (s *watched) Ping(ctx context.Context) error {
	after, err := s.note("ping", state.Key{})
	if err != nil {
		return err
	}
	return failed(after, s.Store.Ping(ctx))
}

// away says whether the store gives no answer.
func (s *watched) away(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = nil
	if away {
		s.fail = func() (before, after bool) { return true, false }
	}
}

// asked returns what was asked since it was called before.
func (s *watched) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// failures returns the failures that each write of a counter left, in order.
func (s *watched) failures(t *testing.T, key state.Key) (list []int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, value := range s.wrote[key] {
		var c struct{ Failures int }
		if err := json.Unmarshal([]byte(value), &c); err != nil {
			t.Fatal(err)
		}
		list = append(list, c.Failures)
	}
	return list
}

// A cluster is replicas that count in one state.
type cluster struct {
	t          *testing.T
	clock      *clock
	state      *watched
	replicas   []*limit.Limiter
	registries []*prometheus.Registry
	logs       *book
	audit      *trail
}

// A book is a log.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// count returns how many entries have a text.
func (b *book) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), text)
}

// A trail is an audit trail.
type trail struct {
	mu     sync.Mutex
	events []store.AuditEvent
}

func (a *trail) RecordSoon(e store.AuditEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, e)
}

func (a *trail) count(action string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.events {
		if e.Action == action {
			n++
		}
	}
	return n
}

var lockout = limit.Lockout{After: 5, AfterAll: 50, Delay: 30 * time.Second, Max: 15 * time.Minute}

// newCluster makes n replicas. A configuration names what is counted.
func newCluster(t *testing.T, n int, c limit.Config) *cluster {
	t.Helper()
	w := &cluster{t: t, clock: &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, logs: &book{}, audit: &trail{}}
	w.state = &watched{Store: memstate.New(w.clock.now)}
	c.State, c.Now, c.Audit, c.Logger = w.state, w.clock.now, w.audit, slog.New(slog.NewTextHandler(w.logs, nil))
	c.Replicas = func() int { return n }
	for range n {
		registry := prometheus.NewRegistry()
		c.Registerer = registry
		w.replicas = append(w.replicas, limittest.New(c))
		w.registries = append(w.registries, registry)
	}
	return w
}

// metric returns what all replicas together have counted.
func (w *cluster) metric(name string) (sum float64) {
	w.t.Helper()
	for _, r := range w.registries {
		families, err := r.Gather()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != name {
				continue
			}
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// A try is how an attempt ended.
type try string

const (
	accepted try = "accepted"
	refused  try = "refused"  // as a wrong credential
	tooMany  try = "too many" // 429
	nobody   try = "unknown"  // an error of the state
)

// guess makes one attempt.
func (w *cluster) guess(replica int, address, username string, right bool) (*limit.Attempt, try) {
	w.t.Helper()
	a, err := w.replicas[replica].Attempt(w.t.Context(), limit.Login, address, limit.Account(username))
	if err != nil {
		return nil, w.why(err)
	}
	ok, err := a.Checked(w.t.Context(), right, username)
	switch {
	case err != nil:
		return nil, w.why(err)
	case ok:
		return a, accepted
	}
	return a, refused
}

func (w *cluster) why(err error) try {
	w.t.Helper()
	switch p := problem.From(err); {
	case p.Kind == problem.TooMany && p.Code == "too_many_attempts" && p.RetryAfter > 0:
		return tooMany
	case p.Kind == problem.Unavailable:
		return nobody
	}
	w.t.Errorf("an attempt ended with %v", err)
	return ""
}

// wrong presents a wrong password n times.
func (w *cluster) wrong(n int, address, username string) {
	w.t.Helper()
	for i := range n {
		if _, got := w.guess(i%len(w.replicas), address, username, false); got != refused {
			w.t.Fatalf("wrong password %d from %s for %s: %s", i+1, address, username, got)
		}
	}
}

// try presents the right password without more, as where a second factor is asked for. It
// changes no counter.
func (w *cluster) try(address, username string) try {
	w.t.Helper()
	_, got := w.guess(0, address, username, true)
	return got
}

// login presents the right password, and is logged in if it is accepted.
func (w *cluster) login(address, username string) try {
	w.t.Helper()
	a, got := w.guess(len(w.replicas)-1, address, username, true)
	if got == accepted {
		if err := a.Succeeded(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	return got
}

// want checks how something ended.
func (w *cluster) want(what string, got, want try) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s: %s, and not %s", what, got, want)
	}
}

// wantWait checks that an account waits for so long, and not longer.
func (w *cluster) wantWait(what, address, username string, d time.Duration) {
	w.t.Helper()
	w.clock.pass(d - time.Second)
	w.want(what+", a second too early", w.try(address, username), refused)
	w.clock.pass(time.Second)
	w.want(what, w.try(address, username), accepted)
}

// addressOf returns one of many addresses.
func addressOf(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255) }
