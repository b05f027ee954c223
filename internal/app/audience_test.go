package app

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify"
)

const (
	issuer = "https://auth.example.com" // of testConfig
	ships  = "https://ships.example"
	boats  = "https://boats.example"
)

// forServices is a deployment whose tokens are for services and not for its own API.
func forServices(audience ...string) func(*config.Config) {
	return func(c *config.Config) { c.Tokens.Audience = audience }
}

// loginFor returns what a login answers that asks for an audience.
func (w *world) loginFor(username, audience string) httpapi.Grant {
	w.t.Helper()
	a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: username, Password: password, Audience: audience})
	return decode[httpapi.Grant](w.t, w.want(a, 200, ""))
}

// renewFor returns what a renewal answers that asks for an audience.
func (w *world) renewFor(refreshToken, audience string) httpapi.Grant {
	w.t.Helper()
	a := w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: refreshToken, Audience: audience})
	return decode[httpapi.Grant](w.t, w.want(a, 200, ""))
}

// audienceOf returns the aud of a token.
func (w *world) audienceOf(token string) []string {
	w.t.Helper()
	switch aud := w.verify(token)["aud"].(type) {
	case string:
		return []string{aud}
	case []any:
		all := make([]string, len(aud))
		for i, one := range aud {
			all[i], _ = one.(string)
		}
		return all
	}
	return nil
}

// A service that an administrator visits has the administrator's token, and gets nothing
// out of it that it is not meant for.
func TestAServiceCannotReplayAnAdministratorsToken(t *testing.T) {
	w := newWorld(t, forServices(ships))
	mallory := w.user("mallory")
	visit := w.login("admin")

	for _, one := range []struct {
		method, path string
		body         any
	}{
		{"GET", "/api/users", nil},
		{"POST", "/api/users", httpapi.NewUser{Username: "second", Password: password, Groups: []string{"Administrators"}}},
		{"POST", "/api/users/" + mallory + "/groups", httpapi.GroupRef{Group: "Administrators"}},
		{"PATCH", "/api/users/admin", map[string]string{"password": "a password of the service's"}},
		{"DELETE", "/api/users/" + mallory + "/sessions", nil},
		{"POST", "/api/revocations", httpapi.RevocationRequest{User: mallory}},
	} {
		a := w.want(w.do(one.method, one.path, visit.AccessToken, one.body), 401, "wrong_audience")
		if got, want := a.header.Get("WWW-Authenticate"), `Bearer realm="watchword", error="invalid_token", error_description="wrong_audience"`; got != want {
			t.Errorf("%s %s: %s, want %s", one.method, one.path, got, want)
		}
	}
	page, err := w.node.parts.Store.AuditEvents(t.Context(), store.AuditQuery{Action: "user.join", Outcome: "denied", Limit: 10})
	if err != nil || len(page.Events) != 1 || page.Events[0].Detail != "wrong_audience" {
		t.Errorf("the audit trail has %+v, %v", page.Events, err)
	}

	// An access token is no refresh token, whatever it asks for.
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: visit.AccessToken, Audience: issuer}), 401, "invalid_refresh_token")
	// The administrator asks for another token.
	home := w.renewFor(visit.RefreshToken, issuer)
	w.want(w.do("POST", "/api/users/"+mallory+"/groups", home.AccessToken, httpapi.GroupRef{Group: "Administrators"}), 204, "")
}

