// Package forwardauth holds a reverse proxy that asks Watchword before it lets a
// request pass (nginx auth_request, Caddy forward_auth…) to what an application
// behind it relies on: nobody comes through without a good token, and whatever the
// application reads of X-Auth-* headers comes from Watchword and not from the client.
package forwardauth

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/test/node"
)

// Run starts a replica and an application, has start put a proxy before the
// application, and attacks it.
func Run(t *testing.T, start Start) {
	p := prepare(t, start)
	t.Run("strangers", p.strangers)
	t.Run("preflights", p.preflights)
	t.Run("members", p.members)
	t.Run("large", func(t *testing.T) { p.large(t, true) })
	t.Run("forged", p.forged)
	t.Run("revoked", p.revoked)
	t.Run("replica away", p.replicaAway) // it does not come back
	if !t.Failed() {
		t.Logf("summary: %d requests without a good token or with forged headers, none believed", p.attacks)
	}
}

// RunTight holds a proxy whose buffers are too small to the one thing that matters then:
// what arrives has the whole identity.
func RunTight(t *testing.T, start Start) {
	prepare(t, start).large(t, false)
}

// RunLimited holds a proxy to what becomes of a client that asks too often: it is refused and
// hears when to try again, whatever it says of its own address, and nothing of it arrives.
func RunLimited(t *testing.T, start Start) {
	const rate = 5
	p := prepare(t, start, func(cfg *watchword.Config) {
		cfg.Limits.API.PerAddress.Count, cfg.Limits.API.PerAddress.Per = rate, time.Hour
		cfg.Server.TrustedProxies = []string{"127.0.0.0/8"}
	})
	token := p.node.Login("tester").AccessToken
	for i := range rate + 3 {
		r, err := http.NewRequestWithContext(t.Context(), "GET", p.url+"/ships", nil)
		if err != nil {
			t.Fatal(err)
		}
		forged := fmt.Sprint("198.51.100.", i)
		r.Header = http.Header{"Authorization": {"Bearer " + token}, "X-Forwarded-For": {forged}, "Forwarded": {"for=" + forged}, "X-Real-Ip": {forged}}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		switch {
		case i < rate && res.StatusCode != http.StatusOK:
			t.Errorf("request %d: %s", i, res.Status)
		case i >= rate && (res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") != "720" && res.Header.Get("Retry-After") != "719"):
			t.Errorf("request %d: %s, %v", i, res.Status, res.Header)
		}
	}
	if n := p.reached.Load(); n != rate {
		t.Errorf("%d requests came to the application", n)
	}
	if status, _ := p.askOnce(t, "GET", "/ships", ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
}

// Start puts a proxy before an application. Addresses are host:port; url is the proxy's.
type Start func(t *testing.T, auth, app string) (url string)

type proxied struct {
	node    *node.Node
	url     string
	reached atomic.Int64 // requests that came to the application
	attacks int          // requests that must not be believed
	carried []carrier
	methods string // the amr of a tester's token
	older   bool   // the proxy's configuration is that of an older release
}

// A carrier is a user with as many bytes of claims as a user may have, or with many claims.
type carrier struct {
	name   string
	claims map[string]string // those that every proxy passes on
	others int               // claims of other names, of which a proxy passes on all or none
}

func prepare(t *testing.T, start Start, change ...func(*watchword.Config)) *proxied {
	p := &proxied{}
	var more people
	for name, letter := range map[string]string{"ascii": "x", "foreign": "語", "marks": `{http.request.host}$host%[src]"`} {
		p.carried = append(p.carried, more.large(name, letter))
	}
	p.carried = append(p.carried, more.many("many"))
	p.node = node.Start(t, append(change, func(cfg *watchword.Config) {
		text, err := os.ReadFile(cfg.Users.InitFile)
		if err == nil {
			err = os.WriteFile(cfg.Users.InitFile, []byte(more.in(string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	})...)
	app := httptest.NewServer(http.HandlerFunc(p.app))
	t.Cleanup(app.Close)
	p.url = start(t, strings.TrimPrefix(p.node.URL, "http://"), strings.TrimPrefix(app.URL, "http://"))
	p.reached.Store(0)
	p.methods = methodsOf(t, p.node.Login("tester").AccessToken)
	return p
}

// people are entries of an init file.
type people struct{ claims, groups, users strings.Builder }

// in returns an init file with the people in it.
func (p *people) in(file string) string {
	return strings.NewReplacer("claims:\n", "claims:\n"+p.claims.String(), "groups:\n", "groups:\n"+p.groups.String(),
		"users:\n", "users:\n"+p.users.String()).Replace(file)
}

// add adds a user with claims, each a name and a value.
func (p *people) add(name string, claims [][2]string) {
	names := make([]string, len(claims))
	for i, c := range claims {
		names[i] = fmt.Sprintf("%s %d", name, i)
		fmt.Fprintf(&p.claims, "  - {name: %s, short_name: %s, value: %q}\n", names[i], c[0], c[1])
	}
	fmt.Fprintf(&p.groups, "  - {name: Of %s, claims: [%s]}\n", name, strings.Join(names, ", "))
	fmt.Fprintf(&p.users, "  - {username: %s, password: %s, email: %[1]s@example.com, first_name: Travis, last_name: Ester, groups: [Of %[1]s]}\n", name, node.Password)
}

// large adds a user with directory.MaxClaims bytes of claims, or a few less where a letter
// takes more than one.
func (p *people) large(name, letter string) carrier {
	const valueBytes = 128 // of a claim
	var values []string
	claims := [][2]string{{"ship", "acc"}}
	for size := len(`{"log":"","ship":"acc"}`) - 1; ; {
		value := fmt.Sprintf("%02d", len(values))
		for jsonSize(value+letter)+1 <= directory.MaxClaims-size && len(value+letter) <= valueBytes {
			value += letter
		}
		if len(value) == 2 {
			break
		}
		values, claims = append(values, value), append(claims, [2]string{"log", value})
		size += jsonSize(value) + 1
	}
	p.add(name, claims)
	return carrier{name, map[string]string{"log": strings.Join(values, ","), "ship": "acc"}, 0}
}

// many adds a user with more claims than some proxies take headers.
func (p *people) many(name string) carrier {
	const others = 110
	claims := [][2]string{{"log", "r"}, {"ship", "acc"}}
	for i := range others {
		claims = append(claims, [2]string{fmt.Sprintf("k%d", i), "v"})
	}
	p.add(name, claims)
	return carrier{name, map[string]string{"log": "r", "ship": "acc"}, others}
}

// jsonSize is how many bytes a text has in a token, without its quotes.
func jsonSize(s string) int {
	text, _ := json.Marshal(s)
	return len(text) - 2
}

// seen is what the application saw of a request.
type seen struct {
	Method, Path, Body string
	Header             http.Header
}

func (p *proxied) app(w http.ResponseWriter, r *http.Request) {
	p.reached.Add(1)
	body, _ := io.ReadAll(r.Body)
	if r.Method == http.MethodOptions { // the application's own answer to a preflight
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Methods", "PUT")
	}
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
	status, s, err := p.tryOnce(t, method, path, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return status, s
}

// tryOnce is askOnce where the proxy may close the connection.
func (p *proxied) tryOnce(t *testing.T, method, path, body string, header ...string) (int, seen, error) {
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
		return 0, seen{}, err
	}
	defer res.Body.Close()
	var s seen
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode, s, nil
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
	// What only looks like a preflight is none.
	for name, header := range map[string][]string{
		"another verb":      {"GET", "Origin", origin, "Access-Control-Request-Method", "PUT"},
		"posted":            {"POST", "Origin", origin, "Access-Control-Request-Method", "PUT"},
		"no origin":         {"OPTIONS", "Access-Control-Request-Method", "PUT"},
		"no method":         {"OPTIONS", "Origin", origin},
		"overridden":        {"OPTIONS", "Origin", origin, "Access-Control-Request-Method", "PUT", "X-HTTP-Method-Override", "DELETE"},
		"overridden oddly":  {"OPTIONS", "Origin", origin, "Access-Control-Request-Method", "PUT", "x-method-override", "DELETE"},
		"overridden as MS":  {"OPTIONS", "Origin", origin, "Access-Control-Request-Method", "PUT", "X-HTTP-Method", "DELETE"},
		"with underscores":  {"OPTIONS", "Origin", origin, "Access_Control_Request_Method", "PUT"},
		"another's options": {"PROPFIND", "Origin", origin, "Access-Control-Request-Method", "OPTIONS"},
		"overriding":        {"GET", "Origin", origin, "Access-Control-Request-Method", "PUT", "X-HTTP-Method-Override", "OPTIONS"},
	} {
		p.attacks++
		if status, _ := p.ask(t, header[0], "/ships", "", header[1:]...); status != http.StatusUnauthorized {
			t.Errorf("not a preflight, %s: %d", name, status)
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

// origin is the page that a browser asks for.
const origin = "https://ships.example"

// A browser asks without a token before it sends a request of another origin. The
// application answers, and learns of nobody.
func (p *proxied) preflights(t *testing.T) {
	for name, header := range map[string][]string{
		"plain":  nil,
		"asking": {"Access-Control-Request-Headers", "authorization,content-type"},
		"forged": {"X-Auth-Subject", "root", "x-auth-claim-admin", "all", "X_Auth_Username", "root", "X-Auth-Claim-Ship", "all"},
		"member": {"Authorization", "Bearer " + p.node.Login("tester").AccessToken},
		"broken": {"Authorization", "Bearer x.y.z"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "OPTIONS", p.url+"/ships/1?crew=2", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Origin": {origin}, "Access-Control-Request-Method": {"PUT"}}
		for i := 0; i < len(header); i += 2 {
			r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK || res.Header.Get("Access-Control-Allow-Origin") != origin || res.Header.Get("Access-Control-Allow-Methods") != "PUT" {
			t.Errorf("%s: %s, %v", name, res.Status, res.Header)
			continue
		}
		var got seen
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Method != "OPTIONS" || got.Path != "/ships/1" || got.Header.Get("Origin") != origin {
			t.Errorf("%s: %+v arrives", name, got)
		}
		for header := range got.Header {
			if strings.HasPrefix(plain(header), "x-auth-") {
				t.Errorf("%s: %s arrives", name, header)
			}
		}
	}
}

// plain is a header's name as CGI, WSGI and their like have it, which cannot tell "_"
// from "-".
func plain(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

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
	p.wantAuthentication(t, h)
	may := map[string]string{ // what a proxy that copies everything copies as well
		"x-auth-time": h.Get("X-Auth-Time"), "x-auth-methods": p.methods,
		"x-auth-subject": h.Get("X-Auth-Subject"), "x-auth-session": h.Get("X-Auth-Session"), "x-auth-expires": h.Get("X-Auth-Expires"),
	}
	for name, values := range h {
		plain := plain(name)
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

// large has users with as many claims as there may be, and cookies. What arrives has the
// whole identity, and all of it arrives if all is set: up to 12 KiB of cookies.
func (p *proxied) large(t *testing.T, all bool) {
	for _, c := range p.carried {
		token := p.node.Login(c.name).AccessToken
		arrived := 0
		for _, kib := range []int{0, 4, 6, 7, 8, 9, 12, 14, 15, 16, 31, 40, 200} {
			header := []string{"Authorization", "Bearer " + token}
			if kib > 0 {
				header = append(header, "Cookie", "c="+strings.Repeat("c", kib<<10-2))
			}
			status, got, err := p.tryOnce(t, "GET", "/ships", "", header...)
			must := all && kib <= 12
			switch {
			case err != nil && !must: // a connection that is closed is an answer, too
			case err != nil:
				t.Errorf("%s, %d KiB of cookies: %v", c.name, kib, err)
			case status == http.StatusOK:
				arrived++
				p.wantClaims(t, got.Header, c)
			case must || status < 400:
				t.Errorf("%s, %d KiB of cookies: %d", c.name, kib, status)
			}
		}
		t.Logf("%s: %d arrived", c.name, arrived)
	}
}

// wantClaims fails unless the headers say all of a carrier's claims.
func (p *proxied) wantClaims(t *testing.T, h http.Header, c carrier) {
	t.Helper()
	want := map[string]string{"X-Auth-Username": c.name, "X-Auth-Email": c.name + "@example.com", "X-Auth-Name": "Travis Ester"}
	for name, value := range c.claims {
		want[http.CanonicalHeaderKey("X-Auth-Claim-"+name)] = value
	}
	for name, value := range want {
		got := h.Values(name)
		if len(got) != 1 {
			t.Errorf("%s: %s arrives %d times", c.name, name, len(got))
			continue
		}
		if decoded, err := url.PathUnescape(got[0]); decoded != value && got[0] != value || err != nil {
			t.Errorf("%s: %s has %d bytes, want %d: %.40q", c.name, name, len(decoded), len(value), decoded)
		}
	}
	others := -len(c.claims)
	for name := range h {
		if strings.HasPrefix(name, "X-Auth-Claim-") {
			others++
		}
	}
	if others != 0 && others != c.others {
		t.Errorf("%s: %d of %d other claims arrive", c.name, others, c.others)
	}
	if len(h.Get("X-Auth-Subject")) != 36 || len(h.Get("X-Auth-Session")) != 36 {
		t.Errorf("%s: the subject is %q, the session %q", c.name, h.Get("X-Auth-Subject"), h.Get("X-Auth-Session"))
	}
}

func (p *proxied) forged(t *testing.T) {
	bearer := []string{"Authorization", "Bearer " + p.node.Login("tester").AccessToken}
	for name, header := range map[string][]string{
		"identity":          {"X-Auth-Subject", "root", "X-Auth-Username", "root", "X-Auth-Email", "root@example.com", "X-Auth-Name", "Root"},
		"authentication":    {"X-Auth-Methods", "mfa otp hwk", "X-Auth-Time", "9999999999", "X_Auth_Methods", "mfa", "x_auth_time", "9999999999"},
		"no authenticating": {"Connection", "X-Auth-Methods, X-Auth-Time"},
		"a claim it has":    {"X-Auth-Claim-Ship", "all", "X-Auth-Claim-Log", "admin"},
		"a claim it lacks":  {"X-Auth-Claim-Admin", "all"},
		"odd case":          {"x-AUTH-claim-ADMIN", "all", "x-auth-subject", "root"},
		"twice":             {"X-Auth-Subject", "root", "X-Auth-Subject", "root", "X-Auth-Claim-Admin", "all", "X-Auth-Claim-Admin", "all"},
		"underscores":       {"X_Auth_Claim_Admin", "all", "X_Auth_Subject", "root", "X-Auth_Claim-Admin", "all", "X_Auth_Username", "root", "x_auth_username", "root"},
		"hop by hop":        {"Connection", "X-Auth-Subject, X-Auth-Claim-Ship", "X-Auth-Subject", "root"},
		"hop by hop twice":  {"Connection", "close", "Connection", "keep-alive,x-auth-claim-ship"},
		"empty":             {"X-Auth-Subject", "", "X-Auth-Claim-Ship", ""},
		"a name's end":      {"X-Auth-Claim-", "all", "X-Auth-", "all", "X-Auth-Claim-Ship-", "all"},
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
