package backends

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
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
			worlds := []*replica.World{replica.Join(t, database, graceful), replica.Join(t, database, graceful)}
			kit.SameKeySet(t, 2, &worlds[0].Client, &worlds[1].Client)
			t.Run("sessions", func(t *testing.T) { sessionsOverReplicas(t, worlds) })
			t.Run("a logout against renewals", func(t *testing.T) { logoutAgainstRenewals(t, worlds) })
			t.Run("one token renewed by many", func(t *testing.T) { oneTokenRenewedByMany(t, worlds) })
		})
	}
}

// A logout on one replica is not undone by renewals that are under way on all of
// them, whichever way they come to stand.
func logoutAgainstRenewals(t *testing.T, worlds []*replica.World) {
	worlds[0].User("runner")
	rounds := 4
	if kit.Soak() {
		rounds = 30
	}
	for round := range rounds {
		g := worlds[0].Login("runner")
		var people sync.WaitGroup
		var mu sync.Mutex
		last := map[string]bool{g.RefreshToken: true} // tokens that were given
		began, ended := make(chan struct{}, 100), make(chan struct{})
		for i := range 4 {
			people.Go(func() {
				token := g.RefreshToken
				for n := 0; ; n++ {
					next, a := worlds[(i+n)%2].Renew(token)
					if a.Status == 429 || a.Status == 503 { // too often, or to be tried again
						continue
					}
					if a.Status != 200 {
						if a.Code() != "invalid_refresh_token" {
							t.Errorf("a renewal was answered %d %s", a.Status, a.Body)
						}
						return
					}
					mu.Lock()
					last[next.RefreshToken] = true
					mu.Unlock()
					token = next.RefreshToken
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
				t.Fatal("the renewals ended before the logout")
			}
		}
		here := worlds[round%2]
		here.Want(here.Do("POST", "/api/logout", g.AccessToken, nil), 204, "")
		for _, w := range worlds {
			if _, a := w.Renew(g.RefreshToken); a.Code() != "invalid_refresh_token" {
				t.Errorf("after the logout: %d %s", a.Status, a.Body)
			}
		}
		people.Wait()
		for token := range last {
			if _, a := worlds[round%2].Renew(token); a.Code() != "invalid_refresh_token" {
				t.Fatalf("the session is back: %d %s", a.Status, a.Body)
			}
		}
	}
	last := worlds[0].Login("runner")
	list := kit.Decode[httpapi.SessionList](t, worlds[1].Want(worlds[1].Do("GET", "/api/sessions", last.AccessToken, nil), 200, "")).Sessions
	if len(list) != 1 || list[0].ID != last.SessionID {
		t.Errorf("sessions are left: %+v", list)
	}
}

// A user who signs in gets a session of a new id, and sees all of their sessions, from every
// replica. The user ends one of them or all others; an administrator ends all.
func sessionsOverReplicas(t *testing.T, worlds []*replica.World) {
	worlds[0].User("tester")
	var mine []httpapi.Grant
	ids := map[string]bool{}
	for i := range 4 {
		g := loginAs(worlds[i%2], "tester", fmt.Sprint("device ", i))
		mine, ids[g.SessionID] = append(mine, g), true
	}
	if len(ids) != len(mine) {
		t.Errorf("sessions share an id: %v", ids)
	}
	list := func(w *replica.World, token string) []httpapi.Session {
		return kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", "/api/sessions", token, nil), 200, "")).Sessions
	}
	for _, w := range worlds {
		got := list(w, mine[1].AccessToken)
		if len(got) != len(mine) {
			t.Fatalf("%d sessions of %d", len(got), len(mine))
		}
		for i, s := range got { // the newest first
			g := mine[len(mine)-1-i]
			if s.ID != g.SessionID || s.UserAgent != fmt.Sprint("device ", len(mine)-1-i) || s.Address != "127.0.0.1" ||
				s.Current != (g.SessionID == mine[1].SessionID) || s.CreatedAt.IsZero() || s.RenewedAt.Before(s.CreatedAt.Time) || !s.ExpiresAt.After(s.CreatedAt.Time) {
				t.Errorf("%+v", s)
			}
		}
	}
	refused := func(g httpapi.Grant) {
		t.Helper()
		since := time.Now()
		for _, w := range worlds {
			w.Refuses(g.AccessToken, "token_revoked", since, kit.Promised)
			if _, a := w.Renew(g.RefreshToken); a.Code() != "invalid_refresh_token" {
				t.Errorf("a session that has ended is renewed: %d %s", a.Status, a.Body)
			}
		}
	}
	worlds[0].Want(worlds[0].Do("DELETE", "/api/sessions/"+mine[0].SessionID, mine[1].AccessToken, nil), 204, "")
	refused(mine[0])
	worlds[1].Want(worlds[1].Do("DELETE", "/api/sessions", mine[1].AccessToken, nil), 204, "")
	refused(mine[2])
	refused(mine[3])
	for _, w := range worlds {
		if got := list(w, mine[1].AccessToken); len(got) != 1 || got[0].ID != mine[1].SessionID {
			t.Errorf("left are %+v", got)
		}
	}
	user := worlds[0].Verify(mine[1].AccessToken)["sub"].(string)
	admin := worlds[1].Login("admin").AccessToken
	worlds[0].Want(worlds[0].Do("DELETE", "/api/users/"+user+"/sessions", mine[1].AccessToken, nil), 403, "permission_missing")
	worlds[1].Want(worlds[1].Do("DELETE", "/api/users/"+user+"/sessions", admin, nil), 204, "")
	refused(mine[1])
	worlds[0].Verify(admin)
	var actions []string
	events, err := worlds[0].Parts().Audit.Events(t.Context(), store.AuditQuery{Limit: 100})
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

// loginAs logs in from a device.
func loginAs(w *replica.World, username, device string) httpapi.Grant {
	w.T.Helper()
	r, err := http.NewRequestWithContext(w.T.Context(), "POST", w.URL+"/api/login", strings.NewReader(fmt.Sprintf(`{"username":%q,"password":%q}`, username, kit.Password)))
	if err != nil {
		w.T.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", device)
	return kit.Decode[httpapi.Grant](w.T, w.Want(w.Send(r), 200, ""))
}
