package activity

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/testenv"
)

func inSQL(t testing.TB, url string) state.Store {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return sqlstate.New(db, time.Now)
}

func inRedis(t testing.TB, url string) *redisstate.Store {
	t.Helper()
	s, err := redisstate.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Over each kind of state two replicas see each other, the longest record is kept, and a replica
// that starts again goes on.
func TestBackends(t *testing.T) {
	redis, behind := testenv.Redis(t), testenv.Postgres(t)
	for name, open := range map[string]func() state.Store{
		"sqlite":   func() state.Store { return inSQL(t, "sqlite:"+filepath.Join(t.TempDir(), "watchword.db")) },
		"postgres": func() state.Store { return inSQL(t, behind) },
		"mariadb":  func() state.Store { return inSQL(t, testenv.MariaDB(t)) },
		"redis":    func() state.Store { return inRedis(t, redis) },
		"tiered": func() state.Store {
			tier := tiered.New(tiered.Config{
				Truth: inSQL(t, testenv.Postgres(t)), Redis: inRedis(t, testenv.Redis(t)).Copies(tiered.Timeout), Kind: session.Kind, Secret: []byte("the cluster's secret"),
				Log: func() string { return "log" }, Margin: 5 * time.Second, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
			})
			t.Cleanup(func() { tier.Close() })
			return tier
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open()
			now := time.Now()
			clock := func() time.Time { return now }
			a, b := boot(t, s, "a", clock), boot(t, s, "b.example", clock)
			a.kept = full(func() uint32 { return maxFigure })
			a.loaded = true
			for range 3 {
				b.verified(2)
				for _, r := range []*replica{a, b} {
					if err := r.keep(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				now = now.Add(Every)
			}
			b = boot(t, s, "b.example", clock) // starts again
			b.verified(5)
			if err := b.keep(t.Context()); err != nil {
				t.Fatal(err)
			}
			now = now.Add(lag + Every/2)
			o := a.overview(t, time.Hour)
			if got := verificationsOf(o.of(t, "b.example")); got != 11 || o.Unreadable > 0 || o.More {
				t.Errorf("%d verifications, want 11; %d unreadable", got, o.Unreadable)
			}
			if o = b.overview(t, 48*time.Hour); len(o.Replicas) == 0 {
				t.Error("there are no replicas")
			}
		})
	}
}

// Redis is killed and comes back with nothing: a replica writes what it has kept in memory.
func TestRedisForgets(t *testing.T) {
	server := testenv.StartRedis(t)
	s := inRedis(t, server.URL)
	now := time.Now()
	a := boot(t, s, "a", func() time.Time { return now })
	a.verified(4)
	if err := a.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	now = now.Add(Every)
	a.verified(3)
	if err := a.keep(t.Context()); err == nil {
		t.Error("a server that is gone has kept it")
	}
	server.Start(t)
	testenv.FlushRedis(t, server)
	now = now.Add(Every)
	a.verified(2)
	for deadline := time.Now().Add(30 * time.Second); ; { // its client has noticed
		err := a.keep(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	now = now.Add(lag + Every/2)
	if got := verificationsOf(a.overview(t, time.Hour).of(t, "a")); got != 9 {
		t.Errorf("%d of 9", got)
	}
}
