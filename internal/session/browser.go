package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/state"
)

// notedEvery is how often the use of a browser's session is noted at most.
const notedEvery = 5 * time.Minute

// StartBrowser is Start for the session of a browser, which it returns with its first cookie.
// Such a session has no refresh token, ever.
func (s *Store) StartBrowser(ctx context.Context, userID string, epoch int64, address, userAgent string, issue func(*Session) error) (Session, string, []Session, error) {
	return s.begin(ctx, userID, epoch, address, userAgent, issue, s.giveCookie)
}

// giveCookie gives a record another cookie, which it returns. The former one is only good to
// end the session.
func (s *Store) giveCookie(rec *record) (string, error) {
	c, err := newCookie(s.Rand, rec.UserID, rec.ID)
	if err != nil {
		return "", err
	}
	id, err := uuid.NewRandomFromReader(s.Rand)
	if err != nil {
		return "", fmt.Errorf("session: cookie id: %w", err)
	}
	rec.Browser, rec.CookieID = true, id.String()
	rec.Cookie, rec.Former = hash(c.secret[:]), rec.Cookie
	return c.String(), nil
}

// RecogniseCookie returns the live session of a browser's cookie, or state.ErrNotFound for
// anything that is none, as a refresh token. What Recognise says of copies and of may holds here.
//
// After ReauthenticatedBrowser the new cookie is recognised at once, because the record itself
// is read where a copy has another cookie. The former one is refused as soon as the copy is
// replaced, some milliseconds later. If that fails, because Redis does not answer or has an old
// copy brought back, a replica may recognise the former cookie until that copy's end, which is
// no later than a minute after the change, give or take the difference of two replicas' clocks.
// The session is then as it was before: neither its AuthTime nor its AMR are the new ones.
func (s *Store) RecogniseCookie(ctx context.Context, presented string, may func(context.Context, Session) error) (Session, error) {
	c, err := parseCookie(presented)
	if err != nil {
		return Session{}, state.ErrNotFound
	}
	h := hash(c.secret[:])
	return s.recognise(ctx, key(c.user.String(), c.session.String()), func(rec record) bool {
		return rec.Browser && equal(rec.Cookie, h)
	}, may)
}

// OfCookie returns the session whose cookie this is, or was before the last
// ReauthenticatedBrowser, ended or not. It returns ErrInvalid for what is no cookie, and where
// the record cannot be read. If there is no such session, or the cookie is not its, it
// returns state.ErrNotFound with the ids that the cookie claims.
func (s *Store) OfCookie(ctx context.Context, presented string) (Session, error) {
	c, err := parseCookie(presented)
	if err != nil {
		return Session{}, ErrInvalid
	}
	k := key(c.user.String(), c.session.String())
	claimed := Session{ID: k.ID, UserID: k.Owner}
	stored, err := s.State.Get(ctx, k)
	if errors.Is(err, state.ErrNotFound) {
		return claimed, err
	}
	if err != nil && !errors.Is(err, state.ErrUnreadable) {
		return Session{}, fmt.Errorf("session: of a cookie: %w", err)
	}
	rec, ok := s.read(ctx, k, stored, err)
	if !ok {
		return Session{}, ErrInvalid
	}
	h := hash(c.secret[:])
	if !rec.Browser || !equal(rec.Cookie, h) && !equal(rec.Former, h) {
		return claimed, state.ErrNotFound
	}
	return rec.Session, nil
}

// Used notes that a browser's session, as RecogniseCookie has returned it, is in use: it may lie
// unused from now on for as long as before. Its absolute end does not move. Used writes at most
// every five minutes, or ten times in the time that the session may lie unused; so RenewedAt is
// that much behind, and the session may end that much earlier.
//
// It returns state.ErrNotFound if the session has ended, or has another cookie by now, and
// changes nothing then, also if that happens at the same moment. After any other error the use
// may not be noted.
func (s *Store) Used(ctx context.Context, sess Session) error {
	if !s.worthNoting(sess) {
		return nil
	}
	k := key(sess.UserID, sess.ID)
	stored, err := s.State.Get(ctx, k)
	if errors.Is(err, state.ErrNotFound) {
		return err
	}
	if err != nil && !errors.Is(err, state.ErrUnreadable) {
		return fmt.Errorf("session: used: %w", err)
	}
	rec, ok := s.read(ctx, k, stored, err)
	if !ok || !s.hasCookie(rec, sess.CookieID) {
		return state.ErrNotFound
	}
	if !s.worthNoting(rec.Session) { // another request has noted it
		return nil
	}
	rec.RenewedAt = s.Now()
	value, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("session: encode: %w", err)
	}
	_, err = s.State.Swap(ctx, k, stored.Version, value, s.life(rec, rec.RenewedAt))
	if err != nil && !errors.Is(err, state.ErrChanged) { // else another request has noted it, or has ended the session
		return fmt.Errorf("session: used: %w", err)
	}
	return nil
}

// worthNoting reports whether the last use of a browser's session that was noted is long ago.
func (s *Store) worthNoting(sess Session) bool {
	return sess.Browser && s.Now().Sub(sess.RenewedAt) >= min(notedEvery, s.unused()/10)
}

// hasCookie reports whether the session of a record goes on, and has the cookie of that id.
func (s *Store) hasCookie(rec record, cookieID string) bool {
	return rec.Browser && rec.CookieID == cookieID && cookieID != "" && !rec.Ended && rec.ExpiresAt.Sub(s.Now()) >= minLife
}

// ReauthenticatedBrowser notes that the user of a browser's session has authenticated again at
// a time, and returns the session with another cookie. amr are the methods that the session has
// from now on. AuthTime is that time, unless a later one is known. The session counts as used.
//
// cookieID is the id of the cookie with which the user came. Of several calls with one cookie
// exactly one succeeds, and the others return ErrInvalid, as for a session that has ended or is
// no browser's. After any other error the session may have another cookie, which nobody has:
// then its user has to sign in again.
func (s *Store) ReauthenticatedBrowser(ctx context.Context, userID, id, cookieID string, at time.Time, amr []string) (Session, string, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return Session{}, "", ErrInvalid
	}
	k := key(userID, parsed.String())
	for { // each round that fails is one in which another caller has succeeded
		stored, err := s.State.Get(ctx, k)
		if errors.Is(err, state.ErrNotFound) {
			return Session{}, "", ErrInvalid
		}
		if err != nil && !errors.Is(err, state.ErrUnreadable) {
			return Session{}, "", fmt.Errorf("session: reauthenticated: %w", err)
		}
		rec, ok := s.read(ctx, k, stored, err)
		if !ok || !s.hasCookie(rec, cookieID) {
			return Session{}, "", ErrInvalid
		}
		cookie, err := s.giveCookie(&rec)
		if err != nil {
			return Session{}, "", err
		}
		if at.After(rec.AuthTime) {
			rec.AuthTime = at
		}
		rec.AMR = amr
		now := s.Now()
		if now.After(rec.RenewedAt) {
			rec.RenewedAt = now
		}
		value, err := json.Marshal(rec)
		if err != nil {
			return Session{}, "", fmt.Errorf("session: encode: %w", err)
		}
		_, err = s.State.Swap(ctx, k, stored.Version, value, s.life(rec, now))
		if errors.Is(err, state.ErrChanged) {
			continue // its use was noted, or it has another cookie, or has ended: look again
		}
		if err != nil {
			return Session{}, "", fmt.Errorf("session: reauthenticated: %w", err)
		}
		return rec.Session, cookie, nil
	}
}
