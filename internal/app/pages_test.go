package app

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// Somebody attacks the pages of a whole replica from outside. Each test walks all routes that the
// kit of the pages knows, so that one that is added is attacked, too.

// sessionCookie is the name of a browser's cookie, behind TLS.
const sessionCookie = "__Host-" + string(page.SessionCookie)

// A stage is a replica whose whole state is in its database, with its pages.
type stage struct {
	*world
	routes []page.Route
}

func newStage(t *testing.T, change func(*config.Config)) *stage {
	t.Helper()
	w := newWorld(t, func(c *config.Config) {
		c.State.Backend = config.StateSQL
		if change != nil {
			change(c)
		}
	})
	s := &stage{w, spread(w.node.kit.Routes())}
	if len(s.routes) < 40 {
		t.Fatalf("%d routes", len(s.routes))
	}
	return s
}

// ask sends a request from an address of a test's own, with these headers: pairs of a name and a
// value.
func (s *stage) ask(method, path, kind, body string, headers ...string) *http.Response {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(body))
	r.RemoteAddr = "198.18.0.1:4711"
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	s.node.Handler().ServeHTTP(rec, r)
	return rec.Result()
}

func textOf(t testing.TB, a *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const formType = "application/x-www-form-urlencoded"

// signIn signs a user in, and returns the header Cookie of their browser.
func (s *stage) signIn(username string) string {
	s.t.Helper()
	a := s.ask("POST", "/signin", formType, url.Values{"username": {username}, "password": {password}}.Encode(),
		"Sec-Fetch-Site", "same-origin", "Cookie", "__Host-watchword-signin=1")
	for _, c := range a.Cookies() {
		if a.StatusCode == 303 && c.Name == sessionCookie {
			return sessionCookie + "=" + c.Value
		}
	}
	s.t.Fatalf("%s: %d %v %s", username, a.StatusCode, a.Header, textOf(s.t, a))
	return ""
}

// parts are those that a path with {part} may name.
var parts = []string{
	"edit", "password", "delete", "disable", "enable", "recovery", "token", "factors", "sessions", "events", "groups", "claims", "none",
}

// spread has a route of its own for each part.
func spread(routes []page.Route) (all []page.Route) {
	for _, r := range routes {
		if !strings.Contains(r.Path, "{part}") {
			all = append(all, r)
			continue
		}
		for _, one := range parts {
			r := r
			r.Path = strings.ReplaceAll(r.Path, "{part}", one)
			all = append(all, r)
		}
	}
	return all
}

// at is the path of a route about something, which has an id.
func at(r page.Route, id string) string {
	return regexp.MustCompile(`\{\$?[a-z_.]*\}`).ReplaceAllLiteralString(r.Path, id)
}

// changeable are the tables that the pages may change.
var changeable = []string{
	"users", "usergroups", "claims", "group_claims", "memberships", "factors", "identity_marks", "verified_emails", "revocations", "settings",
	"signing_keys", "state_records",
}

// content returns a digest of what is in each of those tables.
func (s *stage) content() map[string]string {
	s.t.Helper()
	columns := sqldbtest.Schema(s.t, s.node.db).Only(s.t, changeable...)
	all := map[string]string{}
	for table, rows := range sqldbtest.Dump(s.t, s.node.db, columns) {
		var lines []string
		for _, row := range rows {
			if row["kind"] != "activity" { // which each replica keeps by itself
				lines = append(lines, fmt.Sprint(row))
			}
		}
		slices.Sort(lines)
		all[table] = fmt.Sprintf("%d rows, %x", len(lines), sha256.Sum256([]byte(strings.Join(lines, "\n"))))
	}
	return all
}

// changes returns the tables in which the content is not what it was.
func (s *stage) changes(before map[string]string) (tables []string) {
	s.t.Helper()
	for table, is := range s.content() {
		if was := before[table]; was != is {
			tables = append(tables, fmt.Sprintf("%s: %s, and before %s", table, is, was))
		}
	}
	return tables
}

// body is what a route may be sent so that it does something to a user.
func body(r page.Route, id string) string {
	if r.ContentType == "application/json" {
		return `{}`
	}
	f := url.Values{}
	for _, name := range []string{"id", "user", "user_id", "account", "target", "session_id", "group", "claim"} {
		f.Set(name, id)
	}
	for name, value := range map[string]string{
		"username": "mallory", "name": "mallory", "email": "mallory@evil.example", "password": password + "!", "new_password": password + "!",
		"current_password": password, "confirm": "yes", "short_name": "mallory", "value": "mallory", "address": "198.18.0.1", "reason": "because",
		"method": "password", "keep_factors": "on",
	} {
		f.Set(name, value)
	}
	return f.Encode()
}

// A request to each route that changes something is refused if it comes from a page of another
// site or origin, whatever its user may do, and changes nothing.
func TestEveryPageRefusesOtherSites(t *testing.T) {
	s := newStage(t, nil)
	cookie, bob := s.signIn("admin"), s.user("bob")
	before := s.content()
	tried := 0
	for _, r := range s.routes {
		if r.Method == http.MethodGet {
			continue
		}
		for what, header := range map[string][2]string{
			"of another site": {"Sec-Fetch-Site", "cross-site"}, "of a sibling": {"Sec-Fetch-Site", "same-site"},
			"of an older browser": {"Origin", "https://evil.example"}, "of a sibling, by an older browser": {"Origin", "https://evil.auth.example.com"},
			"of a sandbox": {"Origin", "null"}, "of another port": {"Origin", "https://example.com:8443"},
		} {
			for _, kind := range []string{r.ContentType, "text/plain", "application/json", "multipart/form-data; boundary=x", formType} {
				a := s.ask(r.Method, at(r, bob), kind, body(r, bob), header[0], header[1], "Cookie", cookie)
				tried++
				if a.StatusCode != 403 || len(a.Cookies()) != 0 {
					t.Errorf("%s %s as %s, %s: %d, %v", r.Method, r.Path, kind, what, a.StatusCode, a.Cookies())
				}
			}
		}
		// What a form cannot be sent as is refused also from here.
		for _, kind := range []string{"", "text/plain", "application/json", "multipart/form-data; boundary=x", formType} {
			if kind == r.ContentType || strings.HasPrefix(kind, r.ContentType) && r.ContentType != "" {
				continue
			}
			if a := s.ask(r.Method, at(r, bob), kind, body(r, bob), "Sec-Fetch-Site", "same-origin", "Cookie", cookie); a.StatusCode != 400 {
				t.Errorf("%s %s as %q: %d", r.Method, r.Path, kind, a.StatusCode)
			}
		}
	}
	if changes := s.changes(before); len(changes) > 0 {
		t.Errorf("changed: %s", changes)
	}
	t.Logf("summary: %d requests of other sites", tried)
}

// Whatever is got changes nothing, by whoever, however often.
func TestGettingAPageChangesNothing(t *testing.T) {
	s := newStage(t, nil)
	cookie, bob := s.signIn("admin"), s.user("bob")
	bobs := s.signIn("bob")
	before := s.content()
	for _, r := range s.routes {
		if r.Method != http.MethodGet {
			continue
		}
		for _, path := range []string{at(r, bob), at(r, bob) + "?" + body(r, bob), at(r, "0198c8c4-2f5e-4a63-9f3e-6b1d2f0c9a11")} {
			for _, method := range []string{"GET", "HEAD", "GET"} {
				for _, as := range []string{cookie, bobs, "", sessionCookie + "=wwb_x", "__Host-watchword-signin=p.e30"} {
					a := s.ask(method, path, "", "", "Sec-Fetch-Site", "cross-site", "Cookie", as)
					if a.StatusCode >= 500 {
						t.Errorf("%s %s: %d %s", method, path, a.StatusCode, textOf(t, a))
					}
				}
			}
		}
	}
	if changes := s.changes(before); len(changes) > 0 {
		t.Errorf("changed: %s", changes)
	}
	for _, one := range []string{cookie, bobs} {
		if a := s.ask("GET", "/account", "", "", "Cookie", one); a.StatusCode != 200 {
			t.Errorf("a session has ended: %d", a.StatusCode)
		}
	}
}

// Each answer of a page has what protects it, also errors, redirects and what is not there; and none
// has an address made of what the client says that the host is.
func TestEveryPageHasItsHeaders(t *testing.T) {
	s := newStage(t, nil)
	cookie, bob := s.signIn("admin"), s.user("bob")
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	paths := map[string]string{"/account/none": formType, "/admin/none/none": formType, "/signin/none": "", "/signin/": ""}
	for _, r := range s.routes {
		paths[at(r, bob)] = r.ContentType
	}
	statuses := map[int]int{}
	inline := regexp.MustCompile(`(?i)<[a-z][^>]*\s(?:on[a-z]+|style)\s*=|<style|<script(?:>|[^>]*>[^<])|javascript:`)
	for path, kind := range paths {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
			for _, as := range []string{"", cookie} {
				if method == "POST" && as != "" && !strings.HasPrefix(path, "/signin") {
					continue // it would do something
				}
				site := "same-origin"
				if len(statuses)%2 == 0 {
					site = "cross-site"
				}
				a := s.ask(method, path, kind, "a=b&a=c", "Sec-Fetch-Site", site, "Cookie", as, "Host", "evil.example", "X-Forwarded-Host", "evil.example", "Forwarded", "host=evil.example")
				text, h := textOf(t, a), a.Header
				statuses[a.StatusCode]++
				where := fmt.Sprintf("%s %s: %d", method, path, a.StatusCode)
				for name, want := range map[string]string{
					"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
					"Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
				} {
					if got := h[name]; len(got) != 1 || got[0] != want {
						t.Errorf("%s: %s: %q", where, name, got)
					}
				}
				if strings.Contains(text, "evil.example") || strings.Contains(fmt.Sprint(h), "evil.example") {
					t.Errorf("%s: it says the name of another host", where)
				}
				if to := h.Get("Location"); to != "" && (!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//")) {
					t.Errorf("%s: to %s", where, to)
				}
				if a.StatusCode == 405 && h.Get("Allow") == "" {
					t.Errorf("%s: without Allow", where)
				}
				for _, c := range a.Cookies() {
					if !strings.HasPrefix(c.Name, "__Host-") || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
						t.Errorf("%s: the cookie %v", where, c)
					}
				}
				if found := inline.FindString(text); found != "" && strings.HasPrefix(h.Get("Content-Type"), "text/html") {
					t.Errorf("%s: %s", where, found)
				}
				if text != "" && h.Get("Content-Type") == "" {
					t.Errorf("%s: without a type", where)
				}
			}
		}
	}
	for _, status := range []int{200, 303, 400, 403, 404, 405} {
		if statuses[status] == 0 {
			t.Errorf("no answer was a %d: %v", status, statuses)
		}
	}
	assets := regexp.MustCompile(`/assets/[^"]+`).FindAllString(textOf(t, s.ask("GET", "/signin", "", "")), -1)
	if len(assets) < 4 {
		t.Errorf("assets: %v", assets)
	}
	for _, path := range append(assets, "/assets/none.js", "/assets/", "/assets/../signin", "/assets/%2e%2e%2fsignin") {
		a := s.ask("GET", path, "", "", "Cookie", cookie)
		h := a.Header
		if len(a.Cookies()) != 0 || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
			t.Errorf("%s: %d %v", path, a.StatusCode, h)
		}
		if found := slices.Contains(assets, path); found != (a.StatusCode == 200) || found && h.Get("Vary") != "Accept-Encoding" || !found && strings.Contains(h.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", path, a.StatusCode, h)
		}
	}
}

