package mfa

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// RecoveryFor is how long a recovery token is good where nothing is said; MinRecovery and
// MaxRecovery bound what may be said.
const (
	RecoveryFor = time.Hour
	MinRecovery = time.Minute
	MaxRecovery = 7 * 24 * time.Hour
)

var (
	errInvalidRecovery = problem.New(problem.Unauthenticated, "invalid_recovery_token", "this recovery token has been used, replaced, or has expired; ask your administrator for another one")
	errOwnRecovery     = problem.New(problem.Denied, "own_recovery", "a recovery token is for somebody else; change your own password with PUT /api/me/password")
	errDisabled        = problem.New(problem.Conflict, "user_disabled", "this user is disabled, and could not use a recovery token; enable the user first")
	errRecoveryTime    = problem.New(problem.Invalid, "invalid_request", "a recovery token is good for one minute to seven days")
)

// A Recovery is a secret with which a user gets back into their account, once.
type Recovery struct {
	Token     string
	ExpiresAt time.Time
}

// IssueRecovery makes a recovery token for a user, named by id or name, in the place of the one
// before. It needs UsersWrite and all rights of the user. The user's factors stay if keep is
// true.
func (s *Service) IssueRecovery(ctx context.Context, actor directory.Actor, user string, keep bool, life time.Duration) (Recovery, error) {
	if life == 0 {
		life = RecoveryFor
	}
	if life < MinRecovery || life > MaxRecovery {
		return Recovery{}, errRecoveryTime
	}
	var issued Recovery
	err := s.People.ChangeFactors(ctx, actor, user, "user.recovery", false, func(r store.Records, u store.User) (string, error) {
		if u.ID == actor.ID { // whose password would then be changed without the present one
			return "", errOwnRecovery
		}
		if u.Disabled {
			return "", errDisabled
		}
		rights, err := rightsOf(ctx, r, u.ID)
		if err != nil {
			return "", err
		}
		rows, err := r.FactorsOfUser(ctx, u.ID)
		if err != nil {
			return "", err
		}
		for _, f := range rows {
			if f.Kind != kindRecovery {
				continue
			}
			if err := r.DeleteFactor(ctx, f.ID); err != nil {
				return "", err
			}
		}
		issued.ExpiresAt = s.Now().Add(life).Truncate(time.Second)
		if issued.Token, err = s.newToken(u.ID); err != nil {
			return "", err
		}
		return "until " + issued.ExpiresAt.UTC().Format(time.RFC3339),
			create(ctx, s, r, u.ID, kindRecovery, digest(issued.Token), recoveryContent{Expires: issued.ExpiresAt, KeepFactors: keep, Rights: rights, SessionEpoch: u.SessionEpoch}, errAlreadyEnrolled)
	})
	return issued, err
}

// Recover spends a recovery token: it gives the user another password, removes their factors
// unless they are to stay, ends their sessions and revokes their tokens, all or nothing. Of
// several calls with one token exactly one succeeds.
func (s *Service) Recover(ctx context.Context, token, password, address string) error {
	if err := s.Limits.Count(ctx, limit.Login, address, ""); err != nil {
		return err
	}
	owner := ownerOf(token)
	if owner == "" {
		return errInvalidRecovery
	}
	// First, so that nobody makes this service hash passwords for a token that is none.
	if _, _, err := s.recovery(ctx, s.Store, owner, token); err != nil {
		return unavailable(err)
	}
	err := s.People.Recover(ctx, owner, address, password, func(r store.Records, u store.User) (string, error) {
		f, content, err := s.recovery(ctx, r, owner, token)
		if err != nil {
			return "", err
		}
		// Who got back in otherwise, and has changed the password, has an end of it. And
		// somebody who might issue it for the user as the user was then may not do so now.
		rights, err := rightsOf(ctx, r, u.ID)
		if err != nil {
			return "", err
		}
		if u.Disabled || u.SessionEpoch != content.SessionEpoch || !slices.Equal(rights, content.Rights) {
			return "", errInvalidRecovery
		}
		if err := r.DeleteFactor(ctx, f.ID); err != nil {
			return "", err
		}
		if content.KeepFactors {
			return "the factors stay", nil
		}
		_, err = s.removal(ctx, "", func(store.Factor) bool { return true })(r, u)
		if errors.Is(err, errNotEnrolled) {
			err = nil
		}
		return "the factors were removed", err
	})
	if errors.Is(err, directory.ErrUserNotFound) { // deleted since the row was read
		return errInvalidRecovery
	}
	return err
}

// rightsOf returns a digest of what a user's claims are.
func rightsOf(ctx context.Context, r store.Records, userID string) ([]byte, error) {
	claims, err := r.ClaimsOfUser(ctx, userID)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	for _, c := range claims { // which are in a fixed order
		fmt.Fprintf(h, "%q=%q\n", c.ShortName, c.Value)
	}
	return h.Sum(nil), nil
}

// recovery returns the row of a recovery token that is still good.
func (s *Service) recovery(ctx context.Context, r store.Records, owner, token string) (store.Factor, recoveryContent, error) {
	f, err := r.FactorByDigest(ctx, kindRecovery, digest(token))
	if errors.Is(err, store.ErrNotFound) || err == nil && f.UserID != owner {
		return f, recoveryContent{}, errInvalidRecovery
	}
	if err != nil {
		return f, recoveryContent{}, err
	}
	one, err := opened[recoveryContent](s, f)
	if err != nil {
		return f, recoveryContent{}, err
	}
	if !s.Now().Before(one.Content.Expires) {
		return f, recoveryContent{}, errInvalidRecovery
	}
	return f, one.Content, nil
}
