package accesstoken

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultMaxLength bounds a token in compact form, in bytes, where Rules say
// nothing else: it travels in a header, and servers commonly take 8 KiB of them.
const DefaultMaxLength = 8 << 10

// Rules are what an access token must meet. They are not changed once in
// use, and may be used by many goroutines at once.
type Rules struct {
	// Issuer is what iss must be, exactly. Empty accepts no token.
	Issuer string
	// Audience: the token's aud must name one of these. Empty accepts no token
	// (RFC 9068 §4).
	Audience []string
	// Algorithms that are accepted; nil means whichever the key has.
	Algorithms []string
	// Leeway is by how much clocks may differ: exp and nbf are judged that much in
	// the token's favour. A minute is plenty.
	Leeway time.Duration
	// MaxLength of the compact form in bytes; zero means DefaultMaxLength.
	MaxLength int
}

// Check accepts or refuses a token at the moment now (RFC 9068 §4, RFC 8725 §3).
// key looks up the key that the token names; it is asked at most once, only for
// a token that is well-formed and of an accepted algorithm. For a name it does
// not know it returns ErrUnknownKey; any other error of its is returned as it
// is, because then the token is neither right nor wrong.
//
// Revocation is not checked here. It goes by the moment at which a token was issued. iat is
// a few seconds earlier in a token of Watchword, because many libraries refuse one that lies
// in their future; iat_exact is that moment, where a token has it.
func (r *Rules) Check(compact string, now time.Time, key func(kid string) (Key, error)) (*Token, error) {
	s, err := r.split(compact)
	if err != nil {
		return nil, err
	}
	h, faults := s.parseHeader()
	if faults = append(faults, h.judgeType()...); len(faults) > 0 {
		return nil, faults[0]
	}
	if err := s.verify(h, r, key); err != nil {
		return nil, err
	}
	if err := s.judgeForm(h.alg); err != nil {
		return nil, err
	}
	t, faults := parseClaims(string(s.payload))
	if len(faults) > 0 {
		return nil, faults[0]
	}
	t.KeyID = h.kid
	if faults := r.judge(t, now); len(faults) > 0 {
		return nil, faults[0]
	}
	return t, nil
}

// Recheck checks again what time can change in a token that these Rules have accepted
// before: its issuer, audience and times at the moment now. The caller checks whether the
// token's key is still good.
func (r *Rules) Recheck(t *Token, now time.Time) error {
	if faults := r.judge(t, now); len(faults) > 0 {
		return faults[0]
	}
	return nil
}

// An Inspection is the content of a token and all that is wrong with it.
// Nothing in it may be trusted unless Faults is empty.
type Inspection struct {
	Header map[string]any // nil when it cannot be read
	Claims map[string]any // nil when they cannot be read
	Token  *Token         // the claims as Check reads them; nil when they cannot be read
	Faults []error        // what Check would say, and what it would say after that was mended
}

// Inspect is Check for people: it does not stop at the first fault. It finds no fault exactly
// if Check accepts the token.
func (r *Rules) Inspect(compact string, now time.Time, key func(kid string) (Key, error)) Inspection {
	s, err := r.split(compact)
	if err != nil {
		return Inspection{Faults: []error{err}}
	}
	var in Inspection
	h, faults := s.parseHeader()
	in.Header = h.members
	in.Faults = append(in.Faults, faults...)
	if h.members != nil {
		in.Faults = append(in.Faults, h.judgeType()...)
		if err := s.verify(h, r, key); err != nil {
			in.Faults = append(in.Faults, err)
		} else if err := s.judgeForm(h.alg); err != nil {
			in.Faults = append(in.Faults, err)
		}
	}
	t, faults := parseClaims(string(s.payload))
	in.Faults = append(in.Faults, faults...)
	if t != nil {
		t.KeyID = h.kid
		in.Token, in.Claims = t, t.Claims()
		in.Faults = append(in.Faults, r.judge(t, now)...)
	}
	return in
}

// VerifySignature checks a JWS in compact form (RFC 7515 §5.2) with this key and
// returns its payload. It is the part of Check that is not about claims: the caller judges
// typ and payload. A kid in the header, if there is one, must be the key's.
func (k Key) VerifySignature(compact string) ([]byte, error) {
	r := Rules{}
	s, err := r.split(compact)
	if err != nil {
		return nil, err
	}
	h, faults := s.parseHeader()
	if len(faults) > 0 {
		return nil, faults[0]
	}
	if _, named := h.members["kid"]; !named {
		h.kid = k.ID
	}
	err = s.verify(h, &r, func(kid string) (Key, error) {
		if kid != k.ID {
			return Key{}, ErrUnknownKey
		}
		return k, nil
	})
	if err != nil {
		return nil, err
	}
	return s.payload, nil
}

