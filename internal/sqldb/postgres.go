package sqldb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	if _, err := parseURL(db.cfg.URL); err != nil && !strings.Contains(db.cfg.URL, ",") {
		return err // several hosts are no URL to package url
	}
	cfg, err := pgx.ParseConfig(db.cfg.URL)
	if err != nil {
		// The error itself shows the URL, with the password hidden when pgx finds it.
		return fmt.Errorf("it cannot be read: %w", cmp.Or(errors.Unwrap(err), errors.New("see the PostgreSQL manual on connection URIs")))
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = max(dialTimeout, db.cfg.AcquireTimeout)
	}
	cfg.ValidateConnect = postgresIsPrimary // whatever target_session_attrs says
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "watchword"
	}
	if cfg.RuntimeParams[idleLimit] == "" {
		cfg.RuntimeParams[idleLimit] = strconv.FormatInt(db.abandonedAfter().Milliseconds(), 10)
	}
	if err := db.meet(ctx, cfg); err != nil {
		if postgresAway(err) {
			return fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return err
	}
	kept := min(1, db.cfg.MaxConnections-1)
	p := db.newPool(stdlib.GetConnector(*cfg), db.cfg.MaxConnections-kept, kept, false)
	db.writer, db.reader = p, p
	return nil
}

// meet connects once and adapts cfg if a pooler answers. A pooler may refuse our limit,
// and a statement that was prepared on one of its connections may be missing, or be there
// already, on the next.
func (db *DB) meet(ctx context.Context, cfg *pgx.ConnConfig) error {
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout) // a server may accept and then be silent
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if e, said := errors.AsType[*pgconn.PgError](err); said && strings.Contains(e.Message, idleLimit) {
		delete(cfg.RuntimeParams, idleLimit) // it is PgBouncer, which has a limit of its own
		conn, err = pgx.ConnectConfig(ctx, cfg)
	}
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	direct, err := isDirect(ctx, conn)
	if err == nil && !direct && !strings.Contains(db.cfg.URL, "default_query_exec_mode") {
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	return err
}

// idleLimit is PostgreSQL's setting for the time after which it rolls back an abandoned
// transaction.
const idleLimit = "idle_in_transaction_session_timeout"

// postgresAway reports whether a server that took no connection may take one later:
// nothing answered, or the server starts or shuts down (57P03), has too many connections
// (53300), or is a PgBouncer without a server (08P01).
func postgresAway(err error) bool {
	e, answered := errors.AsType[*pgconn.PgError](err)
	return !answered || slices.Contains([]string{"08", "53", "57"}, e.Code[:min(2, len(e.Code))])
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
	case "55P03": // lock_not_available
		return refused
	}
	if strings.HasPrefix(e.Code, "53") { // insufficient resources: connections, memory
		return refused
	}
	return other
}
