package directory

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/watchword-auth/watchword/internal/store"
)

// Whether an address is verified is said by who may say it, of one address of one user.
func TestVerifiedEmails(t *testing.T) {
	w, root, delegate := delegated(t)
	helper := w.user("helper", "admin=users:write", "admin=users:verify")
	ctx := t.Context()
	anna, err := w.CreateUser(ctx, as(delegate), NewUser{Username: "anna", Email: "anna@example.org"})
	if err != nil || anna.EmailVerified {
		t.Fatalf("%+v, %v", anna, err)
	}
	w.want(second(w.CreateUser(ctx, as(delegate), NewUser{Username: "ben", Email: "ben@example.org", EmailVerified: true})), "permission_missing")
	w.want(second(w.UpdateUser(ctx, as(delegate), anna.ID, UserPatch{EmailVerified: new(true)})), "permission_missing")
	w.want(second(w.UpdateUser(ctx, as(w.user("verifier", "admin=users:verify")), anna.ID, UserPatch{EmailVerified: new(true)})), "permission_missing")
	w.want(second(w.UpdateUser(ctx, as(helper), root.ID, UserPatch{EmailVerified: new(true)})), "beyond_own_rights")
	w.want(second(w.UpdateUser(ctx, as(root), root.ID, UserPatch{EmailVerified: new(true)})), "email_missing")
	if _, err := w.CreateUser(ctx, as(helper), NewUser{Username: "ben", Email: "ben@example.org", EmailVerified: true}); err != nil {
		t.Error(err)
	}
	step := func(actor store.User, p UserPatch, want bool) {
		t.Helper()
		before := w.stored(anna)
		if u, err := w.UpdateUser(ctx, as(actor), anna.ID, p); err != nil || u.EmailVerified != want {
			t.Errorf("%+v, %v", u, err)
		}
		if after := w.stored(anna); after.EmailVerified != want || before != after && after.Epoch <= before.Epoch {
			t.Errorf("%+v, then %+v", before, after)
		}
	}
	step(helper, UserPatch{EmailVerified: new(true)}, true)
	step(delegate, UserPatch{FirstName: new("Anna")}, true)
	step(delegate, UserPatch{Email: new("anna@example.org")}, true)  // the same
	step(delegate, UserPatch{Email: new("anna@example.com")}, false) // another
	step(delegate, UserPatch{Email: new("anna@example.org")}, false) // proven once, and not since
	step(helper, UserPatch{Email: new("anna@example.net"), EmailVerified: new(true)}, true)
	// That the former address was the user's says nothing of another one.
	w.want(second(w.UpdateUser(ctx, as(delegate), anna.ID, UserPatch{Email: new("anna@elsewhere.example"), EmailVerified: new(true)})), "permission_missing")
	step(delegate, UserPatch{EmailVerified: new(true)}, true)
	step(delegate, UserPatch{EmailVerified: new(false)}, false)
}

// Of users who are given the same address, or usernames that look alike, by two replicas at
// once, one gets it.
func TestManyWantTheSameName(t *testing.T) {
	onEach(t, func(t *testing.T, first *world) {
		worlds := []*world{first, replica(t, first.url)}
		for what, c := range map[string]struct {
			user  func(i int) NewUser
			taken string
		}{
			"e-mail": {func(i int) NewUser {
				return NewUser{Username: fmt.Sprint("mail", 2+i%8, "x", 2+i/8), Email: []string{"a@example.org", "A@Example.org"}[i%2]}
			}, "email_taken"},
			"username": {func(i int) NewUser { return NewUser{Username: strings.Replace("bobobobo", "o", "0", 1+i)} }, "username_confusable"},
		} {
			var made atomic.Int32
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() {
					if _, err := worlds[i%2].CreateUser(t.Context(), System(), c.user(i)); err == nil {
						made.Add(1)
					} else if code(err) != c.taken {
						t.Errorf("%s: %v", what, err)
					}
				})
			}
			all.Wait()
			if made.Load() != 1 {
				t.Errorf("%s: %d were made", what, made.Load())
			}
		}
	})
}

