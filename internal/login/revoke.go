package login

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

var (
	errNoSession = problem.New(problem.NotFound, "session_not_found", "there is no such session")
	errNoUser    = problem.New(problem.NotFound, "user_not_found", "there is no such user")
)

// A Target is what is to be revoked. Exactly one of TokenID, Token, SessionID, User and
// KeyID is set.
type Target struct {
	TokenID   string // jti
	Token     string // a whole access token, instead of its jti
	SessionID string
	User      string // id or username; with IssuedBefore, or everything until now
	// IssuedBefore is the moment before which the user's tokens were issued. Zero
	// or the present moment: all that exist now, which needs no clock.
	IssuedBefore time.Time
	KeyID        string
}

// Logout ends the session of a verified token and revokes its tokens. When it returns nil,
// this replica rejects them already.
func (s *Service) Logout(ctx context.Context, t *accesstoken.Token, client Client) error {
	if _, err := s.endSessions(ctx, "logout", session.Session{ID: t.SessionID, UserID: t.Subject}); err != nil {
		return err
	}
	s.Audit.Record(ctx, store.AuditEvent{Actor: t.Subject, Action: "logout", Target: t.SessionID, Outcome: audit.OK, Address: client.Address})
	return nil
}

// Revoke revokes a target if the holder of the token may: users may revoke what is their
// own, and more with a claim for it. It returns the sequence number of the log's entry.
func (s *Service) Revoke(ctx context.Context, by *accesstoken.Token, target Target, client Client) (int64, error) {
	seq, what, err := s.revoke(ctx, by, target, client)
	event := store.AuditEvent{Actor: by.Subject, Action: "revoke", Target: what, Outcome: audit.OK, Address: client.Address}
	if err != nil {
		p := problem.From(err)
		event.Outcome, event.Detail = audit.Failed, p.Code
		if p.Kind == problem.Denied || p.Kind == problem.Unauthenticated {
			event.Outcome = audit.Denied
		}
	}
	s.Audit.Record(ctx, event)
	return seq, err
}

// revoke also returns the id of the target, as far as it is known.
func (s *Service) revoke(ctx context.Context, by *accesstoken.Token, target Target, client Client) (seq int64, what string, err error) {
	switch {
	case target.Token != "":
		return s.revokeToken(ctx, by, target.Token, client)
	case target.TokenID != "":
		seq, err = s.revokeTokenByID(ctx, by, target.TokenID, client)
		return seq, target.TokenID, err
	case target.SessionID != "":
		seq, err = s.revokeSessionByID(ctx, by, target.SessionID, client)
		return seq, target.SessionID, err
	case target.User != "":
		return s.revokeUserByName(ctx, by, target.User, target.IssuedBefore, client)
	default:
		if err := s.People.Authorize(ctx, actor(by, client), directory.KeysWrite); err != nil {
			return 0, target.KeyID, err
		}
		seq, err = s.RevokeKey(ctx, by.Subject, target.KeyID)
		return seq, target.KeyID, err
	}
}

// revokeToken revokes a whole access token, which names its owner.
func (s *Service) revokeToken(ctx context.Context, by *accesstoken.Token, compact string, client Client) (int64, string, error) {
	t, err := s.Rules.Check(compact, s.Now(), s.Key)
	if notLookedUp(err) {
		return 0, "", err
	}
	if err != nil {
		return 0, "", problem.New(problem.Invalid, "invalid_token", "the token to revoke is not a valid token of this service").Because(err)
	}
	if t.Subject != by.Subject {
		if _, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.Revoke, t.Subject); err != nil {
			return 0, t.ID, err
		}
	}
	seq, err := s.append(ctx, s.entry(revoked.Token, t.ID, by.Subject, "revoked"))
	return seq, t.ID, err
}

// revokeTokenByID revokes a token of which only the jti is known. Only a superuser may
// revoke another one than the caller's own, because a jti does not say whose it is.
func (s *Service) revokeTokenByID(ctx context.Context, by *accesstoken.Token, id string, client Client) (int64, error) {
	if id != by.ID {
		if err := s.People.Authorize(ctx, actor(by, client), directory.Superuser); err != nil {
			return 0, err
		}
	}
	return s.append(ctx, s.entry(revoked.Token, id, by.Subject, "revoked"))
}

// revokeUserByName revokes the tokens of a user, named by id or username.
func (s *Service) revokeUserByName(ctx context.Context, by *accesstoken.Token, name string, before time.Time, client Client) (int64, string, error) {
	id, err := s.subject(ctx, by, directory.Revoke, name, client)
	if err != nil {
		return 0, name, err
	}
	seq, err := s.revokeUser(ctx, by.Subject, id, before)
	return seq, id, err
}

