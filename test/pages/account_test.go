package pages

import (
	"net/http"
	"testing"

	"github.com/watchword-auth/watchword/test/browser"
)

// A session that is ended at the account page is out at its next click, at either replica.
func TestSessions(t *testing.T) {
	w := world(t)
	u := w.User(t, "sessions")
	p, other := w.sits(t, u).in(), w.sits(t, u).in()
	client := w.client(t)
	token := client.LoginWith(u.Name, u.Password).AccessToken

	p.Follow("link", "Sessions")
	p.Sees("Chrome on Linux", "Go-http-client", "This session", "Browser · Password", "App · Password")
	// The newest comes first: the app, the other browser, this one.
	p.In("tbody tr:nth-child(2)").Click("link", "End")
	p.In("dialog").Sees("You are about to end the session of Chrome on Linux, begun from the address 127.0.0.1.")
	p.In("dialog").Follow("button", "End")
	p.at("/account/sessions", 200)
	p.Sees("The session has ended.")
	for range 2 {
		other.isOut()
	}
	client.Verify(token)
	p.isIn()

	other.in()
	p.open("/account/sessions")
	p.Click("link", "End all others")
	p.In("dialog").Follow("button", "End all others")
	p.Sees("All your other sessions have ended.")
	for range 2 {
		other.isOut()
	}
	client.Want(client.Do("GET", "/api/sessions", token, nil), http.StatusUnauthorized, "token_revoked")
	p.isIn()

	// The question as a page of its own; the session that is used.
	p.open("/account/sessions")
	p.In("tbody tr:nth-child(1)").Click("link", "End")
	p.In("dialog").Sees("If you end it, you sign out here.")
	p.In("dialog").Follow("button", "End")
	p.Sees("You have signed out.")
	p.isOut()
	p.in()
	p.open("/account/events")
	p.Sees("Sign-in", "End of a session", "End of all your other sessions", "You", "127.0.0.1")
}

// A change of the password ends all other sessions, and leaves this one.
func TestPasswordChange(t *testing.T) {
	w := world(t)
	u := w.User(t, "changer")
	p, other := w.sits(t, u).in(), w.sits(t, u).in()
	before := p.Cookie("watchword").Value
	p.open("/account/password")
	for _, c := range []struct{ current, next, says string }{
		{"not the password", "a new one, and better", "The password is wrong."},
		{u.Password, "short", "The new password is too short."},
		{u.Password, u.Password, "This is your present password. Choose another one."},
	} {
		p.Fill("Present password", c.current)
		p.Fill("New password", c.next)
		p.Follow("button", "Change the password")
		p.Sees(c.says)
		if p.Status() < 400 || p.Value("Present password")+p.Value("New password") != "" {
			t.Errorf("%q: %d\n%s", c.says, p.Status(), p.Describe())
		}
	}
	other.isIn()
	p.Fill("Present password", u.Password)
	p.Fill("New password", "a new one, and better")
	p.Follow("button", "Change the password")
	p.at("/account", 200)
	p.Sees("Your password is changed. All your other sessions have ended.")
	if p.Cookie("watchword").Value == before {
		t.Error("the cookie is the same")
	}
	p.isIn()
	other.isOut()
	other.types(u.Name, u.Password)
	other.at("/signin", http.StatusUnauthorized)
	other.types(u.Name, "a new one, and better")
	other.at("/account", 200)
}

