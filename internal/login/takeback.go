package login

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

var (
	errNoSession = problem.New(problem.NotFound, "session_not_found", "there is no such session")
	errNoUser    = problem.New(problem.NotFound, "user_not_found", "there is no such user")
)

// A Target is what somebody wants taken back; exactly one of TokenID, Token,
// SessionID, User and KeyID is set.
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

// Logout ends the session of a verified token and takes back its tokens. When it
// returns nil, this replica rejects them already.
func (s *Service) Logout(ctx context.Context, t *accesstoken.Token, client Client) error {
	if _, err := s.endSessions(ctx, "logout", session.Session{ID: t.SessionID, UserID: t.Subject}); err != nil {
		return err
	}
	s.Audit.Record(ctx, store.AuditEvent{Actor: t.Subject, Action: "logout", Target: t.SessionID, Outcome: audit.OK, Address: client.Address})
	return nil
}

// TakeBack takes back what target names, if the holder of the token may: one's
// own, or anybody's with the claim for it. It returns the sequence number of the
// log's line.
func (s *Service) TakeBack(ctx context.Context, by *accesstoken.Token, target Target, client Client) (int64, error) {
	seq, what, err := s.takeBack(ctx, by, target, client)
	event := store.AuditEvent{Actor: by.Subject, Action: "revoke", Target: what, Outcome: audit.OK, Address: client.Address}
	if err != nil {
		p := problem.From(err)
		event.Outcome, event.Detail = audit.Failed, p.Code
		if p.Kind == problem.Denied {
			event.Outcome = audit.Denied
		}
	}
	s.Audit.Record(ctx, event)
	return seq, err
}

func (s *Service) takeBack(ctx context.Context, by *accesstoken.Token, target Target, client Client) (seq int64, what string, err error) {
	switch {
	case target.Token != "":
		t, err := s.Rules.Check(target.Token, s.Now(), s.Key)
		if notLookedUp(err) {
			return 0, "", err
		}
		if err != nil {
			return 0, "", problem.New(problem.Invalid, "invalid_token", "the token to take back is not a valid one of ours").Because(err)
		}
		if t.Subject != by.Subject {
			if _, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.Revoke, t.Subject); err != nil {
				return 0, t.ID, err
			}
		}
		seq, err = s.append(ctx, s.line(revoked.Token, t.ID, by.Subject, "revoked"))
		return seq, t.ID, err

	case target.TokenID != "":
		if target.TokenID != by.ID { // whose it is, nobody knows
			if err := s.People.Authorize(ctx, actor(by, client), directory.Superuser); err != nil {
				return 0, target.TokenID, err
			}
		}
		seq, err = s.append(ctx, s.line(revoked.Token, target.TokenID, by.Subject, "revoked"))
		return seq, target.TokenID, err

	case target.SessionID != "":
		seq, err = s.takeBackSessionByID(ctx, by, target.SessionID, client)
		return seq, target.SessionID, err

	case target.User != "":
		id := by.Subject
		own, err := s.isOwnName(ctx, id, target.User)
		if err != nil {
			return 0, target.User, err
		}
		if target.User != id && !own {
			user, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.Revoke, target.User)
			if err != nil {
				return 0, target.User, err
			}
			id = user.ID
		}
		seq, err = s.takeBackUser(ctx, by.Subject, id, target.IssuedBefore)
		return seq, id, err

	default:
		if err := s.People.Authorize(ctx, actor(by, client), directory.KeysWrite); err != nil {
			return 0, target.KeyID, err
		}
		seq, err = s.TakeBackKey(ctx, by.Subject, target.KeyID)
		return seq, target.KeyID, err
	}
}

