package app

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// backends are the shared states of a cluster.
var backends = map[string]func(testing.TB) (database string, change func(*config.Config)){
	"postgres": func(t testing.TB) (string, func(*config.Config)) {
		return testenv.Postgres(t), func(*config.Config) {}
	},
	"mariadb": func(t testing.TB) (string, func(*config.Config)) {
		return testenv.MariaDB(t), func(*config.Config) {}
	},
	"redis": func(t testing.TB) (string, func(*config.Config)) {
		redis := testenv.Redis(t)
		return testenv.Postgres(t), func(cfg *config.Config) { cfg.Redis.URL, cfg.State.Backend = redis, "redis" }
	},
	"tiered": func(t testing.TB) (string, func(*config.Config)) {
		redis := testenv.Redis(t)
		return testenv.Postgres(t), func(cfg *config.Config) { cfg.Redis.URL = redis }
	},
}

// TestSharedStates has what replicas do with each kind of shared state, with two
// replicas for each, that sign with keys of their own.
func TestSharedStates(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, change := open(t)
			// A machine that stands still makes no replay of a renewal.
			graceful := func(cfg *config.Config) { change(cfg); cfg.Tokens.RenewGrace = 5 * time.Minute }
			worlds := []*world{join(t, database, graceful), join(t, database, graceful)}
			sameKeySet(t, worlds, 2)
			t.Run("sessions", func(t *testing.T) { sessionsOverReplicas(t, worlds) })
			t.Run("a logout against renewals", func(t *testing.T) { logoutAgainstRenewals(t, worlds) })
			t.Run("one token renewed by many", func(t *testing.T) { oneTokenRenewedByMany(t, worlds) })
		})
	}
}

// A logout on one replica is not undone by renewals that are under way on all of
// them, whichever way they come to stand.
func logoutAgainstRenewals(t *testing.T, worlds []*world) {
	worlds[0].user("runner")
	rounds := 4
	if soak() {
		rounds = 30
	}
	for round := range rounds {
		g := worlds[0].login("runner")
		var people sync.WaitGroup
		var mu sync.Mutex
		last := map[string]bool{g.RefreshToken: true} // tokens that were given
		began, ended := make(chan struct{}, 100), make(chan struct{})
		for i := range 4 {
			people.Go(func() {
				token := g.RefreshToken
				for n := 0; ; n++ {
					next, a := worlds[(i+n)%2].renew(token)
					if a.status == 429 || a.status == 503 { // more than anybody needs, or to be tried again
						continue
					}
					if a.status != 200 {
						if a.code() != "invalid_refresh_token" {
							t.Errorf("a renewal was answered %d %s", a.status, a.body)
						}
						return
					}
					mu.Lock()
					last[next] = true
					mu.Unlock()
					token = next
					select {
					case began <- struct{}{}:
					default:
					}
				}
			})
		}
		go func() { people.Wait(); close(ended) }()
		for range 4 * (round % 3) { // in the middle of it
			select {
			case <-began:
			case <-ended:
				t.Fatal("nobody renews any more, before the logout")
			}
		}
		here := worlds[round%2]
		here.want(here.do("POST", "/api/logout", g.AccessToken, nil), 204, "")
		for _, w := range worlds {
			if _, a := w.renew(g.RefreshToken); a.code() != "invalid_refresh_token" {
				t.Errorf("after the logout: %d %s", a.status, a.body)
			}
		}
		people.Wait()
		for token := range last {
			if _, a := worlds[round%2].renew(token); a.code() != "invalid_refresh_token" {
				t.Fatalf("the session is back: %d %s", a.status, a.body)
			}
		}
	}
	last := worlds[0].login("runner")
	list := decode[httpapi.SessionList](t, worlds[1].want(worlds[1].do("GET", "/api/sessions", last.AccessToken, nil), 200, "")).Sessions
	if len(list) != 1 || list[0].ID != last.SessionID {
		t.Errorf("sessions are left: %+v", list)
	}
}

