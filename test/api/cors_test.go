package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

const page = "https://app.example.com"

// forPages are the calls that a page of a named origin may make.
var forPages = []struct{ method, path string }{
	{"POST", "/api/login"}, {"POST", "/api/login/mfa"}, {"POST", "/api/login/mfa/options"}, {"POST", "/api/login/mfa/enrol"},
	{"POST", "/api/login/passkey"}, {"POST", "/api/login/passkey/options"}, {"POST", "/api/login/recover"},
	{"POST", "/api/login/step-up"}, {"POST", "/api/login/step-up/options"}, {"POST", "/api/renew"}, {"POST", "/api/logout"}, {"POST", "/auth/logout"},
	{"GET", "/api/pkeys"}, {"GET", "/.well-known/jwks.json"}, {"GET", "/api/revocations"}, {"GET", "/.well-known/oauth-authorization-server"},
}

// from sends a request as the browser does for a page.
func from(w *replica.World, origin, method, path, token string, body any, header ...string) kit.Answer {
	w.T.Helper()
	r := w.Request(method, path, token, body)
	r.Header.Set("Origin", origin)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return w.Send(r)
}

// preflight asks whether a page may send a request with a token.
func preflight(w *replica.World, origin, method, path string) kit.Answer {
	w.T.Helper()
	return from(w, origin, "OPTIONS", path, "", nil, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", "authorization,content-type")
}

// shown reports whether the browser shows the answer to the page.
func shown(a kit.Answer) bool {
	return a.Header.Get("Access-Control-Allow-Origin") == page && a.Header.Get("Access-Control-Allow-Credentials") == "true" &&
		slices.Contains(a.Header.Values("Vary"), "Origin")
}

// hidden reports whether nothing of an answer is for pages.
func hidden(a kit.Answer) bool {
	for name := range a.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			return false
		}
	}
	return true
}

// A page of a named origin logs in, renews and logs out, reads keys and revocations, and
// sees the errors.
func TestPagesOfANamedOrigin(t *testing.T) {
	w := replica.New(t, func(cfg *config.Config) { cfg.Server.CORSOrigins = []string{"http://localhost:5173", page} })
	for _, one := range forPages {
		a := w.Want(preflight(w, page, one.method, one.path), 204, "")
		allowed := strings.ToLower(a.Header.Get("Access-Control-Allow-Headers"))
		if !shown(a) || !slices.Contains(strings.Split(a.Header.Get("Access-Control-Allow-Methods"), ", "), one.method) ||
			!strings.Contains(allowed, "authorization") || !strings.Contains(allowed, "content-type") || a.Header.Get("Access-Control-Max-Age") == "" {
			t.Errorf("preflight of %s %s: %v", one.method, one.path, a.Header)
		}
		if a := preflight(w, "https://other.example", one.method, one.path); a.Status != 405 || !hidden(a) {
			t.Errorf("preflight of %s %s for another origin: %d %v", one.method, one.path, a.Status, a.Header)
		}
		if a := preflight(w, page, "DELETE", one.path); a.Status != 405 || !hidden(a) {
			t.Errorf("preflight of DELETE %s: %d %v", one.path, a.Status, a.Header)
		}
	}

	seen := func(a kit.Answer, status int, code string) kit.Answer {
		t.Helper()
		if w.Want(a, status, code); !shown(a) {
			t.Errorf("a page is not shown %d %s: %v", status, code, a.Header)
		}
		return a
	}
	in := httpapi.LoginRequest{Username: "admin", Password: kit.Password}
	grant := kit.Decode[httpapi.Grant](t, seen(from(w, page, "POST", "/api/login", "", in), 200, ""))
	seen(from(w, page, "POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: "wrong"}), 401, "invalid_credentials")
	seen(from(w, page, "POST", "/api/login", "", "{"), 400, "malformed_json")
	grant = kit.Decode[httpapi.Grant](t, seen(from(w, page, "POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, ""))
	seen(from(w, page, "POST", "/api/logout", grant.AccessToken, nil), 204, "")
	seen(from(w, page, "POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 401, "invalid_refresh_token")
	keys := seen(from(w, page, "GET", "/.well-known/jwks.json", "", nil), 200, "")
	seen(from(w, page, "GET", "/api/pkeys", "", nil, "If-None-Match", keys.Header.Get("ETag")), 304, "")
	seen(from(w, page, "GET", "/api/revocations?after=0", "", nil), 200, "")
	seen(from(w, page, "GET", "/api/revocations?after=x", "", nil), 400, "invalid_after")

	// What a cache has for one origin, or for none, is not for another.
	for _, origin := range []string{"https://other.example", "null"} {
		a := w.Want(from(w, origin, "GET", "/api/pkeys", "", nil), 200, "")
		if !hidden(a) || !slices.Contains(a.Header.Values("Vary"), "Origin") {
			t.Errorf("the keys for %s: %v", origin, a.Header)
		}
	}
	if a := w.Do("GET", "/api/pkeys", "", nil); !slices.Contains(a.Header.Values("Vary"), "Origin") {
		t.Errorf("the keys for no page: %v", a.Header)
	}

	// All else is not for pages of other origins.
	admin := w.Login("admin").AccessToken
	for _, one := range []struct{ method, path string }{
		{"POST", "/api/revocations"}, {"GET", "/api/users"}, {"POST", "/api/users"}, {"GET", "/api/sessions"}, {"PUT", "/api/me/password"},
		{"GET", "/api/verify"}, {"OPTIONS", "/api/verify"}, {"GET", "/metrics"}, {"GET", "/nothing"}, {"POST", "/api/login/"},
		{"GET", "/api/mfa"}, {"POST", "/api/mfa/totp"}, {"POST", "/api/mfa/passkeys"},
	} {
		if a := preflight(w, page, one.method, one.path); a.Status < 400 || !hidden(a) {
			t.Errorf("preflight of %s %s: %d %v", one.method, one.path, a.Status, a.Header)
		}
		if a := from(w, page, one.method, one.path, admin, nil); !hidden(a) {
			t.Errorf("%s %s: %v", one.method, one.path, a.Header)
		}
	}

	// A stream is opened without a preflight.
	r := w.Request("GET", "/api/revocations", "", nil)
	r.Header = http.Header{"Origin": {page}, "Accept": {"text/event-stream"}}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if a := (kit.Answer{Status: res.StatusCode, Header: res.Header}); a.Status != 200 || !shown(a) {
		t.Errorf("an event stream: %s %v", res.Status, res.Header)
	}
}

// Where no origin is named, nothing is for pages of other origins.
func TestNoOriginIsNamed(t *testing.T) {
	w := replica.New(t, nil)
	for _, one := range forPages {
		if a := preflight(w, page, one.method, one.path); a.Status != 405 || !hidden(a) {
			t.Errorf("preflight of %s %s: %d %v", one.method, one.path, a.Status, a.Header)
		}
		if a := from(w, page, one.method, one.path, "", nil); !hidden(a) {
			t.Errorf("%s %s: %v", one.method, one.path, a.Header)
		}
	}
}
