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

// RSABits is the size of the RSA keys that GenerateKey makes. NIST SP 800-57 accepts it
// until 2030, and longer keys cost every verifier more. For more strength there are
// elliptic curves.
const RSABits = 2048

// ErrTooLong: the user has so many or so long claims that no verifier would accept the
// token.
var ErrTooLong = problem.New(problem.Denied, "claims_too_large",
	"your claims make a token longer than %d bytes, which no verifier would accept; the administrator of your account has to remove some",
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
// in an HSM, or with a shared secret. It may be used by many goroutines at once if its key may.
type Signer struct {
	key    crypto.Signer
	public accesstoken.Key
	header map[Kind]string   // the first part of a token of the kind, with its dot
	opts   crypto.SignerOpts // of every signature
	last   int               // the longest that the last part of a token may become
}

// NewSigner makes a Signer of a key and the name under which its public half is
// found. The key must fit alg.
func NewSigner(kid, alg string, key crypto.Signer) (*Signer, error) {
	public, err := accesstoken.NewKey(kid, alg, key.Public())
	if err != nil {
		return nil, err
	}
	return newSigner(public, key, optionsOf(alg))
}

// NewSecretSigner makes a Signer of a secret that verifiers share (see
// accesstoken.NewSecretKey), whose Public is therefore a secret, too.
func NewSecretSigner(secret, alg string) (*Signer, error) {
	key, err := accesstoken.NewSecretKey(secret, alg)
	if err != nil {
		return nil, err
	}
	return newSigner(key, newSecretKey(secret, alg), crypto.Hash(0))
}

func newSigner(public accesstoken.Key, key crypto.Signer, opts crypto.SignerOpts) (*Signer, error) {
	s := &Signer{key: key, public: public, header: map[Kind]string{}, opts: opts, last: maxSignature}
	if long, ok := public.Public.(*rsa.PublicKey); ok {
		s.last = max(s.last, base64.RawURLEncoding.EncodedLen(long.Size()))
	}
	for _, kind := range kinds {
		header, err := json.Marshal(struct {
			Alg string `json:"alg"`
			Kid string `json:"kid"`
			Typ Kind   `json:"typ"`
		}{public.Algorithm, public.ID, kind})
		if err != nil {
			return nil, err
		}
		s.header[kind] = base64.RawURLEncoding.EncodeToString(header) + "."
	}
	return s, nil
}

// KeyID is the kid of every token that it signs.
func (s *Signer) KeyID() string { return s.public.ID }

// Algorithm is the alg of every token that it signs.
func (s *Signer) Algorithm() string { return s.public.Algorithm }

// Public is the key that verifies its tokens. That of a secret is not published.
func (s *Signer) Public() accesstoken.Key { return s.public }

// Sign makes a token in compact form (RFC 7515 §7.1). It refuses claims that no verifier
// would accept: ErrTooLong, or the error of t.Encode.
func (s *Signer) Sign(t Token) (string, error) {
	header, payload, err := s.parts(t)
	if err != nil {
		return "", err
	}
	length := s.length(header, payload)
	if length > accesstoken.DefaultMaxLength {
		return "", ErrTooLong
	}
	out := make([]byte, 0, length)
	out = append(out, header...)
	out = base64.RawURLEncoding.AppendEncode(out, payload)
	signature, err := s.sign(out)
	if err != nil {
		return "", fmt.Errorf("token: signing: %w", err)
	}
	out = append(out, '.')
	out = base64.RawURLEncoding.AppendEncode(out, signature)
	return string(out), nil
}

// A Draft is a token that is not signed.
type Draft struct {
	Header, Payload []byte // JSON, as it would be signed
	// Length is what counts against accesstoken.DefaultMaxLength. The token is no longer.
	Length int
}

// Draft returns what Sign would sign, and signs nothing. ErrTooLong comes with the draft that
// is too long.
func (s *Signer) Draft(t Token) (Draft, error) {
	header, payload, err := s.parts(t)
	if err != nil {
		return Draft{}, err
	}
	d := Draft{Payload: payload, Length: s.length(header, payload)}
	if d.Header, err = base64.RawURLEncoding.DecodeString(header[:len(header)-1]); err != nil {
		return Draft{}, err
	}
	if d.Length > accesstoken.DefaultMaxLength {
		return d, ErrTooLong
	}
	return d, nil
}

// parts returns the first part of a token, with its dot, and the claims.
func (s *Signer) parts(t Token) (header string, payload []byte, err error) {
	header, ok := s.header[t.Kind()]
	if !ok {
		return "", nil, fmt.Errorf("token: there is no kind %q", t.Kind())
	}
	payload, err = t.Encode()
	return header, payload, err
}

// length returns how long a token becomes at most.
func (s *Signer) length(header string, payload []byte) int {
	return len(header) + base64.RawURLEncoding.EncodedLen(len(payload)) + 1 + s.last
}

// maxSignature is the length of the longest signature by a key that GenerateKey makes, of RSA
// with RSABits in base64url. It counts for shorter ones, too, so that whether claims fit depends
// on the key with longer RSA keys alone, which an HSM or a remote signer may have.
const maxSignature = (RSABits + 5) / 6

// sign returns the signature in the form of JWS (RFC 7518 §3.3 to 3.5, RFC 8037 §3.1).
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
		if signature, err = concatenate(signature, pub.Params().BitSize); err != nil {
			return nil, err
		}
		return accesstoken.CanonicalSignature(s.public.Algorithm, signature), nil
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
