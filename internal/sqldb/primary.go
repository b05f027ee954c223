package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Only a server that takes writes is believed. Any other one may be a standby that is
// behind, or a former primary: it would answer that a revoked token is not revoked.
//
// Nothing between this process and the servers can be relied on to lead to the primary: a
// name may resolve to a replica, a proxy may send each SELECT to a server of its choice, and
// a server may be demoted under connections that stay open. So each new connection is asked,
// and each SELECT asks the server for its role in the same statement (guarded), which costs
// no round trip. A write that is refused says the same. Then every connection that was made
// before is closed.

// A role is what a server says of itself.
type role int

const (
	primary   role = iota
	standby        // PostgreSQL: in recovery
	fenced         // PostgreSQL: default_transaction_read_only
	readOnly       // MySQL, MariaDB: read_only
	following      // MariaDB: replicates from another server
)

// String is a sentence for the log.
func (r role) String() string {
	return [...]string{
		"it takes writes",
		"it is a standby (pg_is_in_recovery)",
		"default_transaction_read_only is on, for the server, the database or the user",
		"read_only is on",
		"it replicates from another server (Slave_running), so it may be behind; run STOP SLAVE if it is the primary",
	}[r]
}

// roles are expressions for the role of the server that evaluates them. MariaDB calls
// read_only 0 or, from version 12 on, OFF.
var roles = map[Dialect]string{
	Postgres: fmt.Sprintf("CASE WHEN pg_is_in_recovery() THEN %d WHEN current_setting('default_transaction_read_only') = 'on' THEN %d ELSE %d END",
		standby, fenced, primary),
	MySQL: fmt.Sprintf("CASE WHEN CONCAT(@@global.read_only) IN ('0', 'OFF') THEN %d ELSE %d END", primary, readOnly),
}

// asksRole reports whether a query asks for the server's role, too: every SELECT does, but on
// SQLite, which has no server (TestEverySelectAsksForTheRole).
func (d Dialect) asksRole(query string) bool {
	return d != SQLite && strings.HasPrefix(query, "SELECT ")
}

// guarded returns a query with the server's role as its first column if it asks for that. Each
// SELECT of a UNION ALL has the column.
func (d Dialect) guarded(query string) string {
	if !d.asksRole(query) {
		return query
	}
	const union = "UNION ALL "
	for i := 0; i < len(query); i++ {
		if strings.HasPrefix(query[i:], union) && strings.Count(query[:i], "(") == strings.Count(query[:i], ")") {
			rest := query[i+len(union):]
			return d.guarded(query[:i]) + union + d.guarded(strings.TrimLeft(rest, " \t\n"))
		}
	}
	begin := "SELECT "
	if strings.HasPrefix(query, "SELECT DISTINCT ") {
		begin = "SELECT DISTINCT "
	}
	return begin + roles[d] + ", " + strings.TrimPrefix(query, begin)
}

// emptyTrust is how long ago the pool may have heard last from a server that takes writes
// if an answer without a row, which has no role in it, is believed without another question.
// A replica reads the revocation log more often.
const emptyTrust = 2 * time.Second

// believe returns an error if the server is not to be believed.
func (p *pool) believe(r role) error {
	if r != primary {
		return p.distrust(fmt.Errorf("%w: %s", ErrReadOnly, r))
	}
	if now := time.Now().UnixNano(); now-p.believed.Load() > int64(emptyTrust)/4 { // a store less for most
		p.believed.Store(now)
	}
	return nil
}

