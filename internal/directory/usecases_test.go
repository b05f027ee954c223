package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/revoked"
)

func TestThirtyTwoMakeTheSameUser(t *testing.T) {
	onEach(t, func(t *testing.T, first *world) {
		worlds := []*world{first, replica(t, first.url)}
		var made, taken atomic.Int32
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() {
				_, err := worlds[i%2].CreateUser(t.Context(), System(), NewUser{Username: []string{"alice", "ALICE", "ａｌｉｃｅ"}[i%3], Password: secret})
				switch code(err) {
				case "":
					made.Add(1)
				case "username_taken":
					taken.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if made.Load() != 1 || taken.Load() != 31 {
			t.Errorf("%d made, %d taken", made.Load(), taken.Load())
		}
	})
}

func TestAUserFromFirstToLast(t *testing.T) {
	w := newWorld(t)
	root := as(w.superuser("root"))
	ctx := t.Context()
	u, err := w.CreateUser(ctx, root, NewUser{Username: "Anna", Password: secret, Email: "anna@example.org", FirstName: "Anna", LastName: "Ott"})
	if err != nil {
		t.Fatal(err)
	}
	if u.PasswordHash != "" || u.Version != 1 || w.stored(u).PasswordHash == "" {
		t.Errorf("made: %+v", u)
	}
	changed, err := w.UpdateUser(ctx, root, "anna", UserPatch{Username: new("Anne"), Email: new(""), LastName: new("Oz")})
	if err != nil || changed.NameKey != "anne" || changed.Email != "" || changed.FirstName != "Anna" || changed.LastName != "Oz" || changed.Version != 2 {
		t.Errorf("changed: %+v, %v", changed, err)
	}
	if got, err := w.User(ctx, root, u.ID); err != nil || got.Username != "Anne" || got.PasswordHash != "" {
		t.Errorf("%+v, %v", got, err)
	}
	same, err := w.UpdateUser(ctx, root, "anne", UserPatch{Username: new("Anne"), Disabled: new(false)})
	if err != nil || same.Version != 2 {
		t.Errorf("nothing changed: %+v, %v", same, err)
	}
	_, err = w.UpdateUser(ctx, root, "anne", UserPatch{Username: new("ROOT")})
	w.want(err, "username_taken")
	_, err = w.UpdateUser(ctx, root, "anne", UserPatch{Email: new("nonsense")})
	w.want(err, "invalid_email")
	if err := w.DeleteUser(ctx, root, "anne"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		w.DeleteUser(ctx, root, u.ID), w.SetPassword(ctx, root, u.ID, secret), w.AddToGroup(ctx, root, u.ID, "Administrators"),
		second(w.User(ctx, root, u.ID)), second(w.UpdateUser(ctx, root, "anne", UserPatch{})),
	} {
		w.want(err, "user_not_found")
	}
	var actions []string
	for _, e := range w.events(u.ID) {
		if e.Outcome != "ok" || e.Actor != root.ID || e.Address != root.Address {
			t.Errorf("%+v", e)
		}
		actions = append(actions, e.Action)
	}
	if got := strings.Join(actions, " "); got != "user.delete user.update user.create" {
		t.Errorf("the trail: %s", got)
	}
}

func TestAGroupAndAClaimFromFirstToLast(t *testing.T) {
	w := newWorld(t)
	root := as(w.superuser("root"))
	ctx := t.Context()
	c, err := w.CreateClaim(ctx, root, NewClaim{"Log  Reader", "log", "r"})
	if err != nil || c.Name != "Log Reader" || c.NameKey != "log reader" {
		t.Fatalf("%+v, %v", c, err)
	}
	w.want(second(w.CreateClaim(ctx, root, NewClaim{"LOG READER", "x", "y"})), "claim_name_taken")
	g, err := w.CreateGroup(ctx, root, NewGroup{Name: "Support", Claims: []string{"log reader"}})
	if err != nil {
		t.Fatal(err)
	}
	w.want(second(w.CreateGroup(ctx, root, NewGroup{Name: "SUPPORT"})), "group_name_taken")
	w.want(second(w.CreateGroup(ctx, root, NewGroup{Name: "other", Claims: []string{"nothing"}})), "claim_not_found")
	w.want(second(w.UpdateGroup(ctx, root, g.ID, GroupPatch{Name: new("administrators")})), "group_name_taken")
	w.want(second(w.UpdateClaim(ctx, root, c.ID, ClaimPatch{Name: new("superuser")})), "claim_name_taken")
	if g, err = w.UpdateGroup(ctx, root, "support", GroupPatch{Name: new("Help")}); err != nil || g.Name != "Help" || g.Version != 2 {
		t.Errorf("%+v, %v", g, err)
	}
	if c, err = w.UpdateClaim(ctx, root, c.ID, ClaimPatch{Name: new("Reader")}); err != nil || c.Name != "Reader" || c.Version != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	if claims, err := w.ClaimsOfGroup(ctx, root, "help"); err != nil || len(claims) != 1 || claims[0].ID != c.ID {
		t.Errorf("%+v, %v", claims, err)
	}
	// A change that changes nothing is no error and leaves no trace.
	before := len(w.events(g.ID))
	for _, err := range []error{
		w.AddClaim(ctx, root, "help", "reader"),
		w.RemoveClaim(ctx, root, "help", "superuser"),
		w.RemoveFromGroup(ctx, root, "root", "help"),
		w.AddToGroup(ctx, root, "root", "administrators"),
		second(w.UpdateGroup(ctx, root, "help", GroupPatch{})),
		second(w.UpdateClaim(ctx, root, "reader", ClaimPatch{})),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if after := len(w.events(g.ID)); after != before || len(w.revocations()) != 0 {
		t.Errorf("%d events, then %d", before, after)
	}
	if err := errors.Join(w.DeleteClaim(ctx, root, "reader"), w.DeleteGroup(ctx, root, "help")); err != nil {
		t.Error(err)
	}
	w.want(w.DeleteClaim(ctx, root, "reader"), "claim_not_found")
	w.want(w.DeleteGroup(ctx, root, g.ID), "group_not_found")
	w.want(w.AddToGroup(ctx, root, "root", g.ID), "group_not_found")
}

// Whatever takes a right away revokes the tokens that carry it, of everybody
// whom it concerns and of nobody else.
func TestWhatTakesRightsTakesTokens(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(w *world) error
		reason string
		ends   bool // the sessions
		both   bool // anna and ben, not anna alone
	}{
		"password":     {func(w *world) error { return w.SetPassword(w.t.Context(), System(), "anna", "another password") }, "password_changed", true, false},
		"disable":      {func(w *world) error { return w.patch("anna", UserPatch{Disabled: new(true)}) }, "user_disabled", true, false},
		"delete":       {func(w *world) error { return w.DeleteUser(w.t.Context(), System(), "anna") }, "user_deleted", true, false},
		"leave":        {func(w *world) error { return w.RemoveFromGroup(w.t.Context(), System(), "anna", "readers") }, "rights_changed", false, false},
		"unlink":       {func(w *world) error { return w.RemoveClaim(w.t.Context(), System(), "readers", "log=r") }, "rights_changed", false, true},
		"delete group": {func(w *world) error { return w.DeleteGroup(w.t.Context(), System(), "readers") }, "rights_changed", false, true},
		"delete claim": {func(w *world) error { return w.DeleteClaim(w.t.Context(), System(), "log=r") }, "rights_changed", false, true},
		"change claim": {func(w *world) error {
			return second(w.UpdateClaim(w.t.Context(), System(), "log=r", ClaimPatch{Value: new("w")}))
		}, "rights_changed", false, true},
		"e-mail": {func(w *world) error { return w.patch("anna", UserPatch{Email: new("a@example.org")}) }, "identity_changed", false, false},

		"enable": {do: func(w *world) error { return w.patch("dora", UserPatch{Disabled: new(false)}) }},
		"join":   {do: func(w *world) error { return w.AddToGroup(w.t.Context(), System(), "cora", "readers") }},
		"link":   {do: func(w *world) error { return w.AddClaim(w.t.Context(), System(), "readers", "shop=buyer") }},
		"rename group": {do: func(w *world) error {
			return second(w.UpdateGroup(w.t.Context(), System(), "readers", GroupPatch{Name: new("x")}))
		}},
		"rename claim": {do: func(w *world) error {
			return second(w.UpdateClaim(w.t.Context(), System(), "log=r", ClaimPatch{Name: new("x")}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.claim("shop", "buyer")
			w.group("readers", "log=r")
			w.group("watchers", "log=r")
			concerned := map[string]bool{}
			for _, n := range []NewUser{
				{Username: "anna", Groups: []string{"readers", "watchers"}}, {Username: "ben", Groups: []string{"readers"}},
				{Username: "cora"}, {Username: "dora", Disabled: true},
			} {
				u, err := w.CreateUser(t.Context(), System(), n)
				if err != nil {
					t.Fatal(err)
				}
				if c.reason != "" && (n.Username == "anna" || n.Username == "ben" && c.both) {
					concerned[u.ID] = true
				}
			}
			epochs := w.epochs()
			if err := c.do(w); err != nil {
				t.Fatal(err)
			}
			now := w.Now()
			for _, r := range w.revocations() {
				if !concerned[r.Subject] || r.Kind != string(revoked.User) || r.Reason != c.reason || r.Epoch <= epochs[r.Subject].Epoch ||
					r.ExpiresAt.Before(now.Add(maxTokenLife-maxTokenLife/10)) || !r.IssuedBefore.IsZero() {
					t.Errorf("%+v", r)
				}
				delete(concerned, r.Subject)
				if after, ok := w.epochs()[r.Subject]; ok && (after.Epoch != r.Epoch || (after.SessionEpoch == r.Epoch) != c.ends) {
					t.Errorf("epoch %d, of sessions %d", after.Epoch, after.SessionEpoch)
				}
				if slices.Contains(w.ended, r.Subject) != c.ends {
					t.Errorf("OnEnded was called for %v", w.ended)
				}
				epochs[r.Subject] = store.User{Epoch: -9} // a second line is one too many
			}
			if len(concerned) > 0 {
				t.Errorf("not revoked: %v", concerned)
			}
		})
	}
}

func (w *world) patch(user string, p UserPatch) error {
	return second(w.UpdateUser(w.t.Context(), System(), user, p))
}

func (w *world) epochs() map[string]store.User {
	w.t.Helper()
	all, err := w.Users(w.t.Context(), System(), Page{})
	if err != nil {
		w.t.Fatal(err)
	}
	m := make(map[string]store.User)
	for _, u := range all.Items {
		m[u.ID] = u
	}
	return m
}

// A large group loses its right in one transaction, or not at all.
func TestALargeGroupLosesItsClaim(t *testing.T) {
	const members = MaxPage + 20 // they are read in pages
	w := newWorld(t)
	g := w.group("everybody", "log=r")
	err := w.Store.Update(t.Context(), func(r store.Records) error {
		for i := range members {
			u := store.User{ID: fmt.Sprintf("id-%05d", i), Username: fmt.Sprint("user", i), NameKey: fmt.Sprint("user", i), Version: 1}
			if err := errors.Join(r.CreateUser(t.Context(), u), r.AddMember(t.Context(), u.ID, g.ID)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.RemoveClaim(t.Context(), System(), g.ID, "log=r"); err != nil {
		t.Fatal(err)
	}
	subjects := map[string]bool{}
	for _, r := range w.revocations() {
		subjects[r.Subject] = true
	}
	if len(subjects) != members || len(w.revocations()) != members {
		t.Errorf("%d of %d users, in %d lines", len(subjects), members, len(w.revocations()))
	}

	c := &change{revoked: make(map[string]bool, MaxAffected)}
	for i := range MaxAffected {
		c.revoked[fmt.Sprint(i)] = false
	}
	w.want(c.revoke(t.Context(), "one more", false, "x"), "too_many_affected")
}

func TestOneselfMayBeSeen(t *testing.T) {
	w := newWorld(t)
	u, other := w.user("alice", "log=r"), w.user("bob")
	if got, err := w.User(t.Context(), as(u), u.ID); err != nil || got.ID != u.ID || got.PasswordHash != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if groups, err := w.GroupsOf(t.Context(), as(u), u.ID); err != nil || len(groups) != 1 {
		t.Errorf("%+v, %v", groups, err)
	}
	w.want(second(w.User(t.Context(), as(u), other.ID)), "permission_missing")
	w.want(second(w.GroupsOf(t.Context(), as(u), other.ID)), "permission_missing")
}

func TestLists(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 7 {
		u := w.user(fmt.Sprintf("User%d", i))
		want = append(want, u.Username)
	}
	w.user("other")
	ctx := t.Context()
	var got []string
	for p := (Page{Prefix: "ＵＳＥＲ", Limit: 3}); ; {
		l, err := w.Users(ctx, System(), p)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range l.Items {
			if u.PasswordHash != "" {
				t.Error("a list shows a password's hash")
			}
			got = append(got, u.Username)
		}
		if p.After = l.Next; p.After == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	for _, c := range []struct {
		page Page
		want string
	}{
		{Page{Limit: -1}, "invalid_limit"}, {Page{Limit: MaxPage + 1}, "invalid_limit"}, {Page{Limit: MaxPage}, ""},
		{Page{After: "\xff"}, "invalid_cursor"}, {Page{After: "a\x00"}, "invalid_cursor"},
	} {
		w.want(second(w.Users(ctx, System(), c.page)), c.want)
		w.want(second(w.Groups(ctx, System(), c.page)), c.want)
		w.want(second(w.Claims(ctx, System(), c.page)), c.want)
	}
	w.want(second(w.Users(ctx, System(), Page{Prefix: "two words"})), "invalid_username")
	w.group("Readers", "log=r")
	w.group("Writers", "log=w")
	groups, err := w.Groups(ctx, System(), Page{Prefix: "rEAd"})
	if err != nil || len(groups.Items) != 1 || groups.Items[0].Name != "Readers" || groups.Next != "" {
		t.Errorf("%+v, %v", groups, err)
	}
	claims, err := w.Claims(ctx, System(), Page{Limit: 1})
	if err != nil || len(claims.Items) != 1 || claims.Next != "log=r" {
		t.Errorf("%+v, %v", claims, err)
	}
}

// A change and its audit event are there together or not at all.
func TestNoChangeWithoutItsEvent(t *testing.T) {
	w := newWorld(t)
	alice := w.user("alice")
	before := w.stored(alice)
	w.Audit = unwritable{w.Audit}
	w.want(w.patch("alice", UserPatch{Email: new("a@example.org")}), "database_unavailable")
	w.want(w.SetPassword(t.Context(), System(), "alice", "another password"), "database_unavailable")
	if after := w.stored(alice); after != before || len(w.revocations()) != 0 || len(w.ended) != 0 {
		t.Errorf("%+v became %+v", before, after)
	}
}

func TestNothingSecretIsWrittenDown(t *testing.T) {
	w := newWorld(t)
	u := w.user("alice")
	if err := w.SetPassword(t.Context(), System(), "alice", "another password"); err != nil {
		t.Fatal(err)
	}
	w.want(w.SetPassword(t.Context(), as(u), "alice", "a third password"), "permission_missing")
	written := w.logs.String()
	for _, e := range append(w.events(u.ID), w.events("alice")...) {
		written += fmt.Sprint(e)
	}
	if !strings.Contains(written, "changed password") {
		t.Errorf("nothing is written down: %s", written)
	}
	for _, secret := range []string{secret, "another password", "a third password", "$argon2id$"} {
		if strings.Contains(written, secret) {
			t.Errorf("%q is written down", secret)
		}
	}
}

// A claim for which a token would have no room is refused when it is given.
func TestClaimsHaveToFitIntoAToken(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("v", names.MaxValue-4)
	half := func(group string) store.Group {
		g := w.group(group)
		for i := range 20 {
			if err := w.AddClaim(t.Context(), System(), g.ID, w.claim(group, fmt.Sprintf("%02d", i)+long)); err != nil {
				t.Fatal(err)
			}
		}
		return g
	}
	a, b := half("a"), half("b")
	tester := w.user("tester")
	if err := w.AddToGroup(t.Context(), System(), tester.ID, a.ID); err != nil {
		t.Fatal(err)
	}
	w.want(w.AddToGroup(t.Context(), System(), tester.ID, b.ID), "claims_too_large")
	var err error
	for i := 0; err == nil && i < 20; i++ {
		err = w.AddClaim(t.Context(), System(), a.ID, fmt.Sprintf("b=%02d", i)+long)
	}
	w.want(err, "claims_too_large")
}

// A change of what the actor has not seen as it is now is refused, and changes nothing.
func TestChangesOfWhatWasSeen(t *testing.T) {
	w := newWorld(t)
	ctx, root := t.Context(), as(w.superuser("root"))
	u, g := w.user("alice"), w.group("crew")
	c, err := w.Claim(ctx, root, w.claim("log", "r"))
	if err != nil {
		t.Fatal(err)
	}
	for round, want := range []string{"", "changed_meanwhile"} {
		name := fmt.Sprintf("name %d", round)
		w.want(second(w.UpdateUser(ctx, root, u.ID, UserPatch{FirstName: &name, Version: &u.Version})), want)
		w.want(second(w.UpdateGroup(ctx, root, g.ID, GroupPatch{Name: &name, Version: &g.Version})), want)
		w.want(second(w.UpdateClaim(ctx, root, c.ID, ClaimPatch{Name: &name, Version: &c.Version})), want)
	}
	if got := w.stored(u).FirstName; got != "name 0" {
		t.Errorf("the name is %q", got)
	}
}

// Who sees claims and groups sees which groups give a claim.
func TestGroupsWithClaim(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	claim := w.claim("log", "r")
	w.group("first", claim)
	w.group("second", claim)
	w.group("third")
	reader := as(w.user("reader", "admin=claims:read", "admin=groups:read"))
	groups, err := w.GroupsWithClaim(ctx, reader, claim)
	if err != nil || len(groups) != 2 || groups[0].Name != "first" || groups[1].Name != "second" {
		t.Errorf("%v %v", groups, err)
	}
	for _, rights := range []string{"admin=claims:read", "admin=groups:read"} {
		_, err := w.GroupsWithClaim(ctx, as(w.user(strings.Trim(rights[6:9], ":"), rights)), claim)
		w.want(err, "permission_missing")
	}
	_, err = w.GroupsWithClaim(ctx, reader, "nothing")
	w.want(err, "claim_not_found")
}
