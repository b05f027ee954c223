package app

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
)

func TestBadInput(t *testing.T) {
	w := newWorld(t, nil)
	admin := w.login("admin").AccessToken
	const login, users = "/api/login", "/api/users"
	for _, c := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"empty", login, ``, 400, "malformed_json"},
		{"cut short", login, `{"username":"a"`, 400, "malformed_json"},
		{"two values", login, `{"username":"a","password":"b"} {}`, 400, "malformed_json"},
		{"a name twice", login, `{"username":"a","password":"b","username":"admin"}`, 400, "malformed_json"},
		{"a name in another case", login, `{"USERNAME":"admin","password":"` + password + `"}`, 422, "invalid_request"},
		{"a name twice, in another case", login, `{"username":"a","password":"b","Username":"admin"}`, 422, "invalid_request"},
		{"a name twice, in letters that fold", login, `{"username":"a","password":"b","u\u017fername":"admin"}`, 422, "invalid_request"},
		{"invalid UTF-8", login, "{\"username\":\"\xff\",\"password\":\"b\"}", 400, "malformed_json"},
		{"half a character", login, `{"username":"a","password":"\ud800"}`, 400, "malformed_json"},
		{"half a character, the other", login, `{"username":"a","password":"\u0061\udc00"}`, 400, "malformed_json"},
		{"half a character before another", login, `{"username":"a","password":"\ud800\u0061"}`, 400, "malformed_json"},
		{"half a character in a name", login, `{"user\ud800name":"a"}`, 400, "malformed_json"},
		{"a whole character in halves", login, `{"username":"\\ud800","password":"\ud83d\ude00"}`, 401, "invalid_credentials"},
		{"nested without end", login, strings.Repeat(`{"username":`, 5000), 400, "malformed_json"},
		{"oversized", login, `{"username":"` + strings.Repeat("a", 65<<10) + `"}`, 413, "body_too_large"},
		{"as large as may be", login, `{"username":"` + strings.Repeat("a", 64<<10-len(`{"username":""}`)) + `"}`, 422, "invalid_request"},
		{"a byte larger", login, `{"username":"` + strings.Repeat("a", 64<<10-len(`{"username":""}`)+1) + `"}`, 413, "body_too_large"},
		{"wrong type", login, `{"username":1,"password":"b"}`, 422, "invalid_request"},
		{"unknown field", login, `{"username":"a","password":"b","admin":true}`, 422, "invalid_request"},
		{"missing field", login, `{"username":"a"}`, 422, "invalid_request"},
		{"not an object", login, `["a"]`, 422, "invalid_request"},
		{"null", "/api/renew", `null`, 422, "invalid_request"},

		{"empty", users, ``, 400, "malformed_json"},
		{"cut short", users, `{"username":"a"`, 400, "malformed_json"},
		{"a name twice", users, `{"username":"a","username":"b"}`, 400, "malformed_json"},
		{"a name in another case", users, `{"Username":"a"}`, 422, "invalid_request"},
		{"a name twice, in letters that fold", users, `{"username":"a","u\u017fername":"b"}`, 422, "invalid_request"},
		{"a name that none may leave out, in another case", "/api/groups", `{"Name":"a"}`, 422, "invalid_request"},
		{"invalid UTF-8", users, "{\"username\":\"\xff\"}", 400, "malformed_json"},
		{"half a character", users, `{"username":"a","password":"\ud800"}`, 400, "malformed_json"},
		{"oversized", users, `{"username":"` + strings.Repeat("a", 65<<10) + `"}`, 413, "body_too_large"},
		{"as large as may be", users, `{"username":"` + strings.Repeat("a", 64<<10-len(`{"username":""}`)) + `"}`, 422, "invalid_username"},
		{"a byte larger", users, `{"username":"` + strings.Repeat("a", 64<<10-len(`{"username":""}`)+1) + `"}`, 413, "body_too_large"},
		{"wrong type", users, `{"username":1}`, 422, "invalid_request"},
		{"unknown field", users, `{"username":"a","superuser":true}`, 422, "invalid_request"},
		{"missing field", users, `{"email":"a@example.com"}`, 422, "invalid_request"},
		{"a name that is taken, folded", users, `{"username":"ADMIN"}`, 409, "username_taken"},
		{"a claim that is the token's own", "/api/claims", `{"name":"x","short_name":"sub","value":"1"}`, 422, "claim_name_reserved"},
		{"a claim with a comma", "/api/claims", `{"name":"x","short_name":"x","value":"x,S"}`, 422, "invalid_value"},
	} {
		t.Run(c.path+" "+c.name, func(t *testing.T) {
			a := w.do("POST", c.path, admin, c.body)
			if a.status != c.status || a.code() != c.code {
				t.Errorf("got %d %s, want %d %s", a.status, a.body, c.status, c.code)
			}
			if got := a.header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type is %q", got)
			}
			var p httpkit.Problem
			if err := json.Unmarshal(a.body, &p); err != nil || p.Type != "about:blank" || p.Status != c.status || p.Title == "" || p.Detail == "" || p.Code == "" {
				t.Errorf("not a problem by RFC 9457: %s", a.body)
			}
			if strings.Contains(p.Detail, "httpapi.") {
				t.Errorf("the detail speaks of our types: %s", p.Detail)
			}
		})
	}
	w.verify(admin) // nothing of that has hurt it
}