// A token for this API is of no use at a service that knows its own name.
func TestAServiceRefusesATokenForTheAPI(t *testing.T) {
	w := newWorld(t, forServices(ships, boats))
	v, err := verify.New(verify.Config{
		Issuer: issuer, Audience: []string{ships},
		KeySetURL: w.http.URL + "/.well-known/jwks.json", RevocationsURL: w.http.URL + "/api/revocations",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	service := v.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for audience, want := range map[string]int{"": 200, ships: 200, boats: 401, issuer: 401} {
		token := w.loginFor("admin", audience).AccessToken
		eventually(t, func() error {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			rec := httptest.NewRecorder()
			service.ServeHTTP(rec, r)
			if rec.Code == 503 {
				return errors.New("the verifier has not read the feed")
			}
			if rec.Code != want {
				t.Errorf("a token for %q: %d, want %d", audience, rec.Code, want)
			}
			return nil
		})
	}
}

// A client gets the audience that it asks for, or the default, and never one with the API's
// among others.
func TestAudienceThatIsAskedFor(t *testing.T) {
	for _, one := range []struct {
		configured []string
		standard   []string // of a login that asks for none
		api        bool     // whether that is a token for this API
	}{
		{nil, []string{issuer}, true},
		{[]string{issuer}, []string{issuer}, true},
		{[]string{ships}, []string{ships}, false},
		{[]string{ships, boats}, []string{ships, boats}, false},
		{[]string{issuer, ships}, []string{issuer, ships}, false},
	} {
		t.Run(fmt.Sprint(one.configured), func(t *testing.T) {
			w := newWorld(t, forServices(one.configured...))
			may := func(token string, api bool) {
				t.Helper()
				status, code := 200, ""
				if !api {
					status, code = 401, "wrong_audience"
				}
				w.want(w.do("GET", "/api/users", token, nil), status, code)
			}
			grant := w.login("admin")
			if got := w.audienceOf(grant.AccessToken); !slices.Equal(got, one.standard) {
				t.Errorf("the default is %q, want %q", got, one.standard)
			}
			may(grant.AccessToken, one.api)
			for _, audience := range append([]string{issuer}, one.configured...) {
				asked := w.loginFor("admin", audience)
				renewed := w.renewFor(asked.RefreshToken, "")
				other := w.renewFor(renewed.RefreshToken, issuer)
				last := w.renewFor(other.RefreshToken, "")
				for _, token := range []string{asked.AccessToken, renewed.AccessToken, last.AccessToken, w.renewFor(grant.RefreshToken, audience).AccessToken} {
					if got := w.audienceOf(token); !slices.Equal(got, []string{audience}) {
						t.Errorf("asked for %q, got %q", audience, got)
					}
					may(token, audience == issuer)
				}
				may(other.AccessToken, true)
			}
			for _, audience := range []string{"https://other.example", issuer + "/", strings.ToUpper(ships), ships + "," + boats, " "} {
				w.want(w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password, Audience: audience}), 400, "invalid_target")
				w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: w.login("admin").RefreshToken, Audience: audience}), 400, "invalid_target")
			}
			// What cannot be issued spends nothing.
			again := w.login("admin").RefreshToken
			w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: again, Audience: "x"}), 400, "invalid_target")
			w.renewFor(again, "")
			for _, body := range []string{`["` + issuer + `"]`, `1`, `{}`} {
				a := w.do("POST", "/api/login", "", `{"username":"admin","password":"`+password+`","audience":`+body+`}`)
				if a.status != 400 && a.status != 422 {
					t.Errorf("audience %s: %d %s", body, a.status, a.body)
				}
			}
		})
	}
}

// The audience of a session that is not issued any more is not replaced by another one.
func TestAudienceThatIsIssuedNoMore(t *testing.T) {
	w := newWorld(t, forServices(ships, boats))
	asked, plain := w.loginFor("admin", boats), w.login("admin")
	w.cfg.Tokens.Audience = []string{ships}
	w.restart()
	w.want(w.do("GET", "/api/verify", asked.AccessToken, nil), 401, "invalid_token")
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: asked.RefreshToken}), 400, "invalid_target")
	if got := w.audienceOf(w.renewFor(asked.RefreshToken, ships).AccessToken); !slices.Equal(got, []string{ships}) {
		t.Errorf("asked for another: %q", got)
	}
	if got := w.audienceOf(w.renewFor(plain.RefreshToken, "").AccessToken); !slices.Equal(got, []string{ships}) {
		t.Errorf("the default: %q", got)
	}
}

