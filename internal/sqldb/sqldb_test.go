package sqldb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// TestMain lets a test run parts of itself in processes of their own.
func TestMain(m *testing.M) {
	if part := parts[os.Getenv("WATCHWORD_TEST_PART")]; part != nil {
		if err := part(os.Getenv("WATCHWORD_TEST_URL")); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	dialTimeout = time.Second // TestSlowToConnect waits for it
	os.Exit(m.Run())
}

// onAll runs a test on an empty database of every kind.
func onAll(t *testing.T, test func(t *testing.T, url string)) {
	for _, kind := range []struct {
		name  string
		fresh func(t *testing.T) string
	}{
		{"sqlite", sqliteURL},
		{"postgres", func(t *testing.T) string { return testenv.Postgres(t) }},
		{"postgres-pgbouncer", func(t *testing.T) string {
			return testenv.PgBouncer(t, testenv.Postgres(t)).URL
		}},
		{"mariadb", func(t *testing.T) string { return testenv.MariaDB(t) }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			test(t, kind.fresh(t))
		})
	}
}

func sqliteURL(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "watchword.db") }

// patience is how long a test waits for what should come at once: the machine may be
// busy.
const patience = time.Minute

// soak reports whether WATCHWORD_SOAK asks for the long form of what is repeated.
func soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// open opens a database, with more patience than in production unless cfg says how much.
func open(t *testing.T, cfg Config) *DB {
	t.Helper()
	cfg.AcquireTimeout = cmp.Or(cfg.AcquireTimeout, patience)
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*patience)
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func migrated(t *testing.T, cfg Config) *DB {
	t.Helper()
	db := open(t, cfg)
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

func count(t *testing.T, db *DB) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), "SELECT COUNT(*) FROM settings WHERE name <> 'schema_oldest'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// gathered is the value of a metric, over all pools.
func gathered(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

const insertSetting = "INSERT INTO settings (name, value) VALUES (?, ?)"

func TestOpenRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"":                                "must begin with",
		"oracle://x":                      "must begin with",
		"sqlite:":                         "path of a file",
		"sqlite::memory:":                 "path of a file",
		"sqlite:/proc/watchword/x/y.db":   "does not exist",
		"postgres://u:s3cret@h:nop/db":    "cannot be read",
		"postgres://u:s3cret%zz@h/db":     "%XX",
		"mysql://u:s3cret%zz@h/db":        "%XX",
		"mysql://u:s3cret@127.0.0.1:1/":   "must name the database",
		"mysql://u:s3cret@127.0.0.1:1/db": "refused",
		"postgres://u:s3cret@127.0.0.1:1/db?sslmode=disable": "refused",
	} {
		_, err := Open(t.Context(), Config{URL: url})
		if err == nil {
			t.Errorf("%q was opened", url)
		} else if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, want something with %q and no password", url, err, want)
		}
	}
}

func TestQueries(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db, ctx := migrated(t, Config{URL: url}), t.Context()
		for _, name := range []string{"a", "b", "what?"} {
			if n, err := db.Exec(ctx, insertSetting, name, "1"); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if _, err := db.Exec(ctx, insertSetting, "a", "2"); !errors.Is(err, ErrUnique) {
			t.Errorf("a key twice: %v", err)
		}
		// Rows that matched are counted, whether or not they changed.
		if n, err := db.Exec(ctx, "UPDATE settings SET value = ? WHERE name = 'what?' OR name = ?", "1", "a"); n != 2 || err != nil {
			t.Errorf("matched %d, %v", n, err)
		}
		names, err := All(ctx, db, func(scan Scan) (s string, err error) { return s, scan(&s) },
			"SELECT name FROM settings WHERE value = ? AND name <> 'schema_oldest' ORDER BY name", "1")
		if fmt.Sprint(names) != "[a b what?]" || err != nil {
			t.Errorf("%q, %v", names, err)
		}
		var s string
		if err := db.QueryRow(ctx, "SELECT value FROM settings WHERE name = ?", "none").Scan(&s); !errors.Is(err, ErrNoRows) {
			t.Errorf("no row: %v", err)
		}
		if err := db.QueryRow(ctx, "SELECT nonsense FROM settings").Scan(&s); err == nil || errors.Is(err, ErrBusy) {
			t.Errorf("a wrong statement: %v", err)
		}
		if _, err := db.Exec(ctx, db.Dialect().Upsert("settings", []string{"name"}, []string{"value"}), "a", "9"); err != nil {
			t.Error(err)
		}
		if _, err := db.Exec(ctx, db.Dialect().InsertIfAbsent("settings", []string{"name"}, []string{"value"}), "a", "10"); err != nil {
			t.Error(err)
		}
		if err := db.QueryRow(ctx, "SELECT value FROM settings WHERE name = ?", "a").Scan(&s); s != "9" || err != nil {
			t.Errorf("after the upsert %q, %v", s, err)
		}
		if n, err := db.Exec(ctx, db.Dialect().DeleteSome("settings", "name", "value = ?", "name"), "1", 1); n != 1 || err != nil {
			t.Errorf("deleted %d, %v", n, err)
		}
		if n := count(t, db); n != 2 {
			t.Errorf("%d are left", n)
		}
		if err := db.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
}

// A value that is too long for its column is refused, not cut off: two names that
// differ at the end would become one.
func TestTooLong(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db := migrated(t, Config{URL: url})
		if db.Dialect() == SQLite {
			return // keeps any length
		}
		if _, err := db.Exec(t.Context(), insertSetting, strings.Repeat("x", 256), ""); err == nil || count(t, db) != 0 {
			t.Errorf("error %v", err)
		}
	})
}

