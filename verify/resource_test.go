package verify_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// Each challenge says where the metadata are, whatever the URL of the resource looks like, and
// there a client finds them.
func TestTheMetadataOfAResource(t *testing.T) {
	issuer := verifytest.New(t)
	for resource, want := range map[string]struct{ path, at string }{
		"https://ships.example":                {"/.well-known/oauth-protected-resource", "https://ships.example/.well-known/oauth-protected-resource"},
		"https://ships.example/":               {"/.well-known/oauth-protected-resource", "https://ships.example/.well-known/oauth-protected-resource"},
		"https://ships.example/api":            {"/.well-known/oauth-protected-resource/api", "https://ships.example/.well-known/oauth-protected-resource/api"},
		"https://ships.example/api/":           {"/.well-known/oauth-protected-resource/api/", "https://ships.example/.well-known/oauth-protected-resource/api/"},
		"https://ships.example:8443/api/v1":    {"/.well-known/oauth-protected-resource/api/v1", "https://ships.example:8443/.well-known/oauth-protected-resource/api/v1"},
		"https://ships.example/api?tenant=1":   {"/.well-known/oauth-protected-resource/api", "https://ships.example/.well-known/oauth-protected-resource/api?tenant=1"},
		"https://ships.example?tenant=1&x=%22": {"/.well-known/oauth-protected-resource", "https://ships.example/.well-known/oauth-protected-resource?tenant=1&x=%22"},
		"https://ships.example/?tenant=1":      {"/.well-known/oauth-protected-resource", "https://ships.example/.well-known/oauth-protected-resource?tenant=1"},
		"https://ships.example/a%20b/%7Bc%7D":  {"/.well-known/oauth-protected-resource/a%20b/%7Bc%7D", "https://ships.example/.well-known/oauth-protected-resource/a%20b/%7Bc%7D"},
		"https://[2001:db8::1]/api":            {"/.well-known/oauth-protected-resource/api", "https://[2001:db8::1]/.well-known/oauth-protected-resource/api"},
		"http://localhost:8000/api":            {"/.well-known/oauth-protected-resource/api", "http://localhost:8000/.well-known/oauth-protected-resource/api"},
	} {
		cfg := issuer.Config()
		cfg.Resource, cfg.WithoutRevocations = resource, true
		v, err := verify.New(cfg)
		if err != nil {
			t.Errorf("%s: %v", resource, err)
			continue
		}
		if got := verify.MetadataPath(resource); got != want.path {
			t.Errorf("%s: the path is %q, want %q", resource, got, want.path)
		}
		challenge := guarded(v, "").Header().Get("WWW-Authenticate")
		if wanted := `Bearer realm="` + issuer.URL + `", resource_metadata="` + want.at + `"`; challenge != wanted {
			t.Errorf("%s: the challenge is %q, want %q", resource, challenge, wanted)
		}
		mux := http.NewServeMux()
		mux.Handle("GET "+verify.MetadataPath(resource), v.Metadata())
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", want.at, nil))
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || got["resource"] != resource || len(got) != 3 {
			t.Errorf("%s: %d %s, %v", resource, w.Code, w.Body, err)
		}
		v.Close()
	}
}

