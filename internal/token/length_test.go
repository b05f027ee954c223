package token_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A longKey is an RSA key of an HSM, of whose signatures nothing but the length is real.
type longKey struct{ bits int }

func (k longKey) Public() crypto.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(k.bits-1))
	return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
}

func (k longKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, k.bits/8), nil
}

// With a key of any size, claims that verifiers would refuse for the token's length are
// ErrTooLong, and no others. An HSM or a remote signer may have longer RSA keys than
// GenerateKey makes.
func TestLongestToken(t *testing.T) {
	now := time.Now()
	longest := func(alg string, key crypto.Signer) int {
		t.Helper()
		s, err := token.NewSigner("auth-0", alg, key)
		if err != nil {
			t.Fatal(err)
		}
		length, fits, tooMuch := 0, 0, accesstoken.DefaultMaxLength
		for tooMuch-fits > 1 {
			n := (fits + tooMuch) / 2
			c := someClaims(now)
			c.User["much"] = strings.Repeat("x", n)
			compact, err := s.Sign(c)
			switch {
			case errors.Is(err, token.ErrTooLong):
				tooMuch = n
			case err != nil:
				t.Fatal(err)
			default:
				fits, length = n, len(compact)
			}
		}
		return length
	}
	for _, alg := range []string{accesstoken.RS256, accesstoken.PS256} {
		for _, bits := range []int{2048, 3072, 4096, accesstoken.MaxRSABits} {
			if n := longest(alg, longKey{bits}); n > accesstoken.DefaultMaxLength || n < accesstoken.DefaultMaxLength-2 {
				t.Errorf("%s with %d bits: the longest token has %d bytes, and up to %d are accepted", alg, bits, n, accesstoken.DefaultMaxLength)
			}
		}
	}
	for _, alg := range []string{accesstoken.ES256, accesstoken.ES512, accesstoken.EdDSA} {
		key, err := token.GenerateKey(rand.Reader, alg)
		if err != nil {
			t.Fatal(err)
		}
		if n := longest(alg, key); n > accesstoken.DefaultMaxLength {
			t.Errorf("%s: a token of %d bytes was signed", alg, n)
		}
	}
}