// The API takes no cookie: with that of a superuser each of its routes answers as without any. The
// pages take no access token.
func TestCookiesAreForPagesAlone(t *testing.T) {
	s := newStage(t, nil)
	cookie, bob := s.signIn("admin"), s.user("bob")
	value := strings.TrimPrefix(cookie, sessionCookie+"=")
	grant, bobs := s.login("admin"), s.signIn("bob")
	before := s.content()
	tried := 0
	for name, calls := range routes {
		method, path, _ := strings.Cut(name, " ")
		if name == "GET /metrics" || name == "GET /health" { // figures that change
			continue
		}
		for _, c := range calls {
			if c.path != "" {
				path = c.path
			}
			fill := strings.NewReplacer("SELF", bob, "other", bob, "TOKEN", value, "OTHER", value, "PASSWORD", password, "{id}", bob)
			path, text := fill.Replace(path), fill.Replace(c.body)
			kind := ""
			if text != "" {
				kind = "application/json"
			}
			answered := func(headers ...string) string {
				a := s.ask(method, path, kind, text, append(headers, "Sec-Fetch-Site", "same-origin")...)
				if len(a.Cookies()) != 0 {
					t.Errorf("%s: %v", name, a.Cookies())
				}
				return fmt.Sprint(a.StatusCode, " ", a.Header.Get("WWW-Authenticate"), " ", textOf(t, a))
			}
			tried++
			without := answered()
			if c.reach != open && !strings.HasPrefix(without, "401") {
				t.Errorf("%s without anything: %s", name, without)
			}
			for _, as := range []string{cookie, "watchword=" + value, cookie + "; watchword=" + value} {
				if c.reach == open { // whose answers are not alike, as those with a new challenge
					if with := answered("Cookie", as); with[:3] != without[:3] {
						t.Errorf("%s: %s, and without the cookie %s", name, with, without)
					}
				} else if with := answered("Cookie", as); with != without {
					t.Errorf("%s: %s, and without the cookie %s", name, with, without)
				}
			}
			if c.reach != open {
				if with := answered("Authorization", "Bearer "+value); !strings.HasPrefix(with, "401") {
					t.Errorf("%s with the cookie as a token: %s", name, with)
				}
			}
		}
	}
	for _, r := range s.routes {
		if strings.HasPrefix(r.Path, "/signin") || strings.HasPrefix(r.Path, "/signout") {
			continue
		}
		answered := func(headers ...string) string {
			a := s.ask(r.Method, at(r, bob), r.ContentType, body(r, bob), append(headers, "Sec-Fetch-Site", "same-origin")...)
			return fmt.Sprint(a.StatusCode, " ", a.Header.Get("Location"), " ", textOf(t, a))
		}
		tried++
		if with, without := answered("Authorization", "Bearer "+grant.AccessToken), answered(); with != without || with[:3] == "200" {
			t.Errorf("%s %s: %s, and without the token %s", r.Method, r.Path, with, without)
		}
		for _, as := range []string{
			sessionCookie + "=" + grant.AccessToken, sessionCookie + "=" + grant.RefreshToken, "watchword=" + value, cookie + "; " + bobs,
			strings.ToLower(cookie), cookie + "A", cookie[:len(cookie)-1], sessionCookie + `="` + value + `"x`, sessionCookie + "=%" + value,
		} {
			if got := answered("Cookie", as); strings.HasPrefix(got, "200") || strings.Contains(got, bob+"<") {
				t.Errorf("%s %s with %s: %s", r.Method, r.Path, as, got)
			}
		}
	}
	if changes := s.changes(before); len(changes) != 1 || !strings.HasPrefix(changes[0], "state_records: ") { // sessions began
		t.Errorf("changed: %s", changes)
	}
	t.Logf("summary: %d routes", tried)
}

