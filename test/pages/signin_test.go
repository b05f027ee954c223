package pages

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/browser"
	"github.com/watchword-auth/watchword/test/kit"
)

// The keyboard alone signs in, and password managers know the fields.
func TestSignInByKeyboard(t *testing.T) {
	w := world(t)
	p := w.sitsWithHistory(t, w.User(t, "keys"))
	p.open("/signin?return=" + "%2Faccount%2Fsessions")
	if role, name := p.Focused(); role != "textbox" || name != "Username" {
		t.Errorf("the %s %q has the focus", role, name)
	}
	for field, want := range map[string]string{"username": "username webauthn", "password": "current-password"} {
		if got := browser.Eval[string](p.Browser, "document.querySelector('[name="+field+"]').autocomplete"); got != want {
			t.Errorf("%s: autocomplete is %q", field, got)
		}
	}
	p.Press(p.Name, "Tab", p.Password)
	p.Navigates(func() { p.Press("Enter") })
	p.at("/account/sessions", 200)
	// The former page is not shown again from a cache, and leads on.
	p.Back()
	p.at("/account/sessions", 200)
	p.open("/signin?switch=1")
	p.Sees("You are signed in as "+p.Name, "Continue")
	p.stops("Skip to the content", "Continue", "Username", "Password", "Show Password", "Sign in", "Sign in with a passkey")
}

// A wrong password and an unknown user have one answer.
func TestSignInRefused(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "wrong"))
	p.open("/signin")
	answer := func(name string) string {
		t.Helper()
		p.types(name, "not the password")
		p.at("/signin", http.StatusUnauthorized)
		p.Sees("The username or the password is wrong.")
		if got := p.Value("Username"); got != name {
			t.Errorf("the username is %q now", got)
		}
		if got := p.Value("Password"); got != "" {
			t.Error("the password stands in the page")
		}
		if role, name := p.Focused(); role != "textbox" || name != "Password" {
			t.Errorf("the %s %q has the focus", role, name)
		}
		return strings.ReplaceAll(browser.Eval[string](p.Browser, "document.documentElement.outerHTML"), name, "NAME")
	}
	if wrong, unknown := answer(p.Name), answer("nobody-"+p.Name); wrong != unknown {
		t.Errorf("the answers differ:\n%s\n%s", wrong, unknown)
	}
	// The browser itself asks for what is missing; without scripts and checks, the page does.
	p.Run(`document.querySelector('main form').noValidate = true`, nil)
	p.Fill("Username", p.Name)
	p.Follow("button", "Sign in")
	p.at("/signin", http.StatusUnprocessableEntity)
	p.types(p.Name, p.Password)
	p.at("/account", 200)
}

// A second factor: the code of an app, a backup code, and none on a device that is remembered.
func TestSecondFactor(t *testing.T) {
	w := world(t)
	u := w.User(t, "factor")
	app, codes := w.app(t, u)
	p := w.sits(t, u)
	p.open("/signin?return=%2Faccount%2Fevents")
	p.types(u.Name, u.Password)
	p.at("/signin/factor", 200)
	p.Sees("Signing in as " + u.Name)
	if got := browser.Eval[string](p.Browser, "document.activeElement.autocomplete"); got != "one-time-code" {
		t.Errorf("the field that has the focus takes %q", got)
	}
	p.Fill("Code", "12 34")
	p.Follow("button", "Continue")
	p.at("/signin/factor", http.StatusUnprocessableEntity)
	p.Sees("A code of an authenticator app has 6 digits")
	p.Fill("Code", "000000")
	p.Follow("button", "Continue")
	p.at("/signin/factor", http.StatusUnauthorized)
	p.Sees("The code is wrong.")
	p.Press(app.next())
	p.Navigates(func() { p.Press("Enter") })
	p.at("/account/events", 200)

	p.Follow("button", "Sign out")
	p.at("/signin", 200)
	p.Sees("You are signed out.")
	p.signsIn()
	p.Follow("link", "Backup code")
	p.Fill("Backup code", codes[1])
	p.Check("remember_device", true)
	p.Follow("button", "Continue")
	p.at("/account", 200)
	p.Follow("button", "Sign out")
	p.in()

	// Another browser is not remembered, and a code is good once.
	other := w.sits(t, u)
	other.signsIn()
	other.Follow("link", "Backup code")
	other.Fill("Backup code", codes[1])
	other.Follow("button", "Continue")
	other.at("/signin/factor", http.StatusUnauthorized)
	// It is somebody else who sits there now.
	other.Follow("link", "Not you?")
	second := w.User(t, "somebody")
	other.types(second.Name, second.Password)
	other.at("/account", 200)
	other.Sees(second.Name)
	other.SeesNot(u.Name)
}