// A body's type matters to administration alone.
func TestMediaTypes(t *testing.T) {
	w := newWorld(t, nil)
	admin := w.login("admin").AccessToken
	post := func(path, body, mediaType string) answer {
		r := w.request("POST", path, admin, body)
		r.Header.Set("Content-Type", mediaType)
		return w.send(r)
	}
	const form = "application/x-www-form-urlencoded" // curl -d
	credentials := `{"username":"admin","password":"` + password + `"}`
	for _, mediaType := range []string{"application/json; charset=utf-8", form, "text/plain"} {
		w.want(post("/api/login", credentials, mediaType), 200, "")
	}
	w.want(post("/api/groups", `{"name":"a"}`, "application/json; charset=utf-8"), 201, "")
	w.want(post("/api/groups", `{"name":"b"}`, form), 201, "")
	refused := w.want(post("/api/groups", `{"name":"c"}`, "text/plain"), 415, "unsupported_media_type")
	if p := decode[httpkit.Problem](t, refused); p.Detail != "the body must be of type application/json" {
		t.Errorf("%s", refused.body)
	}
}

func TestNoSuchRoute(t *testing.T) {
	w := newWorld(t, nil)
	w.want(w.do("GET", "/nothing", "", nil), 404, "no_such_path")
	w.want(w.do("GET", "/api/users/", "", nil), 404, "no_such_path")
	a := w.want(w.do("PUT", "/api/login", "", nil), 405, "method_not_allowed")
	if got := a.header.Get("Allow"); got != "POST" {
		t.Errorf("Allow is %q", got)
	}
	w.want(w.do("DELETE", "/api/pkeys", "", nil), 405, "method_not_allowed")
}

