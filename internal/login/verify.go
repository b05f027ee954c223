package login

import (
	"context"
	"errors"
	"slices"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var (
	// ErrInvalidToken: this cluster has not signed the token, or it has been changed.
	ErrInvalidToken = problem.New(problem.Unauthenticated, "invalid_token", "the access token is not valid")
	// ErrExpiredToken: it was valid once.
	ErrExpiredToken = problem.New(problem.Unauthenticated, "token_expired", "the access token has expired")
)

// Verify checks the signature and the claims of an access token, and that it is not
// revoked. It needs no network, unless revocation.check is shared. A revoked token is
// refused also by a view that is too old to accept one.
func (s *Service) Verify(ctx context.Context, compact string) (_ *accesstoken.Token, err error) {
	ctx, step := trace.Start(ctx, "verify")
	if step.On() {
		defer func() { step.End(err) }()
	}
	t, err := s.Signed(compact)
	if err != nil {
		return nil, err
	}
	if err := s.Live(ctx, t); err != nil {
		return nil, err
	}
	return t, nil
}

// Live is the second half of Verify: it returns an error if a token of Signed is revoked, or
// if that is not known.
func (s *Service) Live(ctx context.Context, t *accesstoken.Token) error {
	err := s.View.Check(ctx, t)
	s.metrics.count("verify", err)
	return err
}

// Signed is the first half of Verify: it checks the signature and the claims. The token may
// be revoked.
func (s *Service) Signed(compact string) (*accesstoken.Token, error) {
	t, err := s.signed(s.Rules, compact)
	if err != nil {
		s.metrics.count("verify", err)
	}
	return t, err
}

// VerifyForPeer reports whether Verify would accept a token. It accepts the tokens of the
// canary, too, whose audience nothing else accepts. The error means that neither is known. To
// be called for other replicas only, which may see such tokens.
func (s *Service) VerifyForPeer(ctx context.Context, compact string) (_ bool, err error) {
	ctx, step := trace.Start(ctx, "verify for a replica")
	defer func() { step.End(err) }()
	rules := s.Rules
	rules.Audience = append(slices.Clone(rules.Audience), token.CanaryAudience)
	t, err := s.signed(rules, compact)
	if err == nil {
		err = s.View.Check(ctx, t)
	}
	if err != nil && problem.From(err).Kind == problem.Unauthenticated {
		return false, nil
	}
	return err == nil, err
}

func (s *Service) signed(rules accesstoken.Rules, compact string) (*accesstoken.Token, error) {
	var kid string
	t, err := s.verified.Check(&rules, compact, s.Now(), func(id string) (accesstoken.Key, error) {
		kid = id
		return s.Key(id)
	})
	switch {
	case errors.Is(err, accesstoken.ErrUnknownKey) && s.View.KeyRevoked(kid):
		return nil, revocation.ErrRevoked.Because(err)
	case errors.Is(err, accesstoken.ErrExpired):
		return nil, ErrExpiredToken.Because(err)
	case notLookedUp(err):
		return nil, err
	case err != nil:
		return nil, ErrInvalidToken.Because(err)
	}
	return t.Own(), nil
}

// notLookedUp reports whether a token was not checked, because its key could not be looked
// up.
func notLookedUp(err error) bool { return problem.From(err).Kind == problem.Unavailable }