// A user who signs in gets a session of a new id, and sees all of their sessions, from every
// replica. The user ends one of them or all others; an administrator ends all.
func sessionsOverReplicas(t *testing.T, worlds []*world) {
	worlds[0].user("tester")
	var mine []httpapi.Grant
	ids := map[string]bool{}
	for i := range 4 {
		g := worlds[i%2].loginAs("tester", fmt.Sprint("device ", i))
		mine, ids[g.SessionID] = append(mine, g), true
	}
	if len(ids) != len(mine) {
		t.Errorf("sessions share an id: %v", ids)
	}
	list := func(w *world, token string) []httpapi.Session {
		return decode[httpapi.SessionList](t, w.want(w.do("GET", "/api/sessions", token, nil), 200, "")).Sessions
	}
	for _, w := range worlds {
		got := list(w, mine[1].AccessToken)
		if len(got) != len(mine) {
			t.Fatalf("%d sessions of %d", len(got), len(mine))
		}
		for i, s := range got { // the newest first
			g := mine[len(mine)-1-i]
			if s.ID != g.SessionID || s.UserAgent != fmt.Sprint("device ", len(mine)-1-i) || s.Address != "127.0.0.1" ||
				s.Current != (g.SessionID == mine[1].SessionID) || s.CreatedAt.IsZero() || s.RenewedAt.Before(s.CreatedAt) || !s.ExpiresAt.After(s.CreatedAt) {
				t.Errorf("%+v", s)
			}
		}
	}
	refused := func(g httpapi.Grant) {
		t.Helper()
		since := time.Now()
		for _, w := range worlds {
			w.refuses(g.AccessToken, "token_revoked", since, promised)
			if _, a := w.renew(g.RefreshToken); a.code() != "invalid_refresh_token" {
				t.Errorf("a session that has ended is renewed: %d %s", a.status, a.body)
			}
		}
	}
	worlds[0].want(worlds[0].do("DELETE", "/api/sessions/"+mine[0].SessionID, mine[1].AccessToken, nil), 204, "")
	refused(mine[0])
	worlds[1].want(worlds[1].do("DELETE", "/api/sessions", mine[1].AccessToken, nil), 204, "")
	refused(mine[2])
	refused(mine[3])
	for _, w := range worlds {
		if got := list(w, mine[1].AccessToken); len(got) != 1 || got[0].ID != mine[1].SessionID {
			t.Errorf("left are %+v", got)
		}
	}
	user := worlds[0].verify(mine[1].AccessToken)["sub"].(string)
	admin := worlds[1].login("admin").AccessToken
	worlds[0].want(worlds[0].do("DELETE", "/api/users/"+user+"/sessions", mine[1].AccessToken, nil), 403, "permission_missing")
	worlds[1].want(worlds[1].do("DELETE", "/api/users/"+user+"/sessions", admin, nil), 204, "")
	refused(mine[1])
	worlds[0].verify(admin)
	var actions []string
	events, err := worlds[0].node.parts.Audit.Events(t.Context(), store.AuditQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		actions = append(actions, e.Action)
	}
	for _, want := range []string{"session_end", "session_end_others", "session_end_all"} {
		if !strings.Contains(strings.Join(actions, " ")+" ", want+" ") {
			t.Errorf("the audit trail lacks %s: %v", want, actions)
		}
	}
}

// One sign-in too many ends the oldest, wherever it was begun.
func TestMaxPerUserOverReplicas(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		limited := func(cfg *config.Config) { cfg.Sessions.MaxPerUser = 3 }
		worlds := []*world{b.join(limited), b.join(limited)}
		var grants []httpapi.Grant
		for i := range 5 {
			grants = append(grants, worlds[i%2].login("admin"))
		}
		time.Sleep(worlds[0].cfg.Revocation.Poll + time.Millisecond)
		for i, g := range grants {
			for _, w := range worlds {
				if i < 2 {
					w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
				} else {
					w.verify(g.AccessToken)
				}
			}
		}
	})
}

