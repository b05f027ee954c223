package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/timing"
)

var databaseChecks = []Check{
	{"database-reachable", "The database answers", Error,
		"Nothing can be logged in, renewed or revoked without the database. The finding has what the server said; the command in it shows what the replicas' machines see.", databaseReachable},
	{"database-primary", "The database's server takes writes", Error,
		"A standby, or a former primary, may be behind: it would answer that a revoked token is not revoked. Replicas believe none, and answer 503 until they reach a server that takes writes.", databasePrimary},
	{"database-encoding", "The database keeps every name as it is, and compares names byte by byte", Error,
		"In another encoding or collation some names cannot be kept, or two that differ count as the same. A backup and its restore move the data into a database that is right.", databaseEncoding},
	{"database-schema", "The schema of the database is one that this version knows", Error,
		"This version needs migrations that have not been applied, or a later version has changed the schema in a way that this one does not know.", databaseSchema},
	{"database-connections", "The database allows all connections that the replicas may open", Error,
		"When all replicas are busy, some are refused connections and answer 503. All of them may open replicas × (`database.max_connections` + 1) on PostgreSQL, where each listens for notifications, and replicas × `database.max_connections` on MySQL and MariaDB; what others use and what is reserved is taken off the limits of server, database and user.", databaseConnections},
	{"database-connections-update", "The database allows the connections of one replica more, which runs during an update", Warning,
		"An update starts a replica before it stops the old one, so for a while there is one more.", databaseConnectionsUpdate},
	{"database-settings", "No setting of the database changes what statements do", Error,
		"Each connection of a replica changes settings under which a statement would not do what it says. It cannot behind a pooler, nor if the setting was changed after the replica had started.", databaseSettings},
	{"database-isolation", "Transactions begin at the isolation level that they are written for", Warning,
		"Statements are written for the level at which each sees what was committed before it. At another level they are refused and tried again more often.", databaseIsolation},
	{"database-time-limits", "The database ends no statement and no connection that a replica waits for", Warning,
		"A limit of the server for statements, locks or idle connections ends what a replica waits for: a migration, or the connection itself.", databaseTimeLimits},
	{"database-abandoned", "The database gives up the transaction of a client that has gone", Warning,
		"A replica that is cut off in the middle of a transaction leaves rows locked; logouts and rotations elsewhere wait for them until the server gives the transaction up.", databaseAbandoned},
	{"database-durability", "What the database has acknowledged outlives a failure of its machine", Warning,
		"After a failure of power or kernel, a logout or a revocation that was acknowledged may be undone, or the database be destroyed.", databaseDurability},
	{"database-replication", "What the database has acknowledged is on a standby, too", Warning,
		"A failover to a standby that lags undoes what was acknowledged last, such as revocations. Only synchronous (PostgreSQL) or semi-synchronous (MySQL, MariaDB) replication prevents that.", databaseReplication},
	{"database-binlog", "The binary log of the database holds rows, not statements", Warning,
		"With statements in the binary log, transactions have to run at a higher isolation level and wait longer for each other.", databaseBinlog},
	{"database-packet", "The database takes the longest rows", Error,
		"A row that is longer than a packet is refused. Replicas refuse to start on such a server.", databasePacket},
	{"database-idle", "The database keeps an idle connection for as long as a replica does", Advice,
		"The server closes connections that a replica believes to be open, so that requests connect anew.", databaseIdle},
	{"database-tls", "Connections to the database over a network are encrypted, and its certificate is verified", Warning,
		"Password hashes, sessions and the password of the database itself go over the network. Without TLS, or with a certificate that nobody verifies, others can read or replace them.", databaseTLS},
	{"database-version", "The database is of a version that is supported", Warning,
		"The statements are written for, and tested on, the versions that docs/storage.md names.", databaseVersion},
	{"database-role", "The replicas' user in the database has no rights beyond it", Advice,
		"A right that is not there cannot be misused: the replicas need to own their database, or ALL on it, and nothing else of the server.", databaseRole},
	{"database-clock", "The clocks of the database and of this machine agree", Warning,
		"The database's clock decides which replicas are live, and the replicas' clocks when tokens end. Beyond the leeway, good tokens are refused.", databaseClock},
	{"database-file", "No other user of this machine can read the database file and its key", Warning,
		"The file has password hashes and sessions; with its key, also private signing keys.", databaseFile},
	{"database-file-system", "The database file is on a disk of this machine", Error,
		"SQLite relies on locks and shared memory that file systems of a network do not have.", databaseFileSystem},
	{"database-space", "The disk of the database file has room", Warning,
		"When the disk is full, nothing that writes works: logins, renewals, logouts.", databaseSpace},
}

