package pages

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/browser"
	"github.com/watchword-auth/watchword/test/kit"
)

func contains(text string, parts ...string) bool {
	for _, part := range parts {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// payloads would run in a page that shows them as anything but text: each calls alert, which
// fails the test, or breaks the Content-Security-Policy, which does so too.
var payloads = []string{
	`"><img src=x onerror=alert(1)>`,
	`'><svg onload=alert(1)>`,
	`" autofocus onfocus="alert(1)`,
	`</title></textarea><script>alert(1)</script>`,
	`<script>alert(1)</script>`,
	`<iframe srcdoc="<script>alert(1)</script>">`,
	`javascript:alert(1)`,
	`<a href=javascript:alert(1)>x</a>`,
	`{{constructor.constructor('alert(1)')()}}`,
	`<b style="position:fixed">x</b>`,
	`<meta http-equiv=refresh content=0;//evil>`,
	"\u202e<x onclick=alert(1)>",
}

// alive are the parts of a page that only a payload can have made.
const alive = `script:not([src]), img[src=x], svg[onload], iframe, [onfocus], [onclick], [onerror], a[href^="javascript:"], [style], meta[http-equiv]`

// harmless fails the test if something of the payload has become a part of the page. Dialogs and
// violations of the policy fail it anyway.
func (p *person) harmless(what string) {
	p.t.Helper()
	found := browser.Eval[[]string](p.Browser, "[...document.querySelectorAll('"+alive+"')].map(e => e.outerHTML)")
	for _, e := range found {
		p.t.Errorf("%s: the page has %s", what, e)
	}
}

// answerIsHarmless is harmless for the answer to a request of the page, which the browser parses
// as a document and does not show.
func (p *person) answerIsHarmless(path string) {
	p.t.Helper()
	found, err := p.Run(`const answer = await fetch(x.path), page = new DOMParser().parseFromString(await answer.text(), 'text/html');
		return page.querySelector('main') ? [...page.querySelectorAll(x.alive)].map(e => e.outerHTML) : ['no page: ' + answer.status]`,
		map[string]string{"path": path, "alive": alive})
	if err != nil || string(found) != "[]" {
		p.t.Errorf("%s: the page has %s %v", path, found, err)
	}
}

// What people, devices and links say is shown as text.
func TestScriptsInText(t *testing.T) {
	w := world(t)
	client := w.client(t)
	u := w.User(t, "xss")
	p := w.sits(t, u)
	device := p.AddAuthenticator(browser.Options{})
	p.in()
	p.addPasskey("<script>alert(1)</script>")
	device.SetPresent(false)
	p.Sees("<script>alert(1)</script>")
	tab := p.tab()
	named := 0
	for i, text := range payloads[:4] { // one for each context; the others are below
		// Who they are. Some of it cannot be a username.
		seen := strings.TrimPrefix(text, "\u202e")
		name := fmt.Sprint(text, i)
		if a := client.Do("PATCH", "/api/users/"+u.ID, w.Admin(t), map[string]any{"username": name}); a.Status == http.StatusOK {
			named++
		} else {
			name = u.Name
		}
		w.API(t, "PATCH", "/api/users/"+u.ID, map[string]any{"first_name": seen, "last_name": seen}, http.StatusOK)
		p.open("/account")
		p.Sees(name, seen+" "+seen)
		p.harmless("an account")
		w.API(t, "PATCH", "/api/users/"+u.ID, map[string]any{"username": u.Name}, http.StatusOK)
		// What their passkey is called.
		p.open("/account/factors")
		p.Follow("link", "Rename")
		p.Fill("Name", seen)
		p.Follow("button", "Rename")
		p.Sees(seen)
		p.harmless("the name of a passkey")
		p.Click("link", "Remove")
		p.In("dialog").Sees("You are about to remove the passkey “" + seen + "”.")
		p.harmless("a question")
		// What a link says, and a form was refused with.
		tab.open(query("/signin", "switch", "1", "return", "/account?x="+text, "ui_locales", text, "ended", text, "method", text, "kept", text))
		tab.harmless("a link to the sign-in")
		tab.types(text, "wrong")
		tab.harmless("a refusal")
		if got := tab.Value("Username"); got != text {
			t.Errorf("the form has %q instead of %q", got, text)
		}
	}
	if named == 0 {
		t.Errorf("%d payloads can be usernames", named)
	}
	// What their devices say they are.
	other := w.User(t, "xssdevice")
	for _, text := range payloads {
		r := client.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: other.Name, Password: other.Password})
		r.Header.Set("User-Agent", text)
		client.Want(client.Send(r), http.StatusOK, "")
	}
	p.open("/signin?switch=1")
	p.types(other.Name, other.Password)
	p.open("/account/sessions")
	for _, text := range payloads {
		p.Sees(strings.TrimPrefix(text, "\u202e"))
	}
	p.harmless("the sessions")
	p.open("/account/events")
	p.harmless("the events")
}