// subject returns the id of a user, named by id or username, if the holder of the token is
// that user, or holds the permission over that user.
func (s *Service) subject(ctx context.Context, by *accesstoken.Token, permission, name string, client Client) (string, error) {
	own, err := s.isOwnName(ctx, by.Subject, name)
	if err != nil || own {
		return by.Subject, err
	}
	user, err := s.People.AuthorizeOn(ctx, actor(by, client), permission, name)
	return user.ID, err
}

// isOwnName reports whether a name is a user's id or username.
func (s *Service) isOwnName(ctx context.Context, userID, name string) (bool, error) {
	if name == userID {
		return true, nil
	}
	key, err := names.UsernameKey(name)
	if err != nil {
		return false, nil // no user has such a name
	}
	user, err := s.Store.User(ctx, userID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	return user.NameKey == key, nil
}

// ListSessions returns a page of the sessions of a user, the newest first, and where the
// next page begins, as session.Store.List does. A page may have fewer than limit, or none,
// and a next one. The user, named by id or username, is the holder of the token, or one
// whose sessions the holder may read. An empty name stands for the holder.
func (s *Service) ListSessions(ctx context.Context, by *accesstoken.Token, user, after string, limit int, client Client) (page []session.Session, next string, err error) {
	id := by.Subject
	if user != "" {
		if id, err = s.subject(ctx, by, directory.SessionsRead, user, client); err != nil {
			return nil, "", err
		}
	}
	page, next, err = s.Sessions.List(ctx, id, after, limit)
	if err != nil {
		return nil, "", unavailable(err)
	}
	// A session that was revoked by its id alone may still have its record.
	return slices.DeleteFunc(page, func(one session.Session) bool {
		return one.Ended || one.Unreadable || s.View.SessionRevoked(one.ID)
	}), next, nil
}

// EndSession ends one session of the token's holder.
func (s *Service) EndSession(ctx context.Context, by *accesstoken.Token, sessionID string, client Client) error {
	sess, err := s.Sessions.Get(ctx, by.Subject, sessionID)
	if errors.Is(err, state.ErrNotFound) {
		return errNoSession
	}
	if err != nil {
		return unavailable(err)
	}
	_, err = s.endSessions(ctx, "session_ended", sess)
	s.recordEnd(ctx, by, "session_end", sess.ID, client, err)
	return err
}

// EndOtherSessions ends all sessions of a token's holder but the token's own, as
// they are when it begins.
func (s *Service) EndOtherSessions(ctx context.Context, by *accesstoken.Token, client Client) error {
	err := s.Sessions.Each(ctx, by.Subject, func(some []session.Session) error {
		others := slices.DeleteFunc(some, func(one session.Session) bool { return one.ID == by.SessionID })
		_, err := s.endSessions(ctx, "session_ended", others...)
		return err
	})
	if err != nil {
		err = unavailable(err)
	}
	s.recordEnd(ctx, by, "session_end_others", by.Subject, client, err)
	return err
}

// EndAllSessions ends all sessions of a user, named by id or username, and revokes all
// tokens of that user, if the holder of the token may end the user's sessions.
func (s *Service) EndAllSessions(ctx context.Context, by *accesstoken.Token, user string, client Client) error {
	target, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.SessionsWrite, user)
	if err != nil {
		return err
	}
	_, err = s.revokeUser(ctx, by.Subject, target.ID, time.Time{})
	s.recordEnd(ctx, by, "session_end_all", target.ID, client, err)
	return err
}

func (s *Service) recordEnd(ctx context.Context, by *accesstoken.Token, action, target string, client Client, err error) {
	event := store.AuditEvent{Actor: by.Subject, Action: action, Target: target, Outcome: audit.OK, Address: client.Address}
	if err != nil {
		event.Outcome, event.Detail = audit.Failed, problem.From(err).Code
	}
	s.Audit.Record(ctx, event)
}

// KeySetOutage is for how long a resource server that cannot refresh its key set
// may go on with the one it has (stale-if-error, RFC 5861 §4), and so how long the
// revocation of a key is kept at least.
const KeySetOutage = timing.KeySetOutage

