package accesstoken

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"

	"github.com/golang-jwt/jwt/v5"
)

// The signature algorithms a key may have (RFC 7518 §3.1, RFC 8037 §3.1).
const (
	ES256 = "ES256"
	ES384 = "ES384"
	ES512 = "ES512"
	EdDSA = "EdDSA"
	RS256 = "RS256"
	PS256 = "PS256"
)

// Bounds on what a key may be. An id travels in every token and is looked up
// before anything is verified; an RSA modulus decides how long verifying takes.
const (
	MaxKeyID   = 256
	MinRSABits = 2048
	MaxRSABits = 8192
)

// Algorithms returns the signature algorithms that a public key may have: those of key sets.
func Algorithms() []string {
	return []string{ES256, ES384, ES512, EdDSA, RS256, PS256}
}

// A Key verifies tokens: one public key, or one shared secret (see NewSecretKey), bound to
// one name and one algorithm.
// The algorithm is a property of the key, never of the token (RFC 8725 §3.1).
// Its fields are not changed once it is made.
type Key struct {
	ID        string           // kid
	Algorithm string           // one of Algorithms, or of SecretAlgorithms
	Public    crypto.PublicKey // *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey; nil with a secret

	secret *secret // nil: a public key
}

// NewKey makes a Key of pub, or says why pub cannot be used with alg: it must be
// of the algorithm's type and curve, its point on the curve, an RSA modulus of
// 2048 to 8192 bits with an odd exponent of at least 3 and not of the kind that
// some HSMs made and that can be factored.
func NewKey(id, alg string, pub crypto.PublicKey) (Key, error) {
	k := Key{ID: id, Algorithm: alg, Public: pub}
	if err := checkKeyID(id); err != nil {
		return Key{}, err
	}
	if err := k.check(); err != nil {
		return Key{}, err
	}
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if _, err := pub.Bytes(); err != nil {
			return Key{}, errors.New("key: the point is not on the curve")
		}
	case *rsa.PublicKey:
		if isROCA(pub.N) {
			return Key{}, errors.New("key: the RSA key can be factored (CVE-2017-15361)")
		}
	}
	return k, nil
}

// Equal reports whether both are the same public key, or the same secret, with the same
// algorithm, under whatever names.
func (k Key) Equal(other Key) bool {
	if k.secret != nil || other.secret != nil {
		return k.equalSecrets(other)
	}
	switch k.Public.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey: // the same pointer, as it usually is, needs no look at the numbers
		if k.Public == other.Public {
			return k.Algorithm == other.Algorithm
		}
	}
	p, ok := k.Public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Algorithm == other.Algorithm && p.Equal(other.Public)
}

// check reports whether the public key or the secret fits the algorithm. It is cheap, so that it
// also guards each verification with a Key that did not come from NewKey.
func (k Key) check() error {
	if k.secret != nil {
		return k.checkSecret()
	}
	switch pub := k.Public.(type) {
	case *ecdsa.PublicKey:
		if curve, ok := curveOf(k.Algorithm); ok && pub != nil && pub.Curve == curve {
			return nil
		}
	case ed25519.PublicKey:
		if k.Algorithm == EdDSA && len(pub) == ed25519.PublicKeySize {
			return nil
		}
	case *rsa.PublicKey:
		if k.Algorithm == RS256 || k.Algorithm == PS256 {
			return checkRSA(pub)
		}
	}
	return fmt.Errorf("key: a key of type %T cannot be used with the algorithm %q", k.Public, k.Algorithm)
}

func checkRSA(pub *rsa.PublicKey) error {
	switch {
	case pub == nil || pub.N == nil || pub.N.Sign() <= 0:
		return errors.New("key: the RSA key has no modulus")
	case pub.N.BitLen() < MinRSABits || pub.N.BitLen() > MaxRSABits:
		return fmt.Errorf("key: an RSA modulus has %d to %d bits, not %d", MinRSABits, MaxRSABits, pub.N.BitLen())
	case pub.N.Bit(0) == 0:
		return errors.New("key: the RSA modulus is even")
	case pub.E < 3 || pub.E%2 == 0 || int64(pub.E) > 1<<31-1:
		return errors.New("key: the RSA exponent is not an odd number from 3 to 2^31-1")
	}
	return nil
}

