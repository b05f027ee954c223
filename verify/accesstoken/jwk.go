package accesstoken

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// jwk is what a public key looks like on the wire (RFC 7517 §4, RFC 7518 §6,
// RFC 8037 §2). It is only ever written; reading goes through decodeObject.
type jwk struct {
	Kty string `json:"kty"`
	Use string `json:"use"`
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
}

// errUnsupported marks a JWK that is well-formed but not for us: a key set may
// hold such keys, and they are passed over (RFC 7517 §5).
var errUnsupported = errors.New("jwk: not a key that verifies access tokens")

// errSecret: a key with a secret came to where keys are published.
var errSecret = errors.New("jwk: a key with a shared secret is never published")

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUnsupported, fmt.Sprintf(format, args...))
}

// encoding is base64url without padding (RFC 7515 §2), canonical: the unused
// bits of the last character are zero.
var encoding = base64.RawURLEncoding.Strict()

// errStrayBits: what encoding refuses and base64url as such does not.
var errStrayBits = errors.New("not canonical base64url")

// decodeBase64 refuses the line breaks that encoding/base64 would pass over, so
// that a value has exactly one spelling.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not base64url")
	}
	b, err := encoding.DecodeString(s)
	if err == nil {
		return b, nil
	}
	if _, err := base64.RawURLEncoding.DecodeString(s); err == nil {
		return nil, errStrayBits
	}
	return nil, errors.New("not base64url without padding")
}

// MarshalJSON gives the key as a JWK: unpadded base64url, coordinates at their
// full length, with use, alg and kid. A key with a secret is an error: it is not published.
func (k Key) MarshalJSON() ([]byte, error) {
	if k.secret != nil {
		return nil, errSecret
	}
	if err := k.check(); err != nil {
		return nil, err
	}
	j := jwk{Use: "sig", Alg: k.Algorithm, Kid: k.ID}
	switch pub := k.Public.(type) {
	case *ecdsa.PublicKey:
		point, err := pub.Bytes() // 4 ‖ X ‖ Y
		if err != nil {
			return nil, err
		}
		half := len(point) / 2
		j.Kty, j.Crv = "EC", pub.Curve.Params().Name
		j.X, j.Y = encoding.EncodeToString(point[1:1+half]), encoding.EncodeToString(point[1+half:])
	case ed25519.PublicKey:
		j.Kty, j.Crv, j.X = "OKP", "Ed25519", encoding.EncodeToString(pub)
	case *rsa.PublicKey:
		j.Kty = "RSA"
		j.N = encoding.EncodeToString(pub.N.Bytes())
		j.E = encoding.EncodeToString(big.NewInt(int64(pub.E)).Bytes())
	}
	return json.Marshal(j)
}

// Thumbprint is the key's SHA-256 JWK thumbprint (RFC 7638 §3, RFC 8037 §2) in
// unpadded base64url, 43 characters; empty for a Key that did not come from
// NewKey, ParseJWK or a KeySet and is of no use, and for one with a secret.
func (k Key) Thumbprint() string {
	data, err := k.MarshalJSON()
	if err != nil {
		return ""
	}
	var j jwk
	if err := json.Unmarshal(data, &j); err != nil {
		return ""
	}
	var canonical string
	switch j.Kty {
	case "EC":
		canonical = `{"crv":"` + j.Crv + `","kty":"EC","x":"` + j.X + `","y":"` + j.Y + `"}`
	case "OKP":
		canonical = `{"crv":"` + j.Crv + `","kty":"OKP","x":"` + j.X + `"}`
	case "RSA":
		canonical = `{"e":"` + j.E + `","kty":"RSA","n":"` + j.N + `"}`
	}
	sum := sha256.Sum256([]byte(canonical))
	return encoding.EncodeToString(sum[:])
}

// ParseJWK reads one public key. It is strict: a key with a private member, for
// another use, with a coordinate that is padded or not of its full length, or
// off its curve is refused. A kid is required; alg may be absent where the curve
// decides it, and is required for RSA, where nothing else does.
func ParseJWK(data []byte) (Key, error) {
	m, err := decodeObject(string(data))
	if err != nil {
		return Key{}, fmt.Errorf("jwk: %w", err)
	}
	return keyFromMembers(m)
}

func keyFromMembers(m map[string]any) (Key, error) {
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, ok := m[name]; ok {
			return Key{}, fmt.Errorf("jwk: the key has the private member %q, which must never be published", name)
		}
	}
	j, err := stringsOf(m)
	if err != nil {
		return Key{}, err
	}
	if err := forVerifying(m, j.Use); err != nil {
		return Key{}, err
	}
	if j.Kid == "" {
		return Key{}, unsupported("it has no kid")
	}
	switch j.Kty {
	case "EC":
		return j.ec()
	case "OKP":
		return j.okp()
	case "RSA":
		return j.rsa()
	}
	return Key{}, unsupported("kty %q", j.Kty)
}

