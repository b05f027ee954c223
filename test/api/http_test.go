package api

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
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
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func TestBadInput(t *testing.T) {
	w := replica.New(t, nil)
	admin := w.Login("admin").AccessToken
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
		{"a name in another case", login, `{"USERNAME":"admin","password":"` + kit.Password + `"}`, 422, "invalid_request"},
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
			a := w.Do("POST", c.path, admin, c.body)
			if a.Status != c.status || a.Code() != c.code {
				t.Errorf("got %d %s, want %d %s", a.Status, a.Body, c.status, c.code)
			}
			if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type is %q", got)
			}
			var p httpkit.Problem
			if err := json.Unmarshal(a.Body, &p); err != nil || p.Type != "about:blank" || p.Status != c.status || p.Title == "" || p.Detail == "" || p.Code == "" {
				t.Errorf("not a problem by RFC 9457: %s", a.Body)
			}
			if strings.Contains(p.Detail, "httpapi.") {
				t.Errorf("the detail speaks of our types: %s", p.Detail)
			}
		})
	}
	w.Verify(admin) // nothing of that has hurt it
}

// A body's type matters to administration alone.
func TestMediaTypes(t *testing.T) {
	w := replica.New(t, nil)
	admin := w.Login("admin").AccessToken
	post := func(path, body, mediaType string) kit.Answer {
		r := w.Request("POST", path, admin, body)
		r.Header.Set("Content-Type", mediaType)
		return w.Send(r)
	}
	const form = "application/x-www-form-urlencoded" // curl -d
	credentials := `{"username":"admin","password":"` + kit.Password + `"}`
	for _, mediaType := range []string{"application/json; charset=utf-8", form, "text/plain"} {
		w.Want(post("/api/login", credentials, mediaType), 200, "")
	}
	w.Want(post("/api/groups", `{"name":"a"}`, "application/json; charset=utf-8"), 201, "")
	w.Want(post("/api/groups", `{"name":"b"}`, form), 201, "")
	refused := w.Want(post("/api/groups", `{"name":"c"}`, "text/plain"), 415, "unsupported_media_type")
	if p := kit.Decode[httpkit.Problem](t, refused); p.Detail != "the body must be of type application/json" {
		t.Errorf("%s", refused.Body)
	}
}

func TestNoSuchRoute(t *testing.T) {
	w := replica.New(t, nil)
	w.Want(w.Do("GET", "/nothing", "", nil), 404, "no_such_path")
	w.Want(w.Do("GET", "/api/users/", "", nil), 404, "no_such_path")
	a := w.Want(w.Do("PUT", "/api/login", "", nil), 405, "method_not_allowed")
	if got := a.Header.Get("Allow"); got != "POST" {
		t.Errorf("Allow is %q", got)
	}
	w.Want(w.Do("DELETE", "/api/pkeys", "", nil), 405, "method_not_allowed")
}

