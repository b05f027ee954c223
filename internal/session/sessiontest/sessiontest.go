// Package sessiontest holds a backend of package state to what sessions need of it.
package sessiontest

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
)

const (
	callers = 32
	rounds  = 5
)

// Family has many callers at once renew the same refresh token, on two replicas.
// Each round has one successor. After the grace period two tokens are good: the one that is
// not spent, and the last one before it, which gives another successor. The first of the
// two successors that is used ends the other one.
func Family(t *testing.T, replicas [2]state.Store) {
	t.Helper()
	on := func(s state.Store, grace time.Duration) *session.Store {
		return session.New(session.Config{
			State: s, TTL: time.Hour, RefreshDuration: time.Hour, RenewGrace: grace, Now: time.Now, Rand: rand.Reader,
		})
	}
	stores := [2]*session.Store{on(replicas[0], 10*time.Minute), on(replicas[1], 10*time.Minute)}
	_, token, _, err := stores[0].Start(t.Context(), uuid.NewString(), 1, "192.0.2.1", "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	var spent []string
	for round := range rounds {
		var (
			successors [callers]string
			errs       [callers]error
			work       sync.WaitGroup
		)
		begin := make(chan struct{})
		for i := range callers {
			work.Go(func() {
				<-begin
				_, successors[i], errs[i] = stores[i%2].Renew(t.Context(), token, always)
			})
		}
		close(begin)
		work.Wait()
		for i := range callers {
			if errs[i] != nil || successors[i] != successors[0] {
				t.Fatalf("round %d: caller %d got %q, %v; caller 0 got %q", round, i, successors[i], errs[i], successors[0])
			}
		}
		spent, token = append(spent, token), successors[0]
	}
	strict := on(replicas[1], 0)
	last := len(spent) - 1
	for i, old := range spent[:last] {
		if _, _, err := strict.Renew(t.Context(), old, always); !errors.Is(err, session.ErrReplayed) {
			t.Errorf("the token of round %d can be used still: %v", i, err)
		}
	}
	_, another, err := strict.Renew(t.Context(), spent[last], always)
	if err != nil || another == token {
		t.Errorf("the token that was spent last gives %q, %v", another, err)
	}
	if _, _, err := strict.Renew(t.Context(), token, always); err != nil {
		t.Errorf("the last token cannot be used: %v", err)
	}
	if _, _, err := strict.Renew(t.Context(), another, always); !errors.Is(err, session.ErrReplayed) {
		t.Errorf("the other successor can be used: %v", err)
	}
}

// always lets every renewal be.
func always(context.Context, session.Session) error { return nil }
