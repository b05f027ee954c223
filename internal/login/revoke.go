package login

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
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
	"github.com/watchword-auth/watchword/internal/trace"
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
	// Reason is why a key is revoked, for the audit trail. It may be empty.
	Reason string
}

// Revoke revokes a target if the holder of the token may: users may revoke what is their
// own, and more with a claim for it. It returns the sequence number of the log's entry, or
// of the log's last one if the target had been revoked before. A user may revoke their own
// tokens one by one no more often than revocationRate says.
func (s *Service) Revoke(ctx context.Context, by *accesstoken.Token, target Target, client Client) (int64, error) {
	ctx, t := trace.Start(ctx, "revoke")
	r, err := s.revoke(ctx, by, target, client)
	t.End(err)
	event := store.AuditEvent{Actor: by.Subject, Action: "revoke", Target: r.target, Outcome: audit.OK, Address: client.Address}
	if err != nil {
		event.Outcome, event.Detail = outcome(err), problem.From(err).Code
		if event.Outcome == audit.Failed && target.Reason != "" { // the key may be revoked
			event.Detail += ": " + target.Reason
		}
	}
	switch {
	case r.nothing || event.Outcome == "" || err == nil && target.KeyID != "": // or revokeKey has written it
	case r.own:
		s.Audit.RecordOwn(ctx, event)
	default:
		s.Audit.Record(ctx, event)
	}
	return r.seq, err
}

// outcome returns the outcome of what ended with an error, for the audit trail, and "" if it
// has no place there, because nothing was changed and nothing denied.
func outcome(err error) string {
	switch p := problem.From(err); {
	case p.Kind == problem.Denied, p.Code == directory.ErrWrongAudience.Code, p.Code == directory.ErrReauthenticate.Code:
		return audit.Denied
	case slices.Contains([]problem.Kind{problem.NotFound, problem.Invalid, problem.Unauthenticated, problem.TooMany}, p.Kind):
		return ""
	}
	return audit.Failed
}

// A result is what revoking a target has led to.
type result struct {
	seq     int64
	target  string // id, as far as it is known
	own     bool   // of the caller
	nothing bool   // had to be done
}

func (s *Service) revoke(ctx context.Context, by *accesstoken.Token, target Target, client Client) (result, error) {
	switch {
	case target.Token != "":
		return s.revokeToken(ctx, by, target.Token, client)
	case target.TokenID != "":
		return s.revokeTokenByID(ctx, by, target.TokenID, client)
	case target.SessionID != "":
		return s.revokeSessionByID(ctx, by, target.SessionID, client)
	case target.User != "":
		return s.revokeUserByName(ctx, by, target.User, target.IssuedBefore, client)
	}
	r := result{target: target.KeyID}
	if err := s.People.Authorize(ctx, actor(by, client), directory.KeysWrite); err != nil {
		return r, err
	}
	var err error
	if r.seq, r.nothing, err = s.known(ctx, &accesstoken.Token{KeyID: target.KeyID, Epoch: math.MaxInt64}); err != nil || r.nothing {
		return r, err
	}
	r.seq, err = s.revokeKey(ctx, by, target, client)
	return r, err
}

// revokeToken revokes a whole access token, which names its owner.
func (s *Service) revokeToken(ctx context.Context, by *accesstoken.Token, compact string, client Client) (result, error) {
	t, err := s.Rules.Check(compact, s.Now(), s.Key)
	if notLookedUp(err) {
		return result{}, err
	}
	if err != nil {
		return result{}, problem.New(problem.Invalid, "invalid_token", "the token to revoke is not a valid token of this service").Because(err)
	}
	r := result{target: t.ID, own: t.Subject == by.Subject}
	if !r.own {
		if _, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.Revoke, t.Subject); err != nil {
			return r, err
		}
	}
	return s.revokeOne(ctx, by, r, t, client)
}

