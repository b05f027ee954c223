package signin

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// gone ends the session of a browser, as an administrator would.
func (b *browser) gone() {
	b.w.t.Helper()
	if err := b.w.login.SignOut(b.w.t.Context(), b.cookie(page.SessionCookie), noClient); err != nil {
		b.w.t.Fatal(err)
	}
}

// A session that ends while its user types loses nothing but secrets.
func TestKeptForm(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	b := w.browser()
	b.signIn("ada").goes("/account")
	b.gone()
	b.header.Set("Referer", b.w.server.URL+"/account/note?page=2")
	b.post("/account/note", "text[]", `<b>"two" & three`, "text[]", "four", "new_password", "hush hush hush", "empty_code", "")
	b.wants(http.StatusUnauthorized, "what you typed is kept", `value="/account/note?page=2"`)
	b.fill("/signin", "username", "ada", "password", "wrong").wants(http.StatusUnauthorized, "is wrong.")
	b.fill("/signin", "username", "ada", "password", secret).wants(http.StatusOK, "Continue what you were doing?", "Type this once more: New password", `href="/account/note?page=2"`)
	if strings.Contains(b.Body, "hush") {
		t.Error("a password is kept")
	}
	b.fill("/account/note", "new_password", "another one").goes("/account")
	want := url.Values{"text[]": {`<b>"two" & three`, "four"}, "new_password": {"another one"}}
	if len(w.sent) != 1 || !reflect.DeepEqual(w.sent[0], want) {
		t.Errorf("sent: %v, not %v", w.sent, want)
	}
}

// What was typed goes with the second step, by script too.
func TestKeptFormOfTwoSteps(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	app := w.enrol(ada)
	b := w.browser()
	b.signIn("ada").follow().fill("/signin/factor", "code", app.next()).goes("/account")
	b.gone()
	b.post("/account/note", "text", "one").wants(http.StatusUnauthorized)
	kept := b.filled("/signin")
	b.fill("/signin", "username", "ada", "password", secret).wants(http.StatusOK, "Second step")
	b.fill("/signin/factor", "code", "000000").wants(http.StatusUnauthorized)
	b.fill("/signin/factor", "code", app.next()).wants(http.StatusOK, "Continue what you were doing?")
	b.fill("/account/note").goes("/account")
	b.post("/signin/continue", kept...).wants(http.StatusOK, "Continue what you were doing?")
	if len(w.sent) != 1 || w.sent[0].Get("text") != "one" {
		t.Errorf("sent: %v", w.sent)
	}
	// Another way keeps it, and so does another user's name.
	b.gone()
	b.post("/account/note", "text", "three").fill("/signin", "username", "ada", "password", secret).wants(http.StatusOK, "Second step")
	step := b.filled("/signin/factor")
	b.post("/signin/factor", append(step, "choose", "totp")...).wants(http.StatusOK, "Second step", `name="kept"`)
	b.fill("/signin", "back", "1").wants(http.StatusOK, `name="kept"`, `name="password"`)
	b.fill("/signin", "username", "ada", "password", secret).fill("/signin/factor", "code", app.next()).wants(http.StatusOK, "three")
	// A sign-in that has ended meanwhile has kept it as well.
	b.gone()
	b.post("/account/note", "text", "two").fill("/signin", "username", "ada", "password", secret)
	w.clock.pass(time.Hour)
	b.fill("/signin/factor", "code", app.next()).wants(http.StatusUnauthorized, "This sign-in has ended", `name="kept"`, `value="ada"`)
}

// Enrolment in the course of it keeps it too.
func TestKeptFormOfEnrolment(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	b := w.browser()
	b.signIn("ada")
	b.gone()
	w.login.Factors.Policy.Always = true
	b.post("/account/note", "text", "one").fill("/signin", "username", "ada", "password", secret).wants(http.StatusOK, "Set up a second factor")
	b.fill("/signin/enrol", "begin", "1").wants(http.StatusOK, "otpauth://")
	b.fill("/signin/enrol", "code", (&app{w, secretIn(t, b)}).next()).wants(http.StatusOK, "Continue what you were doing?")
	b.get("/account").wants(http.StatusOK, "hello "+ada.ID)
}

