package app

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// onEachDatabase calls a function with a replica on each kind of database.
func onEachDatabase(t *testing.T, f func(t *testing.T, w *world)) {
	for name, url := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "watchword.db") },
		"postgres": func(t *testing.T) string { return testenv.Postgres(t) },
		"mariadb":  func(t *testing.T) string { return testenv.MariaDB(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, newWorld(t, on(url(t))))
		})
	}
}

// TestOnEachDatabase has what depends on the kind of database, with one replica for each.
func TestOnEachDatabase(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, w *world) {
		t.Run("ids that nothing can have", func(t *testing.T) { idsThatNothingCanHave(t, w) })
		t.Run("after the database's own tools", func(t *testing.T) { afterTheDatabasesOwnTools(t, w) })
	})
}

// What no id can be is the client's mistake and never the database's.
func idsThatNothingCanHave(t *testing.T, w *world) {
	admin := w.login("admin").AccessToken
	before := w.head()
	for what, id := range map[string]string{"long": strings.Repeat("x", 5000), "with a NUL": "a\x00b", "longer than a column": strings.Repeat("ö", 200)} {
		for _, field := range []string{"jti", "session_id", "user", "kid", "token"} {
			a := w.do("POST", "/api/revocations", admin, map[string]any{field: id})
			if a.status != 422 && a.status != 404 {
				t.Errorf("%s %s: %d %s", field, what, a.status, a.body)
			}
		}
		for _, path := range []string{"/api/users/", "/api/groups/", "/api/claims/", "/api/sessions/"} {
			method := "GET"
			if path == "/api/sessions/" {
				method = "DELETE"
			}
			if a := w.do(method, path+strings.NewReplacer("\x00", "%00").Replace(id), admin, nil); a.status != 422 && a.status != 404 {
				t.Errorf("%s %s: %d %s", path, what, a.status, a.body)
			}
		}
	}
	if head := w.head(); head != before {
		t.Errorf("%d lines were written", head-before)
	}
	w.verify(admin)
}

// Two tokens in one request: who is behind us might take the other one.
func TestTwoTokensInOneRequest(t *testing.T) {
	w := newWorld(t, nil)
	token := w.login("admin").AccessToken
	for _, headers := range [][]string{{"Bearer " + token, "Bearer " + token}, {"Bearer " + token, ""}, {"Basic x", "Bearer " + token}} {
		for _, path := range []string{"/api/verify", "/api/sessions"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header["Authorization"] = headers
			rec := httptest.NewRecorder()
			w.node.Handler().ServeHTTP(rec, r)
			if rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), "several_tokens") {
				t.Errorf("%s with %d headers: %d %s", path, len(headers), rec.Code, rec.Body)
			}
		}
	}
}

func TestAMomentThatWasNever(t *testing.T) {
	w := newWorld(t, nil)
	token := w.login("admin").AccessToken
	for _, moment := range []any{"0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", -1, 0, 1e300, "9999-12-31T23:59:59Z", "tomorrow", true, []int{1}} {
		a := w.do("POST", "/api/revocations", token, map[string]any{"user": w.verify(token)["sub"], "issued_before": moment})
		if a.status != 422 {
			t.Errorf("%v: %d %s", moment, a.status, a.body)
		}
	}
	w.verify(token)
}

