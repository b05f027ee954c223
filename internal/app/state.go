package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/measured"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A shared is the shared state of a replica, with the servers that it needs besides
// the database.
type shared struct {
	state.Store
	servers map[string]func(context.Context) error // each returns nil if the server answers and takes writes
	close   func() error
	forgets bool              // what was answered may be undone, by a failover for instance
	redis   *redisstate.Store // nil: there is none
}

// A backing is what the shared state is opened on.
type backing struct {
	config     *config.Config
	redis      func() string // redis.url as it is now
	db         *sqldb.DB     // nil: the program brings its own store
	view       *revocation.View
	id         string      // of the installation
	own        state.Store // of the program; nil: the one that state.backend names
	now        func() time.Time
	logger     *slog.Logger
	registerer prometheus.Registerer
	start      *startup
}

// openState opens the state that state.backend names, or takes the program's own.
func openState(ctx context.Context, b backing) (*shared, error) {
	nothing := func() error { return nil }
	if b.own != nil {
		if b.config.State.Backend != config.StateAuto {
			return nil, fmt.Errorf("state.backend: it is %s, but this program brings its own state; leave it at auto", b.config.State.Backend)
		}
		// It may forget: nothing is known of it here.
		return &shared{measured.New(b.registerer).Store(b.own, "own"), map[string]func(context.Context) error{"state": b.own.Ping}, nothing, true, nil}, nil
	}
	backend := b.config.StateBackend()
	if b.db == nil && (backend == config.StateSQL || backend == config.StateTiered) {
		return nil, fmt.Errorf("state.backend: %s needs a database, but this program brings its own store; bring the state, too", backend)
	}
	if backend == config.StateMemory { // there is nothing to measure
		return &shared{memstate.New(b.now), nil, nothing, false, nil}, nil
	}
	metrics := measured.New(b.registerer)
	if backend == config.StateSQL {
		return &shared{metrics.Store(sqlstate.New(b.db, b.now), "sql"), nil, nothing, false, nil}, nil
	}
	redis, err := operator.OpenRedis(b.config, b.redis, b.id, b.logger)
	if err != nil {
		return nil, err
	}
	s := &shared{nil, map[string]func(context.Context) error{"redis": redis.Ping}, redis.Close, backend == config.StateRedis, redis}
	if backend == config.StateTiered { // which does not need Redis to start
		tier := tiered.New(tiered.Config{
			Truth: metrics.Store(sqlstate.New(b.db, b.now), "sql"), Redis: metrics.Copies(redis.Copies(tiered.Timeout)), Kind: session.Kind, Secret: []byte(b.config.Cluster.Secret),
			Log: b.view.LogID, Margin: timing.Leeway, Now: b.now, Logger: b.logger, Registerer: b.registerer,
		})
		s.Store, s.close = tier, func() error { return errors.Join(tier.Close(), redis.Close()) }
		return s, nil
	}
	s.Store = metrics.Store(redis, "redis")
	if err := b.start.await(ctx, "ask Redis", func(ctx context.Context) error { return redisstate.Cause(redis.Ping(ctx)) }); err != nil {
		if !errors.Is(err, state.ErrUnavailable) {
			return nil, errors.Join(fmt.Errorf("redis.url: %w", err), redis.Close())
		}
		return nil, errors.Join(fmt.Errorf("redis.url: Redis does not answer; start it, or set state.backend to tiered, which does without while it is away: %w", err), redis.Close())
	}
	if err := redis.Check(ctx); err != nil {
		b.logger.Warn("Redis may forget sessions", "err", err)
	}
	return s, nil
}

// openSessions returns the sessions in a state. A copy of a session's record counts
// only as long as the view of the revocation log clears the session.
func openSessions(cfg *config.Config, s *shared, view *revocation.View, now func() time.Time, logger *slog.Logger, registerer prometheus.Registerer) *session.Store {
	return session.New(session.Config{
		State: s.Store, TTL: cfg.Sessions.TTL, Idle: cfg.Sessions.Idle, MaxPerUser: cfg.Sessions.MaxPerUser,
		RefreshDuration: cfg.Tokens.RefreshDuration, RenewGrace: cfg.Tokens.RenewGrace,
		Revoked: view.SessionRevoked,
		Clear: func(one session.Session) bool {
			return view.Clears(&accesstoken.Token{Subject: one.UserID, SessionID: one.ID, Epoch: one.Epoch, IssuedAt: one.CreatedAt})
		},
		Now: now, Rand: rand.Reader, Logger: logger, Registerer: registerer,
	})
}

// A replica sweeps every sweepEvery, for at most sweepFor. That is shorter, so that its
// own lease has ended the next time.
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

// sweep deletes what has expired, in small steps, unless another replica does so or
// has just done so: the replica that gets the lease keeps it to its end, and stops by
// then. That there was more to delete is no error.
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
