package measured

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
)

// What is measured answers as the backend does.
func TestConformance(t *testing.T) {
	stores := make(map[*testing.T]state.Store)
	statetest.Run(t, "measured", func(t *testing.T) state.Store {
		if stores[t] == nil {
			stores[t] = New(prometheus.NewRegistry()).Store(memstate.New(time.Now), "memory")
		}
		return stores[t]
	})
}

// broken is a backend that fails each operation with an error.
type broken struct {
	state.Store
	err error
}

func (b *broken) Get(context.Context, state.Key) (state.Record, error) { return state.Record{}, b.err }

func (b *broken) Limit(context.Context, state.Key, state.Rate) (state.Decision, error) {
	return state.Decision{}, b.err
}

// brokenCopies is a Redis that does the same.
type brokenCopies struct{ err error }

func (b *brokenCopies) Get(state.Key) (state.Record, error) { return state.Record{}, b.err }
func (b *brokenCopies) Write([]redisstate.Copy) error       { return b.err }

// Each operation is counted once, and as a failure only if the backend did not answer.
func TestCounts(t *testing.T) {
	for _, tt := range []struct {
		err    error
		failed bool
	}{
		{nil, false}, {state.ErrNotFound, false}, {state.ErrExists, false}, {state.ErrChanged, false},
		{fmt.Errorf("a session: %w", state.ErrUnreadable), false},
		{state.ErrUnavailable.Because(context.Canceled), false}, // the client has gone
		{state.ErrUnavailable.Because(context.DeadlineExceeded), true},
		{state.ErrUnavailable.Because(state.ErrReadOnly), true}, {errors.New("another"), true},
	} {
		registry := prometheus.NewRegistry()
		m := New(registry)
		s := m.Store(&broken{err: tt.err}, "own")
		c := m.Copies(&brokenCopies{tt.err})
		ctx := t.Context()
		for range 3 {
			if _, err := s.Get(ctx, state.Key{}); !errors.Is(err, tt.err) {
				t.Errorf("%v became %v", tt.err, err)
			}
		}
		_, _ = s.Limit(ctx, state.Key{}, state.Rate{})
		_, _ = c.Get(state.Key{})
		_ = c.Write(nil)
		done, failed := counted(t, registry)
		for name, n := range map[string]uint64{"own get": 3, "own limit": 1, "own put": 0, "redis get_copy": 1, "redis write_copies": 1} {
			if done[name] != n || failed[name] != map[bool]float64{true: float64(n)}[tt.failed] {
				t.Errorf("%v: %s: %d of %d done, %v failed", tt.err, name, done[name], n, failed[name])
			}
		}
	}
}

// counted is how many operations were done, and how many have failed.
func counted(t *testing.T, g prometheus.Gatherer) (done map[string]uint64, failed map[string]float64) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	done, failed = map[string]uint64{}, map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := m.GetLabel()[0].GetValue() + " " + m.GetLabel()[1].GetValue()
			if f.GetType() == dto.MetricType_HISTOGRAM {
				done[name] = m.GetHistogram().GetSampleCount()
			} else {
				failed[name] = m.GetCounter().GetValue()
			}
		}
	}
	return done, failed
}

// What measuring costs, beside a backend that costs nearly nothing.
func BenchmarkGet(b *testing.B) {
	bare := memstate.New(time.Now)
	key := state.Key{Kind: "test", Owner: "o", ID: "i"}
	if _, err := bare.Put(b.Context(), key, []byte("value"), time.Hour); err != nil {
		b.Fatal(err)
	}
	for _, s := range []struct {
		name string
		state.Store
	}{{"bare", bare}, {"measured", New(prometheus.NewRegistry()).Store(bare, "memory")}} {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Get(b.Context(), key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
