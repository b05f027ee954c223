package sqlstate

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// batch is how many rows one statement of Sweep and DeleteOwned deletes: so few that no
// caller waits long for its locks.
const batch = 500

// Store implements state.Store.
type Store struct {
	db  *sqldb.DB
	now func() time.Time
	sql queries
}

var _ state.Store = (*Store)(nil)

// New returns a store in a database whose schema is up to date. Closing the store does
// not close db. now is the clock if the database is SQLite.
func New(db *sqldb.DB, now func() time.Time) *Store {
	return &Store{db: db, now: now, sql: newQueries(db.Dialect(), db.LockTimeout())}
}

// Get implements state.Store. If the context wants the owner of the record, who is a user in
// this database (store.WithWantedSubject), one statement reads both.
func (s *Store) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := key.Check(); err != nil {
		return state.Record{}, err
	}
	if wanted := store.SubjectWanted(ctx); wanted != nil {
		r, owner, err := s.getWithOwner(ctx, key)
		wanted.Put(owner)
		if err != nil || owner != nil {
			return r, unavailable(err)
		} // there is no such record, or no such user
	}
	r, err := readRecord(s.db.QueryRow(ctx, s.sql.get, s.args(key.Kind, key.Owner, key.ID, nowMillis)...).Scan)
	if errors.Is(err, sqldb.ErrNoRows) {
		return state.Record{}, state.ErrNotFound
	}
	return r, unavailable(err)
}

// getWithOwner returns a record and its owner. If one of them does not exist, the owner is
// nil.
func (s *Store) getWithOwner(ctx context.Context, key state.Key) (r state.Record, owner *store.Subject, err error) {
	owner, err = sqlstore.ReadWithOwner(ctx, s.db, func(scan sqldb.Scan) (bool, error) {
		one, err := readRecord(scan)
		isRecord := one.Key.Kind != "" // and no claim
		if isRecord {
			r = one
		}
		return isRecord, err
	}, s.sql.getWithOwner, s.args(key.Kind, key.Owner, key.ID, nowMillis, key.Owner)...)
	return r, owner, err
}

// Put implements state.Store.
func (s *Store) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if err := state.CheckWrite(key, value, ttl); err != nil {
		return 0, err
	}
	version := state.NewVersion()
	if err := again(func() error {
		_, err := s.exec(ctx, s.sql.put, key.Kind, key.Owner, key.ID, blob(value), version, nowMillis, lifetime(ttl))
		return err
	}); err != nil {
		return 0, err
	}
	return version, nil
}

// Create implements state.Store.
func (s *Store) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if err := state.CheckWrite(key, value, ttl); err != nil {
		return 0, err
	}
	version := state.NewVersion()
	for {
		// On MySQL one statement cannot insert a row or replace only an expired one.
		n, err := s.exec(ctx, s.sql.create, key.Kind, key.Owner, key.ID, blob(value), version, nowMillis, lifetime(ttl), nowMillis)
		if errors.Is(err, sqldb.ErrUnique) {
			n, err = s.exec(ctx, s.sql.replace, blob(value), version, nowMillis, lifetime(ttl), key.Kind, key.Owner, key.ID, nowMillis)
		}
		if err != nil {
			return 0, err
		}
		if n > 0 {
			return version, nil
		}
		if _, err := s.Get(ctx, key); err == nil {
			return 0, state.ErrExists
		} else if !errors.Is(err, state.ErrNotFound) {
			return 0, err
		}
		// The record that was there has gone meanwhile.
	}
}

// Swap implements state.Store.
func (s *Store) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if err := state.CheckWrite(key, value, ttl); err != nil {
		return 0, err
	}
	next := state.NewVersion()
	n, err := s.exec(ctx, s.sql.swap, blob(value), next, nowMillis, lifetime(ttl), key.Kind, key.Owner, key.ID, version, nowMillis)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, state.ErrChanged
	}
	return next, nil
}

// Take implements state.Store. Because a version is never used again, deleting exactly
// the version that was read is as good as a transaction.
func (s *Store) Take(ctx context.Context, key state.Key) (state.Record, error) {
	for {
		r, err := s.Get(ctx, key)
		if err != nil {
			return state.Record{}, err
		}
		n, err := s.exec(ctx, s.sql.take, key.Kind, key.Owner, key.ID, r.Version)
		if err != nil {
			return state.Record{}, err
		}
		if n > 0 {
			return r, nil
		}
	}
}

// Delete implements state.Store.
func (s *Store) Delete(ctx context.Context, key state.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	_, err := s.exec(ctx, s.sql.delete, key.Kind, key.Owner, key.ID)
	return err
}

