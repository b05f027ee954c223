package signin

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/web/page"
)

var (
	noClient      = login.Client{}
	browserClient = login.Client{Browser: true}
)

func actorOf(w *world, b *browser) directory.Actor {
	w.t.Helper()
	by, err := w.login.Recognise(w.t.Context(), b.cookie(page.SessionCookie))
	if err != nil {
		w.t.Fatal(err)
	}
	return directory.Holder(by.Token, "")
}

// No sign-in leads to another site.
func TestOpenRedirect(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	for _, to := range []string{
		"https://evil.test/", "//evil.test/account", `/\evil.test/account`, "/account\r\nSet-Cookie: a=b", "/\t/evil.test", "javascript:alert(1)", "account", "",
		"/account@evil.test", "/accountant", "https:/account", "///account", "/signout", "/account\x00", "/%0d%0a", "http:account", "/" + strings.Repeat("x", 5000),
	} {
		b := w.browser()
		q := "return=" + url.QueryEscape(to)
		if b.get("/signin?" + q); b.Status == http.StatusOK { // or the query is refused as such
			b.fill("/signin", "username", "ada", "password", secret).goes("/account")
			b.get("/signin?" + q).goes("/account")
		} else if b.Status != http.StatusBadRequest {
			t.Errorf("%q: %d", to, b.Status)
		}
		b = w.browser()
		b.get("/signin").post("/signin", "username", "ada", "password", secret, "return", to)
		if b.Status != http.StatusBadRequest && b.Location != "/account" {
			t.Errorf("%q leads to %q, %d", to, b.Location, b.Status)
		}
	}
	b := w.browser()
	w.enrol(w.user("bob"))
	for _, many := range []string{"&", `"`, "a"} {
		many = "/account/note?" + strings.Repeat(many, maxReturn-20)
		b := w.browser()
		b.get("/signin?"+values("return", many).Encode()).fill("/signin", "username", "bob", "password", secret).follow().wants(http.StatusOK, "Second step")
		if n := len(b.cookie(page.SignInCookie)); n > maxCookie {
			t.Errorf("a cookie of %d bytes", n)
		}
	}
	long := "/account/note?x=" + strings.Repeat("y", 2*maxReturn)
	b.get("/signin?"+values("return", long).Encode()).fill("/signin", "username", "ada", "password", secret).goes("/account/note")
}

// A page of another site signs nobody in, out, or on.
func TestCrossSite(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	for _, header := range []http.Header{
		{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Sec-Fetch-Site": nil, "Origin": {"https://evil.test"}}, {"Sec-Fetch-Site": nil, "Origin": {"null"}},
	} {
		b := w.browser()
		b.signIn("ada")
		cookie := b.cookie(page.SessionCookie)
		b.header = header
		for _, path := range []string{"/signin", "/signin/factor", "/signin/enrol", "/signin/again", "/signin/recover", "/signin/continue", "/signout"} {
			b.post(path, "username", "ada", "password", secret).wants(http.StatusForbidden)
		}
		for _, path := range []string{"/signin/passkey", "/signin/passkey/options", "/signin/factor/passkey/options", "/signin/enrol/passkey/options", "/signin/again/passkey/options"} {
			b.json(path, "{}").wants(http.StatusForbidden)
		}
		if b.cookie(page.SessionCookie) != cookie {
			t.Errorf("%v: the session's cookie has changed", header)
		}
		if _, err := w.login.Recognise(t.Context(), cookie); err != nil {
			t.Errorf("%v: %v", header, err)
		}
	}
	// An old browser says nothing of where it comes from. Then it has no cookie of ours along,
	// because that is SameSite, and without it nobody is signed in.
	b := w.browser()
	b.header["Sec-Fetch-Site"] = nil
	b.post("/signin", "username", "ada", "password", secret).wants(http.StatusUnprocessableEntity, "keeps no cookies")
}

// Every answer says how browsers are to treat it.
func TestHeaders(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	b := w.browser()
	check := func() {
		t.Helper()
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "frame-ancestors 'none'", "Referrer-Policy": "same-origin",
		} {
			if got := b.Header.Get(name); !strings.Contains(got, want) {
				t.Errorf("%s is %q, without %q", name, got, want)
			}
		}
		for _, c := range b.Header.Values("Set-Cookie") {
			for _, want := range []string{"__Host-", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Lax"} {
				if !strings.Contains(c, want) {
					t.Errorf("the cookie %q has no %q", c, want)
				}
			}
			if strings.Contains(c, "Domain") {
				t.Errorf("the cookie %q has a domain", c)
			}
		}
	}
	for _, path := range []string{"/signin", "/signin/factor", "/signin/enrol", "/signin/again", "/signin/recover", "/signout", "/.well-known/change-password", "/signin/enrolled"} {
		b.get(path)
		check()
		if strings.Contains(b.Body, "style=") || strings.Contains(b.Body, "<style") || strings.Contains(b.Body, " onclick") || strings.Contains(b.Body, "<script>") {
			t.Errorf("%s has something inline", path)
		}
	}
	b.json("/signin/passkey/options", "{}")
	check()
	b.signIn("ada")
	check()
	b.get("/signout").fill("/signout")
	check()
	if b.cookie(page.SessionCookie) != "" {
		t.Error("the session's cookie is still there")
	}
	b.get("/.well-known/change-password").goes("/account/password")
}

