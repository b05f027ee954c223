package account

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/store"
)

// The pages that are got, and those that are sent to.
var (
	gets = []string{
		overviewPath, sessionsPath, sessionsPath + "/end", sessionsPath + "/end-others", sessionsPath + "/end-all", factorsPath, totpPath,
		totpPath + "/remove", passkeysPath, passkeysPath + "/rename", passkeysPath + "/remove", codesPath, codesPath + "/remove", passwordPath, eventsPath,
	}
	posts = []string{
		sessionsPath + "/end", sessionsPath + "/end-others", sessionsPath + "/end-all", totpPath, totpPath + "/remove", passkeysPath,
		passkeysPath + "/rename", passkeysPath + "/remove", codesPath, codesPath + "/remove", passwordPath,
	}
)

func TestWithoutASession(t *testing.T) {
	w := newWorld(t)
	b := &browser{w: w, cookies: map[string]string{"watchword": "wwb_nothing"}}
	for _, path := range gets {
		b.get(path).says(http.StatusUnauthorized, "no session")
	}
	for _, path := range posts {
		b.post(path).says(http.StatusUnauthorized, "no session")
	}
}

// What changes something is asked for by POST, from pages of this site alone.
func TestOtherMethodsAndSites(t *testing.T) {
	w := newWorld(t)
	u := w.user("ada")
	b, other := w.signIn("ada", secret), w.signIn("ada", secret)
	for _, path := range append(slices.Clone(gets), posts...) {
		for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodPost} {
			if method == http.MethodPost && slices.Contains(posts, path) {
				continue
			}
			b.send(httptest.NewRequest(method, origin+path, nil)).says(http.StatusMethodNotAllowed)
		}
		b.get(path)
	}
	b.change = func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }
	for _, path := range append(slices.Clone(posts), passkeysPath+"/options") {
		b.post(path, "current_password", secret, "new_password", "another password", "id", "x").says(http.StatusForbidden)
	}
	b.change = func(r *http.Request) { r.Header.Set("Origin", "https://evil.test") }
	for _, path := range append(slices.Clone(posts), passkeysPath+"/options") {
		b.post(path).says(http.StatusForbidden)
	}
	b.change = nil
	if !b.live() || !other.live() {
		t.Error("a page of another site, or a GET, has ended a session")
	}
	if o := w.overview(u); len(o.Factors) != 0 {
		t.Errorf("%+v", o)
	}
	w.signIn("ada", secret)
}

func TestOverview(t *testing.T) {
	w := newWorld(t)
	u := w.user("ada")
	w.user("root", directory.UsersRead)
	b := w.signIn("ada", secret)
	b.get("/account").says(http.StatusOK, "ada", "Firefox on Linux", "192.0.2.7", "Only a password protects your account").saysNot(`href="/admin"`)
	b.enrol()
	b.get("/account").says(http.StatusOK, "You have no backup codes").saysNot("Only a password")
	w.signIn("root", secret).get("/account").says(http.StatusOK, `href="/admin"`)
	b.lang = "de"
	b.get("/account").says(http.StatusOK, "Ihr Konto", "Firefox auf Linux")
	if err := w.people.DeleteUser(t.Context(), directory.System(), u.ID); err != nil {
		t.Fatal(err)
	}
	b.get("/account").says(http.StatusUnauthorized)
}

