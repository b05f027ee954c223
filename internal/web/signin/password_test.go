package signin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/web/page"
)

// A password signs in, and leads to where the page was asked for.
func TestPassword(t *testing.T) {
	w := newWorld(t, nil)
	ada := w.user("ada")
	b := w.browser()
	b.get("/account/note?x=1&y=2").goes("/signin?return=%2Faccount%2Fnote%3Fx%3D1%26y%3D2").follow()
	b.wants(http.StatusOK, `autocomplete="username webauthn"`, `autocomplete="current-password"`, `name="password" type="password"`)
	b.fill("/signin", "username", "ada", "password", "wrong password").wants(http.StatusUnauthorized, "The username or the password is wrong.", `value="ada"`)
	if strings.Contains(b.Body, "wrong password") {
		t.Error("the password is shown again")
	}
	b.fill("/signin", "password", secret).goes("/account/note?x=1&y=2").follow().wants(http.StatusOK, "hello "+ada.ID)
	list, _, err := w.login.Sessions.List(t.Context(), ada.ID, "", 10)
	if err != nil || len(list) != 1 || list[0].Address != "127.0.0.1" || list[0].UserAgent != "Go-http-client/1.1" {
		t.Errorf("the sessions are %+v, %v", list, err)
	}
	// Who is signed in goes on, unless they want to be somebody else.
	b.get("/signin?return=/account/note").goes("/account/note")
	b.get("/signin?switch=1").wants(http.StatusOK, "You are signed in as", "ada")
	if log := w.log.String(); strings.Contains(log, secret) || strings.Contains(log, "wrong password") || strings.Contains(log, b.cookie(page.SessionCookie)) {
		t.Error("a secret is logged")
	}
}
