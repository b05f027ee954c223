package grpcverify_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/grpcverify"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// A guard takes tokens of a secret that its Verifier has, and ends a stream when the secret
// was revoked.
func TestGuardWithASecret(t *testing.T) {
	const secret = "a secret that the replicas and this service share"
	w := newWorld(t, func(v *verify.Verifier) *grpcverify.Guard { return grpcverify.New(v) }, secret)
	sign := func(secret string) (compact, kid string) {
		s, err := token.NewSecretSigner(secret, accesstoken.HS256)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		compact, err = s.Sign(token.Access{
			Issuer: w.issuer.URL, Audience: []string{verifytest.Audience}, Subject: "u", ClientID: token.FirstParty, ID: "t", SessionID: "s",
			IssuedAt: now, NotBefore: now, ExpiresAt: now.Add(time.Minute),
		})
		if err != nil {
			t.Fatal(err)
		}
		return compact, s.KeyID()
	}
	good, kid := sign(secret)
	if got, err := w.call("/ship.Log/Read", "Bearer "+good); err != nil || got != "u" {
		t.Errorf("answered %q, %v", got, err)
	}
	other, _ := sign("another secret of thirty-two bytes or more")
	_, err := w.call("/ship.Log/Read", "Bearer "+other)
	w.want(err, codes.Unavailable, "key_set_unavailable") // the key set was fetched a moment ago
	stream := w.stream("/ship.Log/Follow", "Bearer "+good)
	if got, err := exchange(stream); err != nil || got != "u" {
		t.Fatalf("answered %q, %v", got, err)
	}
	w.issuer.Revoke(revoked.Key, kid)
	w.awaitRevoked(good)
	_, err = exchange(stream)
	w.want(err, codes.Unauthenticated, "token_revoked")
}
