package login

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// SessionOf returns a live session of a user, named by id or username. The holder of by needs
// directory.SessionsRead over that user. Where there is no such session, or no such user, the
// problem is of the kind NotFound.
func (s *Service) SessionOf(ctx context.Context, by *accesstoken.Token, user, sessionID string, client Client) (SignedIn, error) {
	u, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.SessionsRead, user)
	if err != nil {
		return SignedIn{}, err
	}
	sess, err := s.sessionOf(ctx, u.ID, sessionID)
	u.PasswordHash = ""
	return SignedIn{sess, u}, err
}

// EndSessionOf ends one session of a user, named by id or username, and revokes its tokens. Users
// may end their own; for those of others the holder of by needs directory.SessionsWrite over the user.
func (s *Service) EndSessionOf(ctx context.Context, by *accesstoken.Token, user, sessionID string, client Client) error {
	if user == by.Subject {
		return s.EndSession(ctx, by, sessionID, client)
	}
	u, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.SessionsWrite, user)
	if err == nil {
		_, err = s.sessionOf(ctx, u.ID, sessionID)
	}
	if err == nil {
		_, err = s.revokeSessionOf(ctx, by, result{target: sessionID}, u.ID, sessionID)
	}
	if event := endEvent(by, "session_end", sessionID, client, err); event.Outcome != "" {
		s.Audit.Record(ctx, event)
	}
	return err
}

// sessionOf returns a live session of a user.
func (s *Service) sessionOf(ctx context.Context, userID, sessionID string) (session.Session, error) {
	sess, err := s.Sessions.Get(ctx, userID, sessionID)
	if errors.Is(err, state.ErrNotFound) || err == nil && (sess.Ended || sess.Unreadable || s.View.SessionRevoked(sess.ID)) {
		return session.Session{}, errNoSession
	}
	if err != nil {
		return session.Session{}, unavailable(err)
	}
	return sess, nil
}