func TestKeySetCaching(t *testing.T) {
	w := replica.New(t, nil)
	first := w.Want(w.Do("GET", "/api/pkeys", "", nil), 200, "")
	if other := w.Do("GET", "/.well-known/jwks.json", "", nil); string(other.Body) != string(first.Body) {
		t.Errorf("jwks.json differs: %s", other.Body)
	}
	// Of this replica alone, with the end of each key.
	local := w.Do("GET", "/api/pkeys?local=true", "", nil)
	if without := regexp.MustCompile(`,"exp":\d+`).ReplaceAll(local.Body, nil); string(without) != string(first.Body) || len(without) == len(local.Body) {
		t.Errorf("?local=true gives %s", local.Body)
	}
	if got := first.Header.Get("Cache-Control"); got != "public, max-age=30, stale-while-revalidate=3, stale-if-error=86400" {
		t.Errorf("Cache-Control is %q", got)
	}
	r, _ := http.NewRequestWithContext(t.Context(), "GET", w.URL+"/api/pkeys", nil)
	r.Header.Set("If-None-Match", `"other", W/`+first.Header.Get("Etag"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 304 || resp.Header.Get("Cache-Control") == "" {
		t.Errorf("revalidation: %s", resp.Status)
	}
}

// Each key of the set is there as PEM, byte for byte the key that the set has under its kid.
func TestPublicKeyAsPEM(t *testing.T) {
	t.Parallel()
	w := replica.New(t, func(c *config.Config) { c.Tokens.Algorithms = []string{"ES256", "ES512", "EdDSA", "RS256"} })
	var set *accesstoken.KeySet
	w.Await("a key of each algorithm", func() bool {
		var err error
		if set, err = accesstoken.ParseKeySet(w.Do("GET", "/api/pkeys", "", nil).Body); err != nil {
			t.Fatal(err)
		}
		return set.Len() == 4
	})
	var etags []string
	for _, key := range set.Keys() {
		path := "/api/pkeys/" + key.ID + ".pem"
		a := w.Want(w.Do("GET", path, "", nil), 200, "")
		block, rest := pem.Decode(a.Body)
		if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 || !strings.HasPrefix(string(a.Body), "-----BEGIN") {
			t.Fatalf("%s: %s", key.Algorithm, a.Body)
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := accesstoken.NewKey(key.ID, key.Algorithm, public); err != nil || !got.Equal(key) {
			t.Errorf("%s: another key (%v): %s", key.Algorithm, err, a.Body)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/x-pem-file", "Content-Length": strconv.Itoa(len(a.Body)),
			"Cache-Control": "public, max-age=30, stale-while-revalidate=3, stale-if-error=86400",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", key.Algorithm, name, got, want)
			}
		}
		etag := a.Header.Get("Etag")
		if etag == "" || slices.Contains(etags, etag) {
			t.Errorf("%s: the ETag is %q", key.Algorithm, etag)
		}
		etags = append(etags, etag)
		if head := w.Want(w.Do("HEAD", path, "", nil), 200, ""); head.Header.Get("Etag") != etag || len(head.Body) > 0 {
			t.Errorf("HEAD: %v with %d bytes", head.Header, len(head.Body))
		}
		r := w.Request("GET", path, "", nil)
		r.Header.Set("If-None-Match", etag)
		if again := w.Want(w.Send(r), 304, ""); len(again.Body) > 0 || again.Header.Get("Cache-Control") == "" {
			t.Errorf("304: %v with %d bytes", again.Header, len(again.Body))
		}
		if local := w.Want(w.Do("GET", path+"?local=true", "", nil), 200, ""); string(local.Body) != string(a.Body) {
			t.Errorf("?local=true gives %s", local.Body)
		}
		// Under its name alone, with something more, or below something else, it is not there.
		w.Want(w.Do("GET", "/api/pkeys/"+key.ID, "", nil), 404, "no_such_path")
		w.Want(w.Do("GET", path+"/", "", nil), 404, "no_such_path")
		w.Want(w.Do("GET", "/api/pkeys/x/"+key.ID+".pem", "", nil), 404, "no_such_path")
		w.Want(w.Do("GET", "/api/pkeys/"+key.ID+".pem.pem", "", nil), 404, "unknown_key")
		w.Want(w.Do("GET", "/api/pkeys/"+key.ID+"%00.pem", "", nil), 404, "unknown_key")
		w.Want(w.Do("GET", "/api/pkeys/"+strings.ToLower(key.ID)+"X.pem", "", nil), 404, "unknown_key")
	}
	for _, kid := range []string{
		"none", ".", "", "%2e%2e%2fjwks", "..%2F..%2Fetc%2Fpasswd", "%22%0d%0aX-Injected:%201%0d%0a%0d%0a", "%3Cscript%3E", "{kid}", "%25", "%F0%9F%97%9D", strings.Repeat("k", 5000),
		"0123456789012345678901234567890123456789012", // of the form of one of ours
	} {
		a := w.Want(w.Do("GET", "/api/pkeys/"+kid+".pem", "", nil), 404, "unknown_key")
		if text := string(a.Body); a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Etag") != "" || a.Header.Get("X-Injected") != "" ||
			len(kid) > 3 && strings.Contains(text, kid[:4]) || strings.Contains(text, "script") {
			t.Errorf("%q: %v %s", kid, a.Header, text)
		}
	}
	if a := w.Want(w.Do("POST", "/api/pkeys/"+set.Keys()[0].ID+".pem", "", nil), 405, "method_not_allowed"); a.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow is %q", a.Header.Get("Allow"))
	}
}

// A signing secret has no public key, and its kids are as unknown as any other.
func TestASecretHasNoPEM(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("0123456789abcdef", 4)
	w := replica.New(t, func(c *config.Config) { c.Tokens.Keys, c.Tokens.Secret = config.KeysSecret, secret })
	keys, err := accesstoken.SecretKeys(secret)
	if err != nil || len(keys) != 3 {
		t.Fatal(keys, err)
	}
	for _, key := range keys {
		w.Want(w.Do("GET", "/api/pkeys/"+key.ID+".pem", "", nil), 404, "unknown_key")
		w.Want(w.Do("GET", "/api/pkeys/"+key.ID+".pem?local=true", "", nil), 404, "unknown_key")
	}
}

// A proxy asks with the method of the request that it has before it.
func TestForwardAuth(t *testing.T) {
	w := replica.New(t, nil)
	id := w.User("tester", "log=r", "big.ship=acc", "big-ship=50% ö")
	token := w.Login("tester").AccessToken
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		a := w.Do(method, "/api/verify", token, nil)
		if a.Status != 200 {
			t.Fatalf("%s: %d", method, a.Status)
		}
		for name, want := range map[string]string{
			"X-Auth-Subject": id, "X-Auth-Username": "tester", "X-Auth-Name": "Travis Ester",
			"X-Auth-Email": "tester@example.com", "X-Auth-Claim-Log": "r",
			"X-Auth-Claim-Big-Ship": "", // two claims would have this header
		} {
			if got, ok := a.Header[http.CanonicalHeaderKey(name)]; !ok || got[0] != want {
				t.Errorf("%s: %s is %q, want %q", method, name, got, want)
			}
		}
	}
}