// A renewal is no authentication: the time of the login goes from token to token.
func TestReauthentication(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *bubble) {
		w := newQuietWorld(t, func(c *config.Config) { c.Admin.FreshFor = 5 * time.Minute })
		began := time.Now().Unix()
		grant := w.login("admin")
		change := func(token string) answer {
			return w.do("POST", "/api/groups", token, httpapi.NewGroup{Name: token[len(token)-20:]})
		}
		authTime := func(token string) int64 { return int64(w.verify(token)["auth_time"].(float64)) }
		if got := authTime(grant.AccessToken); got != began {
			t.Errorf("auth_time %d, want %d", got, began)
		}
		time.Sleep(5*time.Minute - time.Second)
		w.want(change(grant.AccessToken), 201, "")
		renewed := w.renewFor(grant.RefreshToken, issuer)
		w.want(change(renewed.AccessToken), 201, "")

		time.Sleep(2 * time.Second)
		again := w.renewFor(renewed.RefreshToken, "")
		for _, token := range []string{grant.AccessToken, renewed.AccessToken, again.AccessToken} {
			if got := authTime(token); got != began {
				t.Errorf("auth_time %d, want %d", got, began)
			}
			a := w.want(change(token), 401, "reauthentication_required")
			const want = `Bearer realm="watchword", error="insufficient_user_authentication", error_description="reauthentication_required", max_age="300"`
			if got := a.header.Get("WWW-Authenticate"); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			w.want(w.do("GET", "/api/groups", token, nil), 200, "")
		}
		w.want(change(w.login("admin").AccessToken), 201, "")
	})
}

// A reach says for which tokens a route is.
type reach int

const (
	open  reach = iota // none is needed
	every              // every one that this deployment issued
	home               // those for this API
	fresh              // those for this API of a user who has just logged in
)

// A call is a request to a route. In its path and body the words SELF, TOKEN, JTI, SID
// and PASSWORD stand for what belongs to the caller.
type call struct {
	reach
	path string // empty: that of the route
	body string
}

