// Package storetest holds an implementation of package store to the promises of its
// interfaces: every operation and every error, transactions, and what must stay true when
// many callers of two replicas meet.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// callers is how many goroutines meet in the tests of concurrency; half of them
// on each of two stores.
const callers = 32

// times is how often something is done, in the short form and, if WATCHWORD_SOAK asks
// for it, in the long one.
func times(short, long int) int {
	if os.Getenv("WATCHWORD_SOAK") != "" {
		return long
	}
	return short
}

// Run tests an implementation under the given name. Every call of open makes an
// empty store and opens it twice, as two replicas would; it leaves the closing to
// t.Cleanup. With WATCHWORD_SOAK in the environment it goes on for longer.
func Run(t *testing.T, name string, open func(t *testing.T) (a, b store.Store)) {
	kept := t.Run(name, func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(t *testing.T, a, b store.Store)
		}{
			{"users", users},
			{"groups", groups},
			{"claims", claims},
			{"names are compared byte by byte", names},
			{"names that are no text", noText},
			{"pages", pages},
			{"memberships", memberships},
			{"groups and grants of users", grants},
			{"a user with claims", userWithClaims},
			{"verified e-mail addresses", verifiedEmails},
			{"marks", marks},
			{"users without a mark", usersWithoutMark},
			{"how passwords are hashed", passwordHashes},
			{"claims of members, and of users with a mark", claimsOfMany},
			{"factors", factors},
			{"factors in a transaction", factorsInUpdate},
			{"epochs", epochs},
			{"does anyone hold a claim", anyoneHolds},
			{"signing keys", keys},
			{"revocations", revocations},
			{"expired revocations", expiredRevocations},
			{"audit", audit},
			{"audit takes any text", auditText},
			{"audit in the order of ids", auditRange},
			{"seals of the audit trail", auditSeals},
			{"one number of a seal for many callers", auditSealRace},
			{"settings", settings},
			{"update commits everything or nothing", updates},
			{"update goes on after a conflict", updateAfterConflict},
			{"update returns what its function returned", updateErrors},
			{"a caller that has gone", cancelled},
			{"concurrent create succeeds once", createOnce},
			{"concurrent update of a version succeeds once", updateOnce},
			{"concurrent users get a mark once", markOnce},
			{"concurrent create of a factor succeeds once", factorCreatedOnce},
			{"concurrent update of a factor succeeds once", factorUpdatedOnce},
			{"concurrent delete of a factor succeeds once", factorDeletedOnce},
			{"a factor is taken once", factorTakenOnce},
			{"factors are counted one transaction after the other", factorsCounted},
			{"concurrent updates come one after the other", serializable},
			{"concurrent epochs are all different", epochsApart},
			{"a user and the claims are of one moment", oneMoment},
			{"concurrent settings agree", settingsAgree},
			{"a setting stays while a transaction has it", settingStays},
			{"a key is created once", keyOnce},
			{"the log while many write it", logInOrder},
			{"the log when transactions overtake each other", logOvertaken},
			{"the log while a number is held", logHeld},
		} {
			t.Run(test.name, func(t *testing.T) {
				a, b := open(t)
				test.run(t, a, b)
			})
		}
	})
	if kept {
		t.Logf("summary: store on %s keeps its promises", name)
	}
}

// now is a time as a database keeps it.
var now = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func user(name string) store.User {
	return store.User{
		ID: "id-" + name, Username: name, NameKey: name, Email: name + "@example.org",
		FirstName: "F " + name, LastName: "L ü 🎈", PasswordHash: "$argon2id$x",
		Epoch: 3, SessionEpoch: 2, CreatedAt: now, UpdatedAt: now.Add(time.Second), Version: 1,
	}
}

func group(name string) store.Group {
	return store.Group{ID: "id-" + name, Name: name, NameKey: name, CreatedAt: now, UpdatedAt: now, Version: 1}
}

func claim(name, short, value string) store.Claim {
	return store.Claim{ID: "id-" + name, Name: name, NameKey: name, ShortName: short, Value: value,
		CreatedAt: now, UpdatedAt: now, Version: 1}
}

func users(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	u := user("alice")
	ok(t, a.CreateUser(ctx, u))
	equal(t, must(b.User(ctx, u.ID))(t), u)
	equal(t, must(b.UserByName(ctx, "alice"))(t), u)

	sameID, sameName := user("bob"), user("carol")
	sameID.ID, sameName.NameKey = u.ID, u.NameKey
	is(t, a.CreateUser(ctx, sameID), store.ErrConflict)
	is(t, b.CreateUser(ctx, sameName), store.ErrConflict)
	is(t, second(a.UserByName(ctx, "bob")), store.ErrNotFound)
	is(t, second(a.User(ctx, "id-bob")), store.ErrNotFound)

	u.Username, u.NameKey, u.Email, u.FirstName, u.LastName = "Alice2", "alice2", "", "", ""
	u.PasswordHash, u.Disabled, u.UpdatedAt = "", true, now.Add(time.Hour)
	changed := u
	changed.Epoch, changed.SessionEpoch, changed.CreatedAt = 99, 99, now.Add(time.Hour) // not UpdateUser's
	ok(t, b.UpdateUser(ctx, changed))
	u.Version = 2
	equal(t, must(a.User(ctx, u.ID))(t), u)
	equal(t, must(a.UserByName(ctx, "alice2"))(t), u)
	is(t, second(a.UserByName(ctx, "alice")), store.ErrNotFound)

	is(t, a.UpdateUser(ctx, changed), store.ErrStale) // still version 1
	ok(t, a.CreateUser(ctx, user("bob")))
	taken := u
	taken.NameKey = "bob"
	is(t, a.UpdateUser(ctx, taken), store.ErrConflict)
	equal(t, must(a.User(ctx, u.ID))(t), u)

	ok(t, a.DeleteUser(ctx, u.ID))
	is(t, b.DeleteUser(ctx, u.ID), store.ErrNotFound)
	is(t, second(b.User(ctx, u.ID)), store.ErrNotFound)
	is(t, b.UpdateUser(ctx, u), store.ErrStale)
	ok(t, b.CreateUser(ctx, user("alice2"))) // the name is free again

	var zero store.User
	zero.ID, zero.NameKey = "id-zero", "zero"
	ok(t, a.CreateUser(ctx, zero))
	zero.Version = 1
	equal(t, must(b.User(ctx, "id-zero"))(t), zero)
}

func groups(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	g := group("staff")
	ok(t, a.CreateGroup(ctx, g))
	equal(t, must(b.Group(ctx, g.ID))(t), g)
	equal(t, must(b.GroupByName(ctx, "staff"))(t), g)
	sameID, sameName := group("x"), group("y")
	sameID.ID, sameName.NameKey = g.ID, g.NameKey
	is(t, b.CreateGroup(ctx, sameID), store.ErrConflict)
	is(t, b.CreateGroup(ctx, sameName), store.ErrConflict)

	stale := g
	g.Name, g.NameKey, g.UpdatedAt = "Team", "team", now.Add(time.Minute)
	ok(t, a.UpdateGroup(ctx, g))
	g.Version = 2
	equal(t, must(b.Group(ctx, g.ID))(t), g)
	is(t, a.UpdateGroup(ctx, stale), store.ErrStale)
	ok(t, a.CreateGroup(ctx, group("other")))
	taken := g
	taken.NameKey = "other"
	is(t, a.UpdateGroup(ctx, taken), store.ErrConflict)

	ok(t, a.CreateClaim(ctx, claim("read", "log", "r")))
	ok(t, a.CreateClaim(ctx, claim("write", "log", "w")))
	is(t, a.AddClaim(ctx, g.ID, "nobody"), store.ErrNotFound)
	is(t, a.AddClaim(ctx, "nobody", "id-read"), store.ErrNotFound)
	for range 2 { // the second time it is so already
		ok(t, a.AddClaim(ctx, g.ID, "id-write"))
		ok(t, a.AddClaim(ctx, g.ID, "id-read"))
	}
	equal(t, must(b.ClaimsOfGroup(ctx, g.ID))(t), []store.Claim{claim("read", "log", "r"), claim("write", "log", "w")})
	equal(t, must(b.GroupsWithClaim(ctx, "id-read"))(t), []store.Group{g})
	for range 2 {
		ok(t, a.RemoveClaim(ctx, g.ID, "id-write"))
	}
	equal(t, must(b.ClaimsOfGroup(ctx, g.ID))(t), []store.Claim{claim("read", "log", "r")})

	ok(t, a.CreateUser(ctx, user("alice")))
	ok(t, a.AddMember(ctx, "id-alice", g.ID))
	ok(t, a.DeleteGroup(ctx, g.ID))
	is(t, b.DeleteGroup(ctx, g.ID), store.ErrNotFound)
	is(t, second(b.Group(ctx, g.ID)), store.ErrNotFound)
	is(t, second(b.GroupByName(ctx, "team")), store.ErrNotFound)
	equal(t, len(must(b.GroupsOfUser(ctx, "id-alice"))(t)), 0)
	equal(t, len(must(b.GroupsWithClaim(ctx, "id-read"))(t)), 0)
	equal(t, len(must(b.ClaimsOfUser(ctx, "id-alice"))(t)), 0)
}

