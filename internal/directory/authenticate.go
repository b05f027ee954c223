package directory

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/store"
)

// Authenticate returns the user whose name and password these are, or
// ErrInvalidCredentials. A name that nobody has, a disabled user, and one without a
// password cost what a wrong password costs: one query and one hash. It returns
// password.ErrBusy when too many logins come at once.
func (s *Service) Authenticate(ctx context.Context, username, plain string) (store.User, error) {
	user, err := s.candidate(ctx, username)
	if err != nil {
		return store.User{}, fault(err)
	}
	prepared, err := password.Prepare(plain)
	usable := err == nil && !user.Disabled

	hash := user.PasswordHash
	if err := password.CheckHash(hash); hash != "" && err != nil {
		s.Logger.ErrorContext(ctx, "the stored password hash of a user cannot be used; set a new password", "user", user.ID, "error", err)
		hash = ""
	}
	match, err := s.Hasher.Verify(ctx, prepared, hash)
	if err != nil {
		return store.User{}, hashFault(err)
	}
	if !match || !usable {
		return store.User{}, ErrInvalidCredentials
	}
	return shown(s.rehash(ctx, user, prepared)), nil
}

// candidate is who has the name, or nobody: a user without an id or a password.
func (s *Service) candidate(ctx context.Context, username string) (store.User, error) {
	key, err := names.UsernameKey(username)
	if err != nil {
		return store.User{}, nil
	}
	user, err := s.Store.UserByName(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, nil
	}
	return user, err
}

// rehash keeps the password at today's cost. When that fails it is tried again at
// the next login.
func (s *Service) rehash(ctx context.Context, user store.User, prepared string) store.User {
	if !s.Hasher.Outdated(user.PasswordHash) {
		return user
	}
	hash, err := s.Hasher.Hash(ctx, prepared)
	if err == nil {
		renewed := user
		renewed.PasswordHash = hash
		if err = s.Store.UpdateUser(ctx, renewed); err == nil {
			renewed.Version++
			return renewed
		}
	}
	s.Logger.WarnContext(ctx, "a password could not be hashed anew", "user", user.ID, "error", err)
	return user
}

// ClaimsOf are the user's claims as a token carries them: by short name, the
// values of several groups joined with a comma, in a stable order.
func (s *Service) ClaimsOf(ctx context.Context, userID string) (map[string]string, error) {
	claims, err := s.Store.ClaimsOfUser(ctx, userID)
	if err != nil {
		return nil, fault(err)
	}
	return joined(claims), nil
}

// Subject returns a user, and what ClaimsOf returns, both as of one moment;
// store.ErrNotFound when the user is gone.
func (s *Service) Subject(ctx context.Context, userID string) (store.User, map[string]string, error) {
	user, claims, err := s.Store.UserWithClaims(ctx, userID)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, nil, err
	}
	if err != nil {
		return store.User{}, nil, fault(err)
	}
	return shown(user), joined(claims), nil
}

// joined makes a token's members of claims, which the store has in order.
func joined(claims []store.Claim) map[string]string {
	values := make(map[string][]string)
	for _, c := range claims {
		values[c.ShortName] = append(values[c.ShortName], c.Value)
	}
	members := make(map[string]string, len(values))
	for name, all := range values {
		members[name] = strings.Join(slices.Compact(all), ",")
	}
	return members
}