func TestSessions(t *testing.T) {
	w := newWorld(t)
	w.user("ada")
	w.user("eve")
	b := w.signIn("ada", secret)
	w.clock.pass(time.Minute)
	phone := w.signInFrom("ada", secret, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1")
	third, eve := w.signIn("ada", secret), w.signIn("eve", secret)
	idOf := func(b *browser) string {
		t.Helper()
		return b.get(sessionsPath).find(`(?s)This session.*?/end\?id=([0-9a-f-]+)"`)
	}
	list := b.get(sessionsPath).says(http.StatusOK, "Safari on iPhone", "Firefox on Linux", "192.0.2.7", "This session")
	if n := strings.Count(list.Body.String(), "This session"); n != 1 {
		t.Errorf("%d sessions are this one", n)
	}

	// Of somebody else, there is no session.
	for _, id := range []string{idOf(eve), "", "x", "../" + idOf(phone), "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11", strings.Repeat("9", 9000)} {
		b.get(with(sessionsPath+"/end", "id", id)).says(http.StatusNotFound)
		b.post(sessionsPath+"/end", "id", id).says(http.StatusNotFound, "There is no such session", "Safari on iPhone")
	}
	if !eve.live() {
		t.Fatal("ada has ended a session of eve")
	}
	id := idOf(phone)
	b.get(with(sessionsPath+"/end", "id", id)).says(http.StatusOK, "Safari on iPhone", id)
	if !phone.live() {
		t.Fatal("the question has ended the session")
	}
	b.post(sessionsPath+"/end", "id", id).leads(sessionsPath)
	b.get(sessionsPath).says(http.StatusOK, "The session has ended.").saysNot("Safari on iPhone")
	b.post(sessionsPath+"/end", "id", id).says(http.StatusNotFound)
	if phone.live() || !b.live() || !third.live() {
		t.Error("not the one session has ended")
	}
	b.get(sessionsPath+"/end-others").says(http.StatusOK, "all your sessions but this one")
	b.post(sessionsPath + "/end-others").leads(sessionsPath)
	if third.live() || !b.live() || !eve.live() {
		t.Error("not the other sessions have ended")
	}
	b.get(sessionsPath).saysNot("End all others")
	b.get(with(sessionsPath+"/end", "id", idOf(b))).says(http.StatusOK, "sign out here")
	last := w.signIn("ada", secret)
	b.post(sessionsPath + "/end-all").leads("/signin?return=%2Faccount")
	if _, ok := b.cookies["watchword"]; ok || last.live() {
		t.Errorf("cookies %v; the last one lives: %t", b.cookies, last.live())
	}
	own := w.signIn("ada", secret)
	copied := own.clone()
	own.post(sessionsPath+"/end", "id", idOf(own)).leads("/signin?return=%2Faccount")
	if copied.live() {
		t.Error("the cookie of a session that was ended is good")
	}
}

func TestManySessions(t *testing.T) {
	w := newWorld(t)
	w.user("ada")
	for range sessionsAtOnce + 1 {
		w.signIn("ada", secret)
		w.clock.pass(2 * time.Second)
	}
	b := w.signIn("ada", secret)
	next := b.get(sessionsPath).says(http.StatusOK).find(`href="(/account/sessions\?after=[^"]+)"`)
	second := b.get(next).says(http.StatusOK, "Firefox on Linux")
	if n := strings.Count(second.Body.String(), "Firefox on Linux"); n != 2 {
		t.Errorf("%d sessions on the second page", n)
	}
	for _, after := range []string{"x", "../..", strings.Repeat("ab", 4000), "'; --"} {
		if a := b.get(with(sessionsPath, "after", after)); a.Code >= 500 {
			t.Errorf("after %.20q: %d %s", after, a.Code, a.Body)
		}
	}
}

func TestPassword(t *testing.T) {
	w := newWorld(t)
	w.user("ada")
	b, other := w.signIn("ada", secret), w.signIn("ada", secret)
	const next = " another battery <staple> "
	b.get(passwordPath).says(http.StatusOK, "All your other sessions end", "At least 8 characters", `autocomplete="new-password"`, `autocomplete="current-password"`)
	b.post(passwordPath, "current_password", "wrong one", "new_password", next).says(http.StatusUnauthorized, "The password is wrong.").saysNot("wrong one", "another battery")
	b.post(passwordPath, "current_password", secret, "new_password", "short").says(http.StatusUnprocessableEntity, "too short").saysNot(secret)
	b.post(passwordPath, "current_password", secret, "new_password", secret).says(http.StatusUnprocessableEntity, "your present password")
	b.post(passwordPath, "current_password", secret, "new_password", strings.Repeat("x", 2000)).says(http.StatusUnprocessableEntity, "too long")
	b.post(passwordPath, "current_password", secret).says(http.StatusUnprocessableEntity, "Type the new password")
	b.post(passwordPath).says(http.StatusUnprocessableEntity, "Type your present password")
	if !other.live() {
		t.Fatal("a refused change has ended a session")
	}
	copied := b.clone()
	b.cookies["watchword-device"] = "remembered"
	b.post(passwordPath, "current_password", secret, "new_password", next).leads("/account")
	b.get("/account").says(http.StatusOK, "Your password is changed.")
	if other.live() || copied.live() {
		t.Error("a session of before goes on")
	}
	if _, ok := b.cookies["watchword-device"]; ok {
		t.Error("the device is remembered")
	}
	// Sent twice, by the cookie of before.
	copied.post(passwordPath, "current_password", secret, "new_password", next).says(http.StatusUnauthorized, "no session")
	w.signIn("ada", next)
}

func TestTOTP(t *testing.T) {
	w := newWorld(t)
	u := w.user("ada")
	b, other := w.signIn("ada", secret), w.signIn("ada", secret)
	b.get(factorsPath).says(http.StatusOK, "Set up an app")
	b.get(totpPath).says(http.StatusOK, "Show the QR code")
	b.post(totpPath, "step", "confirm", "code", "123456").says(http.StatusConflict, "Begin again", "Show the QR code")
	b.post(totpPath).leads(totpPath)
	shown := b.get(totpPath).says(http.StatusOK, `src="data:image/svg+xml;base64,`, "otpauth://totp/")
	key := shown.find(`secret=([A-Z2-7]+)`)
	shown.says(http.StatusOK, grouped(key))
	b.post(totpPath, "step", "confirm", "code", b.wrong(key)).says(http.StatusUnauthorized, "The code is wrong", "secret="+key)
	b.post(totpPath, "step", "confirm", "code", "<b>12").says(http.StatusUnprocessableEntity, "no complete code", "secret="+key).saysNot("<b>12")
	b.post(totpPath, "step", "confirm").says(http.StatusUnprocessableEntity, "secret="+key)

	w.clock.pass(freshFor / 2)
	code := b.code(key)
	before := b.clone()
	b.post(totpPath, "step", "confirm", "code", code).leads(factorsPath)
	b.get(factorsPath).says(http.StatusOK, "The app is set up.", totpPath+"/remove")
	if other.live() || before.live() {
		t.Error("a session of before goes on")
	}
	before.post(totpPath, "step", "confirm", "code", code).says(http.StatusUnauthorized, "no session") // a double submit
	b.post(totpPath, "step", "confirm", "code", code).says(http.StatusConflict, "set up already")
	b.post(totpPath).says(http.StatusConflict, "set up already")
	b.get(totpPath).says(http.StatusConflict, "set up already")

	b.get(totpPath+"/remove").says(http.StatusOK, "your last second factor").saysNot("needs a second factor")
	b.post(totpPath + "/remove").leads(factorsPath)
	b.post(totpPath+"/remove").says(http.StatusNotFound, "no such factor")
	b.get(totpPath+"/remove").says(http.StatusNotFound, "no such factor")
	if o := w.overview(u); len(o.Factors) != 0 || !b.live() {
		t.Errorf("%+v", o)
	}
}

func TestTOTPExpires(t *testing.T) {
	w := newWorld(t)
	w.user("ada")
	b := w.signIn("ada", secret)
	w.clock.pass(freshFor / 2)
	b.post(totpPath).leads(totpPath)
	key := b.get(totpPath).find(`secret=([A-Z2-7]+)`)
	w.clock.pass(mfa.PendingFor)
	b = w.signIn("ada", secret)
	b.post(totpPath, "step", "confirm", "code", b.code(key)).says(http.StatusConflict, "That took too long", "Show the QR code").saysNot(key)
	b.get(totpPath).says(http.StatusOK).saysNot(key)
}

// A policy that asks for a factor lets the last one go, and the page says what comes of that.
func TestLastFactorUnderAPolicy(t *testing.T) {
	w := newWorld(t)
	u := w.user("root", directory.UsersRead)
	b := w.signIn("root", secret)
	b.enrol()
	w.factors.Policy.Claims = []directory.Right{{ShortName: directory.Admin}}
	b.get(factorsPath).says(http.StatusOK, "Your account needs a second factor.")
	b.get(totpPath+"/remove").says(http.StatusOK, "your last second factor", "Your account needs a second factor")
	b.post(totpPath + "/remove").leads(factorsPath)
	if o := w.overview(u); len(o.Factors) != 0 || !b.live() {
		t.Errorf("%+v, lives: %t", o, b.live())
	}
}

// A change after which no session could begin leads to the sign-in, which says what has happened.
func TestChangedWithoutASession(t *testing.T) {
	w := newWorld(t)
	u := w.user("root", directory.UsersRead)
	b := w.signIn("root", secret)
	b.enrol()
	w.factors.RememberDevice = time.Hour
	before := b.clone()
	before.cookies["watchword"] = w.remembered(u)
	w.factors.Policy.Claims = []directory.Right{{ShortName: directory.Admin}}
	before.post(totpPath + "/remove").leads("/signin?return=%2Faccount")
	if _, ok := before.cookies["watchword"]; ok || before.cookies["watchword-flash"] == "" {
		t.Errorf("%v", before.cookies)
	}
	if o := w.overview(u); len(o.Factors) != 0 {
		t.Errorf("%+v", o)
	}
}

// A session that ends while a form is on its way leads to the sign-in, as any other that has ended.
func TestEndedMeanwhile(t *testing.T) {
	w := newWorld(t)
	u := w.user("ada")
	for _, form := range [][]string{
		{passwordPath, "current_password", secret, "new_password", "another password"},
		{totpPath + "/remove"}, {passkeysPath + "/remove", "id", "x"}, {codesPath + "/remove"},
	} {
		b := w.signIn("ada", secret)
		w.meanwhile = func() {
			if err := w.login.EndAllSessions(t.Context(), w.superuser(), u.ID, login.Client{}); err != nil {
				t.Error(err)
			}
		}
		b.post(form[0], form[1:]...).says(http.StatusUnauthorized, "no session")
	}
	w.signIn("ada", secret)
}

// passkey has a browser make one by the pages.
func (b *browser) passkey(key *passkeytest.Authenticator, name string) answer {
	b.w.t.Helper()
	options := b.options().says(http.StatusOK)
	response, err := key.Create(options.Body.Bytes())
	if err != nil {
		b.w.t.Fatal(err)
	}
	return b.post(passkeysPath, "name", name, "credential", string(response))
}

func (b *browser) options() answer {
	b.w.t.Helper()
	r := httptest.NewRequest(http.MethodPost, origin+passkeysPath+"/options", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	return b.send(r)
}

const hostile = `<script>alert(1)</script>"'&{name}`

func TestPasskeys(t *testing.T) {
	w := newWorld(t)
	u := w.user("ada")
	w.user("eve")
	b, other, eve := w.signIn("ada", secret), w.signIn("ada", secret), w.signIn("eve", secret)
	b.get(passkeysPath).says(http.StatusOK, "<noscript>", `data-passkey-create="/account/factors/passkeys/options"`, "data-passkey-status", `name="credential"`)
	b.post(passkeysPath, "name", hostile).says(http.StatusUnprocessableEntity, "No passkey was made", `value="`+hostile).saysNot("<script>alert")
	b.post(passkeysPath, "credential", "{}").says(http.StatusConflict, "Begin again")
	b.options().says(http.StatusOK)
	b.post(passkeysPath, "credential", "{}", "name", "n").says(http.StatusUnprocessableEntity, `value="n"`)
	b.post(passkeysPath, "credential", "[[[[", "name", "n").says(http.StatusUnprocessableEntity)
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true, Synced: true}
	b.passkey(&passkeytest.Authenticator{Origin: origin}, strings.Repeat("é", 65)).says(http.StatusUnprocessableEntity, "at most 64")
	b.passkey(&passkeytest.Authenticator{Origin: "https://evil.test"}, "x").says(http.StatusUnauthorized, "not accepted")
	b.passkey(key, hostile).leads(factorsPath)
	list := b.get(factorsPath).says(http.StatusOK, hostile, "Synced between devices", "The passkey is added.").saysNot("<script>alert")
	if other.live() {
		t.Error("a session of before goes on")
	}
	id := list.find(`/rename\?id=([0-9a-f-]+)"`)

	// A passkey of somebody else is none.
	eve.passkey(&passkeytest.Authenticator{Origin: origin}, "").leads(factorsPath)
	for _, one := range []string{id, "", "x", strings.Repeat("9", 5000)} {
		eve.get(with(passkeysPath+"/rename", "id", one)).says(http.StatusNotFound).saysNot(hostile)
		eve.get(with(passkeysPath+"/remove", "id", one)).says(http.StatusNotFound)
		eve.post(passkeysPath+"/rename", "id", one, "name", "eve's").says(http.StatusNotFound, "no such factor")
		eve.post(passkeysPath+"/remove", "id", one).says(http.StatusNotFound, "no such factor")
	}
	// An authenticator app is no passkey.
	if o := w.overview(u); len(o.Factors) != 1 || o.Factors[0].Name != hostile {
		t.Fatalf("%+v", o)
	}

	b.get(with(passkeysPath+"/rename", "id", id)).says(http.StatusOK, `value="`+hostile).saysNot("<script>alert")
	b.post(passkeysPath+"/rename", "id", id, "name", " ").says(http.StatusUnprocessableEntity, "Choose a name")
	b.post(passkeysPath+"/rename", "id", id, "name", "a\u202eb").says(http.StatusUnprocessableEntity, "Choose a name")
	b.post(passkeysPath+"/rename", "id", id, "name", "Laptop").leads(factorsPath)
	b.get(factorsPath).says(http.StatusOK, "Laptop", "The passkey has its new name.")
	w.clock.pass(2 * time.Second)
	b.get(with(passkeysPath+"/remove", "id", id)).says(http.StatusOK, "“Laptop”", "your last second factor")
	b.post(passkeysPath+"/remove", "id", id).leads(factorsPath)
	b.get(factorsPath).says(http.StatusOK, "The passkey is removed.").saysNot("Laptop")
}

// A passkey whose counter went back has a warning on both pages.
func TestCopiedPasskey(t *testing.T) {
	w := newWorld(t)
	u := w.user("ada")
	b := w.signIn("ada", secret)
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	b.passkey(key, hostile).leads(factorsPath)
	stored, err := w.store.User(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		challenge, _, err := w.factors.Begin(t.Context(), stored, "", "")
		if err != nil {
			t.Fatal(err)
		}
		options, err := w.factors.PasskeyOptions(t.Context(), challenge.Token, "")
		if err != nil {
			t.Fatal(err)
		}
		response, err := key.Get(options)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.factors.Complete(t.Context(), challenge.Token, mfa.Answer{Method: mfa.Passkey, Credential: response}, "")
		key.Held[0].Counter = 0
	}
	b.get("/account").says(http.StatusOK, "may have been copied")
	b.get(factorsPath).says(http.StatusOK, "“"+hostile+"” may have been copied", "Maybe copied").saysNot("<script>alert")
}

func TestBackupCodes(t *testing.T) {
	w := newWorld(t)
	u := w.user("ada")
	b := w.signIn("ada", secret)
	b.get(codesPath).says(http.StatusConflict, "Set up a passkey or an authenticator app first")
	b.post(codesPath).says(http.StatusConflict, "Set up a passkey or an authenticator app first")
	b.post(codesPath, "step", "confirm", "code", "0123456789abcdef").says(http.StatusConflict, "Begin again")
	b.enrol()
	b.get(codesPath).says(http.StatusOK, "Make backup codes")
	codes := func(a answer) []string {
		return regexp.MustCompile(`[0-9a-z]{4}(?:-[0-9a-z]{4}){3}`).FindAllString(a.find(`(?s)<pre[^>]*>(.*?)</pre>`), -1)
	}
	first := codes(b.post(codesPath).says(http.StatusOK, "shown this once", "data-print"))
	second := codes(b.post(codesPath).says(http.StatusOK))
	if len(first) != 10 || len(second) != 10 || first[0] == second[0] {
		t.Fatalf("%q %q", first, second)
	}
	b.post(codesPath, "step", "confirm", "code", first[0]).says(http.StatusUnauthorized, "The code is wrong", "make new ones").saysNot(second[0])
	b.post(codesPath, "step", "confirm", "code", "no").says(http.StatusUnprocessableEntity, "no complete code")
	b.post(codesPath, "step", "confirm", "code", strings.ToUpper(second[9])).leads(factorsPath)
	b.get(factorsPath).says(http.StatusOK, "You have 10 of them", "10 left").saysNot(second[0])
	b.post(codesPath, "step", "confirm", "code", second[9]).says(http.StatusConflict)
	stored, err := w.store.User(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range second[:8] {
		challenge, _, err := w.factors.Begin(t.Context(), stored, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.factors.Complete(t.Context(), challenge.Token, mfa.Answer{Method: mfa.BackupCode, Code: code}, ""); err != nil {
			t.Fatal(err)
		}
	}
	b.get("/account").says(http.StatusOK, "few backup codes left: 2")
	b.get(factorsPath).says(http.StatusOK, "few backup codes left: 2")
	b.get(codesPath).says(http.StatusOK, "New codes replace")
	b.get(codesPath+"/remove").says(http.StatusOK, "cannot sign in without them")
	b.post(codesPath + "/remove").leads(factorsPath)
	b.post(codesPath+"/remove").says(http.StatusNotFound, "no such factor")
}

// What changes by what somebody authenticates needs a fresh authentication, and changes nothing before.
func TestReauthenticate(t *testing.T) {
	w := newWorld(t)
	u := w.user("ada")
	b := w.signIn("ada", secret)
	b.passkey(&passkeytest.Authenticator{Origin: origin}, "Key").leads(factorsPath)
	id := w.overview(u).Factors[0].ID
	w.clock.pass(freshFor + time.Second)
	for _, path := range []string{totpPath, passkeysPath} {
		b.get(path).says(http.StatusUnauthorized, "reauthenticate")
	}
	for _, form := range [][]string{
		{totpPath}, {totpPath, "step", "confirm", "code", "123456"}, {totpPath + "/remove"}, {passkeysPath}, {passkeysPath, "credential", "{}"},
		{passkeysPath + "/rename", "id", id, "name", "Other"}, {passkeysPath + "/remove", "id", id},
		{codesPath}, {codesPath, "step", "confirm", "code", "0123456789abcdef"}, {codesPath + "/remove"},
	} {
		b.post(form[0], form[1:]...).says(http.StatusUnauthorized, "reauthenticate")
	}
	b.options().says(http.StatusUnauthorized, "reauthentication_required")
	if o := w.overview(u); len(o.Factors) != 1 || o.Factors[0].Name != "Key" || !b.live() {
		t.Errorf("%+v", o)
	}
	b.post(passwordPath, "current_password", secret, "new_password", "another password").leads("/account") // proves who they are itself
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	u, eve := w.user("ada"), w.user("eve")
	b := w.signIn("ada", secret)
	b.enrol()
	record := func(e store.AuditEvent) { w.trail.Record(t.Context(), e) }
	record(store.AuditEvent{Actor: eve.ID, Action: "user.update", Target: u.ID, Outcome: audit.OK, Address: "198.51.100.66", Detail: "changed email"})
	record(store.AuditEvent{Action: "login", Target: u.ID, Outcome: audit.Denied, Address: "203.0.113.9", Detail: "invalid_credentials"})
	record(store.AuditEvent{Actor: u.ID, Action: "user.delete", Target: eve.ID, Outcome: audit.Failed, Detail: hostile})
	record(store.AuditEvent{Actor: u.ID, Action: hostile, Target: hostile, Outcome: hostile, Address: hostile, Detail: hostile})
	record(store.AuditEvent{Actor: u.ID, Action: "step_up", Outcome: audit.Denied, Detail: "3 times; invalid_code"})
	record(store.AuditEvent{Actor: u.ID, Action: "error.title", Outcome: audit.OK, Detail: "..error.title"})
	record(store.AuditEvent{Actor: eve.ID, Action: "user.password", Target: eve.ID, Outcome: audit.OK, Address: "198.51.100.77"})
	b.get(eventsPath).says(http.StatusOK,
		"Set-up of a second factor", "Authenticator app", "Creation of your account", "This service", "Sign-in", "Change of your account's details", "An administrator",
		"203.0.113.9", "The password is wrong.", "Refused", "Unknown", "Deletion of a user", "Failed", "Other event: "+hostile, "3 times: The code is wrong.", "..error.title",
	).saysNot("<script>alert", "198.51.100.77", "198.51.100.66")
	b.lang = "de"
	b.get(eventsPath).says(http.StatusOK, "Anmeldung", "Abgelehnt", "Das Passwort ist falsch.", "der Administration")
	for range 2 * eventsAtOnce {
		record(store.AuditEvent{Actor: u.ID, Action: "logout", Outcome: audit.OK})
	}
	seen, path := 0, eventsPath
	for pages := 0; path != ""; pages++ {
		a := b.get(path).says(http.StatusOK)
		seen += strings.Count(a.Body.String(), "<td>Abmeldung") + strings.Count(a.Body.String(), "<td>\n\t\t\t\t\t\tAbmeldung")
		m := regexp.MustCompile(`href="(/account/events\?after=[^"]+)"[^>]*rel="next"`).FindStringSubmatch(a.Body.String())
		if path = ""; m != nil && pages < 10 {
			path = m[1]
		}
	}
	if seen != 2*eventsAtOnce {
		t.Errorf("%d sign-outs on all pages", seen)
	}
	for _, after := range []string{"x", strings.Repeat("ab", 4000), "'; --"} {
		if a := b.get(with(eventsPath, "after", after)); a.Code >= 500 {
			t.Errorf("after %.20q: %d %s", after, a.Code, a.Body)
		}
	}
}

// What a client says of itself stands in pages as text.
func TestHostileInput(t *testing.T) {
	w := newWorld(t)
	w.user("ada")
	b := w.signInFrom("ada", secret, hostile+"\u202e"+strings.Repeat("x", 3000))
	b.get("/account").says(http.StatusOK, hostile).saysNot("<script>alert", "\u202e", strings.Repeat("x", 100))
	b.get(sessionsPath).says(http.StatusOK, hostile).saysNot("<script>alert", "\u202e", strings.Repeat("x", 100))
	for _, path := range posts {
		for _, value := range []string{"\x00", "a\x00b", "\xff\xfe", strings.Repeat("9", 60000), hostile} {
			a := b.post(path+"", "id", value, "code", value, "name", value, "credential", value, "step", value, "current_password", value, "new_password", value)
			if a.Code >= 500 || strings.Contains(a.Body.String(), "<script>alert") {
				t.Errorf("%s with %.9q: %d", path, value, a.Code)
			}
			b = w.signIn("ada", secret) // as of /end-all
		}
	}
	b.post(passwordPath, "current_password", strings.Repeat("x", 70<<10)).says(http.StatusRequestEntityTooLarge)
}

// Every text that these pages ask for is in both languages, with the same arguments.
func TestTexts(t *testing.T) {
	texts := map[string]map[string]string{}
	for _, lang := range []string{"en", "de"} {
		b, err := os.ReadFile(filepath.Join("..", "page", "lang", lang+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]string
		if err := yaml.Unmarshal(b, &all); err != nil {
			t.Fatal(err)
		}
		texts[lang] = all
	}
	var source strings.Builder
	files, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_templ.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	for _, key := range regexp.MustCompile(`"(account\.[a-z_.]*[a-z])"`).FindAllStringSubmatch(source.String(), -1) {
		if texts["en"][key[1]] == "" && key[1] != scriptName {
			t.Errorf("no text %s", key[1])
		}
	}
	families := []string{"advice", "method", "event", "detail", "error", "outcome"} // whose keys are put together
	for key, english := range texts["en"] {
		if !strings.HasPrefix(key, "account.") {
			continue
		}
		german := texts["de"][key]
		if german == "" {
			t.Errorf("no German text %s", key)
		}
		arguments := func(text string) []string {
			all := regexp.MustCompile(`\{[a-z]+\}`).FindAllString(text, -1)
			slices.Sort(all)
			return all
		}
		if !slices.Equal(arguments(english), arguments(german)) {
			t.Errorf("%s: %q and %q", key, english, german)
		}
		if !slices.Contains(families, strings.Split(key, ".")[1]) && !strings.Contains(source.String(), `"`+key+`"`) {
			t.Errorf("nothing says %s", key)
		}
	}
	for key := range texts["de"] {
		if _, ok := texts["en"][key]; strings.HasPrefix(key, "account.") && !ok {
			t.Errorf("no English text %s", key)
		}
	}
}
