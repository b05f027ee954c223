package process

import (
	"context"
	"encoding/hex"
	"errors"
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
	t.Parallel()
	const many = 1000
	r := newRestore(t, many, 50)
	for name, tt := range map[string]struct {
		empty   func(t testing.TB) (url string)
		hold    string // has every other writer of a group wait; it comes after the users
		waiting string // the session of a restore that does; 0: there is none
		alive   string // how many sessions have a number
	}{
		"postgres": {
			testenv.Postgres, "LOCK TABLE usergroups IN EXCLUSIVE MODE",
			"SELECT COALESCE(MAX(pid), 0) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'INSERT INTO usergroups%'",
			"SELECT COUNT(*) FROM pg_stat_activity WHERE pid = ?",
		},
		"mariadb": {
			testenv.MariaDB, "SELECT id FROM usergroups FOR UPDATE",
			"SELECT COALESCE(MAX(id), 0) FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'INSERT INTO usergroups%'",
			"SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := tt.empty(t)
			db := openDB(t, url)
			if _, err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			killed := errors.New("killed")
			var session int
			err := db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
				if _, err := q.Exec(ctx, tt.hold); err != nil {
					return err
				}
				cmd, out := r.command(url, "restore", r.file)
				if err := cmd.Start(); err != nil {
					return err
				}
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				waitUntil(t, "the restore has written the users", func() bool {
					session = number(t, db, tt.waiting)
					return session != 0 || len(ended) > 0
				})
				_ = cmd.Process.Kill() // it may have ended
				if err := <-ended; err == nil || err.Error() != "signal: killed" {
					return fmt.Errorf("it ended with %v: %s", err, out)
				}
				return killed
			})
			if !errors.Is(err, killed) {
				t.Fatal(err)
			}
			// The server notices only now that the client is gone.
			waitUntil(t, "its session has ended", func() bool { return number(t, db, tt.alive, session) == 0 })
			r.canBeDone(t, url, db)
		})
	}
}

// A restore into SQLite cannot be held up in its middle. It is killed when some of what it
// writes is in the file, and one that has ended by then is begun anew elsewhere.
func TestRestoreKilledOnSQLite(t *testing.T) {
	t.Parallel()
	const many = 5000
	r := newRestore(t, many, 500)
	for deadline := time.Now().Add(patience); ; {
		file := filepath.Join(t.TempDir(), "to.db")
		url := "sqlite:" + file
		db := openDB(t, url)
		if _, err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		cmd, out := r.command(url, "restore", r.file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for written := false; !written && len(ended) == 0; time.Sleep(time.Millisecond) {
			info, err := os.Stat(file + "-wal")
			written = err == nil && info.Size() > 1<<20
		}
		_ = cmd.Process.Kill() // it may have ended
		err := <-ended
		if err != nil && err.Error() != "signal: killed" {
			t.Fatalf("%v: %s", err, out)
		}
		// One that was killed after its end, and before that of the process, counts as done.
		if err != nil && number(t, db, "SELECT COUNT(*) FROM users") != many {
			r.canBeDone(t, url, db)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it always ends before it is killed: %s", out)
		}
	}
}

// A restore is a backup, and what it takes to restore it.
type restore struct {
	dir, file string
	users     int
}

// newRestore makes a backup of a group and so many users, each with a password hash of
// so many bytes.
func newRestore(t *testing.T, users, hash int) *restore {
	t.Helper()
	dir := t.TempDir()
	r := &restore{dir, filepath.Join(dir, "backup"), users}
	from := "sqlite:" + filepath.Join(dir, "from.db")
	addUsers(t, from, users, hash)
	if cmd, out := r.command(from, "backup", r.file); cmd.Run() != nil {
		t.Fatal(out)
	}
	return r
}

// command is `watchword` on a database.
func (r *restore) command(url string, args ...string) (*exec.Cmd, *testenv.Log) {
	cmd, out := exec.Command(binary, args...), &testenv.Log{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, out, out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + url, "AUTH_STORAGE_KEY=" + hex.EncodeToString(make([]byte, 32))}
	return cmd, out
}

// canBeDone fails unless the database is empty and can be restored into.
func (r *restore) canBeDone(t *testing.T, url string, db *sqldb.DB) {
	t.Helper()
	if n := number(t, db, "SELECT COUNT(*) FROM users"); n != 0 {
		t.Errorf("%d users are there", n)
	}
	again, out := r.command(url, "restore", r.file)
	if err := again.Run(); err != nil || !strings.Contains(out.String(), fmt.Sprint(r.users, " users\n")) {
		t.Errorf("again: %v\n%s", err, out)
	}
	if n := number(t, db, "SELECT COUNT(*) FROM users"); n != r.users {
		t.Errorf("%d users are there, want %d", n, r.users)
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

func number(t *testing.T, db *sqldb.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// addUsers makes the schema, a group and n users, each with a password hash of so many
// bytes.
func addUsers(t *testing.T, url string, n, hash int) {
	t.Helper()
	db := openDB(t, url)
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), "INSERT INTO usergroups (id, name, name_key, created_at, updated_at, version) VALUES ('g', 'g', 'g', 0, 0, 0)"); err != nil {
		t.Fatal(err)
	}
	const batch = 1000
	for first := 0; first < n; first += batch {
		rows := make([]string, batch)
		for i := range rows {
			rows[i] = fmt.Sprintf("('%[1]d', 'user %[1]d', 'user %[1]d', '', '', '', '%s', 0, 0, 0, 0, 0, 0)", first+i, strings.Repeat("x", hash))
		}
		if _, err := db.Exec(t.Context(), "INSERT INTO users (id, username, name_key, email, first_name, last_name, password_hash,"+
			" disabled, epoch, session_epoch, created_at, updated_at, version) VALUES "+strings.Join(rows, ", ")); err != nil {
			t.Fatal(err)
		}
	}
}