func claims(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	c := claim("log read", "log", "r")
	ok(t, a.CreateClaim(ctx, c))
	equal(t, must(b.Claim(ctx, c.ID))(t), c)
	equal(t, must(b.ClaimByName(ctx, "log read"))(t), c)
	sameID, sameName := claim("x", "x", "x"), claim("y", "y", "y")
	sameID.ID, sameName.NameKey = c.ID, c.NameKey
	is(t, b.CreateClaim(ctx, sameID), store.ErrConflict)
	is(t, b.CreateClaim(ctx, sameName), store.ErrConflict)

	stale := c
	c.Name, c.NameKey, c.ShortName, c.Value, c.UpdatedAt = "N", "n", "s", "v", now.Add(time.Minute)
	ok(t, a.UpdateClaim(ctx, c))
	c.Version = 2
	equal(t, must(b.Claim(ctx, c.ID))(t), c)
	is(t, a.UpdateClaim(ctx, stale), store.ErrStale)
	ok(t, a.CreateClaim(ctx, claim("other", "o", "o")))
	taken := c
	taken.NameKey = "other"
	is(t, a.UpdateClaim(ctx, taken), store.ErrConflict)

	ok(t, a.CreateGroup(ctx, group("staff")))
	ok(t, a.AddClaim(ctx, "id-staff", c.ID))
	ok(t, a.DeleteClaim(ctx, c.ID))
	is(t, b.DeleteClaim(ctx, c.ID), store.ErrNotFound)
	is(t, second(b.Claim(ctx, c.ID)), store.ErrNotFound)
	equal(t, len(must(b.ClaimsOfGroup(ctx, "id-staff"))(t)), 0)
}

// names: a database that finds "alice" when asked for "Alice", "alicé" or
// "alice " lets one log in as the other.
func names(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	all := []string{"alice", "Alice", "alice ", "alicé", "alice\u0301", "alicß", "alicss", "ali\u200dce"}
	for i, name := range all {
		u := user(name)
		u.ID = fmt.Sprint(i)
		ok(t, a.CreateUser(ctx, u))
		ok(t, a.PutSetting(ctx, name, name))
	}
	for i, name := range all {
		equal(t, must(b.UserByName(ctx, name))(t).ID, fmt.Sprint(i))
		equal(t, must(b.Setting(ctx, name))(t), name)
	}
	is(t, second(b.UserByName(ctx, "ALICE")), store.ErrNotFound)
	is(t, second(b.User(ctx, "0 ")), store.ErrNotFound)
}

func noText(t *testing.T, a, _ store.Store) {
	ctx := t.Context()
	for _, name := range []string{"a\x00b", "\xff\xfe", "\xc3"} {
		is(t, second(a.User(ctx, name)), store.ErrNotFound)
		is(t, second(a.UserByName(ctx, name)), store.ErrNotFound)
		is(t, second(a.GroupByName(ctx, name)), store.ErrNotFound)
		is(t, second(a.Claim(ctx, name)), store.ErrNotFound)
		is(t, second(a.NextEpoch(ctx, name, false)), store.ErrNotFound)
		is(t, a.DeleteUser(ctx, name), store.ErrNotFound)
		is(t, a.AddMember(ctx, name, name), store.ErrNotFound)
		ok(t, a.RemoveMember(ctx, name, name))
		equal(t, len(must(a.Users(ctx, store.Page{Prefix: name, Limit: 10}))(t)), 0)
		equal(t, len(must(a.ClaimsOfUser(ctx, name))(t)), 0)
		is(t, third(a.UserWithClaims(ctx, name)), store.ErrNotFound)
		equal(t, len(must(a.GroupsOfUser(ctx, name))(t)), 0)
		equal(t, must(a.AnyoneHolds(ctx, name, name))(t), false)
		equal(t, must(a.AnyoneHoldsAny(ctx, name))(t), false)
		equal(t, len(must(a.GrantsOfUser(ctx, name))(t)), 0)
		equal(t, len(must(a.GroupsOfUsers(ctx, []string{name}))(t)), 0)
		equal(t, len(must(a.UsersWithIDs(ctx, []string{name}))(t)), 0)
		equal(t, len(must(a.Users(ctx, store.Page{After: name, Descending: true, Limit: 10}))(t)), 0)
	}
}

func pages(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateGroup(ctx, group("g")))
	// In the order of bytes, which is not that of any language.
	sorted := []string{"B", "a", "a b", "a%", "a%b", "a_", "ab", "abc", "b", "ä", "äb", "\U0001F388"}
	for i := range sorted {
		name := sorted[(i*5)%len(sorted)]
		ok(t, a.CreateUser(ctx, user(name)))
		ok(t, a.CreateGroup(ctx, group(name)))
		ok(t, a.CreateClaim(ctx, claim(name, "x", name)))
		ok(t, a.AddMember(ctx, "id-"+name, "id-g"))
	}
	lists := map[string]func(store.Page) ([]string, error){
		"users": func(p store.Page) ([]string, error) {
			list, err := b.Users(ctx, p)
			return keysOf(list, func(u store.User) string { return u.NameKey }), err
		},
		"groups": func(p store.Page) ([]string, error) {
			list, err := b.Groups(ctx, p)
			var keys []string
			for _, g := range list {
				if g.NameKey != "g" {
					keys = append(keys, g.NameKey)
				}
			}
			return keys, err
		},
		"claims": func(p store.Page) ([]string, error) {
			list, err := b.Claims(ctx, p)
			return keysOf(list, func(c store.Claim) string { return c.NameKey }), err
		},
		"members": func(p store.Page) ([]string, error) {
			list, err := b.MembersOfGroup(ctx, "id-g", p)
			return keysOf(list, func(u store.User) string { return u.NameKey }), err
		},
	}
	for name, list := range lists {
		for _, test := range []struct {
			page store.Page
			want []string
		}{
			{store.Page{Limit: 100}, sorted},
			{store.Page{Limit: 3}, sorted[:3]},
			{store.Page{Limit: 2, After: "a"}, []string{"a b", "a%"}},
			{store.Page{Limit: 100, After: "ä"}, []string{"äb", "\U0001F388"}},
			{store.Page{Limit: 100, Prefix: "a"}, []string{"a", "a b", "a%", "a%b", "a_", "ab", "abc"}},
			{store.Page{Limit: 100, Prefix: "a%"}, []string{"a%", "a%b"}},
			{store.Page{Limit: 100, Prefix: "a_"}, []string{"a_"}},
			{store.Page{Limit: 100, Prefix: "ab", After: "ab"}, []string{"abc"}},
			{store.Page{Limit: 100, Prefix: "ä"}, []string{"ä", "äb"}},
			{store.Page{Limit: 100, Prefix: "A"}, nil},
			{store.Page{Limit: 100, After: "\U0001F388"}, nil},
			{store.Page{Limit: 0}, nil},
			{store.Page{Limit: 100, Descending: true}, reversed(sorted)},
			{store.Page{Limit: 3, Descending: true}, []string{"\U0001F388", "äb", "ä"}},
			{store.Page{Limit: 2, After: "a%b", Descending: true}, []string{"a%", "a b"}},
			{store.Page{Limit: 100, After: "B", Descending: true}, nil},
			{store.Page{Limit: 100, After: "a ", Descending: true}, []string{"a", "B"}},
			{store.Page{Limit: 3, Prefix: "a", Descending: true}, []string{"abc", "ab", "a_"}},
			{store.Page{Limit: 100, Prefix: "a", After: "a%", Descending: true}, []string{"a b", "a"}},
			{store.Page{Limit: 100, Prefix: "a", After: "b", Descending: true}, []string{"abc", "ab", "a_", "a%b", "a%", "a b", "a"}},
			{store.Page{Limit: 100, Prefix: "ab", After: "ab", Descending: true}, nil},
			{store.Page{Limit: 100, Prefix: "ab", After: "B", Descending: true}, nil},
			{store.Page{Limit: 0, Descending: true}, nil},
		} {
			got, err := list(test.page)
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("%s %+v: %q, %v; want %q", name, test.page, got, err, test.want)
			}
		}
	}
	equal(t, len(must(b.MembersOfGroup(ctx, "id-a", store.Page{Limit: 10}))(t)), 0)
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// grants are what GrantsOfUser and GroupsOfUsers return, which a page of users is made of.
func grants(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	var ids []string
	for i := range 120 { // more than one statement asks for
		name := fmt.Sprintf("u%03d", i)
		ok(t, a.CreateUser(ctx, user(name)))
		ids = append(ids, "id-"+name)
	}
	for _, g := range []string{"two", "one", "bare", "three"} {
		ok(t, a.CreateGroup(ctx, group(g)))
	}
	for _, c := range []store.Claim{claim("c1", "log", "w"), claim("c2", "log", "r"), claim("c3", "admin", "s"), claim("c0", "log", "r")} {
		ok(t, a.CreateClaim(ctx, c))
	}
	for g, claims := range map[string][]string{"one": {"c1", "c2"}, "two": {"c2", "c3", "c0"}, "three": {"c3"}} {
		for _, c := range claims {
			ok(t, a.AddClaim(ctx, "id-"+g, "id-"+c))
		}
	}
	for _, m := range [][2]string{{"u000", "one"}, {"u000", "two"}, {"u000", "bare"}, {"u050", "bare"}, {"u119", "three"}, {"u119", "one"}} {
		ok(t, a.AddMember(ctx, "id-"+m[0], "id-"+m[1]))
	}
	equal(t, must(b.GrantsOfUser(ctx, "id-u000"))(t), []store.Grant{
		{Claim: claim("c3", "admin", "s"), Group: group("two")},
		{Claim: claim("c0", "log", "r"), Group: group("two")},
		{Claim: claim("c2", "log", "r"), Group: group("one")},
		{Claim: claim("c2", "log", "r"), Group: group("two")},
		{Claim: claim("c1", "log", "w"), Group: group("one")},
	})
	equal(t, len(must(b.GrantsOfUser(ctx, "id-u050"))(t)), 0)
	equal(t, len(must(b.GrantsOfUser(ctx, "nobody"))(t)), 0)
	all := map[string][]store.Group{
		"id-u000": {group("bare"), group("one"), group("two")},
		"id-u050": {group("bare")},
		"id-u119": {group("one"), group("three")},
	}
	equal(t, must(b.GroupsOfUsers(ctx, ids))(t), all)
	equal(t, must(b.GroupsOfUsers(ctx, []string{"id-u050", "nobody", "id-u001", "id-u050"}))(t), map[string][]store.Group{"id-u050": {group("bare")}})
	equal(t, len(must(b.GroupsOfUsers(ctx, nil))(t)), 0)

	equal(t, len(must(b.UsersWithIDs(ctx, nil))(t)), 0)
	found := must(b.UsersWithIDs(ctx, append([]string{"nobody", ids[1]}, ids...)))(t)
	equal(t, len(found), len(ids))
	for i, id := range slices.Sorted(slices.Values(ids)) {
		equal(t, found[i], must(b.User(ctx, id))(t))
	}
}