func TestSessions(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	a, b, admin := w.Login("tester"), w.Login("tester"), w.Login("admin").AccessToken
	list := kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", "/api/sessions", a.AccessToken, nil), 200, "")).Sessions
	if len(list) != 2 {
		t.Fatalf("%d sessions: %+v", len(list), list)
	}
	for _, s := range list {
		if s.Current != (s.ID == a.SessionID) || s.Address != "127.0.0.1" || !strings.HasPrefix(s.UserAgent, "Go-http-client") {
			t.Errorf("session %+v", s)
		}
	}
	w.Want(w.Do("DELETE", "/api/sessions/"+b.SessionID, a.AccessToken, nil), 204, "")
	w.Want(w.Do("GET", "/api/verify", b.AccessToken, nil), 401, "token_revoked")
	w.Want(w.Do("DELETE", "/api/sessions/"+b.SessionID, a.AccessToken, nil), 404, "session_not_found")
	// another's session is as if it were not there
	w.Want(w.Do("DELETE", "/api/sessions/"+a.SessionID, admin, nil), 404, "session_not_found")
	w.Want(w.Do("GET", "/api/users/admin/sessions", a.AccessToken, nil), 403, "permission_missing")
	if of := kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", "/api/users/tester/sessions", admin, nil), 200, "")).Sessions; len(of) != 1 {
		t.Errorf("the administrator sees %+v", of)
	}
}

func TestSessionPages(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	var want []string
	for range 5 {
		want = append(want, w.Login("tester").SessionID)
	}
	token := w.Login("tester").AccessToken
	slices.Reverse(want)
	admin := w.Login("admin").AccessToken
	for path, token := range map[string]string{"/api/sessions": token, "/api/users/tester/sessions": admin} {
		var got []string
		after := ""
		for range 3 {
			page := kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", path+"?limit=2"+after, token, nil), 200, ""))
			for _, s := range page.Sessions {
				got = append(got, s.ID)
			}
			after = "&after=" + page.Next
		}
		if len(got) != 6 || !slices.Equal(got[1:], want) || after != "&after=" {
			t.Errorf("%s: %v, want %v after the newest; the last page ends with %q", path, got, want, after)
		}
		for _, bad := range []string{"limit=-1", "limit=1001", "limit=x", "after=x.y"} {
			if a := w.Do("GET", path+"?"+bad, token, nil); a.Status != 422 {
				t.Errorf("%s: %d %s", bad, a.Status, a.Body)
			}
		}
	}
}

