package tiered_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A server is Redis as far as tiered can tell. TestServer holds it to the real
// one.
type server struct {
	mu      sync.Mutex
	name    string
	open    map[string]bool
	entries map[string]entry
}

type entry struct {
	condition byte // as in redisstate: V, T, M, C
	token     string
	record    state.Record
}

func newServer(name string) *server {
	return &server{name: name, open: map[string]bool{}, entries: map[string]entry{}}
}

func (s *server) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.entries)
}

// successor is the server after a failover: it has the entries of then, and has
// never heard of any generation.
func (s *server) successor(name string) *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := newServer(name)
	next.entries = maps.Clone(s.entries)
	return next
}

// A link is one replica's way to a server. Faults are decided by op's name.
type link struct {
	server atomic.Pointer[server]
	fault  atomic.Pointer[func(op string) fault]
	hits   atomic.Int64
}

// A fault is what happens to one call.
type fault int

const (
	none   fault = iota
	before       // failed, and nothing was done
	after        // failed, but done
	later        // failed, and done in a while: see flaky
)

var errFault = errors.New("injected fault")

func newLink(s *server) *link {
	l := &link{}
	l.server.Store(s)
	return l
}

func (l *link) inject(f func(op string) fault) { l.fault.Store(&f) }
func (l *link) heal()                          { l.fault.Store(nil) }

// cut is a partition: nothing gets through.
func (l *link) cut() { l.inject(func(string) fault { return before }) }

func (l *link) do(ctx context.Context, op string, f func(s *server) error) error {
	kind := none
	if decide := l.fault.Load(); decide != nil {
		kind = (*decide)(op)
	}
	if kind == before {
		return errFault
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s := l.server.Load()
	s.mu.Lock()
	err := f(s)
	s.mu.Unlock()
	if kind == after {
		return errFault
	}
	return err
}

func (l *link) Ping(ctx context.Context) error {
	return l.do(ctx, "Ping", func(*server) error { return nil })
}

func (l *link) Limit(ctx context.Context, _ state.Key, rate state.Rate) (d state.Decision, err error) {
	err = l.do(ctx, "Limit", func(*server) error {
		_, d = rate.Decide(0, time.Now().UnixMicro())
		return nil
	})
	return d, err
}

func (l *link) CacheOpen(ctx context.Context, generation string) (name string, err error) {
	err = l.do(ctx, "CacheOpen", func(s *server) error {
		s.open[generation] = true
		name = s.name
		return nil
	})
	return name, err
}

func (l *link) CacheServer(ctx context.Context, generation string) (name string, err error) {
	err = l.in(ctx, "CacheServer", generation, func(s *server) { name = s.name })
	return name, err
}

func (l *link) CacheRead(ctx context.Context, generation string, key state.Key, token string, _ time.Duration) (r state.Record, found redisstate.Entry, err error) {
	err = l.in(ctx, "CacheRead", generation, func(s *server) {
		switch e, ok := s.entries[generation+key.ID]; {
		case !ok:
			s.entries[generation+key.ID] = entry{condition: 'T', token: token}
			found = redisstate.Miss
		case e.condition == 'V':
			l.hits.Add(1)
			r, found = e.record, redisstate.Hit
		}
	})
	return r, found, err
}

func (l *link) CacheFill(ctx context.Context, generation, token string, r state.Record, _ time.Duration) error {
	return l.in(ctx, "CacheFill", generation, func(s *server) {
		if e := s.entries[generation+r.Key.ID]; e.condition == 'T' && e.token == token {
			s.entries[generation+r.Key.ID] = entry{condition: 'V', record: r}
		}
	})
}

func (l *link) CacheMark(ctx context.Context, generation string, key state.Key, token string, _ time.Duration) error {
	return l.in(ctx, "CacheMark", generation, func(s *server) {
		if e := s.entries[generation+key.ID]; e.condition == 'M' || e.condition == 'C' {
			s.entries[generation+key.ID] = entry{condition: 'C'}
		} else {
			s.entries[generation+key.ID] = entry{condition: 'M', token: token}
		}
	})
}

func (l *link) CacheClear(ctx context.Context, generation string, key state.Key, token string) error {
	return l.in(ctx, "CacheClear", generation, func(s *server) {
		e := s.entries[generation+key.ID]
		if e.condition == 'M' && e.token == token || e.condition != 'M' && e.condition != 'C' {
			delete(s.entries, generation+key.ID)
		}
	})
}

func (l *link) in(ctx context.Context, op, generation string, f func(s *server)) error {
	return l.do(ctx, op, func(s *server) error {
		if !s.open[generation] {
			return redisstate.ErrNotOpen
		}
		f(s)
		return nil
	})
}

// flaky is a durable store with faults.
type flaky struct {
	tiered.Durable
	fault atomic.Pointer[func(op string, key state.Key) fault]
	gets  atomic.Int64

	mu      sync.Mutex
	pending []func() // what has failed, to be done later
}

// finish does what has failed, to be done later.
func (f *flaky) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, do := range f.pending {
		do()
	}
	f.pending = nil
}