// believeEmpty is believe for an answer without a row.
func (p *pool) believeEmpty(ctx context.Context, on queryer) error {
	if time.Now().UnixNano()-p.believed.Load() <= int64(emptyTrust) {
		return nil
	}
	var r role
	if err := on.QueryRowContext(ctx, "SELECT "+roles[p.dialect]).Scan(&r); err != nil {
		return err
	}
	return p.believe(r)
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// episode is how long no connection may have been dropped before the reason is logged again.
const episode = time.Minute

// distrust closes the connections that were made until now: those in use when they are given
// back, the others at once.
func (p *pool) distrust(err error) error {
	p.generation.Add(1)
	p.believed.Store(0)
	p.noteRefusal()
	p.noteReadOnly(err)
	go p.forget() // a server that hangs may take seconds
	return err
}

func (p *pool) noteReadOnly(err error) {
	p.readOnly.Add(1)
	if now := time.Now().UnixNano(); now-p.readOnlyAt.Swap(now) > int64(episode) {
		p.logger.Error("a database server takes no writes, so its answers do not count and connections to it are closed: "+
			"it may be a standby that is behind, or a former primary", "err", err)
	}
}

// A connector makes connections to servers that take writes.
type connector struct {
	driver.Connector
	pool *pool
}

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	generation := c.pool.generation.Load()
	made, err := c.connect(ctx)
	if err != nil {
		if errors.Is(err, ErrReadOnly) {
			c.pool.noteReadOnly(err)
		}
		return nil, err
	}
	return &conn{fullConn: made, pool: c.pool, generation: generation}, nil
}

func (c *connector) connect(ctx context.Context) (fullConn, error) {
	made, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err // on PostgreSQL also that of postgresIsPrimary
	}
	full, ok := made.(fullConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("sqldb: a connection of type %T lacks a method", made), made.Close())
	}
	if c.pool.dialect == MySQL {
		if err := mysqlIsPrimary(ctx, full); err != nil {
			return nil, errors.Join(err, made.Close())
		}
	}
	return full, nil
}

// A fullConn has what database/sql uses if a connection has it.
type fullConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
}

// A conn is used no more once a server was found that takes no writes.
type conn struct {
	fullConn
	pool       *pool
	generation int64
}

func (c *conn) distrusted() bool { return c.generation < c.pool.generation.Load() }

// ResetSession implements driver.SessionResetter: it is called before the next use.
func (c *conn) ResetSession(ctx context.Context) error {
	if c.distrusted() {
		return driver.ErrBadConn
	}
	return c.fullConn.ResetSession(ctx)
}

// IsValid implements driver.Validator: it is called after each use.
func (c *conn) IsValid() bool {
	inner, ok := c.fullConn.(driver.Validator)
	return !c.distrusted() && (!ok || inner.IsValid())
}

// postgresIsPrimary is a pgconn.ValidateConnectFunc: after its error, pgx goes on to the next
// host of the URL.
func postgresIsPrimary(ctx context.Context, c *pgconn.PgConn) error {
	results, err := c.Exec(ctx, "SELECT "+roles[Postgres]).ReadAll()
	if err != nil {
		return err
	}
	return mustBePrimary(string(results[0].Rows[0][0]))
}

// mysqlIsPrimary asks a new connection. Whether a server follows another one cannot be asked
// in a SELECT, and MySQL 8 shows it only to users with a right to see it: there, a replica
// must have read_only.
func mysqlIsPrimary(ctx context.Context, c driver.QueryerContext) error {
	row, err := firstRow(ctx, c, "SELECT "+roles[MySQL])
	if err == nil && len(row) == 1 {
		err = mustBePrimary(row[0])
	}
	if err != nil {
		return err
	}
	row, err = firstRow(ctx, c, "SHOW GLOBAL STATUS LIKE 'Slave_running'")
	if err == nil && len(row) == 2 && row[1] == "ON" {
		err = fmt.Errorf("%w: %s", ErrReadOnly, following)
	}
	return err
}

// mustBePrimary returns an error unless the text is the number of the role.
func mustBePrimary(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("sqldb: the server says %q of its role", text)
	}
	if r := role(n); r != primary {
		return fmt.Errorf("%w: %s", ErrReadOnly, r)
	}
	return nil
}

// firstRow returns the first row of a query as text; nil: there is none.
func firstRow(ctx context.Context, c driver.QueryerContext, query string) ([]string, error) {
	rows, err := c.QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	row := make([]string, len(values))
	for i, v := range values {
		if b, ok := v.([]byte); ok {
			v = string(b)
		}
		row[i] = fmt.Sprint(v)
	}
	return row, nil
}
