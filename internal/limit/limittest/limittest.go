// Package limittest makes Limiters for tests.
package limittest

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
)

// Unlimited returns a Limiter that refuses nothing.
func Unlimited() *limit.Limiter {
	return New(limit.Config{})
}

// New returns a Limiter by a configuration. What is missing there is a state in memory, the
// system's clock, and what nobody looks at.
func New(c limit.Config) *limit.Limiter {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.State == nil {
		c.State = memstate.New(c.Now)
	}
	if c.Replicas == nil {
		c.Replicas = func() int { return 1 }
	}
	if c.Audit == nil {
		c.Audit = nobody{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return limit.New(c)
}

// Attempt returns an attempt of an Unlimited.
func Attempt(ctx context.Context) *limit.Attempt {
	a, err := Unlimited().Attempt(context.WithoutCancel(ctx), limit.Login, "", limit.Account("somebody"))
	if err != nil {
		panic(err) // it refuses nothing
	}
	return a
}

type nobody struct{}

func (nobody) RecordSoon(store.AuditEvent) {}