// Who needs a second factor and has none enrols it at the sign-in: an app by its QR code.
func TestEnrolApp(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "must", "factor=required"))
	p.signsIn()
	p.at("/signin/enrol", 200)
	p.open("/account")
	p.at("/signin", 200) // nothing before that
	p.signsIn()
	p.Follow("button", "Set up an app")
	p.at("/signin/enrol?method=totp", 200)
	app := p.scans()
	p.Reload()
	if again := p.scans(); again.secret != app.secret {
		t.Error("the page has another secret when it is loaded again")
	}
	p.Fill("Code", "000000")
	p.Follow("button", "Continue")
	p.Sees("The code is wrong.")
	p.Fill("Code", app.next())
	p.Follow("button", "Continue")
	p.at("/signin/enrolled", 200)
	p.Follow("link", "Make backup codes")
	p.at("/account/factors/codes", 200)
	p.Follow("button", "Sign out")
	p.signsIn()
	p.at("/signin/factor", 200)
	p.Fill("Code", app.next())
	p.Follow("button", "Continue")
	p.at("/account", 200)
}

func TestEnrolPasskey(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "mustkey", "factor=required"))
	device := p.AddAuthenticator(browser.Options{})
	device.SetPresent(false)
	p.signsIn()
	p.at("/signin/enrol", 200)
	device.SetVerified(false)
	device.SetPresent(true)
	p.Click("button", "Create a passkey")
	p.Sees("No passkey was used.")
	device.SetVerified(true)
	p.Follow("button", "Create a passkey")
	p.at("/signin/enrolled", 200)
	p.Follow("link", "Continue")
	p.at("/account", 200)
}

// Passkeys: made, named, used instead of everything and beside the password, removed.
func TestPasskeys(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "key"))
	device := p.AddAuthenticator(browser.Options{})
	p.in()
	p.addPasskey("Work laptop")
	p.Follow("link", "Rename")
	p.Fill("Name", "Desk")
	p.Follow("button", "Rename")
	p.at("/account/factors", 200)
	p.Sees("Desk", "On one device")
	p.SeesNot("Work laptop")

	device.SetPresent(false) // or the browser would sign in at once: it offers the passkey
	p.Follow("button", "Sign out")
	p.at("/signin", 200)
	p.offersPasskey()
	device.SetPresent(true)
	p.Follow("button", "Sign in with a passkey")
	p.at("/account", 200)
	// Among what the browser fills in.
	p.Follow("button", "Sign out")
	p.Until("location.pathname === '/account'")
	p.isIn()

	// As the second factor.
	device.SetPresent(false)
	p.Follow("button", "Sign out")
	p.types(p.Name, p.Password)
	p.at("/signin/factor", 200)
	device.SetPresent(true)
	p.Follow("button", "Use your passkey")
	p.at("/account", 200)

	p.open("/account/factors")
	p.Click("link", "Remove")
	p.Sees("You are about to remove the passkey “Desk”.")
	p.In("dialog").Click("link", "Cancel")
	p.Until("!document.querySelector('dialog')")
	p.Click("link", "Remove")
	p.In("dialog").Follow("button", "Remove")
	p.at("/account/factors", 200)
	p.SeesNot("Desk")
	device.SetPresent(false)
	p.Follow("button", "Sign out")
	p.offersPasskey()
	device.SetPresent(true)
	p.Click("button", "Sign in with a passkey")
	p.Sees("The passkey was not accepted.")
	p.types(p.Name, p.Password)
	p.at("/account", 200)
}

