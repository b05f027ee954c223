package accesstoken

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"
)

// A Token is an access token that Check has accepted.
type Token struct {
	KeyID     string   // kid: which key signed it
	Issuer    string   // iss
	Subject   string   // sub: the id of its user
	Audience  []string // aud
	ID        string   // jti
	SessionID string   // sid; empty when it belongs to no session
	Epoch     int64    // epoch: how often everything of the user had been revoked; 0 when absent

	ExpiresAt time.Time // exp
	IssuedAt  time.Time // iat_exact, or iat, which an issuer may date back (see Check)
	NotBefore time.Time // nbf; zero when absent
	AuthTime  time.Time // auth_time: when the user authenticated last (RFC 9068 §2.2.1); zero when absent

	AMR []string // amr: the methods by which the user authenticated (RFC 8176); nil when absent
	ACR string   // acr: how strong that was (OpenID Connect Core §2); empty when absent

	Scope string // scope: what the token is good for, with a space between two (RFC 8693 §4.2); empty when absent

	payload string
	claims  map[string]any // all members of the payload; never changed
}

// Claim returns the claim of that name if it is a string, else the empty string.
func (t *Token) Claim(name string) string {
	s, _ := t.claims[name].(string)
	return s
}

// Payload returns what was signed: the claims as one JSON object.
func (t *Token) Payload() string { return t.payload }

// Claims returns a copy of all members of the payload, also the registered ones. The caller
// may change it. Numbers are json.Number, as they were written.
func (t *Token) Claims() map[string]any {
	c, _ := deepCopy(t.claims).(map[string]any)
	return c
}

func deepCopy(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for name, member := range v {
			c[name] = deepCopy(member)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, item := range v {
			c[i] = deepCopy(item)
		}
		return c
	}
	return v
}

// HasValue reports whether the claim of that name holds the value: a claim that a
// user has several times is one string, its values joined with commas.
func (t *Token) HasValue(name, value string) bool {
	return value != "" && slices.Contains(strings.Split(t.Claim(name), ","), value)
}

// HasScope reports whether the token has the scope.
func (t *Token) HasScope(name string) bool {
	for one := range strings.SplitSeq(t.Scope, " ") {
		if one == name && name != "" {
			return true
		}
	}
	return false
}

// parseClaims reads the payload. Names are compared exactly ("EXP" is not exp),
// each required claim (RFC 9068 §2.2) is there, and each is of its type. The
// token is nil if the payload cannot be read at all.
func parseClaims(payload string) (*Token, []error) {
	m, err := decodeObject(payload)
	if err != nil {
		return nil, []error{ErrMalformed.because("the token's claims cannot be read", err)}
	}
	r := reader{claims: m}
	issued := r.date("iat", true)
	if _, exact := m["iat_exact"]; exact {
		issued = r.date("iat_exact", true)
	}
	return &Token{
		Issuer:    r.text("iss", true),
		Subject:   r.text("sub", true),
		Audience:  r.audience(),
		ID:        r.text("jti", true),
		SessionID: r.text("sid", false),
		Epoch:     r.count("epoch"),
		ExpiresAt: r.date("exp", true),
		IssuedAt:  issued,
		NotBefore: r.date("nbf", false),
		AuthTime:  r.date("auth_time", false),
		AMR:       r.texts("amr"),
		ACR:       r.text("acr", false),
		Scope:     r.scope(),
		payload:   payload,
		claims:    m,
	}, r.faults
}

// A reader takes claims out of the payload and notes what is wrong with them.
type reader struct {
	claims map[string]any
	faults []error
}

func (r *reader) missing(name string, required bool) {
	if required {
		r.faults = append(r.faults, ErrMissingClaim.because("the token lacks the claim "+name, nil))
	}
}

func (r *reader) wrong(name, what string) {
	r.faults = append(r.faults, ErrMalformed.because("the token's "+name+" is not "+what, nil))
}

func (r *reader) text(name string, required bool) string {
	v, present := r.claims[name]
	if !present {
		r.missing(name, required)
		return ""
	}
	s, ok := v.(string)
	if !ok || s == "" {
		r.wrong(name, "a string with something in it")
	}
	return s
}

// texts is an array of strings that need not be there.
func (r *reader) texts(name string) []string {
	v, present := r.claims[name]
	if !present {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		r.wrong(name, "an array of strings")
		return nil
	}
	all := make([]string, len(list))
	for i := range list {
		s, ok := list[i].(string)
		if !ok || s == "" {
			r.wrong(name, "an array of strings")
			return nil
		}
		all[i] = s
	}
	return all
}

// scope is a string of scopes, with one space between two of them (RFC 8693 §4.2).
func (r *reader) scope() string {
	v, present := r.claims["scope"]
	if !present {
		return ""
	}
	s, _ := v.(string)
	for one := range strings.SplitSeq(s, " ") {
		if !IsScope(one) {
			r.wrong("scope", "a string of scopes with one space between two of them")
			return ""
		}
	}
	return s
}

// IsScope reports whether a text can be a scope: it has one character at least, of printable
// ASCII without the space, the quotation mark and the backslash (RFC 6749 §3.3).
func IsScope(text string) bool {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return text != ""
}

// audience is one string or an array of them (RFC 7519 §4.1.3).
func (r *reader) audience() []string {
	v, present := r.claims["aud"]
	if !present {
		r.missing("aud", true)
		return nil
	}
	list, isArray := v.([]any)
	if !isArray {
		list = []any{v}
	}
	all := make([]string, len(list))
	for i := range list {
		s, ok := list[i].(string)
		if !ok || s == "" {
			r.wrong("aud", "a string or an array of strings")
			return nil
		}
		all[i] = s
	}
	return all
}

func (r *reader) count(name string) int64 {
	v, present := r.claims[name]
	if !present {
		return 0
	}
	n, ok := v.(json.Number)
	if !ok {
		r.wrong(name, "a number")
		return 0
	}
	i, err := n.Int64()
	if err != nil || i < 0 {
		r.wrong(name, "a whole number")
		return 0
	}
	return i
}

// lastSecond is the end of the year 9999: what RFC 3339 can still say.
const lastSecond = 253402300799

// date is a NumericDate: seconds since 1970, perhaps with a fraction (RFC 7519 §2).
func (r *reader) date(name string, required bool) time.Time {
	v, present := r.claims[name]
	if !present {
		r.missing(name, required)
		return time.Time{}
	}
	n, ok := v.(json.Number)
	if !ok {
		r.wrong(name, "a number of seconds since 1970")
		return time.Time{}
	}
	seconds, err := n.Float64()
	if err != nil || !(seconds >= 0 && seconds <= lastSecond) {
		r.wrong(name, "a number of seconds since 1970")
		return time.Time{}
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)).UTC()
}