// split takes the compact form apart (RFC 7515 §7.1). Each part has only one
// spelling: no padding, no white space, no stray bits.
func (r *Rules) split(compact string) (jws, error) {
	limit := r.MaxLength
	if limit <= 0 {
		limit = DefaultMaxLength
	}
	if len(compact) > limit {
		return jws{}, ErrMalformed.because(fmt.Sprintf("the token is longer than %d bytes", limit), nil)
	}
	header, rest, ok := strings.Cut(compact, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(signature, ".") {
		return jws{}, ErrMalformed.because("the token does not have three parts separated by dots", nil)
	}
	var s jws
	for _, part := range []struct {
		to   *[]byte
		from string
	}{{&s.header, header}, {&s.payload, payload}, {&s.signature, signature}} {
		b, err := decodeBase64(part.from)
		if err != nil {
			detail := "a part of the token is not base64url without padding"
			if errors.Is(err, errStrayBits) {
				detail = "a part of the token ends in bits that belong to nothing: it was changed or cut off"
			}
			return jws{}, ErrMalformed.because(detail, err)
		}
		*part.to = b
	}
	s.input = compact[:len(header)+1+len(payload)]
	return s, nil
}

// A jws is a token taken apart.
type jws struct {
	header, payload, signature []byte
	input                      string // what was signed
}

// A header is the header of a token of which nothing has been verified.
type header struct {
	alg, typ, kid string
	members       map[string]any
}

// parseHeader reads the header. It has no members but alg, typ and kid: a token
// of ours never has others, and crit, cty, b64, jwk, jku, x5c and x5u would each
// change how it is to be read or with what key (RFC 7515 §4.1, RFC 7797, RFC
// 8725 §3.10).
func (s jws) parseHeader() (header, []error) {
	m, err := decodeObject(string(s.header))
	if err != nil {
		return header{}, []error{ErrMalformed.because("the token's header cannot be read", err)}
	}
	h := header{members: m}
	var faults []error
	for _, known := range []struct {
		name string
		to   *string
	}{{"alg", &h.alg}, {"typ", &h.typ}, {"kid", &h.kid}} {
		v, present := m[known.name]
		text, ok := v.(string)
		if present && !ok {
			faults = append(faults, ErrMalformed.because("the token's "+known.name+" is not a string", nil))
		}
		*known.to = text
	}
	if h.kid != "" && checkKeyID(h.kid) != nil {
		faults = append(faults, ErrMalformed.because("the token's kid is not a key's id", nil))
	}
	return h, append(faults, unexpected(m)...)
}

// unexpected returns an error for each member that a header may not have.
func unexpected(m map[string]any) []error {
	var names []string
	for name := range m {
		if name != "alg" && name != "typ" && name != "kid" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var faults []error
	for _, name := range names {
		faults = append(faults, ErrMalformed.because(
			fmt.Sprintf("the token's header has the member %.32q, which an access token does not have", name), nil))
	}
	return faults
}

// judgeType accepts access tokens alone (RFC 9068 §4; RFC 8725 §3.11), so that
// an ID token or a logout token signed with the same key is never taken for one.
// Media types have no case (RFC 7515 §4.1.9).
func (h header) judgeType() []error {
	if strings.EqualFold(h.typ, "at+jwt") || strings.EqualFold(h.typ, "application/at+jwt") {
		return nil
	}
	return []error{ErrType}
}

// verify checks the signature: kid picks the key, the key fixes the algorithm
// (RFC 8725 §3.1), and only then is anything computed. So an HMAC is only ever computed with
// a secret, and never with a public key. "none" does not exist here.
func (s jws) verify(h header, r *Rules, find func(kid string) (Key, error)) error {
	if _, ok := methodOf(h.alg); !ok || r.Algorithms != nil && !slices.Contains(r.Algorithms, h.alg) {
		return ErrAlgorithm
	}
	if h.kid == "" {
		return ErrMalformed.because("the token does not name its key (kid)", nil)
	}
	k, err := find(h.kid)
	if errors.Is(err, ErrUnknownKey) {
		return ErrUnknownKey
	}
	if err != nil {
		return err
	}
	if k.ID != h.kid {
		return ErrUnknownKey
	}
	if k.Algorithm != h.alg {
		return ErrAlgorithm.because("the token's algorithm is not the one of the key that it names", nil)
	}
	if err := k.verify(s.input, s.signature); err != nil {
		return ErrSignature.because(ErrSignature.Detail, err)
	}
	return nil
}

// judgeForm refuses the second form of a good ECDSA signature (see CanonicalSignature), so
// that a token, like each of its parts, has only one spelling. Otherwise a client
// could make another text of its token, which a list of texts would not know.
func (s jws) judgeForm(alg string) error {
	if !bytes.Equal(s.signature, CanonicalSignature(alg, s.signature)) {
		return ErrMalformed.because("the token's signature is in the form with the greater s, which Watchword does not issue: it was changed", nil)
	}
	return nil
}

// judge holds the claims against the rules (RFC 7519 §4.1, RFC 9068 §4). iat is
// not judged: no RFC asks for it, and a replica whose clock is a little ahead
// would have its tokens refused.
func (r *Rules) judge(t *Token, now time.Time) []error {
	var faults []error
	if t.Issuer != r.Issuer {
		faults = append(faults, ErrIssuer)
	}
	if !slices.ContainsFunc(t.Audience, func(a string) bool { return slices.Contains(r.Audience, a) }) {
		faults = append(faults, ErrAudience)
	}
	if !now.Before(t.ExpiresAt.Add(r.Leeway)) {
		faults = append(faults, ErrExpired.because(
			"the token expired at "+t.ExpiresAt.Format(time.RFC3339), nil))
	}
	if now.Before(t.NotBefore.Add(-r.Leeway)) {
		faults = append(faults, ErrNotYetValid.because(
			"the token is not valid before "+t.NotBefore.Format(time.RFC3339), nil))
	}
	return faults
}
