package api

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
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A failing store fails to append to the revocation log, in either truth.
type failing struct {
	store.Store
	mode  atomic.Int32
	ahead atomic.Int64 // of the replica's clock
}

const (
	failNot        = iota
	failBefore     // failed and not persisted
	failAfterwards // failed but persisted
)

var errAppend = errors.New("the database went away")

func (f *failing) AppendRevocation(ctx context.Context, r store.Revocation) (int64, error) {
	switch f.mode.Load() {
	case failBefore:
		return 0, errAppend
	case failAfterwards:
		if _, err := f.Store.AppendRevocation(ctx, r); err != nil {
			return 0, err
		}
		return 0, errAppend
	}
	return f.Store.AppendRevocation(ctx, r)
}

// newFailing starts a replica on a failing store, with three sessions a user and no
// grace period.
func newFailing(t *testing.T) (*replica.World, *failing) {
	t.Helper()
	url := sqldbtest.SQLite(t)
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f := &failing{Store: sqlstore.New(db)}
	now := func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }
	w := replica.NewWith(t, replica.Options{State: memstate.New(now), Store: f, Now: now}, func(cfg *config.Config) {
		cfg.Tokens.Keys, cfg.Tokens.RenewGrace, cfg.Sessions.MaxPerUser = config.KeysMemory, 0, 3
		cfg.Revocation.MaxStaleness = time.Minute // longer than a test sets the clock ahead
		cfg.Database.URL = url
	})
	return w, f
}

// Sessions end while the log cannot be written. A client that tries again
// and is answered 2xx finds the session ended.
func TestAnEndThatFailedIsFinished(t *testing.T) {
	for name, mode := range map[string]int32{"failed and not persisted": failBefore, "failed but persisted": failAfterwards} {
		t.Run(name, func(t *testing.T) {
			w, f := newFailing(t)
			for name, end := range map[string]func(t *testing.T, user string) (taken []httpapi.Grant){
				"one": func(t *testing.T, user string) []httpapi.Grant {
					me, other := w.Login(user), w.Login(user)
					f.mode.Store(mode)
					w.Want(w.Do("DELETE", "/api/sessions/"+other.SessionID, me.AccessToken, nil), 503, "revocation_not_recorded")
					_, a := w.Renew(other.RefreshToken)
					w.Want(a, 503, "revocation_not_recorded")
					f.mode.Store(failNot)
					if list := kit.Decode[httpapi.SessionList](w.T, w.Do("GET", "/api/sessions", me.AccessToken, nil)).Sessions; len(list) != 1 {
						t.Errorf("a session that is ending is listed: %+v", list)
					}
					w.Want(w.Do("DELETE", "/api/sessions/"+other.SessionID, me.AccessToken, nil), 204, "")
					return []httpapi.Grant{other}
				},
				"one by its refresh token": func(t *testing.T, user string) []httpapi.Grant {
					me, other := w.Login(user), w.Login(user)
					f.mode.Store(mode)
					w.Want(w.Do("DELETE", "/api/sessions/"+other.SessionID, me.AccessToken, nil), 503, "revocation_not_recorded")
					f.mode.Store(failNot)
					_, a := w.Renew(other.RefreshToken)
					w.Want(a, 401, "invalid_refresh_token")
					return []httpapi.Grant{other}
				},
				"the others": func(t *testing.T, user string) []httpapi.Grant {
					me, second, third := w.Login(user), w.Login(user), w.Login(user)
					f.mode.Store(mode)
					w.Want(w.Do("DELETE", "/api/sessions", me.AccessToken, nil), 503, "revocation_not_recorded")
					f.mode.Store(failNot)
					w.Want(w.Do("DELETE", "/api/sessions", me.AccessToken, nil), 204, "")
					w.Verify(me.AccessToken)
					return []httpapi.Grant{second, third}
				},
				"those before": func(t *testing.T, user string) []httpapi.Grant {
					old, admin := w.Login(user), w.Login("admin")
					f.ahead.Store(int64(10 * time.Second))
					what := map[string]any{"user": user, "issued_before": time.Now().Add(time.Duration(f.ahead.Load())).Add(-5 * time.Second).Unix()}
					// Only the sessions' lines fail: the user's is written in a transaction.
					f.mode.Store(mode)
					w.Want(w.Do("POST", "/api/revocations", admin.AccessToken, what), 503, "revocation_not_recorded")
					f.mode.Store(failNot)
					w.Want(w.Do("POST", "/api/revocations", admin.AccessToken, what), 200, "")
					return []httpapi.Grant{old}
				},
				"the oldest of too many": func(t *testing.T, user string) []httpapi.Grant {
					oldest := w.Login(user)
					w.Login(user)
					w.Login(user)
					f.mode.Store(mode)
					w.Want(w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: user, Password: kit.Password}), 503, "revocation_not_recorded")
					f.mode.Store(failNot)
					me := w.Login(user)
					list := kit.Decode[httpapi.SessionList](t, w.Do("GET", "/api/sessions", me.AccessToken, nil)).Sessions
					if len(list) != 3 {
						t.Errorf("%d sessions are left, want 3", len(list))
					}
					return []httpapi.Grant{oldest}
				},
				"a replay": func(t *testing.T, user string) []httpapi.Grant {
					g := w.Login(user)
					next, _ := w.Renew(g.RefreshToken)
					if _, a := w.Renew(next.RefreshToken); a.Status != 200 {
						t.Fatalf("%d %s", a.Status, a.Body)
					}
					f.mode.Store(mode)
					_, a := w.Renew(g.RefreshToken)
					w.Want(a, 503, "revocation_not_recorded")
					f.mode.Store(failNot)
					_, a = w.Renew(g.RefreshToken)
					w.Want(a, 401, "invalid_refresh_token")
					return []httpapi.Grant{g}
				},
			} {
				t.Run(name, func(t *testing.T) {
					user := strings.ReplaceAll(name, " ", "-")
					w.User(user)
					for _, g := range end(t, user) {
						w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
						_, a := w.Renew(g.RefreshToken)
						w.Want(a, 401, "invalid_refresh_token")
					}
				})
			}
		})
	}
}
