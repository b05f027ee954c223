package process

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A restore that is killed in its middle has written nothing, and can be done again.
func TestRestoreKilled(t *testing.T) {
	const many = 10_000
	dir := t.TempDir()
	environment := func(url string) []string {
		return []string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + url, "AUTH_STORAGE_KEY=" + hex.EncodeToString(make([]byte, 32))}
	}
	command := func(url string, args ...string) (*exec.Cmd, *output) {
		cmd, out := exec.Command(binary, args...), &output{}
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, environment(url), out, out
		return cmd, out
	}
	file := filepath.Join(dir, "backup")
	from := "sqlite:" + filepath.Join(dir, "from.db")
	addUsers(t, from, many)
	if cmd, out := command(from, "backup", file); cmd.Run() != nil {
		t.Fatal(out)
	}

	for name, tt := range map[string]struct {
		empty func(t testing.TB) (url string)
		busy  func(url string, db *sqldb.DB) bool // rows are being written
	}{
		"sqlite": {func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "to.db") }, func(url string, _ *sqldb.DB) bool {
			info, err := os.Stat(strings.TrimPrefix(url, "sqlite:") + "-wal")
			return err == nil && info.Size() > 1<<20
		}},
		"postgres": {testenv.Postgres, func(_ string, db *sqldb.DB) bool {
			return number(t, db, "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'INSERT INTO users%'") > 0
		}},
		"mariadb": {testenv.MariaDB, func(_ string, db *sqldb.DB) bool {
			return number(t, db, "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'INSERT INTO users%'") > 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var url string
			var db *sqldb.DB
			// One that has ended before it could be killed is begun anew elsewhere.
			for deadline, killed := time.Now().Add(patience), false; !killed; {
				url = tt.empty(t)
				db = openDB(t, url)
				if _, err := db.Migrate(t.Context()); err != nil {
					t.Fatal(err)
				}
				cmd, out := command(url, "restore", file)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				waitUntil(t, "the restore writes", func() bool { return tt.busy(url, db) || len(ended) > 0 })
				_ = cmd.Process.Kill() // it may have ended
				err := <-ended
				if killed = err != nil && err.Error() == "signal: killed"; err != nil && !killed {
					t.Fatalf("%v: %s", err, out)
				}
				if number(t, db, "SELECT COUNT(*) FROM users") == many { // it was done, and had yet to end
					killed = false
				}
				if !killed && time.Now().After(deadline) {
					t.Fatalf("it always ends before it is killed: %s", out)
				}
			}
			if n := number(t, db, "SELECT COUNT(*) FROM users"); n != 0 {
				t.Errorf("%d users are there", n)
			}
			again, out := command(url, "restore", file)
			if err := again.Run(); err != nil || !strings.Contains(out.String(), fmt.Sprint(many, " users\n")) {
				t.Errorf("again: %v\n%s", err, out)
			}
			if n := number(t, db, "SELECT COUNT(*) FROM users"); n != many {
				t.Errorf("%d users are there, want %d", n, many)
			}
		})
	}
}

func openDB(t *testing.T, url string) *sqldb.DB {
	t.Helper()
	// Time enough for a lock that a test holds.
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, Timeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func number(t *testing.T, db *sqldb.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// addUsers makes the schema and so many users.
func addUsers(t *testing.T, url string, n int) {
	t.Helper()
	db := openDB(t, url)
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const batch = 1000
	for first := 0; first < n; first += batch {
		rows := make([]string, batch)
		for i := range rows {
			rows[i] = fmt.Sprintf("('%[1]d', 'user %[1]d', 'user %[1]d', '', '', '', '%s', 0, 0, 0, 0, 0, 0)", first+i, strings.Repeat("x", 150))
		}
		if _, err := db.Exec(t.Context(), "INSERT INTO users (id, username, name_key, email, first_name, last_name, password_hash,"+
			" disabled, epoch, session_epoch, created_at, updated_at, version) VALUES "+strings.Join(rows, ", ")); err != nil {
			t.Fatal(err)
		}
	}
}