// loginAs logs in from a device.
func (w *world) loginAs(username, device string) httpapi.Grant {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "POST", w.http.URL+"/api/login", strings.NewReader(fmt.Sprintf(`{"username":%q,"password":%q}`, username, password)))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", device)
	return decode[httpapi.Grant](w.t, w.want(w.send(r), 200, ""))
}

// A user who revokes everything of their own needs no permission, by whichever name they
// say who they are.
func TestRevokingOneselfByName(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester")
	w.user("other")
	g := w.login("tester")
	w.want(w.do("POST", "/api/revocations", g.AccessToken, map[string]any{"user": "other"}), 403, "permission_missing")
	w.want(w.do("POST", "/api/revocations", g.AccessToken, map[string]any{"user": "Tester"}), 200, "")
	w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
}

// Another user's session that was revoked by its id is gone from the list, and
// takes nobody's place.
func TestASessionRevokedByItsIDDoesNotCount(t *testing.T) {
	w := newWorld(t, func(cfg *config.Config) { cfg.Sessions.MaxPerUser = 2 })
	w.user("tester")
	admin, kept, taken := w.login("admin"), w.login("tester"), w.login("tester")
	w.revoke(admin.AccessToken, map[string]any{"session_id": taken.SessionID})
	third := w.login("tester")
	w.verify(kept.AccessToken)
	list := decode[httpapi.SessionList](t, w.want(w.do("GET", "/api/sessions", third.AccessToken, nil), 200, "")).Sessions
	if len(list) != 2 || list[0].ID != third.SessionID || list[1].ID != kept.SessionID {
		t.Errorf("listed are %+v", list)
	}
	w.want(w.do("GET", "/api/verify", taken.AccessToken, nil), 401, "token_revoked")
}

// A record that cannot be read counts as a session, is not shown, and ends like the
// others: one, all others, all.
func TestASessionThatCannotBeRead(t *testing.T) {
	w := newWorld(t, func(cfg *config.Config) { cfg.Sessions.MaxPerUser = 2 })
	user := w.user("tester")
	spoil := func(g httpapi.Grant) {
		t.Helper()
		k := state.Key{Kind: session.Kind, Owner: user, ID: g.SessionID}
		if _, err := w.node.state.Put(t.Context(), k, []byte(`{"id":{}}`), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for name, end := range map[string]func(own, spoilt httpapi.Grant){
		"by signing in": func(httpapi.Grant, httpapi.Grant) { w.login("tester") },
		"alone": func(own, spoilt httpapi.Grant) {
			w.want(w.do("DELETE", "/api/sessions/"+spoilt.SessionID, own.AccessToken, nil), 204, "")
		},
		"with the others": func(own, _ httpapi.Grant) {
			w.want(w.do("DELETE", "/api/sessions", own.AccessToken, nil), 204, "")
		},
		"with all": func(httpapi.Grant, httpapi.Grant) {
			w.want(w.do("DELETE", "/api/users/"+user+"/sessions", w.login("admin").AccessToken, nil), 204, "")
		},
		"with what is earlier": func(own, _ httpapi.Grant) {
			w.revoke(own.AccessToken, map[string]any{"user": "tester", "issued_before": time.Now().Add(-time.Hour)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := w.login("tester")
			spoil(spoilt)
			own := w.login("tester")
			list := decode[httpapi.SessionList](t, w.want(w.do("GET", "/api/sessions", own.AccessToken, nil), 200, "")).Sessions
			if len(list) != 1 || list[0].ID != own.SessionID {
				t.Errorf("listed are %+v", list)
			}
			w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: spoilt.RefreshToken}), 401, "invalid_refresh_token")
			end(own, spoilt)
			w.want(w.do("GET", "/api/verify", spoilt.AccessToken, nil), 401, "token_revoked")
			if _, err := w.node.state.Get(t.Context(), state.Key{Kind: session.Kind, Owner: user, ID: spoilt.SessionID}); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("its record: %v", err)
			}
			w.want(w.do("DELETE", "/api/users/"+user+"/sessions", w.login("admin").AccessToken, nil), 204, "")
		})
	}
}
