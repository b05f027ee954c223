package app

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/state/memstate"
)

// A description is /openapi.json, in so far as answers are held against it.
type description struct {
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]schema }
}

type operation struct {
	Parameters  []struct{ Name, In string }
	RequestBody *struct{ Content map[string]media }
	Responses   map[string]struct {
		Content map[string]media
		Headers map[string]json.RawMessage
	}
}

type media struct{ Schema *schema }

// A schema is the part of JSON Schema that the description uses. One that says
// nothing takes everything.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Properties           map[string]schema
	Required             []string
	AdditionalProperties json.RawMessage
	Items                *schema
	Enum                 []any
	OneOf                []schema
}

// wrong says what of a value does not fit the schema; empty: it fits.
func (d *description) wrong(s schema, v any, at string) string {
	if s.Ref != "" {
		name := strings.TrimPrefix(s.Ref, "#/components/schemas/")
		to, ok := d.Components.Schemas[name]
		if !ok {
			return at + ": there is no " + s.Ref
		}
		return d.wrong(to, v, at)
	}
	if len(s.OneOf) > 0 {
		fit := 0
		for _, one := range s.OneOf {
			if d.wrong(one, v, at) == "" {
				fit++
			}
		}
		if fit != 1 {
			return fmt.Sprintf("%s: %v fits %d of oneOf", at, v, fit)
		}
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		return fmt.Sprintf("%s: %v is none of %v", at, v, s.Enum)
	}
	if !hasType(s.Type, v) {
		return fmt.Sprintf("%s: %v is no %v", at, v, s.Type)
	}
	switch v := v.(type) {
	case []any:
		for i, one := range v {
			if s.Items == nil {
				break
			}
			if text := d.wrong(*s.Items, one, fmt.Sprintf("%s[%d]", at, i)); text != "" {
				return text
			}
		}
	case map[string]any:
		return d.wrongMembers(s, v, at)
	}
	return ""
}

func (d *description) wrongMembers(s schema, v map[string]any, at string) string {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return at + ": " + name + " is missing"
		}
	}
	for name, member := range v {
		to, ok := s.Properties[name]
		if !ok {
			if string(s.AdditionalProperties) == "false" {
				return at + ": " + name + " is not described"
			}
			if len(s.AdditionalProperties) > 0 {
				_ = json.Unmarshal(s.AdditionalProperties, &to) // true says nothing
			}
		}
		if text := d.wrong(to, member, at+"."+name); text != "" {
			return text
		}
	}
	return ""
}

func hasType(want, v any) bool {
	switch want := want.(type) {
	case nil:
		return true
	case []any:
		return slices.ContainsFunc(want, func(one any) bool { return hasType(one, v) })
	}
	switch v := v.(type) {
	case nil:
		return want == "null"
	case bool:
		return want == "boolean"
	case string:
		return want == "string"
	case []any:
		return want == "array"
	case float64:
		return want == "number" || want == "integer" && v == float64(int64(v))
	}
	return want == "object"
}

// asAnswersHaveIt is the one form of a moment: UTC, with milliseconds.
var asAnswersHaveIt = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// eachTime calls f with every string in a JSON value that is a moment.
func eachTime(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		if _, err := time.Parse(time.RFC3339, v); err == nil {
			f(v)
		}
	case []any:
		for _, one := range v {
			eachTime(one, f)
		}
	case map[string]any:
		for _, one := range v {
			eachTime(one, f)
		}
	}
}

// No answer has a moment that is written in another way, also none that a test does not ask
// for. The feed's page, which is of package verify, is written by the feed.
func TestEveryMomentIsWrittenAlike(t *testing.T) {
	w := newWorld(t, nil)
	d := decode[struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					Format   string
					Examples []any
				}
			}
		}
	}](t, w.want(w.do("GET", "/openapi.json", "", nil), 200, ""))
	moments := 0
	for name, s := range d.Components.Schemas {
		for member, p := range s.Properties {
			if p.Format != "date-time" {
				continue
			}
			moments++
			if name != "Page" && len(p.Examples) == 0 { // httpkit.Time has one
				t.Errorf("%s.%s is written as its Go type is", name, member)
			}
		}
	}
	if moments < 15 {
		t.Errorf("%d moments are described", moments)
	}
}

