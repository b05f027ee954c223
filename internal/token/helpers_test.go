package token_test

import (
	"crypto"
	"crypto/rand"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	issuer   = "https://auth.example.com"
	audience = "https://api.example.com"
)

var rules = &accesstoken.Rules{Issuer: issuer, Audience: []string{audience}}

func newSigner(t testing.TB, alg string) (*token.Signer, crypto.Signer) {
	t.Helper()
	key, err := token.GenerateKey(rand.Reader, alg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := token.NewSigner("auth-0-"+alg, alg, key)
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

func someClaims(now time.Time) token.Access {
	return token.Access{
		Issuer: issuer, Subject: "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11", Audience: []string{audience}, ClientID: token.FirstParty,
		ID: "pO3s4rJt0Tqv7c1zQmZ2Yg", SessionID: "b1f3f0c47d5f4f9c", Epoch: 3,
		IssuedAt: now, NotBefore: now, ExpiresAt: now.Add(30 * time.Minute), AuthTime: now.Add(-time.Minute),
		AMR: []string{"mfa", "otp", "pwd"}, ACR: "aal2",
		User: map[string]string{"preferred_username": "ada", "name": "Ada Lovelace", "email": "ada@example.com", "log": "r,w"},
	}
}

func signingInput(compact string) string { return compact[:strings.LastIndexByte(compact, '.')] }

func signatureOf(t testing.TB, compact string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(compact[strings.LastIndexByte(compact, '.')+1:])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asn1Of is the signature r ‖ s as crypto/ecdsa takes it.
func asn1Of(t testing.TB, signature []byte) []byte {
	t.Helper()
	half := len(signature) / 2
	b, err := asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
