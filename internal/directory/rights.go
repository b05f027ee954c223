package directory

import (
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
)

// Admin is the short name of the claim that grants administration. Its values are the
// permissions below.
const Admin = "admin"

// The permissions. Each …:write includes the same …:read.
const (
	Superuser     = "all"            // everything; holds every right there is
	UsersRead     = "users:read"     // see users and their groups
	UsersWrite    = "users:write"    // create, change and delete users; passwords; who is in which group
	UsersVerify   = "users:verify"   // say that an e-mail address is its user's; with UsersWrite
	GroupsRead    = "groups:read"    // see groups and their claims
	GroupsWrite   = "groups:write"   // create, change and delete groups; which claims they give
	ClaimsRead    = "claims:read"    // see claims
	ClaimsWrite   = "claims:write"   // create, change and delete claims
	SessionsRead  = "sessions:read"  // see where users are signed in
	SessionsWrite = "sessions:write" // end their sessions
	Revoke        = "revoke"         // revoke tokens of users all of whose rights the actor holds
	KeysRead      = "keys:read"      // see the signing keys' public halves and their state
	KeysWrite     = "keys:write"     // rotate and revoke signing keys
	LimitsRead    = "limits:read"    // see which accounts and addresses wait after failures
	LimitsWrite   = "limits:write"   // lift that
	AuditRead     = "audit:read"     // read the audit trail
)

var permissions = []string{
	Superuser, UsersRead, UsersWrite, UsersVerify, GroupsRead, GroupsWrite, ClaimsRead, ClaimsWrite,
	SessionsRead, SessionsWrite, Revoke, KeysRead, KeysWrite, LimitsRead, LimitsWrite, AuditRead,
}

// A Right is what a claim gives: a value under a short name.
type Right struct{ ShortName, Value string }

var superuser = Right{Admin, Superuser}

// Rights is a set of rights.
type Rights struct {
	all  bool
	held map[Right]struct{}
}

// RightsOf returns the rights that claims give, with those that they include.
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

// Superuser reports whether the set has every right.
func (r Rights) Superuser() bool { return r.all }

// Holds reports whether the set has a right.
func (r Rights) Holds(one Right) bool {
	_, ok := r.held[one]
	return ok || r.all
}

// Can reports whether the set has a permission.
func (r Rights) Can(permission string) bool { return r.Holds(Right{Admin, permission}) }

// Administer reports whether the set has any permission, so that its holder is an
// administrator.
func (r Rights) Administer() bool {
	for one := range r.held {
		if one.ShortName == Admin {
			return true
		}
	}
	return r.all
}

// Include reports whether the set has every right of other. Only a superuser's rights
// include those of a superuser.
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