// database returns the database if it was opened and is of one of these dialects; none named:
// of any.
func (d *Deployment) database(dialects ...sqldb.Dialect) (*sqldb.DB, error) {
	switch skip := Skip(""); {
	case d.DB == nil && errors.As(d.DBErr, &skip):
		return nil, skip // the replica has another store
	case d.DB == nil && d.DBErr != nil:
		return nil, Skip("the database could not be opened: see database-reachable and database-primary")
	case d.DB == nil:
		return nil, errors.New("the database was not opened")
	case len(dialects) > 0 && !slices.Contains(dialects, d.DB.Dialect()):
		return nil, Skip("it does not concern this kind of database")
	}
	return d.DB, nil
}

// databaseTexts returns the values of a query for names and values.
func databaseTexts(ctx context.Context, db *sqldb.DB, query string) (map[string]string, error) {
	texts := map[string]string{}
	_, err := sqldb.All(ctx, db, func(scan sqldb.Scan) (none struct{}, err error) {
		var name, value string
		err = scan(&name, &value)
		texts[name] = value
		return none, err
	}, query)
	return texts, err
}

// postgresSettings returns the settings of the server. Those that a connection changes for
// itself are this connection's.
func postgresSettings(ctx context.Context, db *sqldb.DB) (map[string]string, error) {
	return databaseTexts(ctx, db, "SELECT name, COALESCE(setting, '') FROM pg_settings")
}

// mysqlVariables returns the variables of the server, not of the connection.
func mysqlVariables(ctx context.Context, db *sqldb.DB) (map[string]string, error) {
	return databaseTexts(ctx, db, "SHOW GLOBAL VARIABLES")
}