func (f *flaky) postpone(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = append(f.pending, do)
}

func (f *flaky) inject(decide func(op string, key state.Key) fault) { f.fault.Store(&decide) }
func (f *flaky) heal()                                              { f.fault.Store(nil) }

func broken[T any](f *flaky, op string, key state.Key, do func() (T, error)) (T, error) {
	var zero T
	kind := none
	if decide := f.fault.Load(); decide != nil {
		kind = (*decide)(op, key)
	}
	switch kind {
	case later:
		f.postpone(func() { _, _ = do() }) // who asked has gone
		fallthrough
	case before:
		return zero, state.ErrUnavailable.Because(errFault)
	}
	v, err := do()
	if kind == after {
		return zero, state.ErrUnavailable.Because(errFault)
	}
	return v, err
}

func (f *flaky) Get(ctx context.Context, key state.Key) (state.Record, error) {
	f.gets.Add(1)
	return broken(f, "Get", key, func() (state.Record, error) { return f.Durable.Get(ctx, key) })
}

func (f *flaky) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	return broken(f, "Put", key, func() (int64, error) { return f.Durable.Put(ctx, key, value, ttl) })
}

func (f *flaky) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	return broken(f, "Create", key, func() (int64, error) { return f.Durable.Create(ctx, key, value, ttl) })
}

func (f *flaky) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	return broken(f, "Swap", key, func() (int64, error) { return f.Durable.Swap(ctx, key, version, value, ttl) })
}

func (f *flaky) Take(ctx context.Context, key state.Key) (state.Record, error) {
	return broken(f, "Take", key, func() (state.Record, error) { return f.Durable.Take(ctx, key) })
}

func (f *flaky) Delete(ctx context.Context, key state.Key) error {
	_, err := broken(f, "Delete", key, func() (int, error) { return 0, f.Durable.Delete(ctx, key) })
	return err
}

func (f *flaky) Clock(ctx context.Context) (time.Time, error) {
	return broken(f, "Clock", state.Key{}, func() (time.Time, error) { return f.Durable.Clock(ctx) })
}

// TestServer asks the fake and a real Redis the same questions.
func TestServer(t *testing.T) {
	ctx := t.Context()
	key := state.Key{Kind: "test", Owner: "o", ID: "i"}
	record := state.Record{Key: key, Value: []byte("v\x00"), Version: 7, Expires: time.UnixMilli(time.Now().Add(time.Hour).UnixMilli()).UTC()}
	for name, fast := range map[string]tiered.Fast{"fake": newLink(newServer("x")), "redis": openRedis(t, testenv.Redis(t))} {
		t.Run(name, func(t *testing.T) {
			if _, err := fast.CacheServer(ctx, "g"); !errors.Is(err, redisstate.ErrNotOpen) {
				t.Fatalf("a generation that nobody has opened: %v", err)
			}
			if err := fast.CacheMark(ctx, "g", key, "t", time.Minute); !errors.Is(err, redisstate.ErrNotOpen) {
				t.Fatalf("a generation that nobody has opened: %v", err)
			}
			opened, err := fast.CacheOpen(ctx, "g")
			if err != nil || opened == "" {
				t.Fatal(opened, err)
			}
			if again, err := fast.CacheServer(ctx, "g"); err != nil || again != opened {
				t.Fatalf("opened on %s, now on %s, %v", opened, again, err)
			}
			if _, err := fast.CacheServer(ctx, "h"); !errors.Is(err, redisstate.ErrNotOpen) {
				t.Fatalf("another generation: %v", err)
			}
			find := func(token string, want redisstate.Entry) {
				t.Helper()
				r, entry, err := fast.CacheRead(ctx, "g", key, token, time.Minute)
				if err != nil || entry != want {
					t.Fatalf("found %v, %v, want %v", entry, err, want)
				}
				if entry == redisstate.Hit && (string(r.Value) != "v\x00" || r.Version != 7 || !r.Expires.Equal(record.Expires) || r.Key != key) {
					t.Fatalf("found %+v", r)
				}
			}
			fill := func(token string) { t.Helper(); check(t, fast.CacheFill(ctx, "g", token, record, time.Minute)) }
			mark := func(token string) { t.Helper(); check(t, fast.CacheMark(ctx, "g", key, token, time.Minute)) }
			clears := func(token string) { t.Helper(); check(t, fast.CacheClear(ctx, "g", key, token)) }

			find("a", redisstate.Miss) // a permission, once
			find("b", redisstate.Busy)
			fill("b") // not b's
			find("b", redisstate.Busy)
			fill("a")
			find("c", redisstate.Hit)
			mark("w")
			find("c", redisstate.Busy)
			fill("a")
			find("c", redisstate.Busy)
			clears("w")
			find("d", redisstate.Miss)
			clears("w") // also takes a permission away
			fill("d")
			find("e", redisstate.Miss)
			mark("w")
			mark("x") // two at once: neither's clear ends it
			clears("w")
			clears("x")
			find("f", redisstate.Busy)
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