// An app by its QR code, which another tab sees too, and backup codes; then they are removed.
func TestFactors(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "factors"))
	p.in()
	other := w.sits(t, p.User).in()
	p.open("/account/factors")
	p.Sees("Set up a passkey or an authenticator app first.")
	p.Follow("link", "Set up an app")
	p.Follow("button", "Show the QR code")
	app := p.scans()
	tab := p.tab()
	tab.open("/account/factors/totp")
	if tab.scans().secret != app.secret {
		t.Error("another tab shows another secret")
	}
	p.Fill("Code of the app", "000000")
	p.Follow("button", "Finish")
	p.Sees("The code is wrong.")
	p.Fill("Code of the app", app.next())
	p.Follow("button", "Finish")
	p.at("/account/factors", 200)
	p.Sees("The app is set up. All your other sessions have ended.")
	other.isOut()
	tab.Fill("Code of the app", "123456")
	tab.Follow("button", "Finish")
	tab.Sees("This is set up already, maybe in another window.")

	p.Follow("link", "Make backup codes")
	p.Follow("button", "Make backup codes")
	p.Sees("These codes are shown this once.")
	p.Fill("One of the codes", "wrong-wrong-wrong")
	p.Follow("button", "Confirm")
	p.SeesNot("Your backup codes are ready.")
	p.Sees("The codes are not shown again.")
	p.Follow("button", "Make backup codes")
	code := browser.Eval[string](p.Browser, "document.querySelector('.code pre').textContent.trim().split(/\\s+/)[0]")
	p.Fill("One of the codes", code)
	p.Follow("button", "Confirm")
	p.Sees("Your backup codes are ready. You have 10 of them.")

	p.open("/account/factors/totp/remove")
	p.Sees("It is your last second factor.", "Your backup codes are removed with it.")
	p.Follow("button", "Remove")
	p.at("/account/factors", 200)
	p.Sees("The app is removed.", "Set up a passkey or an authenticator app first.")
	p.isIn()
	p.open("/account/events")
	p.Sees("Set-up of a second factor", "Removal of a second factor")
}

// Whatever ends a session while somebody types, they sign in again, and what they typed is there.
func TestSessionEndsWhileTyping(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "typing"))
	device := p.AddAuthenticator(browser.Options{})
	p.in()
	p.addPasskey("First name")
	device.SetPresent(false)
	tab := p.tab()
	for _, c := range []struct {
		name string
		end  func()
	}{
		{"By an administrator", func() { w.endSessions(t, p.User) }},
		{"In another tab", func() { tab.open("/account"); tab.Follow("button", "Sign out") }},
		{"As the user was disabled", func() {
			w.API(t, "PATCH", "/api/users/"+p.ID, map[string]any{"disabled": true}, http.StatusOK)
			w.API(t, "PATCH", "/api/users/"+p.ID, map[string]any{"disabled": false}, http.StatusOK)
		}},
	} {
		p.open("/account/factors")
		p.Follow("link", "Rename")
		p.Fill("Name", c.name)
		c.end()
		if c.name == "In another tab" { // where the browser offers the passkey at once, and they take it
			device.SetPresent(true)
			p.Click("button", "Rename")
		} else {
			p.Follow("button", "Rename")
			if p.Status() != http.StatusUnauthorized {
				t.Fatalf("%s: %s", c.name, p.Describe())
			}
			p.Sees("Your session has ended. Sign in again; what you typed is kept.")
			p.types(p.Name, "a wrong password")
			p.types(p.Name, p.Password)
			p.Sees("Signing in as")
			device.SetPresent(true)
			p.Follow("button", "Use your passkey")
		}
		p.Sees("Continue what you were doing?")
		device.SetPresent(false)
		p.Click("DisclosureTriangle", "What is sent")
		p.Sees(c.name)
		p.Follow("button", "Continue")
		p.at("/account/factors", 200)
		p.Sees(c.name)
	}

	// Somebody else signs in: it is not sent as theirs.
	p.Follow("link", "Rename")
	p.Fill("Name", "Somebody's own")
	w.endSessions(t, p.User)
	p.Follow("button", "Rename")
	other := w.User(t, "another")
	p.types(other.Name, other.Password)
	p.Sees("What was typed before belongs to another account. It was dropped.")
	p.SeesNot("Continue what you were doing?")

	// Passwords are not kept.
	q := w.sits(t, w.User(t, "secretive"))
	q.in()
	q.open("/account/password")
	q.Fill("Present password", q.Password)
	q.Fill("New password", "the next one of many words")
	w.endSessions(t, q.User)
	q.Follow("button", "Change the password")
	if html := browser.Eval[string](q.Browser, "document.documentElement.outerHTML"); q.Status() != http.StatusUnauthorized || contains(html, "many words", q.Password) {
		t.Errorf("%d %s", q.Status(), html)
	}
	q.types(q.Name, q.Password)
	q.Fill("Type this once more: Present password", q.Password)
	q.Fill("Type this once more: New password", "the next one of many words")
	q.Follow("button", "Continue")
	q.at("/account", 200)
	q.Sees("Your password is changed.")
}
