package tiered

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
)

const (
	// A lease is how long a replica acts on what it read of the control record;
	// a patience is longer than a lease on any replica's clock.
	defaultLease = 500 * time.Millisecond
	// After Redis failed somebody, it is not asked for so long.
	defaultRest = 5 * time.Second
	// fastTimeout is how long anybody waits for Redis before asking SQL instead.
	fastTimeout = 250 * time.Millisecond
	// settleTimeout is how long a write that has been done waits to be answered.
	settleTimeout = 10 * time.Second
	// By then a write that SQL was asked for is done, or never will be: its caller
	// sends it within the one, and the server gives up waiting for its locks within
	// the other (sqldb.DB.LockTimeout).
	defaultLate = 2 * sqldb.DefaultTimeout
	// A permission to fill in a copy lasts permission, a writer's mark mark, which
	// is longer than late, and a copy copyLife at most.
	permission = 5 * time.Second
	mark       = 2 * defaultLate
	copyLife   = 10 * time.Minute
)

// Fast is what is asked of Redis; see package redisstate.
type Fast interface {
	Ping(ctx context.Context) error
	Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error)

	CacheOpen(ctx context.Context, generation string) (server string, err error)
	CacheServer(ctx context.Context, generation string) (server string, err error)
	CacheRead(ctx context.Context, generation string, key state.Key, token string, hold time.Duration) (state.Record, redisstate.Entry, error)
	CacheFill(ctx context.Context, generation, token string, r state.Record, ttl time.Duration) error
	CacheMark(ctx context.Context, generation string, key state.Key, token string, hold time.Duration) error
	CacheClear(ctx context.Context, generation string, key state.Key, token string) error
}

// Durable is what is asked of SQL.
type Durable interface {
	state.Store
	// Clock is the time by which records expire.
	Clock(ctx context.Context) (time.Time, error)
}

// Config says what a Store stands on. Both stores stay the caller's.
type Config struct {
	Fast       Fast
	Durable    Durable
	Secret     []byte           // the cluster's; nil: it has none
	Now        func() time.Time // measures leases; it must be monotonic, as time.Now is
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// Store implements state.Store.
type Store struct {
	fast    Fast
	durable Durable
	secret  []byte
	now     func() time.Time
	log     *slog.Logger
	metrics metrics
	breaker breaker
	lease   time.Duration
	rest    time.Duration
	late    time.Duration

	current atomic.Pointer[view] // what this replica acts on

	mu     sync.Mutex // guards asking, and the setting of current by who asks
	asking *asking    // nil if nobody asks for the control record

	// Of who asks: the control record's version, and when it was first seen here.
	version   int64
	firstSeen time.Time
}

var (
	_ state.Store = (*Store)(nil)
	_ Fast        = (*redisstate.Store)(nil)
)

// New returns a store. It asks nobody anything.
func New(cfg Config) (*Store, error) {
	s := newStore(cfg)
	return s, s.register(cfg.Registerer)
}

func newStore(cfg Config) *Store {
	s := &Store{
		fast: cfg.Fast, durable: cfg.Durable, secret: cfg.Secret, now: cfg.Now, log: cfg.Logger,
		metrics: newMetrics(),
		lease:   defaultLease, rest: defaultRest, late: defaultLate,
		breaker: breaker{now: cfg.Now, rest: defaultRest},
	}
	s.breaker.ping = func(ctx context.Context) error {
		err := s.fast.Ping(ctx)
		if err == nil {
			s.log.InfoContext(ctx, "redis answers again")
		}
		return err
	}
	return s
}

// Get implements state.Store.
func (s *Store) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := key.Check(); err != nil {
		return state.Record{}, err
	}
	v, err := s.view(ctx)
	if err != nil {
		return state.Record{}, err
	}
	result, token := bypassed, "" // our permission to fill in the copy
	if v.reads && !s.breaker.avoids() {
		token = rand.Text()
		var (
			copied state.Record
			entry  redisstate.Entry
		)
		err := s.ask(ctx, "read", func(ctx context.Context) (err error) {
			copied, entry, err = s.fast.CacheRead(ctx, v.name, key, token, permission)
			if err == nil && entry == redisstate.Hit {
				copied, err = v.open(copied)
			}
			return err
		})
		switch {
		case err != nil:
			token = ""
		// What is about to expire is SQL's to judge.
		case entry == redisstate.Hit && s.valid(v) && copied.Expires.After(s.latest(v)):
			s.metrics.reads.WithLabelValues(hit).Inc()
			return copied, nil
		case entry == redisstate.Miss:
			result = miss
		default:
			result, token = miss, ""
		}
	}
	s.metrics.reads.WithLabelValues(result).Inc()
	r, err := s.durable.Get(ctx, key)
	if ttl := min(r.Expires.Sub(s.latest(v)), copyLife); err == nil && token != "" && ttl > 0 {
		// If that fails, the next one reads from SQL.
		_ = s.ask(ctx, "fill", func(ctx context.Context) error {
			return s.fast.CacheFill(ctx, v.name, token, v.seal(r), ttl)
		})
	}
	return r, err
}

// Put implements state.Store.
func (s *Store) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (version int64, err error) {
	if err := state.CheckWrite(key, value, ttl); err != nil {
		return 0, err
	}
	err = s.change(ctx, key, func() error {
		version, err = s.durable.Put(ctx, key, value, ttl)
		return err
	})
	return version, err
}

