package api

import (
	"errors"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A user who revokes everything of their own needs no permission, whichever case they write
// their name in.
func TestRevokingOneselfByName(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	w.User("other")
	g := w.Login("tester")
	w.Want(w.Do("POST", "/api/revocations", g.AccessToken, map[string]any{"user": "other"}), 403, "permission_missing")
	w.Want(w.Do("POST", "/api/revocations", g.AccessToken, map[string]any{"user": "Tester"}), 200, "")
	w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
}

// Another user's session that was revoked by its id is gone from the list, and
// does not count against the limit of sessions.
func TestASessionRevokedByItsIDDoesNotCount(t *testing.T) {
	w := replica.New(t, func(cfg *config.Config) { cfg.Sessions.MaxPerUser = 2 })
	w.User("tester")
	admin, kept, taken := w.Login("admin"), w.Login("tester"), w.Login("tester")
	w.Revoke(admin.AccessToken, map[string]any{"session_id": taken.SessionID})
	third := w.Login("tester")
	w.Verify(kept.AccessToken)
	list := kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", "/api/sessions", third.AccessToken, nil), 200, "")).Sessions
	if len(list) != 2 || list[0].ID != third.SessionID || list[1].ID != kept.SessionID {
		t.Errorf("listed are %+v", list)
	}
	w.Want(w.Do("GET", "/api/verify", taken.AccessToken, nil), 401, "token_revoked")
}

// A record that cannot be read counts as a session, is not shown, and ends like the
// others: one, all others, all.
func TestASessionThatCannotBeRead(t *testing.T) {
	w := replica.New(t, func(cfg *config.Config) { cfg.Sessions.MaxPerUser = 2 })
	user := w.User("tester")
	spoil := func(g httpapi.Grant) {
		t.Helper()
		k := state.Key{Kind: session.Kind, Owner: user, ID: g.SessionID}
		if _, err := sqlstate.New(w.Parts().DB, time.Now).Put(t.Context(), k, []byte(`{"id":{}}`), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for name, end := range map[string]func(own, spoilt httpapi.Grant){
		"by signing in": func(httpapi.Grant, httpapi.Grant) { w.Login("tester") },
		"alone": func(own, spoilt httpapi.Grant) {
			w.Want(w.Do("DELETE", "/api/sessions/"+spoilt.SessionID, own.AccessToken, nil), 204, "")
		},
		"with the others": func(own, _ httpapi.Grant) {
			w.Want(w.Do("DELETE", "/api/sessions", own.AccessToken, nil), 204, "")
		},
		"with all": func(httpapi.Grant, httpapi.Grant) {
			w.Want(w.Do("DELETE", "/api/users/"+user+"/sessions", w.Login("admin").AccessToken, nil), 204, "")
		},
		"with what is earlier": func(own, _ httpapi.Grant) {
			w.Revoke(own.AccessToken, map[string]any{"user": "tester", "issued_before": time.Now().Add(-time.Hour)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := w.Login("tester")
			spoil(spoilt)
			own := w.Login("tester")
			list := kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", "/api/sessions", own.AccessToken, nil), 200, "")).Sessions
			if len(list) != 1 || list[0].ID != own.SessionID {
				t.Errorf("listed are %+v", list)
			}
			w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: spoilt.RefreshToken}), 401, "invalid_refresh_token")
			end(own, spoilt)
			w.Want(w.Do("GET", "/api/verify", spoilt.AccessToken, nil), 401, "token_revoked")
			if _, err := sqlstate.New(w.Parts().DB, time.Now).Get(t.Context(), state.Key{Kind: session.Kind, Owner: user, ID: spoilt.SessionID}); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("its record: %v", err)
			}
			w.Want(w.Do("DELETE", "/api/users/"+user+"/sessions", w.Login("admin").AccessToken, nil), 204, "")
		})
	}
}
