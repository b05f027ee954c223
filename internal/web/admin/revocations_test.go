package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
)

func TestRevokeByThePages(t *testing.T) {
	o := newBureau(t)
	ada := o.user("ada")
	o.user("root", directory.Superuser)
	d := o.desk("root")
	d.get("/admin/revocations").says(http.StatusOK, "Nothing is revoked", "after 5 seconds at the latest", "accepts no token at all")
	app := func() (token, session string) {
		g := o.begin("ada", false, "198.51.100.4", "app")
		return g.AccessToken, g.SessionID
	}
	refused := func(token string) {
		t.Helper()
		o.call(token, "GET", "/api/sessions", nil).says(http.StatusUnauthorized)
	}

	token, _ := app()
	done := d.post("/admin/revocations/token", "token", " Bearer "+token+"\n").leads("/admin/revocations")
	shown := d.then(done).says(http.StatusOK, " of ada is revoked: entry 1 of the log.", "Revoked by itself", ">root</a>")
	if secret := token[strings.LastIndex(token, ".")+1:]; strings.Contains(shown.Body.String(), secret) || strings.Contains(fmt.Sprint(done.Header()), secret) {
		t.Error("the token is shown again")
	}
	refused(token)
	for _, wrong := range []string{"", "nonsense", token + "x", o.desk("ada").cookie} {
		answer := d.post("/admin/revocations/token", "token", wrong).says(http.StatusUnprocessableEntity, "The whole token")
		if wrong != "" {
			answer.saysNot(wrong)
		}
	}

	token, session := app()
	d.get("/admin/revocations/session?session_id="+session).says(http.StatusOK, "Revoke the session "+session+"?")
	o.call(token, "GET", "/api/sessions", nil).says(http.StatusOK) // asking has done nothing
	d.then(d.post("/admin/revocations/session", "session_id", strings.ToUpper(session)).leads("/admin/revocations")).says(http.StatusOK, "is revoked", session)
	refused(token)
	d.get("/admin/revocations/session?session_id=1234").says(http.StatusUnprocessableEntity, "no id of a session", `value="1234"`)

	token, _ = app()
	past := time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04")
	d.get("/admin/revocations/user?"+url.Values{"user": {"ADA"}, "issued_before": {past}}.Encode()).
		says(http.StatusOK, "the tokens of ada that were issued before "+strings.Replace(past, "T", " ", 1)+":00 UTC?", `value="`+ada.ID+`"`)
	d.post("/admin/revocations/user", "user", "ada", "issued_before", past).leads("/admin/revocations")
	o.call(token, "GET", "/api/sessions", nil).says(http.StatusOK)
	d.get("/admin/revocations").says(http.StatusOK, "Older tokens of a user", "issued before")
	d.get("/admin/revocations/user?user=ada").says(http.StatusOK, "Revoke all tokens of ada?")
	d.post("/admin/revocations/user", "user", "ada").leads("/admin/revocations")
	refused(token)
	for _, wrong := range [][2]string{{"", ""}, {"ada", "soon"}, {"ada", "2999-01-01T00:00"}, {"nobody", ""}} {
		form := url.Values{"user": {wrong[0]}, "issued_before": {wrong[1]}}
		if a := d.post("/admin/revocations/user", "user", wrong[0], "issued_before", wrong[1]); a.Code != http.StatusUnprocessableEntity && a.Code != http.StatusNotFound {
			t.Errorf("%v: status %d", form, a.Code)
		}
	}

	kid := regexp.MustCompile(`"kid":"([^"]*)"`).FindStringSubmatch(head(t, token))[1]
	d.get("/admin/revocations/key?"+url.Values{"kid": {kid}, "reason": {"a lost disk"}}.Encode()).
		says(http.StatusOK, "Revoke the signing key "+kid+"?", "of whatever user, is refused everywhere", "Reason: a lost disk")
	token, _ = app()
	d.then(d.post("/admin/revocations/key", "kid", kid, "reason", "a lost disk").leads("/admin/revocations")).
		says(http.StatusOK, "The signing key "+kid+" is revoked", "The key was revoked")
	refused(token)
	d.get("/admin/audit?action=revoke&target="+kid).says(http.StatusOK, "a lost disk")
	token, _ = app() // another key signs
	o.call(token, "GET", "/api/sessions", nil).says(http.StatusOK)
	d.post("/admin/revocations/key", "kid", "no-such-key").says(http.StatusNotFound, `value="no-such-key"`)
	d.get("/admin/revocations/key?kid=").says(http.StatusUnprocessableEntity, "Type the id of a signing key")
}

func TestRevocationLogPage(t *testing.T) {
	o := newBureau(t)
	o.user("ada")
	o.user("root", directory.Superuser)
	d := o.desk("root")
	for range 27 {
		d.post("/admin/revocations/token", "token", o.begin("ada", false, "198.51.100.4", "app").AccessToken).leads("/admin/revocations")
	}
	first := d.get("/admin/revocations").says(http.StatusOK, ">27</td>", ">3</td>").saysNot(">2</td>")
	next := regexp.MustCompile(`/admin/revocations\?before=\d+`).FindString(first.Body.String())
	d.get(next).says(http.StatusOK, ">2</td>", ">1</td>", "First page").saysNot(">3</td>", `rel="next"`)
	d.get("/admin/revocations?before=x").says(http.StatusUnprocessableEntity)

	// Who may read sessions sees neither who a superuser is nor their names.
	o.user("reader", directory.SessionsRead)
	o.desk("reader").get("/admin/revocations").says(http.StatusOK, "somebody with rights that you do not hold").saysNot(">root", "/admin/revocations/new")
	// Who may revoke alone sees no log, and can revoke. The same with keys.
	o.user("guard", directory.Revoke)
	g := o.desk("guard")
	g.get("/admin/revocations").says(http.StatusOK, "sessions:read", "/admin/revocations/new", `href="/admin/revocations"`).saysNot("Revoked by itself")
	g.get("/admin/revocations/new").says(http.StatusOK, "A token", "All of a user").saysNot("A signing key")
	g.then(g.post("/admin/revocations/token", "token", o.begin("ada", false, "198.51.100.4", "app").AccessToken).leads("/admin/revocations/new")).says(http.StatusOK, "is revoked: entry 28")
	g.get("/admin/revocations/user?user=root").says(http.StatusForbidden, "rights that your own account does not hold", `value="root"`)
	o.user("smith", directory.KeysWrite)
	k := o.desk("smith")
	k.get("/admin/revocations/new").says(http.StatusOK, "A signing key").saysNot("All of a user")
	o.user("auditor", directory.AuditRead)
	a := o.desk("auditor")
	a.get("/admin/revocations").says(http.StatusForbidden)
	a.get("/admin/revocations/new").says(http.StatusForbidden)
	a.get("/admin/audit").says(http.StatusOK).saysNot(`href="/admin/revocations"`)
}