// Many sessions end in few transactions, each with its line.
func TestManySessionsEndAtOnce(t *testing.T) {
	w := replica.New(t, func(c *config.Config) { c.Sessions.MaxPerUser = 1000 })
	user := w.User("tester")
	others := []httpapi.Grant{w.Login("tester"), w.Login("tester")}
	sessions := sqlstate.New(w.Parts().DB, time.Now)
	record, err := sessions.Get(t.Context(), state.Key{Kind: session.Kind, Owner: user, ID: others[0].SessionID})
	if err != nil {
		t.Fatal(err)
	}
	const many = 230
	for range many - len(others) { // that differ in their ids alone
		id := uuid.NewString()
		value := bytes.ReplaceAll(record.Value, []byte(others[0].SessionID), []byte(id))
		if _, err := sessions.Put(t.Context(), state.Key{Kind: session.Kind, Owner: user, ID: id}, value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	others = append(others, w.Login("tester"))
	mine := w.Login("tester")
	before := w.Head()
	w.Want(w.Do("DELETE", "/api/sessions", mine.AccessToken, nil), 204, "")
	if lines := w.Head() - before; lines != many+1 {
		t.Errorf("%d lines, want %d", lines, many+1)
	}
	for _, g := range others {
		w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
		w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
	}
	w.Verify(mine.AccessToken)
}

func TestAccessTokenEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := replica.NewWith(t, replica.Options{Quiet: true}, func(c *config.Config) { c.Sessions.TTL = 31 * time.Minute })
		first := w.Login("admin")
		claims := w.Verify(first.AccessToken)
		if life := claims["exp"].(float64) - claims["auth_time"].(float64); life != 1800 {
			t.Errorf("the token lives %v s", life)
		}
		time.Sleep(2 * time.Minute)
		second := kit.Decode[httpapi.Grant](t, w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: first.RefreshToken}))
		if a, b := claims["auth_time"].(float64)+31*60, w.Verify(second.AccessToken)["exp"]; a != b {
			t.Errorf("the renewed token ends at %v, the session at %v", b, a)
		}
	})
}