// What is really asked and answered is what the description says.
func TestOpenAPIIsWhatIsAnswered(t *testing.T) {
	w := newWorld(t, nil)
	d := decode[description](t, w.want(w.do("GET", "/openapi.json", "", nil), 200, ""))
	w.user("tester", "log=r")
	admin, grant := w.login("admin"), w.login("tester")
	token := admin.AccessToken

	held := map[string]bool{}
	hold := func(method, path, token string, body any, header http.Header) {
		t.Helper()
		pattern := path
		for _, id := range []string{"tester%20log=r", "of%20tester", "tester"} {
			pattern = strings.Replace(pattern, "/"+id, "/{id}", 1)
		}
		pattern = strings.Replace(pattern, "/192.0.2.1", "/{address}", 1)
		pattern = regexp.MustCompile(`^/api/pkeys/[^/]+\.pem`).ReplaceAllString(pattern, "/api/pkeys/{kid}.pem")
		pattern, _, _ = strings.Cut(pattern, "?")
		op, ok := d.Paths[pattern][strings.ToLower(method)]
		if !ok {
			t.Errorf("%s %s is not described", method, pattern)
			return
		}
		if body != nil {
			encoded, _ := json.Marshal(body)
			var sent any
			_ = json.Unmarshal(encoded, &sent)
			if text := d.wrong(*op.RequestBody.Content["application/json"].Schema, sent, "body"); text != "" {
				t.Errorf("%s %s takes what is not described: %s", method, pattern, text)
			}
		}
		r := w.request(method, path, token, body)
		for name, values := range header {
			r.Header[name] = values
			if name != "Accept" && name != "Content-Type" && !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool {
				return p.In == "header" && http.CanonicalHeaderKey(p.Name) == name
			}) {
				t.Errorf("%s %s: the header %s is not described", method, pattern, name)
			}
		}
		a := w.send(r)
		code := fmt.Sprint(a.status)
		response, ok := op.Responses[code]
		if !ok {
			t.Errorf("%s %s: the answer %d is not described", method, pattern, a.status)
		}
		held[method+" "+pattern+" "+code] = true
		if len(a.body) == 0 {
			if len(response.Content) > 0 {
				t.Errorf("%s %s: %d has no body", method, pattern, a.status)
			}
			return
		}
		kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
		m, ok := response.Content[kind]
		if err != nil || !ok {
			t.Errorf("%s %s: %d comes as %q, described are %v", method, pattern, a.status, kind, response.Content)
			return
		}
		if m.Schema == nil || !strings.HasSuffix(kind, "json") {
			return
		}
		var v any
		if err := json.Unmarshal(a.body, &v); err != nil {
			t.Errorf("%s %s: %v", method, pattern, err)
		}
		eachTime(v, func(text string) {
			if !asAnswersHaveIt.MatchString(text) {
				t.Errorf("%s %s: the time %s", method, pattern, text)
			}
		})
		if text := d.wrong(*m.Schema, v, "answer"); text != "" {
			t.Errorf("%s %s: %d is not what is described: %s\n%s", method, pattern, a.status, text, a.body)
		}
	}

	hold("POST", "/api/login", "", map[string]any{"username": "tester", "password": password}, nil)
	hold("POST", "/api/login", "", map[string]any{"username": "tester", "password": "wrong"}, nil)
	hold("POST", "/api/renew", "", map[string]any{"refresh_token": grant.RefreshToken}, nil)
	third := w.login("tester").AccessToken
	hold("PUT", "/api/me/password", third, map[string]any{"current_password": "wrong password", "new_password": "another password"}, nil)
	hold("PUT", "/api/me/password", third, map[string]any{"current_password": password, "new_password": "another password"}, nil)
	secret, key, owner := w.enrolled("owner")
	first := map[string]any{"username": "owner", "password": password}
	hold("POST", "/api/login", "", first, nil)
	mfaToken := decode[httpapi.LoginRefusal](t, w.do("POST", "/api/login", "", first)).MFAToken
	hold("POST", "/api/login/mfa/options", "", map[string]any{"mfa_token": mfaToken}, nil)
	hold("POST", "/api/login/mfa/enrol", "", map[string]any{"mfa_token": mfaToken, "method": "totp"}, nil)
	hold("POST", "/api/login/mfa", "", map[string]any{"mfa_token": mfaToken, "method": "totp", "code": mfatest.Code(t, secret, time.Now())}, nil)
	hold("POST", "/api/login/passkey/options", "", nil, nil)
	made, err := key.Get(w.do("POST", "/api/login/passkey/options", "", nil).body)
	if err != nil {
		t.Fatal(err)
	}
	hold("POST", "/api/login/passkey", "", map[string]any{"credential": made}, nil)
	hold("POST", "/api/login/step-up", owner, map[string]any{"method": "password", "password": password}, nil)
	hold("POST", "/api/login/step-up/options", owner, nil, nil)
	hold("POST", "/api/mfa/backup-codes", owner, nil, nil)
	codes := decode[httpapi.BackupCodes](t, w.do("POST", "/api/mfa/backup-codes", owner, nil)).Codes
	hold("POST", "/api/mfa/backup-codes/confirm", owner, map[string]any{"code": codes[0]}, nil)
	hold("GET", "/api/mfa", owner, nil, nil)
	hold("GET", "/api/mfa", third, nil, nil)
	hold("POST", "/api/mfa/passkeys", owner, nil, nil)
	hold("DELETE", "/api/mfa/backup-codes", owner, nil, nil)
	hold("DELETE", "/api/mfa/totp", owner, nil, nil)
	hold("POST", "/api/mfa/totp", w.login("admin").AccessToken, nil, nil)

	hold("GET", "/api/verify", token, nil, nil)
	hold("GET", "/api/verify", "", nil, nil)
	hold("GET", "/api/pkeys", "", nil, nil)
	hold("GET", "/api/pkeys?local=true", "", nil, nil)
	etag := w.do("GET", "/api/pkeys", "", nil).header.Get("ETag")
	for _, path := range []string{"/api/pkeys", "/.well-known/jwks.json"} {
		hold("GET", path, "", nil, http.Header{"If-None-Match": {etag}})
	}
	asPEM := "/api/pkeys/" + decode[httpapi.JWKS](t, w.do("GET", "/api/pkeys", "", nil)).Keys[0].KeyID + ".pem"
	hold("GET", asPEM+"?local=true", "", nil, nil)
	hold("GET", asPEM, "", nil, http.Header{"If-None-Match": {w.do("GET", asPEM, "", nil).header.Get("ETag")}})
	hold("GET", "/api/pkeys/none.pem", "", nil, nil)
	for _, before := range []any{nil, time.Now().Add(-time.Hour).Unix(), 1.5, time.Now().Add(-time.Hour).Format(time.RFC3339)} {
		body := map[string]any{"user": "tester"}
		if before != nil {
			body["issued_before"] = before
		}
		hold("POST", "/api/revocations", token, body, nil)
	}
	hold("GET", "/api/revocations", "", nil, nil)
	hold("GET", "/api/revocations?limit=0", "", nil, nil)
	for _, path := range []string{
		"/api/users", "/api/users/tester", "/api/users/tester/factors", "/api/users/tester/groups", "/api/users/tester/sessions", "/api/sessions",
		"/api/groups", "/api/groups/of%20tester", "/api/groups/of%20tester/claims", "/api/groups/of%20tester/members",
		"/api/claims", "/api/claims/tester%20log=r", "/api/cluster", "/api/audit", "/api/audit/chain", "/api/limits", "/api/limits/accounts/tester", "/api/limits/addresses/192.0.2.1", "/health", "/livez", "/readyz", "/metrics", "/openapi.json",
		"/.well-known/oauth-authorization-server",
	} {
		hold("GET", path, token, nil, nil)
	}
	hold("GET", "/api/users/tester", "", nil, nil)
	hold("POST", "/api/groups", token, map[string]any{"name": "new"}, nil)
	hold("POST", "/api/claims", token, map[string]any{"name": "x", "short_name": "x", "value": "y"}, nil)
	hold("POST", "/api/users", token, map[string]any{"username": "third", "password": password}, nil)
	hold("PATCH", "/api/users/tester", token, map[string]any{"first_name": "T"}, nil)
	hold("PATCH", "/api/groups/of%20tester", token, map[string]any{}, nil)
	hold("PATCH", "/api/claims/tester%20log=r", token, map[string]any{}, nil)
	hold("POST", "/api/groups", token, map[string]any{"name": ""}, nil)
	hold("POST", "/api/groups", token, map[string]any{"name": "other"}, http.Header{"Content-Type": {"text/plain"}})
	hold("DELETE", "/api/limits/accounts/tester", token, nil, nil)
	hold("DELETE", "/api/limits/addresses/192.0.2.1", token, nil, nil)
	hold("DELETE", "/api/users/tester/factors", token, nil, nil)
	hold("POST", "/api/users/tester/recovery", token, map[string]any{"keep_factors": true, "expires_in": 600}, nil)
	hold("DELETE", "/api/users/tester", token, nil, nil)
	hold("POST", "/api/logout", token, nil, nil)
	hold("POST", "/auth/logout", "", map[string]any{"refresh_token": admin.RefreshToken}, nil)
	hold("POST", "/api/logout", "", nil, nil)
	hold("POST", "/api/logout", "", map[string]any{"refresh_token": "none"}, nil)

	w.node.Drain() // the stream ends as soon as it has begun
	hold("GET", "/api/revocations", "", nil, http.Header{"Accept": {"text/event-stream"}, "Last-Event-Id": {"x:1"}})
	hold("GET", "/readyz", "", nil, nil)
	if err := w.node.parts.DB.Close(); err != nil {
		t.Fatal(err)
	}
	hold("GET", "/health", "", nil, nil)
	for _, one := range []string{"GET /readyz 503", "GET /health 503", "GET /api/pkeys 304", "GET /api/pkeys/{kid}.pem 200", "GET /api/pkeys/{kid}.pem 304", "GET /api/pkeys/{kid}.pem 404", "GET /api/revocations 200", "GET /api/revocations 400", "POST /api/groups 415", "POST /api/revocations 200",
		"POST /auth/logout 204", "POST /api/logout 401",
		"PUT /api/me/password 200", "PUT /api/me/password 401",
		"POST /api/login 401", "POST /api/login/mfa 200", "POST /api/login/mfa/options 200", "POST /api/login/mfa/enrol 422", "POST /api/login/passkey 200", "POST /api/login/passkey/options 200",
		"POST /api/login/step-up 200", "POST /api/login/step-up/options 200", "POST /api/mfa/backup-codes 200", "POST /api/mfa/backup-codes/confirm 200",
		"GET /api/mfa 200", "GET /api/mfa 401", "POST /api/mfa/passkeys 200", "POST /api/mfa/totp 200", "DELETE /api/mfa/backup-codes 204", "DELETE /api/mfa/totp 200",
		"GET /api/users/{id}/factors 200", "DELETE /api/users/{id}/factors 404", "POST /api/users/{id}/recovery 201"} {
		if !held[one] {
			t.Errorf("%s was not seen", one)
		}
	}
}