func TestKeySetCaching(t *testing.T) {
	w := newWorld(t, nil)
	first := w.want(w.do("GET", "/api/pkeys", "", nil), 200, "")
	if other := w.do("GET", "/.well-known/jwks.json", "", nil); string(other.body) != string(first.body) {
		t.Errorf("jwks.json differs: %s", other.body)
	}
	// Of this replica alone, with the end of each key.
	local := w.do("GET", "/api/pkeys?local=true", "", nil)
	if without := regexp.MustCompile(`,"exp":\d+`).ReplaceAll(local.body, nil); string(without) != string(first.body) || len(without) == len(local.body) {
		t.Errorf("?local=true gives %s", local.body)
	}
	if got := first.header.Get("Cache-Control"); got != "public, max-age=30, stale-while-revalidate=3, stale-if-error=86400" {
		t.Errorf("Cache-Control is %q", got)
	}
	r, _ := http.NewRequestWithContext(t.Context(), "GET", w.http.URL+"/api/pkeys", nil)
	r.Header.Set("If-None-Match", `"other", W/`+first.header.Get("Etag"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 304 || resp.Header.Get("Cache-Control") == "" {
		t.Errorf("revalidation: %s", resp.Status)
	}
}

// A proxy asks with whatever method the request had that it asks about.
func TestForwardAuth(t *testing.T) {
	w := newWorld(t, nil)
	id := w.user("tester", "log=r", "big.ship=acc", "big-ship=50% ö")
	token := w.login("tester").AccessToken
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		a := w.do(method, "/api/verify", token, nil)
		if a.status != 200 {
			t.Fatalf("%s: %d", method, a.status)
		}
		for name, want := range map[string]string{
			"X-Auth-Subject": id, "X-Auth-Username": "tester", "X-Auth-Name": "Travis Ester",
			"X-Auth-Email": "tester@example.com", "X-Auth-Claim-Log": "r",
			"X-Auth-Claim-Big-Ship": "", // two claims would have this header
		} {
			if got, ok := a.header[http.CanonicalHeaderKey(name)]; !ok || got[0] != want {
				t.Errorf("%s: %s is %q, want %q", method, name, got, want)
			}
		}
	}
}

func TestSessions(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester")
	a, b, admin := w.login("tester"), w.login("tester"), w.login("admin").AccessToken
	list := decode[httpapi.SessionList](t, w.want(w.do("GET", "/api/sessions", a.AccessToken, nil), 200, "")).Sessions
	if len(list) != 2 {
		t.Fatalf("%d sessions: %+v", len(list), list)
	}
	for _, s := range list {
		if s.Current != (s.ID == a.SessionID) || s.Address != "127.0.0.1" || !strings.HasPrefix(s.UserAgent, "Go-http-client") {
			t.Errorf("session %+v", s)
		}
	}
	w.want(w.do("DELETE", "/api/sessions/"+b.SessionID, a.AccessToken, nil), 204, "")
	w.want(w.do("GET", "/api/verify", b.AccessToken, nil), 401, "token_revoked")
	w.want(w.do("DELETE", "/api/sessions/"+b.SessionID, a.AccessToken, nil), 404, "session_not_found")
	// another's session is as if it were not there
	w.want(w.do("DELETE", "/api/sessions/"+a.SessionID, admin, nil), 404, "session_not_found")
	w.want(w.do("GET", "/api/users/admin/sessions", a.AccessToken, nil), 403, "permission_missing")
	if of := decode[httpapi.SessionList](t, w.want(w.do("GET", "/api/users/tester/sessions", admin, nil), 200, "")).Sessions; len(of) != 1 {
		t.Errorf("the administrator sees %+v", of)
	}
}

func TestSessionPages(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester")
	var want []string
	for range 5 {
		want = append(want, w.login("tester").SessionID)
	}
	token := w.login("tester").AccessToken
	slices.Reverse(want)
	admin := w.login("admin").AccessToken
	for path, token := range map[string]string{"/api/sessions": token, "/api/users/tester/sessions": admin} {
		var got []string
		after := ""
		for range 3 {
			page := decode[httpapi.SessionList](t, w.want(w.do("GET", path+"?limit=2"+after, token, nil), 200, ""))
			for _, s := range page.Sessions {
				got = append(got, s.ID)
			}
			after = "&after=" + page.Next
		}
		if len(got) != 6 || !slices.Equal(got[1:], want) || after != "&after=" {
			t.Errorf("%s: %v, want %v after the newest; the last page ends with %q", path, got, want, after)
		}
		for _, bad := range []string{"limit=-1", "limit=1001", "limit=x", "after=x-y"} {
			if a := w.do("GET", path+"?"+bad, token, nil); a.status != 422 {
				t.Errorf("%s: %d %s", bad, a.status, a.body)
			}
		}
	}
}

// Many sessions end in few transactions, each with its line.
func TestManySessionsEndAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	user := w.user("tester")
	others := []httpapi.Grant{w.login("tester"), w.login("tester")}
	record, err := w.node.state.Get(t.Context(), state.Key{Kind: session.Kind, Owner: user, ID: others[0].SessionID})
	if err != nil {
		t.Fatal(err)
	}
	const many = 230
	for range many - len(others) { // that differ in their ids alone
		id := uuid.NewString()
		value := bytes.ReplaceAll(record.Value, []byte(others[0].SessionID), []byte(id))
		if _, err := w.node.state.Put(t.Context(), state.Key{Kind: session.Kind, Owner: user, ID: id}, value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	others = append(others, w.login("tester"))
	mine := w.login("tester")
	before := w.head()
	w.want(w.do("DELETE", "/api/sessions", mine.AccessToken, nil), 204, "")
	if lines := w.head() - before; lines != many+1 {
		t.Errorf("%d lines, want %d", lines, many+1)
	}
	for _, g := range others {
		w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
		w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
	}
	w.verify(mine.AccessToken)
}

func TestMaxSessionsPerUser(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Sessions.MaxPerUser = 2 })
	a, b := w.login("admin"), w.login("admin")
	c := w.login("admin")
	w.want(w.do("GET", "/api/verify", a.AccessToken, nil), 401, "token_revoked")
	w.verify(b.AccessToken)
	w.verify(c.AccessToken)
}

func TestAccessTokenEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newQuietWorld(t, func(c *config.Config) { c.Sessions.TTL = 31 * time.Minute })
		first := w.login("admin")
		claims := w.verify(first.AccessToken)
		if life := claims["exp"].(float64) - claims["iat"].(float64); life != 1800 {
			t.Errorf("the token lives %v s", life)
		}
		time.Sleep(2 * time.Minute)
		second := decode[httpapi.Grant](t, w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: first.RefreshToken}))
		if a, b := claims["iat"].(float64)+31*60, w.verify(second.AccessToken)["exp"]; a != b {
			t.Errorf("the renewed token ends at %v, the session at %v", b, a)
		}
	})
}

func TestAdministrationOverHTTP(t *testing.T) {
	w := newWorld(t, nil)
	admin := w.login("admin").AccessToken
	claim := decode[httpapi.Claim](t, w.want(w.do("POST", "/api/claims", admin, httpapi.NewClaim{Name: "Log Reader", ShortName: "log", Value: "r"}), 201, ""))
	group := decode[httpapi.Group](t, w.want(w.do("POST", "/api/groups", admin, httpapi.NewGroup{Name: "Log Users"}), 201, ""))
	w.want(w.do("POST", "/api/groups/"+group.ID+"/claims", admin, httpapi.ClaimRef{Claim: "log reader"}), 204, "")
	user := decode[httpapi.User](t, w.want(w.do("POST", "/api/users", admin, httpapi.NewUser{Username: "tester", Password: password}), 201, ""))
	w.want(w.do("POST", "/api/users/"+user.ID+"/groups", admin, httpapi.GroupRef{Group: group.ID}), 204, "")
	if claims := w.verify(w.login("tester").AccessToken); claims["log"] != "r" {
		t.Errorf("the claims are %v", claims)
	}
	for path, want := range map[string]string{
		"/api/users":                             `"username":"tester"`,
		"/api/users?prefix=TES":                  `"username":"tester"`,
		"/api/users/tester":                      user.ID,
		"/api/users/" + user.ID + "/groups":      "Log Users",
		"/api/groups":                            group.ID,
		"/api/groups/log%20users":                group.ID,
		"/api/groups/" + group.ID + "/members":   user.ID,
		"/api/groups/" + group.ID + "/claims":    claim.ID,
		"/api/claims":                            claim.ID,
		"/api/claims/" + claim.ID:                "Log Reader",
		"/api/users?limit=1":                     `"next":"admin"`,
		"/api/users?limit=1&after=admin":         `"username":"tester"`,
		"/api/groups/" + group.ID + "?":          "Log Users",
		"/api/claims?prefix=log&limit=5&after=a": "Log Reader",
	} {
		if a := w.want(w.do("GET", path, admin, nil), 200, ""); !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %s lacks %s", path, a.body, want)
		}
	}
	w.want(w.do("GET", "/api/users?limt=1", admin, nil), 422, "invalid_request")
	w.want(w.do("GET", "/api/users?limit=1000", admin, nil), 422, "invalid_request")

	if u := decode[httpapi.User](t, w.want(w.do("PATCH", "/api/users/tester", admin, `{"first_name":"Tess"}`), 200, "")); u.FirstName != "Tess" || u.Username != "tester" {
		t.Errorf("after the change: %+v", u)
	}
	w.want(w.do("PATCH", "/api/groups/"+group.ID, admin, `{"name":"Readers"}`), 200, "")
	w.want(w.do("PATCH", "/api/claims/"+claim.ID, admin, `{"value":"read"}`), 200, "")
	if claims := w.verify(w.login("tester").AccessToken); claims["log"] != "read" {
		t.Errorf("the claims are %v", claims)
	}
	w.want(w.do("DELETE", "/api/groups/"+group.ID+"/claims/"+claim.ID, admin, nil), 204, "")
	w.want(w.do("DELETE", "/api/users/tester/groups/readers", admin, nil), 204, "")
	for _, path := range []string{"/api/claims/" + claim.ID, "/api/groups/" + group.ID, "/api/users/" + user.ID} {
		w.want(w.do("DELETE", path, admin, nil), 204, "")
		if a := w.do("GET", path, admin, nil); a.status != 404 {
			t.Errorf("%s after its deletion: %d", path, a.status)
		}
	}
	me := w.verify(admin)["sub"].(string)
	w.want(w.do("DELETE", "/api/users/"+me, admin, nil), 409, "last_administrator")

	w.user("nobody")
	plain := w.login("nobody").AccessToken
	for _, path := range []string{"/api/users", "/api/groups", "/api/claims", "/api/users/" + me} {
		w.want(w.do("GET", path, plain, nil), 403, "permission_missing")
		w.want(w.do("GET", path, "", nil), 401, "token_missing")
	}
	w.want(w.do("GET", "/api/users/"+w.verify(plain)["sub"].(string), plain, nil), 200, "")
}

