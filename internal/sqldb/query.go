package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/watchword-auth/watchword/internal/trace"
)

// A Q runs queries: it is a DB, where each query is a transaction of its own, or the
// inside of InTx. Parameters are written ?.
//
// Errors are ErrUnique, ErrBusy, ErrRetry (inside InTx: return it) and ErrNoRows. After
// any other error, a write outside a transaction may or may not have happened.
type Q interface {
	// Exec runs a statement and returns how many rows it matched.
	Exec(ctx context.Context, query string, args ...any) (int64, error)
	// Query runs a SELECT. The rows must be closed; until then the same transaction
	// can run nothing else.
	Query(ctx context.Context, query string, args ...any) (*Rows, error)
	// QueryRow is for a SELECT of at most one row.
	QueryRow(ctx context.Context, query string, args ...any) Row
	// Dialect returns the kind of SQL.
	Dialect() Dialect
}

// Scan reads the columns of one row into variables.
type Scan func(dest ...any) error

// All returns what read makes of each row of a SELECT.
func All[T any](ctx context.Context, q Q, read func(Scan) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := read(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// Rows are the answer to Query.
type Rows struct {
	ctx     context.Context
	ended   error // the error of ctx, if it ended before the last row
	rows    *sql.Rows
	explain func(error) error
	release func()
	once    sync.Once

	role    bool // the first column is the server's role
	scanned bool // at least one row
	believe func(role) error
	empty   func() error // believe, for no row
}

// Next goes to the next row, unless the query's context has ended.
func (r *Rows) Next() bool {
	if r.ended = r.ctx.Err(); r.ended != nil {
		return false
	}
	more := r.rows.Next()
	if !more && r.role && !r.scanned && r.rows.Err() == nil {
		r.ended = r.empty()
	}
	return more
}

// Scan reads the columns of the row. The error is an ErrReadOnly if the server takes no
// writes.
func (r *Rows) Scan(dest ...any) error {
	if !r.role {
		return r.explain(r.rows.Scan(dest...))
	}
	var server role
	err := r.rows.Scan(append([]any{&server}, dest...)...)
	if err == nil {
		r.scanned = true
		err = r.believe(server)
	}
	return r.explain(err)
}

// Err returns why Next ended early, or nil if it did not.
func (r *Rows) Err() error { return r.explain(cmp.Or(r.rows.Err(), r.ended)) }

// Close gives the connection back. It may be called again.
func (r *Rows) Close() error {
	err := r.rows.Close()
	r.once.Do(r.release)
	return err
}

// A Row is the answer to QueryRow.
type Row struct {
	rows *Rows
	err  error
}

func newRow(rows *Rows, err error) Row { return Row{rows, err} }

// Scan reads the columns of the row, or returns ErrNoRows.
func (r Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	return r.rows.Close()
}

// Exec runs a statement as a transaction of its own. It runs it again if the database
// asks for that.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	done, err := db.exec(ctx, query, false, args)
	return done.matched, err
}

// ExecReturning is Exec for a statement that writes one row at most and makes a number: in
// its RETURNING clause, or on MySQL, which has none, as the argument of LAST_INSERT_ID. It
// returns the number, or zero if none was made, and reports whether a row was matched.
func (db *DB) ExecReturning(ctx context.Context, query string, args ...any) (number int64, matched bool, err error) {
	done, err := db.exec(ctx, query, true, args)
	return done.returned, done.matched > 0, err
}

func (db *DB) exec(ctx context.Context, query string, returning bool, args []any) (done result, err error) {
	p := db.writer
	ctx, t := trace.Start(ctx, "database: write", trace.Text("db.query.text", query))
	defer func() { t.End(err) }()
	err = db.again(ctx, func(ctx context.Context) error {
		if db.commits != nil {
			done, err = db.commits.exec(ctx, query, returning, args)
			return err
		}
		slot, err := p.acquire(ctx, db.prompt)
		if err != nil {
			return err
		}
		defer slot.release()
		done, err = p.exec(ctx, query, returning, args)
		return err
	})
	return done, err
}

// exec runs a statement once. The caller holds a slot.
func (p *pool) exec(ctx context.Context, query string, returning bool, args []any) (result, error) {
	down, err := p.handDown(ctx)
	if err != nil {
		return result{}, p.explain(ctx, err, true)
	}
	run, err := p.runner(down, query)
	if err != nil {
		return result{}, p.explain(ctx, err, true)
	}
	done, err := p.dialect.run(down, run, returning, args)
	p.watch(query, args, err)
	if err == nil && done.matched > 0 {
		p.noteWrite()
	}
	return done, p.explain(ctx, err, false)
}

// A result is what a statement has done.
type result struct {
	matched  int64 // rows
	returned int64 // the number of ExecReturning
}

func (d Dialect) run(ctx context.Context, on runner, returning bool, args []any) (result, error) {
	if returning && d != MySQL {
		return readReturned(on.QueryContext(ctx, args...))
	}
	r, err := on.ExecContext(ctx, args...)
	if err != nil {
		return result{}, err
	}
	var done result
	if returning {
		if done.returned, err = r.LastInsertId(); err != nil {
			return result{}, err
		}
	}
	done.matched, err = r.RowsAffected()
	return done, err
}

// readReturned reads to the end, because the statement is not done before.
func readReturned(rows *sql.Rows, err error) (done result, _ error) {
	if err != nil {
		return result{}, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&done.returned); err != nil {
			return result{}, err
		}
		done.matched++
	}
	return done, errors.Join(rows.Err(), rows.Close())
}

// Query runs a SELECT on a snapshot of its own.
func (db *DB) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	ctx, t := trace.Start(ctx, "database: read", trace.Text("db.query.text", query))
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	p := db.reader
	slot, err := p.acquire(ctx, db.prompt)
	if err != nil {
		t.End(err)
		cancel()
		return nil, err
	}
	rows, err := func() (*sql.Rows, error) {
		down, err := p.handDown(ctx)
		if err != nil {
			return nil, err
		}
		run, err := p.runner(down, query)
		if err != nil {
			return nil, err
		}
		rows, err := run.QueryContext(down, args...)
		p.watch(query, args, err)
		return rows, err
	}()
	if err != nil {
		slot.release()
		defer cancel()
		err = p.explain(ctx, err, true)
		t.End(err)
		return nil, err
	}
	return &Rows{
		ctx:     ctx,
		rows:    rows,
		explain: func(err error) error { return p.explain(ctx, err, true) },
		release: func() { slot.release(); cancel(); t.End(nil) },
		role:    p.dialect.asksRole(query),
		believe: p.believe,
		empty:   func() error { return p.believeEmpty(ctx, p.db) },
	}, nil
}

// QueryRow is Query for at most one row.
func (db *DB) QueryRow(ctx context.Context, query string, args ...any) Row {
	return newRow(db.Query(ctx, query, args...))
}