// mysqlVariables returns the variables of the server, if it is MySQL or MariaDB.
func (d *Deployment) mysqlVariables(ctx context.Context) (map[string]string, error) {
	db, err := d.database(sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	return mysqlVariables(ctx, db)
}

// alterSystem is what changes a setting of PostgreSQL that needs no restart.
func alterSystem(name, value string) string {
	return fmt.Sprintf("ALTER SYSTEM SET %s = %s; SELECT pg_reload_conf();", name, value)
}

// setGlobal is what changes a variable of MySQL and MariaDB, now and for later.
func setGlobal(name, value string) string {
	return fmt.Sprintf("SET GLOBAL %s = %s; and, since a restart forgets that, the line %s = %s under [mysqld] in the server's configuration file", name, value, name, value)
}

func databaseReachable(ctx context.Context, d *Deployment) ([]Finding, error) {
	err := d.DBErr
	switch skip := Skip(""); {
	case d.DB != nil:
		err = d.DB.Ping(ctx)
	case err == nil, errors.As(err, &skip):
		_, err = d.database()
		return nil, err
	}
	if err == nil || errors.Is(err, sqldb.ErrReadOnly) || errors.Is(err, sqldb.ErrEncoding) {
		return nil, nil // it answers; other checks say what is wrong
	}
	return []Finding{{Seen: err.Error(), Mend: databaseTry(d.Config.Database.URL)}}, nil
}

// databaseTry is what an operator runs to see what the replicas see. It never shows a password.
func databaseTry(text string) string {
	const once = "do what the message says, and see that this works on the machines of the replicas: "
	if file, ok := sqldb.SQLiteFile(text); ok {
		return fmt.Sprintf("do what the message says: database.url names %s, relative to the working directory of the replica, and this user (uid %d) has to read and write it and its directory", file, os.Getuid())
	}
	if u, err := url.Parse(text); err == nil && u.Scheme == "mysql" {
		return fmt.Sprintf("%smariadb --host=%s --port=%s --user=%s --password %s -e 'SELECT 1'", once,
			u.Hostname(), cmp.Or(u.Port(), "3306"), u.User.Username(), strings.TrimPrefix(u.Path, "/"))
	}
	if c, err := pgconn.ParseConfig(text); err == nil {
		return fmt.Sprintf("%spsql -h %s -p %d -U %s -d %s -c 'SELECT 1'", once, c.Host, c.Port, c.User, c.Database)
	}
	return "correct database.url (DATABASE_URL)"
}

func databasePrimary(ctx context.Context, d *Deployment) ([]Finding, error) {
	err := d.DBErr
	if d.DB != nil {
		err = d.DB.Ping(ctx)
	}
	if !errors.Is(err, sqldb.ErrReadOnly) {
		if d.DB == nil {
			_, err = d.database()
			return nil, err
		}
		return nil, nil // without an answer, database-reachable says so
	}
	mend := "let database.url lead to the primary alone: a server that is not may be behind, and answer that a revoked token is not revoked. " +
		"With PostgreSQL name all hosts: postgres://user:password@db-a:5432,db-b:5432/watchword?target_session_attrs=read-write; with MySQL and MariaDB use the port of the proxy that leads to the primary"
	for seen, statement := range map[string]string{
		"default_transaction_read_only": "if it is the primary: ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf(); or ALTER DATABASE … or ALTER ROLE … RESET default_transaction_read_only, where it is set",
		"read_only is on":               "if it is the primary: SET GLOBAL read_only = OFF",
		"Slave_running":                 "if it is the primary: STOP SLAVE; RESET SLAVE ALL",
		"pg_is_in_recovery":             "if the primary is gone: SELECT pg_promote()",
	} {
		if strings.Contains(err.Error(), seen) {
			mend += "; " + statement
		}
	}
	if file, ok := sqldb.SQLiteFile(d.Config.Database.URL); ok {
		mend = fmt.Sprintf("let this user (uid %d) write to %s and to its directory, on a file system that is not mounted read-only", os.Getuid(), file)
	}
	return []Finding{{Seen: err.Error(), Mend: mend}}, nil
}

func databaseEncoding(ctx context.Context, d *Deployment) ([]Finding, error) {
	if errors.Is(d.DBErr, sqldb.ErrEncoding) {
		return []Finding{{Seen: d.DBErr.Error(), Mend: "stop the replicas; CREATE DATABASE watchword_utf8 ENCODING 'UTF8' TEMPLATE template0; watchword backup from the old one and watchword restore into the new one; set database.url to it"}}, nil
	}
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil || db.Dialect() == sqldb.Postgres {
		return nil, err // package sqldb opens no other
	}
	tables, err := databaseTexts(ctx, db, `SELECT table_name, COALESCE(table_collation, '') FROM information_schema.tables
		WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND table_name <> 'schema_versions'
			AND table_collation NOT IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')`)
	if err != nil {
		return nil, err
	}
	version, err := databaseTexts(ctx, db, "SELECT 'version', VERSION()")
	if err != nil {
		return nil, err
	}
	collation := "utf8mb4_0900_bin"
	if strings.Contains(version["version"], "MariaDB") {
		collation = "utf8mb4_nopad_bin"
	}
	var found []Finding
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		found = append(found, Finding{
			Subject: name, Seen: fmt.Sprintf("the collation of the table %s is %s, under which different names may be equal; it has to be %s", name, tables[name], collation),
			// No ALTER TABLE: the server refuses to change a column of a foreign key.
			Mend: "stop the replicas; CREATE DATABASE watchword_new; watchword backup from the old one and watchword restore into the new one, whose tables are right; set database.url to it",
		})
	}
	return found, nil
}

func databaseSchema(ctx context.Context, d *Deployment) ([]Finding, error) {
	db, err := d.database()
	if err != nil {
		return nil, err
	}
	pending, err := db.Pending(ctx)
	switch {
	case errors.Is(err, sqldb.ErrSchemaNewer):
		return []Finding{{Seen: err.Error(), Mend: "run the version of Watchword that has changed the schema (GET /health and watchword version say which a replica is), or restore a backup that is older than the update"}}, nil
	case err != nil || len(pending) == 0:
		return nil, err
	}
	return []Finding{{
		Seen: fmt.Sprintf("%d %s of this version %s not been applied, from %s to %s", len(pending), plural(len(pending), "migration", "migrations"),
			plural(len(pending), "has", "have"), pending[0].Name, pending[len(pending)-1].Name),
		Mend: "watchword migrate; or start a replica of this version, which does the same",
	}}, nil
}

