package directory

import (
	"errors"
	"fmt"
	"testing"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/store"
)

// However a username is written, it is one user's: in login, in administration, and when
// another one is made.
func TestOneUserInAnySpelling(t *testing.T) {
	for _, spellings := range [][]string{
		{"οδυσσευς", "ΟΔΥΣΣΕΥΣ", "Οδυσσευς", "οδυσσευσ"}, {"ΟΔΥΣΣΕΎΣ", "Οδυσσεύς"}, {"straße", "STRASSE", "Strasse", "STRAẞE"},
		{"ırmak", "IRMAK"}, {"İrem", "irem", "IREM"}, {"ａｌｉｃｅ", "ALICE", "alice"},
	} {
		w := newWorld(t)
		ctx := t.Context()
		w.group("Support", "log=r")
		made := w.user(spellings[0])
		for _, s := range spellings {
			if u, err := w.Authenticate(ctx, s, secret); err != nil || u.ID != made.ID {
				t.Errorf("%q logs in as %q: %v", s, u.Username, err)
			}
			if u, err := w.User(ctx, System(), s); err != nil || u.ID != made.ID {
				t.Errorf("%q is %q: %v", s, u.Username, err)
			}
			for _, n := range []NewUser{{Username: s}, {Username: s, Password: secret, Administrator: true}} {
				w.want(second(w.CreateUser(ctx, System(), n)), "username_taken")
			}
			// The user may be written so from now on, and is still found by the others.
			if err := w.patch(made.ID, UserPatch{Username: &s}); err != nil {
				t.Errorf("%q cannot be %q: %v", made.Username, s, err)
			}
			if u, err := w.Authenticate(ctx, spellings[0], secret); err != nil || u.ID != made.ID {
				t.Errorf("as %q, %q logs in as %q: %v", s, spellings[0], u.Username, err)
			}
		}
		other := w.user("other")
		w.want(w.patch(other.ID, UserPatch{Username: &spellings[1]}), "username_taken")
		for i, s := range spellings {
			want := InitResult{}
			if i == 0 {
				want.Links = 1
			}
			if got, err := w.apply("users:\n  - {username: \"" + s + "\", groups: [Support]}\n"); err != nil || got.Users != 0 || i == 0 && got != want {
				t.Errorf("an init file with %q: %+v, %v", s, got, err)
			}
		}
		if err := w.DeleteUser(ctx, System(), spellings[len(spellings)-1]); err != nil {
			t.Error(err)
		}
		for _, s := range spellings {
			w.want(second(w.Authenticate(ctx, s, secret)), "invalid_credentials")
			w.want(second(w.CreateUser(ctx, System(), NewUser{Username: s})), "name_reserved")
		}
		w.later(w.Now().Add(2 * maxTokenLife))
		if _, err := w.CreateUser(ctx, System(), NewUser{Username: spellings[1]}); err != nil {
			t.Error(err)
		}
	}
}