// Whoever sends a body slowly takes no place from others behind their address, whatever the route
// and whoever they are.
func TestASlowPageTakesNoPlace(t *testing.T) {
	s := newStage(t, func(c *config.Config) { c.Server.MaxRequestsPerAddress, c.Server.MaxRequestsPerUser = 1, 1 })
	cookie, bob := s.signIn("admin"), s.user("bob")
	bobs := s.signIn("bob")
	for _, r := range s.routes {
		if r.ContentType == "" || r.ContentType == "multipart/form-data" {
			continue // without a body, or one of those who may administer users
		}
		for _, as := range []string{cookie, ""} {
			body, slow := io.Pipe()
			request := httptest.NewRequestWithContext(t.Context(), r.Method, at(r, bob), body)
			request.RemoteAddr = "198.18.0.1:4711"
			request.Header.Set("Content-Type", r.ContentType)
			request.Header.Set("Sec-Fetch-Site", "same-origin")
			request.Header.Set("Cookie", as)
			var other sync.WaitGroup
			other.Go(func() { s.node.Handler().ServeHTTP(httptest.NewRecorder(), request) })
			if _, err := io.WriteString(slow, "{"); err != nil { // it is being read
				t.Fatal(err)
			}
			if a := s.ask("GET", "/account", "", "", "Cookie", bobs); a.StatusCode != 200 {
				t.Errorf("beside a slow %s %s: %d", r.Method, r.Path, a.StatusCode)
			}
			slow.CloseWithError(io.ErrUnexpectedEOF)
			other.Wait()
		}
	}
}

