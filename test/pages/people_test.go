package pages

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/test/browser"
	"github.com/watchword-auth/watchword/test/kit"
)

// A person sits at a browser, and signs in as a user.
type person struct {
	*browser.Browser
	t     *testing.T
	world *World
	User
}

// sits gives a user a browser of their own.
func (w *World) sits(t *testing.T, u User) *person {
	t.Helper()
	return &person{browser.New(t), t, w, u}
}

// sitsWithHistory is sits for a user who goes back to pages that were left.
func (w *World) sitsWithHistory(t *testing.T, u User) *person {
	t.Helper()
	return &person{browser.NewWithHistory(t), t, w, u}
}

// tab is another tab of the person's browser.
func (p *person) tab() *person {
	p.t.Helper()
	return &person{p.Browser.Tab(), p.t, p.world, p.User}
}

// open opens a path.
func (p *person) open(path string) {
	p.t.Helper()
	p.Open(p.world.Origin + path)
}

// types fills in the sign-in form, and sends it.
func (p *person) types(username, password string) {
	p.t.Helper()
	p.Fill("Username", username)
	p.Fill("Password", password)
	p.Follow("button", "Sign in")
}

// signsIn signs in by password, from anywhere.
func (p *person) signsIn() {
	p.t.Helper()
	p.open("/signin")
	p.types(p.Name, p.Password)
}

// in signs in by password alone, and is at the account.
func (p *person) in() *person {
	p.t.Helper()
	p.signsIn()
	p.at("/account", 200)
	return p
}

// at fails the test unless the page is of this address and status.
func (p *person) at(path string, status int) {
	p.t.Helper()
	if got := p.Path(); got != path || p.Status() != status {
		p.t.Fatalf("the page is %s (%d), not %s (%d)\n%s", got, p.Status(), path, status, p.Describe())
	}
}

// isOut fails the test unless the next page is the sign-in.
func (p *person) isOut() {
	p.t.Helper()
	p.open("/account")
	p.at("/signin", 200)
}

// isIn fails the test unless the next pages, of both replicas, are the person's own. The second
// one is not shown.
func (p *person) isIn() {
	p.t.Helper()
	p.open("/account")
	p.at("/account", 200)
	p.Sees(p.Name)
	next, err := p.Run(`const a = await fetch('/account'); return a.url.slice(location.origin.length) + ' ' + a.status + ' ' + await a.text()`, nil)
	if err != nil || !strings.HasPrefix(string(next), `"/account 200 `) || !strings.Contains(string(next), p.Name) {
		p.t.Fatalf("the next page is %.200s %v", next, err)
	}
}

// A totpApp is an authenticator app.
type totpApp struct {
	t      *testing.T
	secret string
	last   int64 // the step of the latest code
}

// next is a code that was not used before. It waits if the service would not take that yet.
func (a *totpApp) next() string {
	a.t.Helper()
	step := int64(mfatest.Step / time.Second)
	now := time.Now().Unix() / step
	a.last = max(a.last+1, now)
	for ; a.last > now+1; now = time.Now().Unix() / step {
		time.Sleep(200 * time.Millisecond)
	}
	return mfatest.Code(a.t, a.secret, time.Unix(a.last*step, 0))
}

// app gives a user an authenticator app and backup codes.
func (w *World) app(t *testing.T, u User) (*totpApp, []string) {
	t.Helper()
	client := w.client(t)
	token := client.LoginWith(u.Name, u.Password).AccessToken
	e := kit.Decode[httpapi.Enrolment](t, client.Want(client.Do("POST", "/api/mfa/totp", token, nil), 200, ""))
	a := &totpApp{t: t, secret: e.Secret}
	token = kit.Decode[httpapi.Grant](t, client.Want(client.Do("POST", "/api/mfa/totp/confirm", token, httpapi.Code{Code: a.next()}), 200, "")).AccessToken
	codes := kit.Decode[httpapi.BackupCodes](t, client.Want(client.Do("POST", "/api/mfa/backup-codes", token, nil), 200, "")).Codes
	client.Want(client.Do("POST", "/api/mfa/backup-codes/confirm", token, httpapi.Code{Code: codes[0]}), 200, "")
	return a, codes
}

// endSessions ends all sessions of a user, as an administrator.
func (w *World) endSessions(t *testing.T, u User) {
	t.Helper()
	w.API(t, "DELETE", "/api/users/"+u.ID+"/sessions", nil, http.StatusNoContent)
}

// recovery makes a recovery token, as an administrator.
func (w *World) recovery(t *testing.T, u User) string {
	t.Helper()
	return kit.Decode[httpapi.Recovery](t, w.API(t, "POST", "/api/users/"+u.ID+"/recovery", httpapi.NewRecovery{}, http.StatusCreated)).RecoveryToken
}

// addPasskey makes a passkey at the page for that.
func (p *person) addPasskey(name string) {
	p.t.Helper()
	p.open("/account/factors/passkeys")
	p.Fill("Name", name)
	p.Follow("button", "Make a passkey")
	p.at("/account/factors", 200)
	p.Sees(name)
}

// offersPasskey waits until the browser offers passkeys in the field of the username, so that a
// device that is touched from now on is touched for what comes next.
func (p *person) offersPasskey() {
	p.t.Helper()
	p.Until("performance.getEntriesByName(location.origin + '/signin/passkey/options').length > 0")
	// Nothing tells when the script that has got the options has asked the browser.
	_, _ = p.Run("await new Promise(resolve => setTimeout(resolve, 300))", nil)
}

// stops fails the test unless the Tab key stops at these, among others and in this order, and
// the focus is seen at each stop.
func (p *person) stops(want ...string) {
	p.t.Helper()
	order := p.TabOrder()
	at := 0
	for _, s := range order {
		if at < len(want) && s.Name == want[at] {
			at++
		}
		if !s.Visible {
			p.t.Errorf("one does not see that the %s %q has the focus", s.Role, s.Name)
		}
	}
	if at < len(want) {
		p.t.Errorf("the Tab key does not come to %q, or too early: %v", want[at], order)
	}
}

// cookieNames are the names of the browser's cookies.
func (p *person) cookieNames() (names []string) {
	p.t.Helper()
	for _, c := range p.Cookies() {
		names = append(names, c.Name)
	}
	return slices.Compact(names)
}

// query is a path with fields in its query.
func query(path string, fields ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		q.Set(fields[i], fields[i+1])
	}
	return path + "?" + q.Encode()
}

// word is a name that nobody else has.
func (w *World) word(begin string) string { return begin + "-" + strings.ToLower(rand.Text()[:8]) }