// Create implements state.Store.
func (s *Store) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (version int64, err error) {
	if err := state.CheckWrite(key, value, ttl); err != nil {
		return 0, err
	}
	err = s.change(ctx, key, func() error {
		version, err = s.durable.Create(ctx, key, value, ttl)
		return err
	})
	return version, err
}

// Swap implements state.Store.
func (s *Store) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (next int64, err error) {
	if err := state.CheckWrite(key, value, ttl); err != nil {
		return 0, err
	}
	err = s.change(ctx, key, func() error {
		next, err = s.durable.Swap(ctx, key, version, value, ttl)
		return err
	})
	return next, err
}

// Take implements state.Store.
func (s *Store) Take(ctx context.Context, key state.Key) (r state.Record, err error) {
	if err := key.Check(); err != nil {
		return r, err
	}
	err = s.change(ctx, key, func() error {
		r, err = s.durable.Take(ctx, key)
		return err
	})
	return r, err
}

// Delete implements state.Store.
func (s *Store) Delete(ctx context.Context, key state.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	return s.change(ctx, key, func() error { return s.durable.Delete(ctx, key) })
}

// List implements state.Store, from SQL.
func (s *Store) List(ctx context.Context, kind, owner string) ([]state.Record, error) {
	return s.durable.List(ctx, kind, owner)
}

// DeleteOwned implements state.Store. It deletes one record after the other, so
// that none goes whose copy has not been marked.
func (s *Store) DeleteOwned(ctx context.Context, kind, owner string) (int, error) {
	list, err := s.durable.List(ctx, kind, owner)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, r := range list {
		switch _, err := s.Take(ctx, r.Key); {
		case err == nil:
			n++
		case !errors.Is(err, state.ErrNotFound):
			return n, err
		}
	}
	return n, nil
}

// Limit implements state.Store.
func (s *Store) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	if err := key.Check(); err != nil {
		return state.Decision{}, err
	}
	if err := rate.Check(); err != nil {
		return state.Decision{}, err
	}
	if !s.breaker.avoids() {
		var d state.Decision
		err := s.ask(ctx, "limit", func(ctx context.Context) (err error) {
			d, err = s.fast.Limit(ctx, key, rate)
			return err
		})
		if err == nil && !d.Allowed {
			return d, nil
		}
	}
	return s.durable.Limit(ctx, key, rate)
}

// Sweep implements state.Store.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	return s.durable.Sweep(ctx, limit)
}

// Ping implements state.Store. Without Redis the store still answers; ask Redis
// itself to know.
func (s *Store) Ping(ctx context.Context) error { return s.durable.Ping(ctx) }

// Close implements state.Store: both stores were given.
func (s *Store) Close() error { return nil }

// change does a write as doc.go says.
func (s *Store) change(ctx context.Context, key state.Key, do func() error) error {
	token := rand.Text()
	v, err := s.view(ctx)
	for err == nil && v.phase != off {
		failed := s.ask(ctx, "mark", func(ctx context.Context) error {
			return s.fast.CacheMark(ctx, v.name, key, token, mark)
		})
		if failed == nil {
			break
		}
		v, err = s.distrust(ctx, v, failed)
	}
	if err != nil {
		return err // nothing has been written
	}
	err = do()
	if !known(err) {
		return err // SQL may do it still: the mark stays, and runs out after that
	}
	// The caller may have gone; what has been written must be settled all the same.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if unsettled := s.settle(after, key, token); err == nil {
		err = unsettled
	}
	return err
}

// known says whether what SQL answered tells what has become of a write.
func known(err error) bool {
	return err == nil || errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrExists) ||
		errors.Is(err, state.ErrChanged) || errors.Is(err, state.ErrInvalid)
}

// settle returns nil when nobody can read a copy from before the call any more.
func (s *Store) settle(ctx context.Context, key state.Key, token string) error {
	for cleared := ""; ; {
		v, err := s.view(ctx)
		switch {
		case err != nil:
			return err
		case v.phase == off:
			return s.wait(ctx, v.seen.Add(s.patience()).Sub(s.now()))
		case v.generation == cleared:
			return nil
		}
		failed := s.ask(ctx, "clear", func(ctx context.Context) error {
			return s.fast.CacheClear(ctx, v.name, key, token)
		})
		if failed == nil {
			cleared = v.generation
		} else if _, err := s.distrust(ctx, v, failed); err != nil {
			return err
		}
	}
}

// patience is longer than any replica's lease.
func (s *Store) patience() time.Duration { return s.lease * 3 / 2 }

func (s *Store) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return state.ErrUnavailable.Because(ctx.Err())
	}
}

// ask asks Redis, for a short time that does not end with the caller's: a caller
// that goes away must not look like a Redis that does. That another server
// answers than before is no failure of Redis.
func (s *Store) ask(ctx context.Context, operation string, question func(ctx context.Context) error) error {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), fastTimeout)
	defer cancel()
	err := question(short)
	if err != nil && !errors.Is(err, redisstate.ErrNotOpen) {
		s.metrics.errors.WithLabelValues(operation).Inc()
		if s.breaker.trip() {
			s.log.WarnContext(ctx, "redis fails; sessions are read from the database", "operation", operation, "error", err)
		}
	}
	return err
}
