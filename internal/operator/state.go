package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
)

// OpenRedis opens the Redis in which an installation keeps its state. url returns redis.url as
// it is now.
func OpenRedis(cfg *config.Config, url func() string, installation string, logger *slog.Logger) (*redisstate.Store, error) {
	roots, err := Certificates("redis.ca_file", cfg.Redis.CAFile)
	if err != nil {
		return nil, err
	}
	redis, err := redisstate.OpenChanging(url, roots, logger)
	if err != nil {
		return nil, err
	}
	redis.Installation = installation
	return redis, nil
}

// OpenLimits makes Limits, over the state in which the replicas of cfg count, and returns what
// closes that state. It is for a process that is no replica.
func (p *Parts) OpenLimits(ctx context.Context, cfg *config.Config, logger *slog.Logger) (closeState func() error, err error) {
	counters, closeState, err := p.openCounters(ctx, cfg, logger)
	if err != nil {
		return nil, err
	}
	p.Limits = newLimits(Assembly{
		Config: cfg, State: counters, Replicas: func() int { return 1 }, Now: time.Now, Logger: logger, Registerer: prometheus.NewRegistry(),
	}, p.Audit)
	return closeState, nil
}

// openCounters opens the state in which replicas count. What is tiered is counted in the
// database, which has the truth.
func (p *Parts) openCounters(ctx context.Context, cfg *config.Config, logger *slog.Logger) (state.Store, func() error, error) {
	switch cfg.StateBackend() {
	case config.StateMemory:
		return nil, nil, errors.New("state.backend: with memory, the replica alone has what it counts; ask it: GET /api/limits, and DELETE /api/limits/accounts/{id} or /api/limits/addresses/{address}")
	case config.StateSQL, config.StateTiered:
		return sqlstate.New(p.DB, time.Now), func() error { return nil }, nil
	}
	installation, err := Installation(ctx, p.Store)
	if err != nil {
		return nil, nil, err
	}
	redis, err := OpenRedis(cfg, func() string { return cfg.Redis.URL }, installation, logger)
	if err != nil {
		return nil, nil, err
	}
	if err := redisstate.Cause(redis.Ping(ctx)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("redis.url: %w", err), redis.Close())
	}
	return redis, redis.Close, nil
}
