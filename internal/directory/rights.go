package directory

import (
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
)

// Admin is the short name of the claim that grants administration. Its values
// are the permissions below.
const Admin = "admin"

// What a value of the claim Admin allows. Each …:write allows the same …:read.
const (
	Superuser     = "all"            // everything; holds every right there is
	UsersRead     = "users:read"     // see users and their groups
	UsersWrite    = "users:write"    // make, change and delete users; passwords; who is in which group
	GroupsRead    = "groups:read"    // see groups and their claims
	GroupsWrite   = "groups:write"   // make, change and delete groups; which claims they give
	ClaimsRead    = "claims:read"    // see claims
	ClaimsWrite   = "claims:write"   // make, change and delete claims
	SessionsRead  = "sessions:read"  // see where users are signed in
	SessionsWrite = "sessions:write" // end their sessions
	Revoke        = "revoke"         // take back tokens of others who are not stronger
	KeysRead      = "keys:read"      // see the signing keys' public halves and their state
	KeysWrite     = "keys:write"     // rotate and revoke signing keys
	AuditRead     = "audit:read"     // read the audit trail
)

var permissions = []string{
	Superuser, UsersRead, UsersWrite, GroupsRead, GroupsWrite, ClaimsRead, ClaimsWrite,
	SessionsRead, SessionsWrite, Revoke, KeysRead, KeysWrite, AuditRead,
}

// A Right is what a claim gives: a value under a short name.
type Right struct{ ShortName, Value string }

var superuser = Right{Admin, Superuser}

// Rights are a set of rights.
type Rights struct {
	all  bool
	held map[Right]struct{}
}

// RightsOf is what the claims give, with what they imply.
func RightsOf(claims []store.Claim) Rights {
	r := Rights{held: make(map[Right]struct{}, len(claims))}
	for _, c := range claims {
		r.add(Right{c.ShortName, c.Value})
	}
	return r
}

func (r *Rights) add(one Right) {
	r.held[one] = struct{}{}
	r.all = r.all || one == superuser
	if area, ok := strings.CutSuffix(one.Value, ":write"); ok && one.ShortName == Admin {
		r.held[Right{Admin, area + ":read"}] = struct{}{}
	}
}

// Superuser says whether everything is held.
func (r Rights) Superuser() bool { return r.all }

// Holds says whether one right is held.
func (r Rights) Holds(one Right) bool {
	_, ok := r.held[one]
	return ok || r.all
}

// Can says whether administration of this kind is allowed: Holds of a permission.
func (r Rights) Can(permission string) bool { return r.Holds(Right{Admin, permission}) }

// Include says whether everything in other is held. Only a superuser includes
// another one.
func (r Rights) Include(other Rights) bool {
	for one := range other.held {
		if !r.Holds(one) {
			return false
		}
	}
	return true
}

// right checks the two halves of a claim, and returns the value in its normal form.
func right(shortName, value string) (string, error) {
	if err := token.CheckClaimName(shortName); err != nil {
		return "", err
	}
	normal, err := names.ClaimValue(value)
	if err != nil {
		return "", err
	}
	if strings.EqualFold(shortName, Admin) && (shortName != Admin || !slices.Contains(permissions, normal)) {
		return "", problem.New(problem.Invalid, "unknown_permission",
			"the claim %s grants administration and has one of the values %s", Admin, strings.Join(permissions, ", "))
	}
	return normal, nil
}
