package sqldb

import (
	"errors"
	"testing"
	"time"
)

// Whether a database takes writes is found out by a write, unless one has just succeeded.
func TestTakesWrites(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		writes := 0
		db := migrated(t, Config{URL: url, Watch: func(query string, _ []any, _ error) {
			if query[:6] != "SELECT" {
				writes++
			}
		}})
		ask := func(want int) {
			t.Helper()
			writes = 0
			if err := db.TakesWrites(t.Context()); err != nil || writes != want {
				t.Errorf("%d writes, %v", writes, err)
			}
		}
		db.writer.wrote.Store(0)
		ask(1)
		ask(0)
		db.writer.wrote.Store(time.Now().Add(-db.dialect.writeTrust()).UnixNano())
		ask(1)
		if _, err := db.Exec(t.Context(), insertSetting, "a", "b"); err != nil {
			t.Fatal(err)
		}
		ask(0)
		db.Close()
		if err := db.TakesWrites(t.Context()); err == nil {
			t.Error("a database that is closed")
		}
	})
}

// A file that can be read and not be written, as when its file system was mounted read-only
// after an error.
func TestSQLiteTakesNoWrites(t *testing.T) {
	db := migrated(t, Config{URL: sqliteURL(t)})
	if _, err := db.writer.db.Exec("PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), insertSetting, "a", "b"); !errors.Is(err, ErrReadOnly) || !errors.Is(err, ErrBusy) {
		t.Errorf("a write: %v", err)
	}
	if err := db.TakesWrites(t.Context()); !errors.Is(err, ErrReadOnly) {
		t.Errorf("it does: %v", err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("reading: %v", err)
	}
	if _, err := db.writer.db.Exec("PRAGMA query_only = 0"); err != nil {
		t.Fatal(err)
	}
	if err := db.TakesWrites(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