// inTheWay returns findings for those settings whose names fit.
func inTheWay(ctx context.Context, d *Deployment, fits func(name string) bool, effect string) ([]Finding, error) {
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	list, err := db.InTheWay(ctx)
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, s := range list {
		if !fits(s.Name) {
			continue
		}
		mend := "restart the replicas, one after the other: it was changed after they had started, and each connection of a replica that starts changes it back for itself"
		if db.Pooled() {
			var role string
			if err := db.QueryRow(ctx, "SELECT quote_ident(current_user)").Scan(&role); err != nil {
				return nil, err
			}
			mend = fmt.Sprintf("ALTER ROLE %s SET %s = '%s'; then RECONNECT in the console of PgBouncer: behind a pooler, a replica cannot change it for itself", role, s.Name, s.Need)
		}
		found = append(found, Finding{Subject: s.Name, Seen: fmt.Sprintf("%s is %q for the replicas' connections, and has to be %q: %s", s.Name, s.Value, s.Need, effect), Mend: mend})
	}
	return found, nil
}

func isIsolation(name string) bool { return strings.HasSuffix(name, "_isolation") }

func isTimeLimit(name string) bool {
	return strings.HasSuffix(name, "_timeout") || name == "max_execution_time"
}

func databaseSettings(ctx context.Context, d *Deployment) ([]Finding, error) {
	return inTheWay(ctx, d, func(name string) bool { return !isIsolation(name) && !isTimeLimit(name) },
		"otherwise a statement does not do what it says, or what was acknowledged can be lost")
}

func databaseIsolation(ctx context.Context, d *Deployment) ([]Finding, error) {
	return inTheWay(ctx, d, isIsolation, "otherwise a statement may not see what was committed before it, and is refused more often")
}

func databaseTimeLimits(ctx context.Context, d *Deployment) ([]Finding, error) {
	return inTheWay(ctx, d, isTimeLimit, "a replica bounds its statements itself, and a migration has no bound")
}

func databaseAbandoned(ctx context.Context, d *Deployment) ([]Finding, error) {
	db, err := d.database(sqldb.Postgres)
	if err != nil {
		return nil, err
	}
	var limit, role string
	err = db.QueryRow(ctx, "SELECT current_setting('idle_in_transaction_session_timeout'), quote_ident(current_user)").Scan(&limit, &role)
	if err != nil || limit != "0" {
		return nil, err
	}
	return []Finding{{
		Seen: "idle_in_transaction_session_timeout is 0 for the replicas' connections: the rows that a replica has locked when it is cut off stay locked for all others",
		Mend: fmt.Sprintf("ALTER ROLE %s SET idle_in_transaction_session_timeout = '10s'; behind PgBouncer, RECONNECT in its console then", role),
	}}, nil
}

// databaseRisk is a setting under which a server loses what it has acknowledged.
type databaseRisk struct {
	name, safe string
	loses      string
	mend       func(name, safe string) string
}

var databaseRisks = map[sqldb.Dialect][]databaseRisk{
	sqldb.Postgres: {
		{"fsync", "on", "a failure of the machine may lose all that the database has", alterSystem},
		{"full_page_writes", "on", "a failure of the machine may lose all that the database has", alterSystem},
	},
	sqldb.MySQL: {
		{"innodb_flush_log_at_trx_commit", "1", "a failure of the machine loses what was acknowledged in the last second, such as a logout", setGlobal},
		{"innodb_doublewrite", "ON", "a failure of the machine may lose all that the database has", func(name, safe string) string {
			return fmt.Sprintf("the line %s = %s under [mysqld] in the server's configuration file, and a restart of the server", name, safe)
		}},
	},
}