// isROCA reports whether the modulus comes from the library of certain Infineon
// chips, whose keys can be factored: modulo each of these primes it is a power
// of 65537. One good key in 2^27 looks so too.
// See https://crocs.fi.muni.cz/public/papers/rsa_ccs17.
func isROCA(n *big.Int) bool {
	for _, p := range []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157} {
		remainder := new(big.Int).Mod(n, big.NewInt(p)).Int64()
		isPower, power := false, int64(1)
		for range p {
			isPower = isPower || power == remainder
			power = power * 65537 % p
		}
		if !isPower {
			return false
		}
	}
	return true
}

// checkKeyID holds for the names of keys and for the kid of a token.
func checkKeyID(id string) error {
	if id == "" || len(id) > MaxKeyID {
		return fmt.Errorf("key: an id has 1 to %d bytes", MaxKeyID)
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return errors.New("key: an id is printable ASCII without spaces")
		}
	}
	return nil
}

// verify checks the signature over the signing input (RFC 7515 §5.2, step 8).
// For ECDSA golang-jwt insists on r and s at their full length (RFC 7518 §3.4).
func (k Key) verify(input string, signature []byte) error {
	if err := k.check(); err != nil {
		return err
	}
	method, ok := methodOf(k.Algorithm)
	if !ok {
		return fmt.Errorf("key: unknown algorithm %q", k.Algorithm)
	}
	if k.secret != nil {
		return method.Verify(input, signature, k.secret.text())
	}
	return method.Verify(input, signature, k.Public)
}

// ps256 differs from golang-jwt's in that it insists on a salt as long as the
// hash (RFC 7518 §3.5); theirs accepts any length.
var ps256 = &jwt.SigningMethodRSAPSS{
	SigningMethodRSA: &jwt.SigningMethodRSA{Name: PS256, Hash: crypto.SHA256},
	Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
}

func methodOf(alg string) (jwt.SigningMethod, bool) {
	switch alg {
	case ES256:
		return jwt.SigningMethodES256, true
	case ES384:
		return jwt.SigningMethodES384, true
	case ES512:
		return jwt.SigningMethodES512, true
	case EdDSA:
		return jwt.SigningMethodEdDSA, true
	case RS256:
		return jwt.SigningMethodRS256, true
	case PS256:
		return ps256, true
	case HS256:
		return jwt.SigningMethodHS256, true
	case HS384:
		return jwt.SigningMethodHS384, true
	case HS512:
		return jwt.SigningMethodHS512, true
	}
	return nil, false
}

// CanonicalSignature returns the one form of an ECDSA signature (r ‖ s) that Check accepts:
// the one whose s is at most half the order of the curve. With every signature (r, s),
// (r, n−s) is good too, and anybody can compute one from the other without the key. Neither
// crypto/ecdsa nor an HSM chooses between them, so a signer calls CanonicalSignature. A
// signature of another algorithm, or of the wrong length, is returned as it is.
func CanonicalSignature(alg string, signature []byte) []byte {
	curve, ok := curveOf(alg)
	if !ok {
		return signature
	}
	order := curve.Params().N
	size := (order.BitLen() + 7) / 8
	if len(signature) != 2*size {
		return signature
	}
	s := new(big.Int).SetBytes(signature[size:])
	other := new(big.Int).Sub(order, s)
	if other.Cmp(s) >= 0 || other.Sign() <= 0 {
		return signature
	}
	canonical := bytes.Clone(signature)
	other.FillBytes(canonical[size:])
	return canonical
}

func curveOf(alg string) (elliptic.Curve, bool) {
	switch alg {
	case ES256:
		return elliptic.P256(), true
	case ES384:
		return elliptic.P384(), true
	case ES512:
		return elliptic.P521(), true
	}
	return nil, false
}
