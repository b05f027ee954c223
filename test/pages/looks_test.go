package pages

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/browser"
	"github.com/watchword-auth/watchword/test/kit"
)

// looks has axe-core judge a page, and fails the test if a phone must scroll sideways. If there
// is a name for pictures it takes them, and axe-core judges the colours of the dark page too.
func (p *person) looks(picture string) {
	p.t.Helper()
	browser.Axe(p.t, p.Browser)
	if picture != "" {
		p.Scheme(browser.Dark)
		browser.AxeColours(p.t, p.Browser)
	}
	p.View(browser.View{Width: 360, Height: 800, Phone: true}) // nothing changes between there and 390
	p.Fits()
	p.View(browser.Desktop)
	p.Scheme("")
	if picture != "" && os.Getenv(browser.PicturesTo) != "" {
		p.Pictures(picture)
	}
}

// named makes a user with a name for pictures.
func (w *World) named(t *testing.T, name, first, last string, claims ...string) User {
	t.Helper()
	u := w.User(t, name, claims...)
	w.API(t, "PATCH", "/api/users/"+u.ID, map[string]any{"username": name, "email": name + "@example.com", "first_name": first, "last_name": last}, http.StatusOK)
	u.Name, u.Email = name, name+"@example.com"
	return u
}

// Every page of the sign-in can be used by everybody, and fits a phone.
func TestLooksOfSignIn(t *testing.T) {
	w := world(t)
	u := w.named(t, "grace.hopper", "Grace", "Hopper")
	app, _ := w.app(t, u)
	p := w.sits(t, u)
	p.open("/signin")
	total, all := p.Weight()
	if total > 60<<10 {
		t.Errorf("the sign-in page weighs %d bytes: %+v", total, all)
	}
	t.Logf("the sign-in page weighs %d bytes", total)
	p.looks("signin")
	p.types(u.Name, "wrong")
	p.looks("signin-refused")
	p.types(u.Name, u.Password)
	p.looks("signin-factor")
	p.Follow("link", "Backup code")
	p.looks("")
	p.Follow("link", "Code of an authenticator app")
	p.Fill("Code", app.next())
	p.Follow("button", "Continue")
	p.open("/signin/again")
	p.looks("signin-again")
	p.open("/signin?switch=1")
	p.looks("")
	p.open("/signout")
	p.looks("")
	p.open("/account/password")
	p.Fill("Present password", "x")
	p.Fill("New password", "the next one of many words")
	w.endSessions(t, u)
	p.Follow("button", "Change the password")
	p.looks("signin-ended")
	p.open("/signin/recover")
	p.looks("signin-recover")

	q := w.sits(t, w.named(t, "alan.turing", "Alan", "Turing", "factor=required"))
	q.signsIn()
	q.looks("signin-enrol")
	q.Follow("button", "Set up an app")
	q.looks("signin-enrol-app")
	q.Fill("Code", q.scans().next())
	q.Follow("button", "Continue")
	q.looks("")
	for _, path := range []string{"/signin/nothing", "/account/sessions/end?id=nothing"} {
		q.open(path)
		q.looks("")
	}
}

// So can every page of the account.
func TestLooksOfAccount(t *testing.T) {
	w := world(t)
	u := w.named(t, "ada.lovelace", "Ada", "Lovelace")
	client := w.client(t)
	p := w.sits(t, u)
	p.AddAuthenticator(browser.Options{})
	p.in()
	p.open("/account")
	p.looks("")
	p.open("/account/factors")
	p.looks("")
	p.open("/account/factors/passkeys")
	p.looks("account-passkey")
	p.addPasskey("Work laptop")
	p.open("/account/factors/totp")
	p.looks("")
	p.Follow("button", "Show the QR code")
	p.looks("account-app")
	app := p.scans()
	p.Fill("Code of the app", app.next())
	p.Follow("button", "Finish")
	p.open("/account/factors/codes")
	p.looks("")
	p.Follow("button", "Make backup codes")
	p.looks("account-codes")
	codes := strings.Fields(p.codes())
	p.Fill("One of the codes", codes[0])
	p.Follow("button", "Confirm")

	for i, agent := range []string{
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"backup-tool/2.1",
	} {
		waits := kit.Decode[httpapi.LoginRefusal](t, client.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: u.Name, Password: u.Password}))
		r := client.Request("POST", "/api/login/mfa", "", httpapi.MFARequest{MFAToken: waits.MFAToken, Method: "backup_code", Code: codes[i]})
		r.Header.Set("User-Agent", agent)
		client.Want(client.Send(r), http.StatusOK, "")
	}
	for _, page := range []struct{ path, picture string }{
		{"/account", "account"}, {"/account/sessions", "account-sessions"}, {"/account/factors", "account-factors"},
		{"/account/password", "account-password"}, {"/account/events", "account-events"},
		{"/account/sessions/end-all", ""}, {"/account/factors/codes/remove", ""},
	} {
		p.open(page.path)
		p.at(page.path, 200)
		p.looks(page.picture)
	}
	p.open("/account/factors")
	p.Follow("link", "Rename")
	p.looks("")
	p.open("/account/sessions")
	p.Click("link", "Sign out everywhere")
	p.In("dialog").Sees("Sign out everywhere?")
	p.looks("")
	p.Press("Escape")
	p.Until("!document.querySelector('dialog')")
	if role, name := p.Focused(); role != "link" || name != "Sign out everywhere" {
		t.Errorf("after a question the %s %q has the focus", role, name)
	}
	p.stops("Skip to the content", "Overview", "Sessions", "Second factors", "Password", "Events")
}

// Over http on this machine alone cookies have no prefix and are not Secure.
func TestCookiesHere(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "cookies")).in()
	for _, c := range p.Cookies() {
		if !strings.HasPrefix(c.Name, "watchword") || c.Secure || !c.HTTPOnly || c.SameSite != network.CookieSameSiteLax || c.Path != "/" || c.Domain != "localhost" || !c.Session {
			t.Errorf("the cookie %+v", c)
		}
	}
}