func TestInTx(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		reg := prometheus.NewRegistry()
		db, ctx := migrated(t, Config{URL: url, MaxConnections: 2, Registerer: reg}), t.Context()

		mine := errors.New("mine")
		if err := db.InTx(ctx, func(ctx context.Context, q Q) error {
			if _, err := q.Exec(ctx, insertSetting, "a", "1"); err != nil {
				return err
			}
			return mine
		}); err != mine || count(t, db) != 0 {
			t.Errorf("error %v, %d rows", err, count(t, db))
		}
		func() {
			defer func() {
				if recover() != "now" {
					t.Error("the panic was lost")
				}
			}()
			_ = db.InTx(ctx, func(ctx context.Context, q Q) error {
				if _, err := q.Exec(ctx, insertSetting, "a", "1"); err != nil {
					return err
				}
				panic("now")
			})
		}()
		if n := count(t, db); n != 0 {
			t.Errorf("%d rows after a panic", n)
		}

		// ErrRetry runs it again, from nothing.
		runs := 0
		if err := db.InTx(ctx, func(ctx context.Context, q Q) error {
			runs++
			if _, err := q.Exec(ctx, insertSetting, "a", fmt.Sprint(runs)); err != nil {
				return err
			}
			if runs < 3 {
				return fmt.Errorf("not yet: %w", ErrRetry)
			}
			return nil
		}); err != nil || runs != 3 || count(t, db) != 1 {
			t.Errorf("%d runs, %v, %d rows", runs, err, count(t, db))
		}
		if got := gathered(t, reg, "watchword_database_transaction_retries_total"); got != 2 {
			t.Errorf("%v retries counted", got)
		}

		// Whatever happened, connections come back.
		for _, p := range db.metrics.pools {
			if n := len(p.slots); n != 0 {
				t.Errorf("%d connections are still in use", n)
			}
		}
	})
}

// Nothing more is done for a caller that has gone, whether or not the driver heeds the
// context.
func TestGone(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db := migrated(t, Config{URL: url, MaxConnections: 2})
		for _, name := range []string{"a", "b", "c"} {
			if _, err := db.Exec(t.Context(), insertSetting, name, "x"); err != nil {
				t.Fatal(err)
			}
		}
		const all = "SELECT name FROM settings ORDER BY name"
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		for ctx, want := range map[context.Context]error{gone: context.Canceled, late: ErrBusy} {
			if _, err := db.Exec(ctx, insertSetting, "d", "x"); !errors.Is(err, want) {
				t.Errorf("a statement: %v", err)
			}
			if _, err := db.Query(ctx, all); !errors.Is(err, want) {
				t.Errorf("a query: %v", err)
			}
			none := func(context.Context, Q) error { t.Error("it was run"); return nil }
			if err := db.InTx(ctx, none); !errors.Is(err, want) {
				t.Errorf("a transaction: %v", err)
			}
			if err := db.Snapshot(ctx, none); !errors.Is(err, want) {
				t.Errorf("a snapshot: %v", err)
			}
		}

		// Between two rows.
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := db.Query(ctx, all)
		if err != nil || !rows.Next() {
			t.Fatal(err)
		}
		cancel()
		if rows.Next() || !errors.Is(rows.Err(), context.Canceled) {
			t.Errorf("the next row came, or %v", rows.Err())
		}
		rows.Close()

		// Between two statements, and before the commit.
		for _, more := range []bool{true, false} {
			ctx, cancel := context.WithCancel(t.Context())
			err := db.InTx(ctx, func(ctx context.Context, q Q) error {
				if _, err := q.Exec(ctx, insertSetting, "d", "x"); err != nil {
					return err
				}
				cancel()
				if more {
					if err := q.QueryRow(ctx, all).Scan(new(string)); !errors.Is(err, context.Canceled) {
						t.Errorf("a query after it: %v", err)
					}
					if _, err := q.Exec(ctx, insertSetting, "e", "x"); !errors.Is(err, context.Canceled) {
						t.Errorf("a statement after it: %v", err)
					}
				}
				return nil
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the commit: %v", err)
			}
		}
		if n := count(t, db); n != 3 {
			t.Errorf("%d rows", n)
		}
	})
}

