package accesstoken_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func TestJWKForm(t *testing.T) {
	x := bytes.Repeat([]byte{1}, 32)
	k, err := accesstoken.NewKey("auth-0-abc", "EdDSA", ed25519.PublicKey(x))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"kty":"OKP","use":"sig","alg":"EdDSA","kid":"auth-0-abc","crv":"Ed25519","x":"` + encode(x) + `"}`
	if got := marshal(t, k); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestJWKRoundTrip: every kind of key comes back the same, under its name, and a
// private member is nowhere.
func TestJWKRoundTrip(t *testing.T) {
	for name, p := range pairs() {
		data, err := json.Marshal(p.Key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := accesstoken.ParseJWK(data)
		if err != nil || !back.Equal(p.Key) || back.ID != name {
			t.Errorf("%s: %v, %v", name, back, err)
		}
		if back.Thumbprint() != p.Thumbprint() || len(p.Thumbprint()) != 43 {
			t.Errorf("%s: the thumbprint changed", name)
		}
		if bytes.Contains(data, []byte("=")) || bytes.Contains(data, []byte(`"d"`)) {
			t.Errorf("%s: %s", name, data)
		}
	}
}

// TestCoordinatesKeepTheirLength: about one P-256 key in 128 has a coordinate
// that begins with a zero byte; dropping it makes standard libraries refuse the
// key.
func TestCoordinatesKeepTheirLength(t *testing.T) {
	short := 0
	for range 3000 {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k, err := accesstoken.NewKey("k", "ES256", private.Public())
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		var j struct{ X, Y string }
		if err := json.Unmarshal(data, &j); err != nil {
			t.Fatal(err)
		}
		if len(j.X) != 43 || len(j.Y) != 43 {
			t.Fatalf("coordinates of %d and %d characters in %s", len(j.X), len(j.Y), data)
		}
		if j.X[0] == 'A' || j.Y[0] == 'A' { // at most 6 bits, so some of these begin with a zero byte
			short++
		}
		back, err := accesstoken.ParseJWK(data)
		if err != nil || !back.Equal(k) {
			t.Fatalf("%s came back as %v, %v", data, back, err)
		}
	}
	if short == 0 {
		t.Error("no key had a small coordinate; the test saw nothing")
	}
}

func TestNewKeyRefuses(t *testing.T) {
	rsaKey := pairs()["RS256"].Public.(*rsa.PublicKey)
	p256 := pairs()["ES256"].Public.(*ecdsa.PublicKey)
	changed := func(n *big.Int, e int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: e} }
	bits := func(n uint) *big.Int { return new(big.Int).SetBit(big.NewInt(1), int(n)-1, 1) }
	// A multiple of all the primes that isROCA asks, plus one: 65537^0 to each.
	roca := big.NewInt(2) // so that the modulus is odd
	for _, p := range []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157} {
		roca.Mul(roca, big.NewInt(p))
	}
	for roca.BitLen() < 2048 {
		roca.Lsh(roca, 1)
	}
	roca.Add(roca, big.NewInt(1))
	//lint:ignore SA1019 a point off the curve cannot be made otherwise
	off := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
	for name, c := range map[string]struct {
		id, alg string
		pub     crypto.PublicKey
	}{
		"no id":                                 {"", "ES256", p256},
		"an id with a space":                    {"a b", "ES256", p256},
		"an id beyond ASCII":                    {"ä", "ES256", p256},
		"a huge id":                             {strings.Repeat("k", 257), "ES256", p256},
		"unknown algorithm":                     {"k", "ES257", p256},
		"none":                                  {"k", "none", p256},
		"HMAC":                                  {"k", "HS256", []byte("0123456789abcdef0123456789abcdef")},
		"the wrong curve":                       {"k", "ES384", p256},
		"the wrong type":                        {"k", "RS256", p256},
		"a private key":                         {"k", "ES256", pairs()["ES256"].private},
		"nil":                                   {"k", "ES256", nil},
		"a nil EC key":                          {"k", "ES256", (*ecdsa.PublicKey)(nil)},
		"a nil RSA key":                         {"k", "RS256", (*rsa.PublicKey)(nil)},
		"off the curve":                         {"k", "ES256", off},
		"a short Ed25519 key":                   {"k", "EdDSA", ed25519.PublicKey(make([]byte, 31))},
		"RSA of 1024 bits":                      {"k", "RS256", changed(bits(1024), 65537)},
		"RSA of 2047 bits":                      {"k", "RS256", changed(bits(2047), 65537)},
		"RSA of 8193 bits":                      {"k", "RS256", changed(bits(8193), 65537)},
		"a modulus that can be factored (ROCA)": {"k", "RS256", changed(roca, 65537)},
		"an even modulus":                       {"k", "RS256", changed(new(big.Int).Sub(bits(2048), big.NewInt(1)), 65537)},
		"no modulus":                            {"k", "RS256", changed(nil, 65537)},
		"exponent 1":                            {"k", "PS256", changed(rsaKey.N, 1)},
		"an even exponent":                      {"k", "PS256", changed(rsaKey.N, 65536)},
		"a negative exponent":                   {"k", "PS256", changed(rsaKey.N, -3)},
		"an exponent beyond int":                {"k", "PS256", changed(rsaKey.N, 1<<31+1)},
	} {
		if k, err := accesstoken.NewKey(c.id, c.alg, c.pub); err == nil {
			t.Errorf("%s: accepted as %v", name, k)
		}
	}
}

func TestParseJWKRefuses(t *testing.T) {
	ec := `"kty":"EC","kid":"k","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	if _, err := accesstoken.ParseJWK([]byte(`{` + ec + `,"key_ops":["verify"],"x5t":"abc","x5c":["ignored"]}`)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	zero := encode(make([]byte, 31))
	n := `"n":"` + encode(append([]byte{0}, pairs()["RS256"].Public.(*rsa.PublicKey).N.Bytes()...)) + `"`
	for name, jwk := range map[string]string{
		"not JSON":                    `k`,
		"an array":                    `[]`,
		"a member twice":              `{"kid":"j",` + ec + `}`,
		"a private key":               `{` + ec + `,"d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}`,
		"a private member of RSA":     `{` + ec + `,"p":""}`,
		"a symmetric key":             `{"kty":"oct","kid":"k","alg":"HS256","k":"AAAA"}`,
		"kty missing":                 strings.Replace(`{`+ec+`}`, `"kty":"EC",`, ``, 1),
		"kty in lower case":           strings.Replace(`{`+ec+`}`, `"EC"`, `"ec"`, 1),
		"kid missing":                 strings.Replace(`{`+ec+`}`, `"kid":"k",`, ``, 1),
		"kid is a number":             strings.Replace(`{`+ec+`}`, `"kid":"k"`, `"kid":1`, 1),
		"use enc":                     `{` + ec + `,"use":"enc"}`,
		"use empty":                   `{` + ec + `,"use":""}`,
		"key_ops without verify":      `{` + ec + `,"key_ops":["sign"]}`,
		"key_ops empty":               `{` + ec + `,"key_ops":[]}`,
		"key_ops twice":               `{` + ec + `,"key_ops":["verify","verify"]}`,
		"key_ops is a string":         `{` + ec + `,"key_ops":"verify"}`,
		"key_ops holds a number":      `{` + ec + `,"key_ops":["verify",1]}`,
		"alg of another curve":        `{` + ec + `,"alg":"ES384"}`,
		"alg ES521, which is none":    `{` + ec + `,"alg":"ES521"}`,
		"alg none":                    `{` + ec + `,"alg":"none"}`,
		"crv unknown":                 strings.Replace(`{`+ec+`}`, "P-256", "secp256k1", 1),
		"crv of another size":         strings.Replace(`{`+ec+`}`, "P-256", "P-384", 1),
		"x padded":                    strings.Replace(`{`+ec+`}`, `VEU"`, `VEU="`, 1),
		"x with a line break":         strings.Replace(`{`+ec+`}`, `VEU"`, `V\nEU"`, 1),
		"x with stray bits":           strings.Replace(`{`+ec+`}`, `VEU"`, `VEV"`, 1),
		"x one byte short":            fmt.Sprintf(`{"kty":"EC","kid":"k","crv":"P-256","x":%q,"y":%q}`, zero, zero),
		"x one byte long":             strings.Replace(`{`+ec+`}`, `"f83O`, `"AAf83O`, 1),
		"x missing":                   `{"kty":"EC","kid":"k","crv":"P-256","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
		"off the curve":               strings.Replace(`{`+ec+`}`, `"f83O`, `"g83O`, 1),
		"the point at zero":           fmt.Sprintf(`{"kty":"EC","kid":"k","crv":"P-256","x":%q,"y":%q}`, encode(make([]byte, 32)), encode(make([]byte, 32))),
		"ed25519 in lower case":       `{"kty":"OKP","kid":"k","crv":"ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"Ed448":                       `{"kty":"OKP","kid":"k","crv":"Ed448","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"X25519, which signs nothing": `{"kty":"OKP","kid":"k","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"Ed25519 with ES256":          `{"kty":"OKP","kid":"k","alg":"ES256","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"Ed25519 too short":           `{"kty":"OKP","kid":"k","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUQ"}`,
		"RSA without alg":             strings.Replace(marshal(t, pairs()["RS256"].Key), `"alg":"RS256",`, ``, 1),
		"RSA with ES256":              strings.Replace(marshal(t, pairs()["RS256"].Key), `"RS256"`, `"ES256"`, 1),
		"RSA with a zero before n":    `{"kty":"RSA","kid":"k","alg":"RS256","e":"AQAB",` + n + `}`,
		"RSA with a zero before e":    strings.Replace(marshal(t, pairs()["RS256"].Key), `"AQAB"`, `"AAEAAQ"`, 1),
		"RSA with e of 2^32+1":        strings.Replace(marshal(t, pairs()["RS256"].Key), `"AQAB"`, `"AQAAAAE"`, 1),
		"RSA with e of 2^64+65537":    strings.Replace(marshal(t, pairs()["RS256"].Key), `"AQAB"`, `"AQAAAAAAAQAB"`, 1),
		"RSA with e 1":                strings.Replace(marshal(t, pairs()["RS256"].Key), `"AQAB"`, `"AQ"`, 1),
		"RSA without n":               `{"kty":"RSA","kid":"k","alg":"RS256","e":"AQAB"}`,
	} {
		if k, err := accesstoken.ParseJWK([]byte(jwk)); err == nil {
			t.Errorf("%s: accepted as %v", name, k)
		}
	}
}

func TestKeySet(t *testing.T) {
	a, b := pairs()["ES256"].Key, pairs()["EdDSA"].Key
	s, err := accesstoken.NewKeySet(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := s.Key("EdDSA"); !ok || !k.Equal(b) || s.Len() != 2 || s.Keys()[0].ID != "ES256" {
		t.Errorf("the set is %v", s.Keys())
	}
	if _, ok := s.Key("nobody"); ok {
		t.Error("the set has a key that was not put into it")
	}
	back, err := accesstoken.ParseKeySet([]byte(marshal(t, s)))
	if err != nil || marshal(t, back) != marshal(t, s) {
		t.Errorf("it came back as %v, %v", back, err)
	}
	s.Keys()[0] = b
	if s.Keys()[0].ID != "ES256" {
		t.Error("the set can be changed from outside")
	}
	if _, err := accesstoken.NewKeySet(a, b, a); err == nil {
		t.Error("a kid twice is accepted")
	}
	if _, err := accesstoken.NewKeySet(accesstoken.Key{ID: "x", Algorithm: "ES256"}); err == nil {
		t.Error("a Key without a public key is accepted")
	}
	var none *accesstoken.KeySet
	if _, ok := none.Key("x"); ok || none.Len() != 0 {
		t.Error("nil is not an empty set")
	}
	if empty, err := accesstoken.NewKeySet(); err != nil || marshal(t, empty) != `{"keys":[]}` {
		t.Errorf("an empty set is %s, %v", marshal(t, empty), err)
	}
}

func TestParseKeySet(t *testing.T) {
	a := marshal(t, pairs()["ES256"].Key)
	b := marshal(t, pairs()["other"].Key)
	foreign := `{"kty":"AKP","alg":"ML-DSA-65","kid":"pq","pub":"AAAA"},{"kty":"OKP","crv":"X448","x":"AAAA","kid":"x"},` +
		`{"kty":"RSA","use":"enc","kid":"e","n":"AQ","e":"AQAB"},` + strings.Replace(a, `"kid":"ES256",`, ``, 1)
	for name, c := range map[string]struct {
		data string
		want int // keys; -1: an error
	}{
		"empty":                          {`{"keys":[]}`, 0},
		"foreign keys are passed over":   {`{"keys":[` + foreign + `,` + a + `],"more":1}`, 1},
		"the same key twice":             {`{"keys":[` + a + `,` + a + `]}`, 1},
		"one kid for two keys":           {`{"keys":[` + a + `,` + strings.Replace(b, `"other"`, `"ES256"`, 1) + `]}`, -1},
		"a private key":                  {`{"keys":[` + a + `,` + strings.Replace(b, `{`, `{"d":"AAAA",`, 1) + `]}`, -1},
		"a broken key":                   {`{"keys":[` + a + `,{"kty":"EC","crv":"P-256","kid":"x","x":"AAAA","y":"AAAA"}]}`, -1},
		"a key without kty":              {`{"keys":[{}]}`, -1},
		"a key that is a string":         {`{"keys":["x"]}`, -1},
		"keys missing":                   {`{}`, -1},
		"keys is an object":              {`{"keys":{}}`, -1},
		"KEYS":                           {`{"KEYS":[` + a + `]}`, -1},
		"keys twice":                     {`{"keys":[],"keys":[` + a + `]}`, -1},
		"a page of HTML":                 {`<html>`, -1},
		"nothing":                        {``, -1},
		"something behind":               {`{"keys":[]} x`, -1},
		"longer than any key set can be": {`{"keys":[]}` + strings.Repeat(" ", accesstoken.MaxKeySetLength), -1},
	} {
		s, err := accesstoken.ParseKeySet([]byte(c.data))
		if (err != nil) != (c.want < 0) || err == nil && s.Len() != c.want {
			t.Errorf("%s: %v, %v", name, s.Keys(), err)
		}
	}
}
