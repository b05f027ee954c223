package sqlstore

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
)

// The setting that says since when all replicas have stopped, if the rows of the others say so,
// too. It begins with the version of the registry that was written together with it. Whatever
// raises the version and does not write the setting makes it void: a key that is made, and also a
// replica of an older version that enters or leaves.
const stopSetting = "cluster.stopped"

const selectStop = "COALESCE((SELECT value FROM settings WHERE name = '" + stopSetting + "'), '')"

// parseStop returns what the setting says; nothing if it was not written in that version.
func parseStop(value string, version int64) (stop store.Stop) {
	fields := strings.Fields(value)
	if len(fields) < 2 || fields[0] != strconv.FormatInt(version, 10) {
		return stop
	}
	if micros, err := strconv.ParseInt(fields[1], 10, 64); err == nil && micros > 0 {
		stop = store.Stop{CachesEnd: timeOf(micros), Started: fields[2:]}
	}
	return stop
}

func putStop(ctx context.Context, q sqldb.Q, version int64, stop store.Stop) error {
	if stop.CachesEnd.IsZero() {
		return nil
	}
	fields := append([]string{strconv.FormatInt(version, 10), strconv.FormatInt(store.Micros(stop.CachesEnd), 10)}, stop.Started...)
	_, err := q.Exec(ctx, q.Dialect().Upsert("settings", []string{"name"}, []string{"value"}), stopSetting, strings.Join(fields, " "))
	return err
}

// A present is the registry as a transaction finds it that changes it.
type present struct {
	version  int64
	now      time.Time
	stop     store.Stop
	replicas []store.Replica
}

// readPresent locks the registry until the commit.
func readPresent(ctx context.Context, q sqldb.Q) (p present, err error) {
	// The lock first: on MariaDB, what is read after it is then as new as the version.
	if p.version, err = one(ctx, q, readInt, "SELECT version FROM registry_head WHERE id = 1"+q.Dialect().ForUpdate()); err != nil {
		return p, err
	}
	p, err = one(ctx, q, func(scan sqldb.Scan) (p present, err error) {
		var now int64
		var stop string
		err = scan(&p.version, &now, &stop)
		p.now, p.stop = timeOf(now), parseStop(stop, p.version)
		return p, err
	}, "SELECT version, "+q.Dialect().Now()+", "+selectStop+" FROM registry_head WHERE id = 1")
	if err == nil {
		p.replicas, err = list(ctx, q, readReplica, selectReplicas)
	}
	return p, err
}

// find returns the row of an instance.
func (p present) find(instance string) (store.Replica, error) {
	i := slices.IndexFunc(p.replicas, func(r store.Replica) bool { return r.Instance == instance })
	if i < 0 {
		return store.Replica{}, store.ErrNotFound
	}
	return p.replicas[i], nil
}

// entered returns the stop as it is when a replica has entered; none if some replica is live
// that has not started since, or may have been.
func (p present) entered(r store.Replica) store.Stop {
	if r.Seen != 0 { // it was live before, and has lost its row
		return store.Stop{}
	}
	stop := p.stop
	seen := int64(math.MinInt64)
	for _, other := range p.replicas {
		seen = max(seen, other.Seen)
		if slices.Contains(stop.Started, other.Incarnation) {
			continue
		}
		if other.Instance != r.Instance && p.now.Sub(other.BeatAt) < timing.LiveFor {
			return store.Stop{}
		}
		stop.CachesEnd = latest(stop.CachesEnd, other.BeatAt.Add(timing.LiveFor+other.MaxAge))
	}
	// Each replica has written which version it had seen. If there is a later one, somebody else
	// was there after them all, unless it was a replica that has left.
	if p.stop.CachesEnd.IsZero() && seen != p.version {
		return store.Stop{}
	}
	if !slices.Contains(stop.Started, r.Incarnation) {
		stop.Started = append(slices.Clone(stop.Started), r.Incarnation)
	}
	return stop
}

// left returns the stop as it is when a replica has left by itself. Of what was before, nothing
// is known that is not in the rows of the others; but it was before.
func (p present) left(r store.Replica) store.Stop {
	p.stop.CachesEnd = latest(p.stop.CachesEnd, p.now.Add(r.MaxAge))
	return p.stop
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// LeaveRegistry implements store.Registry.
func (s *Store) LeaveRegistry(ctx context.Context, instance, incarnation string) error {
	return s.removeReplica(ctx, instance, incarnation, present.left)
}

// ForgetReplica implements store.Registry.
func (s *Store) ForgetReplica(ctx context.Context, instance, incarnation string) error {
	return s.removeReplica(ctx, instance, incarnation, func(p present, _ store.Replica) store.Stop { return p.stop })
}

func (s *Store) removeReplica(ctx context.Context, instance, incarnation string, after func(present, store.Replica) store.Stop) error {
	return s.write(ctx, func(q sqldb.Q) error {
		p, err := readPresent(ctx, q)
		if err != nil {
			return err
		}
		r, err := p.find(instance)
		if errors.Is(err, store.ErrNotFound) || r.Incarnation != incarnation {
			return nil
		}
		for _, table := range []string{"replicas", "replica_secrets"} {
			if _, err := q.Exec(ctx, "DELETE FROM "+table+" WHERE instance = ? AND incarnation = ?", instance, incarnation); err != nil {
				return err
			}
		}
		version, err := raiseRegistry(ctx, q)
		if err != nil {
			return err
		}
		return putStop(ctx, q, version, after(p, r))
	})
}
