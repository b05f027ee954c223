package sqldb

import (
	"errors"
	"fmt"
	"testing"
)

// returning is a statement that makes a number of its first argument, and matches the row if
// it has another value than the second.
func returning(d Dialect) string {
	if d == MySQL {
		return "UPDATE settings SET value = CONCAT('v', LAST_INSERT_ID(? + 1)) WHERE name = 'a' AND value <> ?"
	}
	return "UPDATE settings SET value = 'v' || CAST(? + 1 AS CHAR(1)) WHERE name = 'a' AND value <> ? RETURNING 1 + CAST(substr(value, 2) AS BIGINT) - 1"
}

func TestExecReturning(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db, ctx := migrated(t, Config{URL: url}), t.Context()
		if _, err := db.Exec(ctx, insertSetting, "a", "x"); err != nil {
			t.Fatal(err)
		}
		query := returning(db.Dialect())
		db.writer.wrote.Store(0)
		for _, not := range []string{"v5", "x"} { // the row has x, then v5
			n, matched, err := db.ExecReturning(ctx, query, 4, not)
			if n != 5 || !matched || err != nil {
				t.Errorf("%d, %v, %v", n, matched, err)
			}
		}
		if db.writer.wrote.Load() == 0 {
			t.Error("that the database takes writes was not noted")
		}
		if n, matched, err := db.ExecReturning(ctx, query, 4, "v5"); n != 0 || matched || err != nil {
			t.Errorf("without a row that matches: %d, %v, %v", n, matched, err)
		}
		if _, _, err := db.ExecReturning(ctx, insertSetting, "a", "y"); !errors.Is(err, ErrUnique) {
			t.Error(err)
		}
	})
}

// Statements that share a commit keep their numbers apart, and a caller gets none if nothing
// was committed.
func TestExecReturningTogether(t *testing.T) {
	db, ctx := migrated(t, Config{URL: sqliteURL(t)}), t.Context()
	if _, err := db.Exec(ctx, insertSetting, "a", "x"); err != nil {
		t.Fatal(err)
	}
	all := []func(){writes(t, db, ctx, nil, insertSetting, "b", "x"), writes(t, db, ctx, ErrUnique, insertSetting, "b", "x")}
	for i := range 5 {
		all = append(all, func() {
			n, matched, err := db.ExecReturning(ctx, returning(SQLite), i, "")
			if n != int64(i+1) || !matched || err != nil {
				t.Errorf("%d of 5: %d, %v, %v", i, n, matched, err)
			}
		})
	}
	queued(t, db, func() {}, all...)
	var value string
	if err := db.QueryRow(ctx, "SELECT value FROM settings WHERE name = 'a'").Scan(&value); err != nil || value != fmt.Sprint("v", 5) {
		t.Error(value, err)
	}
}