// routes has every route of the API. An operation that is missing here fails the test below:
// whoever adds one says here for which tokens it is.
var routes = map[string][]call{
	"POST /api/login": {{open, "", ""}}, "POST /api/renew": {{open, "", ""}},
	"GET /api/pkeys": {{open, "", ""}}, "GET /api/pkeys/{kid}.pem": {{open, "/api/pkeys/none.pem", ""}}, "GET /.well-known/jwks.json": {{open, "", ""}}, "GET /api/revocations": {{open, "", ""}},
	"GET /.well-known/oauth-authorization-server": {{open, "", ""}},
	"GET /health": {{open, "", ""}}, "GET /livez": {{open, "", ""}}, "GET /readyz": {{open, "", ""}},
	"POST /api/cluster/verify":  {{open, "", ""}}, // for peers, which prove themselves by the secret
	"POST /api/cluster/examine": {{open, "", ""}}, // the same
	"GET /metrics":              {{open, "", ""}}, "GET /openapi.json": {{open, "", ""}},

	"GET /api/verify": {{every, "", ""}}, "HEAD /api/verify": {{every, "", ""}}, "POST /api/verify": {{every, "", ""}},
	"PUT /api/verify": {{every, "", ""}}, "PATCH /api/verify": {{every, "", ""}}, "DELETE /api/verify": {{every, "", ""}},
	"OPTIONS /api/verify": {{every, "", ""}}, "TRACE /api/verify": {{every, "", ""}},
	"POST /api/logout": {{every, "", ""}}, "POST /auth/logout": {{every, "", ""}},
	"GET /api/sessions": {{every, "", ""}}, "DELETE /api/sessions": {{every, "", ""}}, "DELETE /api/sessions/{id}": {{every, "/api/sessions/SID", ""}},

	"POST /api/revocations": {
		{every, "", `{"token":"TOKEN"}`}, {every, "", `{"jti":"JTI"}`}, {every, "", `{"session_id":"SID"}`}, {every, "", `{"user":"SELF"}`},
		{fresh, "", `{"token":"OTHER"}`}, {fresh, "", `{"jti":"AAAAAAAAAAAAAAAAAAAAAA"}`},
		{fresh, "", `{"session_id":"0198c8c4-2f5e-4a63-9f3e-6b1d2f0c9a11"}`}, {fresh, "", `{"user":"other"}`}, {fresh, "", `{"kid":"none"}`},
	},
	"GET /api/users/{id}/sessions":    {{every, "/api/users/SELF/sessions", ""}, {home, "/api/users/other/sessions", ""}},
	"DELETE /api/users/{id}/sessions": {{fresh, "/api/users/SELF/sessions", ""}, {fresh, "/api/users/other/sessions", ""}},

	"POST /api/login/mfa": {{open, "", ""}}, "POST /api/login/mfa/options": {{open, "", ""}}, "POST /api/login/mfa/enrol": {{open, "", ""}},
	"POST /api/login/passkey": {{open, "", ""}}, "POST /api/login/passkey/options": {{open, "", ""}}, "POST /api/login/recover": {{open, "", ""}},
	"POST /api/login/step-up":         {{every, "", `{"method":"password","password":"PASSWORD"}`}},
	"POST /api/login/step-up/options": {{every, "", ""}},
	"GET /api/mfa":                    {{home, "", ""}},
	"POST /api/mfa/totp":              {{fresh, "", ""}}, "POST /api/mfa/totp/confirm": {{fresh, "", `{"code":"000000"}`}}, "DELETE /api/mfa/totp": {{fresh, "", ""}},
	"POST /api/mfa/backup-codes": {{fresh, "", ""}}, "POST /api/mfa/backup-codes/confirm": {{fresh, "", `{"code":"0000000000000000"}`}}, "DELETE /api/mfa/backup-codes": {{fresh, "", ""}},
	"POST /api/mfa/passkeys": {{fresh, "", ""}}, "POST /api/mfa/passkeys/confirm": {{fresh, "", `{"credential":{}}`}},
	"PATCH /api/mfa/passkeys/{id}": {{fresh, "/api/mfa/passkeys/none", `{"name":"x"}`}}, "DELETE /api/mfa/passkeys/{id}": {{fresh, "/api/mfa/passkeys/none", ""}},
	"GET /api/users/{id}/factors":             {{home, "/api/users/SELF/factors", ""}, {home, "/api/users/other/factors", ""}},
	"DELETE /api/users/{id}/factors":          {{fresh, "/api/users/other/factors", ""}},
	"DELETE /api/users/{id}/factors/{factor}": {{fresh, "/api/users/other/factors/none", ""}},
	"POST /api/users/{id}/recovery":           {{fresh, "/api/users/other/recovery", `{}`}},

	"GET /api/users":                        {{home, "", ""}},
	"POST /api/users":                       {{fresh, "", `{"username":"x"}`}},
	"GET /api/users/{id}":                   {{home, "/api/users/SELF", ""}, {home, "/api/users/other", ""}, {home, "/api/users/none", ""}},
	"PATCH /api/users/{id}":                 {{fresh, "/api/users/SELF", `{"first_name":"X"}`}, {fresh, "/api/users/none", `{"password":"a long enough one"}`}},
	"DELETE /api/users/{id}":                {{fresh, "/api/users/SELF", ""}, {fresh, "/api/users/none", ""}},
	"GET /api/users/{id}/groups":            {{home, "/api/users/SELF/groups", ""}, {home, "/api/users/other/groups", ""}},
	"POST /api/users/{id}/groups":           {{fresh, "/api/users/other/groups", `{"group":"none"}`}},
	"DELETE /api/users/{id}/groups/{group}": {{fresh, "/api/users/other/groups/none", ""}},

	"GET /api/groups":                        {{home, "", ""}},
	"POST /api/groups":                       {{fresh, "", `{"name":"x"}`}},
	"GET /api/groups/{id}":                   {{home, "/api/groups/none", ""}},
	"PATCH /api/groups/{id}":                 {{fresh, "/api/groups/none", `{"name":"x"}`}},
	"DELETE /api/groups/{id}":                {{fresh, "/api/groups/none", ""}},
	"GET /api/groups/{id}/members":           {{home, "/api/groups/none/members", ""}},
	"GET /api/groups/{id}/claims":            {{home, "/api/groups/none/claims", ""}},
	"POST /api/groups/{id}/claims":           {{fresh, "/api/groups/none/claims", `{"claim":"none"}`}},
	"DELETE /api/groups/{id}/claims/{claim}": {{fresh, "/api/groups/none/claims/none", ""}},

	"GET /api/claims":         {{home, "", ""}},
	"POST /api/claims":        {{fresh, "", `{"name":"x","short_name":"x","value":"x"}`}},
	"GET /api/claims/{id}":    {{home, "/api/claims/none", ""}},
	"PATCH /api/claims/{id}":  {{fresh, "/api/claims/none", `{"value":"y"}`}},
	"DELETE /api/claims/{id}": {{fresh, "/api/claims/none", ""}},

	"GET /api/limits":                        {{home, "", ""}},
	"GET /api/limits/accounts/{id}":          {{home, "/api/limits/accounts/SELF", ""}, {home, "/api/limits/accounts/other", ""}, {home, "/api/limits/accounts/none", ""}},
	"DELETE /api/limits/accounts/{id}":       {{fresh, "/api/limits/accounts/SELF", ""}, {fresh, "/api/limits/accounts/other", ""}, {fresh, "/api/limits/accounts/none", ""}},
	"GET /api/limits/addresses/{address}":    {{home, "/api/limits/addresses/192.0.2.1", ""}},
	"DELETE /api/limits/addresses/{address}": {{fresh, "/api/limits/addresses/2001:db8::1", ""}},

	"GET /api/audit":       {{home, "", ""}},
	"GET /api/audit/chain": {{home, "", ""}},
	"PUT /api/me/password": {{home, "", `{"current_password":"PASSWORD","new_password":"a long enough one"}`}},
	"GET /api/cluster":     {{home, "", ""}},
}

