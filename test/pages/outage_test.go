package pages

import (
	"net/http"
	"testing"

	"github.com/watchword-auth/watchword/test/browser"
)

// The replica that served the last page dies. The next click works on the other one.
func TestKillBetweenPages(t *testing.T) {
	w := world(t)
	t.Run("password and factor", func(t *testing.T) {
		u := w.User(t, "killed")
		app, _ := w.app(t, u)
		p := w.sits(t, u)
		p.open("/signin?return=%2Faccount%2Ffactors")
		p.types(u.Name, u.Password)
		p.at("/signin/factor", 200)
		w.Kill(t, w.ServedBy(t, p.Browser))
		p.Fill("Code", app.next())
		p.Follow("button", "Continue")
		p.at("/account/factors", 200)
	})
	t.Run("enrolment", func(t *testing.T) {
		p := w.sits(t, w.User(t, "killedmust", "factor=required"))
		p.signsIn()
		p.Follow("button", "Set up an app")
		app := p.scans()
		w.Kill(t, w.ServedBy(t, p.Browser))
		p.Fill("Code", app.next())
		p.Follow("button", "Continue")
		p.at("/signin/enrolled", 200)
	})
	t.Run("account", func(t *testing.T) {
		p := w.sits(t, w.User(t, "killedform")).in()
		p.open("/account/password")
		p.Fill("Present password", p.Password)
		p.Fill("New password", "the next one of many words")
		w.Kill(t, w.ServedBy(t, p.Browser))
		p.Follow("button", "Change the password")
		p.at("/account", 200)
		p.Sees("Your password is changed.")
		p.isIn()
	})
}

// Without the database the pages say so, keep what was typed, and the next try works.
func TestPagesWithoutDatabase(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "nodb"))
	q := w.sitsWithHistory(t, w.User(t, "nodbin"))
	q.AddAuthenticator(browser.Options{})
	q.in()
	q.addPasskey("First name")
	q.Follow("link", "Rename")
	p.open("/signin?return=%2Faccount%2Fevents")
	w.WithoutDatabase(t, func() {
		p.types(p.Name, p.Password)
		p.at("/signin", http.StatusServiceUnavailable)
		p.Sees("This cannot be answered at the moment. Try again in")
		if got := p.Value("Username"); got != p.Name {
			t.Errorf("the username is %q now", got)
		}
		q.Fill("Name", "Typed meanwhile")
		q.Follow("button", "Rename")
		if q.Status() != http.StatusServiceUnavailable {
			t.Errorf("a form without a database: %s", q.Describe())
		}
		q.Sees("This cannot be answered at the moment.")
	})
	p.types(p.Name, p.Password)
	p.at("/account/events", 200)
	q.Back()
	if got := q.Value("Name"); got != "Typed meanwhile" {
		t.Errorf("the field has %q after going back", got)
	}
	q.Follow("button", "Rename")
	q.at("/account/factors", 200)
	q.Sees("Typed meanwhile")
}

// Redis makes pages fast, and none needs it: people stay signed in while it is away, and when it
// comes back empty, and are still signed out by what happened meanwhile.
func TestPagesWithoutRedis(t *testing.T) {
	w := world(t)
	u := w.User(t, "noredis")
	p, q := w.sits(t, u).in(), w.sits(t, u).in()
	w.WithoutRedis(t, func() {
		p.isIn()
		p.open("/account/sessions")
		p.Click("link", "End all others")
		p.In("dialog").Follow("button", "End all others")
		p.Sees("All your other sessions have ended.")
		q.isOut()
		q.in()
	})
	q.isIn()
	p.isIn()
}