func memberships(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateUser(ctx, user("alice")))
	ok(t, a.CreateUser(ctx, user("bob")))
	for _, g := range []string{"one", "two"} {
		ok(t, a.CreateGroup(ctx, group(g)))
	}
	for _, c := range []store.Claim{claim("c1", "log", "w"), claim("c2", "log", "r"), claim("c3", "admin", "s")} {
		ok(t, a.CreateClaim(ctx, c))
		ok(t, a.AddClaim(ctx, "id-one", c.ID))
	}
	ok(t, a.AddClaim(ctx, "id-two", "id-c2"))

	is(t, a.AddMember(ctx, "id-alice", "nothing"), store.ErrNotFound)
	is(t, a.AddMember(ctx, "nobody", "id-one"), store.ErrNotFound)
	for range 2 { // the second time it is so already
		ok(t, a.AddMember(ctx, "id-alice", "id-two"))
		ok(t, a.AddMember(ctx, "id-alice", "id-one"))
		ok(t, a.AddMember(ctx, "id-bob", "id-two"))
	}
	equal(t, must(b.GroupsOfUser(ctx, "id-alice"))(t), []store.Group{group("one"), group("two")})
	equal(t, must(b.MembersOfGroup(ctx, "id-two", store.Page{Limit: 9}))(t), []store.User{user("alice"), user("bob")})
	// Each claim once, though c2 comes twice.
	equal(t, must(b.ClaimsOfUser(ctx, "id-alice"))(t),
		[]store.Claim{claim("c3", "admin", "s"), claim("c2", "log", "r"), claim("c1", "log", "w")})

	renamed := user("alice")
	renamed.NameKey = "zoe"
	ok(t, a.UpdateUser(ctx, renamed))
	renamed.Version = 2
	equal(t, must(b.MembersOfGroup(ctx, "id-two", store.Page{Limit: 9}))(t), []store.User{user("bob"), renamed})
	equal(t, must(b.MembersOfGroup(ctx, "id-two", store.Page{Limit: 9, Prefix: "z"}))(t), []store.User{renamed})

	for range 2 {
		ok(t, a.RemoveMember(ctx, "id-alice", "id-one"))
	}
	equal(t, must(b.ClaimsOfUser(ctx, "id-alice"))(t), []store.Claim{claim("c2", "log", "r")})
	ok(t, a.DeleteUser(ctx, "id-alice"))
	equal(t, must(b.MembersOfGroup(ctx, "id-two", store.Page{Limit: 9}))(t), []store.User{user("bob")})
	equal(t, len(must(b.GroupsOfUser(ctx, "id-alice"))(t)), 0)
	is(t, a.AddMember(ctx, "id-alice", "id-one"), store.ErrNotFound)
}

func userWithClaims(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	check := func(want ...store.Claim) {
		t.Helper()
		u, claims, err := b.UserWithClaims(ctx, "id-alice")
		ok(t, err)
		equal(t, u, user("alice"))
		equal(t, claims, want)
	}
	is(t, third(b.UserWithClaims(ctx, "id-alice")), store.ErrNotFound)
	ok(t, a.CreateUser(ctx, user("alice")))
	ok(t, a.CreateUser(ctx, user("bob")))
	check()
	for _, g := range []string{"one", "two", "empty"} {
		ok(t, a.CreateGroup(ctx, group(g)))
		ok(t, a.AddMember(ctx, "id-alice", "id-"+g))
	}
	check()
	write, read, again := claim("c1", "log", "w"), claim("c2", "log", "r"), claim("c3", "log", "r")
	for _, c := range []store.Claim{write, read, again} {
		ok(t, a.CreateClaim(ctx, c))
		ok(t, a.AddClaim(ctx, "id-one", c.ID))
		ok(t, a.AddClaim(ctx, "id-two", c.ID))
	}
	check(read, again, write) // in order, each once
	ok(t, a.RemoveMember(ctx, "id-alice", "id-one"))
	ok(t, a.RemoveMember(ctx, "id-alice", "id-two"))
	check()
}

// verifiedEmails: an address is verified as long as it stays the same.
func verifiedEmails(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	u := user("alice")
	u.EmailVerified = true
	ok(t, a.CreateUser(ctx, u))
	equal(t, must(b.User(ctx, u.ID))(t), u)
	equal(t, must(b.UserByName(ctx, "alice"))(t), u)
	equal(t, must(b.Users(ctx, store.Page{Limit: 1}))(t), []store.User{u})
	got, _, err := b.UserWithClaims(ctx, u.ID)
	ok(t, err)
	equal(t, got, u)
	u.FirstName = "other"
	ok(t, a.UpdateUser(ctx, u))
	equal(t, must(b.User(ctx, u.ID))(t).EmailVerified, true)
	u.Version, u.EmailVerified = 2, false
	ok(t, a.UpdateUser(ctx, u))
	equal(t, must(b.User(ctx, u.ID))(t).EmailVerified, false)
	u.Version, u.Email, u.EmailVerified = 3, "Alice@example.org", true
	ok(t, a.UpdateUser(ctx, u))
	equal(t, must(b.User(ctx, u.ID))(t).EmailVerified, true)
	ok(t, a.DeleteUser(ctx, u.ID))
	u.EmailVerified = false
	ok(t, a.CreateUser(ctx, u))
	equal(t, must(b.User(ctx, u.ID))(t).EmailVerified, false)
}

