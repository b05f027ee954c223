package login

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A peer gets the answer of Verify, and besides accepts the canary's tokens, which Verify
// refuses.
func TestVerifyForPeer(t *testing.T) {
	s, _ := newService(t)
	signer, err := s.Keys.Signer()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(audience string, age time.Duration) string {
		t.Helper()
		id, err := token.NewID(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		issued := time.Now().Add(-age)
		compact, err := signer.Sign(token.Access{
			Issuer: s.Issuer, Audience: []string{audience}, Subject: adaID, ClientID: token.FirstParty, ID: id,
			IssuedAt: issued, NotBefore: issued, ExpiresAt: issued.Add(time.Minute),
		})
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	revoke := func(compact string) string {
		t.Helper()
		rules := accesstoken.Rules{Issuer: s.Issuer, Audience: []string{"a", token.CanaryAudience}}
		tok, err := rules.Check(compact, time.Now(), s.Key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.append(t.Context(), s.entry(revoked.Token, tok.ID, adaID, "revoked")); err != nil {
			t.Fatal(err)
		}
		return compact
	}
	good := sign("a", 0)
	for name, c := range map[string]struct {
		compact             string
		forPeer, forClients bool
	}{
		"ours":              {good, true, true},
		"the canary's":      {sign(token.CanaryAudience, 0), true, false},
		"another service's": {sign("https://ships.example.com", 0), false, false},
		"the issuer's":      {sign("i", 0), false, false}, // which is none of the Rules here
		"an expired one":    {sign("a", time.Hour), false, false},
		"an expired canary": {sign(token.CanaryAudience, time.Hour), false, false},
		"a revoked one":     {revoke(sign("a", 0)), false, false},
		"a revoked canary":  {revoke(sign(token.CanaryAudience, 0)), false, false},
		"a damaged one":     {good[:len(good)-9] + "AAAAAAAAA", false, false},
		"something else":    {"canary", false, false},
	} {
		if got, err := s.VerifyForPeer(t.Context(), c.compact); got != c.forPeer || err != nil {
			t.Errorf("%s: for a peer %t, %v", name, got, err)
		}
		if _, err := s.Verify(t.Context(), c.compact); (err == nil) != c.forClients {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.Key = func(string) (accesstoken.Key, error) {
		return accesstoken.Key{}, problem.New(problem.Unavailable, "x", "x")
	}
	if got, err := s.VerifyForPeer(t.Context(), good); got || problem.From(err).Kind != problem.Unavailable {
		t.Errorf("a key that cannot be looked up: %t, %v", got, err)
	}
}