// revokeTokenByID revokes a token of which only the jti is known. Only a superuser may
// revoke another one than the caller's own, because a jti does not say whose it is.
func (s *Service) revokeTokenByID(ctx context.Context, by *accesstoken.Token, id string, client Client) (result, error) {
	r := result{target: id, own: id == by.ID}
	if !r.own {
		if err := s.People.Authorize(ctx, actor(by, client), directory.Superuser); err != nil {
			return r, err
		}
	}
	return s.revokeOne(ctx, by, r, &accesstoken.Token{ID: id, Epoch: math.MaxInt64, IssuedAt: s.Now()}, client)
}

// revokeOne revokes a token, or all that is known of it, unless it is revoked already.
func (s *Service) revokeOne(ctx context.Context, by *accesstoken.Token, r result, t *accesstoken.Token, client Client) (_ result, err error) {
	if r.seq, r.nothing, err = s.known(ctx, t); err != nil || r.nothing {
		return r, err
	}
	if err := s.mayRevokeMore(ctx, by, r.own); err != nil {
		return r, err
	}
	r.seq, err = s.append(ctx, s.entry(revoked.Token, t.ID, by.Subject, "revoked"))
	return r, err
}

// known reports whether tokens are in the log already, and returns its last number then.
func (s *Service) known(ctx context.Context, tokens ...*accesstoken.Token) (int64, bool, error) {
	seq, known, err := s.Revocations.Known(ctx, tokens...)
	if err != nil {
		err = unavailable(err)
	}
	return seq, known, err
}

// mayRevokeMore counts an entry for the log that revokes something of the caller's own, of
// which there may be any number.
func (s *Service) mayRevokeMore(ctx context.Context, by *accesstoken.Token, own bool) error {
	if !own {
		return nil
	}
	return s.within(ctx, &s.revokes, errRevokesTooFast, by.Subject)
}

// within returns an error, with the time to wait, if a user who is no superuser has spent a
// budget.
func (s *Service) within(ctx context.Context, b *budget, spent *problem.Error, userID string) error {
	wait := b.spend(userID, s.Now())
	if wait == 0 {
		return nil
	}
	claims, err := s.People.ClaimsOf(ctx, userID)
	switch {
	case err != nil:
		return unavailable(err)
	case isSuperuser(claims):
		return nil
	}
	return spent.After(wait)
}

// isSuperuser reports whether a user with these claims may do everything.
func isSuperuser(claims map[string]string) bool {
	return slices.Contains(strings.Split(claims[directory.Admin], ","), directory.Superuser)
}

// revokeUserByName revokes the tokens of a user, named by id or username.
func (s *Service) revokeUserByName(ctx context.Context, by *accesstoken.Token, name string, before time.Time, client Client) (result, error) {
	id, err := s.subject(ctx, by, directory.Revoke, name, client)
	if err != nil {
		return result{target: name}, err
	}
	r := result{target: id, own: id == by.Subject}
	if !s.untilNow(before) {
		r.seq, r.nothing, err = s.revokeUserBefore(ctx, by, id, before)
		return r, err
	}
	r.seq, err = s.revokeUser(ctx, by, id)
	return r, err
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
	if user.NameKey == key || names.Fold(user.NameKey) != names.Fold(key) {
		return user.NameKey == key, nil
	}
	// It is the user's name unless another user has it exactly so.
	named, err := directory.UserNamed(ctx, s.Store, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, unavailable(err)
	}
	return named.ID == userID, nil
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
	ended := s.View.SessionRevoked(sess.ID) // but its record could not be deleted
	_, err = s.endSessions(ctx, "session_ended", sess)
	if !ended {
		s.Audit.RecordOwn(ctx, endEvent(by, "session_end", sess.ID, client, err))
	}
	return err
}