func TestAdministrationOverHTTP(t *testing.T) {
	w := replica.New(t, nil)
	admin := w.Login("admin").AccessToken
	claim := kit.Decode[httpapi.Claim](t, w.Want(w.Do("POST", "/api/claims", admin, httpapi.NewClaim{Name: "Log Reader", ShortName: "log", Value: "r"}), 201, ""))
	group := kit.Decode[httpapi.Group](t, w.Want(w.Do("POST", "/api/groups", admin, httpapi.NewGroup{Name: "Log Users"}), 201, ""))
	w.Want(w.Do("POST", "/api/groups/"+group.ID+"/claims", admin, httpapi.ClaimRef{Claim: "log reader"}), 204, "")
	user := kit.Decode[httpapi.User](t, w.Want(w.Do("POST", "/api/users", admin, httpapi.NewUser{Username: "tester", Password: kit.Password}), 201, ""))
	w.Want(w.Do("POST", "/api/users/"+user.ID+"/groups", admin, httpapi.GroupRef{Group: group.ID}), 204, "")
	if claims := w.Verify(w.Login("tester").AccessToken); claims["log"] != "r" {
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
		if a := w.Want(w.Do("GET", path, admin, nil), 200, ""); !strings.Contains(string(a.Body), want) {
			t.Errorf("%s: %s lacks %s", path, a.Body, want)
		}
	}
	w.Want(w.Do("GET", "/api/users?limt=1", admin, nil), 422, "invalid_request")
	w.Want(w.Do("GET", "/api/users?limit=1000", admin, nil), 422, "invalid_request")

	if u := kit.Decode[httpapi.User](t, w.Want(w.Do("PATCH", "/api/users/tester", admin, `{"first_name":"Tess"}`), 200, "")); u.FirstName != "Tess" || u.Username != "tester" {
		t.Errorf("after the change: %+v", u)
	}
	w.Want(w.Do("PATCH", "/api/groups/"+group.ID, admin, `{"name":"Readers"}`), 200, "")
	w.Want(w.Do("PATCH", "/api/claims/"+claim.ID, admin, `{"value":"read"}`), 200, "")
	if claims := w.Verify(w.Login("tester").AccessToken); claims["log"] != "read" {
		t.Errorf("the claims are %v", claims)
	}
	w.Want(w.Do("DELETE", "/api/groups/"+group.ID+"/claims/"+claim.ID, admin, nil), 204, "")
	w.Want(w.Do("DELETE", "/api/users/tester/groups/readers", admin, nil), 204, "")
	for _, path := range []string{"/api/claims/" + claim.ID, "/api/groups/" + group.ID, "/api/users/" + user.ID} {
		w.Want(w.Do("DELETE", path, admin, nil), 204, "")
		if a := w.Do("GET", path, admin, nil); a.Status != 404 {
			t.Errorf("%s after its deletion: %d", path, a.Status)
		}
	}
	me := w.Verify(admin)["sub"].(string)
	w.Want(w.Do("DELETE", "/api/users/"+me, admin, nil), 409, "last_administrator")

	w.User("nobody")
	plain := w.Login("nobody").AccessToken
	for _, path := range []string{"/api/users", "/api/groups", "/api/claims", "/api/users/" + me} {
		w.Want(w.Do("GET", path, plain, nil), 403, "permission_missing")
		w.Want(w.Do("GET", path, "", nil), 401, "token_missing")
	}
	w.Want(w.Do("GET", "/api/users/"+w.Verify(plain)["sub"].(string), plain, nil), 200, "")
}

func TestProbesAndMetrics(t *testing.T) {
	w := replica.New(t, nil)
	report := kit.Decode[httpapi.HealthReport](t, w.Want(w.Do("GET", "/health", "", nil), 200, ""))
	if b, ok := report.Backends["database"]; !ok || len(report.Backends) != 1 || b.Status != "ok" || b.LatencyMS <= 0 {
		t.Errorf("the backends are %+v", report.Backends)
	}
	w.Want(w.Do("GET", "/livez", "", nil), 200, "")
	w.Want(w.Do("GET", "/readyz", "", nil), 200, "")
	w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "a", Password: "b"})
	metrics := string(w.Do("GET", "/metrics", "", nil).Body)
	for _, name := range []string{
		`watchword_requests_total{outcome="invalid_credentials",use="login"} 1`, "watchword_http_requests_total", "watchword_revocation_view_staleness_seconds",
		"watchword_signing_keys", "go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(metrics, name) {
			t.Errorf("no metric %s", name)
		}
	}

	w.Replica.Drain()
	if a := w.Do("GET", "/readyz", "", nil); a.Status != 503 || !strings.Contains(string(a.Body), "shutting down") || a.Header.Get("Retry-After") == "" {
		t.Errorf("a draining replica is ready: %d %s", a.Status, a.Body)
	}
	w.Want(w.Do("GET", "/livez", "", nil), 200, "")
}