// What somebody typed is not sent by somebody else.
func TestKeptFormOfAnother(t *testing.T) {
	w := newWorld(t, nil)
	w.user("ada")
	bob := w.user("bob")
	b := w.browser()
	b.signIn("ada")
	b.gone()
	b.post("/account/note", "text", "adas").wants(http.StatusUnauthorized)
	b.fill("/signin", "username", "bob", "password", secret).goes("/account").follow().wants(http.StatusOK, "hello "+bob.ID)
	b.get("/signout").wants(http.StatusOK, "It was dropped.")
	if len(w.sent) > 0 {
		t.Errorf("sent: %v", w.sent)
	}
}

// What is kept is bounded, and leads nowhere else.
func TestKeptFormIsChecked(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	b := w.browser()
	b.signIn("ada")
	b.gone()
	for what, body := range map[string]string{"too much": "text=" + strings.Repeat("x", maxKept), "much with escapes": "text=" + strings.Repeat("%22", maxKept/3),
		"many fields": strings.Repeat("text[]=&", maxFields+1), "many secrets": "code1=1&code2=1&code3=1&code4=1&code5=1&code6=1&code7=1&code8=1&code9=1"} {
		b.send(http.MethodPost, "/account/note", "application/x-www-form-urlencoded", body).wants(http.StatusUnauthorized, "Your session has ended. Sign in again.")
		if strings.Contains(b.Body, `name="kept"`) {
			t.Errorf("%s is kept", what)
		}
	}
	b.header.Set("Referer", "https://evil.test/account/note")
	b.post("/account/note", "text", "x").wants(http.StatusUnauthorized, `name="return" value="/account"`)
	b.header.Del("Referer")
	for what, k := range map[string]kept{
		"another site":         {Path: "https://evil.test/account/note", User: ada.ID},
		"another site, hidden": {Path: "//evil.test/account", User: ada.ID},
		"a script":             {Path: "javascript:alert(1)//account", User: ada.ID},
		"the sign-out":         {Path: "/signout", User: ada.ID},
		"nobody":               {Path: "/account/note"},
		"no form":              {Path: "/account/note", User: ada.ID, Form: "%zz"},
		"many fields":          {Path: "/account/note", User: ada.ID, Form: strings.Repeat("text[]=&", maxFields+1)},
		"many secrets":         {Path: "/account/note", User: ada.ID, Missing: make([]string, 9)},
	} {
		b := w.browser()
		b.get("/signin").fill("/signin", "username", "ada", "password", secret, "kept", k.String()).goes("/account")
		if b.Header.Get("Set-Cookie") == "" {
			t.Errorf("%s: there is no session", what)
		}
	}
	b = w.browser()
	b.get("/signin").fill("/signin", "username", "ada", "password", secret, "kept", "!!").goes("/account")
	// An address brings none along.
	good := kept{Path: "/account/note", User: ada.ID, Form: "text=evil"}
	if b.get("/signin?switch=1&kept=" + good.String()); strings.Contains(b.Body, "kept") {
		t.Error("an address has something kept")
	}
	if b.get("/account/note?text=x"); b.Status != http.StatusOK {
		t.Error(b.Status)
	}
}