// The cookie that a browser had before is never that of its session.
func TestFixation(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	b := w.browser()
	b.signIn("ada")
	planted := b.cookie(page.SessionCookie)
	victim := w.browser()
	victim.has("__Host-watchword=wwb_planted; __Host-watchword-signin=1")
	victim.post("/signin", "username", "ada", "password", secret)
	if got := strings.Join(victim.Header.Values("Set-Cookie"), "\n"); !strings.Contains(got, "__Host-watchword=wwb_") || strings.Contains(got, "planted") || strings.Contains(got, planted) {
		t.Errorf("the cookies are %s", got)
	}
	// A live session that was planted ends with the sign-in.
	victim = w.browser()
	victim.has("__Host-watchword=" + planted + "; __Host-watchword-signin=1")
	victim.post("/signin", "username", "ada", "password", secret).goes("/account")
	if _, err := w.login.Recognise(t.Context(), planted); err == nil {
		t.Error("the planted session goes on")
	}
}

// The name of a user who does not exist has the same answer as a wrong password, also if that
// user has a second factor.
func TestEnumeration(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	w.enrol(w.user("bob"))
	answers := map[string]bool{}
	for _, name := range []string{"ada", "bob", "mallory"} {
		b := w.browser()
		b.get("/signin").fill("/signin", "username", name, "password", "wrong").wants(http.StatusUnauthorized)
		if len(b.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: cookies", name)
		}
		answers[strings.ReplaceAll(b.Body, name, "NAME")] = true
	}
	if len(answers) != 1 {
		t.Errorf("there are %d answers", len(answers))
	}
}

