package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
)

// A shared is the shared state of a node, and the servers that it needs besides
// the database.
type shared struct {
	state.Store
	servers map[string]func(context.Context) error // what to ask whether they answer
	close   func() error
	forgets bool              // what was answered may be undone, by a failover for instance
	redis   *redisstate.Store // nil: there is none
}

// openState opens what state.backend names, or takes what the program brought. db
// is nil if the program brought its own store, too.
func openState(ctx context.Context, cfg *config.Config, db *sqldb.DB, own state.Store, now func() time.Time, logger *slog.Logger, registerer prometheus.Registerer, start *startup) (*shared, error) {
	nothing := func() error { return nil }
	if own != nil {
		if cfg.State.Backend != config.StateAuto {
			return nil, fmt.Errorf("state.backend: it is %s, but this program brings its own state; leave it at auto", cfg.State.Backend)
		}
		// Whether it forgets, nobody knows here.
		return &shared{own, map[string]func(context.Context) error{"state": own.Ping}, nothing, true, nil}, nil
	}
	backend := cfg.StateBackend()
	if db == nil && (backend == config.StateSQL || backend == config.StateTiered) {
		return nil, fmt.Errorf("state.backend: %s needs a database, but this program brings its own store; bring the state, too", backend)
	}
	switch backend {
	case config.StateMemory:
		return &shared{memstate.New(now), nil, nothing, false, nil}, nil
	case config.StateSQL:
		durable := sqlstate.New(db, now)
		if !cfg.Cluster.Enabled {
			return &shared{durable, nil, nothing, false, nil}, nil
		}
		// Another replica may have been given Redis already, or have it still.
		return &shared{tiered.Beside(durable, now, logger), nil, nothing, false, nil}, nil
	}
	roots, err := certificates("redis.ca_file", cfg.Redis.CAFile)
	if err != nil {
		return nil, err
	}
	redis, err := redisstate.OpenTrusting(cfg.Redis.URL, roots)
	if err != nil {
		return nil, err
	}
	s := &shared{redis, map[string]func(context.Context) error{"redis": redis.Ping}, redis.Close, backend == config.StateRedis, redis}
	if backend == config.StateTiered { // which does not need Redis to start
		s.Store, err = tiered.New(tiered.Config{
			Fast: redis, Durable: sqlstate.New(db, now), Secret: []byte(cfg.Cluster.Secret), Now: now, Logger: logger, Registerer: registerer,
		})
		if err != nil {
			return nil, errors.Join(err, redis.Close())
		}
		return s, nil
	}
	if err := start.await(ctx, "ask Redis", redis.Ping); err != nil {
		return nil, errors.Join(fmt.Errorf("redis.url: Redis does not answer; start it, or set state.backend to tiered, which does without while it is away: %w", err), redis.Close())
	}
	if err := redis.Check(ctx); err != nil {
		logger.Warn("Redis may forget sessions", "err", err)
	}
	return s, nil
}

// A replica looks every sweepEvery whether there is something to sweep, and sweeps
// for at most sweepFor, which is shorter: it finds its own lease ended the next time.
const (
	sweepEvery = time.Minute
	sweepFor   = sweepEvery / 2
	sweepBatch = 1000 // records that one call deletes
)

// sweepLease is held by the replica that sweeps.
var sweepLease = state.Key{Kind: "lease", Owner: "sweep", ID: "sweep"}

// sweepState deletes what has expired.
func (n *Node) sweepState(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := sweep(ctx, n.state); err != nil && ctx.Err() == nil {
			n.logger.Warn("expired state could not be deleted; trying again later", "err", err)
		}
	}
}

// sweep deletes what has expired, in small steps, unless another replica does so
// or has just done so: who gets the lease keeps it to its end, and stops by then.
// That there was more to delete is no error.
func sweep(ctx context.Context, s state.Store) error {
	ctx, cancel := context.WithTimeout(ctx, sweepFor)
	defer cancel()
	switch _, err := s.Create(ctx, sweepLease, nil, sweepFor); {
	case errors.Is(err, state.ErrExists):
		return nil
	case err != nil:
		return err
	}
	for progress := false; ; {
		swept, err := s.Sweep(ctx, sweepBatch)
		progress = progress || swept > 0
		switch {
		case progress && errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil
		case err != nil, swept < sweepBatch:
			return err
		}
	}
}
