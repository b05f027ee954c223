package sqlstore

import (
	"context"
	"math"
	"slices"
	"strings"
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
		var stop string
		err = scan(&r.Version, &now, &stop)
		r.Now, r.Stop = timeOf(now), parseStop(stop, r.Version)
		return r, err
	}, "SELECT version, "+q.Dialect().Now()+", "+selectStop+" FROM registry_head WHERE id = 1")
	if err != nil {
		return all, err
	}
	if all.Keys, err = list(ctx, q, readKey, selectKeys); err != nil {
		return all, err
	}
	all.Replicas, err = list(ctx, q, readReplica, selectReplicas+" ORDER BY instance")
	return all, err
}

const selectReplicas = `SELECT instance, incarnation, url, build, config, max_age, started_at, clock_at, seen, mac, beat_at,
	COALESCE((SELECT s.secrets FROM replica_secrets s WHERE s.instance = replicas.instance AND s.incarnation = replicas.incarnation), ''),
	COALESCE((SELECT s.entered_at FROM replica_secrets s WHERE s.instance = replicas.instance AND s.incarnation = replicas.incarnation), 0)
	FROM replicas`

func readReplica(scan sqldb.Scan) (r store.Replica, err error) {
	var age, started, clock, beat, entered int64
	var secrets string
	err = scan(&r.Instance, &r.Incarnation, &r.URL, &r.Version, &r.Config, &age, &started, &clock, &r.Seen, &r.MAC, &beat, &secrets, &entered)
	if secrets != "" {
		r.Secrets = strings.Split(secrets, " ")
	}
	r.EnteredAt = timeOf(entered)
	r.MaxAge = time.Duration(age) * time.Microsecond
	r.StartedAt, r.ClockAt, r.BeatAt = timeOf(started), timeOf(clock), timeOf(beat)
	return r, err
}

// EnterRegistry implements store.Registry.
func (s *Store) EnterRegistry(ctx context.Context, r store.Replica, within time.Duration) (store.Replica, error) {
	var there store.Replica
	err := s.write(ctx, func(q sqldb.Q) error {
		p, err := readPresent(ctx, q)
		if err != nil {
			return err
		}
		there, err = p.find(r.Instance)
		if err == nil && there.Incarnation != r.Incarnation && within > 0 && p.now.Sub(there.BeatAt) < within {
			return store.ErrConflict
		}
		if err == nil {
			if _, err := q.Exec(ctx, "DELETE FROM replicas WHERE instance = ?", r.Instance); err != nil {
				return err
			}
			if _, err := q.Exec(ctx, "DELETE FROM replica_secrets WHERE instance = ?", r.Instance); err != nil {
				return err
			}
		}
		err = insert(ctx, q, `INSERT INTO replicas (instance, incarnation, url, build, config, max_age, started_at, clock_at, seen, mac, beat_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.Instance, r.Incarnation, r.URL, r.Version, r.Config, r.MaxAge.Microseconds(),
			store.Micros(r.StartedAt), store.Micros(r.ClockAt), r.Seen, r.MAC, store.Micros(p.now))
		if err != nil {
			return err
		}
		if hasSecrets(r) {
			if err := putSecrets(ctx, q, r); err != nil {
				return err
			}
		}
		version, err := raiseRegistry(ctx, q)
		if err != nil {
			return err
		}
		return putStop(ctx, q, version, p.entered(r))
	})
	return there, err
}

// hasSecrets reports whether a row of replica_secrets belongs to the replica.
func hasSecrets(r store.Replica) bool { return len(r.Secrets) > 0 || !r.EnteredAt.IsZero() }

func putSecrets(ctx context.Context, q sqldb.Q, r store.Replica) error {
	_, err := q.Exec(ctx, q.Dialect().Upsert("replica_secrets", []string{"instance"}, []string{"incarnation", "secrets", "entered_at"}),
		r.Instance, r.Incarnation, strings.Join(r.Secrets, " "), store.Micros(r.EnteredAt))
	return err
}

// Beat implements store.Registry. Only a replica with secrets writes two rows, which belong
// together, and so needs a transaction.
func (s *Store) Beat(ctx context.Context, r store.Replica, news bool) error {
	var err error
	if hasSecrets(r) {
		err = s.db.Prompt().InTxReadCommitted(ctx, func(ctx context.Context, q sqldb.Q) error {
			if err := beat(ctx, q, r); err != nil {
				return err
			}
			return putSecrets(ctx, q, r)
		})
	} else {
		err = beat(ctx, s.prompt, r)
	}
	if err != nil || !news {
		return translate(err)
	}
	_, err = one(ctx, s.prompt, readInt, "SELECT version FROM registry_head"+ring(s.q.Dialect(), store.BellRegistry)+" WHERE id = 1")
	return err
}

func beat(ctx context.Context, q sqldb.Q, r store.Replica) error {
	rows, err := q.Exec(ctx, `UPDATE replicas SET url = ?, build = ?, config = ?, max_age = ?, started_at = ?,
		clock_at = ?, seen = ?, mac = ?, beat_at = `+q.Dialect().Now()+` WHERE instance = ? AND incarnation = ?`,
		r.URL, r.Version, r.Config, r.MaxAge.Microseconds(), store.Micros(r.StartedAt),
		store.Micros(r.ClockAt), r.Seen, r.MAC, r.Instance, r.Incarnation)
	return mustMatch(store.ErrStale, rows, err)
}