// What comes in is shown as text, and hurts nothing.
func TestHostileInput(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol(w.user("ada"))
	for _, text := range []string{
		`"><script>alert(1)</script>`, "a\x00b", "\xff\xfe", strings.Repeat("x", 20_000), "{{.}}", "'; DROP TABLE users; --", "ada\r\nSet-Cookie: a=b", "\u202eada", " ",
	} {
		b := w.browser()
		b.get("/signin")
		for path, fields := range map[string][]string{
			"/signin": {"username", text, "password", text, "return", text, "kept", text}, "/signin/factor": {"code", text, "method", text, "step", text, "username", text},
			"/signin/enrol": {"method", text, "step", text, "begin", text}, "/signin/again": {"method", text, "password", text}, "/signin/recover": {"recovery_token", text, "new_password", text},
		} {
			b.post(path, fields...)
			if b.Status >= 500 || strings.Contains(b.Body, "<script>") || len(b.Header.Values("Set-Cookie")) > 0 {
				t.Errorf("%s with %.30q: %d %v\n%s", path, text, b.Status, b.Header, b.Body)
			}
		}
		b.signIn("ada").follow()
		b.fill("/signin/factor", "code", text)
		if b.Status != http.StatusUnprocessableEntity && b.Status != http.StatusBadRequest {
			t.Errorf("the code %.30q: %d", text, b.Status)
		}
		for _, path := range []string{"/signin", "/signin/factor", "/signin/enrol", "/signin/recover", "/signout"} {
			q := values("return", text, "username", text, "method", text, "ended", text, "kept", text, "ui_locales", text).Encode()
			if b.get(path + "?" + q); b.Status >= 500 || strings.Contains(b.Body, "<script>") {
				t.Errorf("%s?%.60q: %d", path, q, b.Status)
			}
		}
		b = w.browser()
		b.has("__Host-watchword-signin=p." + url.QueryEscape(text) + "; __Host-watchword-device=" + url.QueryEscape(text) + "; __Host-watchword=" + url.QueryEscape(text))
		if b.get("/signin/factor").goes("/signin"); b.post("/signin", "username", "ada", "password", secret).Status >= 500 {
			t.Errorf("cookies of %.30q: %d", text, b.Status)
		}
	}
	// What a cookie says of a sign-in that waits is shown as text, too.
	b := w.browser()
	b.signIn("ada")
	waits := waitingOfCookie(t, b)
	waits.Username, waits.Return, waits.Methods = "<script>alert(1)</script>", "//evil.test", []string{"<script>", "password"}
	b.has("__Host-watchword-signin=" + cookieOf(t, waits))
	b.get("/signin/factor").goes("/signin?ended=" + waits.step())
	waits.Methods = []string{mfa.TOTP}
	b.has("__Host-watchword-signin=" + cookieOf(t, waits))
	b.get("/signin/factor").wants(http.StatusOK, `name="return" value="/account"`, "&lt;script&gt;")
}

// Scripts are answered in JSON, and what is none is refused.
func TestJSON(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol(w.user("ada"))
	b := w.browser()
	b.signIn("ada")
	for _, path := range []string{"/signin/passkey", "/signin/passkey/options", "/signin/factor/passkey/options", "/signin/enrol/passkey/options", "/signin/again/passkey/options"} {
		for body, kind := range map[string]string{
			"": "application/json", "[]": "application/json", `{"x":1}`: "application/json", `{"step":"a","step":"b"}`: "application/json", `{} {}`: "application/json",
			"{}": "text/plain", "{ }": "application/x-www-form-urlencoded", `{"credential":"` + strings.Repeat("x", 70_000) + `"}`: "application/json",
		} {
			b.send(http.MethodPost, path, kind, body)
			if b.Status < 400 || b.Status >= 500 || b.Header.Get("Content-Type") != "application/json" || !strings.Contains(b.Body, `"code":`) || !strings.Contains(b.Body, `"message":`) {
				t.Errorf("%s with %.40q as %s: %d %s", path, body, kind, b.Status, b.Body)
			}
		}
		b.get(path).wants(http.StatusMethodNotAllowed)
	}
	// A challenge that is not the browser's is not asked for.
	b.json("/signin/factor/passkey/options", `{"step":"other"}`).wants(http.StatusUnauthorized, "invalid_mfa_token")
	// One that has no passkeys has none here either.
	b.get("/signin/factor")
	b.json("/signin/factor/passkey/options", `{"step":"`+stepOf(t, b)+`"}`).wants(http.StatusUnprocessableEntity, "unknown_method")
}

// Who guesses waits, and the page says until when. All replicas count together, because the use
// cases do.
func TestGuessing(t *testing.T) {
	w := newWorld(t, func(s *setting) {
		s.limits.Rules.Policies = map[limit.Class]limit.Policy{limit.Login: {PerAddress: state.Rate{Burst: 3, Period: 30 * time.Minute}}}
	})
	w.user("ada")
	b := w.browser()
	b.get("/signin")
	for range 3 {
		b.fill("/signin", "username", "ada", "password", "wrong").wants(http.StatusUnauthorized)
	}
	b.fill("/signin", "username", "ada", "password", secret).wants(http.StatusTooManyRequests, "too many attempts", "Try again in 10 minutes.", "That is at", "<time datetime=", `value="ada"`)
	if b.Header.Get("Retry-After") != "600" {
		t.Errorf("Retry-After is %s", b.Header.Get("Retry-After"))
	}
	w.clock.pass(11 * time.Minute)
	b.fill("/signin", "username", "ada", "password", secret).goes("/account")
}

