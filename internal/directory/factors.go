package directory

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
)

// A FactorChange is what a change of a user's second factors writes, in the transaction that
// authorizes it. It returns what the audit trail says of it. It may be called several times.
type FactorChange func(r store.Records, u store.User) (detail string, err error)

// MayChangeOwn returns nil if the actor may change by what they authenticate, as
// ChangeOwnFactors does.
func (s *Service) MayChangeOwn(ctx context.Context, actor Actor) error {
	return s.Authorize(ctx, actor, ownFresh)
}

// ChangeOwnFactors changes the actor's second factors, and returns the actor as a user
// afterwards. It needs a token for this service's API, of a login that is not longer ago than
// Config.FreshFor, and no permission. epoch is that of the token. With end, the actor's
// sessions end and the actor's tokens are revoked.
func (s *Service) ChangeOwnFactors(ctx context.Context, actor Actor, epoch int64, action string, end bool, f FactorChange) (store.User, error) {
	var u store.User
	err := s.change(ctx, actor, ownFresh, action, actor.ID, func(c *change) (err error) {
		if u, err = c.r.User(ctx, actor.ID); err != nil {
			return err
		}
		if epoch < u.SessionEpoch {
			return revocation.ErrRevoked
		}
		detail, err := f(c.r, u)
		if err != nil {
			return err
		}
		if end {
			if err := c.revoke(ctx, u.ID, true, "factors_changed"); err != nil {
				return err
			}
			u.Epoch = c.revocations[0].Epoch
			u.SessionEpoch = u.Epoch
		}
		return c.note(ctx, action, u.ID, "%s", detail)
	})
	return withoutHash(u), err
}

// ChangeFactors changes the second factors of a user, named by id or name. It needs UsersWrite
// and all rights of the user. With end, the user's sessions end and the user's tokens are
// revoked.
func (s *Service) ChangeFactors(ctx context.Context, actor Actor, user, action string, end bool, f FactorChange) error {
	return s.changeUser(ctx, actor, action, user, func(c *change, u store.User) error {
		detail, err := f(c.r, u)
		if err != nil {
			return err
		}
		if end {
			if err := c.revoke(ctx, u.ID, true, "factors_reset"); err != nil {
				return err
			}
		}
		return c.note(ctx, action, u.ID, "%s", detail)
	})
}

// Recover gives a user another password, ends the user's sessions and revokes the user's
// tokens, if f finds in the same transaction that this may be. The address is the client's.
func (s *Service) Recover(ctx context.Context, userID, address, next string, f FactorChange) error {
	const action = "user.recover"
	prepared, err := password.PrepareNew(next)
	if err != nil {
		return err
	}
	actor := Actor{ID: userID, Address: address, system: true} // f is what entitles it
	hash, err := s.hash(onBehalfOf(ctx, actor), prepared)
	if err != nil {
		return err
	}
	return s.change(ctx, actor, own, action, userID, func(c *change) error {
		u, err := c.r.User(ctx, userID)
		if errors.Is(err, store.ErrNotFound) {
			return ErrUserNotFound
		}
		if err != nil {
			return err
		}
		detail, err := f(c.r, u)
		if err != nil {
			return err
		}
		found := u
		u.PasswordHash = hash
		if err := c.updateUser(ctx, found, &u); err != nil {
			return err
		}
		if err := c.revoke(ctx, userID, true, "user_recovered"); err != nil {
			return err
		}
		return c.note(ctx, action, userID, "%s", detail)
	})
}
