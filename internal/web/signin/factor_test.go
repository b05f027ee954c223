package signin

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// A second factor is asked for, wrong ones are refused in words, and the right one signs in.
func TestFactor(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	app := w.enrol(ada)
	b := w.browser()
	b.get("/account/note").follow()
	b.fill("/signin", "username", "ada", "password", secret).goes("/signin/factor").follow()
	b.wants(http.StatusOK, "Signing in as", "<strong>ada</strong>", "Not you?", `autocomplete="one-time-code"`, "on this device in the next 30 days")
	if b.cookie(page.SessionCookie) != "" {
		t.Fatal("there is a session before the second step")
	}
	b.fill("/signin/factor", "code", "12345").wants(http.StatusUnprocessableEntity)
	b.fill("/signin/factor", "code", "000000").wants(http.StatusUnauthorized, "The code is wrong.")
	if strings.Contains(b.Body, "000000") {
		t.Error("a code is shown again")
	}
	b.get("/account").goes("/signin") // nobody is signed in yet
	b.get("/signin/factor").wants(http.StatusOK)
	b.fill("/signin/factor", "code", app.next(), "remember_device", "on").goes("/account/note").follow().wants(http.StatusOK, "hello "+ada.ID)
	// The back button leads to no form that could not be sent.
	b.get("/signin/factor").goes("/signin").follow().wants(http.StatusOK, "hello")
	// The device is known.
	b.get("/signout").fill("/signout").goes("/signin").follow().wants(http.StatusOK, "You are signed out.")
	b.signIn("ada").goes("/account")
	// Of another user it is not.
	bob := w.user("bob")
	w.enrol(bob)
	b.signIn("bob").goes("/signin/factor")
}

// A device is only remembered where that is on.
func TestDeviceIsNotRemembered(t *testing.T) {
	w := newWorld(t, func(s *setting) { s.remember = 0 })
	app := w.enrol(w.user("ada"))
	b := w.browser()
	b.signIn("ada").follow().wants(http.StatusOK)
	if strings.Contains(b.Body, "remember_device") {
		t.Error("the page offers to remember the device")
	}
	b.fill("/signin/factor", "code", app.next(), "remember_device", "on").goes("/account")
	if b.cookie(page.DeviceCookie) != "" {
		t.Error("the device is remembered")
	}
}

// A backup code signs in, and few of them are said.
func TestBackupCode(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	w.enrol(ada)
	actor := directory.Authenticated(ada.ID, "", w.clock.now())
	codes, err := w.login.Factors.BeginBackupCodes(t.Context(), actor)
	if err != nil {
		t.Fatal(err)
	}
	now, err := w.store.User(t.Context(), ada.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.login.Factors.ConfirmBackupCodes(t.Context(), actor, now.SessionEpoch, codes[0]); err != nil {
		t.Fatal(err)
	}
	b := w.browser()
	b.signIn("ada").follow().wants(http.StatusOK, `href="/signin/factor?method=backup_code"`)
	b.get("/signin/factor?method=backup_code").fill("/signin/factor", "code", codes[0]).goes("/account")
	b.signIn("ada").follow().get("/signin/factor?method=backup_code").fill("/signin/factor", "code", codes[0]).wants(http.StatusUnauthorized, "This code has been used already.", "Backup code")
	for i, one := range codes[1:] {
		b.fill("/signin/factor", "code", one).goes("/account")
		b.get("/signout")
		want := map[int]string{6: "", 7: "", 8: "That was your last backup code."}
		if i == 7 {
			want[7] = "You have one backup code left."
		}
		if i == 6 {
			want[6] = "You have 2 backup codes left."
		}
		b.wants(http.StatusOK, want[i])
		if i < len(codes)-2 {
			b.signIn("ada").follow().get("/signin/factor?method=backup_code")
		}
	}
	// None is left, so that the page does not offer it, whatever is asked for.
	b.signIn("ada").follow().get("/signin/factor?method=backup_code").wants(http.StatusOK, "authenticator app shows now")
}

// Five wrong codes end a sign-in, which is said where it begins again.
func TestTooManyWrongCodes(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol(w.user("ada"))
	b := w.browser()
	b.get("/signin?return=/account/note").fill("/signin", "username", "ada", "password", secret).follow()
	for range mfa.MaxWrong {
		b.fill("/signin/factor", "code", "000000").wants(http.StatusUnauthorized)
	}
	b.fill("/signin/factor", "code", "000000").follow().wants(http.StatusOK, "This sign-in has ended", `value="/account/note"`)
	b.fill("/signin", "username", "ada", "password", secret).goes("/signin/factor")
}

// A form that waited too long leads back to the beginning, and to where it was to lead after that.
func TestOldForm(t *testing.T) {
	w := newWorld(t, nil)
	app := w.enrol(w.user("ada"))
	b := w.browser()
	b.get("/signin?return=/account/note").fill("/signin", "username", "ada", "password", secret).follow().wants(http.StatusOK)
	w.clock.pass(mfa.TokenFor)
	b.fill("/signin/factor", "code", app.next()).follow().wants(http.StatusOK, "This sign-in has ended or took too long.", `value="/account/note"`)
	b.get("/signin/factor").goes("/signin")
}

// A second click sends the same form again. It is no error, whichever of both is answered first.
func TestDoubleClick(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	app := w.enrol(ada)
	b := w.browser()
	b.get("/signin?return=/account/note").fill("/signin", "username", "ada", "password", secret).follow()
	fields := b.filled("/signin/factor", "code", app.next())
	b.post("/signin/factor", fields...).goes("/account/note")
	b.post("/signin/factor", fields...).goes("/account/note").follow().wants(http.StatusOK, "hello "+ada.ID)

	// Both are sent before an answer has come: they have the same cookies. The browser shows
	// the answer to the second one, with the cookies of both.
	b.signIn("ada").follow()
	fields = b.filled("/signin/factor", "code", app.next())
	waits, former := b.cookie(page.SignInCookie), b.cookie(page.SessionCookie)
	b.post("/signin/factor", fields...).goes("/account")
	second := w.browser()
	second.has("__Host-watchword-signin=" + waits + "; __Host-watchword=" + former)
	second.post("/signin/factor", fields...)
	if second.Status != http.StatusSeeOther || !strings.HasPrefix(second.Location, "/signin?ended=") {
		t.Fatalf("the second request: %d %s", second.Status, second.Location)
	}
	b.get(second.Location).goes("/account").follow().wants(http.StatusOK, "hello "+ada.ID)

	// The password twice.
	bob := w.user("bob")
	b = w.browser()
	fields = b.get("/signin").filled("/signin", "username", "bob", "password", secret)
	b.post("/signin", fields...).goes("/account")
	b.post("/signin", fields...).goes("/account").follow().wants(http.StatusOK, "hello "+bob.ID)
	if list, _, err := w.login.Sessions.List(t.Context(), bob.ID, "", 10); err != nil || len(list) != 1 {
		t.Errorf("bob has %d sessions, %v", len(list), err)
	}
}

// At the same moment one of many succeeds, and none of the others says that something is wrong.
func TestDoubleClickAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	app := w.enrol(w.user("ada"))
	b := w.browser()
	b.signIn("ada").follow()
	fields := b.filled("/signin/factor", "code", app.next())
	waits := b.cookie(page.SignInCookie)
	var wait sync.WaitGroup
	var mu sync.Mutex
	count := map[string]int{}
	for range 4 {
		one := w.browser()
		one.has("__Host-watchword-signin=" + waits)
		wait.Go(func() {
			one.post("/signin/factor", fields...)
			to, _, _ := strings.Cut(one.Location, "?")
			mu.Lock()
			defer mu.Unlock()
			count[to]++
		})
	}
	wait.Wait()
	if count["/account"] != 1 || count["/signin"]+count[""] != 3 {
		t.Errorf("the answers led to %v", count)
	}
}

