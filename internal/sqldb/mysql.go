package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// openMySQL serves MySQL 8, and MariaDB from 10.2 on. Comments name the differences
// where they matter.
func (db *DB) openMySQL(ctx context.Context) error {
	db.dialect = MySQL
	first, err := db.mysqlConfig(db.cfg.Now())
	if err != nil {
		return err
	}
	db.credentials = &credentials{url: db.cfg.Now, denied: mysqlDenied, logger: db.cfg.Logger}
	of := func(url string) (driver.Connector, error) {
		cfg, err := db.mysqlConfig(url)
		if err != nil {
			return nil, err
		}
		return mysql.NewConnector(cfg)
	}
	kept := min(1, db.cfg.MaxConnections-1)
	p := db.newPool(dialer{db.credentials, of, mysql.MySQLDriver{}}, db.cfg.MaxConnections-kept, kept, !first.InterpolateParams)
	db.writer, db.reader = p, p
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout) // a server may accept and then be silent
	defer cancel()
	err = db.meetMySQL(ctx, p.db)
	if err == nil {
		err = db.learnMySQL(ctx, p.db)
	}
	if err != nil {
		return errors.Join(err, p.close())
	}
	p.forget() // the first connection, which has not set the variables
	return nil
}

// mysqlConfig reads a URL.
func (db *DB) mysqlConfig(text string) (*mysql.Config, error) {
	u, err := parseURL(text)
	if err != nil {
		return nil, err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "3306")
	}
	// The driver's own form, without the parts that may hold special characters.
	cfg, err := mysql.ParseDSN("tcp(" + host + ")/?" + u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.DBName = strings.TrimPrefix(u.Path, "/")
	if cfg.DBName == "" {
		return nil, errors.New("it must name the database: mysql://user:password@host:3306/watchword")
	}
	cfg.ClientFoundRows = true // an UPDATE says how many rows it matched, as everywhere else
	cfg.ParseTime = true       // for goose's table; ours have no such columns
	cfg.Logger = &mysql.NopLogger{}
	if cfg.Timeout == 0 {
		cfg.Timeout = max(dialTimeout, db.cfg.AcquireTimeout)
	}
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	// A value that is too long is an error; it is not cut off.
	cfg.Params["sql_mode"] = "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
	// A server that waits for a lock does not notice that its client has gone. Only
	// MariaDB reads the text in the comment; MySQL has no such limit.
	cfg.Params["innodb_lock_wait_timeout"] = fmt.Sprintf("%d/*M!100300 ,idle_transaction_timeout=%d ,max_statement_time=0*/",
		int(db.LockTimeout().Seconds()), int(db.abandonedAfter().Seconds()))
	// Else rows may be missing, or a statement refused: also SHOW VARIABLES.
	cfg.Params["sql_select_limit"], cfg.Params["sql_big_selects"] = "18446744073709551615", "1"
	maps.Copy(cfg.Params, db.variables)
	if err := cfg.Apply(mysql.Charset("utf8mb4", "")); err != nil {
		return nil, err
	}
	return cfg, nil
}

// meetMySQL makes the first connection and runs the first statement, which a node of a
// cluster that is not ready refuses.
func (db *DB) meetMySQL(ctx context.Context, pool *sql.DB) error {
	var version string
	if err := pool.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return mysqlCause(err)
	}
	return nil
}

// mysqlDenied reports whether a server knows the user or the password no longer, or not yet.
func mysqlDenied(err error) bool {
	e, answered := errors.AsType[*mysql.MySQLError](err)
	return answered && slices.Contains([]uint16{
		1045, 1698, // ER_ACCESS_DENIED_ERROR, and without a password
		1044,       // ER_DBACCESS_DENIED_ERROR: the user has no right on the database
		1130,       // ER_HOST_NOT_PRIVILEGED: there is no user for this address
		1862,       // ER_MUST_CHANGE_PASSWORD_LOGIN
		3118, 4151, // ER_ACCOUNT_HAS_BEEN_LOCKED, of MariaDB
	}, e.Number)
}

// https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html
func mysqlKind(err error) kind {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		switch e.Number {
		case 1062: // ER_DUP_ENTRY
			return unique
		case 1213, // ER_LOCK_DEADLOCK
			1020: // ER_CHECKREAD: MariaDB, innodb_snapshot_isolation
			return retry
		case 1146: // ER_NO_SUCH_TABLE
			return noTable
		case 1021, 1114: // ER_DISK_FULL, ER_RECORD_FILE_FULL
			return full
		case 1040, 1203, 1226, // too many connections
			1205: // ER_LOCK_WAIT_TIMEOUT: it has waited long already
			return refused
		case 1290, 1792, 1836: // read-only: it is a former primary
			return noWrites
		case 1045, 1698, 1044, 1130, // denied: there was no connection to write on
			1047: // ER_UNKNOWN_COM_ERROR: a node of a Galera cluster without a majority
			return refused
		case 1053, 1927: // ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED
			return lost
		}
		return other
	}
	if errors.Is(err, mysql.ErrInvalidConn) {
		return lost
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return refused
	}
	return other
}