// slowBody never comes.
type slowBody struct{}

func (slowBody) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// enrolled makes a user with an authenticator app, whose code of now is not spent, and a
// passkey, and returns the secret, the passkey, and a token.
func (w *world) enrolled(name string) (secret string, key *passkeytest.Authenticator, token string) {
	w.t.Helper()
	w.user(name)
	token = w.login(name).AccessToken
	secret = decode[httpapi.Enrolment](w.t, w.want(w.do("POST", "/api/mfa/totp", token, nil), 200, "")).Secret
	code := mfatest.Code(w.t, secret, time.Now().Add(-mfatest.Step))
	token = decode[httpapi.Grant](w.t, w.want(w.do("POST", "/api/mfa/totp/confirm", token, httpapi.Code{Code: code}), 200, "")).AccessToken
	key = &passkeytest.Authenticator{Origin: issuer, Verifies: true}
	made, err := key.Create(w.want(w.do("POST", "/api/mfa/passkeys", token, nil), 200, "").body)
	if err != nil {
		w.t.Fatal(err)
	}
	a := w.want(w.do("POST", "/api/mfa/passkeys/confirm", token, httpapi.NewPasskey{Credential: made}), 200, "")
	return secret, key, decode[httpapi.Grant](w.t, a).AccessToken
}

