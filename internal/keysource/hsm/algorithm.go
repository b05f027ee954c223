//go:build pkcs11 && cgo

package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// From PKCS #11 3.0, which the pkcs11 package does not know yet.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
)

// An algorithm is one of accesstoken.Algorithms, as PKCS #11 has it.
type algorithm struct {
	name     string
	hash     crypto.Hash // zero: the message itself is signed
	keyType  uint
	curve    elliptic.Curve
	params   [][]byte // CKA_EC_PARAMS: each form that tokens use for the curve
	generate uint     // mechanism
	sign     uint     // mechanism
	pss      bool
}

var algorithms = []*algorithm{
	{name: accesstoken.ES256, hash: crypto.SHA256, keyType: pkcs11.CKK_EC, curve: elliptic.P256(), params: [][]byte{{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}}, generate: pkcs11.CKM_EC_KEY_PAIR_GEN, sign: pkcs11.CKM_ECDSA},
	{name: accesstoken.ES384, hash: crypto.SHA384, keyType: pkcs11.CKK_EC, curve: elliptic.P384(), params: [][]byte{{6, 5, 0x2b, 0x81, 4, 0, 0x22}}, generate: pkcs11.CKM_EC_KEY_PAIR_GEN, sign: pkcs11.CKM_ECDSA},
	{name: accesstoken.ES512, hash: crypto.SHA512, keyType: pkcs11.CKK_EC, curve: elliptic.P521(), params: [][]byte{{6, 5, 0x2b, 0x81, 4, 0, 0x23}}, generate: pkcs11.CKM_EC_KEY_PAIR_GEN, sign: pkcs11.CKM_ECDSA},
	// RFC 8410's object identifier, or the name that PKCS #11 3.0 §2.3.10 has as well.
	{name: accesstoken.EdDSA, keyType: ckkECEdwards, params: [][]byte{{6, 3, 0x2b, 0x65, 0x70}, append([]byte{0x13, 12}, "edwards25519"...)}, generate: ckmECEdwardsKeyPairGen, sign: ckmEdDSA},
	{name: accesstoken.RS256, hash: crypto.SHA256, keyType: pkcs11.CKK_RSA, generate: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, sign: pkcs11.CKM_RSA_PKCS},
	{name: accesstoken.PS256, hash: crypto.SHA256, keyType: pkcs11.CKK_RSA, generate: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, sign: pkcs11.CKM_RSA_PKCS_PSS, pss: true},
}

func algorithmOf(name string) (*algorithm, error) {
	for _, a := range algorithms {
		if a.name == name {
			return a, nil
		}
	}
	return nil, fmt.Errorf("an HSM has no keys for the algorithm %q", name)
}

// attributes are what of a public key object says what the key is.
func (a *algorithm) attributes() []*pkcs11.Attribute {
	if a.keyType == pkcs11.CKK_RSA {
		return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil)}
	}
	return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)}
}

// public makes a public key of the values of attributes. It is nil if they are those of another
// algorithm.
func (a *algorithm) public(first, second []byte) (crypto.PublicKey, error) {
	var public crypto.PublicKey
	if a.keyType == pkcs11.CKK_RSA {
		e := new(big.Int).SetBytes(second)
		if e.BitLen() > 31 {
			return nil, errors.New("the RSA exponent is not an odd number from 3 to 2^31-1")
		}
		public = &rsa.PublicKey{N: new(big.Int).SetBytes(first), E: int(e.Int64())}
	} else {
		if !slices.ContainsFunc(a.params, func(p []byte) bool { return bytes.Equal(p, first) }) {
			return nil, nil
		}
		point := second
		var inner []byte // the standard wraps the point, and not every token does
		if rest, err := asn1.Unmarshal(second, &inner); err == nil && len(rest) == 0 {
			point = inner
		}
		if a.curve == nil {
			public = ed25519.PublicKey(point)
		} else {
			var err error
			if public, err = ecdsa.ParseUncompressedPublicKey(a.curve, point); err != nil {
				return nil, errors.New("the public half is not a point of the curve")
			}
		}
	}
	if _, err := accesstoken.NewKey("key", a.name, public); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "key: "))
	}
	return public, nil
}

// mechanism is how the algorithm signs.
func (a *algorithm) mechanism() []*pkcs11.Mechanism {
	var params any
	if a.pss {
		params = pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, uint(a.hash.Size()))
	}
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(a.sign, params)}
}

// sha256Info is what PKCS #1 v1.5 has before a SHA-256 (RFC 8017 §9.2, note 1).
var sha256Info = []byte{0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20}

// input is what the mechanism signs for a crypto.Signer's arguments.
func (a *algorithm) input(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	pss, isPSS := opts.(*rsa.PSSOptions)
	switch {
	case opts.HashFunc() != a.hash, a.hash != 0 && len(digest) != a.hash.Size(), isPSS != a.pss,
		isPSS && pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != a.hash.Size():
		return nil, &keyError{fmt.Sprintf("a key for %s is asked for another kind of signature", a.name)}
	case a.sign == pkcs11.CKM_RSA_PKCS:
		return slices.Concat(sha256Info, digest), nil
	}
	return digest, nil
}

// output turns a signature of the token into that of a crypto.Signer.
func (a *algorithm) output(signature []byte) ([]byte, error) {
	if a.curve == nil {
		return signature, nil
	}
	size := (a.curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return nil, &keyError{"the token gave something that is not an ECDSA signature"}
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])})
}

// verifies reports whether a signature, as output returns it, is good.
func (a *algorithm) verifies(public crypto.PublicKey, digest, signature []byte) bool {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(p, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(p, digest, signature)
	case *rsa.PublicKey:
		if a.pss {
			return rsa.VerifyPSS(p, a.hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(p, a.hash, digest, signature) == nil
	}
	return false
}

// options are those of a signature by the algorithm.
func (a *algorithm) options() crypto.SignerOpts {
	if a.pss {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash}
	}
	return a.hash
}

// pairs are the parameters with which a key pair is made, in the order in which they are tried.
func (a *algorithm) pairs() [][]*pkcs11.Attribute {
	if a.keyType == pkcs11.CKK_RSA {
		return [][]*pkcs11.Attribute{{pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, token.RSABits), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}}
	}
	var all [][]*pkcs11.Attribute
	for _, p := range a.params {
		all = append(all, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p)})
	}
	return all
}

// list is a list in a sentence.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
