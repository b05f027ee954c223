package doctor

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/testenv"
)

var ofSQLite = []string{"database-file", "database-file-system", "database-space"}

// of returns the names that a check skips on a database, in the order of the checks.
func skippedOf(names ...string) (list []string) {
	for _, c := range databaseChecks {
		if slices.Contains(names, c.ID) {
			list = append(list, c.ID)
		}
	}
	return list
}

// newestSchema is the version of the newest migration.
func newestSchema(t *testing.T) string {
	all, err := sqldb.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimLeft(all[len(all)-1].Name[:5], "0")
}

// schemaFaults are the same on PostgreSQL and MariaDB; on is how a table is called by the
// administrator.
func schemaFaults(t *testing.T, run func(b *bench, statement string)) []fault {
	newest := newestSchema(t)
	do := func(plant, undo []string) func(*bench) func() {
		return func(b *bench) func() {
			for _, s := range plant {
				run(b, s)
			}
			return func() {
				for _, s := range undo {
					run(b, s)
				}
			}
		}
	}
	return []fault{
		{"database-schema", do(
			[]string{"UPDATE schema_versions SET version_id = 0 WHERE version_id = " + newest},
			[]string{"UPDATE schema_versions SET version_id = " + newest + " WHERE version_id = 0 AND id = (SELECT last FROM (SELECT MAX(id) AS last FROM schema_versions) AS l)"}),
			[]string{"1 migration of this version has not been applied", "0000" + newest, "watchword migrate"}},
		{"database-schema", do(
			[]string{"UPDATE schema_versions SET version_id = 999 WHERE version_id = " + newest, "UPDATE settings SET value = '999' WHERE name = 'schema_oldest'"},
			[]string{"UPDATE schema_versions SET version_id = " + newest + " WHERE version_id = 999", "UPDATE settings SET value = '1' WHERE name = 'schema_oldest'"}),
			[]string{"its schema is version 999, this binary knows " + newest, "run the version"}},
	}
}