func marks(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for _, name := range []string{"alice", "bob"} {
		ok(t, a.CreateUser(ctx, user(name)))
	}
	mine := store.Mark{Kind: "email", Digest: "d1", UserID: "id-alice"}
	look := store.Mark{Kind: "name", Digest: "d1", UserID: "id-alice"}
	ok(t, a.PutMark(ctx, look))
	ok(t, a.PutMark(ctx, mine))
	ok(t, a.PutMark(ctx, mine))
	equal(t, must(b.MarksOfUser(ctx, "id-alice"))(t), []store.Mark{mine, look})
	equal(t, must(b.MarksOfUser(ctx, "id-bob"))(t), nil)

	taken := func(kind, digest, userID string, at time.Time) error {
		return second(b.TakenMark(ctx, kind, digest, userID, at))
	}
	equal(t, must(b.TakenMark(ctx, "email", "d1", "id-bob", now))(t), mine)
	is(t, taken("email", "d1", "id-alice", now), store.ErrNotFound) // it is the user's own
	is(t, taken("email", "D1", "id-bob", now), store.ErrNotFound)
	is(t, taken("Email", "d1", "id-bob", now), store.ErrNotFound)

	mine.Until = now.Add(time.Hour)
	ok(t, a.PutMark(ctx, mine))
	equal(t, must(b.TakenMark(ctx, "email", "d1", "id-bob", now))(t), mine)
	is(t, taken("email", "d1", "id-bob", mine.Until), store.ErrNotFound)
	his := store.Mark{Kind: "email", Digest: "d1", UserID: "id-bob"}
	ok(t, a.PutMark(ctx, his))
	equal(t, must(b.TakenMark(ctx, "email", "d1", "", now))(t), his) // whoever has it, first
	ok(t, a.DeleteMark(ctx, his.Kind, his.Digest, his.UserID))
	ok(t, a.DeleteMark(ctx, his.Kind, his.Digest, his.UserID))

	named := func(key, kind, digest string) []string {
		ids := keysOf(must(b.UsersNamed(ctx, key, kind, digest))(t), func(u store.User) string { return u.ID })
		slices.Sort(ids)
		return ids
	}
	equal(t, named("alice", "name", "none"), []string{"id-alice"})
	equal(t, named("none", "name", "d1"), []string{"id-alice"})
	equal(t, named("bob", "name", "d1"), []string{"id-alice", "id-bob"})
	equal(t, named("alice", "name", "d1"), []string{"id-alice", "id-alice"})
	equal(t, named("ALICE", "name", "D1"), nil)
	equal(t, named("none", "other", "d1"), nil)
	equal(t, named("none", "email", "d1"), nil) // kept, and not had
	for i := range store.MaxNamed + 1 {
		ok(t, a.PutMark(ctx, store.Mark{Kind: "many", Digest: "d1", UserID: fmt.Sprint("gone", i)}))
	}
	ok(t, a.PutMark(ctx, store.Mark{Kind: "many", Digest: "d1", UserID: "id-bob"}))
	equal(t, named("bob", "many", "d1"), []string{"id-bob", "id-bob"}) // who is gone takes no room

	// What is kept is kept for a user who is gone, too. What such a user has, nobody has.
	ok(t, a.DeleteUser(ctx, "id-alice"))
	equal(t, must(b.TakenMark(ctx, "email", "d1", "id-bob", now))(t), mine)
	is(t, taken("name", "d1", "id-bob", now), store.ErrNotFound)

	equal(t, must(a.DeleteExpiredMarks(ctx, mine.Until, 10))(t), 0)
	equal(t, must(a.DeleteExpiredMarks(ctx, mine.Until.Add(time.Microsecond), 10))(t), 1)
	equal(t, must(b.MarksOfUser(ctx, "id-alice"))(t), []store.Mark{look})
}

func usersWithoutMark(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	all := []string{"a", "b", "c", "d"}
	for _, name := range all {
		ok(t, a.CreateUser(ctx, user(name)))
	}
	ok(t, a.PutMark(ctx, store.Mark{Kind: "name", Digest: "x", UserID: "id-b"}))
	ok(t, a.PutMark(ctx, store.Mark{Kind: "other", Digest: "x", UserID: "id-c"}))
	ok(t, a.PutMark(ctx, store.Mark{Kind: "name", Digest: "y", UserID: "id-d", Until: now}))
	without := func(after string, limit int) []string {
		return keysOf(must(b.UsersWithoutMark(ctx, "name", after, limit))(t), func(u store.User) string { return u.NameKey })
	}
	equal(t, without("", 10), []string{"a", "c", "d"})
	equal(t, without("", 2), []string{"a", "c"})
	equal(t, without("id-c", 2), []string{"d"})
}

func passwordHashes(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for name, hash := range map[string]string{
		"a": "$argon2id$v=19$m=19456,t=2,p=1$x$y", "b": "$argon2id$v=19$m=64,t=2,p=1$x$z", "c": "$2b$12$abcdefghijklmnopqrstuu", "d": "$2b$12$zyxwvutsrqponmlkjihgff",
		"e": "$2B$12$abcdefghijklmnopqrstuu", "f": "$pbkdf2-sha512$i=2000000$salt$hash", "g": "",
	} {
		u := user(name)
		u.PasswordHash = hash
		ok(t, a.CreateUser(ctx, u))
	}
	equal(t, must(b.PasswordHashes(ctx))(t), map[string]int64{
		"$argon2id": 2, "$2b$12$": 2, "$2B$12$": 1, "$pbkdf2-sha512$i=2000000$": 1, "": 1,
	})
}

func claimsOfMany(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for _, name := range []string{"one", "two", "three"} {
		ok(t, a.CreateUser(ctx, user(name)))
		ok(t, a.CreateGroup(ctx, group(name)))
		ok(t, a.CreateClaim(ctx, claim(name, "log", name)))
		ok(t, a.AddClaim(ctx, "id-"+name, "id-"+name))
		ok(t, a.AddMember(ctx, "id-"+name, "id-"+name))
	}
	ok(t, a.CreateGroup(ctx, group("club"))) // gives nothing
	ok(t, a.AddMember(ctx, "id-one", "id-club"))
	ok(t, a.AddMember(ctx, "id-two", "id-club"))
	ok(t, a.AddMember(ctx, "id-two", "id-one"))
	names := func(claims []store.Claim, err error) []string {
		ok(t, err)
		return keysOf(claims, func(c store.Claim) string { return c.NameKey })
	}
	equal(t, names(b.ClaimsOfMembers(ctx, "id-club")), []string{"one", "two"})
	equal(t, names(b.ClaimsOfMembers(ctx, "id-three")), []string{"three"})
	equal(t, names(b.ClaimsOfMembers(ctx, "id-none")), nil)

	ok(t, a.PutMark(ctx, store.Mark{Kind: "x", Digest: "d", UserID: "id-one"}))
	ok(t, a.PutMark(ctx, store.Mark{Kind: "y", Digest: "d", UserID: "id-two"}))
	ok(t, a.PutMark(ctx, store.Mark{Kind: "y", Digest: "d", UserID: "id-three", Until: now})) // has it no more
	equal(t, names(b.ClaimsOfMarked(ctx, "d", "")), []string{"one", "two"})
	equal(t, names(b.ClaimsOfMarked(ctx, "d", "id-two")), []string{"one"})
	equal(t, names(b.ClaimsOfMarked(ctx, "e", "")), nil)
}

func epochs(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	u := user("alice")
	ok(t, a.CreateUser(ctx, u))
	u.Epoch = must(a.NextEpoch(ctx, u.ID, false))(t)
	if about := time.UnixMilli(u.Epoch); time.Since(about).Abs() > time.Minute {
		t.Errorf("the epoch of this moment is %d, %v", u.Epoch, about)
	}
	for range 3 { // perhaps within one millisecond
		next := must(b.NextEpoch(ctx, u.ID, false))(t)
		equal(t, next > u.Epoch, true)
		u.Epoch = next
	}
	equal(t, must(b.User(ctx, u.ID))(t), u) // and neither Version nor SessionEpoch moved
	u.Epoch = must(b.NextEpoch(ctx, u.ID, true))(t)
	u.SessionEpoch = u.Epoch
	equal(t, must(a.User(ctx, u.ID))(t), u)
	is(t, second(a.NextEpoch(ctx, "nobody", true)), store.ErrNotFound)

	equal(t, must(a.RaiseEpoch(ctx, u.ID, u.Epoch-1, inAThousandYears, true))(t), false)
	equal(t, must(b.User(ctx, u.ID))(t), u)
	equal(t, must(b.RaiseEpoch(ctx, u.ID, u.Epoch, inAThousandYears, false))(t), true)
	u.Epoch = inAThousandYears
	equal(t, must(a.User(ctx, u.ID))(t), u)
	equal(t, must(a.RaiseEpoch(ctx, u.ID, u.Epoch, u.Epoch+5, true))(t), true)
	u.Epoch, u.SessionEpoch = u.Epoch+5, u.Epoch+5
	equal(t, must(b.User(ctx, u.ID))(t), u)
	equal(t, must(b.NextEpoch(ctx, u.ID, false))(t), u.Epoch+1)
	equal(t, must(a.RaiseEpoch(ctx, "nobody", 0, 1, false))(t), false)
}

func anyoneHolds(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	check := func(want bool) {
		t.Helper()
		equal(t, must(b.AnyoneHolds(ctx, "admin", "s"))(t), want)
		equal(t, must(b.AnyoneHoldsAny(ctx, "admin"))(t), want)
	}
	ok(t, a.CreateClaim(ctx, claim("super", "admin", "s")))
	ok(t, a.CreateGroup(ctx, group("admins")))
	ok(t, a.AddClaim(ctx, "id-admins", "id-super"))
	ok(t, a.CreateUser(ctx, user("root")))
	check(false)
	ok(t, a.AddMember(ctx, "id-root", "id-admins"))
	check(true)
	equal(t, must(b.AnyoneHolds(ctx, "admin", "S"))(t), false)
	equal(t, must(b.AnyoneHolds(ctx, "s", "admin"))(t), false)
	equal(t, must(b.AnyoneHoldsAny(ctx, "Admin"))(t), false)
	equal(t, must(b.AnyoneHoldsAny(ctx, "s"))(t), false)
	off := user("root")
	off.Disabled = true
	ok(t, a.UpdateUser(ctx, off))
	check(false)
	ok(t, a.CreateUser(ctx, user("second")))
	ok(t, a.AddMember(ctx, "id-second", "id-admins"))
	check(true)
	ok(t, a.DeleteUser(ctx, "id-second"))
	check(false)
}

