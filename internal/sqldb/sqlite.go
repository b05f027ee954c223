package sqldb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteReaders bounds the connections that read. Reads happen in this process, so more
// connections than processors only cost memory.
const sqliteReaders = 4

// SQLiteFile returns the path of the file in a sqlite: URL, and reports whether the URL
// is one. sqlite:path and sqlite://path are the same.
func SQLiteFile(url string) (string, bool) {
	path, ok := strings.CutPrefix(url, "sqlite:")
	return strings.TrimPrefix(path, "//"), ok
}

// openSQLite opens the file. It makes the file, with mode 0600, if it is missing.
//
// One connection writes and several read: in WAL mode neither side waits for the other,
// and writers that queue up in this process never meet SQLITE_BUSY. A commit is on the
// disk (synchronous=FULL) before it is answered, so that it outlives a power failure;
// NORMAL would only outlive the death of this process. Callers that wait share a commit
// (type commits), which makes the cost bearable.
func (db *DB) openSQLite(ctx context.Context) error {
	path, _ := SQLiteFile(db.cfg.URL)
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return errors.New("sqlite needs the path of a file: sqlite:data/watchword.db")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := db.createFile(path); err != nil {
		return err
	}
	pragmas := url.Values{
		"mode":          {"rw"},
		"_busy_timeout": {strconv.FormatInt(db.cfg.AcquireTimeout.Milliseconds(), 10)},
		"_foreign_keys": {"on"},
		"_defensive":    {"1"},
		"_dqs":          {"0"},
		"_error_rc":     {"1"},
	}
	dsn := func(more ...string) string {
		u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(abs)}
		q := url.Values{}
		for k, v := range pragmas {
			q[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			q.Add(more[i], more[i+1])
		}
		u.RawQuery = q.Encode()
		return u.String()
	}
	open := func(connections, kept int, more ...string) (*pool, error) {
		c, err := sqlite.NewConnector(dsn(more...))
		if err != nil {
			return nil, err
		}
		p := db.newPool(c, connections, kept, true)
		p.db.SetConnMaxLifetime(0) // there is no balancer and no failover
		p.path = path
		return p, nil
	}
	db.writer, err = open(1, 0, "_journal_mode", "WAL", "_synchronous", "FULL", "_txlock", "immediate",
		"_pragma", "journal_size_limit(16777216)")
	if err != nil {
		return err
	}
	db.commits = &commits{pool: db.writer}
	db.reader, err = open(min(db.cfg.MaxConnections, sqliteReaders), 1, "_query_only", "1")
	if err != nil {
		return errors.Join(err, db.writer.close())
	}
	if err := db.tryWriting(ctx); err != nil {
		return errors.Join(sqliteAdvice(path, err), db.writer.close(), db.reader.close())
	}
	return nil
}

// createFile makes an empty database file that only this user can read. It makes the
// directory, too, if that is a child of the working directory, as data/ of the default
// is. Any other directory must exist, so that a volume that is not mounted is not taken
// for an empty database.
func (db *DB) createFile(path string) error {
	dir := filepath.Dir(path)
	if !filepath.IsAbs(dir) && filepath.Dir(dir) == "." && dir != "." && dir != ".." {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("the directory %s cannot be made: %w", dir, err)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrExist):
		// The file is not opened here: closing it would drop the locks that SQLite holds.
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			return fmt.Errorf("%s is a directory; name a file in it", path)
		}
		if info.Mode().Perm()&0o077 != 0 {
			db.cfg.Logger.Warn("the database file can be read by other users of this machine; "+
				"protect it with chmod 600", "file", path, "mode", info.Mode().Perm().String())
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the directory %s does not exist: make it, or mount the volume that belongs there", dir)
	case errors.Is(err, fs.ErrPermission), isReadOnlyFS(err):
		return fmt.Errorf("%s cannot be made: let this user (uid %d) write to the directory %s", path, os.Getuid(), dir)
	}
	return err
}

// tryWriting finds out at the start what would fail later. The switch to WAL mode does
// not wait for other processes as statements do, so it is tried again.
func (db *DB) tryWriting(ctx context.Context) error {
	deadline := time.Now().Add(db.cfg.AcquireTimeout)
	for {
		tx, err := db.writer.db.BeginTx(ctx, nil)
		if err == nil {
			_, err = tx.ExecContext(ctx, "PRAGMA user_version = 0") // BEGIN alone succeeds on a read-only file
			err = errors.Join(err, tx.Rollback())
		}
		if err == nil {
			return nil
		}
		if sqliteKind(err) != refused || sqliteCode(err)&0xff != sqlite3.SQLITE_BUSY || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return sqlite3.SQLITE_OK
}

func sqliteKind(err error) kind {
	code := sqliteCode(err)
	switch code {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return unique
	case sqlite3.SQLITE_ERROR:
		if strings.Contains(err.Error(), "no such table") {
			return noTable
		}
	}
	switch code & 0xff {
	// SQLITE_BUSY comes after busy_timeout has passed, so an immediate retry is no use.
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN:
		return refused
	case sqlite3.SQLITE_READONLY:
		return noWrites
	case sqlite3.SQLITE_FULL:
		return full
	}
	return other
}

// sqliteAdvice adds to an error one sentence about what to change.
func sqliteAdvice(path string, err error) error {
	var advice string
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		advice = fmt.Sprintf("let this user (uid %d) write to the file %s and its directory, and make sure that they are not mounted read-only",
			os.Getuid(), path)
	case sqlite3.SQLITE_NOTADB:
		advice = fmt.Sprintf("%s is not an SQLite database; name another file, or move this one away", path)
	case sqlite3.SQLITE_CORRUPT:
		advice = fmt.Sprintf("%s is damaged; put back a backup", path)
	case sqlite3.SQLITE_FULL:
		advice = fmt.Sprintf("the disk that holds %s is full; free some space", path)
	case sqlite3.SQLITE_BUSY:
		advice = fmt.Sprintf("another process keeps %s locked; only Watchword should have it open", path)
	default:
		return err
	}
	return fmt.Errorf("%s (%w)", advice, err)
}
