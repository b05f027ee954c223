package tiered_test

import (
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
)

// One failure, and a replica asks Redis nothing but whether it is back; and not
// in any request.
func TestBreaker(t *testing.T) {
	h := newHouse(t)
	var asked, pings atomic.Int64
	stuck := make(chan struct{})
	h.links[0].inject(func(op string) fault {
		if op == "Ping" {
			pings.Add(1)
			<-stuck
		} else {
			asked.Add(1)
		}
		return before
	})
	h.want(t, "old")
	until(t, "a ping", func() bool { h.read(t, 0); return pings.Load() == 1 })
	before := asked.Load()
	if before != 1 {
		t.Errorf("redis was asked %d times, want once", before)
	}
	for range 100 {
		h.want(t, "old")
		if _, err := h.stores[0].Limit(t.Context(), h.key, state.Rate{Burst: 1000, Period: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if asked.Load() != before || pings.Load() != 1 {
		t.Errorf("redis was asked %d times more, and pinged %d times", asked.Load()-before, pings.Load())
	}
	close(stuck)
	until(t, "more pings", func() bool { h.read(t, 0); return pings.Load() > 3 })
	h.links[0].heal()
	untilReads(t, h.stores[0])
}

// A Redis that answers pings, and nothing else, is asked less and less often.
func TestBreakerRestsLonger(t *testing.T) {
	t.Parallel()
	s := newServer("x")
	l := newLink(s)
	var opens atomic.Int64
	l.inject(func(op string) fault {
		if op == "CacheOpen" {
			opens.Add(1)
			return before
		}
		return none
	})
	store := replica(l, memstate.New(time.Now))
	begin := time.Now()
	until(t, "four attempts", func() bool {
		store.Get(t.Context(), state.Key{Kind: "test", Owner: "nobody", ID: "nothing"})
		return opens.Load() == 4
	})
	if took := time.Since(begin); took < (1+1+2+4)*rest {
		t.Errorf("four attempts within %v, the rest being %v", took, rest)
	}
	l.heal()
	untilReads(t, store)
}

// However many callers a slow database keeps waiting, they ask for the control
// record together.
func TestSlowDatabase(t *testing.T) {
	h := newHouse(t)
	var questions, under atomic.Int64
	h.durable.inject(func(op string, key state.Key) fault {
		if op == "Get" && key != h.key {
			questions.Add(1)
			if under.Add(1) > 2 {
				t.Error("a replica asks twice at a time")
			}
			pause(2 * lease)
			under.Add(-1)
		}
		return none
	})
	until(t, "the end of the leases", func() bool { return !h.stores[0].Reads() && !h.stores[1].Reads() })
	ask := func() int64 {
		questions.Store(0)
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				if got := h.read(t, i%2); got != "old" {
					t.Errorf("read %q", got)
				}
			})
		}
		callers.Wait()
		return questions.Load()
	}
	n := ask()
	for tries := 1; n > 6 && tries < 5; tries++ { // on a busy machine some come late
		n = ask()
	}
	if n > 6 {
		t.Errorf("100 callers asked %d times", n)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	durable, l := memstate.New(time.Now), newLink(newServer("x"))
	cfg := tiered.Config{Fast: l, Durable: durable, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Registerer: registry}
	s, err := tiered.New(cfg)
	check(t, err)
	s.Hasten(time.Hour, rest) // a lease that does not end here
	if _, err := tiered.New(cfg); err == nil {
		t.Error("the same metrics were registered twice")
	}
	key := state.Key{Kind: "test", Owner: "owner", ID: "id"}
	get := func() {
		t.Helper()
		_, err := s.Get(t.Context(), key)
		check(t, err)
	}
	want := func(hits, misses, bypassed, errors, degraded int) {
		t.Helper()
		families, err := registry.Gather()
		check(t, err)
		got := make(map[string]int)
		for _, f := range families {
			for _, m := range f.Metric {
				name := strings.TrimPrefix(f.GetName(), "watchword_state_tier_")
				for _, l := range m.Label {
					name += " " + l.GetValue()
				}
				got[name] = int(m.GetGauge().GetValue() + m.GetCounter().GetValue())
			}
		}
		want := map[string]int{"reads_total hit": hits, "reads_total miss": misses, "reads_total bypassed": bypassed, "degraded": degraded}
		if errors > 0 {
			want["redis_errors_total read"] = errors
		}
		if !maps.Equal(got, want) {
			t.Errorf("metrics %v, want %v", got, want)
		}
	}
	_, err = durable.Put(t.Context(), key, []byte("value"), time.Hour)
	check(t, err)
	want(0, 0, 0, 0, 1)
	get()
	want(0, 0, 1, 0, 1) // off
	until(t, "reading from redis", func() bool {
		s.Hasten(lease, rest)
		_, err := s.List(t.Context(), "test", "owner")
		check(t, err)
		check(t, s.Delete(t.Context(), state.Key{Kind: "test", Owner: "nobody", ID: "nothing"}))
		s.Hasten(time.Hour, rest) // from here on it does not end
		return s.Reads()
	})
	get()
	want(0, 1, 1, 0, 0)
	get()
	get()
	want(2, 1, 1, 0, 0)
	l.cut()
	get()
	get()
	want(2, 1, 3, 1, 1)
}