func keys(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	equal(t, len(must(b.Keys(ctx))(t)), 0)
	first := store.Key{
		ID: "auth-0-abc", Instance: "auth-0", Algorithm: "ES256", PublicJWK: []byte(`{"kty":"EC"}`), MAC: []byte{1, 0, 0xff},
		StateMAC: []byte{3, 0, 0xff}, SourceMAC: []byte{4, 0, 0xff},
		CreatedAt: now, ActivateAt: now.Add(time.Minute), RetireAt: now.Add(time.Hour), RemoveAt: now.Add(2 * time.Hour),
	}
	next := first
	next.ID, next.CreatedAt, next.Sealed = "auth-0-000", now.Add(time.Second), bytes.Repeat([]byte{0, 1, 0xff}, 1000)
	tie := first
	tie.ID = "auth-0-abb"
	for _, k := range []store.Key{next, first, tie} {
		ok(t, a.CreateKey(ctx, k))
	}
	is(t, b.CreateKey(ctx, first), store.ErrConflict)
	equal(t, must(b.Keys(ctx))(t), []store.Key{tie, first, next})

	changed := first
	changed.Instance, changed.Algorithm, changed.PublicJWK = "x", "x", []byte("x")
	changed.Sealed, changed.RevokedAt, changed.RetireAt, changed.MAC = []byte("sealed"), now, now.Add(time.Minute), []byte{2}
	changed.StateMAC, changed.SourceMAC = []byte{5}, []byte{6}
	ok(t, a.UpdateKey(ctx, changed))
	first = changed
	next.Sealed, next.MAC, next.StateMAC, next.SourceMAC = nil, nil, nil, nil
	ok(t, a.UpdateKey(ctx, next))
	equal(t, must(b.Keys(ctx))(t), []store.Key{tie, first, next})

	ok(t, a.DeleteKey(ctx, first.ID))
	is(t, b.DeleteKey(ctx, first.ID), store.ErrNotFound)
	is(t, b.UpdateKey(ctx, first), store.ErrNotFound)
	is(t, b.CreateKey(ctx, first), store.ErrConflict) // a kid is never used again
	equal(t, must(b.Keys(ctx))(t), []store.Key{tie, next})
}

func revocation(n int) store.Revocation {
	return store.Revocation{
		Kind: "user", Subject: fmt.Sprint("subject ", n), Epoch: int64(n), IssuedBefore: now,
		ExpiresAt: now.Add(time.Duration(n) * time.Hour), CreatedAt: now, Actor: "actor", Reason: "admin",
	}
}

func revocations(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	revs, head, err := a.RevocationsAfter(ctx, 0, 10)
	ok(t, err)
	if len(revs) != 0 || head.Seq != 0 || head.ID == "" {
		t.Fatalf("an empty log: %v, %+v", revs, head)
	}
	var want []store.Revocation
	for n := 1; n <= 5; n++ {
		r := revocation(n)
		if n == 2 {
			r = store.Revocation{Kind: "jti", Subject: "x", ExpiresAt: now}
		}
		s := a
		if n%2 == 0 {
			s = b
		}
		equal(t, must(s.AppendRevocation(ctx, r))(t), int64(n))
		r.Seq = int64(n)
		want = append(want, r)
	}
	for _, test := range []struct {
		after int64
		limit int
		want  []store.Revocation
	}{{0, 10, want}, {0, 2, want[:2]}, {2, 2, want[2:4]}, {4, 2, want[4:]}, {5, 10, want[5:]}, {9, 10, want[5:]}, {0, 0, want[5:]}} {
		revs, at, err := b.RevocationsAfter(ctx, test.after, test.limit)
		ok(t, err)
		if len(revs) != len(test.want) || len(revs) > 0 && !reflect.DeepEqual(revs, test.want) {
			t.Errorf("after %d, %d: %+v, want %+v", test.after, test.limit, revs, test.want)
		}
		equal(t, at, store.LogHead{ID: head.ID, Seq: 5, Now: at.Now})
	}
	for _, test := range []struct {
		before int64
		limit  int
		want   []int
	}{{0, 10, []int{5, 4, 3, 2, 1}}, {0, 2, []int{5, 4}}, {5, 2, []int{4, 3}}, {2, 10, []int{1}}, {1, 10, nil}, {99, 1, []int{5}}, {-1, 1, []int{5}}, {0, 0, nil}} {
		revs := must(b.RevocationsBefore(ctx, test.before, test.limit))(t)
		var newestFirst []store.Revocation
		for _, n := range test.want {
			newestFirst = append(newestFirst, want[n-1])
		}
		if len(revs) != len(newestFirst) || len(revs) > 0 && !reflect.DeepEqual(revs, newestFirst) {
			t.Errorf("before %d, %d: %+v, want %+v", test.before, test.limit, revs, newestFirst)
		}
	}
	ok(t, a.RenewLog(ctx, "another"))
	_, same, err := b.RevocationsAfter(ctx, 0, 0)
	ok(t, err)
	equal(t, same.ID, head.ID)
	ok(t, a.RenewLog(ctx, head.ID))
	ok(t, b.RenewLog(ctx, head.ID)) // who comes second
	revs, renewed, err := b.RevocationsAfter(ctx, 4, 10)
	ok(t, err)
	if renewed.ID == "" || renewed.ID == head.ID || renewed.Seq != 5 || len(revs) != 1 {
		t.Errorf("the renewed log is %+v with %v, was %+v", renewed, revs, head)
	}
	equal(t, must(a.AppendRevocation(ctx, revocation(6)))(t), 6)
}

func expiredRevocations(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for n := 1; n <= 5; n++ {
		must(a.AppendRevocation(ctx, revocation(6-n)))(t) // the first expires last
	}
	cut := now.Add(4 * time.Hour) // after the entries 3, 4, 5; entry 2 expires then
	equal(t, must(b.DeleteExpiredRevocations(ctx, cut, 1))(t), 1)
	equal(t, must(b.DeleteExpiredRevocations(ctx, cut, 2))(t), 1)
	equal(t, must(b.DeleteExpiredRevocations(ctx, cut, 2))(t), 0)
	revs, head, err := a.RevocationsAfter(ctx, 0, 10)
	ok(t, err)
	if len(revs) != 3 || revs[0].Seq != 1 || revs[1].Seq != 2 || revs[2].Seq != 5 || head.Seq != 5 { // the last entry stays
		t.Fatalf("left: %+v, head %+v", revs, head)
	}
	revs = must(b.RevocationsBefore(ctx, 0, 2))(t)
	if len(revs) != 2 || revs[0].Seq != 5 || revs[1].Seq != 2 {
		t.Fatalf("left, newest first: %+v", revs)
	}
	equal(t, must(b.DeleteExpiredRevocations(ctx, now.Add(time.Hour*9), 10))(t), 2)
	equal(t, must(a.AppendRevocation(ctx, revocation(1)))(t), 6) // the head stayed
	equal(t, must(b.DeleteExpiredRevocations(ctx, now.Add(time.Hour*9), 10))(t), 1)
}

func audit(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	var all []store.AuditEvent // newest first
	for i := range 12 {
		e := store.AuditEvent{
			ID: fmt.Sprintf("01-%02d", i), At: now.Add(time.Duration(i) * time.Minute), Actor: fmt.Sprint("actor", i%2),
			Action: []string{"login", "Login", "logout"}[i%3], Target: fmt.Sprint("target", i%4),
			Outcome: []string{"ok", "denied", "denied", "failed", "failed"}[i%5], Address: fmt.Sprint("192.0.2.", i%3), Detail: "für 🎈",
		}
		ok(t, a.AppendAudit(ctx, e))
		all = append([]store.AuditEvent{e}, all...)
	}
	for _, q := range []store.AuditQuery{
		{},
		{Before: all[1].ID},
		{After: all[10].ID},
		{Before: all[2].ID, After: all[8].ID},
		{Before: all[8].ID, After: all[2].ID},
		{Before: "01-"},
		{After: "01-"},
		{After: "01-0"},
		{Before: "01-1", After: "01-05"},
		{Actor: "actor1"},
		{Actor: "nobody"},
		{Actor: "ACTOR1"},
		{Target: "target0"},
		{Target: "target0", Actor: "actor0"},
		{Target: "target0", Actor: "actor1"},
		{Action: "login"},
		{Action: "Login"},
		{Action: "logi_"},
		{Action: "%"},
		{Outcome: "denied"},
		{Action: "logout", Outcome: "failed"},
		{Actor: "actor1", Action: "login"},
		{Actor: "actor0", Outcome: "ok", Before: all[1].ID},
		{Target: "target1", Action: "login", Outcome: "denied"},
		{Target: "target3", Actor: "actor1", Action: "login", Outcome: "failed", After: "01-0"},
		{Address: "192.0.2.1"},
		{Address: "192.0.2."},
		{Address: "192.0.2.1", Outcome: "denied", Before: all[1].ID},
		{Address: "192.0.2.2", Actor: "actor1", Target: "target3"},
		{Address: "192.0.2.1\x00"},
		{Actor: "' OR '1'='1"},
		{Action: "x' OR 'a'='a"},
		{Outcome: `\' OR 1=1 -- `},
		{Target: "?"},
		{Before: "' OR 1=1 -- "},
		{Action: "log\x00in"},
		{Outcome: "\xff"},
	} {
		var want []store.AuditEvent
		for _, e := range all {
			if (q.Before == "" || e.ID < q.Before) && e.ID > q.After && asked(q.Actor, e.Actor) && asked(q.Target, e.Target) &&
				asked(q.Action, e.Action) && asked(q.Outcome, e.Outcome) && asked(q.Address, e.Address) {
				want = append(want, e)
			}
		}
		for _, limit := range []int{1, 2, 100} {
			q.Limit = limit
			equal(t, wholeTrail(t, b, q), want)
		}
	}
	equal(t, must(b.AuditEvents(ctx, store.AuditQuery{}))(t), store.AuditPage{}) // a limit of nothing
	equal(t, must(b.DeleteAuditBefore(ctx, all[2].At, 8))(t), 8)
	equal(t, must(b.DeleteAuditBefore(ctx, all[2].At, 2))(t), 1)
	equal(t, wholeTrail(t, a, store.AuditQuery{Limit: 10}), all[:3])
}