// A link leads nowhere else after a sign-in.
func TestReturnStaysHere(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "return"))
	for _, to := range []string{
		"https://evil.test/", "//evil.test/account", `/\evil.test/account`, "javascript:alert(1)", // browsers read these in ways of their own
	} {
		p.open(query("/signin", "return", to))
		p.types(p.Name, p.Password)
		if got := p.URL(); !strings.HasPrefix(got, w.Origin+"/account") {
			t.Errorf("%q leads to %s", to, got)
		}
		p.DeleteCookies()
	}
}

// A page of another port of this host is of the same site, so that cookies go along; one of
// another host is not. Neither can send a form, nor show a page in a frame.
func TestOtherSites(t *testing.T) {
	w := world(t)
	u := w.User(t, "victim")
	p := w.sits(t, u).in()
	sites := otherSites(t)
	forms := []url.Values{
		{"to": {w.Origin + "/signin"}, "username": {u.Name}, "password": {u.Password}},
		{"to": {w.Origin + "/account/password"}, "current_password": {u.Password}, "new_password": {"a password of the thief"}},
		{"to": {w.Origin + "/account/sessions/end-all"}},
		{"to": {w.Origin + "/account/factors/totp"}},
		{"to": {w.Origin + "/signin/again"}, "password": {u.Password}},
		{"to": {w.Origin + "/signin/recover"}, "recovery_token": {"x"}, "new_password": {"a password of the thief"}},
		{"to": {w.Origin + "/signout"}},
	}
	for _, site := range sites {
		for _, form := range forms {
			if site != sites[0] && form.Get("to") != w.Origin+"/account/password" && form.Get("to") != w.Origin+"/signin" {
				continue
			}
			p.Open(site + "/?" + form.Encode())
			p.Follow("button", "Win")
			if p.Status() != http.StatusForbidden || p.URL() != form.Get("to") {
				t.Errorf("%s posts to %s: %s", site, form.Get("to"), p.Describe())
			}
			p.Sees("The form was sent from a page of another site, so nothing has been done.")
		}
		p.isIn()
	}
	// A frame of another process says nothing here, so the frames are those of the same site.
	for _, site := range sites[:1] {
		for _, path := range []string{"/signin", "/account", "/account/password"} {
			p.Open(site + "/?" + url.Values{"frame": {w.Origin + path}}.Encode())
			kit.Eventually(t, func() error {
				for _, problem := range p.Problems() {
					if strings.Contains(problem, "frame-ancestors") || strings.Contains(problem, "blocked") {
						return nil
					}
				}
				return fmt.Errorf("%s shows %s in a frame, or it took long", site, path)
			})
		}
		p.Tolerate("frame|ERR_BLOCKED|blocked|another origin")
	}
	// The JSON API does not look at cookies.
	p.open("/account")
	for _, path := range []string{"/api/verify", "/api/sessions", "/api/mfa"} {
		status, err := p.Run(`return (await fetch(x, {credentials: 'include'})).status`, path)
		if err != nil || string(status) != "401" {
			t.Errorf("%s by cookie: %s %v", path, status, err)
		}
	}
	// Scripts of pages see none.
	if got := browser.Eval[string](p.Browser, "document.cookie"); got != "" {
		t.Errorf("a script sees %q", got)
	}
	p.isIn()
}

// otherSites are the origins of somebody else's pages: one sends a form to the address in "to"
// with what else is in its own, and the other has the address in "frame" in a frame.
func otherSites(t *testing.T) []string {
	t.Helper()
	evil := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		if to := r.URL.Query().Get("frame"); to != "" {
			fmt.Fprintf(rw, `<!doctype html><title>frame</title><iframe src="%s"></iframe>`, html.EscapeString(to))
			return
		}
		fmt.Fprintf(rw, `<!doctype html><title>form</title><form method="post" action="%s">`, html.EscapeString(r.URL.Query().Get("to")))
		for name, value := range r.URL.Query() {
			fmt.Fprintf(rw, `<input type="hidden" name="%s" value="%s">`, html.EscapeString(name), html.EscapeString(value[0]))
		}
		fmt.Fprint(rw, `<button>Win</button></form>`)
	}))
	t.Cleanup(evil.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(evil.URL, "http://"), ":")
	return []string{"http://localhost:" + port, "http://127.0.0.1:" + port}
}