// Whoever makes a page read the storage is counted: with a cookie, forged or not, and without one
// where a page asks for something. Opening sign-in pages uses up no second factors.
func TestEveryPageIsCounted(t *testing.T) {
	const most = 3
	s := newStage(t, func(c *config.Config) {
		for _, one := range []*config.Limit{&c.Limits.API, &c.Limits.Admin, &c.Limits.MFA, &c.Limits.Login} {
			one.PerAddress = config.Rate{Count: most, Per: time.Hour}
		}
		c.MFA.Passkeys.RPID, c.MFA.Passkeys.Origins = "auth.example.com", []string{"https://auth.example.com"}
	})
	bob := s.user("bob")
	n := 0
	from := func(r page.Route, cookie, path, text string) int {
		request := httptest.NewRequestWithContext(t.Context(), r.Method, path, strings.NewReader(text))
		request.RemoteAddr = fmt.Sprintf("198.18.%d.%d:4711", n/250+1, n%250+1)
		request.Header.Set("Content-Type", r.ContentType)
		request.Header.Set("Sec-Fetch-Site", "same-origin")
		request.Header.Set("Cookie", cookie)
		rec := httptest.NewRecorder()
		s.node.Handler().ServeHTTP(rec, request)
		return rec.Code
	}
	forged := sessionCookie + "=wwb_" + strings.Repeat("A", 86)
	for _, r := range s.routes {
		if r.ContentType == "multipart/form-data" {
			continue // of which the head is refused
		}
		type try struct{ cookie, path string }
		tries := []try{{forged, at(r, bob)}}
		if strings.HasPrefix(r.Path, "/admin") {
			tries = append(tries, try{"", at(r, bob)})
		}
		if r.Path == "/signin" && r.Method == http.MethodGet {
			tries = append(tries, try{"", "/signin?return=/admin"})
		}
		for _, one := range tries {
			n++
			for range most {
				if got := from(r, one.cookie, one.path, body(r, bob)); got == 429 && r.Path != "/signout" { // which counts twice
					t.Errorf("%s %s: it is refused too early", r.Method, one.path)
				}
			}
			if got := from(r, one.cookie, one.path, body(r, bob)); got != 429 {
				t.Errorf("%s %s with %q: %d after %d requests", r.Method, one.path, one.cookie, got, most)
			}
		}
	}
	n++
	script, form := page.Route{Method: "POST", ContentType: "application/json"}, page.Route{Method: "POST", ContentType: formType}
	for _, one := range []struct {
		to         page.Route
		path, body string
		most       int
		status     int
	}{
		{script, "/signin/passkey/options", "{}", 10 * most, 200},
		{script, "/api/login/mfa", `{"mfa_token":"wwm_x","method":"totp","code":"000000"}`, most, 401},
		{form, "/signin/recover", "recovery_token=x&new_password=" + url.QueryEscape(password), most, 401},
	} {
		for i := range one.most {
			if got := from(one.to, "", one.path, one.body); got != one.status {
				t.Fatalf("%s, request %d: %d", one.path, i, got)
			}
		}
		if got := from(one.to, "", one.path, one.body); got != 429 {
			t.Errorf("%s, one request more: %d", one.path, got)
		}
	}
}

