package verify

import (
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A Condition is an option of Verify and Require: a Requirement, which the token must
// meet, or MaxStaleness, FailOpen or FailClosed, which replace those of the Config.
type Condition interface{ set(*conditions) }

// conditions are those of one route. A later MaxStaleness or OnStale replaces an earlier
// one; requirements add up.
type conditions struct {
	maxStaleness MaxStaleness
	onStale      OnStale
	required     []Requirement
}

func (v *Verifier) conditions(list []Condition) *conditions {
	c := &conditions{maxStaleness: MaxStaleness(v.cfg.MaxStaleness), onStale: v.cfg.OnStale}
	for _, one := range list {
		one.set(c)
	}
	return c
}

// judge refuses a token that does not meet a requirement. What neither an authentication nor
// scopes would change comes first. If both are lacking, the client gets both at once: it
// authenticates its user again and asks for the scopes (RFC 9470 §3).
func (c *conditions) judge(t *accesstoken.Token, clock clock) error {
	var total verdict
	var lacking []Requirement
	for _, r := range c.required {
		v := r.judged(t, clock)
		total = total.and(v)
		switch {
		case v.outcome >= denied:
			return &accesstoken.Error{Code: ErrForbidden.Code, Detail: ErrForbidden.Detail + ": " + r.String()}
		case v.outcome != met:
			lacking = append(lacking, r)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	text := ": " + All(lacking...).String()
	total.again.ACRValues, total.again.Scope = slices.Clone(total.again.ACRValues), slices.Clone(total.again.Scope) // the requirements keep theirs
	if total.outcome == unscoped {
		return &accesstoken.Error{Code: ErrForbidden.Code, Detail: ErrForbidden.Detail + text, Cause: &InsufficientScope{total.again.Scope}}
	}
	if total.outcome == weak {
		total.again.Scope = nil
	}
	return &accesstoken.Error{Code: ErrReauthenticate.Code, Detail: ErrReauthenticate.Detail + text, Cause: &total.again}
}

// MaxStaleness is Config.MaxStaleness for one route. With FailClosed,
// MaxStaleness(2*time.Minute) lets an outage of two minutes pass. Much below three seconds,
// tokens are refused now and then although nothing is broken. How often a Verifier asks for
// revocations depends on the Config's MaxStaleness, so set that to the strictest.
type MaxStaleness time.Duration

func (d MaxStaleness) set(c *conditions) { c.maxStaleness = d }

// OnStale is what is answered about a good token while it is not known whether it has been
// revoked.
type OnStale int

const (
	// FailClosed refuses it: 503.
	FailClosed OnStale = iota
	// FailOpen accepts it. A Verifier that has never read the feed refuses it all the same:
	// it would accept every revoked token.
	FailOpen
)

func (o OnStale) set(c *conditions) { c.onStale = o }

// A Requirement is a condition that a token must meet. Claim, Scope, FreshAuth, AMR, ACR, Any,
// All and That make Requirements. No token meets the zero Requirement.
type Requirement struct {
	judge func(*accesstoken.Token, clock) verdict
	text  string
	joint string // what joins the parts of the text, if there are several
}

func (r Requirement) set(c *conditions) { c.required = append(c.required, r) }

// Met reports whether the token meets the requirement at this moment, by this machine's clock.
func (r Requirement) Met(t *accesstoken.Token) bool {
	return r.judged(t, clock{now: time.Now()}).outcome == met
}

func (r Requirement) judged(t *accesstoken.Token, clock clock) verdict {
	if r.judge == nil {
		return verdict{outcome: denied}
	}
	return r.judge(t, clock)
}

// String returns what is required, such as "ship=acc and (log=r or log=w)". It is part of
// the answer to a request that is refused.
func (r Requirement) String() string {
	if r.judge == nil {
		return nobody
	}
	return r.text
}

const (
	anybody = "any valid token"
	nobody  = "nobody may"
	and     = " and "
	or      = " or "
)

// Claim requires that the token holds the value under the name. A user who has
// several values has them in one claim, joined with commas: "log":"r,w" holds r
// and w. A value written like that requires all that it lists.
func Claim(name, value string) Requirement {
	values := strings.Split(value, ",")
	return That(name+"="+value, func(t *accesstoken.Token) bool {
		return !slices.ContainsFunc(values, func(one string) bool { return !t.HasValue(name, one) })
	})
}

// Any requires at least one of the requirements. No token meets Any of none. If a token meets
// none of them, the answer is about the one that is met the soonest: by authenticating again,
// else by getting scopes, else by both. Of several like that it is about the first one.
func Any(of ...Requirement) Requirement {
	of = slices.Clone(of)
	return Requirement{text: join(of, or, nobody), joint: jointOf(of, or), judge: func(t *accesstoken.Token, clock clock) verdict {
		best := verdict{outcome: denied}
		for _, r := range of {
			if v := r.judged(t, clock); v.outcome < best.outcome {
				best = v
			}
		}
		return best
	}}
}

// All requires every one of the requirements.
func All(of ...Requirement) Requirement {
	of = slices.Clone(of)
	return Requirement{text: join(of, and, anybody), joint: jointOf(of, and), judge: func(t *accesstoken.Token, clock clock) verdict {
		var worst verdict
		for _, r := range of {
			worst = worst.and(r.judged(t, clock))
		}
		return worst
	}}
}

// That makes a requirement from a function. The text says what is required.
func That(text string, is func(*accesstoken.Token) bool) Requirement {
	if is == nil {
		return Requirement{}
	}
	return Requirement{text: text, judge: func(t *accesstoken.Token, _ clock) verdict {
		if is(t) {
			return verdict{}
		}
		return verdict{outcome: denied}
	}}
}

// join joins the texts of requirements. A part that is itself joined in the other way gets
// parentheses.
func join(of []Requirement, joint, empty string) string {
	if len(of) == 0 {
		return empty
	}
	parts := make([]string, len(of))
	for i, r := range of {
		parts[i] = r.String()
		if len(of) > 1 && r.joint != "" && r.joint != joint {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	return strings.Join(parts, joint)
}

// jointOf returns how the parts of a text made by join are joined. With a single
// requirement, the text is that one's.
func jointOf(of []Requirement, joint string) string {
	switch len(of) {
	case 0:
		return ""
	case 1:
		return of[0].joint
	}
	return joint
}