// Two tabs work at two sign-ins. The one whose cookie is gone says so, and harms nobody.
func TestTwoTabs(t *testing.T) {
	w := newWorld(t, nil)
	ada, bob := w.user("ada"), w.user("bob")
	adas, bobs := w.enrol(ada), w.enrol(bob)
	b := w.browser()
	b.signIn("ada").follow()
	first := b.filled("/signin/factor", "code", adas.next())
	b.signIn("bob").follow()
	b.post("/signin/factor", first...).wants(http.StatusConflict, "bob has begun to sign in in another tab since.", "<strong>bob</strong>")
	b.fill("/signin/factor", "code", bobs.next()).goes("/account").follow().wants(http.StatusOK, "hello "+bob.ID)
	// The first tab once more: who is signed in stays so, and the page says that it is bob.
	b.post("/signin/factor", first...).follow().wants(http.StatusOK, "This sign-in has ended", "You are signed in as", "bob")
	b.get("/account").wants(http.StatusOK, "hello "+bob.ID)
}

// Who signs in as somebody else leaves the session that they had.
func TestSwitch(t *testing.T) {
	w := newWorld(t, nil)
	ada, bob := w.user("ada"), w.user("bob")
	app := w.enrol(bob)
	b := w.browser()
	b.signIn("ada").goes("/account")
	former := b.cookie(page.SessionCookie)
	b.signIn("bob").follow()
	b.get("/account").wants(http.StatusOK, "hello "+ada.ID) // bob may have been a mistake
	b.get("/signin/factor").fill("/signin/factor", "code", app.next()).goes("/account").follow().wants(http.StatusOK, "hello "+bob.ID)
	if by, err := w.login.Recognise(t.Context(), former); err == nil {
		t.Errorf("the former session goes on: %+v", by)
	}
}

