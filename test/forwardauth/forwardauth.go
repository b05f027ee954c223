// Package forwardauth holds a reverse proxy that asks Watchword before it lets a
// request pass (nginx auth_request, Caddy forward_auth…) to what an application
// behind it relies on: nobody comes through without a good token, and whatever the
// application reads of X-Auth-* headers comes from Watchword and not from the client.
package forwardauth

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/test/node"
)

// Run starts a replica and an application, has start put a proxy before the
// application, and attacks it. Addresses are host:port; start returns the proxy's URL.
func Run(t *testing.T, start func(t *testing.T, auth, app string) (url string)) {
	p := &proxied{node: node.Start(t)}
	app := httptest.NewServer(http.HandlerFunc(p.app))
	t.Cleanup(app.Close)
	p.url = start(t, strings.TrimPrefix(p.node.URL, "http://"), strings.TrimPrefix(app.URL, "http://"))
	p.reached.Store(0)

	t.Run("strangers", p.strangers)
	t.Run("members", p.members)
	t.Run("forged", p.forged)
	t.Run("revoked", p.revoked)
	t.Run("replica away", p.replicaAway) // it does not come back
	if !t.Failed() {
		t.Logf("summary: %d requests without a good token or with forged headers, none believed", p.attacks)
	}
}

type proxied struct {
	node    *node.Node
	url     string
	reached atomic.Int64 // requests that came to the application
	attacks int          // requests that must not be believed
}

// seen is what the application saw of a request.
type seen struct {
	Method, Path, Body string
	Header             http.Header
}

func (p *proxied) app(w http.ResponseWriter, r *http.Request) {
	p.reached.Add(1)
	body, _ := io.ReadAll(r.Body)
	_ = json.NewEncoder(w).Encode(seen{r.Method, r.URL.Path, string(body), r.Header})
}

// ask sends a request, and sends it again while the proxy says that it has waited for
// Watchword in vain, as on a machine that is busy with something else.
func (p *proxied) ask(t *testing.T, method, path, body string, header ...string) (int, seen) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		status, s := p.askOnce(t, method, path, body, header...)
		if status < http.StatusInternalServerError || time.Now().After(deadline) {
			return status, s
		}
	}
}

// askOnce sends a request. Header values are pairs; a name may come twice, and in any
// spelling.
func (p *proxied) askOnce(t *testing.T, method, path, body string, header ...string) (int, seen) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r) // follows no redirect
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var s seen
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode, s
}

func (p *proxied) strangers(t *testing.T) {
	for name, header := range map[string][]string{
		"no token":      nil,
		"an empty one":  {"Authorization", ""},
		"basic":         {"Authorization", "Basic YWRtaW46YWRtaW4="},
		"garbage":       {"Authorization", "Bearer x.y.z"},
		"only claims":   {"X-Auth-Subject", "root", "X-Auth-Claim-Admin", "all"},
		"another path":  {"X-Original-Uri", "/public", "X-Forwarded-Uri", "/public"},
		"another verb":  {"X-Forwarded-Method", "OPTIONS", "X-Http-Method-Override", "OPTIONS"},
		"refused cased": {"authorization", "bearer x"},
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS", "DELETE"} {
			p.attacks++
			if status, _ := p.ask(t, method, "/ships", "", header...); status != http.StatusUnauthorized {
				t.Errorf("%s, %s: %d", method, name, status)
			}
		}
	}
	for _, path := range []string{"/api/verify", "/_watchword", "/../ships", "//ships", "/ships%2f..", "/.well-known/jwks.json"} {
		p.attacks++
		if status, _ := p.askOnce(t, "GET", path, ""); status < 400 {
			t.Errorf("%s: %d", path, status)
		}
	}
	if n := p.reached.Load(); n != 0 {
		t.Errorf("%d requests came to the application", n)
	}
}

func (p *proxied) members(t *testing.T) {
	token := p.node.Login("tester").AccessToken
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		status, got := p.ask(t, method, "/ships/1", "cargo", "Authorization", "Bearer "+token, "Content-Type", "text/plain", "X-Other", "kept")
		if status != http.StatusOK || got.Method != method || got.Path != "/ships/1" || got.Body != "cargo" {
			t.Errorf("%s: %d, %+v", method, status, got)
		}
		p.wantTester(t, got.Header)
		if got.Header.Get("X-Other") != "kept" || got.Header.Get("Content-Type") != "text/plain" {
			t.Errorf("other headers do not arrive: %v", got.Header)
		}
	}
}