// RevokeKey revokes a signing key and everything that it signed, and replaces it.
func (s *Service) RevokeKey(ctx context.Context, actor, kid string) (int64, error) {
	var seq int64
	err := s.Store.Update(ctx, func(r store.Records) (err error) {
		seq, err = RevokeKeyIn(ctx, r, s.Revocations, s.Keys.Voucher(), kid, actor, s.Now())
		return err
	})
	if err != nil {
		return 0, unavailable(err)
	}
	if err := s.Keys.ReplaceRevoked(ctx, kid); err != nil {
		s.Logger.Error("a revoked signing key could not be replaced at once; trying on", "kid", kid, "err", err)
	}
	return seq, s.settle(ctx, seq)
}

// RevokeKeyIn is RevokeKey's part in the store: the key and the entry in the log, both or
// neither. The entry is kept for as long as any resource server may still know the key, so
// that it also covers what a thief of the key may sign.
func RevokeKeyIn(ctx context.Context, r store.Records, log *revocation.Log, by keyring.Voucher, kid, actor string, now time.Time) (seq int64, err error) {
	key, err := keyring.RevokeIn(ctx, r, by, kid, now)
	if err != nil {
		return 0, err
	}
	end := now.Add(KeySetOutage)
	if key.RemoveAt.After(end) {
		end = key.RemoveAt
	}
	return log.Append(ctx, r, store.Revocation{
		Kind: string(revoked.Key), Subject: kid, CreatedAt: now, ExpiresAt: end, Actor: actor, Reason: "key_revoked",
	})
}

// revokeSessionByID revokes a session of which only the id is known. The record of another
// user's session may not be found, so its entry in the log is kept for as long as the session
// could still renew.
func (s *Service) revokeSessionByID(ctx context.Context, by *accesstoken.Token, id string, client Client) (int64, error) {
	own, err := s.Sessions.Get(ctx, by.Subject, id)
	switch {
	case err == nil:
		return s.endSessions(ctx, "session_ended", own)
	case !errors.Is(err, state.ErrNotFound):
		return 0, unavailable(err)
	case id == by.SessionID:
		return s.endSessions(ctx, "session_ended", session.Session{ID: id, UserID: by.Subject})
	}
	owner, err := s.ownerOf(ctx, id)
	if err != nil {
		return 0, err
	}
	if err := s.mayRevokeOf(ctx, actor(by, client), owner); err != nil {
		return 0, err
	}
	entries := []store.Revocation{s.entry(revoked.Session, id, by.Subject, "session_ended")}
	if err := s.outliveSessions(ctx, entries); err != nil {
		return 0, err
	}
	seq, err := s.append(ctx, entries...)
	if err == nil && owner != "" {
		if err := s.Sessions.End(ctx, owner, id); err != nil {
			s.Logger.Warn("a session that was revoked could not be deleted", "session", id, "err", err)
		}
	}
	return seq, err
}

// ownerOf returns the id of the user who began a session, or "". Package state finds a
// session only under its user; the audit trail has every login that could be recorded.
func (s *Service) ownerOf(ctx context.Context, sessionID string) (string, error) {
	logins, err := s.Audit.Events(ctx, store.AuditQuery{Target: sessionID, Action: "login", Outcome: audit.OK, Limit: 1})
	if err != nil {
		return "", unavailable(err)
	}
	if len(logins) == 0 {
		return "", nil
	}
	return logins[0].Actor, nil
}

// mayRevokeOf returns nil if the actor may revoke a session of the owner. A session whose
// owner is not known may be a superuser's, so only a superuser may revoke it.
func (s *Service) mayRevokeOf(ctx context.Context, actor directory.Actor, owner string) error {
	if owner != "" {
		_, err := s.People.AuthorizeOn(ctx, actor, directory.Revoke, owner)
		if !errors.Is(err, directory.ErrUserNotFound) {
			return err
		}
	}
	return s.People.Authorize(ctx, actor, directory.Superuser)
}

// outliveSessions makes entries be kept for as long as any session could still renew.
func (s *Service) outliveSessions(ctx context.Context, entries []store.Revocation) error {
	longest, err := s.Revocations.Longest(ctx, s.Store)
	if err != nil {
		return err
	}
	for i := range entries {
		entries[i].ExpiresAt = entries[i].CreatedAt.Add(longest.Session + longest.Token)
	}
	return nil
}

