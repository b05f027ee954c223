package session

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/watchword-auth/watchword/internal/state"
)

// read decodes what the state returned for a key, and reports whether that is a
// record; err is the state's own error. A record that cannot be read locks nobody out:
// it becomes a session of which nothing is known.
func (s *Store) read(ctx context.Context, k state.Key, stored state.Record, err error) (record, bool) {
	var rec record
	if err == nil {
		rec, err = decode(k, stored)
	}
	if err == nil {
		return rec, true
	}
	if s.logged.add(k) {
		s.metrics.unreadable.Inc()
		s.Logger.WarnContext(ctx, "the record of a session cannot be read; it renews nothing, and is the first to be ended when the user has too many",
			"session", k.ID, "user", k.Owner, "err", err)
	}
	return record{Session: Session{ID: k.ID, UserID: k.Owner, Unreadable: true}}, false
}

// decode decodes a record, and checks that it belongs to the key under which it was
// found.
func decode(k state.Key, stored state.Record) (rec record, err error) {
	if err := json.Unmarshal(stored.Value, &rec); err != nil {
		return record{}, err
	}
	if key(rec.UserID, rec.ID) != k {
		return record{}, errors.New("it is another session's")
	}
	if rec.AuthTime.IsZero() {
		rec.AuthTime = rec.CreatedAt
	}
	return rec, nil
}

// maxLogged bounds how many keys are remembered.
const maxLogged = 1000

// loggedKeys are the keys whose unreadable records stand in the log.
type loggedKeys struct {
	mu   sync.Mutex
	keys map[state.Key]bool
}

// add reports whether the key is a new one, as far as the others are remembered.
func (l *loggedKeys) add(k state.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys[k] {
		return false
	}
	if l.keys == nil || len(l.keys) >= maxLogged {
		l.keys = map[state.Key]bool{}
	}
	l.keys[k] = true
	return true
}