func databaseDurability(ctx context.Context, d *Deployment) ([]Finding, error) {
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	read := postgresSettings
	if db.Dialect() == sqldb.MySQL {
		read = mysqlVariables
	}
	has, err := read(ctx, db)
	if err != nil {
		return nil, err
	}
	risks := databaseRisks[db.Dialect()]
	if has["log_bin"] == "ON" {
		risks = append(slices.Clone(risks), databaseRisk{"sync_binlog", "1", "after a failure of the machine, replicas of the database may differ from it", setGlobal})
	}
	var found []Finding
	for _, r := range risks {
		if value, known := has[r.name]; known && value != r.safe && !(r.name == "innodb_doublewrite" && value != "OFF") {
			found = append(found, Finding{Subject: r.name, Seen: fmt.Sprintf("%s is %s: %s", r.name, value, r.loses), Mend: r.mend(r.name, r.safe)})
		}
	}
	return found, nil
}

func databaseReplication(ctx context.Context, d *Deployment) ([]Finding, error) {
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	if db.Dialect() == sqldb.MySQL {
		return mysqlReplication(ctx, db)
	}
	var standbys int
	var names, commit string
	// An ordinary role sees that there is a standby, and not its state.
	err = db.QueryRow(ctx, `SELECT COUNT(*), current_setting('synchronous_standby_names'), current_setting('synchronous_commit') FROM pg_stat_replication
		WHERE COALESCE(application_name, '') NOT IN ('pg_basebackup', 'pg_receivewal')`).Scan(&standbys, &names, &commit)
	const lost = "a failover loses what was acknowledged last, such as a revocation"
	switch {
	case err != nil:
		return nil, err
	case standbys == 0:
		return nil, Skip("no standby follows the database")
	case names == "":
		return []Finding{{
			Seen: fmt.Sprintf("%d %s the database and synchronous_standby_names is empty: %s", standbys, plural(standbys, "standby follows", "standbys follow"), lost),
			Mend: alterSystem("synchronous_standby_names", "'ANY 1 (*)'") + " with two standbys or more, since writes wait for one of them",
		}}, nil
	case commit == "local":
		return []Finding{{
			Seen: fmt.Sprintf("synchronous_commit is local, which waits for no standby, though synchronous_standby_names is %q: %s", names, lost),
			Mend: alterSystem("synchronous_commit", "'on'") + " or ALTER ROLE … RESET synchronous_commit, where it is set",
		}}, nil
	}
	return nil, nil
}

func mysqlReplication(ctx context.Context, db *sqldb.DB) ([]Finding, error) {
	has, err := mysqlVariables(ctx, db)
	if err != nil {
		return nil, err
	}
	if has["log_bin"] != "ON" {
		return nil, Skip("no replica follows the database: it has no binary log")
	}
	status, err := databaseTexts(ctx, db, "SHOW GLOBAL STATUS")
	if err != nil {
		return nil, err
	}
	following, said := status["Slaves_connected"]
	if !said {
		return nil, errors.New("MySQL shows its replicas only to those who may see them: look at SHOW REPLICAS; if there are any, rpl_semi_sync_source_enabled must be ON and rpl_semi_sync_source_wait_point AFTER_SYNC")
	}
	if following == "0" {
		return nil, Skip("no replica follows the database")
	}
	var found []Finding
	for _, s := range [][2]string{{"rpl_semi_sync_master_enabled", "ON"}, {"rpl_semi_sync_master_wait_point", "AFTER_SYNC"}} {
		if value, known := has[s[0]]; known && value != s[1] {
			found = append(found, Finding{
				Subject: s[0], Seen: fmt.Sprintf("replicas of the database: %s, and %s is %s: a failover loses what was acknowledged last, such as a revocation", following, s[0], value),
				Mend: setGlobal(s[0], s[1]) + "; on each replica of the database, SET GLOBAL rpl_semi_sync_slave_enabled = ON",
			})
		}
	}
	return found, nil
}

func databaseBinlog(ctx context.Context, d *Deployment) ([]Finding, error) {
	has, err := d.mysqlVariables(ctx)
	switch {
	case err != nil:
		return nil, err
	case has["log_bin"] != "ON":
		return nil, Skip("the database has no binary log")
	case !strings.EqualFold(has["binlog_format"], "STATEMENT"):
		return nil, nil
	}
	return []Finding{{
		Seen: "binlog_format is STATEMENT: transactions wait longer for each other, and a replica of the database may come to differ from it",
		Mend: setGlobal("binlog_format", "ROW") + "; then restart the replicas of Watchword one after the other",
	}}, nil
}

// leastPacket is max_allowed_packet below which package sqldb opens no database.
const leastPacket = 1 << 20

