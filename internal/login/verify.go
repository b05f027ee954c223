package login

import (
	"context"
	"errors"
	"slices"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/token"
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
func (s *Service) Verify(ctx context.Context, compact string) (*accesstoken.Token, error) {
	t, err := s.verify(ctx, s.Rules, compact)
	s.metrics.count("verify", err)
	return t, err
}

// VerifyForPeer reports whether Verify would accept a token. It accepts the tokens of the
// canary, too, whose audience nothing else accepts. The error means that neither is known. To
// be called for other replicas only, which may see such tokens.
func (s *Service) VerifyForPeer(ctx context.Context, compact string) (bool, error) {
	rules := s.Rules
	rules.Audience = append(slices.Clone(rules.Audience), token.CanaryAudience)
	_, err := s.verify(ctx, rules, compact)
	if err != nil && problem.From(err).Kind == problem.Unauthenticated {
		return false, nil
	}
	return err == nil, err
}

func (s *Service) verify(ctx context.Context, rules accesstoken.Rules, compact string) (*accesstoken.Token, error) {
	var kid string
	t, err := rules.Check(compact, s.Now(), func(id string) (accesstoken.Key, error) {
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
	if err := s.View.Check(ctx, t); err != nil {
		return nil, err
	}
	return t, nil
}

// notLookedUp reports whether a token was not checked, because its key could not be looked
// up.
func notLookedUp(err error) bool { return problem.From(err).Kind == problem.Unavailable }