// Nothing that opens something is logged, at any level, in whatever flow of the pages, or shown
// again: passwords, right and wrong, codes, cookies, tokens, and what a form keeps for later.
func TestSecretsOfBrowsersStayInside(t *testing.T) {
	s := newStage(t, nil)
	s.user("bob")
	cookie := s.signIn("admin")
	live := strings.TrimPrefix(cookie, sessionCookie+"=")
	grant := s.login("bob")
	secrets := map[string][]byte{
		"the password": []byte(password), "a cookie": []byte(live), "an access token": []byte(grant.AccessToken), "a refresh token": []byte(grant.RefreshToken),
	}
	canaries := 0
	canary := func() string {
		canaries++
		one := fmt.Sprintf("canary-%d-of-a-secret", canaries)
		secrets[one] = []byte(one)
		return one
	}
	const same = "same-origin"
	var shown []string
	post := func(path string, as string, fields ...string) string {
		f := url.Values{}
		for i := 0; i+1 < len(fields); i += 2 {
			f.Set(fields[i], fields[i+1])
		}
		a := s.ask("POST", path, formType, f.Encode(), "Sec-Fetch-Site", same, "Cookie", as)
		text := textOf(t, a)
		where := fmt.Sprintf("POST %s: %d: ", path, a.StatusCode)
		shown = append(shown, where+text, where+a.Header.Get("Location"))
		return text
	}
	const mark = "__Host-watchword-signin=1"
	post("/signin", mark, "username", "admin", "password", canary())
	post("/signin", mark, "username", "nobody", "password", canary())
	post("/signin", mark, "username", "bob", "password", "")
	post("/signin", "", "username", "admin", "password", password)
	waits := base64.RawURLEncoding.EncodeToString([]byte(`{"t":"` + canary() + `","m":["totp"],"u":"bob","r":"/account","x":4000000000}`))
	post("/signin/factor", "__Host-watchword-signin=p."+waits, "method", "totp", "code", canary(), "step", "x")
	post("/signin/again", cookie, "method", "password", "password", canary())
	post("/signin/recover", "", "recovery_token", canary(), "new_password", canary())
	post("/account/password", cookie, "current_password", canary(), "new_password", canary())
	post("/account/factors/totp/confirm", cookie, "code", canary())
	post("/admin/token", cookie, "token", live)
	post("/admin/token", cookie, "token", grant.RefreshToken)
	post("/admin/revocations/token", cookie, "token", canary())
	for _, as := range []string{cookie + "x", "__Host-watchword=" + canary(), "__Host-watchword-device=" + canary(), cookie + "; " + cookie} {
		a := s.ask("GET", "/account", "", "", "Cookie", as)
		shown = append(shown, textOf(t, a))
	}
	// The session ends while somebody types.
	post("/signout", cookie)
	kepts := 0
	for _, path := range []string{"/account/password", "/account/factors/totp/confirm", "/admin/token", "/signin/again"} {
		text := post(path, cookie, "current_password", canary(), "new_password", canary(), "password", canary(), "code", canary(), "token", canary(), "recovery_token", canary(), "credential", canary())
		for _, m := range regexp.MustCompile(`name="kept" value="([^"]+)"`).FindAllStringSubmatch(text, -1) {
			kepts++
			kept, err := base64.RawURLEncoding.DecodeString(m[1])
			if err != nil {
				t.Error(err)
			}
			shown = append(shown, "kept of "+path+": "+string(kept))
			post("/signin", mark, "kept", m[1], "username", "bob", "password", password)
		}
	}
	if kepts == 0 {
		t.Error("no form was kept")
	}
	log := s.log.String()
	if !strings.Contains(log, "/signin") || !strings.Contains(log, "DEBUG") {
		t.Error("the log says nothing of it")
	}
	for what, secret := range secrets {
		if i := strings.Index(log, string(secret)); i >= 0 {
			t.Errorf("the log has %s: …%s", what, log[max(0, i-300):i])
		}
		for _, text := range shown {
			if i := strings.Index(text, string(secret)); i >= 0 {
				t.Errorf("an answer has %s: %.60s … %s", what, text, text[max(0, i-100):i])
			}
		}
	}
}

