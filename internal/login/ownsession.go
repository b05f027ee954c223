package login

import (
	"context"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// OwnSession returns a live session of the token's holder, as EndSession would end it. It returns
// a problem of the kind NotFound for any other id.
func (s *Service) OwnSession(ctx context.Context, by *accesstoken.Token, sessionID string) (session.Session, error) {
	return s.sessionOf(ctx, by.Subject, sessionID)
}
