package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// This file and vectors_cases_test.go make the test vectors in testdata/verifier. What a
// verifier has to do with each is written here by hand; nothing is taken from what package
// verify does.

const (
	vectorIssuer   = "https://auth.example"
	vectorAudience = "https://api.example"
	vectorNow      = 1_800_000_000
	// vectorSecret is long enough for HS256, HS384 and HS512. Like the private keys, it is
	// public: it signs nothing but these vectors.
	vectorSecret = "a shared secret of the test vectors, which is public and long enough"
)

// obj is JSON to be. Its members are written in the order of their names.
type obj = map[string]any

// A signer has the private keys of the vectors. All of them are public: the elliptic ones are
// derived from their names, and the RSA key is testdata/verifier/rsa.pem. Signatures are
// deterministic, so that recording again changes nothing.
type signer struct {
	t       testing.TB
	private map[string]crypto.Signer // by kid
	set     []obj                    // the public keys, as JWKs
}

func newSigner(t testing.TB) *signer {
	s := &signer{t: t, private: map[string]crypto.Signer{}}
	for _, k := range []struct {
		kid, alg string
		curve    elliptic.Curve
	}{
		{"es256", accesstoken.ES256, elliptic.P256()},
		{"es256-other", accesstoken.ES256, elliptic.P256()},
		{"es384", accesstoken.ES384, elliptic.P384()},
		{"es512", accesstoken.ES512, elliptic.P521()},
	} {
		size := (k.curve.Params().BitSize + 7) / 8
		scalar := make([]byte, size)
		sum := sha256.Sum256([]byte("watchword test vectors: " + k.kid))
		copy(scalar[size-31:], sum[:31]) // surely less than the order of the curve
		private, err := ecdsa.ParseRawPrivateKey(k.curve, scalar)
		if err != nil {
			t.Fatal(err)
		}
		s.add(k.kid, k.alg, private)
	}
	seed := sha256.Sum256([]byte("watchword test vectors: eddsa"))
	s.add("eddsa", accesstoken.EdDSA, ed25519.NewKeyFromSeed(seed[:]))
	data, err := os.ReadFile(filepath.Join(vectorDirectory, "rsa.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	s.add("rs256", accesstoken.RS256, private.(crypto.Signer))
	s.add("ps256", accesstoken.PS256, private.(crypto.Signer))
	return s
}

func (s *signer) add(kid, alg string, private crypto.Signer) {
	key, err := accesstoken.NewKey(kid, alg, private.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := json.Marshal(key)
	if err != nil {
		s.t.Fatal(err)
	}
	var jwk obj
	if err := json.Unmarshal(text, &jwk); err != nil {
		s.t.Fatal(err)
	}
	s.private[kid] = private
	s.set = append(s.set, jwk)
}

// jwk returns the public key of that kid, with some members replaced; nil takes one out.
func (s *signer) jwk(kid string, change obj) obj {
	for _, k := range s.set {
		if k["kid"] == kid {
			return with(k, change)
		}
	}
	s.t.Fatalf("no key %q", kid)
	return nil
}

// with returns a copy with some members replaced; nil takes one out.
func with(o, change obj) obj {
	c := obj{}
	for name, v := range o {
		c[name] = v
	}
	for name, v := range change {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

// zeros are the random bytes of the salt of a PS256 signature.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// signature signs with the method of alg, and the key of that kid.
func (s *signer) signature(alg, kid, input string) []byte {
	var hash crypto.Hash
	switch alg[2:] {
	case "256":
		hash = crypto.SHA256
	case "384":
		hash = crypto.SHA384
	case "512":
		hash = crypto.SHA512
	}
	if strings.HasPrefix(alg, "HS") {
		mac := hmac.New(hash.New, []byte(vectorSecret))
		mac.Write([]byte(input))
		return mac.Sum(nil)
	}
	private := s.private[kid]
	digest := []byte(input)
	if hash != 0 {
		h := hash.New()
		h.Write(digest)
		digest = h.Sum(nil)
	}
	var options crypto.SignerOpts = hash
	var random zeros
	switch key := private.(type) {
	case *ecdsa.PrivateKey:
		der, err := key.Sign(nil, digest, options) // RFC 6979
		if err != nil {
			s.t.Fatal(err)
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &rs); err != nil {
			s.t.Fatal(err)
		}
		size := (key.Params().BitSize + 7) / 8
		return accesstoken.CanonicalSignature(alg, append(rs.R.FillBytes(make([]byte, size)), rs.S.FillBytes(make([]byte, size))...))
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
	}
	signature, err := private.Sign(random, digest, options)
	if err != nil {
		s.t.Fatal(err)
	}
	return signature
}

// secretKid is the kid of the shared secret with an algorithm (docs/algorithms.md).
func (s *signer) secretKid(alg string) string {
	mac := hmac.New(sha256.New, []byte(vectorSecret))
	mac.Write([]byte("watchword signing secret 1: " + alg))
	return base64url(mac.Sum(nil)[:16])
}

// salted is a PS256 signature with a salt of so many bytes.
func (s *signer) salted(kid, input string, length int) []byte {
	digest := sha256.Sum256([]byte(input))
	signature, err := s.private[kid].Sign(zeros{}, digest[:], &rsa.PSSOptions{SaltLength: length, Hash: crypto.SHA256})
	if err != nil {
		s.t.Fatal(err)
	}
	return signature
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// raw is a text in place of the JSON of something.
type raw string

// text is JSON without escapes that nobody needs.
func (s *signer) text(v any) string {
	if raw, ok := v.(raw); ok {
		return string(raw)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// token signs a header and claims, each an obj or the text itself, with the method of alg.
func (s *signer) token(alg, kid string, header, claims any) string {
	input := base64url([]byte(s.text(header))) + "." + base64url([]byte(s.text(claims)))
	return input + "." + base64url(s.signature(alg, kid, input))
}

func vectorHeader(alg, kid string) obj { return obj{"alg": alg, "typ": "at+jwt", "kid": kid} }

func vectorClaims() obj {
	return obj{
		"iss": vectorIssuer, "aud": vectorAudience, "sub": "user-1", "client_id": "watchword",
		"jti": "token-1", "sid": "session-1", "epoch": 7,
		"iat": vectorNow - 60, "exp": vectorNow + 600,
	}
}

// usual is a token of the key es256 with some claims replaced.
func (s *signer) usual(change obj) string {
	return s.token("ES256", "es256", vectorHeader("ES256", "es256"), with(vectorClaims(), change))
}

// A vectorFile is a file of vectors: members of the whole file, and its cases.
type vectorFile struct {
	name  string
	about string
	top   obj
	cases []any
}

// write lays a file out so that a change of one case, or of one step, changes one line.
func (f vectorFile) bytes(s *signer) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n\"about\": %s,\n", s.text(f.about))
	for _, name := range []string{"config", "now", "start", "secrets", "key_set"} {
		if v, ok := f.top[name]; ok {
			fmt.Fprintf(&b, "%q: %s,\n", name, s.text(v))
		}
	}
	b.WriteString("\"cases\": [\n")
	for i, c := range f.cases {
		text := s.text(c)
		if steps, ok := c.(overTime); ok {
			lines := make([]string, len(steps.Steps))
			for i, step := range steps.Steps {
				lines[i] = "  " + s.text(step)
			}
			steps.Steps = nil
			text = strings.TrimSuffix(s.text(steps), "\"steps\":null}") + "\"steps\":[\n" + strings.Join(lines, ",\n") + "\n]}"
		}
		b.WriteString(text)
		if i < len(f.cases)-1 {
			b.WriteString(",")
		}
		b.WriteString("\n")
	}
	b.WriteString("]\n}\n")
	return b.Bytes()
}

const vectorDirectory = "../testdata/verifier"
