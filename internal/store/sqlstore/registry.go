package sqlstore

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

var _ store.Registry = (*Store)(nil)

// raiseRegistry gives the registry its next version. It locks the head until the commit,
// so that versions become visible in their order. A transaction that changes keys begins
// with it, so that such transactions queue up there and never deadlock.
func raiseRegistry(ctx context.Context, q sqldb.Q) (int64, error) {
	if _, err := q.Exec(ctx, "UPDATE registry_head SET version = version + 1 WHERE id = 1"); err != nil {
		return 0, err
	}
	return one(ctx, q, readInt, "SELECT version FROM registry_head"+ring(q.Dialect(), store.BellRegistry)+" WHERE id = 1")
}

// ring returns a join with a table of one row. Reading it rings the bell when the
// transaction commits. Only PostgreSQL can.
func ring(d sqldb.Dialect, news string) string {
	if d != sqldb.Postgres {
		return ""
	}
	return " CROSS JOIN (SELECT pg_notify('" + store.BellChannel + "', '" + news + "')) AS bell"
}

// RegistryVersion implements store.Registry.
func (s *Store) RegistryVersion(ctx context.Context) (int64, error) {
	return one(ctx, s.prompt, readInt, "SELECT version FROM registry_head WHERE id = 1")
}

// Registered implements store.Registry. On MariaDB a snapshot may have one version and
// lack an earlier one (see RevocationsAfter). But it has every version up to the one that
// was read before the snapshot; what came later is left for the next call.
func (s *Store) Registered(ctx context.Context) (all store.Registered, err error) {
	ctx, cancel := context.WithTimeout(ctx, sqldb.DefaultTimeout) // a snapshot has no bound of its own
	defer cancel()
	before := int64(math.MaxInt64)
	if s.q.Dialect() == sqldb.MySQL {
		if before, err = s.RegistryVersion(ctx); err != nil {
			return all, translate(err)
		}
	}
	err = s.db.Prompt().Snapshot(ctx, func(ctx context.Context, q sqldb.Q) error {
		all, err = registered(ctx, q)
		return err
	})
	if all.Version > before {
		all.Version = before
		all.Keys = slices.DeleteFunc(all.Keys, func(k store.RegisteredKey) bool { return k.Version > before })
	}
	return all, translate(err)
}

func registered(ctx context.Context, q sqldb.Q) (store.Registered, error) {
	all, err := one(ctx, q, func(scan sqldb.Scan) (r store.Registered, err error) {
		var now int64
		err = scan(&r.Version, &now)
		r.Now = timeOf(now)
		return r, err
	}, "SELECT version, "+q.Dialect().Now()+" FROM registry_head WHERE id = 1")
	if err != nil {
		return all, err
	}
	if all.Keys, err = list(ctx, q, readKey, selectKeys); err != nil {
		return all, err
	}
	all.Replicas, err = list(ctx, q, readReplica, selectReplicas+" ORDER BY instance")
	return all, err
}

const selectReplicas = `SELECT instance, incarnation, url, build, config, max_age, started_at, clock_at, seen, mac, beat_at
	FROM replicas`

func readReplica(scan sqldb.Scan) (r store.Replica, err error) {
	var age, started, clock, beat int64
	err = scan(&r.Instance, &r.Incarnation, &r.URL, &r.Version, &r.Config, &age, &started, &clock, &r.Seen, &r.MAC, &beat)
	r.MaxAge = time.Duration(age) * time.Microsecond
	r.StartedAt, r.ClockAt, r.BeatAt = timeOf(started), timeOf(clock), timeOf(beat)
	return r, err
}

// EnterRegistry implements store.Registry.
func (s *Store) EnterRegistry(ctx context.Context, r store.Replica, within time.Duration) (store.Replica, error) {
	var there store.Replica
	err := s.write(ctx, func(q sqldb.Q) error {
		var err error
		there, err = one(ctx, q, readReplica, selectReplicas+" WHERE instance = ?"+q.Dialect().ForUpdate(), r.Instance)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		now, nowErr := one(ctx, q, readInt, "SELECT "+q.Dialect().Now())
		if nowErr != nil {
			return nowErr
		}
		if err == nil && there.Incarnation != r.Incarnation && within > 0 && timeOf(now).Sub(there.BeatAt) < within {
			return store.ErrConflict
		}
		if err == nil {
			if _, err := q.Exec(ctx, "DELETE FROM replicas WHERE instance = ?", r.Instance); err != nil {
				return err
			}
		}
		err = insert(ctx, q, `INSERT INTO replicas (instance, incarnation, url, build, config, max_age, started_at, clock_at, seen, mac, beat_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.Instance, r.Incarnation, r.URL, r.Version, r.Config, r.MaxAge.Microseconds(),
			store.Micros(r.StartedAt), store.Micros(r.ClockAt), r.Seen, r.MAC, now)
		if err != nil {
			return err
		}
		_, err = raiseRegistry(ctx, q)
		return err
	})
	return there, err
}

// Beat implements store.Registry.
func (s *Store) Beat(ctx context.Context, r store.Replica, news bool) error {
	rows, err := s.prompt.Exec(ctx, `UPDATE replicas SET url = ?, build = ?, config = ?, max_age = ?, started_at = ?,
		clock_at = ?, seen = ?, mac = ?, beat_at = `+s.q.Dialect().Now()+` WHERE instance = ? AND incarnation = ?`,
		r.URL, r.Version, r.Config, r.MaxAge.Microseconds(), store.Micros(r.StartedAt),
		store.Micros(r.ClockAt), r.Seen, r.MAC, r.Instance, r.Incarnation)
	if err := mustMatch(store.ErrStale, rows, err); err != nil || !news {
		return translate(err)
	}
	_, err = one(ctx, s.prompt, readInt, "SELECT version FROM registry_head"+ring(s.q.Dialect(), store.BellRegistry)+" WHERE id = 1")
	return err
}

// LeaveRegistry implements store.Registry.
func (s *Store) LeaveRegistry(ctx context.Context, instance, incarnation string) error {
	return s.write(ctx, func(q sqldb.Q) error {
		rows, err := q.Exec(ctx, "DELETE FROM replicas WHERE instance = ? AND incarnation = ?", instance, incarnation)
		if err != nil || rows == 0 {
			return err
		}
		_, err = raiseRegistry(ctx, q)
		return err
	})
}
