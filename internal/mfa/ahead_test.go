package mfa

import (
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/store"
)

// Ahead says of a user what their next login does.
func TestAhead(t *testing.T) {
	w, a, _ := passkeys(t)
	ahead := func(what string, u store.User, want []string, refused string) {
		t.Helper()
		claims, err := a.People.ClaimsOf(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		amr, why, err := a.Ahead(t.Context(), u, claims)
		if err != nil || !slices.Equal(amr, want) {
			t.Errorf("%s: %q, %v", what, amr, err)
		}
		w.want(what, why, refused)
	}
	one := []string{"pwd"}
	ada := w.stored(a.user("ada", "log=r"))
	ahead("a password alone", ada, one, "")
	a.Policy.Always = true
	ahead("who has to enrol", ada, []string{"mfa", "otp", "pwd"}, "second_factor_required")
	a.Policy.Never = true
	ahead("where nobody is asked", ada, one, "")
	a.Policy = Policy{}
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	w.want("enrolled", a.made(ada, key, "key"), "")
	token := a.challenged(ada)
	done, err := a.complete(token, a.answer(token, key))
	if err != nil {
		t.Fatal(err)
	}
	ahead("a passkey", ada, done.Methods, "")
	without := ada
	without.PasswordHash = ""
	options, err := a.PasskeyLoginOptions(t.Context(), home)
	done, err = a.PasskeyLogin(t.Context(), shown(t, key, options, err).Credential, home)
	if err != nil {
		t.Fatal(err)
	}
	ahead("a passkey and no password", without, done.Methods, "")
	party := a.Party
	a.Party = nil
	ahead("a passkey where there are none", ada, []string{"mfa", "otp", "pwd"}, "passkeys_off")
	ahead("nor a password", without, one, "no_credentials")
	a.Party = party
	app := a.enrolled(ada)
	token = a.challenged(ada)
	if done, err = a.complete(token, app.next()); err != nil {
		t.Fatal(err)
	}
	ahead("an app and a passkey", ada, done.Methods, "")
	a.Box = nil
	ahead("what cannot be read", ada, one, "no_storage_key")
	eve := w.stored(a.user("eve"))
	a.Policy.Always = true
	ahead("where nobody can enrol", eve, one, "no_storage_key")
}

func TestOwnerOf(t *testing.T) {
	_, a := newWorld(t)
	a.Policy.Always = true
	ada := a.user("ada")
	token := a.challenged(ada)
	if got := OwnerOf(token); got != ada.ID {
		t.Errorf("the owner of a token is %q", got)
	}
	for _, none := range []string{"", ".", ada.ID, token[1:], token + ".", "x" + token} {
		if got := OwnerOf(none); got != "" {
			t.Errorf("%q is of %q", none, got)
		}
	}
}