// stringsOf picks the members that we read; each must be a string.
func stringsOf(m map[string]any) (j jwk, err error) {
	for name, field := range map[string]*string{
		"kty": &j.Kty, "use": &j.Use, "alg": &j.Alg, "kid": &j.Kid, "crv": &j.Crv,
		"x": &j.X, "y": &j.Y, "n": &j.N, "e": &j.E,
	} {
		v, present := m[name]
		if !present {
			continue
		}
		s, ok := v.(string)
		if !ok {
			return jwk{}, fmt.Errorf("jwk: the member %q is not a string", name)
		}
		*field = s
	}
	if j.Kty == "" {
		return jwk{}, errors.New("jwk: the key has no kty")
	}
	return j, nil
}

// forVerifying respects use and key_ops (RFC 7517 §4.2, §4.3).
func forVerifying(m map[string]any, use string) error {
	if _, ok := m["use"]; ok && use != "sig" {
		return unsupported("its use is %q", use)
	}
	v, present := m["key_ops"]
	if !present {
		return nil
	}
	ops, ok := v.([]any)
	if !ok {
		return errors.New("jwk: key_ops is not an array")
	}
	verifies := false
	for i, op := range ops {
		s, ok := op.(string)
		if !ok {
			return errors.New("jwk: key_ops holds something that is not a string")
		}
		for _, earlier := range ops[:i] {
			if earlier == s {
				return errors.New("jwk: key_ops names an operation twice")
			}
		}
		verifies = verifies || s == "verify"
	}
	if !verifies {
		return unsupported("its key_ops do not include verify")
	}
	return nil
}

func (j jwk) ec() (Key, error) {
	curve, alg := elliptic.Curve(nil), ""
	switch j.Crv {
	case "P-256":
		curve, alg = elliptic.P256(), ES256
	case "P-384":
		curve, alg = elliptic.P384(), ES384
	case "P-521":
		curve, alg = elliptic.P521(), ES512
	default:
		return Key{}, unsupported("crv %q", j.Crv)
	}
	if j.Alg != "" && j.Alg != alg {
		return Key{}, unsupported("alg %q with crv %q", j.Alg, j.Crv)
	}
	size := (curve.Params().BitSize + 7) / 8
	point := []byte{4}
	for _, coordinate := range []string{j.X, j.Y} {
		b, err := decodeBase64(coordinate)
		if err != nil {
			return Key{}, fmt.Errorf("jwk: a coordinate is %w", err)
		}
		if len(b) != size {
			return Key{}, fmt.Errorf("jwk: a coordinate of %s has %d bytes, not %d", j.Crv, size, len(b))
		}
		point = append(point, b...)
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return Key{}, errors.New("jwk: the point is not on the curve")
	}
	return NewKey(j.Kid, alg, pub)
}

func (j jwk) okp() (Key, error) {
	if j.Crv != "Ed25519" {
		return Key{}, unsupported("crv %q", j.Crv)
	}
	if j.Alg != "" && j.Alg != EdDSA {
		return Key{}, unsupported("alg %q with crv %q", j.Alg, j.Crv)
	}
	x, err := decodeBase64(j.X)
	if err != nil {
		return Key{}, fmt.Errorf("jwk: x is %w", err)
	}
	if len(x) != ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("jwk: x of Ed25519 has %d bytes, not %d", ed25519.PublicKeySize, len(x))
	}
	return NewKey(j.Kid, EdDSA, ed25519.PublicKey(x))
}

func (j jwk) rsa() (Key, error) {
	if j.Alg != RS256 && j.Alg != PS256 {
		return Key{}, unsupported("alg %q with kty RSA", j.Alg)
	}
	n, err := decodeUint(j.N)
	if err != nil {
		return Key{}, fmt.Errorf("jwk: n is %w", err)
	}
	e, err := decodeUint(j.E)
	if err != nil {
		return Key{}, fmt.Errorf("jwk: e is %w", err)
	}
	if e.BitLen() > 31 {
		return Key{}, errors.New("jwk: e is larger than 2^31-1")
	}
	return NewKey(j.Kid, j.Alg, &rsa.PublicKey{N: n, E: int(e.Int64())})
}

// decodeUint reads a Base64urlUInt: the fewest bytes that hold it (RFC 7518 §2).
func decodeUint(s string) (*big.Int, error) {
	b, err := decodeBase64(s)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || b[0] == 0 {
		return nil, errors.New("not a number in the fewest bytes")
	}
	return new(big.Int).SetBytes(b), nil
}
