package login

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// atFloor returns a user who begins a session, with an epoch that is not below the view's floor:
// verifiers may remember that lower ones are revoked. If this replica remembers it itself, while
// the database does not, the former sessions of the user end, because it may be that they
// had ended. To be called before the user's claims are read.
//
// A user whose sessions have ended since they were read is returned as they are, so that what
// begins now has ended, too.
func (s *Service) atFloor(ctx context.Context, user store.User) (store.User, error) {
	for floor := s.View.Floor(); user.Epoch < floor; {
		lost := s.View.UserRevoked(user.ID, user.Epoch)
		raised, err := s.Store.RaiseEpoch(ctx, user.ID, user.Epoch, floor, lost)
		if err != nil {
			return user, unavailable(err)
		}
		if raised {
			user.Epoch = floor
			return user, nil
		}
		now, err := s.Store.User(ctx, user.ID)
		if errors.Is(err, store.ErrNotFound) || err == nil && (now.Disabled || now.SessionEpoch != user.SessionEpoch) {
			return user, nil
		}
		if err != nil {
			return user, unavailable(err)
		}
		user.Epoch = now.Epoch
	}
	return user, nil
}

// renewable returns nil if the user, as read with their claims, may have another token in a
// session: nothing revokes it, and its epoch is not below the view's floor. moved reports
// that the user's epoch is another one by now, and that both must be read again.
func (s *Service) renewable(ctx context.Context, user *store.User, sess session.Session) (moved bool, err error) {
	err = s.View.Check(ctx, &accesstoken.Token{Subject: user.ID, SessionID: sess.ID, Epoch: user.Epoch, IssuedAt: s.Now()})
	if errors.Is(err, revocation.ErrRevoked) {
		now, err := s.Store.User(ctx, user.ID)
		switch {
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return false, unavailable(err)
		case err == nil && now.Epoch != user.Epoch:
			return true, nil
		}
		// The session was revoked by its id, and its record is still there. Or the
		// database has lost what ended it, or has lost that all of the user was revoked:
		// then it may have ended, too.
		return false, s.dead(ctx, sess)
	}
	if err != nil {
		return false, err
	}
	if floor := s.View.Floor(); user.Epoch < floor {
		raised, err := s.Store.RaiseEpoch(ctx, user.ID, user.Epoch, floor, false)
		if err != nil {
			return false, unavailable(err)
		}
		if !raised {
			return true, nil
		}
		user.Epoch = floor
	}
	return false, nil
}

// dead deletes the record of a session that has ended, and returns ErrInvalid.
func (s *Service) dead(ctx context.Context, sess session.Session) error {
	if err := s.Sessions.End(ctx, sess.UserID, sess.ID); err != nil {
		s.Logger.WarnContext(ctx, "a dead session could not be deleted", "session", sess.ID, "err", err)
	}
	return session.ErrInvalid
}
