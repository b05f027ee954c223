package directory

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/store"
)

func rights(rs ...Right) Rights {
	var claims []store.Claim
	for _, r := range rs {
		claims = append(claims, store.Claim{ShortName: r.ShortName, Value: r.Value})
	}
	return RightsOf(claims)
}

func TestOnlyASuperuserIncludesASuperuser(t *testing.T) {
	every := make([]Right, 0, len(permissions))
	for _, p := range permissions[1:] {
		every = append(every, Right{Admin, p})
	}
	if rights(every...).Include(rights(superuser)) {
		t.Error("all permissions together make a superuser")
	}
	if !rights(superuser).Include(rights(every...)) || !rights(superuser).Include(rights(superuser, Right{"log", "r"})) {
		t.Error("a superuser does not hold everything")
	}
	if rights(Right{"log", "all"}).Superuser() || rights(Right{"log", "all"}).Can(UsersRead) {
		t.Error("any claim with the value all makes a superuser")
	}
}

func TestWritingImpliesReading(t *testing.T) {
	w := rights(Right{Admin, UsersWrite})
	if !w.Can(UsersRead) || w.Can(GroupsRead) || !w.Include(rights(Right{Admin, UsersRead})) {
		t.Error("users:write is not users:read and itself alone")
	}
	if rights(Right{Admin, UsersRead}).Can(UsersWrite) {
		t.Error("users:read writes")
	}
	if rights(Right{"shop", "users:write"}).Holds(Right{"shop", "users:read"}) {
		t.Error("the rule of the admin claim is applied to another one")
	}
}

func TestNobodyHoldsNothing(t *testing.T) {
	var none Rights
	if none.Can(UsersRead) || none.Superuser() || !none.Include(none) || none.Include(rights(Right{"log", "r"})) {
		t.Error("no rights are some")
	}
}

func TestClaimShortNamesAreNotTheTokensOwn(t *testing.T) {
	for _, bad := range []string{"sub", "SUB", "exp", "Exp", "iss", "aud", "jti", "sid", "epoch", "scope", "", "a b", "preferred_username"} {
		if _, err := right(bad, "x"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestTheAdminClaimHasKnownValues(t *testing.T) {
	for _, known := range permissions {
		if _, err := right(Admin, known); err != nil {
			t.Errorf("%s: %v", known, err)
		}
	}
	for _, bad := range []Right{{Admin, "ALL"}, {Admin, "user:write"}, {Admin, "*"}, {"Admin", Superuser}, {"ADMIN", "x"}} {
		if _, err := right(bad.ShortName, bad.Value); code(err) != "unknown_permission" {
			t.Errorf("%v is taken: %v", bad, err)
		}
	}
}
