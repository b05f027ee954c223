package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A pool is a bounded set of connections. Slots stand in front of the connections of
// database/sql, so that the wait for one is bounded and counted.
//
// sql.DB.Conn with a deadline and sql.DBStats would do that, too, but a sql.Conn cannot
// run a statement that was prepared on its sql.DB. A read then costs 28 µs instead of 12
// on SQLite, and the same on PostgreSQL, where pgx keeps prepared statements itself
// (BenchmarkPool). Nor does database/sql keep a connection for Prompt, or count the
// callers that wait now.
type pool struct {
	db       *sql.DB
	dialect  Dialect
	path     string // SQLite: the file, for error messages
	slots    slots
	kept     slots // for Prompt alone
	patience time.Duration
	watch    func(query string, args []any, err error)
	logger   *slog.Logger

	// Prepared statements by query, for drivers that do not keep them themselves.
	// Queries are constants of the program, so the map is small.
	prepares bool
	mu       sync.Mutex
	stmts    map[string]*sql.Stmt

	texts sync.Map // queries as the database gets them, by query

	generation atomic.Int64 // of connections; see distrust
	believed   atomic.Int64 // when a server last said that it takes writes, in Unix nanoseconds; 0: one since said that it does not
	readOnly   atomic.Int64 // how often a server said that it takes no writes
	readOnlyAt atomic.Int64 // when one last did, in Unix nanoseconds

	full  atomic.Int64 // when a write last found no space, in Unix nanoseconds; 0: a later one found some
	wrote atomic.Int64 // when a write last succeeded, in Unix nanoseconds; 0: a later one was refused

	waiting atomic.Int64 // callers that wait for a slot now
	waits   atomic.Int64 // callers that ever waited
	waited  atomic.Int64 // nanoseconds that all of them waited
	refused atomic.Int64 // callers that gave up
}

// slots bound how many callers have a connection at once.
type slots chan struct{}

func (s slots) release() { <-s }

// newPool returns a pool of so many connections, and of some more that are kept for Prompt.
func (db *DB) newPool(makes driver.Connector, connections, kept int, prepares bool) *pool {
	p := &pool{
		dialect:  db.dialect,
		slots:    make(slots, connections),
		kept:     make(slots, kept),
		patience: db.cfg.AcquireTimeout,
		watch:    db.cfg.Watch,
		logger:   db.cfg.Logger,
		prepares: prepares,
		stmts:    make(map[string]*sql.Stmt),
	}
	if db.dialect != SQLite {
		makes = &connector{makes, p}
	}
	p.db = sql.OpenDB(makes)
	p.db.SetMaxOpenConns(connections + kept)
	p.db.SetMaxIdleConns(connections + kept)
	p.db.SetConnMaxIdleTime(IdleTime)
	p.db.SetConnMaxLifetime(lifeTime)
	return p
}

// acquire waits for a slot, which the caller releases. A prompt caller may have the kept
// one, too.
func (p *pool) acquire(ctx context.Context, prompt bool) (slots, error) {
	if p.tryAcquire() {
		return p.slots, nil
	}
	var kept slots // nil, so that nothing can be sent, like none that are kept
	if prompt {
		kept = p.kept
	}
	select {
	case kept <- struct{}{}:
		return kept, nil
	default:
	}
	ctx, gaveUp, done := p.wait(ctx)
	defer done()
	select {
	case p.slots <- struct{}{}:
		return p.slots, nil
	case kept <- struct{}{}:
		return kept, nil
	case <-ctx.Done():
		return nil, gaveUp()
	}
}

func (p *pool) tryAcquire() bool {
	select {
	case p.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// wait counts a caller that waits for a slot, until done is called. The context ends when
// the caller's patience does; gaveUp then returns the error for the caller.
func (p *pool) wait(caller context.Context) (ctx context.Context, gaveUp func() error, done func()) {
	p.waits.Add(1)
	p.waiting.Add(1)
	start := time.Now()
	ctx, cancel := context.WithTimeout(caller, p.patience)
	gaveUp = func() error {
		if err := caller.Err(); errors.Is(err, context.Canceled) {
			return fmt.Errorf("sqldb: %w", err)
		}
		p.refused.Add(1)
		return fmt.Errorf("sqldb: %w: no free connection of %d within %v", ErrBusy,
			cap(p.slots), time.Since(start).Round(time.Millisecond))
	}
	return ctx, gaveUp, func() {
		cancel()
		p.waiting.Add(-1)
		p.waited.Add(int64(time.Since(start)))
	}
}

// handDown returns the context that a driver gets, or an error if ctx has ended.
//
// The SQLite driver, and database/sql on top of it, would start two goroutines for
// every statement whose context can end, only to interrupt it. An interrupt is no use
// here: a statement reads or writes a few rows in this process, and SQLite ignores the
// interrupt while it waits for another process, for as long as busy_timeout. So the
// context is checked between statements and between rows instead.
func (p *pool) handDown(ctx context.Context) (context.Context, error) {
	if err := ctx.Err(); err != nil || p.dialect != SQLite {
		return ctx, err
	}
	return context.WithoutCancel(ctx), nil
}

// prepared returns the prepared statement of a query, or nil when there is none.
func (p *pool) prepared(query string) *sql.Stmt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stmts[query]
}

// prepare makes the prepared statement of a query. The caller holds a slot but no
// connection.
func (p *pool) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	stmt, err := p.db.PrepareContext(ctx, p.text(query))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if first := p.stmts[query]; first != nil { // another caller was faster
		return first, stmt.Close()
	}
	p.stmts[query] = stmt
	return stmt, nil
}

// A runner runs one query: it is a prepared statement, or a plain query on a *sql.DB or
// a *sql.Tx.
type runner interface {
	ExecContext(ctx context.Context, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, args ...any) (*sql.Rows, error)
}

// A plain is a query that is not prepared.
type plain struct {
	on interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
	query string
}

func (q plain) ExecContext(ctx context.Context, args ...any) (sql.Result, error) {
	return q.on.ExecContext(ctx, q.query, args...)
}

func (q plain) QueryContext(ctx context.Context, args ...any) (*sql.Rows, error) {
	return q.on.QueryContext(ctx, q.query, args...)
}

// runner returns what runs the query outside a transaction.
func (p *pool) runner(ctx context.Context, query string) (runner, error) {
	if !p.prepares {
		return plain{p.db, p.text(query)}, nil
	}
	if stmt := p.prepared(query); stmt != nil {
		return stmt, nil
	}
	return p.prepare(ctx, query)
}

// text returns a query as the database gets it.
func (p *pool) text(query string) string {
	if known, ok := p.texts.Load(query); ok {
		return known.(string)
	}
	text := p.dialect.guarded(p.dialect.rebind(query))
	p.texts.Store(query, text)
	return text
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stmt := range p.stmts {
		_ = stmt.Close() // it ends with its connections anyway
	}
	clear(p.stmts)
	err := p.db.Close()
	if p.dialect != SQLite {
		return nil // a connection has ended even if the server did not hear of it
	}
	return err
}
