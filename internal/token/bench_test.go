package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
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

// paired times two functions in turn, so that whatever else the machine does
// meets both, and reports the medians and their ratio.
func paired(b *testing.B, bare, ours func()) {
	var bares, all []time.Duration
	for b.Loop() {
		began := time.Now()
		bare()
		between := time.Now()
		ours()
		bares, all = append(bares, between.Sub(began)), append(all, time.Since(between))
	}
	slices.Sort(bares)
	slices.Sort(all)
	theirs, own := bares[len(bares)/2], all[len(all)/2]
	b.ReportMetric(float64(theirs.Nanoseconds()), "bare-ns")
	b.ReportMetric(float64(own.Nanoseconds()), "token-ns")
	b.ReportMetric(float64(own)/float64(theirs), "x-bare")
	b.ReportMetric(0, "ns/op") // of both together: means nothing
}

// BenchmarkSign: what a token costs over the signature alone, of the same bytes.
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
			paired(b, func() {
				if err := bareSign(alg, key, input); err != nil {
					b.Fatal(err)
				}
			}, func() {
				if _, err := s.Sign(c); err != nil {
					b.Fatal(err)
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

// BenchmarkVerify: what it costs to check a token, revocations included, over the
// verification of the signature alone, of the same bytes.
func BenchmarkVerify(b *testing.B) {
	full := revocations(b, 1_000_000)
	for _, alg := range accesstoken.Algorithms() {
		for name, list := range map[string]*revoked.List{"revocations=0": {}, "revocations=1000000": full} {
			b.Run(alg+"/"+name, func(b *testing.B) { benchmarkVerify(b, alg, list) })
		}
	}
}

func benchmarkVerify(b *testing.B, alg string, list *revoked.List) {
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
	paired(b, func() {
		if !bareVerify(alg, s.Public().Public, input, signature) {
			b.Fatal("refused")
		}
	}, func() {
		t, err := rules.Check(compact, now, set.Find)
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := list.Revoked(t); ok {
			b.Fatal("revoked")
		}
	})
}

// revocations is a list of n entries of all kinds.
func revocations(b *testing.B, n int) *revoked.List {
	list := &revoked.List{}
	for i := range n {
		kind := []revoked.Kind{revoked.Token, revoked.Session, revoked.User, revoked.Key}[i%4]
		e := revoked.Entry{Seq: int64(i + 1), Kind: kind, ID: revoked.Digest(kind, strconv.Itoa(i)), ExpiresAt: time.Now().Add(time.Hour).Unix()}
		if kind == revoked.User {
			e.Epoch = 1
		}
		if err := list.Apply(e); err != nil {
			b.Fatal(err)
		}
	}
	return list
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
