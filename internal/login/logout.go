package login

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A Proof is what a client shows of the session that it ends: its access token, its refresh
// token, or both.
type Proof struct{ AccessToken, RefreshToken string }

// Logout ends the session of each token of a proof. A token is good for that when it is good
// for nothing else any more: an access token that has expired or was revoked together with its
// session or other tokens of its user, and a refresh token that is spent. Doing it twice is no
// error. Logout returns an error if no token is good for it.
func (s *Service) Logout(ctx context.Context, p Proof, client Client) (err error) {
	ctx, t := trace.Start(ctx, "log out")
	defer func() { t.End(err) }()
	if p.RefreshToken != "" {
		if err := s.Limits.Count(ctx, limit.Renew, client.Address, ""); err != nil {
			return err
		}
	}
	var sessions []session.Session
	var refused error
	for _, one := range []struct {
		token string
		of    func(context.Context, string) (session.Session, error)
	}{{p.RefreshToken, s.ofRefreshToken}, {p.AccessToken, s.ofAccessToken}} {
		if one.token == "" {
			continue
		}
		sess, err := one.of(ctx, one.token)
		switch {
		case err == nil:
			sessions = append(sessions, sess)
		case problem.From(err).Kind == problem.Unauthenticated:
			refused = err
		default:
			return unavailable(err)
		}
	}
	if len(sessions) == 0 {
		return refused
	}
	sessions = slices.CompactFunc(sessions, func(a, b session.Session) bool { return a.ID == b.ID })
	for _, one := range sessions {
		if one.ID == "" { // it is over
			continue
		}
		if err := s.logout(ctx, one, client); err != nil {
			return err
		}
	}
	return nil
}

// logout ends a session and revokes its tokens. When it returns nil, this replica rejects them
// already.
func (s *Service) logout(ctx context.Context, sess session.Session, client Client) error {
	ended := s.View.SessionRevoked(sess.ID) // by another request at the same moment, or before
	if _, err := s.endSessions(ctx, "logout", sess); err != nil {
		return err
	}
	if ended {
		return nil
	}
	s.Audit.RecordOwn(ctx, store.AuditEvent{Actor: sess.UserID, Action: "logout", Target: sess.ID, Outcome: audit.OK, Address: client.Address})
	return nil
}

// ofAccessToken returns the session of an access token that is right in everything but that it
// may have expired, no longer ago than a session lasts, or may be revoked with others. Whoever
// holds a token that was revoked by itself, or a key that was, ends nothing by it.
func (s *Service) ofAccessToken(ctx context.Context, compact string) (session.Session, error) {
	rules := s.Rules
	rules.Leeway = max(rules.Leeway, s.Sessions.TTL)
	t, err := s.signed(rules, compact)
	if err != nil {
		return session.Session{}, err
	}
	at := s.Now()
	if !at.Before(t.ExpiresAt) {
		at = t.ExpiresAt.Add(-time.Nanosecond)
	}
	if err := s.Rules.Recheck(t, at); err != nil { // the leeway was for exp alone
		return session.Session{}, ErrInvalidToken.Because(err)
	}
	// Of the greatest epoch and issued later than any: neither the user nor the session counts.
	alone := &accesstoken.Token{ID: t.ID, KeyID: t.KeyID, Epoch: math.MaxInt64, IssuedAt: time.Unix(math.MaxInt64, 0)}
	if err := s.View.Check(ctx, alone); err != nil {
		return session.Session{}, err
	}
	return session.Session{ID: t.SessionID, UserID: t.Subject}, nil
}

// ofRefreshToken returns the session of a refresh token, spent or not. The session has no id if
// it is over. Where records may return that are gone, only the log can say that; otherwise the
// token is refused, because its session cannot be revoked without proof.
func (s *Service) ofRefreshToken(ctx context.Context, refreshToken string) (session.Session, error) {
	sess, err := s.Sessions.OfFamily(ctx, refreshToken)
	if !errors.Is(err, state.ErrNotFound) {
		return sess, err
	}
	return s.over(ctx, sess)
}

// over returns a session without an id if the session that a client claims is over.
// session.ErrInvalid: that is not known.
func (s *Service) over(ctx context.Context, sess session.Session) (session.Session, error) {
	if !s.SessionsReturn {
		return session.Session{}, nil
	}
	if !s.View.SessionRevoked(sess.ID) { // another replica may have revoked it just now
		ctx, cancel := context.WithTimeout(ctx, finishTimeout)
		defer cancel()
		if err := s.View.Wait(ctx, 0); err != nil {
			return session.Session{}, unavailable(err)
		}
	}
	if !s.View.SessionRevoked(sess.ID) {
		return session.Session{}, session.ErrInvalid
	}
	return session.Session{}, nil
}
