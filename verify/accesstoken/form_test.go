package accesstoken_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// otherForm returns the token with the signature (r, n−s) for (r, s).
func otherForm(t *testing.T, k accesstoken.Key, compact string) string {
	t.Helper()
	at := strings.LastIndexByte(compact, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(compact[at:])
	if err != nil {
		t.Fatal(err)
	}
	s := signature[len(signature)/2:]
	n := k.Public.(*ecdsa.PublicKey).Params().N
	new(big.Int).Sub(n, new(big.Int).SetBytes(s)).FillBytes(s)
	return compact[:at] + encode(signature)
}

// Anybody can make the second form of an ECDSA signature. A token has only the first one.
func TestTheSecondFormOfASignatureIsRefused(t *testing.T) {
	for _, alg := range []string{accesstoken.ES256, accesstoken.ES384, accesstoken.ES512} {
		k := pairs()[alg]
		for range 8 { // half of all signatures come in the second form from the key
			issued := signRaw(t, k, alg, marshal(t, header(alg)), marshal(t, claims()))
			if _, err := rules.Check(issued, now, find); err != nil {
				t.Fatalf("%s: as issued: %v", alg, err)
			}
			changed := otherForm(t, k.Key, issued)
			if _, err := rules.Check(changed, now, find); !errors.Is(err, accesstoken.ErrMalformed) {
				t.Errorf("%s: in the second form: %v", alg, err)
			}
			if in := rules.Inspect(changed, now, find); len(in.Faults) != 1 || !errors.Is(in.Faults[0], accesstoken.ErrMalformed) {
				t.Errorf("%s: Inspect finds %v", alg, in.Faults)
			}
			// It is good by RFC 7515: nothing else is wrong with it.
			if _, err := k.VerifySignature(changed); err != nil {
				t.Errorf("%s: as a JWS: %v", alg, err)
			}
		}
	}
}

func TestCanonicalSignature(t *testing.T) {
	n := pairs()["ES256"].Public.(*ecdsa.PublicKey).Params().N
	half := new(big.Int).Rsh(n, 1) // n is odd: half and half+1 are each other's second forms
	r := bytes.Repeat([]byte{7}, 32)
	with := func(s *big.Int) []byte { return append(bytes.Clone(r), s.FillBytes(make([]byte, 32))...) }
	one := big.NewInt(1)
	for name, c := range map[string]struct {
		alg      string
		in, want []byte
	}{
		"the smallest s":            {"ES256", with(one), with(one)},
		"the greatest s":            {"ES256", with(new(big.Int).Sub(n, one)), with(one)},
		"the greatest that is kept": {"ES256", with(half), with(half)},
		"one more":                  {"ES256", with(new(big.Int).Add(half, one)), with(half)},
		"s is the order":            {"ES256", with(n), with(n)},
		"s is 0":                    {"ES256", with(new(big.Int)), with(new(big.Int))},
		"too short":                 {"ES256", r, r},
		"of another curve":          {"ES384", with(new(big.Int).Sub(n, one)), with(new(big.Int).Sub(n, one))},
		"of another algorithm":      {"EdDSA", with(new(big.Int).Sub(n, one)), with(new(big.Int).Sub(n, one))},
		"empty":                     {"ES512", nil, nil},
	} {
		was := bytes.Clone(c.in)
		if got := accesstoken.CanonicalSignature(c.alg, c.in); !bytes.Equal(got, c.want) || !bytes.Equal(c.in, was) {
			t.Errorf("%s: %x, want %x", name, got, c.want)
		}
	}
}
