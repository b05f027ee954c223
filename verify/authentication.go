package verify

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// FreshAuth requires that the user has authenticated no longer ago than d, by the token's
// auth_time. Renewing a token is no authentication. No token without auth_time meets it, and
// none with an auth_time in the future, but for a clock that runs behind by the Config's
// Leeway, or by what the issuer allows for when it dates nbf back. No token meets a d that is
// zero or negative. d counts in whole seconds, of which it has one at least.
func FreshAuth(d time.Duration) Requirement {
	text := "auth_time within " + d.String()
	if d <= 0 {
		return That(text, func(*accesstoken.Token) bool { return false })
	}
	d = max(d.Truncate(time.Second), time.Second)
	return curable(text, weak, Reauthentication{MaxAge: d}, func(t *accesstoken.Token, clock clock) bool {
		// Times are compared, because a duration holds no more than 292 years. So the zero
		// time of a token without auth_time is too old for every d.
		tooOld := clock.now.After(t.AuthTime.Add(d).Add(clock.leeway))
		inFuture := t.AuthTime.After(clock.now.Add(clock.leeway).Add(datedBack(t)))
		return !tooOld && !inFuture
	})
}

// datedBack returns by how much the token may be used before it was issued, by a clock that
// runs behind.
func datedBack(t *accesstoken.Token) time.Duration {
	if t.NotBefore.IsZero() {
		return 0
	}
	return min(max(0, t.IssuedAt.Sub(t.NotBefore)), MaxLeeway)
}

// AMR requires that the user has authenticated by at least one of the methods, such as "otp"
// or "hwk" (RFC 8176), by the token's amr. The methods are those of the whole session, but
// a password that follows two factors makes no session fresh: with FreshAuth, some second factor
// was used last, though perhaps another one than the one that is required. No token meets AMR of none.
func AMR(methods ...string) Requirement {
	return oneOf("amr", methods, Reauthentication{}, func(t *accesstoken.Token) []string { return t.AMR })
}

// ACR requires that the token's acr is one of the values, such as "aal2". No token meets ACR
// of none.
func ACR(values ...string) Requirement {
	again := Reauthentication{ACRValues: slices.Clone(values)}
	return oneOf("acr", values, again, func(t *accesstoken.Token) []string { return []string{t.ACR} })
}

func oneOf(name string, values []string, again Reauthentication, has func(*accesstoken.Token) []string) Requirement {
	values = slices.DeleteFunc(slices.Clone(values), func(value string) bool { return value == "" })
	if len(values) == 0 {
		return That(nobody, func(*accesstoken.Token) bool { return false })
	}
	r := curable(name+"="+strings.Join(values, or+name+"="), weak, again, func(t *accesstoken.Token, _ clock) bool {
		return slices.ContainsFunc(has(t), func(one string) bool { return slices.Contains(values, one) })
	})
	if len(values) > 1 {
		r.joint = or
	}
	return r
}

// curable makes a requirement that a token does not meet until its client has got another one,
// as again says. Until then, lacking is the outcome.
func curable(text string, lacking outcome, again Reauthentication, is func(*accesstoken.Token, clock) bool) Requirement {
	return Requirement{text: text, judge: func(t *accesstoken.Token, clock clock) verdict {
		if is(t, clock) {
			return verdict{met, again}
		}
		return verdict{lacking, again}
	}}
}

// A clock is the time at which a token is judged, and by how much it may be wrong.
type clock struct {
	now    time.Time
	leeway time.Duration
}

// A verdict is what a requirement says of a token.
type verdict struct {
	outcome outcome
	again   Reauthentication // how the user has to be authenticated, and the scopes, whether or not that is so
}

// and returns the verdict of two requirements that must both be met.
func (v verdict) and(other verdict) verdict {
	return verdict{v.outcome | other.outcome, v.again.and(other.again)}
}

// An outcome is the sum of what is wrong. It is better than those that are greater.
type outcome int

const (
	met      outcome = 0
	weak     outcome = 1 // it would be met if the user authenticated again
	unscoped outcome = 2 // it would be met if the token had more scopes
	denied   outcome = 4 // neither would help
)

// A Reauthentication is how a user has to authenticate (RFC 9470 §3). An error that is
// ErrReauthenticate wraps a *Reauthentication, for errors.As.
type Reauthentication struct {
	// MaxAge is how long ago it may be, in whole seconds; zero: that does not matter.
	MaxAge time.Duration
	// ACRValues are those of which the token's acr must be one, the preferred one first;
	// empty: it does not matter, or there is none that would do.
	ACRValues []string
	// Scope are all scopes that the request needs, in the order in which they were required,
	// if the token lacks one of them.
	Scope []string
}

// Error is for the log.
func (r *Reauthentication) Error() string { return "authenticate again" + r.parameters() }

// parameters are those of a WWW-Authenticate header, each after a comma. An acr that such a
// header cannot hold is left out.
func (r *Reauthentication) parameters() string {
	text := ""
	if r.MaxAge > 0 {
		text = `, max_age="` + strconv.FormatInt(int64(r.MaxAge/time.Second), 10) + `"`
	}
	values := slices.DeleteFunc(slices.Clone(r.ACRValues), func(value string) bool {
		return value == "" || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' })
	})
	if len(values) > 0 {
		text += `, acr_values="` + strings.Join(values, " ") + `"`
	}
	return text + scopeParameter(r.Scope)
}

// and returns what meets both.
func (r Reauthentication) and(other Reauthentication) Reauthentication {
	if r.MaxAge == 0 || other.MaxAge > 0 && other.MaxAge < r.MaxAge {
		r.MaxAge = other.MaxAge
	}
	r.Scope = union(r.Scope, other.Scope)
	switch {
	case len(r.ACRValues) == 0:
		r.ACRValues = other.ACRValues
	case len(other.ACRValues) > 0:
		r.ACRValues = slices.DeleteFunc(slices.Clone(r.ACRValues), func(value string) bool { return !slices.Contains(other.ACRValues, value) })
	}
	return r
}