// Every operation lists exactly the errors that it answers: it is provoked to all of
// them, by everything that can be wrong with a request.
func TestOpenAPIListsEveryError(t *testing.T) {
	own := &held{Store: memstate.New(time.Now), free: make(chan struct{})}
	w := newWorldOn(t, own, func(cfg *config.Config) { cfg.Server.MaxRequestsPerAddress = 1 })
	d := decode[description](t, w.want(w.do("GET", "/openapi.json", "", nil), 200, ""))
	w.user("tester", "log=r")
	w.user("large")
	large := w.login("large")
	w.overload("large")
	secret, key, larger := w.enrolled("larger")
	group, err := w.node.parts.Store.GroupByName(t.Context(), "of large")
	if err == nil {
		err = w.node.parts.Store.AddMember(t.Context(), w.verify(larger)["sub"].(string), group.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	passkey := func() string {
		made, err := key.Get(w.want(w.do("POST", "/api/login/passkey/options", "", nil), 200, "").body)
		if err != nil {
			t.Fatal(err)
		}
		return string(made)
	}
	assertion := passkey()
	admin := w.login("admin").AccessToken
	w.want(w.do("POST", "/api/groups", admin, httpapi.NewGroup{Name: "taken"}), 201, "")
	w.want(w.do("POST", "/api/claims", admin, httpapi.NewClaim{Name: "taken", ShortName: "x", Value: "x"}), 201, "")
	node := w.node.Handler()
	seen := map[string]bool{} // of an operation and a status
	var method, pattern string
	check := func(path string, rec *httptest.ResponseRecorder) int {
		t.Helper()
		got := rec.Result()
		seen[fmt.Sprint(method, " ", pattern, " ", got.StatusCode)] = true
		response, ok := d.Paths[pattern][strings.ToLower(method)].Responses[fmt.Sprint(got.StatusCode)]
		if !ok {
			t.Errorf("%s %s answers %d, which is not listed: %s", method, path, got.StatusCode, rec.Body)
		}
		kind, _, _ := mime.ParseMediaType(got.Header.Get("Content-Type"))
		if _, ok := response.Content[kind]; got.StatusCode >= 400 && !ok {
			t.Errorf("%s %s: %d comes as %q, listed are %v", method, path, got.StatusCode, kind, response.Content)
		}
		for _, name := range []string{"Retry-After", "WWW-Authenticate"} {
			if _, listed := response.Headers[name]; listed != (got.Header.Get(name) != "") {
				t.Errorf("%s %s: %d has %s: %q, but listed is %v", method, path, got.StatusCode, name, got.Header.Get(name), listed)
			}
		}
		for _, name := range []string{"RateLimit", "RateLimit-Policy"} { // not there if nothing was counted
			if _, listed := response.Headers[name]; !listed && got.Header.Get(name) != "" {
				t.Errorf("%s %s: %d has %s, which is not listed", method, path, got.StatusCode, name)
			}
		}
		return got.StatusCode
	}
	hold := func(h http.Handler, path, token string, body io.Reader, change func(r *http.Request)) int {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, path, body)
		r.Header.Set("Content-Type", "application/json")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		if change != nil {
			change(r)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return check(path, rec)
	}
	bodies := []string{
		"", "{", "{}", `{"nonsense":1}`, `{"username":"large","password":"wrong password"}`, `{"username":"large","password":"` + password + `"}`,
		`{"username":"x","groups":["none"]}`, `{"refresh_token":"none"}`, `{"refresh_token":"` + large.RefreshToken + `"}`,
		`{"name":"taken"}`, `{"name":"x","claims":["none"]}`, `{"name":"taken","short_name":"log","value":"r"}`,
		`{"kid":"none"}`, `{"user":"none"}`, `{"group":"none"}`, `{"claim":"none"}`, `{"disabled":true}`,
		`{"current_password":"wrong password","new_password":"another password"}`,
		`{"mfa_token":"none"}`, `{"mfa_token":"none","method":"totp"}`, `{"mfa_token":"none","method":"totp","code":"000000"}`, `{"recovery_token":"none","new_password":"another password"}`,
		`{"credential":` + assertion + `}`, `{"method":"passkey","credential":` + assertion + `}`,
	}
	for path, operations := range d.Paths {
		for m, op := range operations {
			method, pattern = strings.ToUpper(m), path
			hold(startingHandler(nil), path, "", nil, nil)
			hold(node, path, "", nil, nil)
			hold(node, path, "none", nil, func(r *http.Request) { r.Header.Add("Authorization", "Bearer none") })
			admin, tester := w.login("admin").AccessToken, w.login("tester").AccessToken
			ids := []string{"none", "admin", "Administrators", "Superuser"}
			if !strings.Contains(path, "{id}") {
				ids = ids[:1]
			}
			for _, id := range ids {
				at := strings.NewReplacer("{id}", id, "{group}", "none", "{claim}", "none").Replace(path)
				for _, token := range []string{tester, admin} {
					hold(node, at+"?nonsense=1", token, nil, nil)
					hold(node, at+"?limit=-1&wait=x&after=x", token, nil, nil)
					if method == http.MethodDelete && path == "/api/users/{id}/sessions" && id == "admin" && token == admin {
						continue // it would end all that the others need
					}
					if op.RequestBody == nil {
						hold(node, at, token, nil, nil)
						continue
					}
					for _, body := range bodies {
						if strings.HasSuffix(path, "/logout") && strings.Contains(body, large.RefreshToken) {
							continue // it would end the session that a renewal needs
						}
						hold(node, at, token, strings.NewReader(body), nil)
					}
					hold(node, at, token, slowBody{}, nil)
					hold(node, at, token, strings.NewReader(strings.Repeat(" ", httpkit.MaxBody+1)), nil)
					// A client that announces its length is not asked for the body.
					if got := hold(node, at, token, slowBody{}, func(r *http.Request) { r.ContentLength = httpkit.MaxBody + 1 }); got != 413 {
						t.Errorf("%s %s: %d to a body that says that it is too large", method, at, got)
					}
					hold(node, at, token, strings.NewReader("{}"), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
				}
			}
		}
	}
	for _, asked := range []string{"/api/pkeys", "/.well-known/jwks.json", "/api/revocations"} { // by a peer that there cannot be
		method, pattern = "GET", asked
		hold(node, asked+"?local=true", "", nil, func(r *http.Request) { r.Header.Set("Watchword-Nonce", "0123456789abcdef") })
	}
	// What is answered to those who have factors.
	tokenOf := func() string {
		return decode[httpapi.LoginRefusal](t, w.want(w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "larger", Password: password}), 401, "mfa_required")).MFAToken
	}
	for _, c := range []struct {
		path, token, body string
		status            int
	}{
		{"/api/login/mfa", "", `{"mfa_token":"` + tokenOf() + `","method":"passkey","credential":` + assertion + `}`, 409},
		{"/api/login/mfa", "", `{"mfa_token":"` + tokenOf() + `","method":"totp","code":"` + mfatest.Code(t, secret, time.Now()) + `"}`, 403},
		{"/api/login/passkey", "", `{"credential":` + passkey() + `}`, 403},
		{"/api/login/step-up", larger, `{"method":"passkey","credential":` + assertion + `}`, 409},
		{"/api/login/step-up", larger, `{"method":"password","password":"` + password + `"}`, 403},
		{"/api/mfa/totp", larger, "", 409},
	} {
		method, pattern = "POST", c.path
		if got := hold(node, pattern, c.token, strings.NewReader(c.body), nil); got != c.status {
			t.Errorf("%s: %d, want %d", c.path, got, c.status)
		}
	}

	method, pattern = "POST", "/api/renew"
	grant := w.login("tester")
	for range 100 {
		a := w.do(method, pattern, "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken})
		if a.status != 200 {
			break
		}
		grant = decode[httpapi.Grant](t, a)
	}
	hold(node, pattern, "", strings.NewReader(`{"refresh_token":"`+grant.RefreshToken+`"}`), nil)

	// One request of an address is under way, and no other may be.
	slow := w.user("slow")
	slowToken := w.login("slow").AccessToken
	own.owner.Store(&slow)
	var flood sync.WaitGroup
	flood.Go(func() {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/api/sessions", nil)
		r.Header.Set("Authorization", "Bearer "+slowToken)
		node.ServeHTTP(httptest.NewRecorder(), r)
	})
	w.await("the slow request", func() bool { return own.inside.Load() == 1 })
	refused := map[[2]string]*httptest.ResponseRecorder{}
	var others sync.WaitGroup
	for path, operations := range d.Paths {
		for m, op := range operations {
			if _, listed := op.Responses["429"]; listed && path != "/api/login" && path != "/api/verify" { // they have bounds of their own
				rec := httptest.NewRecorder()
				refused[[2]string{strings.ToUpper(m), path}] = rec
				others.Go(func() {
					node.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), strings.ToUpper(m), strings.NewReplacer("{", "", "}", "").Replace(path), nil))
				})
			}
		}
	}
	others.Wait()
	close(own.free)
	flood.Wait()
	for operation, rec := range refused {
		method, pattern = operation[0], operation[1]
		if got := check(pattern, rec); got != 429 {
			t.Errorf("%s %s answers %d while another request of the address is under way", method, pattern, got)
		}
	}

	for path, operations := range d.Paths {
		for m, op := range operations {
			for status := range op.Responses {
				one := strings.ToUpper(m) + " " + path + " " + status
				switch {
				case status < "400" || status == "500", seen[one]:
				case status == "409" && (strings.Count(path, "/") > 3 || path == "/api/me/password" || path == "/api/login/recover" || m == "delete"): // changed_meanwhile: of two at once
				case status == "409" && strings.Contains(path, "passkey"): // where there are none: TestWithoutPasskeys
				case one == "POST /api/login 429": // of floods: TestAFloodOfLogins
				case path == "/api/verify" && status == "429": // while its class is counted: TestEveryCredentialIsCounted
				case slices.Contains([]string{
					"GET /api/pkeys 400", "GET /api/pkeys 403", "GET /.well-known/jwks.json 400", "GET /.well-known/jwks.json 403",
					"GET /api/revocations 403", "POST /api/cluster/verify 403", "POST /api/cluster/examine 403",
				}, one): // to peers: TestMutualTLS
				case one == "GET /api/revocations 409": // with a long log: TestFeedStreamBeginsNearTheHead
				default:
					t.Errorf("%s is listed, but nothing was answered so", one)
				}
			}
		}
	}
}