// List implements state.Store.
func (s *Store) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	if err := state.CheckPage(kind, owner, after, limit); err != nil {
		return nil, err
	}
	list, err := sqldb.All(ctx, s.db, readRecord, s.sql.list, s.args(kind, owner, after, nowMillis, limit)...)
	return list, unavailable(err)
}

// DeleteOwned implements state.Store.
func (s *Store) DeleteOwned(ctx context.Context, kind, owner string) (int, error) {
	if err := state.CheckOwned(kind, owner); err != nil {
		return 0, err
	}
	for total := 0; ; {
		n, err := s.exec(ctx, s.sql.deleteOwned, kind, owner, nowMillis, batch)
		total += int(n)
		if err != nil {
			return total, err
		}
		if n == batch {
			continue
		}
		// Less than a batch: it was the last one, or other callers have deleted some of it.
		if left, err := s.List(ctx, kind, owner, "", 1); err != nil || len(left) == 0 {
			return total, err
		}
	}
}

// Limit implements state.Store. An event that is allowed costs one statement, and one that is
// not costs one more, except on MySQL. One more is run for a bucket that is more than full.
// Concurrent callers of one bucket queue up at its row.
func (s *Store) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	if err := key.Check(); err != nil {
		return state.Decision{}, err
	}
	if err := rate.Check(); err != nil {
		return state.Decision{}, err
	}
	for {
		d, known, err := s.count(ctx, key, rate)
		if err == nil && !known {
			d, err = s.refusal(ctx, key, rate)
		}
		if err != nil {
			return state.Decision{}, unavailable(err)
		}
		if known || !d.Allowed {
			return d, nil
		}
		// The bucket has drained, or was reset, since the event was refused.
	}
}

// count counts an event if it is allowed. Without known, it was refused, and the decision is
// not known yet.
func (s *Store) count(ctx context.Context, key state.Key, rate state.Rate) (d state.Decision, known bool, err error) {
	dialect := s.db.Dialect()
	var n int64
	var matched bool
	err = again(func() (err error) {
		n, matched, err = s.db.ExecReturning(ctx, s.sql.count, s.args(countArgs(dialect, key, rate)...)...)
		return err
	})
	switch {
	case err != nil:
		return state.Decision{}, false, err
	case dialect != sqldb.MySQL:
		return rate.Decision(true, max(n, 0)), matched, nil
	case n == 0:
		return rate.Decision(true, rate.Interval()), true, nil
	default:
		moreThanFull := n == 2*rate.Full()
		return rate.Decision(n%2 == 1, n/2), !moreThanFull, nil
	}
}

// refusal reads the bucket, and returns what would be decided now. If the bucket is more than
// full, refusal makes it full, unless it has changed. There is one row also for a bucket that
// does not exist.
func (s *Store) refusal(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	var (
		arrival sql.NullInt64
		now     int64
	)
	err := s.db.QueryRow(ctx, s.sql.rate, s.args(nowMicros, key.Kind, key.Owner, key.ID)...).Scan(&now, &arrival)
	if err != nil {
		return state.Decision{}, err
	}
	next, d := rate.Decide(arrival.Int64, now)
	if !d.Allowed && next != arrival.Int64 {
		_, err = s.db.Exec(ctx, s.sql.shorten, next, next, key.Kind, key.Owner, key.ID, arrival.Int64)
	}
	return d, err
}

// Reset implements state.Store.
func (s *Store) Reset(ctx context.Context, key state.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	_, err := s.exec(ctx, s.sql.reset, key.Kind, key.Owner, key.ID)
	return err
}

// Sweep implements state.Store.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	total := 0
	for _, query := range []string{s.sql.sweepRecords, s.sql.sweepRates} {
		for total < limit {
			most := min(batch, limit-total)
			n, err := s.exec(ctx, query, nowMillis, nowMillis, most)
			if err != nil {
				return total, err
			}
			total += int(n)
			if int(n) < most {
				break
			}
		}
	}
	return total, nil
}

// Ping implements state.Store. It does not wait behind other callers: that they are many
// is no reason to call the database away.
func (s *Store) Ping(ctx context.Context) error { return unavailable(s.db.Prompt().TakesWrites(ctx)) }

// Close implements state.Store. The database stays open.
func (s *Store) Close() error { return nil }

// again runs a statement that inserts a row or changes the one that is there, again if another
// caller has inserted it meanwhile. Of two that insert at the same moment, PostgreSQL finds no
// row by the primary key for either, and may then find the other's in the index by expiry,
// which the statement says nothing of.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, sqldb.ErrUnique) {
			return err
		}
	}
}

// exec runs one statement.
func (s *Store) exec(ctx context.Context, query string, args ...any) (int64, error) {
	n, err := s.db.Exec(ctx, query, s.args(args...)...)
	if err != nil {
		return 0, unavailable(err)
	}
	return n, nil
}
