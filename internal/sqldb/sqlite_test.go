package sqldb

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// parts are what tests run in other processes: part(url).
var parts = map[string]func(url string) error{
	"open": func(url string) error {
		db, err := openPart(url)
		if err != nil {
			return err
		}
		return db.Close()
	},
	// write commits one row after the other in several writers, and says so, until it
	// is killed.
	"write": func(url string) error {
		db, err := openPart(url)
		if err != nil {
			return err
		}
		failed := make(chan error)
		for w := range writersToKill {
			go func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("%d-%d", w, i)
					if _, err := db.Exec(context.Background(), insertSetting, name, "x"); err != nil {
						failed <- err
					}
					fmt.Println(name)
				}
			}()
		}
		return <-failed
	},
	"migrate": func(url string) error {
		db, err := openPart(url)
		if err != nil {
			return err
		}
		applied, err := db.Migrate(context.Background())
		fmt.Println("applied", len(applied))
		return errors.Join(err, db.Close())
	},
}

// openPart opens the database for a part.
func openPart(url string) (*DB, error) {
	return Open(context.Background(), Config{URL: url, AcquireTimeout: patience, Timeout: 2 * patience})
}

// process prepares a part of this test to run in a process of its own.
func process(t *testing.T, part, url string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "WATCHWORD_TEST_PART="+part, "WATCHWORD_TEST_URL="+url)
	return cmd
}

func TestSQLiteIsPrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	url := sqliteURL(t)
	path := strings.TrimPrefix(url, "sqlite:")
	var log bytes.Buffer
	cfg := Config{URL: url, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	migrated(t, cfg)
	for _, file := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("a warning for nothing: %s", &log)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, cfg)
	if !strings.Contains(log.String(), "chmod 600") {
		t.Errorf("no warning: %s", &log)
	}
}

// The directory of the default is made. Any other is not, because it may be a volume that
// is not mounted.
func TestSQLiteDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	open(t, Config{URL: "sqlite:data/watchword.db"})
	if info, err := os.Stat("data"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data: %v, %v", info, err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"other/data/watchword.db", here + "/other/watchword.db", "../other/watchword.db"} {
		_, err := Open(t.Context(), Config{URL: "sqlite:" + path})
		if err == nil || !strings.Contains(err.Error(), "does not exist: make it") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Open(t.Context(), Config{URL: "sqlite:data"}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
}

func TestSQLiteStrangePaths(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a b.db", "ä?mode=memory&x#y.db", "100%25.db"} {
		migrated(t, Config{URL: "sqlite:" + filepath.Join(dir, name)})
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if files, err := filepath.Glob(dir + "/*.db"); err != nil || len(files) != 3 {
		t.Errorf("%q, %v", files, err)
	}
}

// Files and directories that may not be written, as a user who is not root.
func TestSQLiteReadOnly(t *testing.T) {
	root, err := os.MkdirTemp("", "watchword-readonly-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(root, 0o755))
	closed, file := filepath.Join(root, "closed"), filepath.Join(root, "file")
	must(os.Mkdir(closed, 0o755))
	must(os.Mkdir(file, 0o777))
	must(os.Chmod(file, 0o777))
	db, err := Open(t.Context(), Config{URL: "sqlite:" + file + "/watchword.db"})
	must(err)
	must(db.Close())
	must(os.Chmod(file+"/watchword.db", 0o444))
	must(os.Chmod(closed, 0o555))
	for _, url := range []string{"sqlite:" + closed + "/new.db", "sqlite:" + file + "/watchword.db"} {
		cmd := process(t, "open", url)
		cmd.Dir = "/"
		if os.Getuid() == 0 {
			exe := filepath.Join(root, "test")
			if _, err := os.Stat(exe); err != nil {
				must(os.Link(os.Args[0], exe))
			}
			cmd.Path = exe
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "let this user (uid") {
			t.Errorf("%s: %s %v", url, out, err)
		}
	}
}

func TestSQLiteNotADatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "watchword.db")
	text := bytes.Repeat([]byte("these are the accounts of the year 2025\n"), 100)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{URL: "sqlite:" + path})
	if err == nil || !strings.Contains(err.Error(), "is not an SQLite database") {
		t.Errorf("error %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, text) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestSQLiteDiskFull(t *testing.T) {
	db, ctx := migrated(t, Config{URL: sqliteURL(t)}), t.Context()
	var pages int
	if err := db.QueryRow(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		t.Helper()
		if _, err := db.writer.db.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
			t.Fatal(err)
		}
	}
	limit(pages + 5)
	big := strings.Repeat("x", 100_000)
	_, err := db.Exec(ctx, insertSetting, "big", big)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "is full; free some space") {
		t.Errorf("error %v", err)
	}
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows", n)
	}
	limit(pages + 1000)
	if _, err := db.Exec(ctx, insertSetting, "big", big); err != nil {
		t.Errorf("when there is space again: %v", err)
	}
}