// Something that needs a fresh authentication asks for it, and goes on with what was typed.
func TestAgain(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	b := w.browser()
	b.signIn("ada").goes("/account")
	former := b.cookie(page.SessionCookie)
	w.clock.pass(fresh + time.Second)
	b.get("/account/fresh?a=b").goes("/signin/again?return=%2Faccount%2Ffresh%3Fa%3Db").follow()
	b.wants(http.StatusOK, "Confirm that it is you", "ada", `autocomplete="current-password"`)
	fields := b.filled("/signin/again", "password", secret)
	b.fill("/signin/again").wants(http.StatusUnprocessableEntity, "Enter your password.")
	b.fill("/signin/again", "password", "wrong").wants(http.StatusUnauthorized, "is wrong.")
	b.post("/signin/again", fields...).goes("/account/fresh?a=b").follow().wants(http.StatusOK, "hello "+ada.ID)
	if b.cookie(page.SessionCookie) == former {
		t.Error("the cookie stays the same")
	}
	if _, err := w.login.Recognise(t.Context(), former); err == nil {
		t.Error("the former cookie is still good")
	}
	// The second of two clicks came with the former cookie.
	second := w.browser()
	second.has("__Host-watchword=" + former)
	second.post("/signin/again", fields...).goes("/signin?return=%2Faccount%2Ffresh%3Fa%3Db")
	b.get(second.Location).goes("/account/fresh?a=b")

	w.clock.pass(fresh + time.Second)
	b.post("/account/fresh", "text", "one").wants(http.StatusUnauthorized, "Confirm that it is you")
	b.fill("/signin/again", "password", "wrong").wants(http.StatusUnauthorized, "is wrong.")
	kept := b.filled("/signin/again", "password", secret)
	b.fill("/signin/again", "password", secret).wants(http.StatusOK, "Continue what you were doing?").fill("/account/fresh").goes("/account")
	if len(w.sent) != 1 || w.sent[0].Get("text") != "one" {
		t.Errorf("sent: %v", w.sent)
	}
	b.post("/signin/again", append(kept, "choose", "password")...).wants(http.StatusOK, `name="kept"`)
	b.gone()
	b.post("/signin/again", kept...).wants(http.StatusUnauthorized, "what you typed is kept")
	b.post("/signin/continue", kept...).wants(http.StatusUnauthorized, "what you typed is kept")
	b.get("/signin/again?return=/account/fresh").goes("/signin?return=%2Faccount%2Ffresh")
}

// A session of two factors stays one: no password is offered. Every factor will do.
func TestAgainByFactor(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	app := w.enrol(ada)
	b := w.browser()
	b.signIn("ada").follow().fill("/signin/factor", "code", app.next())
	w.clock.pass(fresh + time.Second)
	b.get("/signin/again").wants(http.StatusOK, "authenticator app shows now")
	if strings.Contains(b.Body, `type="password"`) {
		t.Error("a password is offered")
	}
	b.fill("/signin/again", "code", "000000").wants(http.StatusUnauthorized, "The code is wrong.")
	b.fill("/signin/again", "code", app.next()).goes("/account")
	b.get("/account/fresh").wants(http.StatusOK)
	if by, err := w.login.Recognise(t.Context(), b.cookie(page.SessionCookie)); err != nil || by.Token.ACR != "aal2" {
		t.Errorf("%+v, %v", by, err)
	}
	key := &passkeytest.Authenticator{Origin: issuer, Verifies: true}
	options, err := w.login.Factors.BeginPasskey(t.Context(), actorOf(w, b))
	if err != nil {
		t.Fatal(err)
	}
	made, err := key.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	by, err := w.login.Recognise(t.Context(), b.cookie(page.SessionCookie))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.login.ConfirmPasskey(t.Context(), by.Token, "", made, browserClient); err != nil {
		t.Fatal(err)
	}
	b = w.browser()
	b.signIn("ada").follow().fill("/signin/factor", "method", "totp", "code", app.next())
	b.get("/signin/again").wants(http.StatusOK, "Use your passkey", `href="/signin/again?method=totp"`)
	credential := ceremony(t, b, key.Get, "/signin/again/passkey/options", `{"step":""}`)
	b.get("/signin/again").fill("/signin/again", "credential", string(credential)).goes("/account")
	w.browser().json("/signin/again/passkey/options", `{}`).wants(http.StatusUnauthorized, "session_ended")
}
