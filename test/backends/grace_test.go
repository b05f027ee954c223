package backends

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// family is three replicas over one PostgreSQL, each by a way of its own, on a clock that can
// be set ahead.
type family struct {
	*testing.T
	at    [3]*replica.World
	ways  [3]*testenv.Link
	db    *sqldb.DB
	ahead atomic.Int64
}

func newFamily(t *testing.T) *family {
	f := &family{T: t}
	database := testenv.Postgres(t)
	f.db = other(t, database)
	now := func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }
	for i := range f.at {
		var through string
		f.ways[i], through = replica.Link(t, database)
		f.at[i] = replica.JoinWith(t, through, replica.Options{Now: now}, func(cfg *config.Config) {
			kit.StoredKeys(cfg)
			cfg.Tokens.RenewGrace = time.Minute     // longer than the machine stands still
			cfg.Revocation.MaxStaleness = time.Hour // longer than the test sets the clock ahead
		})
	}
	return f
}

func (f *family) pass(d time.Duration) { f.ahead.Add(int64(d)) }

func (f *family) renew(at int, token string) kit.Answer {
	return f.at[at].Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: token})
}

// renewed renews as a client does that is told to try again.
func (f *family) renewed(at int, token string) string {
	f.Helper()
	return renewed(f.at[at], token).RefreshToken
}

// whileCommitting renews at the first replica, and calls a function when the write is under
// way and waits in the database; the write is done when the function returns.
func (f *family) whileCommitting(g httpapi.Grant, meanwhile func()) (answer func() kit.Answer) {
	f.Helper()
	answers := make(chan kit.Answer, 1)
	if err := f.db.InTx(f.Context(), func(ctx context.Context, q sqldb.Q) error {
		var version int64
		if err := q.QueryRow(ctx, "SELECT version FROM state_records WHERE kind = 'session' AND id = ? FOR UPDATE", g.SessionID).Scan(&version); err != nil {
			return err
		}
		go func() { answers <- f.renew(0, g.RefreshToken) }()
		f.at[0].Await("the renewal is about to be written", func() bool { return waiting(f.T, f.db) == 1 })
		meanwhile()
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	return func() kit.Answer { return <-answers }
}

// An honest client is no thief: not when the commit of its renewal is slow, or its answer is
// lost on one of four ways, and not when it comes back long after. A thief is one.
func TestRenewalsWhoseAnswersAreLateOrLost(t *testing.T) {
	t.Parallel()
	f := newFamily(t)
	grace := f.at[0].Config.Tokens.RenewGrace

	t.Run("slow, and answered", func(t *testing.T) {
		g := f.at[0].Login("admin")
		a := f.whileCommitting(g, func() { f.pass(2 * grace) })()
		first := kit.Decode[httpapi.Grant](t, f.at[0].Want(a, 200, "")).RefreshToken
		f.pass(grace / 2)
		for i := range f.at { // other tabs
			if f.renewed(i, g.RefreshToken) != first {
				t.Errorf("replica %d gives another successor", i)
			}
		}
		f.renewed(1, first)
	})

	t.Run("a phone comes back, and then a thief", func(t *testing.T) {
		g := f.at[0].Login("admin")
		lost := f.renewed(0, g.RefreshToken)
		f.pass(grace + time.Second)
		back := kit.Decode[httpapi.Grant](t, f.at[1].Want(f.renew(1, g.RefreshToken), 200, ""))
		if back.RefreshToken == lost {
			t.Error("the same successor after the grace period")
		}
		f.pass(time.Minute)
		last := kit.Decode[httpapi.Grant](t, f.at[2].Want(f.renew(2, back.RefreshToken), 200, ""))
		f.at[0].Want(f.renew(0, lost), 401, "refresh_token_replayed")
		f.at[1].Want(f.renew(1, last.RefreshToken), 401, "invalid_refresh_token")
		for _, token := range []string{g.AccessToken, back.AccessToken, last.AccessToken} {
			f.at[0].Want(f.at[0].Do("GET", "/api/verify", token, nil), 401, "token_revoked")
		}
	})

	t.Run("a failover between two tabs", func(t *testing.T) {
		g := f.at[0].Login("admin")
		first := f.renewed(0, g.RefreshToken)
		for _, way := range f.ways {
			way.Set(testenv.Fault{Cut: true})
		}
		for i, w := range f.at {
			// Requests that fail say the first half, too, and sooner.
			w.Await("the replica knows", func() bool {
				return strings.Contains(w.Log.String(), "the store of sessions does not answer; nobody can log in or renew")
			})
			if a := f.renew(i, g.RefreshToken); a.Status != 503 || a.Header.Get("Retry-After") == "" {
				t.Errorf("replica %d answers %d %s", i, a.Status, a.Body)
			}
		}
		f.pass(2 * grace)
		for i, way := range f.ways {
			way.Set(testenv.Fault{})
			if f.renewed(i, g.RefreshToken) != first {
				t.Errorf("replica %d gives another successor after the failover", i)
			}
		}
		for _, w := range f.at {
			w.Await("the replica knows", func() bool { return strings.Contains(w.Log.String(), "the store of sessions answers again") })
		}
		f.renewed(1, first)
	})

	t.Run("done, and answered 503", func(t *testing.T) {
		g := f.at[0].Login("admin")
		var before int64
		answer := f.whileCommitting(g, func() {
			before = f.version(g)
			f.ways[0].Set(testenv.Fault{HoldDown: true})
		})
		f.at[0].Await("it is written", func() bool { return f.version(g) != before })
		if !kit.Soak() { // else it takes the 15 s that it is waited for
			f.pass(2 * grace)
			f.ways[0].Set(testenv.Fault{Cut: true})
		}
		if a := answer(); a.Status != 503 || a.Header.Get("Retry-After") == "" {
			t.Fatalf("a renewal whose answer is lost is answered %d %s", a.Status, a.Body)
		}
		f.ways[0].Set(testenv.Fault{})
		f.pass(time.Second)
		f.renewed(2, f.renewed(1, g.RefreshToken))
	})
}

// version is that of a session's record.
func (f *family) version(g httpapi.Grant) (version int64) {
	f.Helper()
	err := f.db.QueryRow(f.Context(), "SELECT version FROM state_records WHERE kind = 'session' AND id = ?", g.SessionID).Scan(&version)
	if err != nil && !errors.Is(err, sqldb.ErrNoRows) {
		f.Fatal(err)
	}
	return version
}