// A caller waits for the lock of another process. The error then names the cause.
func TestSQLiteLocked(t *testing.T) {
	url := sqliteURL(t)
	first := migrated(t, Config{URL: url})
	second := open(t, Config{URL: url, AcquireTimeout: 50 * time.Millisecond})
	err := first.InTx(t.Context(), func(ctx context.Context, q Q) error {
		_, err := second.Exec(ctx, insertSetting, "a", "b")
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "another process keeps") {
			t.Errorf("error %v", err)
		}
		return second.Ping(ctx) // readers do not wait for writers
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := second.Exec(t.Context(), insertSetting, "a", "b"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Many writers and readers of one file, in two pools, all succeed.
func TestSQLiteManyWriters(t *testing.T) {
	url := sqliteURL(t)
	dbs := []*DB{migrated(t, Config{URL: url}), open(t, Config{URL: url})}
	const writers, each = 16, 20
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			db := dbs[i%2]
			for n := range each {
				if _, err := db.Exec(t.Context(), insertSetting, fmt.Sprint(i, "-", n), "x"); err != nil {
					t.Error(err)
				}
				if err := db.QueryRow(t.Context(), "SELECT value FROM settings WHERE name = ?",
					fmt.Sprint(i, "-", n)).Scan(new(string)); err != nil {
					t.Errorf("what was written is not read: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, dbs[0]); n != writers*each {
		t.Errorf("%d rows, want %d", n, writers*each)
	}
}

const writersToKill = 8

// Every answered write is there after the process was killed, also one that shared a
// commit.
func TestSQLiteKilled(t *testing.T) {
	url := sqliteURL(t)
	migrated(t, Config{URL: url}).Close()
	total := 0
	for round := range 3 {
		cmd := process(t, "write", url)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var answered []string
		for lines.Scan() {
			answered = append(answered, lines.Text())
			if len(answered) == 200 {
				cmd.Process.Kill() // and read on what it had said before it died
			}
		}
		_ = cmd.Wait()
		if len(answered) < 200 {
			t.Fatalf("the writer ended after %q", answered)
		}
		db := open(t, Config{URL: url})
		for _, name := range answered {
			if err := db.QueryRow(t.Context(), "SELECT value FROM settings WHERE name = ?", name).Scan(new(string)); err != nil {
				t.Errorf("round %d: %s was answered: %v", round, name, err)
			}
		}
		if n := count(t, db); n > len(answered)+writersToKill {
			t.Errorf("round %d: %d rows, but %d were answered", round, n, len(answered))
		}
		var health string
		if err := db.QueryRow(t.Context(), "PRAGMA integrity_check").Scan(&health); health != "ok" {
			t.Errorf("the file is damaged: %s, %v", health, err)
		}
		if _, err := db.Exec(t.Context(), "DELETE FROM settings WHERE name <> 'schema_oldest'"); err != nil {
			t.Fatal(err)
		}
		db.Close()
		total += len(answered)
	}
	t.Logf("%d rows answered before three kills", total)
}

// Starting on an empty directory: `watchword serve` for the first time.
func BenchmarkSQLiteStart(b *testing.B) {
	dir := b.TempDir()
	for i := range b.N {
		db, err := Open(b.Context(), Config{URL: fmt.Sprintf("sqlite:%s/%d.db", dir, i)})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := db.Migrate(b.Context()); err != nil {
			b.Fatal(err)
		}
		db.Close()
	}
}

// A commit that is on the disk when it is answered.
func BenchmarkSQLiteCommit(b *testing.B) {
	ctx := b.Context()
	db, err := Open(ctx, Config{URL: "sqlite:" + b.TempDir() + "/watchword.db"})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(ctx); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := db.Exec(ctx, insertSetting, fmt.Sprint(i), "x"); err != nil {
			b.Fatal(err)
		}
	}
}
