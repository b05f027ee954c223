package sqlstate_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
	"github.com/watchword-auth/watchword/internal/testenv"
)

func TestConformanceSQLite(t *testing.T) {
	t.Parallel()
	dirs := make(map[*testing.T]string)
	statetest.Run(t, "sqlite", func(t *testing.T) state.Store {
		if dirs[t] == "" {
			dirs[t] = t.TempDir()
		}
		return open(t, "sqlite:"+filepath.Join(dirs[t], "watchword.db"))
	})
}

func TestConformancePostgres(t *testing.T) {
	t.Parallel()
	statetest.Run(t, "postgres", shared(testenv.Postgres(t)))
}

func TestConformanceMariaDB(t *testing.T) {
	t.Parallel()
	statetest.Run(t, "mariadb", shared(testenv.MariaDB(t)))
}

func TestConformancePgBouncer(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	open(t, url) // migrated
	statetest.Run(t, "postgres-pgbouncer", shared(testenv.PgBouncer(t, url).URL))
}

func shared(url string) func(t *testing.T) state.Store {
	return func(t *testing.T) state.Store { return open(t, url) }
}

func open(t *testing.T, url string) *sqlstate.Store {
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