// wantTester fails unless the headers say who the tester is, each once, and nothing
// else that an application could take for a word of Watchword's.
func (p *proxied) wantTester(t *testing.T, h http.Header) {
	t.Helper()
	want := map[string]string{
		"x-auth-username": "tester", "x-auth-email": "tester@example.com", "x-auth-name": "Travis Ester",
		"x-auth-claim-ship": "acc", "x-auth-claim-log": "r,w",
	}
	may := map[string]string{ // what a proxy that copies everything copies as well
		"x-auth-claim-preferred-username": "tester", "x-auth-claim-name": "Travis Ester", "x-auth-claim-email": "tester@example.com",
		"x-auth-subject": h.Get("X-Auth-Subject"), "x-auth-session": h.Get("X-Auth-Session"), "x-auth-expires": h.Get("X-Auth-Expires"),
	}
	for name, values := range h {
		// CGI, WSGI and their like cannot tell "_" from "-".
		plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if !strings.HasPrefix(plain, "x-auth-") {
			continue
		}
		wanted, named := want[plain]
		if !named {
			wanted, named = may[plain]
		}
		if !named || plain != strings.ToLower(name) || len(values) != 1 || values[0] != wanted {
			t.Errorf("%s: %q arrives, want %q", name, values, wanted)
		}
		delete(want, plain)
	}
	if len(want) > 0 {
		t.Errorf("these do not arrive: %v, in %v", want, h)
	}
	if subject := h.Get("X-Auth-Subject"); len(subject) != 36 {
		t.Errorf("the subject is %q", subject)
	}
}

func (p *proxied) forged(t *testing.T) {
	bearer := []string{"Authorization", "Bearer " + p.node.Login("tester").AccessToken}
	for name, header := range map[string][]string{
		"identity":         {"X-Auth-Subject", "root", "X-Auth-Username", "root", "X-Auth-Email", "root@example.com", "X-Auth-Name", "Root"},
		"a claim it has":   {"X-Auth-Claim-Ship", "all", "X-Auth-Claim-Log", "admin"},
		"a claim it lacks": {"X-Auth-Claim-Admin", "all"},
		"odd case":         {"x-AUTH-claim-ADMIN", "all", "x-auth-subject", "root"},
		"twice":            {"X-Auth-Subject", "root", "X-Auth-Subject", "root", "X-Auth-Claim-Admin", "all", "X-Auth-Claim-Admin", "all"},
		"underscores":      {"X_Auth_Claim_Admin", "all", "X_Auth_Subject", "root", "X-Auth_Claim-Admin", "all"},
		"hop by hop":       {"Connection", "X-Auth-Subject, X-Auth-Claim-Ship", "X-Auth-Subject", "root"},
		"hop by hop twice": {"Connection", "close", "Connection", "keep-alive,x-auth-claim-ship"},
		"empty":            {"X-Auth-Subject", "", "X-Auth-Claim-Ship", ""},
		"a name's end":     {"X-Auth-Claim-", "all", "X-Auth-", "all", "X-Auth-Claim-Ship-", "all"},
	} {
		t.Run(name, func(t *testing.T) {
			p.attacks++
			status, got := p.ask(t, "GET", "/ships", "", append(header, bearer...)...)
			if status == http.StatusBadRequest {
				return // such a request may be refused as a whole
			}
			if status != http.StatusOK {
				t.Fatalf("answered %d", status)
			}
			p.wantTester(t, got.Header)
		})
	}
}

func (p *proxied) revoked(t *testing.T) {
	token := p.node.Login("tester").AccessToken
	if status, _ := p.ask(t, "GET", "/ships", "", "Authorization", "Bearer "+token); status != http.StatusOK {
		t.Fatalf("before the logout: %d", status)
	}
	p.node.Logout(token)
	if status, _ := p.ask(t, "GET", "/ships", "", "Authorization", "Bearer "+token); status != http.StatusUnauthorized {
		t.Errorf("after the logout: %d", status)
	}
}

func (p *proxied) replicaAway(t *testing.T) {
	token := p.node.Login("tester").AccessToken
	p.node.Stop()
	before := p.reached.Load()
	if status, _ := p.askOnce(t, "GET", "/ships", "", "Authorization", "Bearer "+token); status < 500 {
		t.Errorf("without a replica: %d", status)
	}
	if p.reached.Load() != before {
		t.Error("without a replica, a request came to the application")
	}
}
