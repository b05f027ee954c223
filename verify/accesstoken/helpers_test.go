package accesstoken_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	issuer   = "https://auth.example.com"
	audience = "https://api.example.com"
)

var (
	now   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	rules = &accesstoken.Rules{Issuer: issuer, Audience: []string{audience}}
)

// A pair is a key with its private half; tokens are signed by golang-jwt, not by
// the code under test.
type pair struct {
	accesstoken.Key
	private crypto.Signer
}

// pairs has one pair for each algorithm, under the algorithm's name as kid, and
// another P-256 key under "other".
var pairs = sync.OnceValue(func() map[string]pair {
	m := map[string]pair{}
	add := func(kid, alg string, private crypto.Signer) {
		k, err := accesstoken.NewKey(kid, alg, private.Public())
		if err != nil {
			panic(err)
		}
		m[kid] = pair{k, private}
	}
	ec := func(curve elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			panic(err)
		}
		return key
	}
	add("ES256", "ES256", ec(elliptic.P256()))
	add("other", "ES256", ec(elliptic.P256()))
	add("ES384", "ES384", ec(elliptic.P384()))
	add("ES512", "ES512", ec(elliptic.P521()))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	add("EdDSA", "EdDSA", ed)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	add("RS256", "RS256", r)
	add("PS256", "PS256", r)
	return m
})

func find(kid string) (accesstoken.Key, error) {
	if p, ok := pairs()[kid]; ok {
		return p.Key, nil
	}
	return accesstoken.Key{}, accesstoken.ErrUnknownKey
}

// object is JSON to be.
type object = map[string]any

func header(alg string) object { return object{"alg": alg, "typ": "at+jwt", "kid": alg} }

func claims() object {
	return object{
		"iss": issuer, "sub": "user-1", "aud": audience, "jti": "token-1", "sid": "session-1", "epoch": 7,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(), "log": "r,w",
		"auth_time": now.Unix(), "amr": []string{"mfa", "otp", "pwd"}, "acr": "aal2",
	}
}

// with returns a copy of o with one member set, or taken out if v is nil.
func with(o object, name string, v any) object {
	o = maps.Clone(o)
	if o[name] = v; v == nil {
		delete(o, name)
	}
	return o
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// signRaw signs whatever header and payload say, with the method of alg.
func signRaw(t testing.TB, p pair, alg, header, payload string) string {
	t.Helper()
	input := encode([]byte(header)) + "." + encode([]byte(payload))
	var key any = p.private
	signature, err := jwt.GetSigningMethod(alg).Sign(input, key)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + encode(accesstoken.CanonicalSignature(alg, signature))
}

// sign signs with the key that has the algorithm's name.
func sign(t testing.TB, header, claims object) string {
	t.Helper()
	return signRaw(t, pairs()["ES256"], "ES256", marshal(t, header), marshal(t, claims))
}