// isOwnName says whether a name is a user's username.
func (s *Service) isOwnName(ctx context.Context, userID, name string) (bool, error) {
	key, err := directory.UsernameKey(name)
	if err != nil {
		return false, nil // it is nobody's
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

// ListSessions returns a user's sessions, the newest first, as far as anything is known
// of them. One that was taken back by its id alone may still have its record.
func (s *Service) ListSessions(ctx context.Context, userID string) ([]session.Session, error) {
	sessions, err := s.Sessions.List(ctx, userID)
	if err != nil {
		return nil, unavailable(err)
	}
	return slices.DeleteFunc(sessions, func(one session.Session) bool {
		return one.Ended || one.Unreadable || s.View.SessionRevoked(one.ID)
	}), nil
}

// EndSession ends one session of a user.
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
	sessions, err := s.Sessions.List(ctx, by.Subject)
	if err != nil {
		return unavailable(err)
	}
	others := slices.DeleteFunc(sessions, func(one session.Session) bool { return one.ID == by.SessionID })
	_, err = s.endSessions(ctx, "session_ended", others...)
	s.recordEnd(ctx, by, "session_end_others", by.Subject, client, err)
	return err
}

// EndAllSessions ends all sessions of a user and takes back all its tokens.
func (s *Service) EndAllSessions(ctx context.Context, by *accesstoken.Token, userID string, client Client) error {
	_, err := s.takeBackUser(ctx, by.Subject, userID, time.Time{})
	s.recordEnd(ctx, by, "session_end_all", userID, client, err)
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
const KeySetOutage = 24 * time.Hour

// TakeBackKey takes back a signing key and everything it signed, and replaces it.
func (s *Service) TakeBackKey(ctx context.Context, actor, kid string) (int64, error) {
	var seq int64
	err := s.Store.Update(ctx, func(r store.Records) (err error) {
		seq, err = RevokeKeyIn(ctx, r, s.Revocations, kid, actor, s.Now())
		return err
	})
	if err != nil {
		return 0, unavailable(err)
	}
	if err := s.Keys.Withdraw(ctx, kid); err != nil {
		s.Logger.Error("a revoked signing key could not be replaced at once; trying on", "kid", kid, "err", err)
	}
	return seq, s.settle(ctx, seq)
}

// RevokeKeyIn is TakeBackKey's part in the store: the key and the line in the log,
// both or neither. The line covers what a thief may sign, too: it is kept for as
// long as anybody may still know the key.
func RevokeKeyIn(ctx context.Context, r store.Records, log *revocation.Log, kid, actor string, now time.Time) (seq int64, err error) {
	key, err := keyring.RevokeIn(ctx, r, kid, now)
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

// takeBackSessionByID takes back a session of which only the id is known. The
// record of another user's may not be found, so its line in the log is kept for as
// long as the session could still renew.
func (s *Service) takeBackSessionByID(ctx context.Context, by *accesstoken.Token, id string, client Client) (int64, error) {
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
	if err := s.mayTakeFrom(ctx, actor(by, client), owner); err != nil {
		return 0, err
	}
	lines := []store.Revocation{s.line(revoked.Session, id, by.Subject, "session_ended")}
	if err := s.outliveSessions(ctx, lines); err != nil {
		return 0, err
	}
	seq, err := s.append(ctx, lines...)
	if err == nil && owner != "" {
		if err := s.Sessions.End(ctx, owner, id); err != nil {
			s.Logger.Warn("a session that was taken back could not be deleted", "session", id, "err", err)
		}
	}
	return seq, err
}

// ownerOf returns the user who began a session, or nobody. Package state finds a
// session only under its user; the trail has every login that could be written.
func (s *Service) ownerOf(ctx context.Context, sessionID string) (string, error) {
	events, err := s.Audit.Events(ctx, store.AuditQuery{Target: sessionID, Limit: 200})
	if err != nil {
		return "", unavailable(err)
	}
	for _, e := range events {
		if e.Action == "login" && e.Outcome == audit.OK {
			return e.Actor, nil
		}
	}
	return "", nil
}

// mayTakeFrom says whether the actor may take back what is the owner's. What
// belongs to nobody who is known may be a superuser's.
func (s *Service) mayTakeFrom(ctx context.Context, actor directory.Actor, owner string) error {
	if owner != "" {
		_, err := s.People.AuthorizeOn(ctx, actor, directory.Revoke, owner)
		if !errors.Is(err, directory.ErrUserNotFound) {
			return err
		}
	}
	return s.People.Authorize(ctx, actor, directory.Superuser)
}

// outliveSessions has lines kept for as long as any session could still renew.
func (s *Service) outliveSessions(ctx context.Context, lines []store.Revocation) error {
	longest, err := s.Revocations.Longest(ctx, s.Store)
	if err != nil {
		return err
	}
	for i := range lines {
		lines[i].ExpiresAt = lines[i].CreatedAt.Add(longest.Session + longest.Token)
	}
	return nil
}

// takeBackUser takes back a user's tokens. Up to now goes by the epoch and ends
// the sessions too; up to an earlier moment goes by iat, and ends the sessions
// that began before it.
func (s *Service) takeBackUser(ctx context.Context, actor, userID string, before time.Time) (int64, error) {
	now := s.Now()
	untilNow := before.IsZero() || before.After(now.Add(-time.Second))
	if before.After(now.Add(s.ClockSkew + time.Second)) {
		return 0, problem.New(problem.Invalid, "issued_before_in_future", "issued_before lies in the future; tokens that do not exist yet cannot be taken back")
	}
	line := s.line(revoked.User, userID, actor, "user_revoked")
	if !untilNow {
		line.IssuedBefore = before
	}
	var seq int64
	err := s.Store.Update(ctx, func(r store.Records) error {
		if _, err := r.User(ctx, userID); err != nil {
			return err
		}
		var err error
		if untilNow {
			if line.Epoch, err = r.NextEpoch(ctx, userID, true); err != nil {
				return err
			}
		}
		seq, err = s.Revocations.Append(ctx, r, line)
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
		// The epoch has ended the sessions; their records are only tidied away.
		if err := s.Sessions.EndAll(ctx, userID); err != nil {
			s.Logger.Warn("ended sessions could not be deleted", "user", userID, "err", err)
		}
		return seq, nil
	}
	return seq, s.endSessionsBefore(ctx, userID, before)
}

func (s *Service) endSessionsBefore(ctx context.Context, userID string, before time.Time) error {
	sessions, err := s.Sessions.List(ctx, userID)
	if err != nil {
		return unavailable(err)
	}
	earlier := slices.DeleteFunc(sessions, func(one session.Session) bool { return !one.CreatedAt.Before(before) })
	_, err = s.endSessions(ctx, "user_revoked", earlier...)
	return err
}

// endAtOnce is how many sessions are ended together: what is done of very many is
// done.
const endAtOnce = 100

// endSessions stops sessions and takes back their tokens, and returns the last number
// of the log. What fails half-way is done again by whoever tries again.
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

// endPart is endSessions for a few. It ends what it has begun, even if the client
// hangs up.
func (s *Service) endPart(ctx context.Context, reason string, sessions []session.Session) (seq int64, err error) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	for _, one := range sessions {
		if err := s.Sessions.Stop(ctx, one.UserID, one.ID); err != nil {
			return 0, unavailable(err)
		}
	}
	return s.takeBackStopped(ctx, reason, sessions)
}

// takeBackStopped takes back the tokens of sessions that are stopped. Nothing is
// signed for them any more, so their lines in the log need only outlive the tokens
// that are out already, unless a record may come back. The records are deleted last:
// were they gone before the lines are there, nobody could find what is left to do.
func (s *Service) takeBackStopped(ctx context.Context, reason string, sessions []session.Session) (seq int64, err error) {
	lines := make([]store.Revocation, len(sessions))
	for i, one := range sessions {
		lines[i] = s.line(revoked.Session, one.ID, one.UserID, reason)
	}
	if s.SessionsReturn {
		if err := s.outliveSessions(ctx, lines); err != nil {
			return 0, err
		}
	}
	if seq, err = s.append(ctx, lines...); err != nil {
		return 0, err
	}
	for _, one := range sessions {
		if err := s.Sessions.End(ctx, one.UserID, one.ID); err != nil {
			s.Logger.Warn("the record of a session that has ended could not be deleted", "session", one.ID, "err", err)
		}
	}
	return seq, nil
}

// finishTimeout bounds what goes on without a client.
const finishTimeout = 10 * time.Second

// finishing is for what must not end half-way because the client hangs up.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
}

// append writes lines of the log; when it returns, this replica's view has them.
func (s *Service) append(ctx context.Context, lines ...store.Revocation) (int64, error) {
	seq, err := s.Revocations.TakeBack(ctx, lines...)
	if err != nil {
		return 0, unavailable(err)
	}
	return seq, nil
}

func (s *Service) line(kind revoked.Kind, subject string, actor, reason string) store.Revocation {
	return store.Revocation{Kind: string(kind), Subject: subject, CreatedAt: s.Now(), Actor: actor, Reason: reason}
}

func (s *Service) settle(ctx context.Context, seq int64) error {
	if err := s.Revocations.Settle(ctx, seq); err != nil {
		return unavailable(err)
	}
	return nil
}

// actor is the holder of a token as the directory knows him.
func actor(t *accesstoken.Token, c Client) directory.Actor {
	return directory.Actor{ID: t.Subject, Address: c.Address}
}
