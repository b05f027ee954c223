package app

import (
	"net/http"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
)

// While the keeper of the signing keys signs nothing, whatever issues a token is 503
// signer_unavailable, with Retry-After, and nothing of the cause. Tokens that are out verify, and the
// same refresh token is good when the keeper is back.
func TestKeeperAway(t *testing.T) {
	t.Parallel()
	signer := newSigner(t)
	w := newWorld(t, signer.use)
	grant := w.login("admin")
	signer.away.Store(true)
	credentials := map[string]string{"username": "admin", "password": password}
	for _, tt := range []struct {
		method, path, token string
		body                any
	}{
		{"POST", "/api/login", "", credentials},
		{"POST", "/api/renew", "", map[string]string{"refresh_token": grant.RefreshToken}},
	} {
		a := w.want(w.do(tt.method, tt.path, tt.token, tt.body), 503, "signer_unavailable")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: there is no Retry-After", tt.path)
		}
		if text := string(a.body); strings.Contains(text, signer.URL) || strings.Contains(text, "500") || strings.Contains(text, "canary") {
			t.Errorf("%s: the answer has the cause: %s", tt.path, text)
		}
	}
	w.verify(grant.AccessToken)
	w.want(w.do("GET", "/api/pkeys", "", nil), 200, "")
	d := decode[description](t, w.want(w.do("GET", "/openapi.json", "", nil), 200, ""))
	for _, path := range []string{"/api/login", "/api/renew", "/api/me/password"} {
		for method, o := range d.Paths[path] {
			if _, ok := o.Responses["503"]; !ok {
				t.Errorf("%s %s does not list 503", method, path)
			}
		}
	}

	signer.away.Store(false)
	_, renewed := w.renew(grant.RefreshToken)
	w.want(renewed, 200, "")
	w.login("admin")
}

// With a signing secret alone, the key sets are empty and no error: verifiers that fetch them go on.
// Its tokens verify at the replica, with the headers for proxies, and under the algorithm of their
// key alone.
func TestSecretOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(cfg *config.Config) { cfg.Tokens.Keys, cfg.Tokens.Secret = config.KeysSecret, signingSecret })
	for _, path := range []string{"/api/pkeys", "/api/pkeys?local=true", "/.well-known/jwks.json"} {
		for _, method := range []string{"GET", "HEAD"} {
			a := w.want(w.do(method, path, "", nil), 200, "")
			want := `{"keys":[]}`
			if method == "HEAD" {
				want = ""
			}
			if got := strings.TrimSpace(string(a.body)); got != want {
				t.Errorf("%s %s: %s", method, path, got)
			}
			etag := a.header.Get("ETag")
			if etag == "" || a.header.Get("Content-Length") != "11" || !strings.HasPrefix(a.header.Get("Cache-Control"), "public, max-age=") || a.header.Get("Content-Type") != "application/jwk-set+json" {
				t.Errorf("%s %s: %v", method, path, a.header)
			}
			r := w.request(method, path, "", nil)
			r.Header.Set("If-None-Match", etag)
			w.want(w.send(r), 304, "")
		}
	}

	grant := w.login("admin")
	for _, method := range []string{"GET", "POST", "HEAD"} {
		a := w.want(w.do(method, "/api/verify", grant.AccessToken, nil), 200, "")
		for _, name := range []string{"X-Auth-Subject", "X-Auth-Session", "X-Auth-Expires", "X-Auth-Methods", "X-Auth-Username"} {
			if a.header.Get(name) == "" {
				t.Errorf("%s: there is no %s: %v", method, name, a.header)
			}
		}
		if got := a.header.Get("X-Auth-Username"); got != "admin" {
			t.Errorf("X-Auth-Username is %q", got)
		}
	}
	if got := kidOf(t, grant.AccessToken); len(got) != 22 {
		t.Errorf("the kid is %q", got)
	}
	changed := grant.AccessToken[:len(grant.AccessToken)-6] + "AAAAAA"
	a := w.want(w.do("GET", "/api/verify", changed, nil), http.StatusUnauthorized, "invalid_token")
	if a.header.Get("X-Auth-Subject") != "" || a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("a token that was changed: %v", a.header)
	}
}
