package revocation

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A replica was cut off while something was revoked. In the moment in which it
// has sight of the log again, it must not take the list of before for the knowledge
// of after.
func TestReconnectingAcceptsNothingLate(t *testing.T) {
	m := newMemLog()
	var ahead atomic.Int64
	v, err := NewView(Config{
		Store: m, Poll: time.Second, MaxStaleness: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := v.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	rounds := 500
	if os.Getenv("WATCHWORD_SOAK") != "" {
		rounds = 10_000
	}
	for i := range rounds {
		id := strconv.Itoa(i)
		if _, err := m.AppendRevocation(ctx, line(id)); err != nil {
			t.Fatal(err)
		}
		ahead.Add(int64(time.Hour)) // since then it was cut off
		var stop atomic.Bool
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for tok := token(id); !stop.Load(); {
					switch err := v.Check(ctx, tok); {
					case err == nil:
						t.Errorf("token %d, revoked an hour ago, is accepted", i)
						return
					case errors.Is(err, ErrRevoked):
						return
					}
				}
			})
		}
		if err := v.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		stop.Store(true)
		asking.Wait()
	}
}
