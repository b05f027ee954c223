package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A Report is what a token says of itself and, in plain words, all that is wrong
// with it. It is for people who look into a failure; nothing in it may be trusted
// unless Valid.
type Report struct {
	Valid    bool
	Header   map[string]any // nil when it cannot be read
	Claims   map[string]any // nil when they cannot be read
	Findings []string       // a sentence each; empty when Valid
}

// Inspect decodes a token without trusting it and says what is wrong with it by
// the rules, all of it, not only what comes first. Whether it has been revoked
// is not asked here.
func Inspect(compact string, now time.Time, keys func(kid string) (accesstoken.Key, error), rules *accesstoken.Rules) Report {
	compact, stray := Strip(compact)
	in := rules.Inspect(compact, now, keys)
	r := Report{Header: in.Header, Claims: in.Claims, Findings: stray}
	if in.Header == nil && in.Claims == nil {
		r.Findings = append(r.Findings, guess(compact)...)
	}
	for _, fault := range in.Faults {
		if Follows(fault, in.Token) {
			continue
		}
		r.Findings = append(r.Findings, Explain(fault, in, now, rules))
	}
	r.Valid = len(r.Findings) == 0
	return r
}

// Strip takes off what is commonly copied along with a token.
func Strip(s string) (compact string, findings []string) {
	if trimmed := strings.TrimSpace(s); trimmed != s {
		s = trimmed
		findings = append(findings, "There is white space around the token, which does not belong to it.")
	}
	if name, rest, ok := strings.Cut(s, ":"); ok && strings.EqualFold(name, "Authorization") {
		s = strings.TrimSpace(rest)
		findings = append(findings, "The name of the Authorization header stands before the token.")
	}
	if scheme, rest, ok := strings.Cut(s, " "); ok && strings.EqualFold(scheme, "Bearer") {
		s = strings.TrimSpace(rest)
		findings = append(findings, `The word "Bearer" stands before the token; it belongs to the Authorization header.`)
	}
	return s, findings
}

// guess says what it may be that is no token at all.
func guess(compact string) []string {
	switch {
	case compact == "":
		return []string{"There is nothing to inspect."}
	case !strings.Contains(compact, "."):
		return []string{"It has no dots, so it is not an access token; it may be a refresh token or a session id, which only the server can read."}
	case strings.Count(compact, ".") == 4:
		return []string{"It has five parts, so it is an encrypted token (JWE, RFC 7516); Watchword issues none."}
	}
	return nil
}

// Follows reports whether the fault only follows from a claim's being missing or
// unreadable, which is another fault already.
func Follows(fault error, t *accesstoken.Token) bool {
	return errors.Is(fault, accesstoken.ErrExpired) && t.ExpiresAt.IsZero() ||
		errors.Is(fault, accesstoken.ErrIssuer) && t.Issuer == "" ||
		errors.Is(fault, accesstoken.ErrAudience) && len(t.Audience) == 0
}

// Explain says of one fault what was found and what was expected.
func Explain(fault error, in accesstoken.Inspection, now time.Time, rules *accesstoken.Rules) string {
	var e *accesstoken.Error
	if !errors.As(fault, &e) {
		return fmt.Sprintf("The key could not be looked up, so the signature is neither right nor wrong: %v.", fault)
	}
	switch {
	case errors.Is(e, accesstoken.ErrType):
		return fmt.Sprintf(`typ is %s, and an access token has "at+jwt" (RFC 9068): this may be an ID token, or a token of another system.`,
			member(in.Header, "typ"))
	case errors.Is(e, accesstoken.ErrAlgorithm):
		return sentence(e) + fmt.Sprintf(" (alg is %s.)", member(in.Header, "alg"))
	case errors.Is(e, accesstoken.ErrUnknownKey) && slices.Contains(accesstoken.SecretAlgorithms(), fmt.Sprint(in.Header["alg"])):
		return fmt.Sprintf("No signing secret has the kid %s: the secret was removed or has ended, or the token comes from another deployment.",
			member(in.Header, "kid"))
	case errors.Is(e, accesstoken.ErrUnknownKey):
		return fmt.Sprintf("The key set has no key with the kid %s: the key was removed, or the token comes from another deployment.",
			member(in.Header, "kid"))
	case errors.Is(e, accesstoken.ErrSignature):
		return "The signature is wrong: the token was changed, or signed with another key."
	case errors.Is(e, accesstoken.ErrIssuer):
		return fmt.Sprintf("iss is %s, and expected is %q.", member(in.Claims, "iss"), rules.Issuer)
	case errors.Is(e, accesstoken.ErrAudience):
		return fmt.Sprintf("aud is %s, and expected is one of %q.", member(in.Claims, "aud"), rules.Audience)
	case errors.Is(e, accesstoken.ErrExpired):
		return sentence(e) + fmt.Sprintf(" (%s ago.)", now.Sub(in.Token.ExpiresAt).Round(time.Second))
	case errors.Is(e, accesstoken.ErrNotYetValid):
		return sentence(e) + fmt.Sprintf(" (%s from now; perhaps the clocks differ.)", in.Token.NotBefore.Sub(now).Round(time.Second))
	}
	return sentence(e)
}

// member is a member's value as it is shown to people.
func member(m map[string]any, name string) string {
	v, present := m[name]
	if !present {
		return "missing"
	}
	return fmt.Sprintf("%.200q", fmt.Sprint(v))
}

// sentence makes one of an error's detail.
func sentence(e *accesstoken.Error) string {
	return strings.ToUpper(e.Detail[:1]) + e.Detail[1:] + "."
}