// EndOtherSessions ends all sessions of a token's holder but the token's own, as
// they are when it begins.
func (s *Service) EndOtherSessions(ctx context.Context, by *accesstoken.Token, client Client) error {
	change := false
	err := s.Sessions.Each(ctx, by.Subject, func(some []session.Session) error {
		others := slices.DeleteFunc(some, func(one session.Session) bool { return one.ID == by.SessionID })
		change = change || slices.ContainsFunc(others, func(one session.Session) bool { return !s.View.SessionRevoked(one.ID) })
		_, err := s.endSessions(ctx, "session_ended", others...)
		return err
	})
	if err != nil {
		err = unavailable(err)
	}
	if change {
		s.Audit.RecordOwn(ctx, endEvent(by, "session_end_others", by.Subject, client, err))
	}
	return err
}

// EndAllSessions ends all sessions of a user, named by id or username, and revokes all
// tokens of that user, if the holder of the token may end the user's sessions.
func (s *Service) EndAllSessions(ctx context.Context, by *accesstoken.Token, user string, client Client) error {
	target, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.SessionsWrite, user)
	if err == nil {
		_, err = s.revokeUser(ctx, by, target.ID)
	}
	if event := endEvent(by, "session_end_all", target.ID, client, err); event.Outcome != "" {
		s.Audit.Record(ctx, event)
	}
	return err
}

// endEvent is the event of ending sessions, however it went.
func endEvent(by *accesstoken.Token, action, target string, client Client, err error) store.AuditEvent {
	event := store.AuditEvent{Actor: by.Subject, Action: action, Target: target, Outcome: audit.OK, Address: client.Address}
	if err != nil {
		event.Outcome, event.Detail = outcome(err), problem.From(err).Code
	}
	return event
}

// KeySetOutage is for how long a resource server that cannot refresh its key set
// may go on with the one it has (stale-if-error, RFC 5861 §4), and so how long the
// revocation of a key is kept at least.
const KeySetOutage = timing.KeySetOutage

// revokeKey revokes a signing key and everything that it signed, and replaces it. The event of
// the audit trail is part of the transaction: a key that is revoked has one, also if the answer
// of the database is lost.
func (s *Service) revokeKey(ctx context.Context, by *accesstoken.Token, target Target, client Client) (seq int64, err error) {
	event := store.AuditEvent{
		Actor: by.Subject, Action: "revoke", Target: target.KeyID, Outcome: audit.OK, Address: client.Address, Detail: target.Reason,
	}
	err = s.Store.Update(ctx, func(r store.Records) error {
		if err := s.Audit.RecordIn(ctx, r, event); err != nil {
			return err
		}
		seq, err = RevokeKeyIn(ctx, r, s.Revocations, s.Keys.Voucher(), target.KeyID, s.SecretKids(target.KeyID), by.Subject, s.Now())
		return err
	})
	if err != nil {
		return 0, unavailable(err)
	}
	s.Audit.Log(ctx, event)
	if err := s.Keys.ReplaceRevoked(ctx, target.KeyID); err != nil {
		s.Logger.ErrorContext(ctx, "a revoked signing key could not be replaced at once; trying on", "kid", target.KeyID, "err", err)
	}
	return seq, s.settle(ctx, seq)
}

// secretRevoked is how long the revocation of a signing secret is kept: operators may leave a
// revoked secret in their configuration, and with it anybody who has it signs tokens.
const secretRevoked = 10 * 365 * 24 * time.Hour

// RevokeKeyIn is the part in the store of revoking a key: the key and the entries in the log, all or
// none. The entry of a key is kept for as long as any resource server may still know the key, so
// that it also covers what a thief of the key may sign.
//
// If the kid is that of a signing secret, secretKids are all kids of the secret, one for each
// algorithm. All of them are revoked, because a thief of the secret may sign under each.
func RevokeKeyIn(
	ctx context.Context, r store.Records, log *revocation.Log, by keyring.Voucher, kid string, secretKids []string, actor string, now time.Time,
) (seq int64, err error) {
	kids, end := []string{kid}, now.Add(KeySetOutage)
	key, err := keyring.RevokeIn(ctx, r, by, kid, now)
	switch {
	case len(secretKids) > 0 && (err == nil || errors.Is(err, keyring.ErrUnknownKey)): // a row with its kid is a forged one
		kids, end = secretKids, now.Add(secretRevoked)
	case err != nil:
		return 0, err
	case key.RemoveAt.After(end):
		end = key.RemoveAt
	}
	entries := make([]store.Revocation, len(kids))
	for i, kid := range kids {
		entries[i] = store.Revocation{
			Kind: string(revoked.Key), Subject: kid, CreatedAt: now, ExpiresAt: end, Actor: actor, Reason: "key_revoked",
		}
	}
	return log.Append(ctx, r, entries...)
}

