package app

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/test/kit"
)

// For as long as a token lives two people were bob: a rename revoked nothing, and the name
// was free at once.
func TestTwoPeopleAreNeverBob(t *testing.T) {
	w := newWorld(t, nil)
	bob := w.user("bob", "log=r")
	grant, admin := w.login("bob"), w.login("admin").AccessToken
	if says := w.verify(grant.AccessToken); says["preferred_username"] != "bob" || says["email_verified"] != false {
		t.Errorf("the token says %v", says)
	}
	w.want(w.do("PATCH", "/api/users/"+bob, admin, map[string]any{"username": "robert", "email": "robert@example.com", "email_verified": true}), 200, "")
	w.refuses(grant.AccessToken, "token_revoked", time.Now(), kit.Promised)
	for _, body := range []map[string]any{{"username": "bob"}, {"username": "B0b"}, {"username": "mallory", "email": "Bob@example.com"}} {
		w.want(w.do("POST", "/api/users", admin, body), 409, "name_reserved")
	}
	w.want(w.do("POST", "/api/users", admin, map[string]any{"username": "mallory", "email": "ROBERT@example.com"}), 409, "email_taken")

	// The session goes on under the new name.
	renewed := decode[httpapi.Grant](t, w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, ""))
	if says := w.verify(renewed.AccessToken); says["preferred_username"] != "robert" || says["email"] != "robert@example.com" ||
		says["email_verified"] != true || says["sid"] != grant.SessionID {
		t.Errorf("the renewed token says %v", says)
	}
	u := decode[httpapi.User](t, w.want(w.do("PATCH", "/api/users/"+bob, admin, map[string]any{"email": "r@example.com"}), 200, ""))
	if u.EmailVerified {
		t.Errorf("another address is verified: %+v", u)
	}
	w.want(w.do("DELETE", "/api/users/"+bob, admin, nil), 204, "")
	w.want(w.do("POST", "/api/users", admin, map[string]any{"username": "robert"}), 409, "name_reserved")
}

// A delegate gave themselves a superuser's names, and filled or removed the superuser's
// groups.
func TestADelegateAndTheSuperuser(t *testing.T) {
	w := newWorld(t, nil)
	boss := w.user("boss", "admin=all")
	delegate := w.user("delegate", "admin=users:write", "admin=groups:write", "admin=claims:write", "log=r")
	admin, token := w.login("admin").AccessToken, w.login("delegate").AccessToken
	w.want(w.do("PATCH", "/api/users/"+boss, admin, map[string]any{"first_name": "Ada"}), 200, "")
	for _, c := range []struct {
		body   map[string]any
		status int
		code   string
	}{
		{map[string]any{"email": "BOSS@example.com"}, 409, "email_taken"},
		{map[string]any{"first_name": "Аda"}, 403, "name_of_stronger"}, // with a Cyrillic A
		{map[string]any{"first_name": "", "last_name": "boss"}, 403, "name_of_stronger"},
		{map[string]any{"username": "b0ss"}, 409, "username_confusable"},
		{map[string]any{"username": "bоss"}, 422, "username_mixes_scripts"},
		{map[string]any{"email_verified": true}, 403, "permission_missing"},
	} {
		a := w.do("PATCH", "/api/users/"+delegate, token, c.body)
		if a.status != c.status || a.code() != c.code {
			t.Errorf("%v: %d %s", c.body, a.status, a.body)
		}
	}
	club := decode[httpapi.Group](t, w.want(w.do("POST", "/api/groups", admin, map[string]any{"name": "club"}), 201, "")).ID
	w.want(w.do("POST", "/api/users/"+boss+"/groups", admin, map[string]any{"group": "club"}), 204, "")
	w.want(w.do("POST", "/api/groups/"+club+"/claims", token, map[string]any{"claim": "delegate log=r"}), 403, "beyond_own_rights")
	w.want(w.do("PATCH", "/api/groups/"+club, token, map[string]any{"name": "mine"}), 403, "beyond_own_rights")
	w.want(w.do("DELETE", "/api/groups/"+club, token, nil), 403, "beyond_own_rights")

	// Behind the server's back, as by an earlier version.
	w.overload("boss")
	if says := w.verify(w.login("boss").AccessToken); says["admin"] != "all" {
		t.Errorf("the superuser's token says %v", says)
	}
}

// Users of a version that refused nothing are protected, and listed, after the next start.
func TestUsersOfAnEarlierVersion(t *testing.T) {
	w := newWorld(t, nil)
	for _, name := range []string{"anna", "ben"} {
		u := store.User{ID: "id-" + name, Username: name, NameKey: name, Email: "same@example.com", CreatedAt: time.Now(), UpdatedAt: time.Now()}
		if err := w.node.parts.Store.CreateUser(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	w.restart()
	eventually(t, func() error {
		if log := w.log.String(); !strings.Contains(log, "another user has the same e-mail address") || !strings.Contains(log, "id-anna") {
			return errors.New("the log does not list the users")
		}
		return nil
	})
	w.want(w.do("POST", "/api/users", w.login("admin").AccessToken, map[string]any{"username": "new", "email": "Same@example.com"}), 409, "email_taken")
}