// A double click signs in once; so do the Enter key twice and a second factor.
func TestDoubleClick(t *testing.T) {
	w := world(t)
	u := w.User(t, "twice")
	p := w.sits(t, u)
	sessions := func() int {
		t.Helper()
		return len(kit.Decode[httpapi.SessionList](t, w.API(t, "GET", "/api/users/"+u.ID+"/sessions", nil, 200)).Sessions)
	}
	p.open("/signin")
	p.Fill("Username", u.Name)
	p.Fill("Password", u.Password)
	p.Navigates(func() { p.DoubleClick("button", "Sign in") })
	p.Until("location.pathname === '/account'")
	if n := sessions(); n != 1 {
		t.Errorf("%d sessions after a double click", n)
	}
	// Without scripts two requests come, and the second one's answer is shown.
	p.Follow("button", "Sign out")
	p.Scripts(false)
	p.open("/signin")
	p.Fill("Username", u.Name)
	p.Fill("Password", u.Password)
	p.Navigates(func() { p.DoubleClick("button", "Sign in") })
	p.Scripts(true)
	p.isIn()

	app, codes := w.app(t, u)
	p.signsIn()
	p.at("/signin/factor", 200)
	p.Scripts(false)
	p.Reload()
	p.Fill("Code", app.next())
	p.Navigates(func() { p.DoubleClick("button", "Continue") })
	p.Scripts(true)
	// Where the second request was sent before the answer to the first one had come, the browser
	// has dropped that answer and its cookie. The code is spent, and the user signs in again.
	p.open("/account")
	if browser.Eval[string](p.Browser, "location.pathname") == "/signin" {
		p.Sees("Sign in again.")
		p.types(u.Name, u.Password)
		p.Follow("link", "Backup code")
		p.Fill("Backup code", codes[0])
		p.Follow("button", "Continue")
	}
	p.isIn()
}

// Two tabs sign in as two users. Each sees whom the browser belongs to; nothing of one goes
// to the other.
func TestTwoTabs(t *testing.T) {
	w := world(t)
	one, other := w.User(t, "one"), w.User(t, "other")
	w.app(t, one)
	codes := func(u User) []string { _, c := w.app(t, u); return c }(other)
	first := w.sits(t, one)
	second := first.tab()
	second.User = other
	first.signsIn()
	first.at("/signin/factor", 200)
	second.signsIn()
	second.at("/signin/factor", 200)
	// The first tab's sign-in is forgotten, and it says so.
	first.Fill("Code", "123456")
	first.Follow("button", "Continue")
	first.at("/signin/factor", http.StatusConflict)
	first.Sees(other.Name + " has begun to sign in in another tab since.")
	second.Follow("link", "Backup code")
	second.Fill("Backup code", codes[1])
	second.Follow("button", "Continue")
	second.at("/account", 200)
	// What the first tab still asks for is done.
	first.Follow("link", "Backup code")
	first.open("/account")
	first.Sees(other.Name)

	// A form of a user, sent when another one is signed in, asks first.
	second.open("/account/password")
	third := second.tab()
	third.User = w.User(t, "third")
	third.open("/signin?switch=1")
	third.Sees("You are signed in as " + other.Name)
	third.types(third.Name, third.Password)
	third.at("/account", 200)
	second.Fill("Present password", "x")
	second.Fill("New password", "a password that nobody has")
	second.Follow("button", "Change the password")
	second.SeesNot("Your password is changed")
	third.isIn()
}

func TestCookiesRefused(t *testing.T) {
	w := world(t)
	u := w.User(t, "nocookie")
	p := &person{browser.NewWithoutCookies(t), t, w, u}
	p.open("/signin")
	p.types(u.Name, u.Password)
	p.at("/signin", http.StatusUnprocessableEntity)
	p.Sees("Your browser keeps no cookies of this site")
	if got := p.Value("Username"); got != u.Name {
		t.Errorf("the username is %q now", got)
	}
}

// Everything essential works without JavaScript.
func TestWithoutScripts(t *testing.T) {
	w := world(t)
	u := w.User(t, "noscript")
	p := w.sits(t, u)
	p.Scripts(false)
	p.in()
	if p.Has("button", "Sign in with a passkey") {
		t.Error("a passkey is offered")
	}
	// An app, with codes.
	p.Follow("link", "Second factors")
	p.Follow("link", "Set up an app")
	p.Follow("button", "Show the QR code")
	app := p.scans()
	p.Fill("Code of the app", app.next())
	p.Follow("button", "Finish")
	p.at("/account/factors", 200)
	p.Sees("The app is set up.")
	p.Follow("link", "Make backup codes")
	p.Follow("button", "Make backup codes")
	code := regexp.MustCompile(`(?m)^\s*(\S{4,}[-\S]*)\s*$`).FindStringSubmatch(p.codes())[1]
	p.Fill("One of the codes", code)
	p.Follow("button", "Confirm")
	p.at("/account/factors", 200)
	// Out, and in with the second factor.
	p.Follow("button", "Sign out")
	p.signsIn()
	p.Fill("Code", app.next())
	p.Follow("button", "Continue")
	p.at("/account", 200)
	// The questions are pages.
	p.Follow("link", "Sessions")
	p.Follow("link", "Sign out everywhere")
	p.at("/account/sessions/end-all", 200)
	p.Follow("link", "Cancel")
	p.at("/account/sessions", 200)
	p.open("/account/password")
	p.Fill("Present password", u.Password)
	p.Fill("New password", "another one of many words")
	p.Follow("button", "Change the password")
	p.at("/account", 200)
	p.Sees("Your password is changed.")
	p.open("/account/factors/passkeys")
	p.Sees("Passkeys need JavaScript")
	// A recovery link is pasted by hand.
	token := w.recovery(t, u)
	p.open("/signin/recover#token=" + token)
	if p.Value("Recovery token") != "" {
		t.Error("the token is in the field")
	}
	p.Fill("Recovery token", token)
	p.Fill("New password", kit.Password)
	p.Follow("button", "Set the password")
	p.at("/signin?switch=1", 200)
	p.Sees("Your password has been changed.")
	p.types(u.Name, kit.Password)
	p.at("/account", 200)
	p.open("/account/sessions/end-all")
	p.Follow("button", "Sign out everywhere")
	p.at("/signin?return=%2Faccount", 200)
	p.Sees("All your sessions have ended.")
}

