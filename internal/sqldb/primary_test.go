package sqldb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A demotion makes a server that takes writes one that takes none, under its connections, and
// the other way round.
type demotion struct {
	url            string
	demote, settle func(t *testing.T)
}

// statements returns a function that runs statements.
func statements(db *sql.DB, list ...string) func(t *testing.T) {
	return func(t *testing.T) {
		t.Helper()
		for _, one := range list {
			if _, err := db.ExecContext(t.Context(), one); err != nil {
				t.Fatalf("%s: %v", one, err)
			}
		}
	}
}

func demotions(t *testing.T) map[string]func(t *testing.T) demotion {
	return map[string]func(t *testing.T) demotion{
		"postgres, the whole server": func(t *testing.T) demotion {
			s := testenv.StartPostgres(t)
			db := testenv.SQL(t, s.URL)
			return demotion{s.URL,
				statements(db, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"),
				statements(db, "SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")}
		},
		"mariadb": func(t *testing.T) demotion {
			s := testenv.StartMariaDB(t)
			db := testenv.SQL(t, s.URL)
			// The user of the tests may write whatever read_only says; one of a service may not.
			statements(db, "CREATE USER 'service'@'127.0.0.1' IDENTIFIED BY 'secret'", "GRANT ALL ON watchword.* TO 'service'@'127.0.0.1'")(t)
			u, err := url.Parse(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword("service", "secret")
			return demotion{u.String(), statements(db, "SET GLOBAL read_only = 1"), statements(db, "SET GLOBAL read_only = 0")}
		},
	}
}

// A server that takes no writes any more is not believed, over whatever connection and by
// whatever statement, and as soon as it takes writes again, it is.
func TestDemoted(t *testing.T) {
	for name, start := range demotions(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			log, registry := &testenv.Log{}, prometheus.NewRegistry()
			db := migrated(t, Config{URL: d.url, Logger: slog.New(slog.NewTextHandler(log, nil)), Registerer: registry})
			for name, ask := range asks(db) {
				if err := ask(t.Context()); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			for name, ask := range asks(db) {
				before := sessions(t, db)
				d.demote(t)
				db.writer.believed.Store(0) // as two seconds later
				awaitRefusal(t, name, ask)
				if name != "an answer without a row" { // and at once again, over another connection or none
					for name, ask := range asks(db) {
						if err := ask(t.Context()); !errors.Is(err, ErrReadOnly) || !errors.Is(err, ErrBusy) {
							t.Errorf("%s: %v", name, err)
						}
					}
				}
				d.settle(t)
				awaitSuccess(t, name, ask)
				for id := range sessions(t, db) {
					if before[id] {
						t.Errorf("%s: connection %s has outlived the time in which the server took no writes", name, id)
					}
				}
			}
			if n := strings.Count(log.String(), "takes no writes, so its answers do not count"); n != 1 {
				t.Errorf("said %d times:\n%s", n, log)
			}
			if n := gathered(t, registry, "watchword_database_read_only_answers_total"); n == 0 {
				t.Error("the metric counts none")
			}
		})
	}
}

// asks are the ways in which a server answers.
func asks(db *DB) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"a row": func(ctx context.Context) error {
			return db.QueryRow(ctx, "SELECT value FROM settings WHERE name = 'schema_oldest'").Scan(new(string))
		},
		"rows": func(ctx context.Context) error {
			_, err := All(ctx, db, func(scan Scan) (s string, err error) { return s, scan(&s) }, "SELECT DISTINCT value FROM settings")
			return err
		},
		"an answer without a row": func(ctx context.Context) error {
			_, err := All(ctx, db, func(scan Scan) (s string, err error) { return s, scan(&s) }, "SELECT value FROM settings WHERE name = ?", "none")
			return err
		},
		"a write": func(ctx context.Context) error {
			_, err := db.Exec(ctx, "UPDATE settings SET value = value WHERE name = ?", "schema_oldest")
			return err
		},
		"a transaction that reads": func(ctx context.Context) error {
			return db.InTx(ctx, func(ctx context.Context, q Q) error {
				return q.QueryRow(ctx, "SELECT value FROM settings WHERE name = ?", "schema_oldest").Scan(new(string))
			})
		},
		"a transaction that writes": func(ctx context.Context) error {
			return db.InTxReadCommitted(ctx, func(ctx context.Context, q Q) error {
				_, err := q.Exec(ctx, "UPDATE settings SET value = value WHERE name = ?", "schema_oldest")
				return err
			})
		},
		"a snapshot": func(ctx context.Context) error {
			return db.Snapshot(ctx, func(ctx context.Context, q Q) error {
				return q.QueryRow(ctx, "SELECT value FROM settings WHERE name = ?", "schema_oldest").Scan(new(string))
			})
		},
	}
}