// Every route takes the tokens that it is for, and no others. Each is called by superusers, so
// that nothing but the token can be missing.
func TestEveryRouteTakesTheTokensThatItIsFor(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *bubble) {
		w := newQuietWorld(t, forServices(ships))
		d := decode[struct {
			Paths map[string]map[string]struct {
				Security []map[string][]string
			}
		}](t, w.want(w.do("GET", "/openapi.json", "", nil), 200, ""))
		described := map[string]bool{}
		for path, operations := range d.Paths {
			for method, op := range operations {
				name := strings.ToUpper(method) + " " + path
				described[name] = true
				calls, ok := routes[name]
				if !ok {
					t.Errorf("%s is not in the table", name)
				}
				for _, c := range calls {
					if (c.reach == open) != (len(op.Security) == 0) {
						t.Errorf("%s: its reach is %d, and its security is described as %v", name, c.reach, op.Security)
					}
				}
			}
		}
		for name := range routes {
			if !described[name] {
				t.Errorf("%s is in the table and not in the document", name)
			}
		}

		users := 0
		superuser := func() directory.NewUser {
			users++
			return directory.NewUser{Username: fmt.Sprint("root", users), Password: password, Administrator: true}
		}
		create := func(n directory.NewUser) string {
			u, err := w.node.parts.Directory.CreateUser(t.Context(), directory.System(), n)
			if err != nil {
				t.Fatal(err)
			}
			return u.ID
		}
		create(directory.NewUser{Username: "other", Password: password})
		type caller struct {
			id, audience string
			grant        httpapi.Grant
		}
		// Each call is a caller's of its own, because some end what others need.
		enter := func(audience string) caller {
			n := superuser()
			return caller{create(n), audience, w.loginFor(n.Username, audience)}
		}
		send := func(name string, c call, by caller) answer {
			t.Helper()
			claims := w.verify(by.grant.AccessToken)
			jti, _ := claims["jti"].(string)
			fill := strings.NewReplacer("SELF", by.id, "TOKEN", by.grant.AccessToken, "SID", by.grant.SessionID, "JTI", jti, "PASSWORD", password)
			method, path, _ := strings.Cut(name, " ")
			if c.path != "" {
				path = fill.Replace(c.path)
			}
			var body any
			if c.body != "" {
				other := ""
				if strings.Contains(c.body, "OTHER") {
					other = w.login("other").AccessToken
				}
				body = strings.ReplaceAll(fill.Replace(c.body), "OTHER", other)
			}
			return w.do(method, path, by.grant.AccessToken, body)
		}
		each := func(f func(name string, i int, c call)) {
			for name, calls := range routes {
				for i, c := range calls {
					if c.reach != open {
						f(name, i, c)
					}
				}
			}
		}

		late := map[string]caller{}
		each(func(name string, i int, _ call) { late[fmt.Sprint(name, i)] = enter(issuer) })
		time.Sleep(w.cfg.Admin.FreshFor + time.Second)
		tried, refused := 0, 0
		each(func(name string, i int, c call) {
			for who, one := range map[string]struct {
				by      caller
				refused string // the code; empty: the token is good
			}{
				"a service's":   {enter(""), map[reach]string{home: "wrong_audience", fresh: "wrong_audience"}[c.reach]},
				"an old login":  {late[fmt.Sprint(name, i)], map[reach]string{fresh: "reauthentication_required"}[c.reach]},
				"a fresh login": {enter(issuer), ""},
			} {
				a := send(name, c, one.by)
				tried++
				if a.status == 401 {
					refused++
				}
				switch got := a.code(); {
				case got == "unknown_method": // said to a token that is taken: the caller has no passkey
				case one.refused != "" && (a.status != 401 || got != one.refused):
					t.Errorf("%s %+v with the token of %s: %d %q, want 401 %q", name, c, who, a.status, got, one.refused)
				case one.refused == "" && slices.Contains([]int{400, 401, 403, 405, 422, 500, 503}, a.status):
					t.Errorf("%s %+v with the token of %s: %d %s", name, c, who, a.status, a.body)
				}
			}
		})
		if !t.Failed() {
			t.Logf("summary: %d calls of routes with tokens of three kinds, %d refused, each rightly", tried, refused)
		}
	})
}