// A transaction that the database refuses because of another one runs again, even if the
// function swallowed the error.
func TestInTxConflict(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db, ctx := migrated(t, Config{URL: url}), t.Context()
		if _, err := db.Exec(ctx, insertSetting, "n", "0"); err != nil {
			t.Fatal(err)
		}
		const callers = 8
		var runs atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				err := db.InTx(ctx, func(ctx context.Context, q Q) error {
					runs.Add(1)
					var n int
					if err := q.QueryRow(ctx, "SELECT CAST(value AS DECIMAL) FROM settings WHERE name = 'n'").Scan(&n); err != nil {
						return err
					}
					if _, err := q.Exec(ctx, "UPDATE settings SET value = ? WHERE name = 'n'", fmt.Sprint(n+1)); err != nil {
						return nil // swallowed
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var n int
		if err := db.QueryRow(ctx, "SELECT CAST(value AS DECIMAL) FROM settings WHERE name = 'n'").Scan(&n); err != nil || n != callers {
			t.Errorf("%d transactions added up to %d, %v", callers, n, err)
		}
		if db.Dialect() != SQLite && runs.Load() == callers {
			t.Log("no transaction had to be run again; the test proved little")
		}
	})
}

// A database that never agrees ends in ErrBusy, after the time that was given.
func TestInTxGivesUp(t *testing.T) {
	db := migrated(t, Config{URL: sqliteURL(t), AcquireTimeout: 50 * time.Millisecond})
	begin := time.Now()
	err := db.InTx(t.Context(), func(context.Context, Q) error { return ErrRetry })
	if took := time.Since(begin); !errors.Is(err, ErrBusy) || took > 30*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = migrated(t, Config{URL: sqliteURL(t)}).InTx(ctx, func(context.Context, Q) error { cancel(); return ErrRetry })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled meanwhile: %v", err)
	}
}

// When all connections are in use, a caller waits for a bounded time, and gets the first
// that becomes free.
func TestPool(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		reg := prometheus.NewRegistry()
		db := migrated(t, Config{URL: url, MaxConnections: 1, Registerer: reg})
		ctx, pool := t.Context(), db.reader
		pool.patience = 100 * time.Millisecond
		rows, err := db.Query(ctx, "SELECT 1")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err = db.Ping(ctx)
		if took := time.Since(begin); !errors.Is(err, ErrBusy) || took < 100*time.Millisecond || took > 30*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		if err := db.Ping(short); !errors.Is(err, ErrBusy) {
			t.Errorf("a caller with less patience: %v", err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := db.Ping(gone); !errors.Is(err, context.Canceled) || errors.Is(err, ErrBusy) {
			t.Errorf("a caller that has gone: %v", err)
		}
		if pool.refused.Load() != 2 || pool.waits.Load() != 3 || pool.waiting.Load() != 0 || pool.waited.Load() == 0 {
			t.Errorf("counted %d of %d", pool.refused.Load(), pool.waits.Load())
		}
		pool.patience = time.Minute
		answer := make(chan error)
		go func() { answer <- db.Ping(ctx) }()
		for pool.waiting.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		if n := gathered(t, reg, "watchword_database_connections_waiting"); n != 1 {
			t.Errorf("%v waiting", n)
		}
		rows.Close()
		rows.Close() // once more does no harm
		if err := <-answer; err != nil {
			t.Error(err)
		}
		if n := len(pool.slots); n != 0 {
			t.Errorf("%d slots are taken", n)
		}
		db.Close()
		if families, _ := reg.Gather(); len(families) != 0 {
			t.Error("metrics stay behind after Close")
		}
	})
}

