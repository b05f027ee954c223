package api

import (
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A password may have every character of Unicode, and a name all but those that control the
// text around them.
func TestEveryCharacterInPasswordsAndNames(t *testing.T) {
	w := replica.New(t, nil)
	admin := w.Login("admin").AccessToken
	for i, text := range []string{
		"I ❤\ufe0f you", "👩\u200d👩\u200d👧\u200d👦 at home", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f 1234567", "5\ufe0f\u20e3 + 3 = 8",
		"\U0001fae9\U0001f6d8 tired", "\U00010d50\U00010d51\U00010d52 garay", "葛\U000e0101城 1234567", "می\u200cخواهم بروم", "\u05d3\u05d5\u05d3\u200f david",
	} {
		name := "user" + string(rune('a'+i))
		w.Want(w.Do("POST", "/api/users", admin, httpapi.NewUser{Username: name, Password: text, FirstName: text, LastName: text}), 201, "")
		token := w.LoginWith(name, text).AccessToken
		if got := w.Verify(token)["name"]; got != text+" "+text {
			t.Errorf("%+q is called %+q", text, got)
		}
		without := strings.Map(func(c rune) rune {
			if c > 0x2000 && c < 0x2100 || c == '\ufe0f' || c > 0xe0000 {
				return -1
			}
			return c
		}, text)
		if without != text {
			w.Want(w.Do("POST", "/api/login", "", map[string]any{"username": name, "password": without}), 401, "invalid_credentials")
		}
		next := text + "\t\x00\u202e\ufffe"
		w.Want(w.Do("PATCH", "/api/users/"+name, admin, map[string]any{"password": next}), 200, "")
		w.LoginWith(name, next)
		for _, control := range []string{"\n", "\x00", "\x1b", "\u0085", "\u2028", "\u202e", "\u2066"} {
			w.Want(w.Do("PATCH", "/api/users/"+name, admin, map[string]any{"first_name": text + control}), 422, "invalid_name")
		}
		w.Want(w.Do("POST", "/api/users", admin, httpapi.NewUser{Username: name + "\ufe0f", Password: text}), 422, "invalid_username")
	}
}

// A username is one user's, whether it is written in capitals or not.
func TestUsernamesInCapitals(t *testing.T) {
	w := replica.New(t, nil)
	admin := w.Login("admin").AccessToken
	w.User("οδυσσευς")
	grant := w.LoginWith("ΟΔΥΣΣΕΥΣ", kit.Password)
	if got := w.Verify(grant.AccessToken)["preferred_username"]; got != "οδυσσευς" {
		t.Errorf("the token is %q's", got)
	}
	w.Want(w.Do("POST", "/api/users", admin, httpapi.NewUser{Username: "ΟΔΥΣΣΕΥΣ", Password: kit.Password}), 409, "username_taken")
	w.Want(w.Do("GET", "/api/users/ΟΔΥΣΣΕΥΣ", admin, nil), 200, "")
	// The user's own, so it needs no right.
	w.Want(w.Do("GET", "/api/users/Οδυσσευσ/sessions", grant.AccessToken, nil), 200, "")
	w.Revoke(grant.AccessToken, map[string]any{"user": "ΟΔΥΣΣΕΥΣ"})
	w.Want(w.Do("GET", "/api/verify", grant.AccessToken, nil), 401, "token_revoked")
}
