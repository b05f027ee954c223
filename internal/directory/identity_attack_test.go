package directory

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/store"
)

// boss makes a superuser with everything by which a token names somebody.
func (w *world) boss() store.User {
	w.t.Helper()
	u, err := w.CreateUser(w.t.Context(), System(), NewUser{
		Username: "boss", Password: secret, Email: "Boss@example.org", FirstName: "Ada", LastName: "Boss", Administrator: true,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// An e-mail address belongs to one user, however it is written.
func TestImpersonationByEmail(t *testing.T) {
	w, root, delegate := delegated(t)
	boss := w.boss()
	for _, address := range []string{"Boss@example.org", "boss@example.org", "BOSS@EXAMPLE.ORG", "ｂoss@example.org"} {
		for _, actor := range []Actor{as(delegate), as(root), System()} {
			_, err := w.UpdateUser(t.Context(), actor, delegate.ID, UserPatch{Email: &address})
			w.attack(err, "email_taken")
			_, err = w.CreateUser(t.Context(), actor, NewUser{Username: "puppet", Email: address})
			w.attack(err, "email_taken")
		}
	}
	if got := w.stored(delegate); got.Email != "" {
		t.Errorf("the delegate has %s", got.Email)
	}
	if _, err := w.User(t.Context(), System(), "puppet"); code(err) != "user_not_found" {
		t.Errorf("half of it was made: %v", err)
	}
	// The user itself may write it in another way.
	if err := w.patch(boss.ID, UserPatch{Email: new("boss@EXAMPLE.org")}); err != nil {
		t.Error(err)
	}
}

// A delegate gives nobody a name that a stronger user has, in whichever field of the token
// it would stand.
func TestImpersonationByNames(t *testing.T) {
	w, root, delegate := delegated(t)
	w.boss()
	plain := w.user("plain")
	_, err := w.CreateUser(t.Context(), System(), NewUser{Username: "writer", FirstName: "Wilma", LastName: "Writer", Groups: []string{w.group("writers", "log=w").ID}})
	if err != nil {
		t.Fatal(err)
	}
	for what, p := range map[string]UserPatch{
		"the full name":                 {FirstName: new("Ada"), LastName: new("Boss")},
		"split elsewhere":               {FirstName: new("Ada Boss")},
		"with a comma":                  {LastName: new("Ada, Boss")},
		"in capitals":                   {FirstName: new("ADA"), LastName: new("BOSS")},
		"with a Cyrillic letter":        {FirstName: new("Аda"), LastName: new("Bоss")},
		"of a user with one more right": {FirstName: new("Wilma"), LastName: new("Writer")},
		"the username as full name":     {FirstName: new("Boss")},
		"the address as full name":      {LastName: new("boss@example.org")},
		"the address as username":       {Username: new("boss@example.org")},
		"a look-alike address":          {Email: new("bоss@example.org")},
	} {
		for _, victim := range []store.User{plain, delegate} {
			attacks.Add(1)
			if _, err := w.UpdateUser(t.Context(), as(delegate), victim.ID, p); code(err) != "name_of_stronger" {
				t.Errorf("%s: %v", what, err)
			}
		}
		n := NewUser{Username: "puppet"}
		for _, f := range []struct{ to, from *string }{{&n.Username, p.Username}, {&n.Email, p.Email}, {&n.FirstName, p.FirstName}, {&n.LastName, p.LastName}} {
			if f.from != nil {
				*f.to = *f.from
			}
		}
		attacks.Add(1)
		if _, err := w.CreateUser(t.Context(), as(delegate), n); code(err) != "name_of_stronger" {
			t.Errorf("a new user, %s: %v", what, err)
		}
	}
	if es := w.events(plain.ID); len(es) == 0 || es[0].Outcome != "denied" || es[0].Detail != "name_of_stronger" {
		t.Errorf("the trail: %+v", es)
	}
	// Two people of one name are no attack, where the actor may act on both of them.
	for actor, p := range map[Actor]UserPatch{
		as(root):     {FirstName: new("Ada"), LastName: new("Boss")},
		as(delegate): {FirstName: new("Plain")},
	} {
		if _, err := w.UpdateUser(t.Context(), actor, plain.ID, p); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.UpdateUser(t.Context(), as(delegate), delegate.ID, UserPatch{FirstName: new("plain")}); err != nil {
		t.Error(err)
	}
}

// Nobody, whatever their rights, makes a username that is taken for another.
func TestImpersonationByALookAlikeUsername(t *testing.T) {
	w, root, delegate := delegated(t)
	w.boss()
	w.user("modern")
	for name, want := range map[string]string{
		"b0ss": "username_confusable", "ΒΟЅЅ": "username_mixes_scripts", "bоss": "username_mixes_scripts", "modem": "username_confusable",
		"r00t": "username_confusable", "BOSS": "username_taken", "ｂoss": "username_taken",
	} {
		for _, actor := range []Actor{as(delegate), as(root), System()} {
			_, err := w.CreateUser(t.Context(), actor, NewUser{Username: name})
			w.attack(err, want)
			_, err = w.UpdateUser(t.Context(), actor, delegate.ID, UserPatch{Username: &name})
			w.attack(err, want)
		}
	}
	w.user("coop") // one script each
	_, err := w.CreateUser(t.Context(), System(), NewUser{Username: "соор"})
	w.attack(err, "username_confusable")
	// A user's own name in another writing is no other user's.
	if err := w.patch("modern", UserPatch{Username: new("Modem")}); err != nil {
		t.Error(err)
	}
}

// What a token says of a user ends with the user's epoch.
func TestWhatATokenSaysEndsWithTheEpoch(t *testing.T) {
	for what, p := range map[string]UserPatch{
		"username": {Username: new("robert")}, "capitals": {Username: new("Bob")}, "e-mail": {Email: new("b@example.org")},
		"first name": {FirstName: new("R")}, "last name": {LastName: new("B")},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			bob := w.user("bob")
			if err := w.patch("bob", p); err != nil {
				t.Fatal(err)
			}
			after := w.stored(bob)
			if after.Epoch <= bob.Epoch || after.SessionEpoch != bob.SessionEpoch || len(w.revocations()) != 1 {
				t.Errorf("%+v, revoked: %+v", after, w.revocations())
			}
			if err := w.patch(bob.ID, UserPatch{Disabled: new(false)}); err != nil || w.stored(bob).Epoch != after.Epoch {
				t.Errorf("%v, epoch %d", err, w.stored(bob).Epoch)
			}
		})
	}
}

// A name is not given out again while tokens may be valid that give it to its former owner.
func TestANameThatWasGivenUp(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		other := replica(t, w.url)
		clock := time.Now()
		pass := func(d time.Duration) {
			clock = clock.Add(d)
			w.later(clock)
			other.later(clock)
		}
		pass(0)
		for _, name := range []string{"bob", "eve"} {
			if _, err := w.CreateUser(t.Context(), System(), NewUser{Username: name, Email: name + "@example.org"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.patch("bob", UserPatch{Username: new("robert"), Email: new("robert@example.org")}); err != nil {
			t.Fatal(err)
		}
		if err := w.DeleteUser(t.Context(), System(), "eve"); err != nil {
			t.Fatal(err)
		}
		refused := func() {
			t.Helper()
			for _, n := range []NewUser{
				{Username: "bob"}, {Username: "B0B"}, {Username: "eve"}, {Username: "mallory", Email: "BOB@example.org"}, {Username: "mallory", Email: "eve@example.org"},
			} {
				_, err := other.CreateUser(t.Context(), System(), n)
				other.attack(err, "name_reserved")
			}
		}
		refused()
		pass(maxTokenLife - time.Second)
		refused()
		// Who gave a name up may have it back.
		if err := other.patch("robert", UserPatch{Username: new("bob")}); err != nil {
			t.Fatal(err)
		}
		if err := other.patch("bob", UserPatch{Username: new("robert")}); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		_, err := other.CreateUser(t.Context(), System(), NewUser{Username: "bob"})
		other.attack(err, "name_reserved")
		if _, err := other.CreateUser(t.Context(), System(), NewUser{Username: "eve", Email: "eve@example.org"}); err != nil {
			t.Error(err)
		}
		pass(maxTokenLife)
		if _, err := w.CreateUser(t.Context(), System(), NewUser{Username: "bob", Email: "bob@example.org"}); err != nil {
			t.Error(err)
		}
	})
}

// Whoever may change a group may act on every member, whatever the group gives.
func TestWeakerPeopleHurtStrongerOnes(t *testing.T) {
	w, root, delegate := delegated(t)
	club := w.group("club")
	if err := w.AddToGroup(t.Context(), System(), root.ID, club.ID); err != nil {
		t.Fatal(err)
	}
	c, _ := w.Claim(t.Context(), System(), "log=r")
	before := w.claimsOf(root)
	w.refused(delegate, club.ID, w.AddClaim(t.Context(), as(delegate), club.ID, c.ID))
	_, err := w.UpdateGroup(t.Context(), as(delegate), club.ID, GroupPatch{Name: new("x")})
	w.refused(delegate, club.ID, err)
	w.refused(delegate, club.ID, w.DeleteGroup(t.Context(), as(delegate), club.ID))
	if err := w.AddClaim(t.Context(), System(), club.ID, c.ID); err != nil {
		t.Fatal(err)
	}
	before += " " + "log=r"
	w.refused(delegate, club.ID, w.RemoveClaim(t.Context(), as(delegate), club.ID, c.ID))
	_, err = w.UpdateClaim(t.Context(), as(delegate), c.ID, ClaimPatch{Name: new("x")})
	w.refused(delegate, c.ID, err)
	if after := w.claimsOf(root); after != before {
		t.Errorf("root holds %s, not %s", after, before)
	}
	if g, err := w.Group(t.Context(), System(), "club"); err != nil || g.ID != club.ID {
		t.Errorf("%+v, %v", g, err)
	}
}

// No change, not even a superuser's, gives a member more than a token has room for.
func TestAGroupDoesNotFillItsMembersTokens(t *testing.T) {
	w, root, _ := delegated(t)
	long := strings.Repeat("v", names.MaxValue-10)
	full, club := w.group("full"), w.group("club")
	for i := range 28 {
		if err := w.AddClaim(t.Context(), as(root), full.ID, w.claim("f", fmt.Sprintf("%02d", i)+long)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		w.claim("c", fmt.Sprintf("%02d", i)+long)
	}
	for _, g := range []string{full.ID, club.ID} {
		if err := w.AddToGroup(t.Context(), as(root), root.ID, g); err != nil {
			t.Fatal(err)
		}
	}
	// One who has none of the other claims does not make it fit for root.
	if err := w.AddToGroup(t.Context(), as(root), w.user("aaron").ID, club.ID); err != nil {
		t.Fatal(err)
	}
	var err error
	given := 0
	for ; err == nil && given < 8; given++ {
		err = w.AddClaim(t.Context(), as(root), club.ID, fmt.Sprintf("c=%02d", given)+long)
	}
	if w.want(err, "claims_too_large"); given == 1 {
		t.Error("not even one was given")
	}
	if _, err = w.CreateClaim(t.Context(), as(root), NewClaim{"short", "short", "v"}); err == nil {
		err = w.AddClaim(t.Context(), as(root), club.ID, "short")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.UpdateClaim(t.Context(), as(root), "short", ClaimPatch{ShortName: new(strings.Repeat("s", 60)), Value: new(strings.Repeat("ü", 60))})
	w.want(err, "claims_too_large")
}

// Where the members' other groups give so much that each member would have to be measured, no
// more than MaxAffected of them are.
func TestAGroupOfTooManyMembers(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("v", names.MaxValue-10)
	club := w.group("club")
	w.claim("log", "r")
	w.claim("log", "w")
	join := func(from, to int) {
		t.Helper()
		err := w.Store.Update(t.Context(), func(r store.Records) error {
			for i := from; i < to; i++ {
				u := store.User{ID: fmt.Sprintf("id-%05d", i), Username: fmt.Sprint("user", i), NameKey: fmt.Sprint("user", i), Version: 1}
				if err := errors.Join(r.CreateUser(t.Context(), u), r.AddMember(t.Context(), u.ID, club.ID)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, half := range []string{"a", "b"} { // each fits, both together do not
		var claims []string
		for i := range 20 {
			claims = append(claims, w.claim(half, fmt.Sprintf("%02d", i)+long))
		}
		if err := w.AddToGroup(t.Context(), System(), w.user(half, claims...).ID, club.ID); err != nil {
			t.Fatal(err)
		}
	}
	join(2, MaxAffected)
	if err := w.AddClaim(t.Context(), System(), club.ID, "log=r"); err != nil {
		t.Fatal(err)
	}
	join(MaxAffected, MaxAffected+1)
	w.want(w.AddClaim(t.Context(), System(), club.ID, "log=w"), "too_many_members")
	if claims, err := w.Store.ClaimsOfGroup(t.Context(), club.ID); err != nil || len(claims) != 1 {
		t.Errorf("the group gives %+v, %v", claims, err)
	}
}
