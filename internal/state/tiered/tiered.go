package tiered

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
)

const (
	// CopyLife is how long a copy lives at most.
	CopyLife = time.Minute
	// Timeout is how long Redis is waited for.
	Timeout = 250 * time.Millisecond
	// rest is how long Redis is left alone after it did not answer.
	rest = 5 * time.Second
	// gather is how long copies are gathered to be written together: each alone would
	// cost a renewal a quarter of its speed.
	gather = 50 * time.Millisecond
	// maxPending bounds how many are gathered. A record beyond it gets no new copy.
	maxPending = 1000
)

// Redis is where the copies are; see redisstate.Copies.
type Redis interface {
	Get(key state.Key) (state.Record, error)
	Write([]redisstate.Copy) error
}

// Config says what a Store stands on.
type Config struct {
	Truth state.Store // SQL; it stays the caller's
	Redis Redis
	Kind  string // of the records that are copied
	// Secret is the cluster's. Without one the replica is alone, and believes the
	// copies that it made itself since its start.
	Secret     []byte
	Log        func() string // names the log that invalidates copies; each belongs to one
	Margin     time.Duration // by how much the clocks of replicas may differ
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// Store implements state.Store by the truth alone, and beside it session.Copies.
type Store struct {
	state.Store
	cfg    Config
	seals  *sealer
	reads  *prometheus.CounterVec
	errors *prometheus.CounterVec
	began  time.Time
	// next is zero while Redis answers. Else Redis is left alone, and the first caller
	// after next, in nanoseconds since began, tries for all whether it answers again.
	next atomic.Int64

	writes  sync.WaitGroup
	mu      sync.Mutex        // guards pending
	pending []redisstate.Copy // not sealed yet
}

// New returns a store. It does not wait for Redis.
func New(cfg Config) *Store {
	if len(cfg.Secret) == 0 {
		cfg.Secret = []byte(rand.Text())
	}
	metrics := promauto.With(cfg.Registerer)
	s := &Store{
		Store: cfg.Truth, cfg: cfg, seals: newSealer(cfg.Secret, cfg.Log), began: cfg.Now(),
		reads: metrics.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_state_tier_reads_total",
			Help: "Looks for a session's copy in Redis: hit; miss, no copy; refused, one of another secret or log; bypassed, without an answer.",
		}, []string{"result"}),
		errors: metrics.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_state_tier_redis_errors_total",
			Help: "What Redis was asked and did not do in time: get a copy, or write some.",
		}, []string{"operation"}),
	}
	for _, result := range []string{"hit", "miss", "refused", "bypassed"} {
		s.reads.WithLabelValues(result)
	}
	for _, operation := range []string{"get", "write"} {
		s.errors.WithLabelValues(operation)
	}
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "watchword_state_tier_degraded",
		Help: "1 if Redis did not answer this replica when it was asked last.",
	}, func() float64 { return float64(min(s.next.Load(), 1)) })
	return s
}

// Put implements state.Store.
func (s *Store) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	asOf := s.cfg.Now()
	version, err := s.Store.Put(ctx, key, value, ttl)
	return s.written(err, asOf, ttl, version, state.Record{Key: key, Value: value, Version: version})
}

// Create implements state.Store.
func (s *Store) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	asOf := s.cfg.Now()
	version, err := s.Store.Create(ctx, key, value, ttl)
	return s.written(err, asOf, ttl, version, state.Record{Key: key, Value: value, Version: version})
}

// Swap implements state.Store.
func (s *Store) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	asOf := s.cfg.Now()
	next, err := s.Store.Swap(ctx, key, version, value, ttl)
	return s.written(err, asOf, ttl, version, state.Record{Key: key, Value: value, Version: next})
}

// written copies what was written, unless that has failed. asOf is a time before; from
// is the version that was replaced, if that is known.
func (s *Store) written(err error, asOf time.Time, ttl time.Duration, from int64, r state.Record) (int64, error) {
	if err == nil {
		s.copy(asOf, ttl, from, r)
	}
	return r.Version, err
}

// Keep copies a record that was read. asOf is a time before.
func (s *Store) Keep(asOf time.Time, r state.Record) {
	s.copy(asOf, r.Expires.Sub(asOf), r.Version, r)
}

// copy has a record copied that lives for ttl from asOf on, while the caller goes on.
func (s *Store) copy(asOf time.Time, ttl time.Duration, from int64, r state.Record) {
	life := min(ttl-s.cfg.Margin, CopyLife)
	if r.Key.Kind != s.cfg.Kind || life < time.Millisecond {
		return
	}
	r.Value, r.Expires = bytes.Clone(r.Value), asOf.Add(life)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		s.writes.Go(s.write)
	}
	if len(s.pending) < maxPending {
		s.pending = append(s.pending, redisstate.Copy{Record: r, From: from, Life: life})
	}
}

func (s *Store) write() {
	time.Sleep(gather)
	s.mu.Lock()
	copies := s.pending
	s.pending = nil
	s.mu.Unlock()
	for i := range copies {
		copies[i].Record = s.seals.seal(copies[i].Record)
	}
	_ = s.ask("write", func() error { return s.cfg.Redis.Write(copies) }) // the copies that are there have their end
}

// Copy returns a copy of the record, if there is one that can be believed. Its expiry
// is the copy's.
func (s *Store) Copy(key state.Key) (copied state.Record, found bool) {
	var sealed state.Record
	err := s.ask("get", func() (err error) { sealed, err = s.cfg.Redis.Get(key); return err })
	r, genuine := s.seals.open(sealed)
	result := "miss"
	switch {
	case errors.Is(err, state.ErrNotFound):
	case errors.Is(err, state.ErrUnreadable), err == nil && !genuine:
		result = "refused"
	case err != nil:
		result = "bypassed"
	case s.cfg.Now().Before(r.Expires):
		result, copied, found = "hit", r, true
	}
	s.reads.WithLabelValues(result).Inc()
	return copied, found
}

// ask asks Redis, unless it is left alone.
func (s *Store) ask(operation string, question func() error) error {
	now, next := s.cfg.Now().Sub(s.began), s.next.Load()
	if next != 0 && (int64(now) < next || !s.next.CompareAndSwap(next, int64(now+rest))) {
		return state.ErrUnavailable
	}
	err := question()
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		s.errors.WithLabelValues(operation).Inc()
	}
	if errors.Is(err, state.ErrUnavailable) {
		if s.next.Swap(int64(s.cfg.Now().Sub(s.began)+rest)) == 0 {
			s.cfg.Logger.Warn("redis does not answer; sessions are recognised from the database", "operation", operation, "err", err)
		}
	} else if next != 0 {
		s.next.Store(0)
		s.cfg.Logger.Info("redis answers again")
	}
	return err
}

// Close implements state.Store. It waits for the copies that are under way.
func (s *Store) Close() error { s.writes.Wait(); return nil }
