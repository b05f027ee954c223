// Package sqldbtest gives tests SQLite databases with the whole schema. The migrations run
// once in a process, and each test gets a copy of the file that they made.
package sqldbtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/sqldb"
)

// SQLite returns the URL of a new database for this test. Its revocation log has an id
// of its own, as if the migrations had run on it.
func SQLite(t testing.TB) (url string) {
	t.Helper()
	m, err := migrated()
	if err != nil {
		t.Fatal(err)
	}
	name := make([]byte, len(m.log)/2)
	_, _ = rand.Read(name) // it does not fail
	file := filepath.Join(t.TempDir(), "watchword.db")
	if err := os.WriteFile(file, bytes.Replace(m.file, []byte(m.log), []byte(hex.EncodeToString(name)), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + file
}

// Open opens a new database for this test and closes it with the test.
func Open(t testing.TB) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: SQLite(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// A database is the result of the migrations.
type database struct {
	file []byte
	log  string // the id of its revocation log
}

// migrated runs the migrations on the first call.
var migrated = sync.OnceValues(func() (m database, err error) {
	dir, err := os.MkdirTemp("", "sqldbtest")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(dir)
	ctx, file := context.Background(), filepath.Join(dir, "watchword.db")
	db, err := sqldb.Open(ctx, sqldb.Config{URL: "sqlite:" + file})
	if err != nil {
		return m, err
	}
	_, err = db.Migrate(ctx)
	if err == nil {
		err = db.QueryRow(ctx, "SELECT log_id FROM revocation_head").Scan(&m.log)
	}
	if err := errors.Join(err, db.Close()); err != nil { // closing writes everything into the file
		return m, err
	}
	m.file, err = os.ReadFile(file)
	if err == nil && (m.log == "" || bytes.Count(m.file, []byte(m.log)) != 1) {
		err = errors.New("sqldbtest: the file does not hold the id of the revocation log exactly once")
	}
	return m, err
})