// A change of nothing to nothing changes nothing.
func TestNullLeavesAsItIs(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester")
	admin, tester := w.login("admin").AccessToken, w.login("tester").AccessToken
	for _, body := range []string{
		`{"password":null}`, `{"disabled":null}`, `{"username":null}`, `{"email":null,"first_name":null,"last_name":null}`, `{}`,
	} {
		if a := w.do("PATCH", "/api/users/tester", admin, body); a.status != 200 && a.status != 422 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	for _, body := range []string{`null`, `{"password":""}`, `{"username":""}`, `{"id":"x"}`, `{"epoch":0}`, `{"groups":["Administrators"]}`} {
		if a := w.do("PATCH", "/api/users/tester", admin, body); a.status != 422 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if claims := w.verify(tester); claims["preferred_username"] != "tester" || claims["email"] != "tester@example.com" {
		t.Errorf("the user is %v", claims)
	}
	w.login("tester") // with the same password
}

// A leaver is a state whose client hangs up as soon as a record is deleted.
type leaver struct {
	state.Store
	hangUp atomic.Pointer[context.CancelFunc]
}

func (l *leaver) Delete(ctx context.Context, k state.Key) error {
	err := l.Store.Delete(ctx, k)
	if f := l.hangUp.Load(); f != nil {
		(*f)()
	}
	return err
}

// A client that hangs up in the middle of it has not kept its tokens.
func TestHangingUpKeepsNoToken(t *testing.T) {
	l := &leaver{Store: memstate.New(time.Now)}
	w := newWorldOn(t, l, func(c *config.Config) {
		c.Sessions.MaxPerUser, c.Tokens.RenewGrace = 1, 0
	})
	w.user("tester")
	hangUp := func(method, path, token, body string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l.hangUp.Store(&cancel)
		defer l.hangUp.Store(nil)
		r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		w.node.Handler().ServeHTTP(httptest.NewRecorder(), r)
		if ctx.Err() == nil {
			t.Fatal("nothing was deleted")
		}
	}
	for name, attempt := range map[string]func(g httpapi.Grant){
		"logout": func(g httpapi.Grant) { hangUp("POST", "/api/logout", g.AccessToken, "") },
		"its own session": func(g httpapi.Grant) {
			hangUp("DELETE", "/api/sessions/"+g.SessionID, g.AccessToken, "")
		},
		"its own session, revoked": func(g httpapi.Grant) {
			hangUp("POST", "/api/revocations", g.AccessToken, `{"session_id":"`+g.SessionID+`"}`)
		},
		"a spent refresh token": func(g httpapi.Grant) {
			spent := httpapi.RenewRequest{RefreshToken: g.RefreshToken}
			w.want(w.do("POST", "/api/renew", "", spent), 200, "")
			hangUp("POST", "/api/renew", "", `{"refresh_token":"`+g.RefreshToken+`"}`)
		},
		"one session too many": func(httpapi.Grant) {
			hangUp("POST", "/api/login", "", `{"username":"tester","password":"`+password+`"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := w.login("tester")
			attempt(g)
			w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
			w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
		})
	}
}

// A session that ends is refused as one, to its last moment.
func TestTheLastSecondOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newQuietWorld(t, func(c *config.Config) { c.Sessions.TTL, c.Tokens.TokenDuration = 2*time.Second, time.Second })
		grant := w.login("admin")
		begun := time.Now()
		for {
			a := w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken})
			if a.status != 200 {
				w.want(a, 401, "invalid_refresh_token")
				return
			}
			if grant = decode[httpapi.Grant](t, a); grant.ExpiresIn < 0 || time.Since(begun) > w.cfg.Sessions.TTL {
				t.Fatalf("after %v the grant is %+v", time.Since(begun), grant)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// A name of the operator's own for who the user is has no look-alike among claims.
func TestNoClaimLooksLikeWhoTheUserIs(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Tokens.UserInfo.Username = "login" })
	w.user("tester", "Login=admin", "login=root", "LOGIN=x", "logins=many")
	claims := w.verify(w.login("tester").AccessToken)
	for name, want := range map[string]any{"login": "tester", "Login": nil, "LOGIN": nil, "logins": "many"} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
}

// Values are joined with commas, so who one is has none: a user "x,root" would be
// root for a resource server that asks whether the claim holds that value.
func TestNobodyIsTwoByAComma(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Tokens.UserInfo.FullName = "who" })
	admin := w.login("admin").AccessToken
	for _, name := range []string{"x,root", "x\uff0croot", ","} { // a full-width one folds to the other
		w.want(w.do("POST", "/api/users", admin, httpapi.NewUser{Username: name, Password: password}), 422, "invalid_username")
	}
	w.want(w.do("POST", "/api/users", admin, httpapi.NewUser{Username: "tester", Password: password,
		FirstName: "Travis,root", LastName: "Ester, Jr.", Email: "a,root@example.com"}), 422, "invalid_email")
	w.want(w.do("POST", "/api/users", admin, httpapi.NewUser{Username: "tester", Password: password,
		FirstName: "Travis,root", LastName: "Ester, Jr."}), 201, "")
	claims := w.verify(w.login("tester").AccessToken)
	if got := claims["who"]; got != "Travis root Ester Jr." {
		t.Errorf("the name is %q", got)
	}
	if u := w.do("GET", "/api/users/tester", admin, nil); !strings.Contains(string(u.body), "Ester, Jr.") {
		t.Errorf("the directory has %s", u.body)
	}
}

// There is one way to ask whether a token is good: what verify refuses, no endpoint
// takes.
func TestNoEndpointTakesWhatWasRevoked(t *testing.T) {
	w := newWorld(t, nil)
	grant := w.login("admin")
	w.want(w.do("POST", "/api/logout", grant.AccessToken, nil), 204, "")
	var doc struct {
		Paths map[string]map[string]struct{ Security []map[string][]string }
	}
	if err := json.Unmarshal(w.do("GET", "/openapi.json", "", nil).body, &doc); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for path, item := range doc.Paths {
		for method, op := range item {
			if len(op.Security) == 0 {
				continue
			}
			path := strings.NewReplacer("{id}", "admin", "{group}", "Administrators", "{claim}", "Superuser").Replace(path)
			a := w.do(strings.ToUpper(method), path, grant.AccessToken, nil)
			if method == "head" { // without a body, but the challenge has the code
				w.want(a, 401, "")
			} else {
				w.want(a, 401, "token_revoked")
			}
			if challenge := a.header.Get("WWW-Authenticate"); !strings.Contains(challenge, "token_revoked") {
				t.Errorf("%s %s: the challenge is %q", method, path, challenge)
			}
			asked++
		}
	}
	if asked < 25 {
		t.Errorf("only %d endpoints ask for a token", asked)
	}
}

// A session takes the same room however often it is renewed and verified: no token
// that was issued is stored.
func TestTokensLeaveNothingBehind(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Tokens.RenewGrace = 0 })
	grant := w.login("admin")
	size := func() (rows map[string]int) {
		rows = map[string]int{}
		for _, table := range []string{"users", "settings", "signing_keys", "used_kids", "revocations", "audit_events", "state_records WHERE kind <> 'lease'"} {
			var n int
			if err := w.node.parts.DB.QueryRow(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil {
				t.Fatal(err)
			}
			rows[table] = n
		}
		return rows
	}
	length := func() (n int) {
		if err := w.node.parts.DB.QueryRow(t.Context(), "SELECT LENGTH(value) FROM state_records WHERE kind = 'session'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	renew := func() {
		grant = decode[httpapi.Grant](t, w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, ""))
		w.verify(grant.AccessToken)
	}
	renew()
	before, long := size(), length()
	for range 50 {
		renew()
	}
	if after := size(); !maps.Equal(before, after) || length() > long+100 {
		t.Errorf("rows were %v and are %v; the session had %d bytes and has %d", before, after, long, length())
	}
}
