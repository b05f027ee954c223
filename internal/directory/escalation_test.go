package directory

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/store"
)

// delegated is a world with a superuser, and a delegate who may administer
// everything but holds no other right than log=r.
func delegated(t *testing.T) (w *world, root, delegate store.User) {
	t.Helper()
	w = newWorld(t)
	root = w.superuser("root")
	delegate = w.user("delegate", "admin=users:write", "admin=groups:write", "admin=claims:write", "log=r")
	return w, root, delegate
}

// refused says that the delegate may not do it, that nothing became of it, and
// that the trail has it.
func (w *world) refused(actor store.User, target string, err error) {
	w.t.Helper()
	attacks.Add(1)
	if !errors.Is(err, ErrBeyondOwnRights) {
		w.t.Errorf("%v, want beyond_own_rights", err)
	}
	es := w.events(target)
	if len(es) == 0 || es[0].Outcome != "denied" || es[0].Actor != actor.ID || es[0].Address != "192.0.2.1" {
		w.t.Errorf("the trail about %s: %+v", target, es)
	}
}

func TestEscalationByAClaimForOnesOwnGroup(t *testing.T) {
	w, _, delegate := delegated(t)
	before := w.claimsOf(delegate)
	w.claim("log", "w")
	for _, stronger := range []string{"Superuser", "log=w"} {
		g, _ := w.Group(t.Context(), System(), "of delegate")
		w.refused(delegate, g.ID, w.AddClaim(t.Context(), as(delegate), g.ID, stronger))
	}
	if after := w.claimsOf(delegate); after != before {
		t.Errorf("the delegate holds %s", after)
	}
}

func TestEscalationByANewGroupWithTheClaim(t *testing.T) {
	w, _, delegate := delegated(t)
	_, err := w.CreateGroup(t.Context(), as(delegate), NewGroup{Name: "mine", Claims: []string{"log=r", "Superuser"}})
	w.refused(delegate, "mine", err)
	if _, err := w.Group(t.Context(), System(), "mine"); !errors.Is(err, ErrGroupNotFound) {
		t.Errorf("half of it was made: %v", err)
	}
}

func TestEscalationByAGroupForOneself(t *testing.T) {
	w, _, delegate := delegated(t)
	w.refused(delegate, delegate.ID, w.AddToGroup(t.Context(), as(delegate), delegate.ID, "Administrators"))
	if rights := w.claimsOf(delegate); rights != "admin=claims:write,groups:write,users:write log=r" {
		t.Errorf("the delegate holds %s", rights)
	}
}

func TestEscalationByANewUserInAStrongerGroup(t *testing.T) {
	w, _, delegate := delegated(t)
	_, err := w.CreateUser(t.Context(), as(delegate), NewUser{Username: "puppet", Password: secret, Groups: []string{"Administrators"}})
	w.refused(delegate, "puppet", err)
	_, err = w.CreateUser(t.Context(), as(delegate), NewUser{Username: "puppet", Password: secret, Administrator: true})
	w.refused(delegate, "puppet", err)
	if _, err := w.User(t.Context(), System(), "puppet"); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("the puppet is there: %v", err)
	}
}

func TestEscalationByAClaimThatNobodyHeld(t *testing.T) {
	w, _, delegate := delegated(t)
	for _, c := range []NewClaim{
		{"all", Admin, Superuser}, {"revoke", Admin, Revoke}, {"w", "log", "w"}, {"other", "shop", "r"},
	} {
		_, err := w.CreateClaim(t.Context(), as(delegate), c)
		w.refused(delegate, c.Name, err)
	}
	if _, err := w.CreateClaim(t.Context(), as(delegate), NewClaim{"again", "log", "r"}); err != nil {
		t.Errorf("a right that the actor holds: %v", err)
	}
}