func TestProbesAndMetrics(t *testing.T) {
	w := newWorld(t, nil)
	report := decode[httpapi.HealthReport](t, w.want(w.do("GET", "/health", "", nil), 200, ""))
	if b, ok := report.Backends["database"]; !ok || len(report.Backends) != 1 || b.Status != "ok" || b.LatencyMS <= 0 {
		t.Errorf("the backends are %+v", report.Backends)
	}
	w.want(w.do("GET", "/livez", "", nil), 200, "")
	w.want(w.do("GET", "/readyz", "", nil), 200, "")
	w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "a", Password: "b"})
	metrics := string(w.do("GET", "/metrics", "", nil).body)
	for _, name := range []string{
		`watchword_requests_total{outcome="invalid_credentials",use="login"} 1`, "watchword_http_requests_total", "watchword_revocation_view_staleness_seconds",
		"watchword_signing_keys", "go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(metrics, name) {
			t.Errorf("no metric %s", name)
		}
	}

	w.node.Drain()
	if a := w.do("GET", "/readyz", "", nil); a.status != 503 || !strings.Contains(string(a.body), "shutting down") || a.header.Get("Retry-After") == "" {
		t.Errorf("a draining replica is ready: %d %s", a.status, a.body)
	}
	w.want(w.do("GET", "/livez", "", nil), 200, "")
}

// The database is closed under the replica: it says so, keeps answering what it can,
// and refuses what it cannot know.
func TestDatabaseAway(t *testing.T) {
	synctest.Test(t, databaseAway)
}

