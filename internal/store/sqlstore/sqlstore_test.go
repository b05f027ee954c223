package sqlstore_test

import (
	"path/filepath"
	"testing"
	"time"

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
		return testenv.PgBouncer(t, testenv.Postgres(t)).URL
	})
}

func TestMariaDB(t *testing.T) {
	conform(t, "mariadb", func(t *testing.T) string { return testenv.MariaDB(t) })
}

// conform runs the suite on a database that two pools have open, and which every
// test finds empty.
func conform(t *testing.T, name string, fresh func(t *testing.T) (url string)) {
	url := fresh(t)
	open := func() *sqldb.DB {
		db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute}) // 32 callers on a busy machine
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if _, err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		return db
	}
	one, two := open(), open()
	storetest.Run(t, name, func(t *testing.T) (a, b store.Store) {
		empty(t, one)
		return sqlstore.New(one), sqlstore.New(two)
	})
	storetest.RunRegistry(t, name+"-registry", func(t *testing.T) (a, b storetest.RegistryStore) {
		empty(t, one)
		return sqlstore.New(one), sqlstore.New(two)
	})
}

func empty(t *testing.T, db *sqldb.DB) {
	t.Helper()
	for _, statement := range []string{
		"DELETE FROM users", "DELETE FROM identity_marks", "DELETE FROM usergroups", "DELETE FROM claims", "DELETE FROM settings",
		"DELETE FROM signing_keys", "DELETE FROM registered_keys", "DELETE FROM used_kids", "DELETE FROM replicas", "DELETE FROM audit_events", "DELETE FROM audit_seals",
		"DELETE FROM revocations", "UPDATE revocation_head SET seq = 0",
	} {
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}