// During a rolling update, a session that an older release has begun, whose record says
// nothing of an audience, renews here with the time at which it began. A token that an older
// release has issued has no auth_time: it may read, and change nothing.
func TestSessionsAndTokensOfAnOlderRelease(t *testing.T) {
	w := newWorld(t, nil)
	grant := w.login("admin")
	list, err := w.node.state.Store.List(t.Context(), session.Kind, w.verify(grant.AccessToken)["sub"].(string), "", 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d sessions, %v", len(list), err)
	}
	var record map[string]any
	if err := json.Unmarshal(list[0].Value, &record); err != nil {
		t.Fatal(err)
	}
	if _, ok := record["audience"]; ok {
		t.Errorf("the record of a session that asked for nothing has an audience: %v", record)
	}
	created, err := time.Parse(time.RFC3339Nano, record["created_at"].(string))
	if err != nil {
		t.Fatal(err)
	}
	renewed := w.renewFor(grant.RefreshToken, "")
	if got := w.verify(renewed.AccessToken)["auth_time"]; got != float64(created.Unix()) {
		t.Errorf("auth_time %v, want %d", got, created.Unix())
	}

	signer, err := w.node.keys.Signer()
	if err != nil {
		t.Fatal(err)
	}
	id, err := token.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old, err := signer.Sign(token.Access{
		Issuer: issuer, Audience: []string{issuer}, Subject: list[0].Key.Owner, ClientID: token.FirstParty, ID: id, SessionID: grant.SessionID,
		IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.do("GET", "/api/users", old, nil), 200, "")
	w.want(w.do("POST", "/api/groups", old, httpapi.NewGroup{Name: "x"}), 401, "reauthentication_required")
}