// awaitRefusal waits until the setting has reached the connections, of which PostgreSQL says
// nothing, or until those that were cut are known to be.
func awaitRefusal(t *testing.T, name string, ask func(context.Context) error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := ask(t.Context())
		if errors.Is(err, ErrReadOnly) {
			return
		}
		if err != nil && !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func awaitSuccess(t *testing.T, name string, ask func(context.Context) error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := ask(t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// sessions are the server's names of some connections of the pool.
func sessions(t *testing.T, db *DB) map[string]bool {
	t.Helper()
	query := "SELECT CAST(pg_backend_pid() AS TEXT)"
	if db.dialect == MySQL {
		query = "SELECT CONCAT(CONNECTION_ID())"
	}
	ids := make(map[string]bool)
	var hold func(ctx context.Context, more int) error
	hold = func(ctx context.Context, more int) error {
		if more == 0 {
			return nil
		}
		return db.InTxReadCommitted(ctx, func(ctx context.Context, q Q) error {
			var id string
			if err := q.QueryRow(ctx, query).Scan(&id); err != nil {
				return err
			}
			ids[id] = true
			return hold(ctx, more-1)
		})
	}
	if err := hold(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	return ids
}

// A standby is not believed, whatever leads there: its address, one of several hosts, a pooler
// whose server was replaced, or a name that now means another server.
func TestStandby(t *testing.T) {
	t.Parallel()
	pair := testenv.StartPostgresPair(t)
	alone, _, _ := strings.Cut(pair.URL, "&target_session_attrs")
	alone = strings.Replace(alone, ","+pair.Standby.Addr, "", 1) // of the primary
	migrated(t, Config{URL: alone})
	standby := strings.Replace(alone, pair.Primary.Addr, pair.Standby.Addr, 1)
	for _, attrs := range []string{"", "&target_session_attrs=any", "&target_session_attrs=standby", "&target_session_attrs=prefer-standby"} {
		if db, err := Open(t.Context(), Config{URL: standby + attrs}); !errors.Is(err, ErrReadOnly) || !errors.Is(err, ErrBusy) {
			t.Errorf("a standby%s: %v, %v", attrs, db, err)
		} else if !strings.Contains(err.Error(), "it is a standby") {
			t.Errorf("it does not say why: %v", err)
		}
		// The first of two hosts.
		db := open(t, Config{URL: strings.Replace(alone, pair.Primary.Addr, pair.Standby.Addr+","+pair.Primary.Addr, 1) + attrs})
		if _, err := db.Exec(t.Context(), insertSetting, "by way of two hosts"+attrs, "x"); err != nil {
			t.Errorf("two hosts%s: %v", attrs, err)
		}
	}

	// A name that leads to the one and then to the other, with connections that stay open.
	link := testenv.NewLink(t, pair.Primary.Addr)
	db := open(t, Config{URL: strings.Replace(alone, pair.Primary.Addr, link.Addr, 1)})
	before := sessions(t, db)
	link.Lead(pair.Standby.Addr)
	for id := range sessions(t, db) {
		if !before[id] {
			t.Error("there was a new connection")
		}
	}
	link.Set(testenv.Fault{Cut: true})
	link.Set(testenv.Fault{})
	for name, ask := range asks(db) {
		awaitRefusal(t, name, ask)
	}
	link.Lead(pair.Primary.Addr)
	for name, ask := range asks(db) {
		if err := ask(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	// Behind PgBouncer the client's connection stays while its server becomes another.
	link.Lead(pair.Primary.Addr)
	bouncer := testenv.PgBouncer(t, strings.Replace(alone, pair.Primary.Addr, link.Addr, 1))
	db = open(t, Config{URL: bouncer.URL})
	for name, ask := range asks(db) {
		if err := ask(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for name, ask := range asks(db) {
		link.Lead(pair.Standby.Addr)
		link.Set(testenv.Fault{Cut: true})
		link.Set(testenv.Fault{})
		db.writer.believed.Store(0)
		awaitRefusal(t, name, ask)
		link.Lead(pair.Primary.Addr)
		link.Set(testenv.Fault{Cut: true})
		link.Set(testenv.Fault{})
		awaitSuccess(t, name, ask)
	}
}

// A server of MariaDB that replicates from another one may be behind, also if its setting lets
// everybody write to it.
func TestWritableReplica(t *testing.T) {
	t.Parallel()
	first := testenv.StartMariaDB(t, "--log-bin=binlog", "--server-id=1")
	second := testenv.StartMariaDB(t, "--server-id=2")
	from, at := testenv.SQL(t, first.URL), testenv.SQL(t, second.URL)
	statements(from, "CREATE USER 'copy'@'127.0.0.1' IDENTIFIED BY 'secret'", "GRANT REPLICATION SLAVE ON *.* TO 'copy'@'127.0.0.1'")(t)
	_, port, _ := strings.Cut(first.Addr, ":")
	open(t, Config{URL: second.URL})
	statements(at, fmt.Sprintf("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = %s, MASTER_USER = 'copy', MASTER_PASSWORD = 'secret', MASTER_DELAY = 40", port),
		"START SLAVE")(t)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		db, err := Open(t.Context(), Config{URL: second.URL})
		if errors.Is(err, ErrReadOnly) && strings.Contains(err.Error(), "Slave_running") {
			break
		}
		if err == nil {
			db.Close()
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	open(t, Config{URL: first.URL})
	statements(at, "STOP SLAVE")(t)
	open(t, Config{URL: second.URL})
}

// Each SELECT of this version asks for the server's role.
func TestEverySelectAsksForTheRole(t *testing.T) {
	files, err := filepath.Glob("testdata/levels/*.postgres.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	file, err := os.Open(files[len(files)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var list []struct{ SQL string }
	if err := json.NewDecoder(file).Decode(&list); err != nil || len(list) == 0 {
		t.Fatal(len(list), err)
	}
	for _, one := range list {
		write := slices.Contains([]string{"INSERT", "UPDATE", "DELETE"}, strings.Fields(one.SQL)[0])
		asked := strings.Count(Postgres.guarded(one.SQL), roles[Postgres])
		if parts := strings.Count(one.SQL, "UNION ALL SELECT"); !write && asked != 1 && asked != parts+1 {
			t.Errorf("it asks %d times: %s", asked, one.SQL)
		}
	}
}
