package session_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/session/sessiontest"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Package tiered has the same test for itself.
func TestFamilyOnTwoReplicas(t *testing.T) {
	behind := testenv.Postgres(t)
	for name, url := range map[string]string{
		"sqlite":    "sqlite:" + filepath.Join(t.TempDir(), "watchword.db"),
		"postgres":  testenv.Postgres(t),
		"pgbouncer": testenv.PgBouncer(t, behind).URL + "&default_query_exec_mode=exec",
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

func inRedis(t *testing.T, url string) state.Store {
	t.Helper()
	s, err := redisstate.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