// The token joins values with commas: "x,S" would be read as x and S.
func TestEscalationByAValueWithAComma(t *testing.T) {
	w, root, delegate := delegated(t)
	for _, actor := range []Actor{as(delegate), as(root), System()} {
		_, err := w.CreateClaim(t.Context(), actor, NewClaim{"trick", "log", "r,S"})
		w.attack(err, "invalid_value")
		_, err = w.UpdateClaim(t.Context(), actor, "log=r", ClaimPatch{Value: new("r,S")})
		w.attack(err, "invalid_value")
	}
}

func TestEscalationByAClaimNamedSub(t *testing.T) {
	w, root, _ := delegated(t)
	for _, short := range []string{"sub", "Sub", "exp", "sid", "epoch"} {
		_, err := w.CreateClaim(t.Context(), as(root), NewClaim{"trick", short, root.ID})
		w.attack(err, "claim_name_reserved")
		_, err = w.UpdateClaim(t.Context(), as(root), "log=r", ClaimPatch{ShortName: &short})
		w.attack(err, "claim_name_reserved")
	}
}

func TestEscalationByChangingAClaimThatOneHolds(t *testing.T) {
	w, _, delegate := delegated(t)
	c, _ := w.Claim(t.Context(), System(), "log=r")
	for _, p := range []ClaimPatch{
		{Value: new("w")}, {ShortName: new("shop")}, {ShortName: new(Admin), Value: new(Superuser)},
	} {
		_, err := w.UpdateClaim(t.Context(), as(delegate), c.ID, p)
		w.refused(delegate, c.ID, err)
	}
	if rights := w.claimsOf(delegate); rights != "admin=claims:write,groups:write,users:write log=r" {
		t.Errorf("the delegate holds %s", rights)
	}
}

// An actor who does not hold a claim may not change it, even if no group gives it.
func TestEscalationByAnUnusedClaim(t *testing.T) {
	w, _, delegate := delegated(t)
	w.claim("log", "w")
	c, _ := w.Claim(t.Context(), System(), "log=w")
	_, err := w.UpdateClaim(t.Context(), as(delegate), c.ID, ClaimPatch{Value: new("r")})
	w.refused(delegate, c.ID, err)
	w.refused(delegate, c.ID, w.DeleteClaim(t.Context(), as(delegate), c.ID))
}

func TestEscalationByAStrongerUsersAccount(t *testing.T) {
	w, root, delegate := delegated(t)
	writer := w.user("writer", "log=w") // holds what the delegate does not
	for _, victim := range []store.User{root, writer} {
		before := w.stored(victim)
		w.refused(delegate, victim.ID, w.SetPassword(t.Context(), as(delegate), victim.ID, "a new password"))
		for _, p := range []UserPatch{
			{Email: new("delegate@example.org")}, {Username: new("hidden")}, {FirstName: new("x")}, {LastName: new("x")}, {Disabled: new(true)},
		} {
			_, err := w.UpdateUser(t.Context(), as(delegate), victim.ID, p)
			w.refused(delegate, victim.ID, err)
		}
		w.refused(delegate, victim.ID, w.DeleteUser(t.Context(), as(delegate), victim.ID))
		w.refused(delegate, victim.ID, w.AddToGroup(t.Context(), as(delegate), victim.ID, "of delegate"))
		if after := w.stored(victim); after != before {
			t.Errorf("%+v became %+v", before, after)
		}
	}
	if _, err := w.Authenticate(t.Context(), "root", secret); err != nil {
		t.Errorf("root: %v", err)
	}
	if len(w.revocations()) != 0 {
		t.Error("tokens were revoked")
	}
}

