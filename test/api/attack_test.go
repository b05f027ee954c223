package api

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A request with two tokens is refused: the service behind a proxy might take the other one.
func TestTwoTokensInOneRequest(t *testing.T) {
	w := replica.New(t, nil)
	token := w.Login("admin").AccessToken
	for _, headers := range [][]string{{"Bearer " + token, "Bearer " + token}, {"Bearer " + token, ""}, {"Basic x", "Bearer " + token}} {
		for _, path := range []string{"/api/verify", "/api/sessions"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header["Authorization"] = headers
			rec := httptest.NewRecorder()
			w.Replica.Handler().ServeHTTP(rec, r)
			if rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), "several_tokens") {
				t.Errorf("%s with %d headers: %d %s", path, len(headers), rec.Code, rec.Body)
			}
		}
	}
}

func TestImpossibleIssuedBefore(t *testing.T) {
	w := replica.New(t, nil)
	token := w.Login("admin").AccessToken
	for _, moment := range []any{"0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", -1, 0, 1e300, "9999-12-31T23:59:59Z", "tomorrow", true, []int{1}} {
		a := w.Do("POST", "/api/revocations", token, map[string]any{"user": w.Verify(token)["sub"], "issued_before": moment})
		if a.Status != 422 {
			t.Errorf("%v: %d %s", moment, a.Status, a.Body)
		}
	}
	w.Verify(token)
}

// A change of nothing to nothing changes nothing.
func TestNullChangesNothing(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	admin, tester := w.Login("admin").AccessToken, w.Login("tester").AccessToken
	for _, body := range []string{
		`{"password":null}`, `{"disabled":null}`, `{"username":null}`, `{"email":null,"first_name":null,"last_name":null}`, `{}`,
	} {
		if a := w.Do("PATCH", "/api/users/tester", admin, body); a.Status != 200 && a.Status != 422 {
			t.Errorf("%s: %d %s", body, a.Status, a.Body)
		}
	}
	for _, body := range []string{`null`, `{"password":""}`, `{"username":""}`, `{"id":"x"}`, `{"epoch":0}`, `{"groups":["Administrators"]}`} {
		if a := w.Do("PATCH", "/api/users/tester", admin, body); a.Status != 422 {
			t.Errorf("%s: %d %s", body, a.Status, a.Body)
		}
	}
	if claims := w.Verify(tester); claims["preferred_username"] != "tester" || claims["email"] != "tester@example.com" {
		t.Errorf("the user is %v", claims)
	}
	w.Login("tester") // with the same password
}

// A leaver is a state whose client hangs up as soon as the record of a session is deleted.
type leaver struct {
	state.Store
	hangUp atomic.Pointer[context.CancelFunc]
}

func (l *leaver) Delete(ctx context.Context, k state.Key) error {
	err := l.Store.Delete(ctx, k)
	if f := l.hangUp.Load(); f != nil && k.Kind == session.Kind {
		(*f)()
	}
	return err
}

