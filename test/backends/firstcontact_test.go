package backends

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// contact opens a database and migrates it, as a replica does.
func contact(t *testing.T, database string) error {
	t.Helper()
	cfg := kit.Config(t)
	cfg.Database.URL = database
	ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
	defer cancel()
	parts, err := operator.Open(ctx, cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		err = parts.Close()
	}
	return err
}

// A first is what a replica meets at its first contact with a database.
type first struct {
	url   string
	says  string // part of the sentence
	waits bool   // else the start ends at once
}

func (f first) check(t *testing.T) {
	t.Helper()
	err := contact(t, f.url)
	if err == nil || !strings.Contains(err.Error(), f.says) || errors.Is(err, sqldb.ErrBusy) != f.waits {
		t.Errorf("%v; want %q, waiting %v", err, f.says, f.waits)
	}
	if err != nil && strings.Contains(err.Error(), "current transaction is aborted") {
		t.Error("the error of the database is lost")
	}
	if u, _ := url.Parse(f.url); err != nil && u != nil && u.User != nil {
		if secret, set := u.User.Password(); set && strings.Contains(err.Error(), secret) {
			t.Error("the error has the password")
		}
	}
}

// edit changes a copy of a URL.
func edit(t *testing.T, text string, change func(u *url.URL)) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

func run(t *testing.T, driver, dsn string, statements ...string) {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func as(user, password string) func(*url.URL) {
	return func(u *url.URL) { u.User = url.UserPassword(user, password) }
}

// What is wrong at the first contact is said in one sentence, with what to change. What
// waiting mends is an ErrBusy, for which a replica waits.
func TestFirstContactWithPostgres(t *testing.T) {
	t.Parallel()
	server := testenv.StartPostgres(t, "max_connections=12", "superuser_reserved_connections=0")
	run(t, "pgx", server.URL,
		"CREATE ROLE plain LOGIN PASSWORD 'plain-secret'", "CREATE ROLE idle PASSWORD 'idle-secret'",
		"CREATE DATABASE closed", "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
		"CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0", "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0",
		"CREATE DATABASE taken", "CREATE DATABASE nowhere", "CREATE DATABASE standby",
		"CREATE ROLE rejected LOGIN PASSWORD 'plain-secret'", "CREATE ROLE encrypted LOGIN PASSWORD 'plain-secret'",
		"ALTER DATABASE nowhere SET search_path = 'none'", "ALTER DATABASE standby SET default_transaction_read_only = on")
	var hba string
	db, err := sql.Open("pgx", server.URL)
	if err == nil {
		err = db.QueryRowContext(t.Context(), "SHOW hba_file").Scan(&hba)
		db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "pgx", server.URL,
		"COPY (VALUES ('host all rejected all reject'), ('hostssl all encrypted all scram-sha-256'), ('host all watchword,plain,idle,nobody all scram-sha-256')) TO '"+hba+"'",
		"SELECT pg_reload_conf()")
	kit.Await(t, "pg_hba.conf is read", func() bool {
		err := contact(t, edit(t, server.URL, as("rejected", "plain-secret")))
		return err != nil && strings.Contains(err.Error(), "pg_hba")
	})
	at := func(database string, change func(*url.URL)) string {
		return edit(t, server.URL, func(u *url.URL) { u.Path = "/" + database; change(u) })
	}
	same := func(*url.URL) {}
	option := func(text string) func(*url.URL) { return func(u *url.URL) { u.RawQuery = text } }
	for name, f := range map[string]first{
		"wrong password":              {at("postgres", as("watchword", "wrong-secret")), "the server denies this user or password", false},
		"no such role":                {at("postgres", as("nobody", "wrong-secret")), "the server denies this user or password", false},
		"a role that may not log in":  {at("postgres", as("idle", "idle-secret")), "the server does not let this user in", false},
		"pg_hba.conf rejects":         {at("postgres", as("rejected", "plain-secret")), "add a line for them", false},
		"pg_hba.conf demands TLS":     {at("postgres", as("encrypted", "plain-secret")), "set sslmode=require", false},
		"no such database":            {at("none", same), "CREATE DATABASE", false},
		"no right to connect":         {at("closed", as("plain", "plain-secret")), "GRANT CONNECT", false},
		"no right to create tables":   {at("postgres", as("plain", "plain-secret")), "GRANT USAGE, CREATE ON SCHEMA", false},
		"no schema":                   {at("nowhere", same), "no schema of the search_path exists", false},
		"LATIN1":                      {at("latin", same), "the encoding of the database is LATIN1", false},
		"SQL_ASCII":                   {at("ascii", same), "the encoding of the database is SQL_ASCII", false},
		"read-only":                   {at("standby", same), "read-only", true},
		"TLS that the server has not": {at("postgres", option("sslmode=require")), "does not speak TLS", false},
		"an unknown option":           {at("postgres", option("sslmode=disable&no_such_option=1")), "does not know an option of the URL", false},
		"an unknown host":             {at("postgres", func(u *url.URL) { u.Host = "no-such-host.invalid:5432" }), "is not known", true},
		"nobody there":                {at("postgres", func(u *url.URL) { u.Host = testenv.Address(t) }), "the server does not answer", true},
	} {
		t.Run(name, func(t *testing.T) { f.check(t) })
	}

	// Tables of another role.
	if err := contact(t, at("taken", same)); err != nil {
		t.Fatal(err)
	}
	t.Run("tables of another role", func(t *testing.T) {
		first{at("taken", as("plain", "plain-secret")), "lacks a right to Watchword's tables", false}.check(t)
	})
	t.Run("too many connections", func(t *testing.T) {
		db, err := sql.Open("pgx", server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for {
			if _, err := db.Conn(t.Context()); err != nil {
				break
			}
		}
		first{at("postgres", same), "no connection left", true}.check(t)
	})
}

func TestFirstContactWithMariaDB(t *testing.T) {
	t.Parallel()
	server := testenv.MariaDB(t)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	admin := mysql.NewConfig()
	admin.User, admin.Net, admin.Addr = u.User.Username(), "tcp", u.Host
	admin.Passwd, _ = u.User.Password()
	user, database := "c"+u.Path[1:], u.Path[1:]
	run(t, "mysql", admin.FormatDSN(),
		"CREATE USER "+user+" IDENTIFIED BY 'plain-secret'", "GRANT SELECT ON "+database+".* TO "+user,
		"CREATE USER locked"+user+" IDENTIFIED BY 'locked-secret' ACCOUNT LOCK")
	t.Cleanup(func() { run(t, "mysql", admin.FormatDSN(), "DROP USER "+user, "DROP USER locked"+user) })
	at := func(change func(*url.URL)) string { return edit(t, server, change) }
	for name, f := range map[string]first{
		"wrong password":              {at(as("watchword", "wrong-secret")), "the server denies this user or password", false},
		"no such user":                {at(as("nobody", "wrong-secret")), "the server denies this user or password", false},
		"a locked user":               {at(as("locked"+user, "locked-secret")), "is locked", false},
		"no such database":            {at(func(u *url.URL) { u.Path = "/none" }), "CREATE DATABASE", false},
		"no right to the database":    {at(func(u *url.URL) { as(user, "plain-secret")(u); u.Path = "/mysql" }), "GRANT ALL", false},
		"no right to create tables":   {at(as(user, "plain-secret")), "GRANT ALL", false},
		"TLS that the server has not": {at(func(u *url.URL) { u.RawQuery = "tls=true" }), "TLS", false},
		"an unknown option":           {at(func(u *url.URL) { u.RawQuery = "no_such_option=1" }), "does not know an option of the URL", false},
		"an unknown host":             {at(func(u *url.URL) { u.Host = "no-such-host.invalid:3306" }), "is not known", true},
		"nobody there":                {at(func(u *url.URL) { u.Host = testenv.Address(t) }), "the server does not answer", true},
		"a node that is not ready":    {at(func(u *url.URL) { u.Host = refusing(t, 1047, "WSREP has not yet prepared node for application use") }), "the node of the cluster is not ready", true},
		"too many connections":        {at(func(u *url.URL) { u.Host = refusing(t, 1040, "Too many connections") }), "no connection left", true},
		"a blocked address":           {at(func(u *url.URL) { u.Host = refusing(t, 1129, "Host is blocked") }), "FLUSH HOSTS", false},
		"TLS that the server demands": {at(func(u *url.URL) { u.Host = refusing(t, 3159, "insecure transport") }), "add tls=true", false},
	} {
		t.Run(name, func(t *testing.T) { f.check(t) })
	}
}

// refusing is the address of a server that answers each connection with an error.
func refusing(t *testing.T, number int, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	body := append([]byte{0xff, byte(number), byte(number >> 8)}, "#08S01"+text...)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write(append([]byte{byte(len(body)), 0, 0, 0}, body...))
			_, _ = io.CopyN(io.Discard, conn, 1)
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// A database whose default is another character set keeps every name all the same.
func TestMariaDBOfAnotherCharacterSet(t *testing.T) {
	t.Parallel()
	for _, charset := range []string{"latin1", "utf8mb3"} {
		database := testenv.MariaDB(t)
		u, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		admin := mysql.NewConfig()
		admin.User, admin.Net, admin.Addr = u.User.Username(), "tcp", u.Host
		admin.Passwd, _ = u.User.Password()
		run(t, "mysql", admin.FormatDSN(), "ALTER DATABASE "+u.Path[1:]+" CHARACTER SET "+charset)
		w := replica.New(t, func(c *config.Config) { c.Database.URL = database; kit.StoredKeys(c) })
		w.User("Ольга", "x=日本語😀")
		if claims := w.Verify(w.Login("Ольга").AccessToken); claims["x"] != "日本語😀" {
			t.Errorf("%s: %v", charset, claims)
		}
	}
}

// A replica that waits says why again and again, and begins as soon as the cause is gone.
func TestStartWaitsForTheRightCause(t *testing.T) {
	t.Parallel()
	server := testenv.StartPostgres(t)
	run(t, "pgx", server.URL, "CREATE DATABASE later", "ALTER DATABASE later SET default_transaction_read_only = on")
	time.AfterFunc(1500*time.Millisecond, func() {
		db, err := sql.Open("pgx", server.URL)
		if err == nil {
			_, err = db.Exec("ALTER DATABASE later RESET default_transaction_read_only")
			db.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
	w := replica.New(t, func(c *config.Config) {
		c.Database.URL = edit(t, server.URL, func(u *url.URL) { u.Path = "/later" })
		kit.StoredKeys(c)
	})
	if log := w.Log.String(); !strings.Contains(log, "trying again") || !strings.Contains(log, "takes no writes") {
		t.Errorf("it did not say why it waits:\n%s", log)
	}
	w.Login("admin")
}