func databaseAway(t *testing.T) {
	w := newQuietWorld(t, func(c *config.Config) { c.Revocation.MaxStaleness = 3 * time.Second })
	grant := w.login("admin")
	w.accepts(grant.AccessToken)
	if err := w.node.parts.DB.Close(); err != nil {
		t.Fatal(err)
	}
	if a := w.do("GET", "/health", "", nil); a.status != 503 || !strings.Contains(string(a.body), `"status":"failed"`) {
		t.Errorf("health is %d %s", a.status, a.body)
	}
	for _, a := range []answer{
		w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password}),
		w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}),
		w.do("POST", "/api/logout", grant.AccessToken, nil),
		w.do("GET", "/api/users", grant.AccessToken, nil),
	} {
		if a.status != 503 || a.header.Get("Retry-After") == "" || a.code() == "" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	time.Sleep(w.cfg.Revocation.MaxStaleness + time.Millisecond)
	w.want(w.do("GET", "/api/verify", grant.AccessToken, nil), 503, "revocation_stale")
	if a := w.do("GET", "/readyz", "", nil); a.status != 503 {
		t.Errorf("readyz is %d", a.status)
	}
	w.want(w.do("GET", "/livez", "", nil), 200, "") // a restart would not help
	w.want(w.do("GET", "/api/pkeys", "", nil), 200, "")
}

// The description names every path that the contract has, and nothing that is not
// there.
func TestOpenAPI(t *testing.T) {
	w := newWorld(t, nil)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Security    []map[string][]string
			Responses   map[string]json.RawMessage
		}
		Components struct{ Schemas map[string]json.RawMessage }
	}
	a := w.want(w.do("GET", "/openapi.json", "", nil), 200, "")
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	var described []string
	ids := map[string]bool{}
	for path, item := range doc.Paths {
		for method, op := range item {
			described = append(described, strings.ToUpper(method)+" "+path)
			if ids[op.OperationID] || op.OperationID == "" {
				t.Errorf("%s %s: operationId %q is missing or not its own", method, path, op.OperationID)
			}
			ids[op.OperationID] = true

			got := w.do(strings.ToUpper(method), strings.NewReplacer("{id}", "none", "{group}", "none", "{claim}", "none").Replace(path), "", nil)
			if got.code() == "no_such_path" || got.code() == "method_not_allowed" {
				t.Errorf("%s %s is described, but is not there", method, path)
			}
			if len(op.Security) > 0 && got.status != 401 {
				t.Errorf("%s %s needs a token, but answers %d without one", method, path, got.status)
			}
		}
	}
	slices.Sort(described)
	for _, want := range []string{
		"POST /api/login", "POST /api/renew", "POST /api/logout", "POST /auth/logout", "GET /api/verify", "HEAD /api/verify", "POST /api/verify",
		"PUT /api/verify", "PATCH /api/verify", "DELETE /api/verify", "OPTIONS /api/verify", "TRACE /api/verify", "GET /api/pkeys",
		"GET /.well-known/jwks.json", "GET /api/revocations", "POST /api/revocations",
		"GET /api/users", "POST /api/users", "GET /api/users/{id}", "PATCH /api/users/{id}", "DELETE /api/users/{id}",
		"GET /api/groups", "POST /api/groups", "GET /api/groups/{id}", "PATCH /api/groups/{id}", "DELETE /api/groups/{id}",
		"GET /api/claims", "POST /api/claims", "GET /api/claims/{id}", "PATCH /api/claims/{id}", "DELETE /api/claims/{id}",
		"GET /api/users/{id}/groups", "GET /api/users/{id}/sessions", "GET /api/sessions", "DELETE /api/sessions", "DELETE /api/sessions/{id}",
		"GET /health", "GET /livez", "GET /readyz", "GET /metrics", "GET /openapi.json",
	} {
		if !slices.Contains(described, want) {
			t.Errorf("%s is not described", want)
		}
	}
	if doc.Components.Schemas["Problem"] == nil || doc.Components.Schemas["ErrorModel"] != nil {
		t.Error("errors are not described as they are sent")
	}
}

