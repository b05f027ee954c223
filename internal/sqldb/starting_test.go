package sqldb

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// cannotConnectNow is PostgreSQL's code for "the database system is starting up" and
// "the database system is shutting down".
const cannotConnectNow = "57P03"

func wantCannotConnect(t *testing.T, what string, err error) {
	t.Helper()
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != cannotConnectNow || !errors.Is(err, ErrBusy) {
		t.Errorf("%s: %v, want %s as an ErrBusy", what, err, cannotConnectNow)
	}
}

// starter stands before a PostgreSQL server and answers, while it is starting, as the
// server does in its recovery.
type starter struct {
	addr     string
	starting atomic.Bool
}

func newStarter(t *testing.T, server string) *starter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &starter{addr: l.Addr().String()}
	link := testenv.NewLink(t, server)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			if s.starting.Load() {
				go refuse(client)
				continue
			}
			upstream, err := net.Dial("tcp", link.Addr)
			if err != nil {
				client.Close()
				continue
			}
			go pipe(client, upstream)
			go pipe(upstream, client)
		}
	}()
	return s
}

func pipe(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func refuse(client net.Conn) {
	defer client.Close()
	backend := pgproto3.NewBackend(client, client)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	backend.Send(&pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: cannotConnectNow, Message: "the database system is starting up",
	})
	_ = backend.Flush()
}

// A PostgreSQL server that is starting up is busy for every operation, and nothing was
// written. Each works as soon as the server is up.
func TestPostgresStartsUp(t *testing.T) {
	u, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	server := newStarter(t, u.Host)
	u.Host = server.addr
	cfg := Config{URL: u.String(), AcquireTimeout: patience, Timeout: 2 * patience}

	server.starting.Store(true)
	if db, err := Open(t.Context(), cfg); err == nil {
		db.Close()
		t.Error("it was opened")
	} else {
		wantCannotConnect(t, "Open", err)
	}
	server.starting.Store(false)

	// The server goes away between two steps of the migration.
	var away atomic.Bool
	cfg.Watch = func(query string, _ []any, _ error) {
		if away.Load() && bytes.Contains([]byte(query), []byte(versions)) {
			server.starting.Store(true)
		}
	}
	db := open(t, cfg)
	db.writer.db.SetMaxIdleConns(-1) // every operation makes its connection anew
	away.Store(true)
	_, err = db.Migrate(t.Context())
	wantCannotConnect(t, "Migrate", err)
	away.Store(false)
	server.starting.Store(false)
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatalf("Migrate afterwards: %v", err)
	}

	insert := func(ctx context.Context, q Q) error {
		_, err := q.Exec(ctx, insertSetting, "a", "x")
		return err
	}
	operations := map[string]func() error{
		"Ping":     func() error { return db.Ping(t.Context()) },
		"Exec":     func() error { return insert(t.Context(), db) },
		"InTx":     func() error { return db.InTx(t.Context(), insert) },
		"Snapshot": func() error { return db.Snapshot(t.Context(), func(context.Context, Q) error { return nil }) },
	}
	server.starting.Store(true)
	for name, do := range operations {
		wantCannotConnect(t, name, do())
	}
	server.starting.Store(false)
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows", n)
	}
	for name, do := range operations {
		if _, err := db.Exec(t.Context(), "DELETE FROM settings WHERE name = 'a'"); err != nil {
			t.Fatal(err)
		}
		if err := do(); err != nil {
			t.Errorf("%s afterwards: %v", name, err)
		}
	}
}

// A real PostgreSQL server that is shutting down takes no connection any more: it is
// busy, for a new replica and for one that runs.
func TestPostgresShutsDown(t *testing.T) {
	server := testenv.StartPostgres(t)
	db, ctx := open(t, Config{URL: server.URL, MaxConnections: 3}), t.Context()
	var dir string
	if err := db.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(file, []byte("\n"))
	pid, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	held, err := db.Query(ctx, "SELECT 1") // the server waits for this session
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for err = nil; err == nil && time.Now().Before(deadline); { // until the server has seen the signal
		var another *DB
		if another, err = Open(ctx, Config{URL: server.URL}); err == nil {
			another.Close()
		}
	}
	wantCannotConnect(t, "Open", err)
	wantCannotConnect(t, "Ping", db.Ping(ctx))
	held.Close()
	server.Stop()
	server.Start(t)
	open(t, Config{URL: server.URL})
}
