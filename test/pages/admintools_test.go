package pages

import (
	"net/http"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/browser"
)

// A token that is pasted is examined: what it is, and why it is valid or not. Revoked on a page,
// it is refused by both replicas.
func TestTokens(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	u := w.User(t, "token")
	client := w.client(t)
	grant := client.LoginWith(u.Name, u.Password)
	examine := func(pasted string, texts ...string) {
		t.Helper()
		p.open("/admin/token")
		p.Fill("Token", pasted)
		p.Follow("button", "Examine")
		p.Sees(texts...)
		if html := browser.Eval[string](p.Browser, "document.documentElement.outerHTML"); strings.Contains(html, pasted) {
			t.Errorf("the page has what was pasted: %s", pasted)
		}
	}
	examine(grant.AccessToken, "This is a valid access token", u.ID, "Signature", u.Name)
	if p.Has("link", grant.AccessToken) {
		t.Error("the token is shown")
	}
	forged := grant.AccessToken[:len(grant.AccessToken)-6] + "AAAAAA"
	examine(forged, "This service refuses it:", "Anybody can write a token.")
	examine(grant.RefreshToken, "This is no access token, but a secret of its holder.")
	examine("not a token at all", "no token that is known here")
	examine("<script>alert(1)</script>", "no token that is known here")
	p.harmless("what was pasted")

	p.open("/admin/token")
	p.Fill("Token to revoke", grant.AccessToken)
	p.Follow("button", "Revoke this token")
	p.Sees("The token is revoked.")
	for range 2 {
		client.Want(client.Do("GET", "/api/verify", grant.AccessToken, nil), http.StatusUnauthorized, "token_revoked")
	}
	examine(grant.AccessToken, "This service refuses it:", "revoked")

	// By the page of revocations: a token, then the session.
	renewed, _ := client.Renew(grant.RefreshToken)
	session := client.Verify(renewed.AccessToken)["sid"].(string)
	p.open("/admin/revocations/new")
	p.Fill("The whole token", renewed.AccessToken)
	p.Follow("button", "Revoke the token")
	p.Sees("is revoked: entry", u.Name)
	for range 2 {
		client.Want(client.Do("GET", "/api/verify", renewed.AccessToken, nil), http.StatusUnauthorized, "token_revoked")
	}
	again, _ := client.Renew(renewed.RefreshToken)
	p.open("/admin/revocations/new")
	p.Fill("Id of the session", session)
	p.In("form[action$='/session']").Follow("button", "Revoke…")
	p.Sees("Revoke the session " + session + "?")
	p.Follow("button", "Revoke the session")
	p.at("/admin/revocations", 200)
	for range 2 {
		client.Want(client.Do("GET", "/api/verify", again.AccessToken, nil), http.StatusUnauthorized, "token_revoked")
	}
	if _, a := client.Renew(again.RefreshToken); a.Status != http.StatusUnauthorized {
		t.Errorf("the session goes on: %d", a.Status)
	}
	p.Sees(session)
}

// Who is signed in where, and is not any more.
func TestSessionsOfAll(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	u := w.User(t, "sitting")
	q, r := w.sits(t, u).in(), w.sits(t, u).in()
	p.open("/admin/sessions")
	p.Sees("Latest sign-ins", u.Name, "this session")
	p.Fill("Sessions of", u.Name)
	p.Follow("button", "Find")
	p.In("tbody tr:nth-child(1)").Click("link", "End")
	p.In("dialog").Sees(u.Name)
	p.In("dialog").Press("Escape")
	p.Until("!document.querySelector('dialog')")
	p.In("tbody tr:nth-child(1)").Click("link", "End")
	p.In("dialog").Follow("button", "End the session")
	out := 0
	for _, one := range []*person{q, r} {
		one.open("/account")
		if strings.HasPrefix(one.Path(), "/signin") {
			out++
		}
	}
	if out != 1 {
		t.Errorf("%d of two sessions have ended", out)
	}
	p.open(query("/admin/sessions", "user", u.Name))
	p.asks("End all sessions of "+u.Name, "End all sessions", u.Name)
	for _, one := range []*person{q, r} {
		one.isOut()
	}
	p.open(query("/admin/sessions", "user", "nobody-has-this-name"))
	if p.Status() != http.StatusNotFound && p.Status() != http.StatusUnprocessableEntity {
		t.Error(p.Describe())
	}
}

// The trail of what has been done, by whom, to whom and from where, and its export.
func TestAudit(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	u := w.User(t, "audited")
	client := w.client(t)
	client.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: u.Name, Password: "wrong"})
	client.LoginWith(u.Name, u.Password)
	p.open("/admin/audit")
	p.Fill("Done to", u.Name)
	p.Follow("button", "Filter")
	p.Sees("User created")
	p.Fill("Done to", "")
	p.Fill("Done by", u.Name)
	p.Choose("Outcome", "Done")
	p.Follow("button", "Filter")
	rows := "document.querySelectorAll('tbody tr').length"
	if n := browser.Eval[int](p.Browser, rows); n != 1 {
		t.Errorf("%d events\n%s", n, p.Describe())
	}
	p.Sees("from 127.0.0.1")
	p.Fill("From (UTC)", "2001-01-01T00:00")
	p.Fill("Until (UTC)", "2001-01-02T00:00")
	p.Follow("button", "Filter")
	p.Sees("No such event")
	p.Follow("link", "Show everything")
	p.at("/admin/audit", 200)
	for form, has := range map[string]string{"csv": "at,", "jsonl": `{\"`} {
		file, err := p.Run(`const a = await fetch(x); return a.status + a.headers.get('Content-Disposition') + await a.text()`, query("/admin/audit/export", "actor", u.Name, "form", form))
		if err != nil || !contains(string(file), "attachment") || !contains(string(file), u.ID) || !contains(string(file), has) {
			t.Errorf("%s: %.500s %v", form, file, err)
		}
	}
}
