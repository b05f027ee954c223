package login

import (
	"context"
	"errors"
	"math"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var (
	// ErrNoBrowser: the cookie names no session that goes on, or was never ours.
	ErrNoBrowser = problem.New(problem.Unauthenticated, "session_ended", "your session has ended; sign in again")
	// ErrPasswordAlone: the user must have a second factor, so that a password alone cannot
	// make their session fresh.
	ErrPasswordAlone = problem.New(problem.Invalid, "password_alone", "this account needs a second factor; confirm with that")
)

// A Browser is the holder of a session's cookie.
type Browser struct {
	// Token has the claims that an access token of the session for this service's own API would
	// have. It is never signed and never sent. Its ID is that of the cookie, its IssuedAt and
	// ExpiresAt are the beginning and the absolute end of the session.
	Token   *accesstoken.Token
	Session session.Session
}

// Recognise returns the holder of a cookie, and notes that their session is in use. It returns
// ErrNoBrowser for a cookie that names no session that goes on, and for anything else that is
// none: the session may have ended or been revoked, its user may be deleted or disabled, or must
// have a second factor by now without which the session began. It fails closed as Verify does,
// with an error of the kind Unavailable, if that is not known. It counts nothing against a limit:
// the caller does, by address before.
func (s *Service) Recognise(ctx context.Context, cookie string) (*Browser, error) {
	b, err := s.recognise(ctx, cookie, true)
	s.metrics.count("recognise", err)
	return b, err
}

// Watch is Recognise for a page that asks by itself what is new. That is no use of the session,
// which would otherwise go on for as long as the page is open.
func (s *Service) Watch(ctx context.Context, cookie string) (*Browser, error) {
	b, err := s.recognise(ctx, cookie, false)
	s.metrics.count("recognise", err)
	return b, err
}

func (s *Service) recognise(ctx context.Context, cookie string, inUse bool) (_ *Browser, err error) {
	ctx, t := trace.Start(ctx, "recognise a browser")
	defer func() { t.End(err) }()
	epoch := int64(0)
	sess, err := s.Sessions.RecogniseCookie(ctx, cookie, func(ctx context.Context, sess session.Session) error {
		user, err := s.browsing(ctx, sess)
		epoch = user.Epoch
		return err
	})
	if err == nil && !inUse {
		return s.browser(sess, epoch), nil
	}
	if err == nil {
		if err := s.Sessions.Used(ctx, sess); errors.Is(err, state.ErrNotFound) {
			return nil, ErrNoBrowser.Because(err)
		} else if err != nil && ctx.Err() == nil {
			s.Logger.WarnContext(ctx, "the use of a session could not be noted", "session", sess.ID, "err", err)
		}
		return s.browser(sess, epoch), nil
	}
	if errors.Is(err, state.ErrNotFound) || problem.From(err).Kind == problem.Unauthenticated {
		return nil, ErrNoBrowser.Because(err)
	}
	return nil, unavailable(err)
}

// browsing returns the user of a browser's session, if that goes on. What revokes the user's
// tokens by epoch alone, as a change of their claims, lets it go on. What revokes those that were
// issued before a moment ends it if it began before that: at once, and not only when its own
// turn has come.
func (s *Service) browsing(ctx context.Context, sess session.Session) (store.User, error) {
	if err := s.View.Check(ctx, &accesstoken.Token{
		Subject: sess.UserID, SessionID: sess.ID, Epoch: math.MaxInt64, IssuedAt: sess.CreatedAt,
	}); err != nil {
		return store.User{}, err
	}
	user, _, err := s.entitled(ctx, sess)
	return user, err
}

// browser returns the holder of a session's cookie. epoch is the user's, if that was read.
func (s *Service) browser(sess session.Session, epoch int64) *Browser {
	return &Browser{Session: sess, Token: &accesstoken.Token{
		Issuer: s.Issuer, Subject: sess.UserID, Audience: []string{s.Issuer}, ID: sess.CookieID, SessionID: sess.ID,
		// A copy of a session is believed while no later epoch of its user is in the log.
		Epoch:    max(sess.Epoch, epoch),
		IssuedAt: sess.CreatedAt, ExpiresAt: sess.ExpiresAt,
		AuthTime: sess.AuthTime, AMR: sess.AMR, ACR: mfa.Class(sess.AMR),
	}}
}

// SignOut ends the session of a browser's cookie. A cookie is good for that when it is good for
// nothing else any more: of a session that is over, or has another cookie by now. Doing it twice
// is no error. SignOut returns ErrNoBrowser if the cookie is not good for it.
func (s *Service) SignOut(ctx context.Context, cookie string, client Client) error {
	if err := s.Limits.Count(ctx, limit.API, client.Address, ""); err != nil {
		return err
	}
	sess, err := s.Sessions.OfCookie(ctx, cookie)
	if errors.Is(err, state.ErrNotFound) {
		sess, err = s.over(ctx, sess)
	}
	switch {
	case errors.Is(err, session.ErrInvalid):
		return ErrNoBrowser.Because(err)
	case err != nil:
		return unavailable(err)
	case sess.ID == "":
		return nil
	}
	return s.logout(ctx, sess, client)
}

// signer returns the key that signs a client's tokens; nil for a browser, which gets none.
func (s *Service) signer(client Client) (*token.Signer, error) {
	if client.Browser {
		return nil, nil
	}
	return s.Keys.Signer()
}

// browserGrant is the Grant of a browser's session.
func (s *Service) browserGrant(sess session.Session, cookie string) Grant {
	return Grant{SessionID: sess.ID, ExpiresIn: sess.ExpiresAt.Sub(s.Now()), Cookie: cookie}
}

// anotherCookie gives a browser's session another cookie, after its user has authenticated
// again. methods are its amr from now on, which must suffice.
func (s *Service) anotherCookie(ctx context.Context, by *accesstoken.Token, sess session.Session, methods []string) (session.Session, string, error) {
	sess.AMR = methods
	if _, err := s.browsing(ctx, sess); err != nil { // before the former cookie is good no more
		return session.Session{}, "", err
	}
	return s.Sessions.ReauthenticatedBrowser(ctx, sess.UserID, sess.ID, by.ID, s.Now(), methods)
}
