package directory

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/store"
)

// Authenticate returns the user whose name and password these are, or
// ErrInvalidCredentials. A name that nobody has, a disabled user, and one without a
// password cost what a wrong password costs: one query and one hash. With
// ErrInvalidCredentials it returns the id of the user who has the name, if there is one; the
// client must not learn of it. It returns password.ErrBusy or password.ErrFlood when too many
// logins come at once.
//
// The attempt is the one that was counted for the name. Authenticate says of it whether the
// password was right.
func (s *Service) Authenticate(ctx context.Context, attempt *limit.Attempt, username, plain string) (store.User, error) {
	user, err := s.candidate(ctx, username)
	if err != nil {
		return store.User{}, fault(err)
	}
	prepared, err := s.verify(ctx, attempt, user, plain)
	if err != nil {
		return store.User{ID: user.ID}, err
	}
	return withoutHash(s.rehash(ctx, user, prepared)), nil
}

// verify returns the prepared password if it is the user's, the user may log in and the
// attempt is accepted, otherwise ErrInvalidCredentials, which always costs one hash.
func (s *Service) verify(ctx context.Context, attempt *limit.Attempt, user store.User, plain string) (prepared string, err error) {
	prepared, err = password.Prepare(plain)
	usable := err == nil && !user.Disabled

	hash := user.PasswordHash
	if err := password.CheckHash(hash); hash != "" && err != nil {
		s.Logger.ErrorContext(ctx, "the stored password hash of a user cannot be used; set a new password", "user", user.ID, "err", err)
		hash = ""
	}
	match, err := s.Hasher.Verify(ctx, prepared, hash)
	if err != nil {
		return "", hashFault(err) // nothing was checked, and nothing is counted
	}
	accepted, err := attempt.Checked(ctx, match && usable, user.ID)
	if err != nil {
		return "", err
	}
	if !accepted {
		return "", ErrInvalidCredentials
	}
	return prepared, nil
}

// candidate returns the user of the name. If there is none, it is a user without an id or
// a password.
func (s *Service) candidate(ctx context.Context, username string) (store.User, error) {
	key, err := names.UsernameKey(username)
	if err != nil {
		return store.User{}, nil
	}
	user, err := UserNamed(ctx, s.Store, key)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, nil
	}
	return user, err
}

// rehash stores a new hash of the password if the old one was not made by Argon2id at today's cost.
// It does so only if the user is still as they were when the password was checked, so that a change
// of the password is never undone, and of several logins at once exactly one does. The login does not
// wait for a worker: among many logins the user, whose dear hash has just had one, would come last. When
// it fails, the next login tries again.
func (s *Service) rehash(ctx context.Context, user store.User, prepared string) store.User {
	if !s.Hasher.Outdated(user.PasswordHash) {
		return user
	}
	hash, err := s.Hasher.HashNow(ctx, prepared)
	if errors.Is(err, password.ErrNoWorker) {
		return user
	}
	if err == nil {
		renewed := user
		renewed.PasswordHash = hash
		switch err = s.Store.UpdateUser(ctx, renewed); {
		case err == nil:
			renewed.Version++
			return renewed
		case errors.Is(err, store.ErrStale): // another login has done it, or the user was changed
			return user
		}
	}
	s.Logger.WarnContext(ctx, "a password could not be hashed again at today's cost", "user", user.ID, "err", err)
	return user
}

// ClaimsOf returns the user's claims as a token carries them: by short name, with the
// values of several groups joined with commas, in a stable order.
func (s *Service) ClaimsOf(ctx context.Context, userID string) (map[string]string, error) {
	claims, err := s.Store.ClaimsOfUser(ctx, userID)
	if err != nil {
		return nil, fault(err)
	}
	return joined(claims), nil
}

// Subject returns a user and what ClaimsOf returns, both as of one moment, or
// store.ErrNotFound if there is no such user.
func (s *Service) Subject(ctx context.Context, userID string) (store.User, map[string]string, error) {
	if found, ok := store.SubjectWanted(ctx).Take(userID); ok {
		return withoutHash(found.User), joined(found.Claims), nil
	}
	user, claims, err := s.Store.UserWithClaims(ctx, userID)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, nil, err
	}
	if err != nil {
		return store.User{}, nil, fault(err)
	}
	return withoutHash(user), joined(claims), nil
}

// joined makes the members of a token from claims, which the store returns in order.
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