// asked reports whether a field of an event is the one that a query names, if any.
func asked(want, got string) bool { return want == "" || want == got }

// wholeTrail returns the events of all pages, from the one that q asks for on.
func wholeTrail(t *testing.T, s store.Audit, q store.AuditQuery) (all []store.AuditEvent) {
	t.Helper()
	for {
		page := must(s.AuditEvents(t.Context(), q))(t)
		if len(page.Events) > q.Limit {
			t.Fatalf("%d events, and %d were asked for", len(page.Events), q.Limit)
		}
		all = append(all, page.Events...)
		if page.Next == "" {
			return all
		}
		if q.Before != "" && page.Next >= q.Before {
			t.Fatalf("after the page before %q comes the one before %q", q.Before, page.Next)
		}
		q.Before = page.Next
	}
}

// auditText: no text that a client sends keeps the event about it from being written.
func auditText(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for i, text := range []string{"a\x00b", "\xff", string(bytes.Repeat([]byte("ä"), 100_000))} {
		ok(t, a.AppendAudit(ctx, store.AuditEvent{ID: fmt.Sprint(i), At: now, Target: text, Actor: text, Address: text, Detail: text}))
		if found := wholeTrail(t, b, store.AuditQuery{Target: text, Limit: 9}); len(found) != 1 {
			t.Errorf("%d events about %.10q, want 1", len(found), text)
		}
	}
}

func auditRange(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	var all []store.AuditEvent
	for _, id := range []string{"a", "B", "a0", "019ac2f8-3b5e-7000-8000-5a2b3c4d5e6f", "b", "é"} {
		e := store.AuditEvent{ID: id, At: now, Actor: "u", Action: "login", Target: "t", Outcome: "ok", Address: "::1", Detail: " für 🎈 "}
		ok(t, a.AppendAudit(ctx, e))
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b store.AuditEvent) int { return strings.Compare(a.ID, b.ID) })
	for _, bounds := range [][2]string{{"", "~~"}, {"", "\U0010FFFF"}, {"a", "b"}, {"B", "a0"}, {"A", "a"}, {"b", "a"}, {"a", "a"}, {"a\x00", "b"}, {"'", "~"}} {
		var want []store.AuditEvent
		for _, e := range all {
			if e.ID > bounds[0] && e.ID <= bounds[1] && !strings.Contains(bounds[0], "\x00") {
				want = append(want, e)
			}
		}
		for _, limit := range []int{0, 1, 2, 100} {
			some := want[:min(limit, len(want))]
			equal(t, must(b.AuditRange(ctx, bounds[0], bounds[1], limit))(t), append([]store.AuditEvent(nil), some...))
			var ids []string
			for _, e := range some {
				ids = append(ids, e.ID)
			}
			equal(t, must(b.AuditIDs(ctx, bounds[0], bounds[1], limit))(t), ids)
		}
	}
}

func auditSeals(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	none, at, err := b.LastAuditSeal(ctx)
	if err != nil || none.Seq != 0 || time.Since(at).Abs() > time.Hour {
		t.Fatalf("%+v at %v, %v", none, at, err)
	}
	var all []store.AuditSeal
	for i := range int64(5) {
		s := store.AuditSeal{Seq: i + 1, Content: bytes.Repeat([]byte{byte(i), 0, 0xff}, 20_000), MAC: []byte{byte(i)}}
		ok(t, a.AppendAuditSeal(ctx, s))
		all = append(all, s)
	}
	is(t, a.AppendAuditSeal(ctx, store.AuditSeal{Seq: 5, Content: []byte("another"), MAC: []byte("one")}), store.ErrConflict)
	last, at, err := b.LastAuditSeal(ctx)
	if err != nil || time.Since(at).Abs() > time.Hour {
		t.Fatalf("at %v, %v", at, err)
	}
	equal(t, last, all[4])
	equal(t, must(b.AuditSeals(ctx, 0, 10))(t), all)
	equal(t, must(b.AuditSeals(ctx, 1, 2))(t), all[1:3])
	equal(t, len(must(b.AuditSeals(ctx, 5, 10))(t)), 0)
	for _, mac := range []string{"new", "new"} {
		ok(t, a.PutAuditSealMAC(ctx, 3, []byte(mac)))
	}
	is(t, a.PutAuditSealMAC(ctx, 6, []byte("new")), store.ErrNotFound)
	all[2].MAC = []byte("new")
	equal(t, must(b.DeleteAuditSeals(ctx, 3, 1))(t), 1)
	equal(t, must(b.AuditSeals(ctx, 0, 10))(t), all[1:])
	equal(t, must(b.DeleteAuditSeals(ctx, 3, 10))(t), 1)
	equal(t, must(b.AuditSeals(ctx, 0, 10))(t), all[2:])
	undo := errors.New("undo")
	is(t, a.Update(ctx, func(r store.Records) error {
		return errors.Join(r.AppendAuditSeal(ctx, store.AuditSeal{Seq: 6, Content: []byte{1}, MAC: []byte{2}}), undo)
	}), undo)
	last, _, err = b.LastAuditSeal(ctx)
	ok(t, err)
	equal(t, last.Seq, 5)
}

// auditSealRace: of many callers one writes the seal with a number, and all others are told.
func auditSealRace(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	const rounds, callers = 5, 8
	for seq := range int64(rounds) {
		var wrote atomic.Int64
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				s := store.AuditSeal{Seq: seq + 1, Content: []byte{byte(i)}, MAC: []byte{byte(i)}}
				switch err := []store.Store{a, b}[i%2].AppendAuditSeal(ctx, s); {
				case err == nil:
					wrote.Add(1)
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
				}
			})
		}
		all.Wait()
		equal(t, wrote.Load(), 1)
	}
	equal(t, len(must(a.AuditSeals(ctx, 0, 100))(t)), rounds)
}

func settings(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	is(t, second(a.Setting(ctx, "x")), store.ErrNotFound)
	equal(t, must(a.CreateSetting(ctx, "x", "one"))(t), "one")
	equal(t, must(b.CreateSetting(ctx, "x", "two"))(t), "one")
	equal(t, must(b.Setting(ctx, "x"))(t), "one")
	for _, v := range []string{"three", "three", "", "ü 🎈"} {
		ok(t, a.PutSetting(ctx, "x", v))
		equal(t, must(b.Setting(ctx, "x"))(t), v)
	}
	ok(t, a.PutSetting(ctx, "y", "new"))
	equal(t, must(b.Setting(ctx, "y"))(t), "new")
}

