package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for the Hash values below
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// RSABits is the size of the RSA keys that GenerateKey makes: NIST SP 800-57
// holds it good until 2030, and larger ones cost every verifier more. Who needs
// more strength takes an elliptic curve.
const RSABits = 2048

// ErrTooLong: the claims make a token that nobody would accept. The user has too
// many or too long claims.
var ErrTooLong = problem.New(problem.Denied, "claims_too_large",
	"your claims make a token longer than %d bytes, which nobody would accept; whoever administers your account has to take some away",
	accesstoken.DefaultMaxLength)

// GenerateKey makes a fresh private key for alg.
func GenerateKey(random io.Reader, alg string) (crypto.Signer, error) {
	switch alg {
	case accesstoken.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), random)
	case accesstoken.ES384:
		return ecdsa.GenerateKey(elliptic.P384(), random)
	case accesstoken.ES512:
		return ecdsa.GenerateKey(elliptic.P521(), random)
	case accesstoken.EdDSA:
		_, key, err := ed25519.GenerateKey(random)
		return key, err
	case accesstoken.RS256, accesstoken.PS256:
		return rsa.GenerateKey(random, RSABits)
	}
	return nil, fmt.Errorf("token: there is no algorithm %q", alg)
}

// A Signer signs tokens with one private key, which may live in this process or
// in an HSM. It may be used by many goroutines at once if its key may.
type Signer struct {
	key    crypto.Signer
	public accesstoken.Key
	header string            // the first part of every token it signs, with its dot
	opts   crypto.SignerOpts // what the key is asked for
}

// NewSigner makes a Signer of a key and the name under which its public half is
// found. The key must fit alg.
func NewSigner(kid, alg string, key crypto.Signer) (*Signer, error) {
	public, err := accesstoken.NewKey(kid, alg, key.Public())
	if err != nil {
		return nil, err
	}
	header, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
		Typ string `json:"typ"`
	}{alg, kid, "at+jwt"})
	if err != nil {
		return nil, err
	}
	return &Signer{
		key:    key,
		public: public,
		header: base64.RawURLEncoding.EncodeToString(header) + ".",
		opts:   optionsOf(alg),
	}, nil
}

// KeyID is the kid of every token that it signs.
func (s *Signer) KeyID() string { return s.public.ID }

// Algorithm is the alg of every token that it signs.
func (s *Signer) Algorithm() string { return s.public.Algorithm }

// Public is the key that verifies its tokens.
func (s *Signer) Public() accesstoken.Key { return s.public }

// Check says whether Sign would take the claims, at less than the cost of a
// signature.
func (s *Signer) Check(c Claims) error {
	_, err := s.input(c)
	return err
}

// Sign makes a token of the claims, in compact form. It refuses claims that no
// verifier would accept, and a user's claim that would stand for another thing.
func (s *Signer) Sign(c Claims) (string, error) {
	out, err := s.input(c)
	if err != nil {
		return "", err
	}
	signature, err := s.sign(out)
	if err != nil {
		return "", fmt.Errorf("token: signing: %w", err)
	}
	out = append(out, '.')
	out = base64.RawURLEncoding.AppendEncode(out, signature)
	return string(out), nil
}

// input is what is signed, with room for the signature.
func (s *Signer) input(c Claims) ([]byte, error) {
	payload, err := c.encode()
	if err != nil {
		return nil, err
	}
	length := len(s.header) + base64.RawURLEncoding.EncodedLen(len(payload)) + 1 + maxSignature
	if length > accesstoken.DefaultMaxLength {
		return nil, ErrTooLong
	}
	out := make([]byte, 0, length)
	out = append(out, s.header...)
	return base64.RawURLEncoding.AppendEncode(out, payload), nil
}

// maxSignature is room for the longest signature that there is, of RSA with
// RSABits in base64url: whether claims fit does not hang on the key.
const maxSignature = 344

// sign gives the signature as JWS wants it (RFC 7518 §3.3 to 3.5, RFC 8037 §3.1).
func (s *Signer) sign(input []byte) ([]byte, error) {
	message := input
	if h := s.opts.HashFunc(); h != 0 {
		hash := h.New()
		hash.Write(input)
		message = hash.Sum(nil)
	}
	signature, err := s.key.Sign(rand.Reader, message, s.opts)
	if err != nil {
		return nil, err
	}
	if pub, ok := s.public.Public.(*ecdsa.PublicKey); ok {
		return concatenate(signature, pub.Params().BitSize)
	}
	return signature, nil
}

// concatenate turns the ASN.1 that a crypto.Signer gives for ECDSA into r ‖ s,
// each at its full length (RFC 7518 §3.4).
func concatenate(signature []byte, bits int) ([]byte, error) {
	var v struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(signature, &v)
	if err != nil || len(rest) > 0 ||
		v.R.Sign() <= 0 || v.S.Sign() <= 0 || v.R.BitLen() > bits || v.S.BitLen() > bits {
		return nil, errors.New("the key gave something that is not an ECDSA signature")
	}
	size := (bits + 7) / 8
	out := make([]byte, 2*size)
	v.R.FillBytes(out[:size])
	v.S.FillBytes(out[size:])
	return out, nil
}

func optionsOf(alg string) crypto.SignerOpts {
	switch alg {
	case accesstoken.ES384:
		return crypto.SHA384
	case accesstoken.ES512:
		return crypto.SHA512
	case accesstoken.EdDSA:
		return crypto.Hash(0)
	case accesstoken.PS256:
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	return crypto.SHA256
}
