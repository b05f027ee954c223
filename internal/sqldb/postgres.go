package sqldb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// dialTimeout bounds making one connection, unless the URL says otherwise.
const dialTimeout = 5 * time.Second

// openPostgres leaves statements to pgx, which prepares and keeps them per
// connection, or not at all with default_query_exec_mode=exec. Nothing here
// depends on a session, so that PgBouncer may change connections between
// transactions.
func (db *DB) openPostgres(ctx context.Context) error {
	db.dialect = Postgres
	if _, err := parseURL(db.cfg.URL); err != nil && !strings.Contains(db.cfg.URL, ",") {
		return err // several hosts are no URL to package url
	}
	cfg, err := pgx.ParseConfig(db.cfg.URL)
	if err != nil {
		return fmt.Errorf("it cannot be read: %w", err) // pgx hides the password
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = dialTimeout
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "watchword"
	}
	p := db.newPool(stdlib.OpenDB(*cfg), db.cfg.MaxConnections, false)
	db.writer, db.reader = p, p
	if err := p.db.PingContext(ctx); err != nil {
		return errors.Join(err, p.close())
	}
	return nil
}

// https://www.postgresql.org/docs/current/errcodes-appendix.html
func postgresKind(err error) kind {
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		// The function went on after a statement that had ended the transaction.
		return retry
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "23505": // unique_violation
			return unique
		case "40001", "40P01": // serialization_failure, deadlock_detected
			return retry
		case "42P01": // undefined_table
			return noTable
		case "25006", // read_only_sql_transaction: the primary became a standby
			"57P01", "57P02", "57P03", // shutting down, starting up
			"55P03": // lock_not_available
			return refused
		}
		switch e.Code[:2] {
		case "53": // insufficient resources: disk, memory, connections
			return refused
		case "08": // connection exception; PgBouncer's, too
			return lost
		}
		return other
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return refused
	}
	if pgconn.SafeToRetry(err) {
		return refused
	}
	return other
}
