package testenv

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
)

var postgres shared

// Postgres returns the URL of an empty database on the PostgreSQL server of this
// process.
func Postgres(t testing.TB) string {
	t.Helper()
	s := postgres.get(t, startPostgres)
	name := "t" + strings.ToLower(rand.Text()[:12])
	execSQL(t, "pgx", s.URL, "CREATE DATABASE "+name)
	t.Cleanup(func() { execSQL(t, "pgx", s.URL, "DROP DATABASE "+name+" WITH (FORCE)") })
	return strings.Replace(s.URL, "/postgres?", "/"+name+"?", 1)
}

// StartPostgres starts a PostgreSQL server for this test alone. Options are
// those of postgresql.conf: "max_connections=20".
func StartPostgres(t testing.TB, options ...string) *Server {
	t.Helper()
	s := startPostgres(t, options...)
	t.Cleanup(s.Stop)
	return s
}

func startPostgres(t testing.TB, options ...string) *Server {
	t.Helper()
	s := newPostgres(t, options...)
	s.install(t, "postgres", func(dir string) []string {
		return []string{
			"initdb", "--pgdata=" + filepath.Join(dir, "data"), "--username=watchword", "--auth-local=trust", "--auth-host=scram-sha-256",
			"--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--no-sync", "--no-instructions",
		}
	})
	s.setPassword(t)
	s.Start(t)
	return s
}

// setPassword gives the user of a server that does not run its password, as something to
// compare a login with that is quick to compute: the 4,096 rounds that PostgreSQL would
// ask for take each new connection longer than all else, under the race detector.
func (s *Server) setPassword(t testing.TB) {
	t.Helper()
	const rounds = 2
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(sha256.New, s.secret, salt, rounds, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	of := func(name string) []byte { // RFC 5802, section 3
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(name))
		return mac.Sum(nil)
	}
	stored, text := sha256.Sum256(of("Client Key")), base64.StdEncoding.EncodeToString
	cmd := command(t, s.dir, "postgres", "--single", "-D", s.data(), "-c", "fsync=off", "postgres")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("ALTER ROLE watchword PASSWORD 'SCRAM-SHA-256$%d:%s$%s:%s'\n",
		rounds, text(salt), text(stored[:]), text(of("Server Key"))))
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("ERROR")) {
		t.Fatalf("testenv: the password: %v\n%s", err, tail(out))
	}
}

// newPostgres prepares a server whose data is not there yet.
func newPostgres(t testing.TB, options ...string) *Server {
	t.Helper()
	// Killed, it would leave shared memory behind; this is its immediate shutdown.
	s := newServer(t, "postgres", "QUIT")
	s.command = func() []string {
		args := []string{program(t, "postgres"), "-D", s.data()}
		for _, o := range append([]string{
			"listen_addresses=127.0.0.1", "port=" + s.port(), "unix_socket_directories=",
			"fsync=off", "full_page_writes=off", "shared_buffers=32MB",
			"max_connections=200", "autovacuum=off", "logging_collector=off",
		}, options...) {
			args = append(args, "-c", o)
		}
		return args
	}
	s.answers = func(ctx context.Context) error {
		s.URL = (&url.URL{
			Scheme: "postgres", User: url.UserPassword("watchword", s.secret), Host: s.Addr,
			Path: "/postgres", RawQuery: "sslmode=disable",
		}).String()
		return isOurs(ctx, "pgx", s.URL, "SHOW data_directory", s.data())
	}
	return s
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// A PostgresPair is a primary and a standby, which has all that the primary has
// acknowledged.
type PostgresPair struct {
	URL              string // of a database on both; a connection goes to the one that takes writes
	Primary, Standby *Server
}

// StartPostgresPair starts a PostgresPair for this test.
func StartPostgresPair(t testing.TB) *PostgresPair {
	t.Helper()
	primary := StartPostgres(t)
	standby := newPostgres(t)
	standby.secret = primary.secret // its data has the primary's users
	standby.setUp(t, "pg_basebackup", "--pgdata="+standby.data(), "--dbname="+primary.URL, "--checkpoint=fast",
		"--write-recovery-conf", "--no-sync")
	standby.Start(t)
	t.Cleanup(standby.Stop)
	execSQL(t, "pgx", primary.URL, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	execSQL(t, "pgx", primary.URL, "SELECT pg_reload_conf()")
	pair := &PostgresPair{
		URL:     strings.Replace(primary.URL, primary.Addr, primary.Addr+","+standby.Addr, 1) + "&target_session_attrs=read-write",
		Primary: primary, Standby: standby,
	}
	pair.AwaitSync(t)
	return pair
}

// AwaitSync waits until the standby follows the primary, which may have started again.
func (p *PostgresPair) AwaitSync(t testing.TB) {
	t.Helper()
	await(t, "the standby", func() bool {
		state, err := askSQL(t.Context(), "pgx", p.Primary.URL, "SELECT sync_state FROM pg_stat_replication")
		return err == nil && state == "sync"
	})
}

// Promote makes the standby the primary, which must have gone.
func (p *PostgresPair) Promote(t testing.TB) {
	t.Helper()
	execSQL(t, "pgx", p.Standby.URL, "SELECT pg_promote()")
}

// PgBouncer puts a PgBouncer in transaction mode in front of a PostgreSQL
// database and returns the URL to use instead, for this test. Whoever does not
// open it by package sqldb, which notices, adds default_query_exec_mode=exec.
func PgBouncer(t testing.TB, postgresURL string, options ...string) *Server {
	t.Helper()
	target, err := url.Parse(postgresURL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := target.User.Password()
	name := strings.TrimPrefix(target.Path, "/")
	s := newServer(t, "pgbouncer", "KILL")
	users := s.write(t, "users", fmt.Sprintf("%q %q\n\"admin\" %q\n", target.User.Username(), password, s.secret))
	s.command = func() []string {
		config := s.write(t, "pgbouncer.ini", fmt.Sprintf(`[databases]
%s = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = md5
auth_file = %s
admin_users = admin
pool_mode = transaction
default_pool_size = 8
max_client_conn = 200
%s
`, name, target.Hostname(), target.Port(), s.port(), users, strings.Join(options, "\n")))
		return []string{program(t, "pgbouncer"), config}
	}
	s.answers = func(ctx context.Context) error {
		u := *target
		u.Host = s.Addr
		s.URL = u.String()
		u.User, u.Path = url.UserPassword("admin", s.secret), "/pgbouncer"
		u.RawQuery += "&default_query_exec_mode=simple_protocol"
		// Only ours knows the administrator's password, which was made for it.
		return isOurs(ctx, "pgx", u.String(), "SHOW VERSION", "")
	}
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

// isOurs asks the server for where its data is; another one may have taken the
// port.
func isOurs(ctx context.Context, driver, dsn, query, want string) error {
	got, err := askSQL(ctx, driver, dsn, query)
	if err != nil {
		return err
	}
	if want != "" && !sameFile(got, want) {
		return fmt.Errorf("another server answers, with data in %s", got)
	}
	return nil
}

// askSQL returns the one value that a query has.
func askSQL(ctx context.Context, driver, dsn, query string) (value string, err error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return "", err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, query).Scan(&value)
	return value, err
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func execSQL(t testing.TB, driver, dsn, query string) {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), query); err != nil {
		t.Fatalf("testenv: %s: %v", query, err)
	}
}
