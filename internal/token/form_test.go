package token_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A key gives both forms of an ECDSA signature. Tokens have only one, which verifiers insist
// on.
func TestSignaturesHaveOneForm(t *testing.T) {
	for _, alg := range []string{accesstoken.ES256, accesstoken.ES384, accesstoken.ES512} {
		s, _ := newSigner(t, alg)
		for range 20 {
			compact, err := s.Sign(someClaims(now))
			if err != nil {
				t.Fatal(err)
			}
			signature, err := base64.RawURLEncoding.DecodeString(compact[strings.LastIndexByte(compact, '.')+1:])
			if err != nil || !bytes.Equal(signature, accesstoken.CanonicalSignature(alg, signature)) {
				t.Fatalf("%s: the signature is in the second form, %v", alg, err)
			}
			check(t, s, compact)
		}
	}
}