// Oneself can be read by id and by name, without a right to read others.
func TestReadOneself(t *testing.T) {
	w := newWorld(t, nil)
	id := w.user("tester")
	w.user("other")
	token := w.login("tester").AccessToken
	for _, path := range []string{"/api/users/%s", "/api/users/%s/groups", "/api/users/%s/sessions"} {
		for _, name := range []string{id, "tester", "TESTER"} {
			w.want(w.do("GET", fmt.Sprintf(path, name), token, nil), 200, "")
		}
		for _, name := range []string{"other", "nobody"} {
			w.want(w.do("GET", fmt.Sprintf(path, name), token, nil), 403, "permission_missing")
		}
	}
}

// What an answer says of a moment is what later answers say.
func TestAnswersAgreeOnTimes(t *testing.T) {
	w := newWorld(t, nil)
	token := w.login("admin").AccessToken
	type times struct {
		ID        string `json:"id"`
		CreatedAt string `json:"created_at"`
		UpdatedAt string `json:"updated_at"`
	}
	for path, bodies := range map[string][2]map[string]any{
		"/api/users":  {{"username": "tester"}, {"first_name": "T"}},
		"/api/groups": {{"name": "Testers"}, {"name": "Others"}},
		"/api/claims": {{"name": "Log", "short_name": "log", "value": "r"}, {"value": "w"}},
	} {
		made := decode[times](t, w.want(w.do("POST", path, token, bodies[0]), 201, ""))
		if got := decode[times](t, w.do("GET", path+"/"+made.ID, token, nil)); got != made {
			t.Errorf("POST %s: %+v, later %+v", path, made, got)
		}
		changed := decode[times](t, w.want(w.do("PATCH", path+"/"+made.ID, token, bodies[1]), 200, ""))
		if got := decode[times](t, w.do("GET", path+"/"+made.ID, token, nil)); got != changed {
			t.Errorf("PATCH %s: %+v, later %+v", path, changed, got)
		}
	}
}

// Every error is a problem, also for what net/http would answer with a page.
func TestUncleanPaths(t *testing.T) {
	w := newWorld(t, nil)
	for _, path := range []string{"//api/pkeys", "/api//pkeys", "/api/./pkeys", "/api/x/../pkeys", "/api/pkeys/.", "/.."} {
		r := w.request("GET", "/", "", nil)
		r.URL.Path = path
		resp, err := http.DefaultTransport.RoundTrip(r) // follows nothing
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		w.want(answer{resp.StatusCode, resp.Header, body}, 404, "no_such_path")
		if kind := resp.Header.Get("Content-Type"); err != nil || kind != "application/problem+json" {
			t.Errorf("%s: %s, %v", path, kind, err)
		}
	}
	w.want(w.do("GET", "/api/users/a%2F%2Fb", w.login("admin").AccessToken, nil), 404, "user_not_found")
}

// Who asks whether to send a body that is too large is told so, and not to go on.
func TestTooLargeABodyIsNotAskedFor(t *testing.T) {
	w := newWorld(t, nil)
	token := w.login("admin").AccessToken
	for _, path := range []string{"/api/login", "/api/renew", "/api/revocations", "/api/groups"} {
		conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute)) // fails only on a closed one
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
			path, token, httpkit.MaxBody+1)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 413 ") {
			t.Errorf("%s: %q, %v", path, line, err)
		}
	}
}

// What is wrong with a request to take something back is said once, and of its form first.
func TestWhatIsWrongWithARevocation(t *testing.T) {
	w := newWorld(t, nil)
	token := w.login("admin").AccessToken
	for body, want := range map[string]string{
		`{"user":"admin","issued_before":"yesterday"}`: "issued_before must be seconds since 1970 or a time by RFC 3339, and after 1970",
		`{"user":"admin","issued_before":-1}`:          "issued_before must be a moment after 1970",
		`{"jti":"x","issued_before":5}`:                "issued_before goes with user alone; leave it out, or name a user",
		`{"session_id":"x","issued_before":5}`:         "issued_before goes with user alone; leave it out, or name a user",
		`{"jti":"x"}`:                                  "nothing has such an id; give it as it stands in the token",
	} {
		a := w.want(w.do("POST", "/api/revocations", token, body), 422, "invalid_request")
		if got := decode[httpkit.Problem](t, a).Detail; got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}
