package login

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A token that was accepted a moment ago is asked against its key, the revocations, the
// audience and the time as one that comes for the first time.
func TestATokenThatComesAgainIsAskedAgain(t *testing.T) {
	gone := func(s *Service, err error) {
		s.Key = func(string) (accesstoken.Key, error) { return accesstoken.Key{}, err }
	}
	away := problem.New(problem.Unavailable, "keys_unavailable", "the keys cannot be asked")
	for name, c := range map[string]struct {
		happens func(t *testing.T, s *Service, tok *accesstoken.Token)
		want    string
	}{
		"nothing": {func(*testing.T, *Service, *accesstoken.Token) {}, "internal"}, // as From says of nil
		"logout": {func(t *testing.T, s *Service, tok *accesstoken.Token) {
			if err := s.logout(t.Context(), sessionOf(tok), Client{}); err != nil {
				t.Fatal(err)
			}
		}, "token_revoked"},
		"the token is revoked":   {revoking(revoked.Token, func(tok *accesstoken.Token) string { return tok.ID }), "token_revoked"},
		"the session is revoked": {revoking(revoked.Session, func(tok *accesstoken.Token) string { return tok.SessionID }), "token_revoked"},
		"the key is revoked":     {revoking(revoked.Key, func(tok *accesstoken.Token) string { return tok.KeyID }), "token_revoked"},
		"the user is revoked": {func(t *testing.T, s *Service, tok *accesstoken.Token) {
			entry := s.entry(revoked.User, tok.Subject, "", "revoked")
			entry.Epoch = tok.Epoch + 1
			if _, err := s.append(t.Context(), entry); err != nil {
				t.Fatal(err)
			}
		}, "token_revoked"},
		"the key is removed": {func(_ *testing.T, s *Service, _ *accesstoken.Token) { gone(s, accesstoken.ErrUnknownKey) }, "invalid_token"},
		"the key is removed, because it is revoked": {func(t *testing.T, s *Service, tok *accesstoken.Token) {
			revoking(revoked.Key, func(tok *accesstoken.Token) string { return tok.KeyID })(t, s, tok)
			gone(s, accesstoken.ErrUnknownKey)
		}, "token_revoked"},
		"the keys cannot be looked up": {func(_ *testing.T, s *Service, _ *accesstoken.Token) { gone(s, away) }, "keys_unavailable"},
		"another key has the name": {func(t *testing.T, s *Service, tok *accesstoken.Token) {
			public, _, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			other, err := accesstoken.NewKey(tok.KeyID, accesstoken.EdDSA, public)
			if err != nil {
				t.Fatal(err)
			}
			s.Key = func(string) (accesstoken.Key, error) { return other, nil }
		}, "invalid_token"},
		"it expires": {func(_ *testing.T, s *Service, tok *accesstoken.Token) {
			s.Now = func() time.Time { return tok.ExpiresAt }
		}, "token_expired"},
		"another audience is asked for": {func(_ *testing.T, s *Service, _ *accesstoken.Token) {
			s.Rules.Audience = []string{"b"}
		}, "invalid_token"},
	} {
		t.Run(name, func(t *testing.T) {
			with, _ := newService(t)
			step, err := with.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
			if err != nil {
				t.Fatal(err)
			}
			compact := step.Grant.AccessToken
			var tok *accesstoken.Token
			for range 3 {
				if tok, err = with.Verify(t.Context(), compact); err != nil {
					t.Fatal(err)
				}
				tok.Audience[0] = "changed" // by a caller, which is nothing to the next
			}
			if n := with.verified.Len(); n != 1 {
				t.Fatalf("%d tokens are remembered", n)
			}
			c.happens(t, with, tok)
			config := with.Config
			config.Registerer = prometheus.NewRegistry()
			without := New(config)
			without.verified = nil
			for who, s := range map[string]*Service{"with": with, "without": without} {
				_, err := s.Verify(t.Context(), compact)
				if got := problem.From(err).Code; got != c.want || (err == nil) != (name == "nothing") {
					t.Errorf("%s the memory: %v, want %s", who, err, c.want)
				}
			}
		})
	}
}

func revoking(kind revoked.Kind, name func(*accesstoken.Token) string) func(*testing.T, *Service, *accesstoken.Token) {
	return func(t *testing.T, s *Service, tok *accesstoken.Token) {
		if _, err := s.append(t.Context(), s.entry(kind, name(tok), "", "revoked")); err != nil {
			t.Fatal(err)
		}
	}
}

// What a peer accepts, clients may not use, also when the peer was first.
func TestWhatAPeerAcceptsIsNotAcceptedOfClients(t *testing.T) {
	s, _ := newService(t)
	signer, err := s.Keys.Signer()
	if err != nil {
		t.Fatal(err)
	}
	id, err := token.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	canary, err := signer.Sign(token.Access{
		Issuer: s.Issuer, Audience: []string{token.CanaryAudience}, Subject: adaID, ClientID: token.FirstParty, ID: id,
		IssuedAt: now, NotBefore: now, ExpiresAt: now.Add(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if ok, err := s.VerifyForPeer(t.Context(), canary); !ok || err != nil {
			t.Errorf("a peer: %v, %v", ok, err)
		}
		if _, err := s.Verify(t.Context(), canary); problem.From(err).Code != "invalid_token" {
			t.Errorf("a client: %v", err)
		}
	}
}

// A token that comes again costs no verification, which takes more allocations than all else.
func TestATokenThatComesAgainIsRecognised(t *testing.T) {
	s, _ := newService(t)
	step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
	if err != nil {
		t.Fatal(err)
	}
	verify := func() {
		if _, err := s.Verify(t.Context(), step.Grant.AccessToken); err != nil {
			t.Fatal(err)
		}
	}
	again := testing.AllocsPerRun(100, verify)
	s.verified = nil
	first := testing.AllocsPerRun(100, verify)
	if again > 10 || first < 4*again {
		t.Errorf("a token that comes again takes %v allocations, one that comes for the first time %v", again, first)
	}
}
