package measured

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
)

// Metrics are those of all backends of a replica.
type Metrics struct {
	seconds  *prometheus.HistogramVec
	failures *prometheus.CounterVec
}

// New makes Metrics and registers them.
func New(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "watchword_state_operation_duration_seconds",
			Help:    "Time that an operation of the shared state took, by the backend that did it.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"backend", "operation"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_state_operation_failures_total",
			Help: "Operations of the shared state that the backend did not do, or of which nobody knows.",
		}, []string{"backend", "operation"}),
	}
	r.MustRegister(m.seconds, m.failures)
	return m
}

// An operation is the metrics of one operation of a backend.
type operation struct {
	seconds  prometheus.Observer
	failures prometheus.Counter
}

func (m *Metrics) operation(backend, name string) operation {
	return operation{m.seconds.WithLabelValues(backend, name), m.failures.WithLabelValues(backend, name)}
}

// note notes an operation that began at a time and has ended with an error or none.
func (o operation) note(began time.Time, err *error) {
	o.seconds.Observe(time.Since(began).Seconds())
	if failed(*err) {
		o.failures.Inc()
	}
}

// failed reports whether an error says that the backend did not do what it was asked. It did if it
// says what it found. A caller that went away is no failure.
func failed(err error) bool {
	if err == nil {
		return false
	}
	for _, answer := range []error{state.ErrNotFound, state.ErrExists, state.ErrChanged, state.ErrUnreadable, context.Canceled} {
		if errors.Is(err, answer) {
			return false
		}
	}
	return true
}

// A store is a state.Store whose operations are measured.
type store struct {
	state.Store
	get, put, create, swap, take, delete, list, deleteOwned, limit, reset, sweep operation
}

// Store measures the operations of a store that a backend has.
func (m *Metrics) Store(s state.Store, backend string) state.Store {
	return &store{
		Store:       s,
		get:         m.operation(backend, "get"),
		put:         m.operation(backend, "put"),
		create:      m.operation(backend, "create"),
		swap:        m.operation(backend, "swap"),
		take:        m.operation(backend, "take"),
		delete:      m.operation(backend, "delete"),
		list:        m.operation(backend, "list"),
		deleteOwned: m.operation(backend, "delete_owned"),
		limit:       m.operation(backend, "limit"),
		reset:       m.operation(backend, "reset"),
		sweep:       m.operation(backend, "sweep"),
	}
}

func (s *store) Get(ctx context.Context, key state.Key) (r state.Record, err error) {
	defer s.get.note(time.Now(), &err)
	return s.Store.Get(ctx, key)
}

func (s *store) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (version int64, err error) {
	defer s.put.note(time.Now(), &err)
	return s.Store.Put(ctx, key, value, ttl)
}

func (s *store) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (version int64, err error) {
	defer s.create.note(time.Now(), &err)
	return s.Store.Create(ctx, key, value, ttl)
}

func (s *store) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (next int64, err error) {
	defer s.swap.note(time.Now(), &err)
	return s.Store.Swap(ctx, key, version, value, ttl)
}

func (s *store) Take(ctx context.Context, key state.Key) (r state.Record, err error) {
	defer s.take.note(time.Now(), &err)
	return s.Store.Take(ctx, key)
}

func (s *store) Delete(ctx context.Context, key state.Key) (err error) {
	defer s.delete.note(time.Now(), &err)
	return s.Store.Delete(ctx, key)
}

func (s *store) List(ctx context.Context, kind, owner, after string, limit int) (page []state.Record, err error) {
	defer s.list.note(time.Now(), &err)
	return s.Store.List(ctx, kind, owner, after, limit)
}

func (s *store) DeleteOwned(ctx context.Context, kind, owner string) (n int, err error) {
	defer s.deleteOwned.note(time.Now(), &err)
	return s.Store.DeleteOwned(ctx, kind, owner)
}

func (s *store) Limit(ctx context.Context, key state.Key, rate state.Rate) (d state.Decision, err error) {
	defer s.limit.note(time.Now(), &err)
	return s.Store.Limit(ctx, key, rate)
}

func (s *store) Reset(ctx context.Context, key state.Key) (err error) {
	defer s.reset.note(time.Now(), &err)
	return s.Store.Reset(ctx, key)
}

func (s *store) Sweep(ctx context.Context, limit int) (n int, err error) {
	defer s.sweep.note(time.Now(), &err)
	return s.Store.Sweep(ctx, limit)
}

// A copies is a tiered.Redis whose operations are measured.
type copies struct {
	tiered.Redis
	get, write operation
}

// Copies measures what Redis does for package tiered.
func (m *Metrics) Copies(r tiered.Redis) tiered.Redis {
	return &copies{r, m.operation("redis", "get_copy"), m.operation("redis", "write_copies")}
}

func (c *copies) Get(key state.Key) (r state.Record, err error) {
	defer c.get.note(time.Now(), &err)
	return c.Redis.Get(key)
}

func (c *copies) Write(list []redisstate.Copy) (err error) {
	defer c.write.note(time.Now(), &err)
	return c.Redis.Write(list)
}
