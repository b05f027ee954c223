package sqlstore_test

import (
	"path/filepath"
	"testing"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/store/storetest"
	"github.com/watchword-auth/watchword/internal/testenv"
)

func TestSQLite(t *testing.T) {
	conform(t, "sqlite", func(t *testing.T) string {
		return "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
	})
}

func TestPostgres(t *testing.T) {
	conform(t, "postgres", func(t *testing.T) string { return testenv.Postgres(t) })
}

func TestPgBouncer(t *testing.T) {
	conform(t, "postgres-pgbouncer", func(t *testing.T) string {
		return testenv.PgBouncer(t, testenv.Postgres(t)).URL + "&default_query_exec_mode=exec"
	})
}

func TestMariaDB(t *testing.T) {
	conform(t, "mariadb", func(t *testing.T) string { return testenv.MariaDB(t) })
}

// conform runs the suite on fresh databases, each opened by two pools.
func conform(t *testing.T, name string, fresh func(t *testing.T) (url string)) {
	storetest.Run(t, name, func(t *testing.T) (a, b store.Store) {
		url := fresh(t)
		open := func() store.Store {
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if _, err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			return sqlstore.New(db)
		}
		return open(), open()
	})
}
