package session_test

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/session/sessiontest"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/testenv"
)

func TestFamilyOnTwoReplicas(t *testing.T) {
	behind := testenv.Postgres(t)
	for name, url := range map[string]string{
		"sqlite":    "sqlite:" + filepath.Join(t.TempDir(), "watchword.db"),
		"postgres":  testenv.Postgres(t),
		"pgbouncer": testenv.PgBouncer(t, behind).URL,
		"mariadb":   testenv.MariaDB(t),
	} {
		t.Run(name, func(t *testing.T) {
			sessiontest.Family(t, [2]state.Store{inSQL(t, url), inSQL(t, url)})
		})
	}
	t.Run("redis", func(t *testing.T) {
		url := testenv.Redis(t)
		sessiontest.Family(t, [2]state.Store{inRedis(t, url), inRedis(t, url)})
	})
	t.Run("tiered", func(t *testing.T) {
		url, sql := testenv.Redis(t), testenv.Postgres(t)
		sessiontest.Family(t, [2]state.Store{
			newReplica(t, sql, url, tiered.Timeout).tier, newReplica(t, sql, url, tiered.Timeout).tier,
		})
	})
}

// What somebody else has written over a session in Redis is no record of ours at all.
func TestGarbageInRedis(t *testing.T) {
	s := inRedis(t, testenv.Redis(t))
	user := uuid.NewString()
	sessions := session.New(session.Config{
		State: s, TTL: time.Hour, RefreshDuration: time.Hour, MaxPerUser: 2, Now: time.Now, Rand: rand.Reader,
		Logger: slog.New(slog.DiscardHandler),
	})
	start := func() (session.Session, string, []session.Session) {
		t.Helper()
		began, refresh, ended, err := sessions.Start(t.Context(), user, 0, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return began, refresh, ended
	}
	spoilt, refresh, _ := start()
	c, err := s.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), c.B().Set().Key("session:{"+user+"}:"+spoilt.ID).Value("garbage").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sessions.Renew(t.Context(), refresh, nil); !errors.Is(err, session.ErrInvalid) {
		t.Errorf("it renews: %v", err)
	}
	start()
	if got, err := sessions.Get(t.Context(), user, spoilt.ID); err != nil || !got.Unreadable {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, _, ended := start(); len(ended) != 1 || ended[0].ID != spoilt.ID || ended[0].UserID != user {
		t.Fatalf("the third sign-in ended %+v", ended)
	}
	if got, err := sessions.Get(t.Context(), user, spoilt.ID); err != nil || !got.Ended {
		t.Errorf("it is %+v, %v", got, err)
	}
	if err := sessions.End(t.Context(), user, spoilt.ID); err != nil {
		t.Fatal(err)
	}
	if all, _, err := sessions.List(t.Context(), user, "", 100); err != nil || len(all) != 2 {
		t.Errorf("left are %+v, %v", all, err)
	}
}

func inSQL(t *testing.T, url string) state.Store {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute}) // 32 callers on a busy machine
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return sqlstate.New(db, time.Now)
}

func inRedis(t *testing.T, url string) *redisstate.Store {
	t.Helper()
	s, err := redisstate.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