// asReplica runs a statement as the replicas' user.
func asReplica(b *bench, statement string) {
	b.t.Helper()
	if _, err := b.DB.Exec(context.Background(), statement); err != nil {
		b.t.Fatalf("%s: %v", statement, err)
	}
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	server := testenv.StartPostgres(t, "max_connections=50", "superuser_reserved_connections=4", "fsync=on", "full_page_writes=on")
	b := newBench(t, databaseChecks)
	b.onServer(server)
	b.healthy(skippedOf(append(ofSQLite, "database-replication", "database-binlog", "database-packet", "database-idle", "database-tls")...)...)
	b.finds(schemaFaults(t, asReplica)...)
	b.finds(
		fault{"database-primary", func(b *bench) func() {
			undo := statements("ALTER SYSTEM SET default_transaction_read_only = on", "ALTER SYSTEM RESET default_transaction_read_only")(b)
			reload := func() { b.exec("SELECT pg_reload_conf()") }
			reload()
			b.again(func() error {
				if r := b.run("database-primary"); r.Status != Failed {
					return context.DeadlineExceeded
				}
				return nil
			})
			return func() {
				undo()
				reload()
				b.again(func() error { return b.DB.Ping(context.Background()) })
			}
		}, []string{"default_transaction_read_only is on", "target_session_attrs=read-write", "ALTER SYSTEM RESET default_transaction_read_only"}},
		// The test's own, of the administrator, is the other.
		fault{"database-connections", configured(func(c *config.Config) { c.Database.MaxConnections = 20 }), []string{
			"max_connections of the server is 50, 4 are reserved for administrators, and 1 is in use by others",
			"3 replicas with database.max_connections 20 and one more for notifications (LISTEN) may open 63",
			"set database.max_connections to 10 ", "or: ALTER SYSTEM SET max_connections = 89", "restart PostgreSQL",
		}},
		fault{"database-connections", statements("ALTER ROLE %s CONNECTION LIMIT 17", "ALTER ROLE %s CONNECTION LIMIT -1"), []string{
			"may have 17 connections; 3 replicas with database.max_connections 5 ", "may open 18", "set database.max_connections to 3 ", "CONNECTION LIMIT 24",
		}},
		fault{"database-connections", statements("ALTER DATABASE %s CONNECTION LIMIT 17", "ALTER DATABASE %s CONNECTION LIMIT -1"), []string{
			"the database t", "may have 17 connections", "ALTER DATABASE t", "CONNECTION LIMIT 24",
		}},
		fault{"database-connections-update", configured(func(c *config.Config) { c.Database.MaxConnections = 12 }), []string{
			"4 replicas with database.max_connections 12 and one more for notifications (LISTEN) may open 52 while an update", "set database.max_connections to 10 ",
		}},
		fault{"database-settings", reconnected("ALTER ROLE %s SET synchronous_commit = off", "ALTER ROLE %s RESET synchronous_commit"), []string{
			`synchronous_commit is "off"`, `has to be "on"`, "restart the replicas",
		}},
		fault{"database-isolation", reconnected("ALTER ROLE %s SET default_transaction_isolation = 'repeatable read'", "ALTER ROLE %s RESET default_transaction_isolation"), []string{
			`default_transaction_isolation is "repeatable read"`, `has to be "read committed"`,
		}},
		fault{"database-time-limits", reconnected("ALTER DATABASE %s SET lock_timeout = '1s'", "ALTER DATABASE %s RESET lock_timeout"), []string{
			`lock_timeout is "1000"`, `has to be "0"`,
		}},
		fault{"database-replication", func(b *bench) func() {
			c, err := pgconn.ParseConfig(server.URL)
			if err != nil {
				b.t.Fatal(err)
			}
			c.RuntimeParams["replication"] = "true"
			standby, err := pgconn.ConnectConfig(context.Background(), c)
			if err != nil {
				b.t.Fatal(err)
			}
			return func() {
				standby.Close(context.Background())
				b.exec("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_replication")
			}
		}, []string{"1 standby follows the database and synchronous_standby_names is empty", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'; SELECT pg_reload_conf();"}},
		fault{"database-tls", configured(func(c *config.Config) {
			c.Database.URL = "postgres://watchword:secret@db-a:5432,db-b:5432/watchword?sslmode=disable"
		}), []string{
			"connections to db-a, db-b are not encrypted", "sslmode=verify-full",
		}},
		fault{"database-role", statements("ALTER ROLE %s SUPERUSER CREATEDB", "ALTER ROLE %s NOSUPERUSER NOCREATEDB"), []string{
			"has SUPERUSER CREATEDB", "NOSUPERUSER NOCREATEDB;",
		}},
		fault{"database-clock", changed(func(d *Deployment) { d.Now = func() time.Time { return time.Now().Add(-time.Minute) } }), []string{
			"the clock of the database is ", "ahead of this machine's; 5s are allowed for", "chronyc",
		}},
		fault{"database-clock", changed(func(d *Deployment) { d.Now = func() time.Time { return time.Now().Add(time.Minute) } }), []string{"behind this machine's"}},
	)
	t.Run("pooler", func(t *testing.T) { postgresPooler(t, server) })
	t.Run("closed", func(t *testing.T) { postgresClosed(t, b, server) })
}

// Behind a pooler a replica cannot change what is in the way, and the pooler does not say what
// it allows.
func postgresPooler(t *testing.T, server *testenv.Server) {
	b := newBench(t, databaseChecks)
	b.admin = testenv.SQL(t, server.URL)
	tenant := server.Tenant(t)
	b.user = tenant[strings.Index(tenant, "//")+2:][:13]
	b.exec(
		"ALTER ROLE "+b.user+" SET default_transaction_isolation = 'serializable'",
		"ALTER ROLE "+b.user+" SET statement_timeout = '1min'",
		"ALTER ROLE "+b.user+" SET session_replication_role = 'replica'",
	)
	b.open(testenv.PgBouncer(t, tenant).URL)
	says(t, b.run("database-isolation"), "ALTER ROLE "+b.user+" SET default_transaction_isolation = 'read committed'; then RECONNECT")
	says(t, b.run("database-time-limits"), "ALTER ROLE "+b.user+" SET statement_timeout = '0'")
	says(t, b.run("database-settings"), "ALTER ROLE "+b.user+" SET session_replication_role = 'origin'")
	says(t, b.run("database-abandoned"), "ALTER ROLE "+b.user+" SET idle_in_transaction_session_timeout = '10s'")
	for _, id := range []string{"database-connections", "database-connections-update"} {
		r := b.run(id)
		if r.Status != Skipped || !strings.Contains(r.Reason, "max_client_conn of PgBouncer must be above 20 ") || !strings.Contains(r.Reason, "default_pool_size at most 4") {
			t.Errorf("%s is %s: %s", id, r.Status, r.Reason)
		}
	}
}

// What keeps a replica from opening a database at all is named, and every other check is silent.
func postgresClosed(t *testing.T, b *bench, server *testenv.Server) {
	open := func(url string) *bench {
		c := newBench(t, databaseChecks)
		c.Config.Database.URL = url
		if c.DB, c.DBErr = sqldb.Open(t.Context(), sqldb.Config{URL: url}); c.DBErr == nil {
			t.Error("it can be opened")
			c.DB.Close()
		}
		return c
	}
	only := func(c *bench, id string, words ...string) {
		t.Helper()
		for _, r := range Run(t.Context(), c.Deployment, databaseChecks) {
			switch {
			case r.ID == id:
				says(t, r, words...)
			case r.Status != Skipped && r.Status != OK:
				t.Errorf("%s is %s: %s %+v", r.ID, r.Status, r.Reason, r.Findings)
			}
		}
	}
	b.exec("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
	only(open(strings.Replace(server.URL, "/postgres?", "/ascii?", 1)), "database-encoding", "the encoding of the database is SQL_ASCII", "ENCODING 'UTF8' TEMPLATE template0")
	b.exec("ALTER DATABASE ascii RENAME TO fenced", "ALTER DATABASE "+b.user+" SET default_transaction_read_only = on")
	only(open(b.url), "database-primary", "default_transaction_read_only", "ALTER DATABASE")

	wrong := open(strings.Replace(b.url, ":"+passwordOf(t, b.url), ":another", 1))
	only(wrong, "database-reachable", "the server denies this user or password", "psql -h 127.0.0.1 -p ", " -U "+b.user+" -d "+b.user)
	if r := wrong.run("database-reachable"); strings.Contains(r.Findings[0].Mend, "another") {
		t.Error("it shows the password")
	}
}

func passwordOf(t *testing.T, text string) string {
	c, err := pgconn.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return c.Password
}

// A server that syncs nothing, as those of testenv do.
func TestPostgresThatForgets(t *testing.T) {
	t.Parallel()
	b := newBench(t, databaseChecks)
	b.open(testenv.Postgres(t))
	says(t, b.run("database-durability"), "fsync is off", "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();", "full_page_writes is off")
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	server := testenv.StartMariaDB(t, "--log-bin=binlog", "--server-id=1", "--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1", "--binlog-format=MIXED")
	b := newBench(t, databaseChecks)
	b.onServer(server)
	b.healthy(skippedOf(append(ofSQLite, "database-abandoned", "database-replication", "database-tls")...)...)
	b.finds(schemaFaults(t, asReplica)...)
	global := func(name, plant, undo string) func(*bench) func() {
		return statements("SET GLOBAL "+name+" = "+plant, "SET GLOBAL "+name+" = "+undo)
	}
	b.finds(
		fault{"database-primary", global("read_only", "ON", "OFF"), []string{"read_only is on", "SET GLOBAL read_only = OFF"}},
		fault{"database-encoding", func(b *bench) func() {
			asReplica(b, "ALTER TABLE settings CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
			return func() {
				asReplica(b, "ALTER TABLE settings CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin")
			}
		}, []string{"the collation of the table settings is utf8mb4_general_ci", "has to be utf8mb4_nopad_bin", "CREATE DATABASE watchword_new"}},
		fault{"database-connections", global("max_connections", "12", "151"), []string{
			"max_connections of the server is 12, and ", "3 replicas with database.max_connections 5 may open 15", "SET GLOBAL max_connections = 2", "under [mysqld]",
		}},
		fault{"database-connections", reconnected("ALTER USER %s@'127.0.0.1' WITH MAX_USER_CONNECTIONS 9", "ALTER USER %s@'127.0.0.1' WITH MAX_USER_CONNECTIONS 0"), []string{
			"may have 9 connections (max_user_connections)", "set database.max_connections to 2 ", "'@'127.0.0.1' WITH MAX_USER_CONNECTIONS 20",
		}},
		fault{"database-connections-update", configured(func(c *config.Config) { c.Database.MaxConnections = 45 }), []string{"may open 180 while an update"}},
		fault{"database-settings", reconnected("SET GLOBAL foreign_key_checks = OFF", "SET GLOBAL foreign_key_checks = ON"), []string{`foreign_key_checks is "OFF"`, "restart the replicas"}},
		fault{"database-isolation", reconnected("SET GLOBAL tx_isolation = 'READ-UNCOMMITTED'", "SET GLOBAL tx_isolation = 'REPEATABLE-READ'"), []string{
			`tx_isolation is "READ-UNCOMMITTED"`, `has to be "REPEATABLE-READ"`,
		}},
		fault{"database-durability", global("innodb_flush_log_at_trx_commit", "2", "1"), []string{"innodb_flush_log_at_trx_commit is 2", "SET GLOBAL innodb_flush_log_at_trx_commit = 1"}},
		fault{"database-durability", global("sync_binlog", "0", "1"), []string{"sync_binlog is 0", "SET GLOBAL sync_binlog = 1"}},
		fault{"database-replication", func(b *bench) func() { return follow(b, server) }, []string{"replicas of the database: 1, and rpl_semi_sync_master_enabled is OFF", "SET GLOBAL rpl_semi_sync_master_enabled = ON", "rpl_semi_sync_master_wait_point is AFTER_COMMIT"}},
		fault{"database-binlog", global("binlog_format", "'STATEMENT'", "'MIXED'"), []string{"binlog_format is STATEMENT", "SET GLOBAL binlog_format = ROW"}},
		fault{"database-packet", global("max_allowed_packet", "524288", "16777216"), []string{"max_allowed_packet is 524288 bytes", "SET GLOBAL max_allowed_packet = 16777216"}},
		fault{"database-idle", global("wait_timeout", "60", "28800"), []string{"wait_timeout is 60 s", "for 300 s", "SET GLOBAL wait_timeout = 600"}},
		fault{"database-tls", configured(func(c *config.Config) { c.Database.URL = "mysql://watchword:secret@db.internal/watchword" }), []string{
			"connections to db.internal are not encrypted", "add tls=true",
		}},
		fault{"database-role", statements("GRANT SELECT ON *.* TO %s@'127.0.0.1'", "REVOKE SELECT ON *.* FROM %s@'127.0.0.1'"), []string{
			"has SELECT on all databases", "REVOKE ALL PRIVILEGES, GRANT OPTION FROM 't", "GRANT ALL ON `t",
		}},
		fault{"database-clock", changed(func(d *Deployment) { d.Now = func() time.Time { return time.Now().Add(time.Minute) } }), []string{"behind this machine's"}},
	)
}

// follow registers a replica of a MariaDB, over a connection of the driver's.
func follow(b *bench, server *testenv.Server) func() {
	const grant = "REPLICATION SLAVE ON *.*"
	b.exec("GRANT " + grant + " TO " + b.user + "@'127.0.0.1'")
	u, err := url.Parse(b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	var conn net.Conn
	c := mysql.NewConfig()
	c.User, c.Addr, c.DBName = u.User.Username(), server.Addr, b.user
	c.Passwd, _ = u.User.Password()
	c.DialFunc = func(ctx context.Context, network, addr string) (_ net.Conn, err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return conn, err
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := connector.Connect(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	// COM_REGISTER_SLAVE of the server 2, without host, user and password: the length and the
	// number of the packet, the command, the id, three empty texts, port, rank, and the primary.
	if _, err := conn.Write([]byte{18, 0, 0, 0, 0x15, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		b.t.Fatal(err)
	}
	answer := make([]byte, 64)
	if n, err := conn.Read(answer); err != nil || n < 5 || answer[4] != 0 {
		b.t.Fatalf("%q, %v", answer[:n], err)
	}
	return func() {
		conn.Close()
		b.again(func() error { // the server has to notice
			var name, n string
			err := b.admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Slaves_connected'").Scan(&name, &n)
			if err == nil && n != "0" {
				err = errors.New("it has not noticed")
			}
			return err
		})
		b.exec("REVOKE " + grant + " FROM " + b.user + "@'127.0.0.1'")
	}
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	b := newBench(t, databaseChecks)
	b.open(sqldbtest.SQLite(t))
	file, _ := sqldb.SQLiteFile(b.url)
	b.healthy(skippedOf("database-encoding", "database-connections", "database-connections-update", "database-settings", "database-isolation", "database-time-limits",
		"database-abandoned", "database-durability", "database-replication", "database-binlog", "database-packet", "database-idle", "database-tls", "database-version",
		"database-role", "database-clock")...)
	b.finds(fault{"database-file", func(b *bench) func() {
		mode := func(m os.FileMode) {
			if err := os.Chmod(file, m); err != nil {
				t.Fatal(err)
			}
		}
		mode(0o644)
		return func() { mode(0o600) }
	}, []string{"has the mode 0644", "chmod 600 '" + file + "'"}})
	on, err := diskOf(file)
	if err != nil || on.whole == 0 || on.free > on.whole || on.file == 0 {
		t.Errorf("%+v, %v", on, err)
	}
	if found := scarceSpace(file, disk{free: 100 << 20, whole: 1 << 30, file: 1 << 20}); len(found) != 1 || !strings.Contains(found[0].Seen, "100 MiB left of 1024") || !strings.Contains(found[0].Mend, "free 156 MiB") {
		t.Errorf("%+v", found)
	}
	if found := scarceSpace(file, disk{free: 1 << 30, whole: 4 << 30, file: 2 << 30}); len(found) != 1 || !strings.Contains(found[0].Mend, "free 1024 MiB") {
		t.Errorf("%+v", found)
	}
	if found := scarceSpace(file, disk{free: 300 << 20, whole: 1 << 30, file: 1 << 20}); len(found) != 0 {
		t.Errorf("%+v", found)
	}
	if found := remoteDisk(file, disk{network: "NFS"}); len(found) != 1 || !strings.Contains(found[0].Seen, "is on NFS") {
		t.Errorf("%+v", found)
	}
}

// Versions as servers say them.
func TestOldVersions(t *testing.T) {
	for version, old := range map[string]bool{
		"PostgreSQL 12.22": true, "PostgreSQL 13.0": false, "PostgreSQL 15.14 (Debian 15.14-0+deb12u1)": false, "PostgreSQL 18beta1": false,
		"10.1.48-MariaDB": true, "5.5.5-10.2.44-MariaDB": false, "10.11.14-MariaDB-0+deb12u2-log": false, "11.4.2-MariaDB": false,
		"5.7.44-log": true, "8.0.36": false, "9.1.0": false, "8.0.32-google": false,
	} {
		if got := len(oldDatabase(version)) > 0; got != old {
			t.Errorf("%s: old is %v", version, got)
		}
	}
	for version, old := range map[string]bool{"6.0.16": true, "6.2.0": false, "7.0.15": false, "7.2.4": false, "": false} {
		if got := len(oldRedis(version)) > 0; got != old {
			t.Errorf("Redis %s: old is %v", version, got)
		}
	}
}

// What leaves this machine on its way to a backend.
func TestNetworkHosts(t *testing.T) {
	for text, hosts := range map[string][]string{
		"postgres://u:p@127.0.0.1:5432/w":                                  nil,
		"postgres://u:p@[::1]/w":                                           nil,
		"postgres://u:p@localhost/w":                                       nil,
		"postgres:///w?host=/var/run/postgresql":                           nil,
		"postgres://u:p@db-a:5432,db-b,127.0.0.1/w":                        {"db-a", "db-b"},
		"postgres:///w?host=10.0.0.1,10.0.0.2":                             {"10.0.0.1", "10.0.0.2"},
		"mysql://u:p%40x@[2001:db8::1]:3306/w?tls=true":                    {"2001:db8::1"},
		"rediss://:p@redis-0:6379/0?addr=redis-1:6379&addr=127.0.0.1:6379": {"redis-0", "redis-1"},
	} {
		if got := networkHosts(text); !slices.Equal(got, hosts) {
			t.Errorf("%s: %q", text, got)
		}
	}
}
