package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// hash is what alg hashes with; zero for EdDSA.
func hash(alg string) crypto.Hash {
	return map[string]crypto.Hash{
		accesstoken.ES256: crypto.SHA256, accesstoken.ES384: crypto.SHA384, accesstoken.ES512: crypto.SHA512,
		accesstoken.RS256: crypto.SHA256, accesstoken.PS256: crypto.SHA256,
	}[alg]
}

func digest(alg string, input []byte) []byte {
	h := hash(alg)
	if h == 0 {
		return input
	}
	d := h.New()
	d.Write(input)
	return d.Sum(nil)
}

// BenchmarkSign/<alg>/token against BenchmarkSign/<alg>/bare: what a token costs
// over the signature alone, of the same bytes.
func BenchmarkSign(b *testing.B) {
	for _, alg := range accesstoken.Algorithms() {
		b.Run(alg, func(b *testing.B) {
			s, key := newSigner(b, alg)
			c := someClaims(time.Now())
			compact, err := s.Sign(c)
			if err != nil {
				b.Fatal(err)
			}
			input := []byte(signingInput(compact))
			b.Run("bare", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := bareSign(alg, key, input); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("token", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Sign(c); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func bareSign(alg string, key crypto.Signer, input []byte) (err error) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		_, err = ecdsa.SignASN1(rand.Reader, k, digest(alg, input))
	case ed25519.PrivateKey:
		ed25519.Sign(k, input)
	case *rsa.PrivateKey:
		if alg == accesstoken.PS256 {
			_, err = rsa.SignPSS(rand.Reader, k, crypto.SHA256, digest(alg, input), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			_, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, digest(alg, input))
		}
	}
	return err
}

// BenchmarkVerify/<alg>/token against BenchmarkVerify/<alg>/bare.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range accesstoken.Algorithms() {
		b.Run(alg, func(b *testing.B) {
			s, _ := newSigner(b, alg)
			now := time.Now()
			compact, err := s.Sign(someClaims(now))
			if err != nil {
				b.Fatal(err)
			}
			set, err := accesstoken.NewKeySet(s.Public())
			if err != nil {
				b.Fatal(err)
			}
			input, signature := []byte(signingInput(compact)), signatureOf(b, compact)
			if alg == accesstoken.ES256 || alg == accesstoken.ES384 || alg == accesstoken.ES512 {
				signature = asn1Of(b, signature)
			}
			b.Run("bare", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if !bareVerify(alg, s.Public().Public, input, signature) {
						b.Fatal("refused")
					}
				}
			})
			b.Run("token", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := rules.Check(compact, now, set.Find); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func bareVerify(alg string, pub crypto.PublicKey, input, signature []byte) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest(alg, input), signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, input, signature)
	case *rsa.PublicKey:
		if alg == accesstoken.PS256 {
			return rsa.VerifyPSS(k, crypto.SHA256, digest(alg, input), signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest(alg, input), signature) == nil
	}
	return false
}