// Users that a version without folds has made answer to the names that they have, and each
// of them is told apart. They are listed at the start.
func TestSpellingsOfAnEarlierVersion(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	hash, err := w.Hasher.Hash(ctx, secret)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"οδυσσευς", "ΟΔΥΣΣΕΥΣ", "Weiß", "Λάζαρος", "βους", "βουσ"} {
		key, err := names.UsernameKey(name)
		if err != nil {
			t.Fatal(err)
		}
		u := store.User{ID: fmt.Sprint("id-", i), Username: name, NameKey: key, PasswordHash: hash, Version: 1}
		if err := w.Store.CreateUser(ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	is := func(written, want string) {
		t.Helper()
		u, err := w.Authenticate(ctx, written, secret)
		if u.ID != want || (err == nil) != (want != "") {
			t.Errorf("%q logs in as %q, not %q: %v", written, u.ID, want, err)
		}
	}
	exactly := func() {
		t.Helper()
		is("οδυσσευς", "id-0")
		is("ΟΔΥΣΣΕΥΣ", "id-1")
		is("Οδυσσευσ", "id-1")
		is("weiß", "id-2")
		is("Λάζαρος", "id-3")
		is("ΒΟΥΣ", "id-5")
	}
	exactly() // before they are checked
	is("WEISS", "")
	clashes, err := w.CheckUsers(ctx, false)
	if err != nil || len(clashes) != 2 || clashes[0].User.ID != "id-1" || clashes[0].Other != "id-0" || clashes[0].What != "username" {
		t.Errorf("%+v, %v", clashes, err)
	}
	exactly()
	is("WEISS", "id-2")
	is("weiss", "id-2")
	is("ΛΆΖΑΡΟΣ", "id-3")
	is("λάζαροσ", "id-3")
	is("οδυςςευς", "") // either one; nobody is let in by guess
	w.want(second(w.CreateUser(ctx, System(), NewUser{Username: "WEISS"})), "username_taken")

	// Each can be changed, and found by the name that is nobody else's.
	for id, name := range map[string]string{"id-0": "οδυσσευς", "id-1": "ΟΔΥΣΣΕΥΣ"} {
		if u, err := w.UpdateUser(ctx, System(), name, UserPatch{FirstName: new("O")}); err != nil || u.ID != id {
			t.Errorf("%s: %q, %v", name, u.ID, err)
		}
	}
	// An init file that has made both may be applied again, also when one was removed.
	both := "users:\n  - username: οδυσσευς\n  - username: ΟΔΥΣΣΕΥΣ\n"
	w.mustApply(both, InitResult{})
	if err := w.DeleteUser(ctx, System(), "id-1"); err != nil && !errors.Is(err, ErrUserNotFound) {
		t.Fatal(err)
	}
	if err := w.Store.DeleteUser(ctx, "id-1"); err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	w.mustApply(both+"  - username: new\n", InitResult{Users: 1})
	is("ΟΔΥΣΣΕΥΣ", "id-0")

	// An earlier version that still runs gives the user another name behind our back.
	lazaros := w.stored(store.User{ID: "id-3"})
	lazaros.Username, lazaros.NameKey = "Ιάσονας", "ιάσονας"
	if err := w.Store.UpdateUser(ctx, lazaros); err != nil {
		t.Fatal(err)
	}
	is("ΛΆΖΑΡΟΣ", "")
	is("Λάζαρος", "")
	is("ιάσονας", "id-3")
}

// One file does not name one user twice.
func TestInitFileWithTwoSpellings(t *testing.T) {
	w := newWorld(t)
	_, err := w.apply("users:\n  - {username: οδυσσευς, password: correct horse}\n  - {username: ΟΔΥΣΣΕΥΣ, password: battery staple}\n")
	w.want(err, "init_file_conflict")
	if _, err := w.User(t.Context(), System(), "οδυσσευς"); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("half of the file was applied: %v", err)
	}
}

// Full names may have what is not seen, which makes nobody another one.
func TestInvisibleCharactersMakeNoOtherName(t *testing.T) {
	w, _, delegate := delegated(t)
	w.boss() // Ada Boss
	for _, first := range []string{"Ada\u200b", "A\u2060da", "Ada\ufe0f", "A\u034fda", "Ada\u3164", "\u200fAda", "A\U000e0061da", "Ada\u2800", "ada\u00ad"} {
		w.attack(second(w.CreateUser(t.Context(), as(delegate), NewUser{Username: "x", FirstName: first, LastName: "Boss"})), ErrNameOfStronger.Code)
	}
	if u, err := w.CreateUser(t.Context(), System(), NewUser{Username: "x", FirstName: "👩\u200d💻 Ada", LastName: "❤\ufe0f \U0001fae9"}); err != nil ||
		u.FirstName != "👩\u200d💻 Ada" || u.LastName != "❤\ufe0f \U0001fae9" {
		t.Errorf("%+v, %v", u, err)
	}
}
