package session

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/state"
)

// Copies is a state.Store that has copies of its records at hand, for a caller that
// can do with one.
type Copies interface {
	// Copy returns a copy of the record, if there is one. The record was like it at
	// some moment of the last minute. A copy does not outlive its record.
	Copy(key state.Key) (copied state.Record, found bool)
	// Keep offers a record that Get has returned. asOf is a time before that call.
	Keep(asOf time.Time, r state.Record)
}

// Recognise returns a session that is live, or state.ErrNotFound. It is for callers that
// read a session in each request and write nothing afterwards. Whatever spends or changes
// a session goes by Renew, Stop and End.
//
// Where the state has copies, a copy of the record will do while Clear vouches for
// the session. In every other case the record itself is read and may is asked, whose
// error is returned: as for Renew, it tells whether the user may still have the
// session. The record does not: a session that the user's SessionEpoch has ended may
// have its record for days, and the log has its entry for as long as a token lives.
// So a copy is kept of a record only after may has let it be.
func (s *Store) Recognise(ctx context.Context, userID, id string, may func(context.Context, Session) error) (Session, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return Session{}, state.ErrNotFound
	}
	return s.recognise(ctx, key(userID, parsed.String()), func(record) bool { return true }, may)
}

// recognise returns a session that is live and whose record is meant.
func (s *Store) recognise(ctx context.Context, k state.Key, meant func(record) bool, may func(context.Context, Session) error) (Session, error) {
	copies, _ := s.State.(Copies)
	if copies != nil && s.Clear != nil {
		if copied, found := copies.Copy(k); found {
			// Clear is asked after the copy was read: what it does not list by then had
			// not ended.
			if rec, err := decode(k, copied); err == nil && s.live(rec) && meant(rec) && s.Clear(rec.Session) {
				return rec.Session, nil
			}
		}
	}
	if s.Revoked != nil && s.Revoked(k.ID) {
		return Session{}, state.ErrNotFound
	}
	asOf := s.Now()
	stored, err := s.State.Get(ctx, k)
	if err != nil && !errors.Is(err, state.ErrUnreadable) {
		return Session{}, err
	}
	rec, ok := s.read(ctx, k, stored, err)
	if !ok || !s.live(rec) || !meant(rec) {
		return Session{}, state.ErrNotFound
	}
	if err := may(ctx, rec.Session); err != nil {
		return Session{}, err
	}
	if copies != nil {
		copies.Keep(asOf, stored)
	}
	return rec.Session, nil
}

// live reports whether the record says of itself that its session has not ended.
func (s *Store) live(rec record) bool { return !rec.Ended && s.Now().Before(rec.ExpiresAt) }