// As many callers read at once as there are connections. Of several connections one is
// kept for prompt callers. On SQLite, which reads in this process, there are no more
// connections than it can use, and one more that is kept.
func TestPoolSizes(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		for _, size := range []int{1, 3, 12} {
			db := open(t, Config{URL: url, MaxConnections: size})
			most := size
			if db.Dialect() == SQLite {
				most = min(size, sqliteReaders) + 1
			}
			var all []*Rows
			take := func(db *DB, n int) {
				t.Helper()
				for i := range n {
					rows, err := db.Query(t.Context(), "SELECT 1")
					if err != nil {
						t.Fatalf("%d of %d: %v", i+1, size, err)
					}
					all = append(all, rows)
				}
				db.reader.patience = 100 * time.Millisecond
				defer func() { db.reader.patience = patience }()
				if rows, err := db.Query(t.Context(), "SELECT 1"); !errors.Is(err, ErrBusy) {
					t.Errorf("one more than %d: %v", n, err)
					if err == nil {
						rows.Close()
					}
				}
			}
			if most == 1 {
				take(db, most)
				db.reader.patience = 100 * time.Millisecond
				if err := db.Prompt().Ping(t.Context()); !errors.Is(err, ErrBusy) {
					t.Errorf("prompt, when none is kept: %v", err)
				}
			} else {
				take(db, most-1)
				take(db.Prompt(), 1)
			}
			if n := db.reader.db.Stats().OpenConnections; n != most {
				t.Errorf("%d connections are open, want %d", n, most)
			}
			db.reader.patience = patience
			for _, rows := range all {
				rows.Close()
			}
			for _, db := range []*DB{db, db.Prompt()} {
				if err := db.Ping(t.Context()); err != nil {
					t.Errorf("with all of %d free again: %v", size, err)
				}
			}
			if n := len(db.reader.slots) + len(db.reader.kept); n != 0 {
				t.Errorf("%d slots are taken", n)
			}
			db.Close()
		}
	})
}

// Statements are prepared once for each connection, not once for each use.
func TestPreparedOnce(t *testing.T) {
	db, ctx := migrated(t, Config{URL: testenv.MariaDB(t), MaxConnections: 1}), t.Context()
	prepared := func() (n int) {
		var name string
		if err := db.QueryRow(ctx, "SHOW SESSION STATUS LIKE 'Com_stmt_prepare'").Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	work := func(i int) {
		t.Helper()
		if _, err := db.Exec(ctx, insertSetting, fmt.Sprint(i), "x"); err != nil {
			t.Fatal(err)
		}
		if err := db.InTx(ctx, func(ctx context.Context, q Q) error {
			_, err := q.Exec(ctx, "UPDATE settings SET value = 'y' WHERE name = ?", fmt.Sprint(i))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	work(0)
	before := prepared()
	for i := 1; i <= 10; i++ {
		work(i)
	}
	if more := prepared() - before; more != 0 {
		t.Errorf("%d statements were prepared again", more)
	}
}

// A database that is away is an ErrBusy. As soon as it is back, the same pool works
// again.
func TestServerGoesAndComesBack(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...string) *testenv.Server{
		"postgres": testenv.StartPostgres, "mysql": testenv.StartMariaDB,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t)
			db, ctx := migrated(t, Config{URL: server.URL}), t.Context()
			write := func(ctx context.Context, q Q) error {
				_, err := q.Exec(ctx, "UPDATE settings SET value = ? WHERE name = 'x'", "y")
				return err
			}
			fails := func(what string, most time.Duration) {
				t.Helper()
				db.cfg.Timeout = 500 * time.Millisecond
				begin := time.Now()
				for name, err := range map[string]error{"read": db.Ping(ctx), "transaction": db.InTx(ctx, write)} {
					if !errors.Is(err, ErrBusy) {
						t.Errorf("%s, %s: %v", what, name, err)
					}
				}
				if took := time.Since(begin); took > most {
					t.Errorf("%s: the answers took %v", what, took)
				}
			}
			works := func(what string) {
				t.Helper()
				db.cfg.Timeout = patience
				if err := errors.Join(db.Ping(ctx), db.InTx(ctx, write)); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			works("at first")
			server.Stop()
			fails("stopped", 30*time.Second)
			server.Start(t)
			works("started again")
			server.Pause(t)
			fails("paused", 30*time.Second)
			server.Resume(t)
			works("resumed")
		})
	}
}

// Making a connection may take as long as a caller waits for a free one.
func TestSlowToConnect(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	link := testenv.NewLink(t, u.Host)
	link.Set(testenv.Fault{HoldDown: true})
	time.AfterFunc(dialTimeout+time.Second, func() { link.Set(testenv.Fault{}) })
	u.Host = link.Addr
	open(t, Config{URL: u.String()})
}

// The first of several hosts is down, the second is the primary.
func TestSeveralHosts(t *testing.T) {
	u, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "127.0.0.1:1," + u.Host
	u.RawQuery += "&target_session_attrs=read-write"
	db := open(t, Config{URL: u.String()})
	if err := db.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRebind(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT 1": "SELECT 1",
		"SELECT a FROM b WHERE c = ? AND d = '?' AND e IN (?, ?)": "SELECT a FROM b WHERE c = $1 AND d = '?' AND e IN ($2, $3)",
		"?'it''s ?'?": "$1'it''s ?'$2",
	} {
		if got := Postgres.rebind(query); got != want {
			t.Errorf("%s became %s", query, got)
		}
		if got := MySQL.rebind(query); got != query {
			t.Errorf("%s became %s", query, got)
		}
	}
}
