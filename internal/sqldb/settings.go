package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A server, a database or a user may have settings under which some statement does not do
// what it says, or can never work. The first connection reads them, and each connection of
// the pool changes for itself those that are not as they have to be.

// postgresNeeds are settings of PostgreSQL and how they have to be.
var postgresNeeds = map[string]string{
	// The replica bounds its statements itself. Migrations have no bound.
	"statement_timeout": "0", "lock_timeout": "0", "transaction_timeout": "0",
	"idle_session_timeout": "0",
	// A statement that is its own transaction sees what was committed before it.
	"default_transaction_isolation": "read committed",
	"bytea_output":                  "hex",
	// Foreign keys are kept.
	"session_replication_role": "origin",
	// What was answered 2xx is on the disk. All values but off are as good.
	"synchronous_commit": "on",
}

// learn reads the settings of a connection.
func (s *postgresSession) learn(ctx context.Context, db *DB, conn *pgx.Conn) error {
	if !s.pooler { // else the setting would stay with a connection of the pooler
		if _, err := conn.Exec(ctx, "SET statement_timeout = 0"); err != nil {
			return postgresCause(err)
		}
	}
	rows, err := conn.Query(ctx, "SELECT name, reset_val FROM pg_settings", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return postgresCause(err)
	}
	defer rows.Close()
	s.params = map[string]string{}
	for rows.Next() {
		var name string
		var value *string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		if value == nil {
			continue
		}
		has := *value
		need, known := postgresNeeds[name]
		switch {
		case name == "fsync" && has == "off", name == "full_page_writes" && has == "off":
			db.cfg.Logger.Warn("the database may lose what was answered, or all it has, when its machine fails", "setting", name, "value", has)
		case known && has != need && (name != "synchronous_commit" || has == "off"):
			s.params[name] = need
		}
	}
	if err := rows.Err(); err != nil {
		return postgresCause(err)
	}
	if !s.pooler {
		return nil
	}
	// A pooler would refuse them, or pass them on to its other clients.
	if _, off := s.params["synchronous_commit"]; off {
		return errors.New("the database forgets what it has acknowledged, because synchronous_commit is off, and behind a pooler a replica cannot change that: ALTER ROLE … SET synchronous_commit = on")
	}
	for _, name := range slices.Sorted(maps.Keys(s.params)) {
		db.cfg.Logger.Warn("a setting of the database is in the way, and behind a pooler a replica cannot change it", "setting", name,
			"advice", fmt.Sprintf("ALTER ROLE … SET %s = '%s'", name, s.params[name]))
	}
	s.params = nil
	return nil
}

// mysqlNeeds are variables of MySQL and MariaDB and how they have to be, as SHOW VARIABLES
// and SET write it. Some exist in one of the two alone.
var mysqlNeeds = map[string]struct{ shown, set string }{
	"autocommit":            {"ON", "1"},
	"completion_type":       {"NO_CHAIN", "0"}, // else COMMIT begins another transaction, or ends the connection
	"foreign_key_checks":    {"ON", "1"},
	"unique_checks":         {"ON", "1"},
	"sql_auto_is_null":      {"OFF", "0"},
	"sql_safe_updates":      {"OFF", "0"}, // else some statements are refused
	"max_execution_time":    {"0", "0"},
	"tx_read_only":          {"OFF", "0"},
	"transaction_read_only": {"OFF", "0"},
	// A statement that is its own transaction sees what was committed before it, and nothing
	// else.
	"tx_isolation":          {"REPEATABLE-READ", "'REPEATABLE-READ'"},
	"transaction_isolation": {"REPEATABLE-READ", "'REPEATABLE-READ'"},
}

// leastPacket is the least max_allowed_packet: several times the longest row.
const leastPacket = 1 << 20

// learnMySQL reads the variables of a connection, and sets db.variables and db.statements.
func (db *DB) learnMySQL(ctx context.Context, pool *sql.DB) error {
	rows, err := pool.QueryContext(ctx, "SHOW VARIABLES")
	if err != nil {
		return mysqlCause(err)
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var name, has string
		if err := rows.Scan(&name, &has); err != nil {
			return err
		}
		all[name] = has
	}
	if err := rows.Err(); err != nil {
		return mysqlCause(err)
	}
	db.variables = map[string]string{}
	for name, need := range mysqlNeeds {
		if has, exists := all[name]; exists && has != need.shown {
			db.variables[name] = need.set
		}
	}
	if n, err := strconv.Atoi(all["max_allowed_packet"]); err == nil && n < leastPacket {
		return fmt.Errorf("max_allowed_packet of the server is %d bytes, which is too little for some rows: set it to %d or more", n, leastPacket)
	}
	if all["log_bin"] == "ON" && strings.EqualFold(all["binlog_format"], "STATEMENT") {
		db.statements = true
		db.cfg.Logger.Warn("binlog_format of the database is STATEMENT: transactions wait longer for each other, and a replica of the database may come to differ from it; set it to MIXED or ROW")
	}
	if has, exists := all["innodb_flush_log_at_trx_commit"]; exists && has != "1" {
		db.cfg.Logger.Warn("the database may lose what was answered in the last second when its machine fails", "setting", "innodb_flush_log_at_trx_commit", "value", has)
	}
	return nil
}

// A Setting of the server, the database or the user is in the way.
type Setting struct {
	Name, Value string
	Need        string // what it has to be
}

// InTheWay returns the settings under which statements of this pool's connections would not do
// what they say, in the order of their names. There are some if a pooler stands between, so that
// connections cannot change them for themselves, or if they were set after Open.
func (db *DB) InTheWay(ctx context.Context) ([]Setting, error) {
	needs, query := map[string]string{}, ""
	switch db.dialect {
	case Postgres:
		needs, query = postgresNeeds, "SELECT name, setting FROM pg_settings"
	case MySQL:
		for name, need := range mysqlNeeds {
			needs[name] = need.shown
		}
		query = "SHOW SESSION VARIABLES"
	default:
		return nil, nil
	}
	all, err := All(ctx, db, func(scan Scan) (s Setting, err error) {
		var value sql.NullString
		err = scan(&s.Name, &value)
		s.Value = value.String
		return s, err
	}, query)
	if err != nil {
		return nil, err
	}
	var list []Setting
	for _, s := range all {
		var known bool
		s.Need, known = needs[s.Name]
		if known && s.Value != s.Need && (s.Name != "synchronous_commit" || s.Value == "off") {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b Setting) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// level is the isolation level at which a transaction runs.
func (db *DB) level(asked sql.IsolationLevel) sql.IsolationLevel {
	switch {
	case db.dialect == SQLite:
		return sql.LevelDefault // BEGIN IMMEDIATE: one writer at a time
	case db.statements && asked == sql.LevelReadCommitted:
		// InnoDB writes nothing at a lower level than the two highest. At the highest, a later
		// statement sees what was committed before it, too, since it locks what it reads.
		return sql.LevelSerializable
	}
	return asked
}