// revokeSessionByID revokes a session of which only the id is known. The record of another
// user's session may not be found, so its entry in the log is kept for as long as the session
// could still renew.
func (s *Service) revokeSessionByID(ctx context.Context, by *accesstoken.Token, id string, client Client) (r result, err error) {
	r.target = id
	own, err := s.Sessions.Get(ctx, by.Subject, id)
	if errors.Is(err, state.ErrNotFound) && id == by.SessionID {
		own, err = session.Session{ID: id, UserID: by.Subject}, nil
	}
	if err == nil {
		r.own, r.nothing = true, s.View.SessionRevoked(id)
		r.seq, err = s.endSessions(ctx, "session_ended", own)
		return r, err
	}
	if !errors.Is(err, state.ErrNotFound) {
		return r, unavailable(err)
	}
	owner, err := s.ownerOf(ctx, id)
	if err != nil {
		return r, err
	}
	if r.own = owner == by.Subject; !r.own {
		if err := s.mayRevokeOf(ctx, actor(by, client), owner); err != nil {
			return r, err
		}
	}
	return s.revokeSessionOf(ctx, by, r, owner, id)
}

// revokeSessionOf revokes a session that the holder of the token may revoke. The owner is "" where
// nobody knows it.
func (s *Service) revokeSessionOf(ctx context.Context, by *accesstoken.Token, r result, owner, id string) (_ result, err error) {
	if r.seq, r.nothing, err = s.known(ctx, revocation.OfSession(id)); err != nil {
		return r, err
	}
	if !r.nothing {
		if err := s.mayRevokeMore(ctx, by, r.own); err != nil {
			return r, err
		}
		entries := []store.Revocation{s.entry(revoked.Session, id, by.Subject, "session_ended")}
		if err := s.outliveSessions(ctx, entries); err != nil {
			return r, err
		}
		if r.seq, err = s.append(ctx, entries...); err != nil {
			return r, err
		}
	}
	if owner != "" {
		if err := s.Sessions.End(ctx, owner, id); err != nil {
			s.Logger.WarnContext(ctx, "a session that was revoked could not be deleted", "session", id, "err", err)
		}
	}
	return r, nil
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

// untilNow reports whether all tokens that exist are issued before a moment, or whether that
// is not asked for.
func (s *Service) untilNow(before time.Time) bool {
	return before.IsZero() || before.After(s.Now().Add(-time.Second)) && !before.After(s.Now().Add(s.ClockSkew+time.Second))
}

// revokeUser revokes a user's tokens up to now. It goes by the epoch and ends all sessions.
func (s *Service) revokeUser(ctx context.Context, by *accesstoken.Token, userID string) (int64, error) {
	entry := s.entry(revoked.User, userID, by.Subject, "user_revoked")
	var seq int64
	err := s.Store.Update(ctx, func(r store.Records) error {
		user, err := r.User(ctx, userID)
		if err != nil {
			return err
		}
		// Many requests with one token write one entry: after the first of them the token is
		// revoked, although this replica may not have read it.
		if userID == by.Subject && by.Epoch < user.SessionEpoch {
			return revocation.ErrRevoked
		}
		if entry.Epoch, err = r.NextEpoch(ctx, userID, true); err != nil {
			return err
		}
		seq, err = s.Revocations.Append(ctx, r, entry)
		return err
	})
	if err := s.appended(ctx, seq, err); err != nil {
		return seq, err
	}
	// The epoch has ended the sessions; deleting their records only saves space.
	if err := s.Sessions.EndAll(ctx, userID); err != nil {
		s.Logger.WarnContext(ctx, "ended sessions could not be deleted", "user", userID, "err", err)
	}
	return seq, nil
}

// revokeUserBefore revokes a user's tokens up to an earlier moment. It goes by iat and ends
// the sessions that began before it. It reports whether nothing had to be done.
func (s *Service) revokeUserBefore(ctx context.Context, by *accesstoken.Token, userID string, before time.Time) (seq int64, nothing bool, err error) {
	if before.After(s.Now()) {
		return 0, true, problem.New(problem.Invalid, "issued_before_in_future", "issued_before lies in the future; tokens that do not exist yet cannot be revoked")
	}
	// The last token that is to be revoked, since tokens count whole seconds.
	last := &accesstoken.Token{Subject: userID, Epoch: math.MaxInt64, IssuedAt: before.Add(-time.Nanosecond).Truncate(time.Second)}
	if seq, nothing, err = s.known(ctx, last); err != nil {
		return 0, false, err
	}
	if !nothing {
		if err := s.mayRevokeMore(ctx, by, userID == by.Subject); err != nil {
			return 0, false, err
		}
		entry := s.entry(revoked.User, userID, by.Subject, "user_revoked")
		entry.IssuedBefore = before
		err := s.Store.Update(ctx, func(r store.Records) error {
			if _, err := r.User(ctx, userID); err != nil {
				return err
			}
			var err error
			seq, err = s.Revocations.Append(ctx, r, entry)
			return err
		})
		if err := s.appended(ctx, seq, err); err != nil {
			return seq, false, err
		}
	}
	ended, err := s.endSessionsBefore(ctx, userID, before)
	return seq, nothing && ended == 0, err
}

// appended turns the end of a transaction with an entry for the log into the answer.
func (s *Service) appended(ctx context.Context, seq int64, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return errNoUser
	}
	if err != nil {
		return unavailable(err)
	}
	return s.settle(ctx, seq)
}

