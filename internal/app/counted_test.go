package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
)

// takesNone are the routes that need no credential and take none.
var takesNone = []string{
	"GET /api/pkeys", "GET /api/pkeys/{kid}.pem", "GET /.well-known/jwks.json", "GET /api/revocations", "GET /.well-known/oauth-authorization-server",
	"GET /health", "GET /livez", "GET /readyz", "GET /metrics", "GET /openapi.json",
	"POST /api/cluster/verify",        // of a replica, which shows first that it knows the cluster's secret
	"POST /api/cluster/examine",       // the same
	"POST /api/login/passkey/options", // the first request of those that log in by passkey alone
}

// noCredential are members of bodies whose names are like a credential's.
var noCredential = []string{
	"POST /api/users password", "PATCH /api/users/{id} password", "PUT /api/me/password new_password", // it becomes one
	"POST /api/revocations token",    // what the caller, who is counted, wants revoked
	"POST /api/cluster/verify token", // what a replica asks about
	"POST /api/login device_token",   // which counts for nothing without the password that comes with it
	// What the caller, who is counted, has just been given, and shows to have kept.
	"POST /api/mfa/totp/confirm code", "POST /api/mfa/backup-codes/confirm code", "POST /api/mfa/passkeys/confirm credential",
	"POST /api/login/recover new_password", // it becomes one
}

// needed is what the routes of second factors need beside a wrong member of their body.
var needed = map[string]map[string]any{
	"mfa_token": {"method": "totp", "code": "000000"}, "code": {"method": "totp"}, "credential": {"method": "passkey"},
	"password": {"method": "password"}, "recovery_token": {"new_password": "a long enough one"},
}

// likeCredential are the names that credentials have, or may once have.
var likeCredential = regexp.MustCompile(`(?i)password|passphrase|token|secret|code|otp|assertion|challenge|credential|verifier|proof|signature|pin$`)

// A credentialRoute is an operation, and the credentials that it takes.
type credentialRoute struct {
	method, path string
	bearer       bool
	members      []string       // of its body, each a credential
	all          []string       // members of its body
	body         map[string]any // what it needs beside them
}

func (c credentialRoute) String() string { return c.method + " " + c.path }

// credentialRoutes returns every route that takes a credential, as the description has them.
func credentialRoutes(t *testing.T, w *world) (all []credentialRoute) {
	t.Helper()
	d := decode[struct {
		description
		Paths map[string]map[string]struct {
			operation
			Security []map[string][]string
		}
	}](t, w.want(w.do("GET", "/openapi.json", "", nil), 200, ""))
	for path, operations := range d.Paths {
		for method, op := range operations {
			c := credentialRoute{method: strings.ToUpper(method), path: path, bearer: len(op.Security) > 0, body: map[string]any{}}
			for _, p := range op.Parameters {
				if likeCredential.MatchString(p.Name) {
					t.Errorf("%s takes %s in its %s, which this test does not know how to present", c, p.Name, p.In)
				}
			}
			if op.RequestBody != nil {
				if len(op.RequestBody.Content) != 1 || op.RequestBody.Content["application/json"].Schema == nil {
					t.Errorf("%s takes a body that this test does not know how to write", c)
					continue
				}
				s := *op.RequestBody.Content["application/json"].Schema
				if s.Ref != "" {
					s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
				}
				for name := range s.Properties {
					c.all = append(c.all, name)
					switch {
					case likeCredential.MatchString(name) && !slices.Contains(noCredential, c.String()+" "+name):
						c.members = append(c.members, name)
					case slices.Contains(s.Required, name):
						c.body[name] = "nobody, or nothing"
					}
				}
			}
			switch none := slices.Contains(takesNone, c.String()); {
			case c.bearer || len(c.members) > 0:
				if none {
					t.Errorf("%s takes a credential, and is listed as one that takes none", c)
				}
				all = append(all, c)
			case !none:
				t.Errorf("%s takes no credential that this test sees; if it takes none, list it in takesNone", c)
			}
		}
	}
	return all
}

