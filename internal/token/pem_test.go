package token

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func TestPublicPEM(t *testing.T) {
	for _, alg := range []string{accesstoken.ES384, accesstoken.EdDSA, accesstoken.PS256} {
		private, err := GenerateKey(rand.Reader, alg)
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSigner("k", alg, private)
		if err != nil {
			t.Fatal(err)
		}
		text, err := PublicPEM(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "PUBLIC KEY" || len(block.Headers) > 0 || len(rest) > 0 {
			t.Fatalf("%s: %s", alg, text)
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := accesstoken.NewKey("k", alg, public); err != nil || !got.Equal(s.Public()) {
			t.Errorf("%s: another key (%v)", alg, err)
		}
	}
	secret, err := accesstoken.NewSecretKey(strings.Repeat("s", 32), accesstoken.HS256)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := PublicPEM(secret); err == nil || len(text) > 0 {
		t.Errorf("a secret: %s", text)
	}
}