// endSessionsBefore returns how many sessions it has ended.
func (s *Service) endSessionsBefore(ctx context.Context, userID string, before time.Time) (int, error) {
	ended := 0
	err := s.Sessions.Each(ctx, userID, func(some []session.Session) error {
		earlier := slices.DeleteFunc(some, func(one session.Session) bool { return !one.CreatedAt.Before(before) })
		ended += len(earlier)
		_, err := s.endSessions(ctx, "user_revoked", earlier...)
		return err
	})
	if err != nil {
		err = unavailable(err)
	}
	return ended, err
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

// endPart is endSessions for at most endAtOnce. Requests that end one session at the same
// moment do so together.
func (s *Service) endPart(ctx context.Context, reason string, sessions []session.Session) (int64, error) {
	if len(sessions) != 1 {
		return s.stopAndRevoke(ctx, reason, sessions)
	}
	seq, err, _ := s.ending.Do(sessions[0].ID, func() (any, error) { return s.stopAndRevoke(ctx, reason, sessions) })
	return seq.(int64), err
}

// stopAndRevoke ends what it has begun, also if the client hangs up.
func (s *Service) stopAndRevoke(ctx context.Context, reason string, sessions []session.Session) (seq int64, err error) {
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
	tokens := make([]*accesstoken.Token, len(sessions))
	for i, one := range sessions {
		entries[i] = s.entry(revoked.Session, one.ID, one.UserID, reason)
		tokens[i] = revocation.OfSession(one.ID)
	}
	seq, known, err := s.known(ctx, tokens...)
	if err != nil {
		return 0, err
	}
	if !known {
		if s.SessionsReturn {
			if err := s.outliveSessions(ctx, entries); err != nil {
				return 0, err
			}
		}
		if seq, err = s.append(ctx, entries...); err != nil {
			return 0, err
		}
	}
	for _, one := range sessions {
		if err := s.Sessions.End(ctx, one.UserID, one.ID); err != nil {
			s.Logger.WarnContext(ctx, "the record of a session that has ended could not be deleted", "session", one.ID, "err", err)
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
