package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/state"
)

// Reauthenticated notes that the user of a session has authenticated again at a time, by the
// methods of amr (RFC 8176), and returns the session: AuthTime is that time, unless a later
// one is known, and AMR has the methods, in addition to those that it had. Refresh tokens and
// the session's life stay as they are.
//
// It returns ErrInvalid for a session that has ended or expired, that does not exist, that is a
// browser's, or whose record cannot be read, and begins none of them anew. Whether the user may still have the
// session is for the caller to judge. After any other error it may or may not be noted, and
// the call can be repeated.
//
// While replicas are updated, a former version may renew the session. Its record then has
// neither AuthTime nor AMR any more: the next access tokens say less than is true, never more,
// and where that does not suffice the user has to authenticate again.
func (s *Store) Reauthenticated(ctx context.Context, userID, id string, at time.Time, amr []string) (Session, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return Session{}, ErrInvalid
	}
	k := key(userID, parsed.String())
	for { // each round that fails is one in which another caller has succeeded
		stored, err := s.State.Get(ctx, k)
		if errors.Is(err, state.ErrNotFound) {
			return Session{}, ErrInvalid
		}
		if err != nil && !errors.Is(err, state.ErrUnreadable) {
			return Session{}, fmt.Errorf("session: reauthenticated: %w", err)
		}
		rec, ok := s.read(ctx, k, stored, err)
		left := s.left(rec)
		if !ok || rec.Browser || rec.Ended || rec.ExpiresAt.Sub(s.Now()) < minLife || left < state.MinTTL {
			return Session{}, ErrInvalid
		}
		methods := slices.Compact(slices.Sorted(slices.Values(slices.Concat(rec.AMR, amr))))
		if !at.After(rec.AuthTime) && slices.Equal(methods, rec.AMR) {
			return rec.Session, nil // a repeated call, or another one has said as much
		}
		if at.After(rec.AuthTime) {
			rec.AuthTime = at
		}
		rec.AMR = methods
		value, err := json.Marshal(rec)
		if err != nil {
			return Session{}, fmt.Errorf("session: encode: %w", err)
		}
		_, err = s.State.Swap(ctx, k, stored.Version, value, left)
		if errors.Is(err, state.ErrChanged) {
			continue // a renewal, or a logout, was first: look again
		}
		if err != nil {
			return Session{}, fmt.Errorf("session: reauthenticated: %w", err)
		}
		return rec.Session, nil
	}
}

// left is what is left of the life that the last renewal gave to the record. It goes by the
// record's own times: with those of the backend, whose clock may differ, each call would move
// the end a little.
func (s *Store) left(rec record) time.Duration {
	given := rec.RenewedAt
	if n := len(rec.Recent); n > 0 && rec.Recent[n-1].At.After(given) {
		given = rec.Recent[n-1].At
	}
	return s.life(rec, given) - max(0, s.Now().Sub(given)) // the clock of another replica may be ahead
}