// Wrong codes lock an account as wrong passwords do.
func TestLockout(t *testing.T) {
	w := newWorld(t, func(s *setting) {
		s.limits.Rules.Lockout = limit.Lockout{After: 5, AfterAll: 50, Delay: time.Hour, Max: time.Hour}
	})
	app := w.enrol(w.user("ada"))
	b := w.browser()
	b.signIn("ada").follow()
	for range 4 {
		b.fill("/signin/factor", "code", "000000").wants(http.StatusUnauthorized)
	}
	b.signIn("ada").follow().fill("/signin/factor", "code", "000000").wants(http.StatusUnauthorized)
	b.fill("/signin/factor", "code", app.next()).wants(http.StatusUnauthorized, "The code is wrong.") // as before, so that nobody knows
}

// Without cookies nobody can be signed in; the page says so, and keeps the name.
func TestCookiesRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	b := w.browser()
	b.get("/signin")
	b.client.Jar = nil
	b.post("/signin", "username", "ada", "password", secret, "return", "/account/note").wants(http.StatusUnprocessableEntity, "Your browser keeps no cookies", `value="ada"`, `value="/account/note"`)
	if strings.Contains(b.Body, secret) {
		t.Error("the password is shown again")
	}
	if list := b.Header.Values("Set-Cookie"); len(list) != 1 || !strings.Contains(list[0], "watchword-signin=1") {
		t.Errorf("the cookies are %v", list)
	}
	b.post("/signin/factor", "code", "000000", "username", "ada", "return", "/account/note").wants(http.StatusUnprocessableEntity, "Your browser keeps no cookies", `value="ada"`)
	b.client.Jar = b.jar
	b.fill("/signin", "password", secret).goes("/account/note") // they are allowed now
	b.get("/signin?switch=1").fill("/signin", "username", "ada").wants(http.StatusUnprocessableEntity, "Enter your username and your password.", `value="ada"`)
}

// While nobody administers, the sign-in to the administration says what to do.
func TestNoAdministrator(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	b := w.browser()
	b.get("/admin").wants(http.StatusForbidden, "There is no administrator yet", "ADMIN_GUI_USERNAME", "ADMIN_GUI_PASSWORD", "watchword user add --admin", "users.init_file")
	b.get("/signin?return=/admin/users").wants(http.StatusForbidden, "There is no administrator yet")
	b.post("/admin", "username", "eve").wants(http.StatusForbidden, "There is no administrator yet")
	b.get("/signin").post("/signin", "username", "ada", "password", secret, "return", "/admin/users").wants(http.StatusForbidden, "There is no administrator yet")
	b.signIn("ada").goes("/account")
	if _, err := w.people.EnsureAdministrator(t.Context(), directory.Bootstrap{Username: "root", Password: secret}); err != nil {
		t.Fatal(err)
	}
	b = w.browser()
	b.get("/admin").follow().wants(http.StatusOK).fill("/signin", "username", "root", "password", secret).goes("/admin")
}

// The sign-out is asked for, and does the same thing twice.
func TestSignOut(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	b := w.browser()
	b.get("/signout").goes("/signin")
	b.signIn("ada")
	cookie := b.cookie(page.SessionCookie)
	b.get("/signout").wants(http.StatusOK, "sign out ada in this browser?")
	b.get("/account").wants(http.StatusOK) // asking has done nothing
	fields := b.get("/signout").filled("/signout")
	b.post("/signout", fields...).goes("/signin").follow().wants(http.StatusOK, "You are signed out.")
	b.post("/signout", fields...).goes("/signin")
	b.has("__Host-watchword=" + cookie)
	b.post("/signout", fields...).goes("/signin")
	b.has("__Host-watchword=nothing")
	b.post("/signout", fields...).goes("/signin")
	if _, err := w.login.Recognise(t.Context(), cookie); err == nil {
		t.Error("the session goes on")
	}
}