// Users of a version that refused nothing go on as they are, are listed, and are protected
// from new ones.
func TestUsersOfAnEarlierVersion(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for i, u := range []store.User{
		{Username: "anna", Email: "A@example.org"}, {Username: "ben", Email: "a@example.org"},
		{Username: "modern"}, {Username: "modem"}, {Username: "pаypal"}, {Username: "cora", Email: "c@example.org"},
	} {
		u.ID, u.NameKey, u.Version = fmt.Sprint("id-", i), u.Username, 1
		if err := w.Store.CreateUser(ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	list := func(all bool) string {
		t.Helper()
		clashes, err := w.CheckUsers(ctx, all)
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, c := range clashes {
			texts = append(texts, c.User.Username+" "+c.What+" "+c.Other)
		}
		return strings.Join(texts, ", ")
	}
	// Also before they are checked, what they keep is not asked.
	if err := w.patch("ben", UserPatch{FirstName: new("Ben")}); err != nil {
		t.Error(err)
	}
	if got, want := list(false), "anna email id-1, modem username id-2"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got := list(false); got != "" {
		t.Errorf("checked again: %s", got)
	}
	if got, want := list(true), "anna email id-1, ben email id-0, modem username id-2, modern username id-3"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	for _, p := range []UserPatch{{FirstName: new("B")}, {Email: new("a@example.org")}, {Email: new("A@example.org")}, {Disabled: new(true)}} {
		if err := w.patch("ben", p); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if err := w.patch("pаypal", UserPatch{LastName: new("x")}); err != nil {
		t.Error(err)
	}
	w.want(second(w.CreateUser(ctx, System(), NewUser{Username: "new", Email: "a@EXAMPLE.org"})), "email_taken")
	w.want(second(w.CreateUser(ctx, System(), NewUser{Username: "c0ra"})), "username_confusable")
	if err := w.patch("ben", UserPatch{Email: new("ben@example.org")}); err != nil {
		t.Error(err)
	}
	w.want(w.patch("ben", UserPatch{Email: new("a@example.org")}), "email_taken")
	if got := list(true); strings.Contains(got, "email") {
		t.Errorf("after it was mended: %s", got)
	}

	// An earlier version that still runs changes and deletes users behind our back.
	cora := w.stored(store.User{ID: "id-5"})
	cora.Email, cora.Username, cora.NameKey = "dora@example.org", "dora", "dora"
	if err := w.Store.UpdateUser(ctx, cora); err != nil {
		t.Fatal(err)
	}
	if err := w.Store.DeleteUser(ctx, "id-3"); err != nil { // modem
		t.Fatal(err)
	}
	if got := list(true); got != "" {
		t.Errorf("after others changed it: %s", got)
	}
	w.want(second(w.CreateUser(ctx, System(), NewUser{Username: "new", Email: "dora@example.org"})), "email_taken")
	w.want(second(w.CreateUser(ctx, System(), NewUser{Username: "new", Email: "c@example.org"})), "name_reserved")
}

// The init file is the operator's, and its users are users as all others.
func TestInitFileWithTheNamesOfOthers(t *testing.T) {
	w := newWorld(t)
	w.boss()
	for entry, want := range map[string]string{
		"{username: b0ss}":                       "line 2: the user \"b0ss\" cannot be made: another user has a username that looks like this one",
		"{username: x, email: boss@EXAMPLE.org}": "line 2: the user \"x\" cannot be made: another user has this e-mail address",
		"{username: \"p\\u0430ypal\"}":           "line 2: the user \"pаypal\" cannot be made: the letters of a username are of one script",
	} {
		_, err := w.apply("users:\n  - " + entry + "\n")
		if err == nil || code(err) != "init_file_conflict" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", entry, err)
		}
	}
}
