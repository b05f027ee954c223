package pages

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/browser"
	"github.com/watchword-auth/watchword/test/kit"
)

// What users, groups, claims, devices, files and links say is shown to an administrator as text.
func TestScriptsInAdministration(t *testing.T) {
	w := world(t)
	client := w.client(t)
	p := w.boss(t)
	word := w.word("xss")
	// Everything that may be called so is called so.
	try := func(path string, body any) (id string, ok bool) {
		a := client.Do("POST", path, w.Admin(t), body)
		if a.Status != http.StatusCreated {
			return "", false
		}
		return kit.Decode[struct{ ID string }](t, a).ID, true
	}
	var groups, claims []string
	for i, text := range payloads {
		if id, ok := try("/api/claims", httpapi.NewClaim{Name: fmt.Sprint(word, text, i), ShortName: "xss", Value: fmt.Sprint(text, i)}); ok {
			claims = append(claims, id)
		} else if id, ok := try("/api/claims", httpapi.NewClaim{Name: fmt.Sprint(word, text, i), ShortName: "xss", Value: fmt.Sprint(i)}); ok {
			claims = append(claims, id)
		}
		if id, ok := try("/api/groups", httpapi.NewGroup{Name: fmt.Sprint(word, text, i), Claims: claims}); ok {
			groups = append(groups, id)
		}
	}
	if len(claims) < len(payloads)/2 || len(groups) < len(payloads)/2 {
		t.Fatalf("%d claims and %d groups have a name that is a payload", len(claims), len(groups))
	}
	all := strings.TrimPrefix(strings.Join(payloads[:6], ""), "\u202e")
	u := User{Name: word, Password: kit.Password}
	u.ID = kit.Decode[httpapi.User](t, w.API(t, "POST", "/api/users", httpapi.NewUser{
		Username: u.Name, Password: u.Password, FirstName: all[:min(len(all), 120)], LastName: payloads[1], Groups: groups}, http.StatusCreated)).ID
	w.API(t, "PATCH", "/api/users/"+u.ID, map[string]any{"email": "x'onfocus=alert'&" + word + "@example.com"}, http.StatusOK)
	for i, reason := range payloads {
		client.Do("POST", "/api/revocations", w.Admin(t), map[string]any{"kid": fmt.Sprint("no-such-key-", i), "reason": reason}) // which may be refused, and is in the trail then
	}
	for _, agent := range payloads[:7] {
		r := client.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: u.Name, Password: u.Password})
		r.Header.Set("User-Agent", agent)
		client.Want(client.Send(r), http.StatusOK, "")
	}
	// The passkey of the user, made by themselves.
	q := w.sits(t, u)
	device := q.AddAuthenticator(browser.Options{})
	q.in()
	q.addPasskey(payloads[3])
	device.SetPresent(false)

	user, group, claim := "/admin/users/"+u.ID, "/admin/groups/"+groups[0], "/admin/claims/"+claims[0]
	for _, path := range []string{
		query("/admin/users", "q", word), user, user + "/edit", user + "/delete", user + "/token", user + "/factors", user + "/sessions", user + "/events", user + "/recovery", user + "/password",
		query("/admin/groups", "q", word), "/admin/groups/new", group, group + "/edit", group + "/delete",
		query("/admin/claims", "q", word), claim, claim + "/edit", claim + "/delete",
		query("/admin/sessions", "user", u.Name), "/admin/sessions", "/admin/audit", "/admin/revocations", query("/admin/audit", "target", u.ID), query("/admin/limits/account", "user", u.Name), "/admin/users/new",
	} {
		p.open(path)
		if p.Status() != http.StatusOK {
			t.Errorf("%s: %s", path, p.Describe())
		}
		p.harmless(path)
	}
	p.open(user + "/factors")
	p.Click("link", "Remove")
	p.In("dialog").Sees(payloads[3])
	p.harmless("a question")
	p.open(group)
	p.asks("Delete", strings.TrimSpace(browser.Eval[string](p.Browser, "'Delete ' + document.querySelector('h1').textContent")))
	p.harmless("a message")

	// What an address says: all of it at once in the browser, and then what a page may show that
	// refuses all of it, in the document that the answer makes.
	for i, text := range []string{strings.Join(payloads, " "), payloads[1], payloads[6]} {
		for _, path := range []string{
			query("/admin", "span", text, "replica", text), query("/admin", "span", "1h", "replica", text), query("/admin/users", "q", text, "after", text, "order", text), query("/admin/users", "before", text),
			query(user, "done", "left", "group", text), query(user+"/token", "audience", text), query(user+"/factors/remove", "id", text), query(user+"/sessions/end", "id", text),
			query("/admin/groups", "q", text), query("/admin/claims", "q", text), query("/admin/sessions", "user", text, "after", text), query("/admin/revocations", "before", text),
			query("/admin/revocations/session", "session_id", text), query("/admin/revocations/user", "user", text, "issued_before", text), query("/admin/revocations/key", "kid", "x", "reason", text), query("/admin/revocations/key", "kid", text, "reason", text),
			query("/admin/limits/account", "user", text), query("/admin/limits/address", "address", text), query("/admin/audit", "actor", text, "target", text, "address", text),
			query("/admin/audit", "action", text, "outcome", text, "since", text, "until", text), "/admin/users/import/" + url.PathEscape(text), "/admin/users/" + url.PathEscape(text),
		} {
			if i == 0 {
				p.open(path)
				p.harmless(path)
			} else {
				p.answerIsHarmless(path)
			}
		}
	}
	// What a file says.
	var rows strings.Builder
	rows.WriteString("username,email,groups\n")
	for i, text := range payloads {
		quoted := `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
		fmt.Fprintf(&rows, "%s,%s,%s\n%s%d,,%s\n", quoted, quoted, quoted, word, i, quoted)
	}
	p.imports(rows.String())
	p.Sees("Refused rows")
	p.harmless("refused rows")
}

// No page of another site has an administrator do anything.
func TestOtherSitesAndAdministration(t *testing.T) {
	w := world(t)
	u := w.User(t, "csrf")
	p := w.boss(t)
	for _, site := range otherSites(t) {
		for _, form := range []url.Values{
			{"to": {w.Origin + "/admin/users/new"}, "username": {w.word("forged")}, "password": {"a password of the thief"}},
			{"to": {w.Origin + "/admin/users/" + u.ID + "/delete"}},
			{"to": {w.Origin + "/admin/revocations/user"}, "user": {u.ID}},
		} {
			p.Open(site + "/?" + form.Encode())
			p.Follow("button", "Win")
			if p.Status() != http.StatusForbidden || p.URL() != form.Get("to") {
				t.Errorf("%s posts to %s: %s", site, form.Get("to"), p.Describe())
			}
			p.Sees("The form was sent from a page of another site, so nothing has been done.")
		}
	}
	w.API(t, "GET", "/api/users/"+u.ID, nil, http.StatusOK)
	p.open(query("/admin/users", "q", "forged"))
	p.Sees("Nobody found")
}