func updates(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	work := func(r store.Records) error {
		if err := r.CreateUser(ctx, user("alice")); err != nil {
			return err
		}
		if _, err := r.User(ctx, "id-alice"); err != nil { // its own writes are seen
			return err
		}
		if err := r.CreateGroup(ctx, group("staff")); err != nil {
			return err
		}
		if err := r.AddMember(ctx, "id-alice", "id-staff"); err != nil {
			return err
		}
		if err := r.PutSetting(ctx, "x", "y"); err != nil {
			return err
		}
		if err := r.AppendAudit(ctx, store.AuditEvent{ID: "1", At: now}); err != nil {
			return err
		}
		_, err := r.AppendRevocation(ctx, revocation(1))
		return err
	}
	nothing := func() {
		t.Helper()
		is(t, second(b.User(ctx, "id-alice")), store.ErrNotFound)
		is(t, second(b.Setting(ctx, "x")), store.ErrNotFound)
		equal(t, len(must(b.AuditEvents(ctx, store.AuditQuery{Limit: 1}))(t).Events), 0)
		revs, head, err := b.RevocationsAfter(ctx, 0, 10)
		if err != nil || len(revs) != 0 || head.Seq != 0 {
			t.Fatalf("the log has %v, %v, %v", revs, head, err)
		}
	}
	enough := errors.New("enough")
	is(t, a.Update(ctx, func(r store.Records) error { return errors.Join(work(r), enough) }), enough)
	nothing()
	func() {
		defer func() { _ = recover() }()
		_ = a.Update(ctx, func(r store.Records) error {
			if err := work(r); err != nil {
				return err
			}
			panic("in the middle")
		})
	}()
	nothing()
	ok(t, a.Update(ctx, work))
	equal(t, must(b.GroupsOfUser(ctx, "id-alice"))(t), []store.Group{group("staff")})
	_, head, err := b.RevocationsAfter(ctx, 0, 10)
	ok(t, err)
	equal(t, head.Seq, 1)
}

// updateAfterConflict: an error of this package inside an Update does not end the
// transaction.
func updateAfterConflict(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateUser(ctx, user("alice")))
	ok(t, a.CreateUser(ctx, user("bob")))
	ok(t, a.Update(ctx, func(r store.Records) error {
		is(t, r.CreateUser(ctx, user("alice")), store.ErrConflict)
		rename := user("alice")
		rename.NameKey = "bob"
		is(t, r.UpdateUser(ctx, rename), store.ErrConflict)
		rename.Version = 7
		is(t, r.UpdateUser(ctx, rename), store.ErrStale)
		is(t, r.DeleteUser(ctx, "nobody"), store.ErrNotFound)
		is(t, second(r.User(ctx, "nobody")), store.ErrNotFound)
		is(t, r.AddMember(ctx, "id-alice", "nothing"), store.ErrNotFound)
		return r.CreateUser(ctx, user("carol"))
	}))
	must(b.User(ctx, "id-carol"))(t)
	equal(t, must(b.User(ctx, "id-alice"))(t), user("alice"))
}

func updateErrors(t *testing.T, a, _ store.Store) {
	for _, want := range []error{store.ErrStale, store.ErrConflict, store.ErrNotFound, store.ErrBusy, context.Canceled, errors.New("mine")} {
		if err := a.Update(t.Context(), func(store.Records) error { return want }); err != want {
			t.Errorf("%v became %v", want, err)
		}
	}
}

func cancelled(t *testing.T, a, b store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is(t, a.CreateUser(ctx, user("alice")), context.Canceled)
	is(t, second(a.Users(ctx, store.Page{Limit: 1})), context.Canceled)
	is(t, a.Ping(ctx), context.Canceled)
	is(t, second(b.User(t.Context(), "id-alice")), store.ErrNotFound)

	ctx, cancel = context.WithCancel(t.Context())
	is(t, a.Update(ctx, func(r store.Records) error {
		err := r.CreateUser(ctx, user("alice"))
		cancel()
		return err
	}), context.Canceled)
	is(t, second(b.User(t.Context(), "id-alice")), store.ErrNotFound)
	ok(t, a.Ping(t.Context()))
}

func createOnce(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	rounds := times(2, 5)
	for round := range rounds {
		var winners atomic.Int64
		together(callers, func(i int) {
			u := user(fmt.Sprint("user", round))
			u.ID = fmt.Sprint(round, "-", i)
			err := pick(i, a, b).CreateUser(ctx, u)
			switch {
			case err == nil:
				winners.Add(1)
			case !errors.Is(err, store.ErrConflict):
				t.Error(err)
			}
		})
		equal(t, winners.Load(), 1)
	}
	equal(t, len(must(a.Users(ctx, store.Page{Limit: 100}))(t)), rounds)
}

func updateOnce(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateUser(ctx, user("alice")))
	for round := range times(2, 5) {
		u := must(a.User(ctx, "id-alice"))(t)
		var winners atomic.Int64
		var name atomic.Value
		together(callers, func(i int) {
			mine := u
			mine.FirstName = fmt.Sprint(round, " ", i)
			err := pick(i, a, b).UpdateUser(ctx, mine)
			switch {
			case err == nil:
				winners.Add(1)
				name.Store(mine.FirstName)
			case !errors.Is(err, store.ErrStale):
				t.Error(err)
			}
		})
		equal(t, winners.Load(), 1)
		u.FirstName, u.Version = name.Load().(string), u.Version+1
		equal(t, must(b.User(ctx, "id-alice"))(t), u)
	}
}

// markOnce: of many users who want what nobody has, one gets it; and no one while it is
// kept for somebody.
func markOnce(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for i := range callers {
		ok(t, a.CreateUser(ctx, user(fmt.Sprint("user", i))))
	}
	errTaken := errors.New("taken")
	for round := range times(3, 20) {
		digest := fmt.Sprint("d", round)
		kept := round == 0
		if kept {
			ok(t, a.PutMark(ctx, store.Mark{Kind: "email", Digest: digest, UserID: "gone", Until: now.Add(time.Hour)}))
		}
		var winners atomic.Int64
		together(callers, func(i int) {
			m := store.Mark{Kind: "email", Digest: digest, UserID: fmt.Sprint("id-user", i)}
			err := pick(i, a, b).Update(ctx, func(r store.Records) error {
				if err := second(r.TakenMark(ctx, m.Kind, m.Digest, m.UserID, now)); err == nil {
					return errTaken
				} else if !errors.Is(err, store.ErrNotFound) {
					return err
				}
				return r.PutMark(ctx, m)
			})
			if err == nil {
				winners.Add(1)
			} else if !errors.Is(err, errTaken) {
				t.Error(err)
			}
		})
		equal(t, winners.Load(), map[bool]int64{true: 0, false: 1}[kept])
	}
}

// serializable: each caller reads all and adds one more than there are. Two callers that
// do not see each other would add the same number. And of two callers that each leave
// only if the other one stays, at most one leaves.
func serializable(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	const writers = 8
	together(writers, func(i int) {
		err := pick(i, a, b).Update(ctx, func(r store.Records) error {
			list, err := r.Users(ctx, store.Page{Limit: 100})
			if err != nil {
				return err
			}
			u := user(fmt.Sprintf("%d by %d", len(list), i)) // a key that does not collide
			u.Epoch = int64(len(list))
			return r.CreateUser(ctx, u)
		})
		if err != nil {
			t.Error(err)
		}
	})
	seen := map[int64]bool{}
	for _, u := range must(a.Users(ctx, store.Page{Limit: 100}))(t) {
		if seen[u.Epoch] {
			t.Errorf("two transactions both counted %d", u.Epoch)
		}
		seen[u.Epoch] = true
	}
	equal(t, len(seen), writers)

	ok(t, a.CreateGroup(ctx, group("admins")))
	for _, name := range []string{"one", "two"} {
		ok(t, a.CreateUser(ctx, user(name)))
	}
	for range 5 {
		ok(t, a.AddMember(ctx, "id-one", "id-admins"))
		ok(t, a.AddMember(ctx, "id-two", "id-admins"))
		var left atomic.Int64
		together(2, func(i int) {
			leave := false
			err := pick(i, a, b).Update(ctx, func(r store.Records) error {
				members, err := r.MembersOfGroup(ctx, "id-admins", store.Page{Limit: 2})
				if leave = len(members) == 2; err != nil || !leave {
					return err
				}
				return r.RemoveMember(ctx, []string{"id-one", "id-two"}[i], "id-admins")
			})
			if err != nil {
				t.Error(err)
			} else if leave {
				left.Add(1)
			}
		})
		equal(t, left.Load(), 1)
	}
}

// inAThousandYears is an even epoch that is raised by one each time.
const inAThousandYears = 1 << 45

// oneMoment adds and removes a claim, and raises the epoch each time: a reader of an even
// epoch must find the claim.
func oneMoment(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	u := user("alice")
	u.Epoch = inAThousandYears + 1
	ok(t, a.CreateUser(ctx, u))
	ok(t, a.CreateGroup(ctx, group("g")))
	ok(t, a.CreateClaim(ctx, claim("c", "log", "w")))
	ok(t, a.AddClaim(ctx, "id-g", "id-c"))
	changes := times(16, 60)
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				u, claims, err := b.UserWithClaims(ctx, "id-alice")
				if err != nil || (u.Epoch%2 == 0) != (len(claims) == 1) {
					t.Errorf("epoch %d with the claims %v, %v", u.Epoch, claims, err)
					return
				}
			}
		})
	}
	for i := range changes {
		err := a.Update(ctx, func(r store.Records) error {
			move := r.AddMember
			if i%2 == 1 {
				move = r.RemoveMember
			}
			if err := move(ctx, u.ID, "id-g"); err != nil {
				return err
			}
			_, err := r.NextEpoch(ctx, u.ID, false)
			return err
		})
		if err != nil {
			t.Error(err)
			break
		}
	}
	done.Store(true)
	wg.Wait()
}

