package cluster

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Verifying a token with the keys of fifty other replicas in the set, beside one
// key, in turns.
func BenchmarkVerifyWithPeers(b *testing.B) {
	c := &clock{}
	private, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		b.Fatal(err)
	}
	key := accesstoken.Key{Algorithm: accesstoken.ES256, Public: private.Public()}
	key.ID = "auth-0-" + key.Thumbprint()
	signer, err := token.NewSigner(key.ID, accesstoken.ES256, private)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	compact, err := signer.Sign(token.Access{ClientID: token.FirstParty, Issuer: "i", Subject: "s", Audience: []string{"a"}, ID: "j", IssuedAt: now, ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		b.Fatal(err)
	}
	replica := func(peers int) *Cluster {
		r := openRegistry(b)
		for range peers {
			create(b, r, row(b, now, "auth-1", accesstoken.ES256))
		}
		cl, err := Join(b.Context(), config(r, c, "auth-0"))
		if err != nil {
			b.Fatal(err)
		}
		own := &keys{}
		set, err := accesstoken.NewKeySet(signer.Public())
		if err != nil {
			b.Fatal(err)
		}
		own.set.Store(set)
		cl.Serve(own)
		if n := cl.Keys().Len(); n != peers+1 {
			b.Fatalf("%d keys", n)
		}
		return cl
	}
	alone, many := replica(0), replica(50)
	rules := accesstoken.Rules{Issuer: "i", Audience: []string{"a"}}
	const checks = 200
	measure := func(cl *Cluster) time.Duration {
		began := time.Now()
		for range checks {
			if _, err := rules.Check(compact, now, cl.Find); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began)
	}
	var ratios []float64
	for b.Loop() {
		one := measure(alone)
		ratios = append(ratios, float64(measure(many))/float64(one))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
}