func databasePacket(ctx context.Context, d *Deployment) ([]Finding, error) {
	has, err := d.mysqlVariables(ctx)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(has["max_allowed_packet"])
	if err != nil || n >= leastPacket {
		return nil, err
	}
	return []Finding{{
		Seen: fmt.Sprintf("max_allowed_packet is %d bytes, which is too little for some rows: a replica that starts refuses it", n),
		Mend: setGlobal("max_allowed_packet", strconv.Itoa(16*leastPacket)),
	}}, nil
}

func databaseIdle(ctx context.Context, d *Deployment) ([]Finding, error) {
	has, err := d.mysqlVariables(ctx)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(has["wait_timeout"])
	if err != nil || time.Duration(n)*time.Second > sqldb.IdleTime {
		return nil, err
	}
	return []Finding{{
		Seen: fmt.Sprintf("wait_timeout is %d s, and a replica keeps an idle connection for %.0f s: it finds some of them closed, and connects again within a request", n, sqldb.IdleTime.Seconds()),
		Mend: setGlobal("wait_timeout", fmt.Sprintf("%.0f", (2*sqldb.IdleTime).Seconds())),
	}}, nil
}

func databaseTLS(ctx context.Context, d *Deployment) ([]Finding, error) {
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	text := d.Config.Database.URL
	hosts := networkHosts(text)
	if len(hosts) == 0 {
		return nil, Skip("the database is on this machine")
	}
	look := postgresTLS
	if db.Dialect() == sqldb.MySQL {
		look = mysqlTLS
	}
	encrypted, verified, mend, err := look(ctx, db, text)
	if err != nil {
		return nil, err
	}
	to := strings.Join(hosts, ", ")
	switch {
	case !encrypted:
		return []Finding{{Seen: "connections to " + to + " are not encrypted: who can read the network reads password hashes and sessions", Mend: mend}}, nil
	case !verified:
		return []Finding{{Seen: "connections to " + to + " are encrypted, and the certificate of the server is not verified: another one may take its place and get the password", Mend: mend}}, nil
	}
	return nil, nil
}

func postgresTLS(ctx context.Context, db *sqldb.DB, text string) (encrypted, verified bool, mend string, err error) {
	mend = "add sslmode=verify-full&sslrootcert=/path/of/the/authority.pem to the parameters of database.url; on the server, ALTER SYSTEM SET ssl = on, with ssl_cert_file and ssl_key_file"
	c, err := pgconn.ParseConfig(text)
	if err != nil {
		return false, false, "", errors.New("database.url cannot be read")
	}
	verified = c.TLSConfig != nil && (!c.TLSConfig.InsecureSkipVerify || c.TLSConfig.VerifyPeerCertificate != nil)
	if db.Pooled() { // the server sees the pooler's connection
		return c.TLSConfig != nil && !slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.TLSConfig == nil }), verified, mend, nil
	}
	err = db.QueryRow(ctx, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted)
	return encrypted, verified, mend, err
}