// The description names every path that the contract has, and nothing that is not
// there.
func TestOpenAPI(t *testing.T) {
	w := replica.New(t, nil)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Security    []map[string][]string
			Responses   map[string]json.RawMessage
		}
		Components struct{ Schemas map[string]json.RawMessage }
	}
	a := w.Want(w.Do("GET", "/openapi.json", "", nil), 200, "")
	if err := json.Unmarshal(a.Body, &doc); err != nil {
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

			got := w.Do(strings.ToUpper(method), strings.NewReplacer("{id}", "none", "{group}", "none", "{claim}", "none").Replace(path), "", nil)
			if got.Code() == "no_such_path" || got.Code() == "method_not_allowed" {
				t.Errorf("%s %s is described, but is not there", method, path)
			}
			if len(op.Security) > 0 && got.Status != 401 {
				t.Errorf("%s %s needs a token, but answers %d without one", method, path, got.Status)
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

// A user reads their own record by id and by name, without a right to read others.
func TestUserReadsTheirOwnRecord(t *testing.T) {
	w := replica.New(t, nil)
	id := w.User("tester")
	w.User("other")
	token := w.Login("tester").AccessToken
	for _, path := range []string{"/api/users/%s", "/api/users/%s/groups", "/api/users/%s/sessions"} {
		for _, name := range []string{id, "tester", "TESTER"} {
			w.Want(w.Do("GET", fmt.Sprintf(path, name), token, nil), 200, "")
		}
		for _, name := range []string{"other", "nobody"} {
			w.Want(w.Do("GET", fmt.Sprintf(path, name), token, nil), 403, "permission_missing")
		}
	}
}

// What an answer says of a moment is what later answers say.
func TestAnswersAgreeOnTimes(t *testing.T) {
	w := replica.New(t, nil)
	token := w.Login("admin").AccessToken
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
		made := kit.Decode[times](t, w.Want(w.Do("POST", path, token, bodies[0]), 201, ""))
		if got := kit.Decode[times](t, w.Do("GET", path+"/"+made.ID, token, nil)); got != made {
			t.Errorf("POST %s: %+v, later %+v", path, made, got)
		}
		changed := kit.Decode[times](t, w.Want(w.Do("PATCH", path+"/"+made.ID, token, bodies[1]), 200, ""))
		if got := kit.Decode[times](t, w.Do("GET", path+"/"+made.ID, token, nil)); got != changed {
			t.Errorf("PATCH %s: %+v, later %+v", path, changed, got)
		}
	}
}

// Every error is a problem, also for what net/http would answer with a page.
func TestUncleanPaths(t *testing.T) {
	w := replica.New(t, nil)
	for _, path := range []string{"//api/pkeys", "/api//pkeys", "/api/./pkeys", "/api/x/../pkeys", "/api/pkeys/.", "/.."} {
		r := w.Request("GET", "/", "", nil)
		r.URL.Path = path
		resp, err := http.DefaultTransport.RoundTrip(r) // follows nothing
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		w.Want(kit.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, 404, "no_such_path")
		if kind := resp.Header.Get("Content-Type"); err != nil || kind != "application/problem+json" {
			t.Errorf("%s: %s, %v", path, kind, err)
		}
	}
	w.Want(w.Do("GET", "/api/users/a%2F%2Fb", w.Login("admin").AccessToken, nil), 404, "user_not_found")
}

// A client that asks with Expect before it sends a body that is too large gets 413, and is not
// asked for the body.
func TestTooLargeABodyIsNotAskedFor(t *testing.T) {
	w := replica.New(t, nil)
	token := w.Login("admin").AccessToken
	for _, path := range []string{"/api/login", "/api/renew", "/api/revocations", "/api/groups"} {
		conn, err := net.Dial("tcp", w.Server.Listener.Addr().String())
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
	w := replica.New(t, nil)
	token := w.Login("admin").AccessToken
	for body, want := range map[string]string{
		`{"user":"admin","issued_before":"yesterday"}`: "issued_before must be seconds since 1970 or a time by RFC 3339, and after 1970",
		`{"user":"admin","issued_before":-1}`:          "issued_before must be a moment after 1970",
		`{"jti":"x","issued_before":5}`:                "issued_before goes with user alone; leave it out, or name a user",
		`{"session_id":"x","issued_before":5}`:         "issued_before goes with user alone; leave it out, or name a user",
		`{"jti":"x"}`:                                  "nothing has such an id; give it as it stands in the token",
	} {
		a := w.Want(w.Do("POST", "/api/revocations", token, body), 422, "invalid_request")
		if got := kit.Decode[httpkit.Problem](t, a).Detail; got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}