// A passkey answers as the second step, and alone.
func TestPasskey(t *testing.T) {
	w := newWorld(t, func(s *setting) { s.policy.Always = true })
	ada := w.user("ada")
	key := &passkeytest.Authenticator{Origin: issuer, Verifies: true}
	b := w.browser()
	b.signIn("ada").goes("/signin/enrol").follow().wants(http.StatusOK, "Your account needs a second factor", "Create a passkey", "data-create")
	step := step(b)
	credential := ceremony(t, b, key.Create, "/signin/enrol/passkey/options", `{"step":"`+step+`"}`)
	b.get("/signin/enrol").fill("/signin/enrol", "method", "passkey", "credential", "{}").wants(http.StatusUnprocessableEntity)
	b.fill("/signin/enrol", "method", "passkey", "credential", string(credential)).goes("/signin/enrolled").follow().wants(http.StatusOK, "Make backup codes")
	b.get("/account").wants(http.StatusOK, "hello "+ada.ID)

	// As the second step.
	b = w.browser()
	b.signIn("ada").goes("/signin/factor").follow().wants(http.StatusOK, "Use your passkey")
	b.fill("/signin/factor", "credential", "{}").wants(http.StatusConflict) // nothing was asked for
	credential = ceremony(t, b, key.Get, "/signin/factor/passkey/options", `{"step":"`+stepOf(t, b)+`"}`)
	b.get("/signin/factor").fill("/signin/factor", "credential", string(credential)).goes("/account").follow().wants(http.StatusOK, "hello "+ada.ID)

	// Alone.
	b = w.browser()
	b.json("/signin/passkey", `{"credential":{},"return":""}`).wants(http.StatusUnprocessableEntity, "cookies_refused")
	b.get("/signin")
	credential = ceremony(t, b, key.Get, "/signin/passkey/options", `{}`)
	b.json("/signin/passkey", `{"credential":`+string(credential)+`,"return":"//evil.test"}`).wants(http.StatusOK, `{"location":"/account"}`)
	b.get("/account").wants(http.StatusOK, "hello "+ada.ID)
	b.json("/signin/passkey", `{"credential":`+string(credential)+`,"return":""}`).wants(http.StatusUnauthorized, "passkey_refused", "The passkey was not accepted.")
}

// step is the one of the page's forms.
func step(b *browser) string {
	form := b.filled("/signin/enrol")
	for i := 0; i < len(form); i += 2 {
		if form[i] == "step" {
			return form[i+1]
		}
	}
	return ""
}

func stepOf(t *testing.T, b *browser) string {
	t.Helper()
	form := b.filled("/signin/factor")
	for i := 0; i < len(form); i += 2 {
		if form[i] == "step" {
			return form[i+1]
		}
	}
	t.Fatal("the form has no step")
	return ""
}

// ceremony asks for options, and has the authenticator answer them.
func ceremony(t *testing.T, b *browser, do func(json.RawMessage) (json.RawMessage, error), path, body string) json.RawMessage {
	t.Helper()
	b.json(path, body).wants(http.StatusOK)
	if kind := b.Header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("the options are %s", kind)
	}
	answer, err := do(json.RawMessage(b.Body))
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// An app is enrolled in the course of a sign-in. The picture stays the same however often it is
// looked at.
func TestEnrolTOTP(t *testing.T) {
	w := newWorld(t, func(s *setting) { s.policy.Always = true })
	ada := w.user("ada")
	b := w.browser()
	b.get("/signin?return=/account/note").fill("/signin", "username", "ada", "password", secret).goes("/signin/enrol").follow()
	b.wants(http.StatusOK, "Set up an app").fill("/signin/enrol", "method", "totp", "begin", "1").goes("/signin/enrol?method=totp").follow()
	b.wants(http.StatusOK, `src="data:image/svg+xml;base64,`, "otpauth://totp/")
	if strings.Contains(b.Body, "about:invalid") {
		t.Fatal("a link is not shown")
	}
	one := secretIn(t, b)
	b.fill("/signin/enrol", "code", "000000").wants(http.StatusUnauthorized, "The code is wrong.", `src="data:image/svg+xml;base64,`)
	if secretIn(t, b) != one {
		t.Error("a wrong code gives another secret")
	}
	b.fill("/signin/enrol", "code", (&app{w, one}).next()).goes("/signin/enrolled?return=%2Faccount%2Fnote").follow()
	b.wants(http.StatusOK, "Make backup codes", `href="/account/note"`)
	b.get("/account").wants(http.StatusOK, "hello "+ada.ID)
	if strings.Contains(w.log.String(), one) {
		t.Error("the secret is logged")
	}
}

func secretIn(t *testing.T, b *browser) string {
	t.Helper()
	_, rest, ok := strings.Cut(b.Body, "secret=")
	if !ok {
		t.Fatalf("the page has no secret:\n%s", b.Body)
	}
	end := strings.IndexFunc(rest, func(c rune) bool { return (c < 'A' || c > 'Z') && (c < '2' || c > '7') })
	return rest[:end]
}

// What waits for its first step too long leaves the choice.
func TestEnrolLate(t *testing.T) {
	w := newWorld(t, func(s *setting) { s.policy.Always = true })
	w.user("ada")
	b := w.browser()
	b.signIn("ada").follow().get("/signin/enrol?method=totp").wants(http.StatusOK, "Set up an app") // not begun: the address alone begins nothing
	b.fill("/signin/enrol", "method", "totp", "begin", "1").follow()
	w.clock.pass(mfa.PendingFor + time.Second)
	b.fill("/signin/enrol", "code", "000000").follow().wants(http.StatusOK, "This sign-in has ended")
}
