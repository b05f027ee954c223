package directory

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
)

var (
	errOwnPassword = problem.New(problem.Denied, "own_password",
		"change your own password with PUT /api/me/password, which asks for the present one")
	errSamePassword = problem.New(problem.Invalid, "password_unchanged", "the new password is the present one")
)

// ChangeOwnPassword gives the actor another password, if current is the present one, and
// returns the actor as a user afterwards. It ends the actor's sessions and revokes the
// actor's tokens. It needs a token for this service's API, and no permission. epoch is that of the token with which the actor
// came.
//
// A wrong password is ErrInvalidCredentials, and costs and counts what it does at a login. If the
// password or the actor is changed while it is being checked, the call changes nothing:
// revocation.ErrRevoked if the actor's token was revoked, otherwise ErrChangedMeanwhile.
func (s *Service) ChangeOwnPassword(ctx context.Context, actor Actor, epoch int64, current, next string) (store.User, error) {
	const action = "user.password"
	if err := actor.atHome(); err != nil {
		return store.User{}, err
	}
	prepared, err := password.PrepareNew(next)
	if err != nil {
		return store.User{}, err
	}
	before, err := s.Store.User(ctx, actor.ID)
	if errors.Is(err, store.ErrNotFound) { // deleted since the token was verified
		return store.User{}, revocation.ErrRevoked
	}
	if err != nil {
		return store.User{}, fault(err)
	}
	ctx = password.From(ctx, password.Source{Address: actor.Address, Account: before.NameKey})
	attempt, err := s.Limits.Attempt(ctx, limit.Login, actor.Address, limit.Account(before.NameKey))
	if err != nil {
		return store.User{}, err
	}
	old, err := s.verify(ctx, attempt, before, current)
	if err != nil {
		return store.User{}, err
	}
	if err := attempt.Succeeded(ctx); err != nil {
		return store.User{}, err
	}
	if prepared == old {
		return store.User{}, errSamePassword
	}
	hash, err := s.hash(ctx, prepared)
	if err != nil {
		return store.User{}, err
	}
	var u store.User
	err = s.change(ctx, actor, own, action, actor.ID, func(c *change) (err error) {
		if u, err = c.r.User(ctx, actor.ID); err != nil {
			return err
		}
		switch {
		case epoch < u.SessionEpoch: // u.Epoch may be a floor, which revokes nothing
			return revocation.ErrRevoked
		case u.PasswordHash != before.PasswordHash:
			return ErrChangedMeanwhile
		}
		found := u
		u.PasswordHash = hash
		if err := c.updateUser(ctx, found, &u); err != nil {
			return err
		}
		if err := c.revoke(ctx, u.ID, true, "password_changed"); err != nil {
			return err
		}
		u.Epoch = c.revocations[0].Epoch
		u.SessionEpoch = u.Epoch
		return c.note(ctx, action, u.ID, "by the user")
	})
	return withoutHash(u), err
}
