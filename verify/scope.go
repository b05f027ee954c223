package verify

import (
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Scope requires that the token has all of the scopes, such as "orders:read", by its scope
// (RFC 8693 §4.2, RFC 9068 §2.2.3). If a token lacks nothing but scopes, the answer is 403 with
// error="insufficient_scope" (RFC 6750 §3.1), and its scope names all that the request needs,
// those that the token has as well. No token meets Scope of none, or of a name that
// accesstoken.IsScope rejects.
func Scope(names ...string) Requirement {
	if len(names) == 0 || slices.ContainsFunc(names, func(name string) bool { return !accesstoken.IsScope(name) }) {
		return That(nobody, func(*accesstoken.Token) bool { return false })
	}
	names = union(slices.Clone(names[:1]), names[1:])
	r := curable("scope="+strings.Join(names, and+"scope="), unscoped, Reauthentication{Scope: names}, func(t *accesstoken.Token, _ clock) bool {
		return !slices.ContainsFunc(names, func(name string) bool { return !t.HasScope(name) })
	})
	if len(names) > 1 {
		r.joint = and
	}
	return r
}

// An InsufficientScope is which scopes a request needs. An error that is ErrForbidden wraps an
// *InsufficientScope, for errors.As, if scopes are all that the token lacks.
type InsufficientScope struct {
	// Scope are all scopes that the request needs, in the order in which they were required.
	Scope []string
}

// Error is for the log.
func (s *InsufficientScope) Error() string { return "get more scopes" + scopeParameter(s.Scope) }

// scopeParameter is that of a WWW-Authenticate header (RFC 6750 §3), after a comma.
func scopeParameter(scope []string) string {
	if len(scope) == 0 {
		return ""
	}
	return `, scope="` + strings.Join(scope, " ") + `"`
}

// union returns what is in either, without repetition. It changes neither, but may return one
// of them.
func union(a, b []string) []string {
	if len(a) == 0 {
		return b
	}
	a = slices.Clip(a)
	for _, one := range b {
		if !slices.Contains(a, one) {
			a = append(a, one)
		}
	}
	return a
}
