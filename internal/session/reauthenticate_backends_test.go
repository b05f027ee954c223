package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Over each backend two replicas renew a session and note authentications, at the same time,
// until one of them ends it. Before that nothing is lost of either: the chain of refresh
// tokens goes on, and the session has every method and the last time. After it there is
// nothing but the end.
func TestReauthenticationsRenewalsAndALogout(t *testing.T) {
	overBackends(t, func(t *testing.T, stores [2]*session.Store) {
		for range 3 {
			history(t, stores)
		}
	})
}

// overBackends runs a test with two replicas over each backend.
func overBackends(t *testing.T, test func(*testing.T, [2]*session.Store)) {
	t.Helper()
	inSQLBoth := func(t *testing.T, url string) [2]state.Store { return [2]state.Store{inSQL(t, url), inSQL(t, url)} }
	for name, open := range map[string]func(*testing.T) [2]state.Store{
		"memory": func(*testing.T) [2]state.Store { m := memstate.New(time.Now); return [2]state.Store{m, m} },
		"sqlite": func(t *testing.T) [2]state.Store {
			return inSQLBoth(t, "sqlite:"+filepath.Join(t.TempDir(), "watchword.db"))
		},
		"postgres": func(t *testing.T) [2]state.Store { return inSQLBoth(t, testenv.Postgres(t)) },
		"mariadb":  func(t *testing.T) [2]state.Store { return inSQLBoth(t, testenv.MariaDB(t)) },
		"redis": func(t *testing.T) [2]state.Store {
			url := testenv.Redis(t)
			return [2]state.Store{inRedis(t, url), inRedis(t, url)}
		},
		"tiered": func(t *testing.T) [2]state.Store {
			url, sql := testenv.Redis(t), testenv.Postgres(t)
			return [2]state.Store{newReplica(t, sql, url, tiered.Timeout).tier, newReplica(t, sql, url, tiered.Timeout).tier}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stores [2]*session.Store
			for i, s := range open(t) {
				stores[i] = session.New(session.Config{
					State: s, TTL: time.Hour, RefreshDuration: time.Hour, RenewGrace: time.Minute, Now: time.Now,
					Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler),
				})
			}
			test(t, stores)
		})
	}
}

func history(t *testing.T, stores [2]*session.Store) {
	t.Helper()
	const callers, calls = 4, 5
	ctx, user := t.Context(), uuid.NewString()
	s, refresh, _, err := stores[0].Start(ctx, user, 0, "", "", func(s *session.Session) error { s.AMR = []string{"pwd"}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	key := state.Key{Kind: session.Kind, Owner: user, ID: s.ID}
	last := s.CreatedAt.Add(callers * calls * time.Second)
	note := func(caller, call int) error {
		n := caller*calls + call + 1
		_, err := stores[n%2].Reauthenticated(ctx, user, s.ID, s.CreatedAt.Add(time.Duration(n)*time.Second), []string{fmt.Sprintf("m%02d", n)})
		return err
	}
	var work sync.WaitGroup
	for caller := range callers {
		work.Go(func() {
			for call := range calls {
				if err := note(caller, call); err != nil {
					t.Errorf("call %d of caller %d: %v", call, caller, err)
				}
			}
		})
	}
	renew := func(may func(error) bool) (renewals int) {
		for {
			_, next, err := stores[renewals%2].Renew(ctx, refresh, func(context.Context, session.Session) error { return nil })
			if errors.Is(err, session.ErrTooFast) {
				continue // it has met so many others, and has spent nothing
			}
			if err != nil {
				if !may(err) {
					t.Errorf("renewal %d: %v", renewals, err)
				}
				return renewals
			}
			refresh = next
			if renewals++; renewals%10 == 0 {
				return renewals
			}
		}
	}
	work.Go(func() { renew(func(error) bool { return false }) })
	work.Wait()
	want := []string{"pwd"}
	for n := range callers * calls {
		want = append(want, fmt.Sprintf("m%02d", n+1))
	}
	slices.Sort(want)
	got, err := stores[1].Get(ctx, user, s.ID)
	if err != nil || !got.AuthTime.Equal(last) || !slices.Equal(got.AMR, want) {
		t.Fatalf("it is %+v, %v", got, err)
	}

	ended := func(err error) bool { return errors.Is(err, session.ErrInvalid) || errors.Is(err, session.ErrEnded) }
	for caller := range callers {
		work.Go(func() {
			for call := range calls {
				n := caller*calls + call
				_, err := stores[n%2].Reauthenticated(ctx, user, s.ID, last.Add(time.Duration(n+1)*time.Second), nil)
				if err != nil && !ended(err) {
					t.Errorf("beside a logout: %v", err)
				}
			}
		})
	}
	work.Go(func() { renew(ended) })
	if err := stores[1].Stop(ctx, user, s.ID); err != nil {
		t.Error(err)
	}
	stopped, err := stores[0].State.Get(ctx, key)
	if err != nil {
		t.Error(err)
	}
	work.Wait()
	if after, err := stores[0].State.Get(ctx, key); err != nil || after.Version != stopped.Version {
		t.Errorf("after it was stopped, it was written: %s, %v", after.Value, err)
	}
	if _, err := stores[0].Reauthenticated(ctx, user, s.ID, last, nil); !errors.Is(err, session.ErrInvalid) {
		t.Errorf("after it was stopped: %v", err)
	}
	if err := stores[0].End(ctx, user, s.ID); err != nil {
		t.Error(err)
	}
	if _, err := stores[1].Reauthenticated(ctx, user, s.ID, last, nil); !errors.Is(err, session.ErrInvalid) {
		t.Errorf("after its end: %v", err)
	}
}