// A recovery link fills in its token, which leaves the address.
func TestRecoveryLink(t *testing.T) {
	w := world(t)
	u := w.User(t, "lost")
	p := w.sits(t, u).in()
	p.open("/signin/recover#token=" + w.recovery(t, u))
	p.Until("location.hash === ''")
	if role, name := p.Focused(); role != "textbox" || name != "New password" {
		t.Errorf("the %s %q has the focus", role, name)
	}
	p.Fill("New password", "short")
	p.Follow("button", "Set the password")
	p.Sees("A password has at least 8 characters.")
	p.Fill("New password", "a new one, and better")
	p.Follow("button", "Set the password")
	p.at("/signin?switch=1", 200)
	p.types(u.Name, u.Password)
	p.at("/signin", http.StatusUnauthorized)
	p.types(u.Name, "a new one, and better")
	p.at("/account", 200)
}

func TestSignOut(t *testing.T) {
	w := world(t)
	u := w.User(t, "leaver")
	p, other := w.sitsWithHistory(t, u).in(), w.sits(t, u).in()
	stolen := p.Cookie("watchword")
	p.open("/signout")
	p.Sees(fmt.Sprintf("Do you want to sign out %s in this browser?", u.Name))
	p.In("main").Follow("button", "Sign out")
	p.at("/signin", 200)
	p.isOut()
	p.PutCookie(stolen)
	p.isOut()
	p.Back() // to a page that has been there
	p.SeesNot("Who you are")
	other.isIn()
	other.open("/account/sessions")
	other.Click("link", "Sign out everywhere")
	other.In("dialog").Follow("button", "Sign out everywhere")
	other.Sees("All your sessions have ended.")
	other.isOut()

	other.open("/.well-known/change-password")
	other.at("/signin?return=%2Faccount%2Fpassword", 200)
	other.types(u.Name, u.Password)
	other.at("/account/password", 200)
}

// German, as the browser asks for it or a link does.
func TestGerman(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "deutsch"))
	p.open("/signin?ui_locales=de-AT")
	p.Sees("Anmelden", "Benutzername", "Passwort")
	if got := browser.Eval[string](p.Browser, "document.documentElement.lang"); got != "de" {
		t.Errorf("the language is %q", got)
	}
	p.Fill("Benutzername", p.Name)
	p.Fill("Passwort", "falsch")
	p.Follow("button", "Anmelden")
	p.at("/signin", http.StatusUnauthorized)
	p.SeesNot("wrong")
	p.Fill("Passwort", p.Password)
	p.Follow("button", "Anmelden")
	p.at("/account", 200)
	for _, path := range []string{"/account", "/account/sessions", "/account/factors", "/account/password", "/account/events"} {
		p.open(path)
		if got := browser.Eval[string](p.Browser, "document.documentElement.lang"); got != "de" {
			t.Errorf("%s: the language is %q", path, got)
		}
	}
	p.open("/account?ui_locales=en")
	p.Sees("Who you are")
	a := w.client(t).Send(func() *http.Request {
		r := w.client(t).Request("GET", "/signin", "", nil)
		r.Header.Set("Accept-Language", "fr, de-CH;q=0.8, en;q=0.5")
		return r
	}())
	if !strings.Contains(string(a.Body), `lang="de"`) || !strings.Contains(string(a.Body), "Benutzername") {
		t.Errorf("Accept-Language: %s", a.Body)
	}
}