func epochsApart(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	u := user("alice")
	u.Epoch = inAThousandYears
	ok(t, a.CreateUser(ctx, u))
	var seen sync.Map
	together(callers, func(i int) {
		epoch, err := pick(i, a, b).NextEpoch(ctx, "id-alice", i%4 == 0)
		if err != nil {
			t.Error(err)
		} else if _, twice := seen.LoadOrStore(epoch, true); twice {
			t.Errorf("epoch %d was given twice", epoch)
		}
	})
	equal(t, must(b.User(ctx, "id-alice"))(t).Epoch, int64(inAThousandYears+callers))
}

func settingsAgree(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	var got sync.Map
	together(callers, func(i int) {
		v, err := pick(i, a, b).CreateSetting(ctx, "secret", fmt.Sprint(i))
		if err != nil {
			t.Error(err)
		}
		got.Store(v, true)
	})
	n := 0
	got.Range(func(v, _ any) bool {
		n++
		equal(t, must(a.Setting(ctx, "secret"))(t), v.(string))
		return true
	})
	equal(t, n, 1)
}

// settingStays reads a setting in transactions while another caller changes it all the
// time: a transaction that has read the value commits before the next value is there.
func settingStays(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.PutSetting(ctx, "x", "0"))
	var written atomic.Int64
	var done atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := int64(1); !done.Load(); n++ {
			if err := b.PutSetting(ctx, "x", strconv.FormatInt(n, 10)); err != nil {
				t.Error(err)
				return
			}
			written.Store(n)
			time.Sleep(time.Millisecond) // or the reader may starve
		}
	})
	for range times(10, 30) {
		var read string
		var meanwhile int64
		err := a.Update(ctx, func(r store.Records) (err error) {
			if read, err = r.Setting(ctx, "x"); err != nil {
				return err
			}
			for range 5 { // time for other callers
				if _, err := r.Keys(ctx); err != nil {
					return err
				}
			}
			meanwhile = written.Load()
			return nil
		})
		ok(t, err)
		if had, err := strconv.ParseInt(read, 10, 64); err != nil || had < meanwhile {
			t.Errorf("the transaction had %s, %v, when %d had been written", read, err, meanwhile)
		}
	}
	done.Store(true)
	writer.Wait()
}

func keyOnce(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	var winners atomic.Int64
	together(callers, func(i int) {
		err := pick(i, a, b).CreateKey(ctx, store.Key{ID: "kid", Instance: fmt.Sprint(i), PublicJWK: []byte("{}"), CreatedAt: now})
		switch {
		case err == nil:
			winners.Add(1)
		case !errors.Is(err, store.ErrConflict):
			t.Error(err)
		}
	})
	equal(t, winners.Load(), 1)
	equal(t, len(must(b.Keys(ctx))(t)), 1)
}

// logInOrder: while many write, alone and inside larger transactions, some of
// which fail, tailers on both replicas read page after page.
func logInOrder(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for i := range 4 {
		ok(t, a.CreateUser(ctx, user(fmt.Sprint(i))))
	}
	each := times(2, 3)
	var written sync.Map // seq → subject
	done := make(chan struct{})
	var tailers sync.WaitGroup
	tails := make([][]store.Revocation, 2)
	for i := range tails {
		s := pick(i, a, b)
		tailers.Go(func() {
			var after int64
			for last := false; ; {
				revs, head, err := s.RevocationsAfter(ctx, after, 5)
				if err != nil {
					t.Error(err)
					return
				}
				tails[i] = append(tails[i], revs...)
				if len(revs) > 0 {
					after = revs[len(revs)-1].Seq
				}
				if len(revs) < 5 && after != head.Seq {
					t.Errorf("%d lines up to %d, but the head is at %d", len(revs), after, head.Seq)
				}
				if len(revs) < 5 && last {
					return
				}
				select {
				case <-done:
					last = true
				default:
				}
			}
		})
	}
	note := func(seq int64, subject string) {
		if was, twice := written.LoadOrStore(seq, subject); twice {
			t.Errorf("%d was given to %v and to %s", seq, was, subject)
		}
	}
	together(callers, func(i int) {
		s := pick(i, a, b)
		for n := range each {
			r := revocation(n)
			r.Subject = fmt.Sprintf("%d/%d", i, n)
			if i%4 != 0 {
				seq, err := s.AppendRevocation(ctx, r)
				if err != nil {
					t.Error(err)
					return
				}
				note(seq, r.Subject)
				continue
			}
			var seq int64
			changedMind := errors.New("changed its mind")
			err := s.Update(ctx, func(rec store.Records) error {
				_, err := rec.NextEpoch(ctx, fmt.Sprint("id-", i%3), true)
				if err == nil {
					seq, err = rec.AppendRevocation(ctx, r)
				}
				if err == nil && n == 1 {
					return changedMind
				}
				return err
			})
			switch {
			case err == nil:
				note(seq, r.Subject)
			case err != changedMind:
				t.Error(err)
				return
			}
		}
	})
	close(done)
	tailers.Wait()
	want := callers*each - callers/4
	for i, tail := range tails {
		if len(tail) != want {
			t.Errorf("tailer %d saw %d lines, want %d", i, len(tail), want)
		}
		for n, r := range tail {
			if subject, _ := written.Load(r.Seq); r.Seq != int64(n+1) || subject != r.Subject {
				t.Fatalf("tailer %d: line %d has number %d and is about %s, not %v", i, n+1, r.Seq, r.Subject, subject)
			}
		}
	}
}

// logOvertaken: a transaction begins first and appends last. Whatever numbers the
// two get, a reader that follows the head misses neither.
func logOvertaken(t *testing.T, a, b store.Store) {
	began, appended := make(chan struct{}), make(chan struct{})
	logRace(t, a, b, began, appended, func(r store.Records, begin func()) error {
		if _, err := r.Keys(t.Context()); err != nil { // it has begun, and has its snapshot
			return err
		}
		begin()
		<-appended
		_, err := r.AppendRevocation(t.Context(), about("slow"))
		return err
	})
}

// logHeld: a transaction takes its number first and commits last. A number that
// becomes visible before it would make readers step over it.
func logHeld(t *testing.T, a, b store.Store) {
	began, appended := make(chan struct{}), make(chan struct{})
	logRace(t, a, b, began, appended, func(r store.Records, begin func()) error {
		_, err := r.AppendRevocation(t.Context(), about("slow"))
		begin()
		<-appended
		return err
	})
}

// logRace has another writer append when slow has begun, and lets slow go on when
// that one has its answer or waits for slow, while a reader follows.
func logRace(t *testing.T, a, b store.Store, began, appended chan struct{}, slow func(r store.Records, begin func()) error) {
	ctx := t.Context()
	must(a.AppendRevocation(ctx, about("first")))(t)
	var once sync.Once
	slowDone := make(chan error, 1)
	go func() {
		slowDone <- a.Update(ctx, func(r store.Records) error {
			return slow(r, func() { once.Do(func() { close(began) }) })
		})
	}()
	<-began
	fastDone := make(chan error, 1)
	go func() {
		_, err := b.AppendRevocation(ctx, about("fast"))
		fastDone <- err
	}()

	var after int64
	var seen []string
	tail := func() {
		revs, head, err := b.RevocationsAfter(ctx, after, 100)
		ok(t, err)
		for _, r := range revs {
			if r.Seq != after+1 {
				t.Fatalf("number %d becomes visible after %d", r.Seq, after)
			}
			after = r.Seq
			seen = append(seen, r.Subject)
		}
		equal(t, after, head.Seq)
	}
	// A writer that must wait for slow gets time to show whether it does. A store that
	// blocks all reads meanwhile lets the reader go on afterwards.
	waited := time.AfterFunc(300*time.Millisecond, func() { close(appended) })
	for running := 2; running > 0; {
		tail()
		select {
		case err := <-fastDone:
			ok(t, err)
			running--
			tail()
			if waited.Stop() {
				close(appended)
			}
		case err := <-slowDone:
			ok(t, err)
			running--
		case <-time.After(time.Millisecond):
		}
	}
	tail()
	slices.Sort(seen)
	equal(t, seen, []string{"fast", "first", "slow"})
}

// about returns an entry about a user.
func about(subject string) store.Revocation {
	r := revocation(1)
	r.Subject = subject
	return r
}

func keysOf[T any](list []T, key func(T) string) []string {
	var keys []string
	for _, x := range list {
		keys = append(keys, key(x))
	}
	return keys
}

// pick spreads callers over the two stores.
func pick(i int, a, b store.Store) store.Store {
	if i%2 == 0 {
		return a
	}
	return b
}

// together runs n goroutines that begin at the same moment, and waits for them.
func together(n int, run func(i int)) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			run(i)
		})
	}
	close(start)
	wg.Wait()
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must makes must(f())(t) the value of f, or the end of the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

func second[T any](_ T, err error) error { return err }

func third[T, U any](_ T, _ U, err error) error { return err }