// A disabled user keeps the rights for the day on which the user is enabled.
func TestEscalationByEnablingAStrongerUser(t *testing.T) {
	w, _, delegate := delegated(t)
	w.superuser("second")
	second, err := w.UpdateUser(t.Context(), System(), "second", UserPatch{Disabled: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	w.refused(delegate, second.ID, w.SetPassword(t.Context(), as(delegate), second.ID, "a new password"))
	_, err = w.UpdateUser(t.Context(), as(delegate), second.ID, UserPatch{Disabled: new(false)})
	w.refused(delegate, second.ID, err)
}

// A delegate cannot take rights in any way from a user who has others than the delegate.
func TestEscalationByWeakeningTheStronger(t *testing.T) {
	w, root, delegate := delegated(t)
	readers := w.group("readers", "log=r")
	if err := w.AddToGroup(t.Context(), System(), root.ID, readers.ID); err != nil {
		t.Fatal(err)
	}
	c, _ := w.Claim(t.Context(), System(), "log=r")
	administrators, _ := w.Group(t.Context(), System(), "Administrators")
	all, _ := w.Claim(t.Context(), System(), "Superuser")
	before := w.claimsOf(root)

	w.refused(delegate, root.ID, w.RemoveFromGroup(t.Context(), as(delegate), root.ID, readers.ID))
	w.refused(delegate, root.ID, w.RemoveFromGroup(t.Context(), as(delegate), root.ID, administrators.ID))
	w.refused(delegate, administrators.ID, w.RemoveClaim(t.Context(), as(delegate), administrators.ID, all.ID))
	w.refused(delegate, administrators.ID, w.DeleteGroup(t.Context(), as(delegate), administrators.ID))
	_, err := w.UpdateGroup(t.Context(), as(delegate), administrators.ID, GroupPatch{Name: new("x")})
	w.refused(delegate, administrators.ID, err)
	w.refused(delegate, all.ID, w.DeleteClaim(t.Context(), as(delegate), all.ID))
	// The group and the claim are within the delegate's rights, but root is among the members.
	w.refused(delegate, readers.ID, w.RemoveClaim(t.Context(), as(delegate), readers.ID, c.ID))
	w.refused(delegate, readers.ID, w.DeleteGroup(t.Context(), as(delegate), readers.ID))
	w.refused(delegate, c.ID, w.DeleteClaim(t.Context(), as(delegate), c.ID))

	if after := w.claimsOf(root); after != before {
		t.Errorf("root holds %s, not %s", after, before)
	}
}

func TestADelegateAdministersWhatIsWithinHisRights(t *testing.T) {
	w, _, delegate := delegated(t)
	ctx, me := t.Context(), as(delegate)
	g, err := w.CreateGroup(ctx, me, NewGroup{Name: "readers", Claims: []string{"log=r"}})
	if err != nil {
		t.Fatal(err)
	}
	u, err := w.CreateUser(ctx, me, NewUser{Username: "anna", Password: secret, Groups: []string{"READERS"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.claimsOf(u); got != "log=r" {
		t.Errorf("anna holds %q", got)
	}
	_, errUpdate := w.UpdateUser(ctx, me, u.ID, UserPatch{Email: new("anna@example.org")})
	_, errRename := w.UpdateGroup(ctx, me, g.ID, GroupPatch{Name: new("log readers")})
	for i, err := range []error{
		errUpdate, errRename,
		w.SetPassword(ctx, me, u.ID, "a new password"),
		w.RemoveFromGroup(ctx, me, u.ID, g.ID),
		w.AddToGroup(ctx, me, u.ID, g.ID),
		w.RemoveClaim(ctx, me, g.ID, "log=r"),
		w.AddClaim(ctx, me, g.ID, "log=r"),
		w.DeleteGroup(ctx, me, g.ID),
		w.DeleteUser(ctx, me, u.ID),
	} {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// The rights of an actor are read when they are needed, whatever the token says.
func TestPermissionsAreReadFromTheStore(t *testing.T) {
	w, _, delegate := delegated(t)
	nobody := w.user("nobody", "log=r")
	ctx := t.Context()
	for _, actor := range []Actor{as(nobody), as(store.User{ID: "gone"}), as(store.User{}), as(store.User{ID: delegate.ID + "x"})} {
		for i, err := range []error{
			second(w.CreateUser(ctx, actor, NewUser{Username: "x", Password: secret})),
			second(w.CreateUser(ctx, actor, NewUser{Username: "x"})),
			second(w.UpdateUser(ctx, actor, "nobody", UserPatch{Email: new("")})),
			w.SetPassword(ctx, actor, "nobody", secret), w.DeleteUser(ctx, actor, "nobody"),
			w.AddToGroup(ctx, actor, "nobody", "of delegate"), w.RemoveFromGroup(ctx, actor, "nobody", "of nobody"),
			second(w.CreateGroup(ctx, actor, NewGroup{Name: "x"})), second(w.UpdateGroup(ctx, actor, "of nobody", GroupPatch{})),
			w.DeleteGroup(ctx, actor, "of nobody"), w.AddClaim(ctx, actor, "of nobody", "log=r"), w.RemoveClaim(ctx, actor, "of nobody", "log=r"),
			second(w.CreateClaim(ctx, actor, NewClaim{"x", "log", "r"})), second(w.UpdateClaim(ctx, actor, "log=r", ClaimPatch{})), w.DeleteClaim(ctx, actor, "log=r"),
			second(w.User(ctx, actor, "delegate")), second(w.Users(ctx, actor, Page{})), second(w.GroupsOf(ctx, actor, "delegate")),
			second(w.Group(ctx, actor, "of nobody")), second(w.Groups(ctx, actor, Page{})), second(w.ClaimsOfGroup(ctx, actor, "of nobody")),
			second(w.MembersOfGroup(ctx, actor, "of nobody", Page{})),
			second(w.Claim(ctx, actor, "log=r")), second(w.Claims(ctx, actor, Page{})),
			w.Authorize(ctx, actor, KeysRead), second(w.AuthorizeOn(ctx, actor, Revoke, "delegate")),
		} {
			attacks.Add(1)
			if !errors.Is(err, ErrPermissionMissing) {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
	if err := w.RemoveFromGroup(ctx, System(), delegate.ID, "of delegate"); err != nil {
		t.Fatal(err)
	}
	w.want(w.DeleteUser(ctx, as(delegate), "nobody"), "permission_missing")
}

func TestADisabledActorMayNothing(t *testing.T) {
	w, root, delegate := delegated(t)
	if _, err := w.UpdateUser(t.Context(), as(root), delegate.ID, UserPatch{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	w.want(w.Authorize(t.Context(), as(delegate), UsersRead), "permission_missing")
	_, err := w.CreateGroup(t.Context(), as(delegate), NewGroup{Name: "x"})
	w.want(err, "permission_missing")
}

func TestEachPermissionAllowsItsOwn(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	u, g, c := as(w.user("u", "admin=users:write")), as(w.user("g", "admin=groups:write")), as(w.user("c", "admin=claims:write"))
	w.group("empty")
	w.user("plain")
	if err := w.AddToGroup(ctx, u, "plain", "empty"); err != nil {
		t.Error(err)
	}
	w.want(w.AddToGroup(ctx, g, "plain", "empty"), "permission_missing")
	w.want(w.DeleteGroup(ctx, u, "empty"), "permission_missing")
	w.want(w.DeleteGroup(ctx, c, "empty"), "permission_missing")
	w.want(second(w.CreateClaim(ctx, g, NewClaim{"x", Admin, GroupsWrite})), "permission_missing")
	if err := w.DeleteGroup(ctx, g, "empty"); err != nil {
		t.Error(err)
	}
	w.want(second(w.MembersOfGroup(ctx, g, "of u", Page{})), "permission_missing")
}

func TestAuthorizeOnWhoIsStronger(t *testing.T) {
	w, root, delegate := delegated(t)
	helper := w.user("helper", "admin=revoke")
	plain := w.user("plain")
	w.want(second(w.AuthorizeOn(t.Context(), as(helper), Revoke, root.ID)), "beyond_own_rights")
	w.want(second(w.AuthorizeOn(t.Context(), as(helper), Revoke, delegate.ID)), "beyond_own_rights")
	w.want(second(w.AuthorizeOn(t.Context(), as(helper), Revoke, "gone")), "user_not_found")
	w.want(second(w.AuthorizeOn(t.Context(), as(helper), SessionsRead, plain.ID)), "permission_missing")
	if got, err := w.AuthorizeOn(t.Context(), as(helper), Revoke, "PLAIN"); err != nil || got.ID != plain.ID || got.PasswordHash != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

// Two grants at once, each within the rights of its giver, must not add up: a friend who
// holds what one delegate gave holds more than the other delegate.
func TestEscalationByTwoGrantsAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		other := replica(t, w.url)
		reader, buyer := w.user("reader", "admin=users:write", "log=r"), w.user("buyer", "admin=users:write", "shop=buyer")
		readers, buyers := w.group("readers", "log=r"), w.group("buyers", "shop=buyer")
		for i := range rounds(8) {
			friend := w.user(fmt.Sprint("friend", i))
			var errReader, errBuyer error
			var both sync.WaitGroup
			both.Go(func() { errReader = w.AddToGroup(t.Context(), as(reader), friend.ID, readers.ID) })
			both.Go(func() { errBuyer = other.AddToGroup(t.Context(), as(buyer), friend.ID, buyers.ID) })
			both.Wait()
			want := "log=r"
			if errReader != nil {
				errReader, errBuyer, want = errBuyer, errReader, "shop=buyer"
			}
			if errReader != nil || !errors.Is(errBuyer, ErrBeyondOwnRights) {
				t.Fatalf("%v and %v", errReader, errBuyer)
			}
			if got := w.claimsOf(friend); got != want {
				t.Errorf("the friend holds %q, not %q", got, want)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// The id of a deleted user must not come to name another user.
func TestEscalationByTheIDOfOneWhoIsGone(t *testing.T) {
	w, _, delegate := delegated(t)
	plain := w.user("plain")
	for form, name := range map[string]string{
		"id": plain.ID, "capitals": strings.ToUpper(plain.ID), "bare": strings.ReplaceAll(plain.ID, "-", ""),
		"braces": "{" + plain.ID + "}", "urn": "urn:uuid:" + plain.ID, "wide": strings.ReplaceAll(plain.ID, "0", "\uff10"),
	} {
		attacks.Add(4)
		_, err := w.CreateUser(t.Context(), as(delegate), NewUser{Username: name})
		if code(err) != "invalid_username" {
			t.Errorf("a user called by an %s: %v", form, err)
		}
		_, err = w.UpdateUser(t.Context(), as(delegate), delegate.ID, UserPatch{Username: &name})
		if code(err) != "invalid_username" {
			t.Errorf("a user renamed to an %s: %v", form, err)
		}
		if _, err := w.CreateGroup(t.Context(), as(delegate), NewGroup{Name: name}); code(err) != "invalid_name" {
			t.Errorf("a group called by an %s: %v", form, err)
		}
		if _, err := w.CreateClaim(t.Context(), as(delegate), NewClaim{name, "log", "r"}); code(err) != "invalid_name" {
			t.Errorf("a claim called by an %s: %v", form, err)
		}
	}
	// A user who had such a name before it was refused.
	old := w.stored(delegate)
	old.Username, old.NameKey = plain.ID, plain.ID
	if err := w.Store.Update(t.Context(), func(r store.Records) error { return r.UpdateUser(t.Context(), old) }); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteUser(t.Context(), System(), plain.ID); err != nil {
		t.Fatal(err)
	}
	if err := w.AddToGroup(t.Context(), System(), plain.ID, "Administrators"); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("who is gone can be made administrator: %v", err)
	}
	if rights := w.claimsOf(delegate); strings.Contains(rights, Superuser) {
		t.Errorf("the delegate holds %s", rights)
	}
	if u, err := w.User(t.Context(), System(), old.ID); err != nil || u.Username != plain.ID {
		t.Errorf("a user by their own id: %+v, %v", u, err)
	}
}
