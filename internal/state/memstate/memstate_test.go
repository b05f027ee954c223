package memstate_test

import (
	"errors"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
)

func TestConformance(t *testing.T) {
	stores := make(map[*testing.T]state.Store)
	statetest.Run(t, "memory", func(t *testing.T) state.Store {
		if stores[t] == nil {
			stores[t] = memstate.New(time.Now)
		}
		return stores[t]
	})
}

// The clock is the one that was passed in, and Sweep leaves nothing behind.
func TestClock(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := memstate.New(func() time.Time { return now })
	ctx, key := t.Context(), state.Key{Kind: "test", Owner: "o", ID: "i"}
	if _, err := s.Put(ctx, key, nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Limit(ctx, key, state.Rate{Burst: 1, Period: time.Minute}); err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	now = now.Add(time.Minute - 1)
	if _, err := s.Get(ctx, key); err != nil {
		t.Fatalf("a nanosecond before the end: %v", err)
	}
	if n, err := s.Sweep(ctx, 100); n != 0 || err != nil {
		t.Fatalf("swept %d, %v, before the end", n, err)
	}
	now = now.Add(1)
	if _, err := s.Get(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Fatalf("at the end: %v", err)
	}
	for _, want := range []int{1, 1, 0} {
		if n, err := s.Sweep(ctx, 1); n != want || err != nil {
			t.Fatalf("swept %d, %v, want %d", n, err, want)
		}
	}
}
