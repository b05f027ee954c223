package tiered_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/session/sessiontest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Refresh tokens are renewed by many at once on two replicas that read copies.
func TestFamily(t *testing.T) {
	t.Parallel()
	redis, sql := testenv.Redis(t), testenv.Postgres(t)
	open := func() state.Store {
		s := replica(openRedis(t, redis), openSQL(t, sql, 10))
		untilReads(t, s)
		return s
	}
	sessiontest.Family(t, [2]state.Store{open(), open()})
}

// A session is renewed in turn on a replica that reads a copy of it, and on one that
// has no Redis: neither takes the other's token for a stolen one.
func TestRenewedInTurn(t *testing.T) {
	t.Parallel()
	durable, l := memstate.New(time.Now), newLink(newServer("x"))
	store := replica(l, durable)
	on := func(s state.Store) *session.Store {
		return session.New(session.Config{
			State: s, TTL: time.Hour, RefreshDuration: time.Hour, RenewGrace: time.Minute, Now: time.Now, Rand: rand.Reader,
		})
	}
	copying, beside := on(store), on(tiered.Beside(durable, time.Now, slog.New(slog.DiscardHandler)))
	user := uuid.NewString()
	one, token, _, err := copying.Start(t.Context(), user, 1, "192.0.2.1", "test", nil)
	check(t, err)
	for range 3 {
		untilReads(t, store)
		hits := l.hits.Load()
		until(t, "a read from the copy", func() bool {
			_, err := copying.Get(t.Context(), user, one.ID)
			check(t, err)
			return l.hits.Load() > hits
		})
		for _, replica := range []*session.Store{beside, copying} {
			_, token, err = replica.Renew(t.Context(), token, func(context.Context, session.Session) error { return nil })
			check(t, err)
		}
	}
}