// strength is what makes users strong.
var strength = []string{"memberships", "factors", "group_claims", "claims", "usergroups"}

// Somebody with one right, or with all but one, sends to every page whatever may do something to a
// superuser, or for themselves. They get no further than over the API: the superuser, their groups and
// factors, and what the groups give stay what they were; and they get nobody's recovery token.
func TestPagesGiveNobodyMoreThanTheyHave(t *testing.T) {
	s := newStage(t, nil)
	superuser := s.signIn("admin")
	root, err := s.node.parts.Store.UserByName(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	groups, err := s.node.parts.Store.GroupsOfUser(t.Context(), root.ID)
	if err != nil || len(groups) != 1 {
		t.Fatalf("groups: %v, %v", groups, err)
	}
	group := groups[0]
	tried := 0
	for i, right := range []string{directory.UsersWrite, directory.GroupsWrite, directory.SessionsWrite, directory.UsersRead, "none"} {
		name := fmt.Sprint("weak", i)
		var weak string
		if right == "none" {
			weak = s.user(name)
		} else {
			weak = s.user(name, "admin="+right)
		}
		as := s.signIn(name)
		before := s.content()
		for _, r := range s.routes {
			if r.Method == http.MethodGet || strings.HasPrefix(r.Path, "/sign") || strings.HasPrefix(r.Path, "/account") {
				continue
			}
			for _, id := range []string{root.ID, group.ID} {
				for _, fill := range []string{root.ID, weak, group.ID, "admin", group.Name} {
					f, err := url.ParseQuery(body(r, fill))
					if err != nil {
						t.Fatal(err)
					}
					f.Set("group", group.ID)
					f.Add("groups[]", group.ID)
					f.Set("username", fmt.Sprint("new", tried))
					kind, text := r.ContentType, f.Encode()
					if kind == "multipart/form-data" {
						kind = "multipart/form-data; boundary=x"
						text = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"u.csv\"\r\n\r\nusername,groups\r\nevil" + fmt.Sprint(tried) + "," + group.Name + "\r\n--x--\r\n"
					}
					a := s.ask(r.Method, at(r, id), kind, text, "Sec-Fetch-Site", "same-origin", "Cookie", as)
					answer := textOf(t, a)
					tried++
					if a.StatusCode >= 500 {
						t.Errorf("%s %s by %s: %d %s", r.Method, at(r, id), right, a.StatusCode, answer)
					}
					if strings.Contains(answer, "wwr_") || strings.Contains(answer, "#token=") {
						t.Errorf("%s %s by %s: a token", r.Method, at(r, id), right)
					}
				}
			}
		}
		if now, err := s.node.parts.Store.User(t.Context(), root.ID); err != nil || !reflect.DeepEqual(now, root) {
			t.Errorf("by %s: the superuser is %+v, %v", right, now, err)
		}
		members, err := s.node.parts.Store.MembersOfGroup(t.Context(), group.ID, store.Page{Limit: 100})
		if err != nil || len(members) != 1 {
			t.Errorf("by %s: %d superusers, %v", right, len(members), err)
		}
		after := s.content()
		for _, table := range strength {
			changed := before[table] != after[table]
			if changed && (right == "none" || right == directory.UsersRead || right == directory.SessionsWrite || table == "group_claims" || table == "factors") {
				t.Errorf("by %s: %s were %s, and are %s", right, table, before[table], after[table])
			}
		}
		if a := s.ask("GET", "/account", "", "", "Cookie", superuser); a.StatusCode != 200 {
			t.Errorf("by %s: the superuser's session has ended: %d", right, a.StatusCode)
		}
	}
	t.Logf("summary: %d requests", tried)
}
