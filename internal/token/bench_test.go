package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
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

// BenchmarkSecretSign: what a token costs by a shared secret, over the bare HMAC of the same bytes.
func BenchmarkSecretSign(b *testing.B) {
	const secret = "a secret of 64 bytes or more, which is long enough for every HMAC"
	for alg, hash := range map[string]crypto.Hash{accesstoken.HS256: crypto.SHA256, accesstoken.HS384: crypto.SHA384, accesstoken.HS512: crypto.SHA512} {
		b.Run(alg, func(b *testing.B) {
			s, err := token.NewSecretSigner(secret, alg)
			if err != nil {
				b.Fatal(err)
			}
			c := someClaims(time.Now())
			compact, err := s.Sign(c)
			if err != nil {
				b.Fatal(err)
			}
			input := []byte(signingInput(compact))
			paired(b, func() {
				h := hmac.New(hash.New, []byte(secret))
				h.Write(input)
				h.Sum(nil)
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

// BenchmarkVerify: what it costs the server to check a token, by its rules and by
// its view of the revocations, over the verification of the signature alone, of the
// same bytes.
func BenchmarkVerify(b *testing.B) {
	empty, full := viewOf(b, 0), viewOf(b, 1_000_000)
	for _, alg := range accesstoken.Algorithms() {
		b.Run(alg+"/revocations=0", func(b *testing.B) { benchmarkVerify(b, alg, empty) })
		b.Run(alg+"/revocations=1000000", func(b *testing.B) { benchmarkVerify(b, alg, full) })
	}
}

func benchmarkVerify(b *testing.B, alg string, view *revocation.View) {
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
		t, err := rules.Check(compact, time.Now(), set.Find)
		if err != nil {
			b.Fatal(err)
		}
		if err := view.Check(b.Context(), t); err != nil {
			b.Fatal(err)
		}
	})
}

// viewOf is a fresh view of a log of n lines of all kinds.
func viewOf(b *testing.B, n int) *revocation.View {
	log := &lines{all: make([]store.Revocation, n)}
	for i := range n {
		kind := []revoked.Kind{revoked.Token, revoked.Session, revoked.User, revoked.Key}[i%4]
		r := store.Revocation{Seq: int64(i + 1), Kind: string(kind), Subject: strconv.Itoa(i), ExpiresAt: time.Now().Add(time.Hour)}
		if kind == revoked.User {
			r.Epoch = 1
		}
		log.all[i] = r
	}
	view, err := revocation.NewView(revocation.Config{
		Store: log, Poll: time.Second, MaxStaleness: time.Hour, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := view.Refresh(b.Context()); err != nil {
		b.Fatal(err)
	}
	if seq, _ := view.Confirmed(); seq != int64(n) {
		b.Fatalf("the view knows %d of %d lines", seq, n)
	}
	log.all = nil // it is not read again, and a server's is not in its memory
	return view
}

// lines are a revocation log that is only read.
type lines struct {
	store.Revocations
	all []store.Revocation
}

func (l *lines) RevocationsAfter(_ context.Context, after int64, limit int) ([]store.Revocation, store.LogHead, error) {
	rest := l.all[after:]
	return rest[:min(limit, len(rest))], store.LogHead{ID: "log", Seq: int64(len(l.all)), Now: time.Now()}, nil
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