// While the shared state is away nobody is signed in or out, and nobody is told that they are.
func TestOutage(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	app := w.enrol(w.user("bob"))
	b, second := w.browser(), w.browser()
	b.signIn("ada").goes("/account")
	second.get("/signin?return=/account/note").fill("/signin", "username", "bob", "password", secret).follow()
	cookie, waits := b.cookie(page.SessionCookie), second.cookie(page.SignInCookie)
	w.away.Store(true)
	third := w.browser()
	third.get("/signin").wants(http.StatusOK).fill("/signin", "username", "ada", "password", secret).wants(http.StatusServiceUnavailable, "Try again in", `value="ada"`)
	b.get("/account").wants(http.StatusServiceUnavailable)
	b.post("/signout").wants(http.StatusServiceUnavailable)
	second.fill("/signin/factor", "code", app.next()).wants(http.StatusServiceUnavailable, "Second step")
	second.json("/signin/passkey/options", "{}").wants(http.StatusServiceUnavailable, `"code":"state_unavailable"`)
	if b.cookie(page.SessionCookie) != cookie || second.cookie(page.SignInCookie) != waits || third.cookie(page.SessionCookie) != "" {
		t.Error("cookies have changed")
	}
	w.away.Store(false)
	b.get("/account").wants(http.StatusOK, "hello "+ada.ID)
	third.fill("/signin", "password", secret).goes("/account")
	second.get("/signin/factor").fill("/signin/factor", "code", app.next()).goes("/account/note")
	b.post("/signout").goes("/signin")
}

// The token of an administrator gives another password.
func TestRecover(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	b := w.browser()
	issued, err := w.login.Factors.IssueRecovery(t.Context(), directory.System(), ada.ID, false, mfa.RecoveryFor)
	if err != nil {
		t.Fatal(err)
	}
	b.get("/signin/recover?recovery_token="+issued.Token).wants(http.StatusOK, `autocomplete="new-password"`)
	if strings.Contains(b.Body, issued.Token) {
		t.Error("an address brings a token into the page")
	}
	b.fill("/signin/recover", "new_password", "another one").wants(http.StatusUnprocessableEntity, "Enter the recovery token")
	b.fill("/signin/recover", "recovery_token", "nothing", "new_password", "another one").wants(http.StatusUnauthorized, "This recovery token has been used")
	b.fill("/signin/recover", "recovery_token", issued.Token, "new_password", "short").wants(http.StatusUnprocessableEntity, "at least 8 characters")
	if strings.Contains(b.Body, issued.Token) {
		t.Error("the token is shown again")
	}
	b.fill("/signin/recover", "recovery_token", " "+issued.Token+"\n", "new_password", "another one").goes("/signin?switch=1").follow().wants(http.StatusOK, "Your password has been changed.")
	b.fill("/signin", "username", "ada", "password", secret).wants(http.StatusUnauthorized)
	b.fill("/signin", "username", "ada", "password", "another one").goes("/account")
	b.get("/signin/recover").fill("/signin/recover", "recovery_token", issued.Token, "new_password", "and another").wants(http.StatusUnauthorized)
	if log := w.log.String(); strings.Contains(log, issued.Token) || strings.Contains(log, "another one") {
		t.Error("a secret is logged")
	}
}

// The texts are those of the visitor's language.
func TestGerman(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	b := w.browser()
	b.header.Set("Accept-Language", "de-AT,de;q=0.9,en;q=0.5")
	b.get("/signin").wants(http.StatusOK, `lang="de"`, "Benutzername", "Mit einem Passkey anmelden")
	b.fill("/signin", "username", "ada", "password", "wrong").wants(http.StatusUnauthorized, "Der Benutzername oder das Passwort ist falsch.")
}