func mysqlTLS(ctx context.Context, db *sqldb.DB, text string) (encrypted, verified bool, mend string, err error) {
	status, err := databaseTexts(ctx, db, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
	verified = !slices.Contains([]string{"skip-verify", "preferred"}, parameter(text, "tls"))
	return status["Ssl_cipher"] != "", verified, "add tls=true to the parameters of database.url, which verifies the certificate against the system's authorities; on the server, ssl_cert, ssl_key and ssl_ca under [mysqld]", err
}

func databaseVersion(ctx context.Context, d *Deployment) ([]Finding, error) {
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	query := "SELECT 'version', VERSION()"
	if db.Dialect() == sqldb.Postgres {
		query = "SELECT 'version', 'PostgreSQL ' || current_setting('server_version')"
	}
	has, err := databaseTexts(ctx, db, query)
	if err != nil {
		return nil, err
	}
	return oldDatabase(has["version"]), nil
}

var numbers = regexp.MustCompile(`(\d+)\.?(\d*)`)

// oldDatabase returns a finding if a version is older than docs/storage.md says.
func oldDatabase(version string) []Finding {
	product, major, minor := "MySQL", 8, 0
	switch {
	case strings.HasPrefix(version, "PostgreSQL"):
		product, major, minor = "PostgreSQL", 13, 0
	case strings.Contains(version, "MariaDB"):
		product, major, minor = "MariaDB", 10, 2
		version = strings.TrimPrefix(version, "5.5.5-") // which MariaDB once said to old clients
	}
	if !older(version, major, minor) {
		return nil
	}
	return []Finding{{
		Seen: fmt.Sprintf("the server says that it is %s; %s %d.%d or later is supported", version, product, major, minor),
		Mend: fmt.Sprintf("update the server to %s %d.%d or later, after watchword backup", product, major, minor),
	}}
}

// older reports whether the first number in a version is less than major.minor. A version
// without numbers is not.
func older(version string, major, minor int) bool {
	m := numbers.FindStringSubmatch(version)
	if m == nil {
		return false
	}
	first, _ := strconv.Atoi(m[1])
	second, _ := strconv.Atoi(m[2])
	return first < major || first == major && second < minor
}

func databaseRole(ctx context.Context, d *Deployment) ([]Finding, error) {
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	if db.Dialect() == sqldb.MySQL {
		return mysqlRights(ctx, db)
	}
	rows, err := databaseTexts(ctx, db, `SELECT quote_ident(rolname), concat_ws(' ', CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
		CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END)
		FROM pg_roles WHERE rolname = current_user`)
	if err != nil {
		return nil, err
	}
	for role, rights := range rows {
		if rights != "" {
			return []Finding{{
				Seen: fmt.Sprintf("the role %s has %s: who gets its password has the whole server", role, rights),
				Mend: fmt.Sprintf("as another superuser: ALTER ROLE %s NO%s; the role needs to own the database, and nothing more", role, strings.ReplaceAll(rights, " ", " NO")),
			}}, nil
		}
	}
	return nil, nil
}

func mysqlRights(ctx context.Context, db *sqldb.DB) ([]Finding, error) {
	var user, name string
	if err := db.QueryRow(ctx, "SELECT CURRENT_USER(), DATABASE()").Scan(&user, &name); err != nil {
		return nil, err
	}
	grants, err := sqldb.All(ctx, db, func(scan sqldb.Scan) (one string, err error) { return one, scan(&one) }, "SHOW GRANTS")
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		// The rest of the line may have a hash of the password.
		rights, _, everywhere := strings.Cut(strings.TrimPrefix(g, "GRANT "), " ON *.* TO ")
		if everywhere && rights != "USAGE" {
			return []Finding{{
				Seen: fmt.Sprintf("the user %s has %s on all databases: who gets its password has the whole server", user, rights),
				Mend: fmt.Sprintf("as another administrator: REVOKE ALL PRIVILEGES, GRANT OPTION FROM %[1]s; GRANT ALL ON `%[2]s`.* TO %[1]s", mysqlAccount(user), name),
			}}, nil
		}
	}
	return nil, nil
}

func databaseClock(ctx context.Context, d *Deployment) ([]Finding, error) {
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	query := "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
	if db.Dialect() == sqldb.MySQL {
		query = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"
	}
	var micros int64
	return clockFindings(d, "the database", func() (time.Time, error) {
		err := db.QueryRow(ctx, query).Scan(&micros)
		return time.UnixMicro(micros), err
	})
}

// clockFindings compares the clock of a server with this machine's. What the question takes on
// its way counts for neither.
func clockFindings(d *Deployment, of string, ask func() (time.Time, error)) ([]Finding, error) {
	if _, err := ask(); err != nil { // which may make a connection
		return nil, err
	}
	before := d.Now()
	theirs, err := ask()
	after := d.Now()
	if err != nil {
		return nil, err
	}
	by, way := time.Duration(0), "ahead of"
	switch {
	case theirs.After(after):
		by = theirs.Sub(after)
	case theirs.Before(before):
		by, way = before.Sub(theirs), "behind"
	}
	if by <= timing.Leeway {
		return nil, nil
	}
	return []Finding{{
		Seen: fmt.Sprintf("the clock of %s is %v %s this machine's; %v are allowed for", of, by.Round(100*time.Millisecond), way, timing.Leeway),
		Mend: "let both machines take their time from one source: chronyc tracking (or timedatectl timesync-status) shows which of them is off, and chronyc makestep sets it",
	}}, nil
}
