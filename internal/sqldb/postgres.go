package sqldb

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// dialTimeout bounds making one connection, unless the URL says otherwise or callers
// wait longer for a connection (Config.AcquireTimeout). A test shortens it.
var dialTimeout = 5 * time.Second

// openPostgres leaves prepared statements to pgx, which keeps them per connection, or
// prepares none behind a pooler. Nothing in this package depends on a session, so that
// PgBouncer may change connections between transactions.
func (db *DB) openPostgres(ctx context.Context) error {
	db.dialect = Postgres
	db.credentials = &credentials{url: db.cfg.Now, denied: postgresDenied, logger: db.cfg.Logger}
	var session postgresSession
	err := db.credentials.connect(func(url string) (err error) {
		cfg, err := db.postgresConfig(url)
		if err != nil {
			return err
		}
		session, err = db.meet(ctx, cfg)
		return err
	})
	if err != nil {
		return err
	}
	db.pooled = session.pooler
	of := func(url string) (driver.Connector, error) {
		cfg, err := db.postgresConfig(url)
		if err != nil {
			return nil, err
		}
		session.prepare(cfg, url)
		return stdlib.GetConnector(*cfg), nil
	}
	kept := min(1, db.cfg.MaxConnections-1)
	p := db.newPool(dialer{db.credentials, of, stdlib.GetDefaultDriver()}, db.cfg.MaxConnections-kept, kept, false)
	db.writer, db.reader = p, p
	return nil
}

// postgresConfig reads a URL.
func (db *DB) postgresConfig(url string) (*pgx.ConnConfig, error) {
	if _, err := parseURL(url); err != nil && !strings.Contains(url, ",") {
		return nil, err // several hosts are no URL to package url
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		// The error itself shows the URL, with the password hidden when pgx finds it.
		return nil, fmt.Errorf("it cannot be read: %w", cmp.Or(errors.Unwrap(err), errors.New("see the PostgreSQL manual on connection URIs")))
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = max(dialTimeout, db.cfg.AcquireTimeout)
	}
	cfg.ValidateConnect = postgresIsPrimary // whatever target_session_attrs says
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "watchword"
	}
	maps.Copy(cfg.RuntimeParams, postgresForm)
	if cfg.RuntimeParams[idleLimit] == "" {
		cfg.RuntimeParams[idleLimit] = strconv.FormatInt(db.abandonedAfter().Milliseconds(), 10)
	}
	return cfg, nil
}

// postgresForm is the form in which the driver reads and writes texts. The role may have
// another one. PgBouncer takes these parameters.
var postgresForm = map[string]string{"client_encoding": "UTF8", "standard_conforming_strings": "on", "DateStyle": "ISO, MDY"}

// A postgresSession is what the first connection has shown that all others have to do.
type postgresSession struct {
	unlimited bool // a pooler refuses our limit for idle transactions
	pooler    bool // a pooler changes connections between transactions
	params    map[string]string
}

// prepare adapts the configuration of a connection. Through a pooler, a statement that was
// prepared on one of its connections may be missing, or be there already, on the next.
func (s *postgresSession) prepare(cfg *pgx.ConnConfig, url string) {
	if s.unlimited {
		delete(cfg.RuntimeParams, idleLimit)
	}
	maps.Copy(cfg.RuntimeParams, s.params)
	if s.pooler && !strings.Contains(url, "default_query_exec_mode") {
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
}

// meet connects once.
func (db *DB) meet(ctx context.Context, cfg *pgx.ConnConfig) (s postgresSession, err error) {
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout) // a server may accept and then be silent
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if e, said := errors.AsType[*pgconn.PgError](err); said && strings.Contains(e.Message, idleLimit) {
		s.unlimited = true // it is PgBouncer, which has a limit of its own
		s.prepare(cfg, "")
		conn, err = pgx.ConnectConfig(ctx, cfg)
	}
	if err != nil {
		return s, postgresCause(err)
	}
	defer conn.Close(ctx)
	if err := checkEncoding(conn.PgConn().ParameterStatus("server_encoding")); err != nil {
		return s, err
	}
	direct, err := isDirect(ctx, conn)
	if err != nil {
		return s, postgresCause(err)
	}
	s.pooler = !direct
	return s, s.learn(ctx, db, conn)
}

// idleLimit is PostgreSQL's setting for the time after which it rolls back an abandoned
// transaction.
const idleLimit = "idle_in_transaction_session_timeout"

// postgresDenied reports whether a server knows the user or the password no longer, or not
// yet: class 28, and 42501 for a user without the right to connect to the database.
func postgresDenied(err error) bool {
	e, answered := errors.AsType[*pgconn.PgError](err)
	return answered && (strings.HasPrefix(e.Code, "28") || e.Code == "42501")
}

// https://www.postgresql.org/docs/current/errcodes-appendix.html
//
// postgresKind does not rely on pgconn.SafeToRetry: when a connection ends during a
// commit, pgx 5.12 calls it safe ("conn closed"), and it is not.
func postgresKind(err error) kind {
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		// The function of InTx went on after a statement that had ended the transaction.
		return retry
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return refused // whatever the reason, there was no connection to write on
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if errors.Is(err, pgconn.ErrConnClosed) {
			return lost
		}
		return other
	}
	if e.SeverityUnlocalized == "FATAL" || e.SeverityUnlocalized == "PANIC" {
		return lost // it ends the connection, and may come after a commit
	}
	switch e.Code {
	case "23505": // unique_violation
		return unique
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return retry
	case "42P01": // undefined_table
		return noTable
	case "53100": // disk_full
		return full
	case "25006": // read_only_sql_transaction: the primary became a standby
		return noWrites
	case "0A000": // feature_not_supported
		// A standby refuses to begin a serializable transaction. (A plan that does not fit a
		// changed table has the same code, but is not found by the check of a setting.)
		if e.Routine == "call_enum_check_hook" {
			return noWrites
		}
	case "55P03", // lock_not_available
		"57014": // query_canceled: by a timeout of the server
		return refused
	}
	if strings.HasPrefix(e.Code, "53") { // insufficient resources: connections, memory
		return refused
	}
	return other
}
