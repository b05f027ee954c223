package login

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// errChangedOnly: the password has been changed, but no session has begun with the new one.
var errChangedOnly = problem.New(problem.Unavailable, "password_changed", "the password has been changed, and all sessions have ended; log in with the new password")

// ChangePassword gives the holder of a token another password, if they know the present
// one. It ends all their sessions, revokes all their tokens, and begins the session that it
// returns: whoever else was logged in, or logs in with the old password meanwhile, is logged
// in no more when it returns. A wrong password is refused as by Begin. Of several calls at
// the same moment one succeeds.
func (s *Service) ChangePassword(ctx context.Context, by *accesstoken.Token, current, next string, client Client) (Grant, error) {
	signer, err := s.signer(client)
	if err != nil {
		return Grant{}, err
	}
	user, err := s.People.ChangeOwnPassword(ctx, actor(by, client), by.Epoch, current, next)
	if errors.Is(err, directory.ErrInvalidCredentials) {
		s.Audit.Record(ctx, store.AuditEvent{
			Actor: by.Subject, Action: "user.password", Target: by.Subject, Outcome: audit.Denied, Address: client.Address, Detail: problem.From(err).Code,
		})
	}
	if err != nil {
		return Grant{}, err
	}
	// For the API, as the token was.
	grant, err := s.enter(ctx, signer, user, entry{audience: s.Issuer, methods: mfa.Methods(by.AMR, "pwd")}, client)
	if err != nil {
		return Grant{}, errChangedOnly.Because(err)
	}
	return grant, nil
}