// A client that hangs up in the middle of it has not kept its tokens.
func TestHangingUpKeepsNoToken(t *testing.T) {
	l := &leaver{Store: memstate.New(time.Now)}
	w := replica.NewWith(t, replica.Options{State: l}, func(c *config.Config) {
		c.Sessions.MaxPerUser, c.Tokens.RenewGrace = 1, 0
	})
	w.User("tester")
	hangUp := func(method, path, token, body string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l.hangUp.Store(&cancel)
		defer l.hangUp.Store(nil)
		r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		w.Replica.Handler().ServeHTTP(httptest.NewRecorder(), r)
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
			next, _ := w.Renew(g.RefreshToken)
			w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: next.RefreshToken}), 200, "")
			hangUp("POST", "/api/renew", "", `{"refresh_token":"`+g.RefreshToken+`"}`)
		},
		"one session too many": func(httpapi.Grant) {
			hangUp("POST", "/api/login", "", `{"username":"tester","password":"`+kit.Password+`"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := w.Login("tester")
			attempt(g)
			w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
			w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
		})
	}
}

// A session that ends is refused as one, to its last moment.
func TestTheLastSecondOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := replica.NewWith(t, replica.Options{Quiet: true}, func(c *config.Config) { c.Sessions.TTL, c.Tokens.TokenDuration = 2*time.Second, time.Second })
		grant := w.Login("admin")
		begun := time.Now()
		for {
			a := w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken})
			if a.Status != 200 {
				w.Want(a, 401, "invalid_refresh_token")
				return
			}
			if grant = kit.Decode[httpapi.Grant](t, a); grant.ExpiresIn < 0 || time.Since(begun) > w.Config.Sessions.TTL {
				t.Fatalf("after %v the grant is %+v", time.Since(begun), grant)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// An operator may name the claim with the username. No claim of the directory looks like it.
func TestNoClaimLooksLikeTheUsername(t *testing.T) {
	w := replica.New(t, func(c *config.Config) { c.Tokens.UserInfo.Username = "login" })
	w.User("tester", "Login=admin", "login=root", "LOGIN=x", "logins=many")
	claims := w.Verify(w.Login("tester").AccessToken)
	for name, want := range map[string]any{"login": "tester", "Login": nil, "LOGIN": nil, "logins": "many"} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
}

// Values of a claim are joined with commas, so a username has none: a user "x,root" would be
// root for a resource server that looks for that value in the claim.
func TestNoUsernameHasAComma(t *testing.T) {
	w := replica.New(t, func(c *config.Config) { c.Tokens.UserInfo.FullName = "who" })
	admin := w.Login("admin").AccessToken
	for _, name := range []string{"x,root", "x\uff0croot", ","} { // a full-width one folds to the other
		w.Want(w.Do("POST", "/api/users", admin, httpapi.NewUser{Username: name, Password: kit.Password}), 422, "invalid_username")
	}
	w.Want(w.Do("POST", "/api/users", admin, httpapi.NewUser{Username: "tester", Password: kit.Password,
		FirstName: "Travis,root", LastName: "Ester, Jr.", Email: "a,root@example.com"}), 422, "invalid_email")
	w.Want(w.Do("POST", "/api/users", admin, httpapi.NewUser{Username: "tester", Password: kit.Password,
		FirstName: "Travis,root", LastName: "Ester, Jr."}), 201, "")
	claims := w.Verify(w.Login("tester").AccessToken)
	if got := claims["who"]; got != "Travis root Ester Jr." {
		t.Errorf("the name is %q", got)
	}
	if u := w.Do("GET", "/api/users/tester", admin, nil); !strings.Contains(string(u.Body), "Ester, Jr.") {
		t.Errorf("the directory has %s", u.Body)
	}
}

// There is one way to ask whether a token is good: what verify refuses, no endpoint
// takes.
func TestNoEndpointTakesWhatWasRevoked(t *testing.T) {
	w := replica.New(t, nil)
	grant := w.Login("admin")
	w.Want(w.Do("POST", "/api/logout", grant.AccessToken, nil), 204, "")
	var doc struct {
		Paths map[string]map[string]struct{ Security []map[string][]string }
	}
	if err := json.Unmarshal(w.Do("GET", "/openapi.json", "", nil).Body, &doc); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for path, item := range doc.Paths {
		for method, op := range item {
			if len(op.Security) == 0 {
				continue
			}
			path := strings.NewReplacer("{id}", "admin", "{group}", "Administrators", "{claim}", "Superuser").Replace(path)
			a := w.Do(strings.ToUpper(method), path, grant.AccessToken, nil)
			if strings.HasSuffix(path, "/logout") { // whose session is over already
				w.Want(a, 204, "")
				continue
			}
			if method == "head" { // without a body, but the challenge has the code
				w.Want(a, 401, "")
			} else {
				w.Want(a, 401, "token_revoked")
			}
			if challenge := a.Header.Get("WWW-Authenticate"); !strings.Contains(challenge, "token_revoked") {
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
	w := replica.New(t, func(c *config.Config) { c.Tokens.RenewGrace = 0 })
	grant := w.Login("admin")
	size := func() (rows map[string]int) {
		rows = map[string]int{}
		for _, table := range []string{"users", "settings", "signing_keys", "used_kids", "revocations", "audit_events", "state_records WHERE kind <> 'lease'"} {
			var n int
			if err := w.Parts().DB.QueryRow(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil {
				t.Fatal(err)
			}
			rows[table] = n
		}
		return rows
	}
	length := func() (n int) {
		if err := w.Parts().DB.QueryRow(t.Context(), "SELECT LENGTH(value) FROM state_records WHERE kind = 'session'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	renew := func() {
		grant = kit.Decode[httpapi.Grant](t, w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, ""))
		w.Verify(grant.AccessToken)
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