// Whatever takes a password, a refresh token or an access token counts it: by address whatever
// is presented, and by account, too. The routes are those of the description, so that one that
// is added and does not count fails here.
func TestEveryCredentialIsCounted(t *testing.T) {
	const secrets, tokens = 2, 8 // how many attempts are allowed from an address
	perHour := func(n int) config.Limit {
		return config.Limit{PerAddress: config.Rate{Count: n, Per: time.Hour}, PerAccount: config.Rate{Count: max(n, secrets+1), Per: time.Hour}} // one login more
	}
	w := newWorld(t, func(c *config.Config) {
		c.Limits.Login, c.Limits.MFA, c.Limits.Renew = perHour(secrets), perHour(secrets), perHour(secrets)
		c.Limits.API, c.Limits.Admin = perHour(tokens), perHour(tokens)
	})
	node := w.node.Handler()
	clients := 0
	newAddress := func() string { clients++; return fmt.Sprintf("198.18.%d.%d:4711", clients/250, clients%250+1) }
	send := func(address, token string, c credentialRoute, body map[string]any) *http.Response {
		t.Helper()
		text := ""
		if body != nil {
			encoded, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			text = string(encoded)
		}
		path := strings.NewReplacer("{", "", "}", "").Replace(c.path)
		r := httptest.NewRequestWithContext(t.Context(), c.method, path, strings.NewReader(text))
		r.RemoteAddr = address
		r.Header.Set("Content-Type", "application/json")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		rec := httptest.NewRecorder()
		node.ServeHTTP(rec, r)
		return rec.Result()
	}
	// refused holds a refusal to what each must have.
	refused := func(what any, a *http.Response, policy string) {
		t.Helper()
		left := a.Header.Get("RateLimit")
		if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" || !strings.Contains(left, `"`+policy+`";r=0;`) ||
			!strings.Contains(a.Header.Get("RateLimit-Policy"), `"`+policy+`";q=`) {
			t.Errorf("%v: %d, Retry-After %q, RateLimit %q, RateLimit-Policy %q, want a refusal by %s",
				what, a.StatusCode, a.Header.Get("Retry-After"), left, a.Header.Get("RateLimit-Policy"), policy)
		}
	}
	// user makes a user, and logs the user in.
	user := func(name string) (token string) {
		_, err := w.node.parts.Directory.CreateUser(t.Context(), directory.System(), directory.NewUser{Username: name, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		login := credentialRoute{method: "POST", path: "/api/login"}
		a := send(newAddress(), "", login, map[string]any{"username": name, "password": password})
		var grant struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.NewDecoder(a.Body).Decode(&grant); err != nil || grant.AccessToken == "" {
			t.Fatal(a.Status, err)
		}
		return grant.AccessToken
	}

	type answered struct {
		Secret      string
		PublicKey   json.RawMessage
		MFAToken    string `json:"mfa_token"`
		AccessToken string `json:"access_token"`
	}
	post := func(path, token string, body map[string]any) (v answered) {
		t.Helper()
		a := send(newAddress(), token, credentialRoute{method: "POST", path: path}, body)
		if err := json.NewDecoder(a.Body).Decode(&v); err != nil || a.StatusCode >= 400 && v.MFAToken == "" {
			t.Fatal(path, a.Status, v, err)
		}
		return v
	}
	// enrolled makes a user with an authenticator app, and returns a token, an mfa_token, and a
	// code that is wrong.
	enrolled := func(name string) (token, mfaToken, wrong string) {
		token = user(name)
		secret := post("/api/mfa/totp", token, nil).Secret
		token = post("/api/mfa/totp/confirm", token, map[string]any{"code": mfatest.Code(t, secret, time.Now())}).AccessToken
		mfaToken = post("/api/login", "", map[string]any{"username": name, "password": password}).MFAToken
		right := []string{}
		for _, step := range []time.Duration{-2, -1, 0, 1, 2} {
			right = append(right, mfatest.Code(t, secret, time.Now().Add(step*mfatest.Step)))
		}
		for n := 0; wrong == "" || slices.Contains(right, wrong); n++ {
			wrong = fmt.Sprintf("%06d", n)
		}
		return token, mfaToken, wrong
	}
	// asked makes a user with a passkey whom a login and a session ask for it, and returns a token,
	// an mfa_token, and a credential that is wrong: it answers another challenge.
	asked := func(name string) (token, mfaToken string, wrong json.RawMessage) {
		token = user(name)
		key := passkeytest.Authenticator{Origin: issuer}
		wrap := func(v answered) json.RawMessage { return json.RawMessage(`{"publicKey":` + string(v.PublicKey) + `}`) }
		made, err := key.Create(wrap(post("/api/mfa/passkeys", token, nil)))
		if err != nil {
			t.Fatal(err)
		}
		token = post("/api/mfa/passkeys/confirm", token, map[string]any{"credential": made}).AccessToken
		mfaToken = post("/api/login", "", map[string]any{"username": name, "password": password}).MFAToken
		options := wrap(post("/api/login/mfa/options", "", map[string]any{"mfa_token": mfaToken}))
		post("/api/login/step-up/options", token, nil)
		post("/api/login/mfa/options", "", map[string]any{"mfa_token": mfaToken})
		wrong, err = key.Get(options)
		if err != nil {
			t.Fatal(err)
		}
		return token, mfaToken, wrong
	}

	all := credentialRoutes(t, w)
	classes := map[string]int{}
	counted := 0
	for _, c := range all {
		for _, member := range c.members {
			class := map[string]string{"refresh_token": "renew", "mfa_token": "mfa", "code": "mfa", "credential": "mfa"}[member]
			if class == "" {
				class = "login"
			}
			address, token := newAddress(), ""
			body := map[string]any{member: "a wrong one"}
			for name, value := range c.body {
				body[name] = value
			}
			for name, value := range needed[member] {
				if slices.Contains(c.all, name) {
					body[name] = value
				}
			}
			counted++
			name := fmt.Sprint("user", counted)
			var mfaToken string
			switch {
			case member == "code":
				token, mfaToken, body[member] = enrolled(name)
			case member == "credential":
				token, mfaToken, body[member] = asked(name)
			case c.bearer && member != "refresh_token": // the token comes first
				token = user(name)
			}
			if !c.bearer {
				token = ""
			}
			if mfaToken != "" && slices.Contains(c.all, "mfa_token") {
				body["mfa_token"] = mfaToken
			}
			for i := range secrets {
				if a := send(address, token, c, body); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Header.Get("RateLimit"), class+"-address") {
					t.Errorf("%s, attempt %d with a wrong %s: %d, %v", c, i, member, a.StatusCode, a.Header)
				}
			}
			refused(fmt.Sprint(c, ", ", member), send(address, token, c, body), class+"-address")
			classes[class]++
		}
		if !c.bearer {
			continue
		}
		class := classOfRoute(c.String())
		address := newAddress()
		for i := range tokens {
			if a := send(address, "wrong", c, nil); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Header.Get("RateLimit"), class+"-address") {
				t.Errorf("%s, attempt %d with a wrong access token: %d, %v", c, i, a.StatusCode, a.Header)
			}
		}
		refused(c, send(address, "wrong", c, nil), class+"-address")
		classes[class]++
	}

	// From whatever addresses the requests for one account come.
	token := user("spender")
	for i := range tokens {
		for path, status := range map[string]int{"/api/verify": http.StatusOK, "/api/users": http.StatusForbidden} {
			if a := send(newAddress(), token, credentialRoute{method: "GET", path: path}, nil); a.StatusCode != status {
				t.Errorf("%s, %d: %s", path, i, a.Status)
			}
		}
	}
	for _, c := range all {
		if c.bearer {
			refused(c, send(newAddress(), token, c, nil), classOfRoute(c.String())+"-account")
		}
	}
	wrong := map[string]any{"username": "spender", "password": "wrong password"}
	for range secrets {
		send(newAddress(), "", credentialRoute{method: "POST", path: "/api/login"}, wrong)
	}
	refused("login", send(newAddress(), "", credentialRoute{method: "POST", path: "/api/login"}, wrong), "login-account")

	_, mfaToken, wrongCode := enrolled("guessed")
	second := credentialRoute{method: "POST", path: "/api/login/mfa"}
	guess := map[string]any{"mfa_token": mfaToken, "method": "totp", "code": wrongCode}
	for range secrets + 1 {
		if a := send(newAddress(), "", second, guess); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Header.Get("RateLimit"), "mfa-account") {
			t.Errorf("a wrong code: %d, %v", a.StatusCode, a.Header)
		}
	}
	refused("a second step", send(newAddress(), "", second, guess), "mfa-account")

	for class, least := range map[string]int{"login": 4, "mfa": 5, "renew": 3, "api": 20, "admin": 20} {
		if classes[class] < least {
			t.Errorf("%d credentials of class %s are counted", classes[class], class)
		}
	}
	t.Logf("summary: %d routes take credentials, each refuses after its rate: %v", len(all), classes)
}

// classOfRoute returns the class in which the access tokens of a route are counted: admin for
// all that is not for every token, but for what users do with their own password and factors.
func classOfRoute(route string) string {
	if route == "PUT /api/me/password" || strings.Contains(route, " /api/mfa") {
		return "api"
	}
	for _, c := range routes[route] {
		if c.reach == home || c.reach == fresh {
			return "admin"
		}
	}
	return "api"
}