// What the RFC does not allow as a resource, or cannot stand in a header, is refused.
func TestResourcesThatAreRefused(t *testing.T) {
	for resource, fault := range map[string]string{
		"ships.example":                       "is not an https URL",
		"/api":                                "is not an https URL",
		"http://ships.example":                "is not an https URL",
		"urn:ships":                           "is not an https URL",
		"https:ships.example":                 "is not an https URL",
		"https://":                            "is not an https URL",
		"https://:443/":                       "is not an https URL",
		"https://ships.example/%zz":           "is not an https URL",
		"https://ships.example/\r\nX-Evil: 1": "is not an https URL",
		"https://user:word@ships.example":     "names a user",
		"https://ships.example/#top":          "has a fragment",
		"https://ships.example/#":             "has a fragment",
		"https://ships.example/api?":          "has an empty query",
		`https://ships.example/a"b`:           "has characters that have to be percent-encoded",
		`https://ships.example/?a"b`:          "has characters that have to be percent-encoded",
		`https://ships.example/a\b`:           "has characters that have to be percent-encoded",
		"https://ships.example/a b":           "has characters that have to be percent-encoded",
		"https://ships.example/é":             "has characters that have to be percent-encoded",
		"https://%C3%A9.example/":             "has a host with percent-encoding, or with a zone",
		"https://[fe80::1%25eth0]/":           "has a host with percent-encoding, or with a zone",
		"https://[fe80::1%25a%22b]/":          "has a host with percent-encoding, or with a zone",
		"https://ships.example//":             "has a path with segments that are empty, . or ..",
		"https://ships.example/a//b":          "has a path with segments that are empty, . or ..",
		"https://ships.example/a/../b":        "has a path with segments that are empty, . or ..",
		"https://ships.example/a/%2e%2e/b":    "has a path with segments that are empty, . or ..",
		"https://ships.example/./":            "has a path with segments that are empty, . or ..",
	} {
		v, err := verify.New(verify.Config{Issuer: "https://auth.example", Resource: resource})
		if err == nil {
			v.Close()
		}
		if err == nil || !strings.HasSuffix(err.Error(), ") "+fault) {
			t.Errorf("%q: %v, want %q", resource, err, fault)
		}
		if got := verify.MetadataPath(resource); got != "" {
			t.Errorf("%q: the path is %q", resource, got)
		}
	}
	for name, cfg := range map[string]verify.Config{
		"a name without a resource":  {ResourceName: "Ships"},
		"scopes without a resource":  {ScopesSupported: []string{"read"}},
		"scopes that are no scopes":  {Resource: "https://ships.example", ScopesSupported: []string{"read write"}},
		"an empty one of the scopes": {Resource: "https://ships.example", ScopesSupported: []string{""}},
	} {
		cfg.Issuer = "https://auth.example"
		if v, err := verify.New(cfg); err == nil {
			v.Close()
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestAllOfTheMetadata(t *testing.T) {
	issuer := verifytest.New(t)
	cfg := issuer.Config()
	cfg.Resource, cfg.ResourceName, cfg.ScopesSupported = "https://ships.example/api", `Ships "<&>" ⚓`, []string{"read", "write"}
	v, err := verify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	cfg.ScopesSupported[0] = "changed"
	server := httptest.NewServer(v.Metadata())
	defer server.Close()
	res, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	h := res.Header
	if res.StatusCode != 200 || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("%s, %v", res.Status, h)
	}
	body, err := io.ReadAll(res.Body)
	var got struct {
		Resource             string
		AuthorizationServers []string `json:"authorization_servers"`
		Scopes               []string `json:"scopes_supported"`
		Methods              []string `json:"bearer_methods_supported"`
		Name                 string   `json:"resource_name"`
	}
	if err != nil || json.Unmarshal(body, &got) != nil || got.Resource != cfg.Resource || got.Name != cfg.ResourceName ||
		!slices.Equal(got.AuthorizationServers, []string{issuer.URL}) || !slices.Equal(got.Scopes, []string{"read", "write"}) || !slices.Equal(got.Methods, []string{"header"}) {
		t.Errorf("%s, %v", body, err)
	}

	cfg.Resource, cfg.ResourceName, cfg.ScopesSupported = "", "", nil
	without, err := verify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer without.Close()
	w := httptest.NewRecorder()
	without.Metadata().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 404 {
		t.Errorf("without a resource: %d %s", w.Code, w.Body)
	}
	if got := guarded(without, "").Header().Get("WWW-Authenticate"); got != `Bearer realm="`+issuer.URL+`"` {
		t.Errorf("without a resource the challenge is %q", got)
	}
}

// Each answer with a challenge says where the metadata are. A 503 says nothing of the token, and
// has none.
func TestTheMetadataInEveryChallenge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, func(cfg *verify.Config) { cfg.Resource = "https://ships.example/api" })
		token := f.issuer.Token("u", nil)
		const where = `, resource_metadata="https://ships.example/.well-known/oauth-protected-resource/api"`
		begin := `Bearer realm="` + f.issuer.URL + `"`
		for _, c := range []struct {
			token     string
			required  verify.Condition
			status    int
			challenge string
		}{
			{"", verify.FailClosed, 401, begin + where},
			{token + "x", verify.FailClosed, 401, begin + `, error="invalid_token", error_description="token_malformed"` + where},
			{token, verify.Claim("ship", "acc"), 403, begin + `, error="insufficient_scope", error_description="forbidden"` + where},
			{token, verify.Scope("read"), 403, begin + `, error="insufficient_scope", error_description="forbidden", scope="read"` + where},
			{token, verify.FreshAuth(time.Minute), 401, begin + `, error="insufficient_user_authentication", error_description="reauthentication_required", max_age="60"` + where},
		} {
			if w := guarded(v, c.token, c.required); w.Code != c.status || w.Header().Get("WWW-Authenticate") != c.challenge {
				t.Errorf("%.8q, required %v: %d, %q, want %d, %q", c.token, c.required, w.Code, w.Header().Get("WWW-Authenticate"), c.status, c.challenge)
			}
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{"Bearer " + token, "Bearer " + token}
		w := httptest.NewRecorder()
		v.Require(http.NotFoundHandler()).ServeHTTP(w, r)
		if got := w.Header().Get("WWW-Authenticate"); w.Code != 400 || got != begin+`, error="invalid_request", error_description="invalid_request"`+where {
			t.Errorf("two tokens: %d, %q", w.Code, got)
		}
		f.cut(fail)
		time.Sleep(verify.DefaultMaxStaleness + time.Second)
		if w := guarded(v, token); w.Code != 503 || w.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("stale: %d, %v", w.Code, w.Header())
		}
	})
}
