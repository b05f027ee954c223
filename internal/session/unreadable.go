package session

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/state"
)

// read reads what was found under a key, and says whether it could: err is why the
// state could not. Nobody is locked out by a record that cannot be read; what is left
// of it is a session of which nothing is known.
func (s *Store) read(ctx context.Context, k state.Key, stored state.Record, err error) (record, bool) {
	var rec record
	if err == nil {
		rec, err = decode(k, stored)
	}
	if err == nil {
		return rec, true
	}
	if s.told.first(k) {
		s.metrics.unreadable.Inc()
		s.Logger.WarnContext(ctx, "the record of a session cannot be read; it renews nothing, and is the first to be ended when the user has too many",
			"session", k.ID, "user", k.Owner, "err", err)
	}
	return record{Session: Session{ID: k.ID, UserID: k.Owner, Unreadable: true}}, false
}

// decode decodes a record, and makes sure that it is of the session under whose name
// it was found.
func decode(k state.Key, stored state.Record) (rec record, err error) {
	if err := json.Unmarshal(stored.Value, &rec); err != nil {
		return record{}, err
	}
	if key(rec.UserID, rec.ID) != k {
		return record{}, errors.New("it is another session's")
	}
	return rec, nil
}

// maxTold bounds how many records are remembered.
const maxTold = 1000

// told remembers which records the log has been told of.
type told struct {
	mu   sync.Mutex
	keys map[state.Key]bool
}

// first says whether it was asked about a key for the first time, as far as it
// remembers.
func (t *told) first(k state.Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys[k] {
		return false
	}
	if t.keys == nil || len(t.keys) >= maxTold {
		t.keys = map[state.Key]bool{}
	}
	t.keys[k] = true
	return true
}

type metrics struct{ unreadable prometheus.Counter }

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{unreadable: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "watchword_session_unreadable_records_total",
		Help: "Records of sessions that could not be read.",
	})}
	if r != nil {
		r.MustRegister(m.unreadable)
	}
	return m
}