// revokeUser revokes a user's tokens. Up to now, it goes by the epoch and ends all sessions.
// Up to an earlier moment, it goes by iat and ends the sessions that began before it.
func (s *Service) revokeUser(ctx context.Context, actor, userID string, before time.Time) (int64, error) {
	now := s.Now()
	untilNow := before.IsZero() || before.After(now.Add(-time.Second))
	if before.After(now.Add(s.ClockSkew + time.Second)) {
		return 0, problem.New(problem.Invalid, "issued_before_in_future", "issued_before lies in the future; tokens that do not exist yet cannot be revoked")
	}
	entry := s.entry(revoked.User, userID, actor, "user_revoked")
	if !untilNow {
		entry.IssuedBefore = before
	}
	var seq int64
	err := s.Store.Update(ctx, func(r store.Records) error {
		if _, err := r.User(ctx, userID); err != nil {
			return err
		}
		var err error
		if untilNow {
			if entry.Epoch, err = r.NextEpoch(ctx, userID, true); err != nil {
				return err
			}
		}
		seq, err = s.Revocations.Append(ctx, r, entry)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return 0, errNoUser
	}
	if err != nil {
		return 0, unavailable(err)
	}
	if err := s.settle(ctx, seq); err != nil {
		return seq, err
	}
	if untilNow {
		// The epoch has ended the sessions; deleting their records only saves space.
		if err := s.Sessions.EndAll(ctx, userID); err != nil {
			s.Logger.Warn("ended sessions could not be deleted", "user", userID, "err", err)
		}
		return seq, nil
	}
	return seq, s.endSessionsBefore(ctx, userID, before)
}

func (s *Service) endSessionsBefore(ctx context.Context, userID string, before time.Time) error {
	err := s.Sessions.Each(ctx, userID, func(some []session.Session) error {
		earlier := slices.DeleteFunc(some, func(one session.Session) bool { return !one.CreatedAt.Before(before) })
		_, err := s.endSessions(ctx, "user_revoked", earlier...)
		return err
	})
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// endAtOnce is how many sessions are ended together. If a call with very many fails, what it
// has done stays done.
const endAtOnce = 100

// endSessions stops sessions, revokes their tokens, and returns the last sequence number of
// the log. A call that has failed half-way may be made again.
func (s *Service) endSessions(ctx context.Context, reason string, sessions ...session.Session) (seq int64, err error) {
	for part := range slices.Chunk(sessions, endAtOnce) {
		if err := ctx.Err(); err != nil {
			return seq, unavailable(err)
		}
		if seq, err = s.endPart(ctx, reason, part); err != nil {
			return seq, err
		}
	}
	return seq, nil
}

// endPart is endSessions for at most endAtOnce. It ends what it has begun, also if the
// client hangs up.
func (s *Service) endPart(ctx context.Context, reason string, sessions []session.Session) (seq int64, err error) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	for _, one := range sessions {
		if err := s.Sessions.Stop(ctx, one.UserID, one.ID); err != nil {
			return 0, unavailable(err)
		}
	}
	return s.revokeStopped(ctx, reason, sessions)
}

// revokeStopped revokes the tokens of sessions that are stopped. No more tokens are signed
// for them, so their entries in the log need only outlive the tokens that exist, unless a
// record may return. The records are deleted last: without record and entry, a later call
// could not find what is left to do.
func (s *Service) revokeStopped(ctx context.Context, reason string, sessions []session.Session) (seq int64, err error) {
	entries := make([]store.Revocation, len(sessions))
	for i, one := range sessions {
		entries[i] = s.entry(revoked.Session, one.ID, one.UserID, reason)
	}
	if s.SessionsReturn {
		if err := s.outliveSessions(ctx, entries); err != nil {
			return 0, err
		}
	}
	if seq, err = s.append(ctx, entries...); err != nil {
		return 0, err
	}
	for _, one := range sessions {
		if err := s.Sessions.End(ctx, one.UserID, one.ID); err != nil {
			s.Logger.Warn("the record of a session that has ended could not be deleted", "session", one.ID, "err", err)
		}
	}
	return seq, nil
}

// finishTimeout bounds work that goes on without its client.
const finishTimeout = 10 * time.Second

// finishing returns a context for work that must not end half-way when the client hangs up.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
}

// append writes entries into the log. When it returns, this replica's view has them.
func (s *Service) append(ctx context.Context, entries ...store.Revocation) (int64, error) {
	seq, err := s.Revocations.Revoke(ctx, entries...)
	if err != nil {
		return 0, unavailable(err)
	}
	return seq, nil
}

func (s *Service) entry(kind revoked.Kind, subject string, actor, reason string) store.Revocation {
	return store.Revocation{Kind: string(kind), Subject: subject, CreatedAt: s.Now(), Actor: actor, Reason: reason}
}

func (s *Service) settle(ctx context.Context, seq int64) error {
	if err := s.Revocations.Settle(ctx, seq); err != nil {
		return unavailable(err)
	}
	return nil
}

// actor returns the holder of a token as the directory knows them.
func actor(t *accesstoken.Token, c Client) directory.Actor {
	return directory.Holder(t, c.Address)
}
