package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/watchword-auth/watchword/internal/trace"
)

// InTx runs f in one serializable transaction: of two transactions that read and write
// the same rows, one comes after the other. When the database asks for it (deadlock,
// serialization failure), f runs again from its beginning, for AcquireTimeout at most,
// so f may have no other effect than on q. An error of f rolls everything back and is
// returned. Inside f use q, never the DB.
func (db *DB) InTx(ctx context.Context, f func(ctx context.Context, q Q) error) error {
	return db.inTx(ctx, sql.LevelSerializable, f)
}

// InTxReadCommitted is InTx for work whose first statement locks the one row that
// decides (UPDATE, or SELECT with Dialect.ForUpdate). Contenders queue up at that row
// instead of being refused and run again. Each later statement sees what was committed
// before it.
func (db *DB) InTxReadCommitted(ctx context.Context, f func(ctx context.Context, q Q) error) error {
	return db.inTx(ctx, sql.LevelReadCommitted, f)
}

func (db *DB) inTx(ctx context.Context, level sql.IsolationLevel, f func(ctx context.Context, q Q) error) (err error) {
	ctx, t := trace.Start(ctx, "database: transaction")
	defer func() { t.End(err) }()
	return db.again(ctx, func(ctx context.Context) error { return db.runTx(ctx, level, f) })
}

// again runs f until it returns something else than ErrRetry. After AcquireTimeout it
// gives up with ErrBusy.
func (db *DB) again(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	defer cancel()
	giveUp := time.Now().Add(db.cfg.AcquireTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 64*time.Millisecond) {
		err := f(ctx)
		if !errors.Is(err, ErrRetry) {
			return err
		}
		db.metrics.retries.Inc()
		jittered := pause/2 + rand.N(pause)
		if time.Now().Add(jittered).After(giveUp) {
			return fmt.Errorf("sqldb: %w: after %v, %v", ErrBusy, db.cfg.AcquireTimeout, err)
		}
		select {
		case <-time.After(jittered):
		case <-ctx.Done():
			return db.writer.explain(ctx, fmt.Errorf("%w: %v", ctx.Err(), err), true)
		}
	}
}

// runTx runs the transaction once.
func (db *DB) runTx(ctx context.Context, level sql.IsolationLevel, f func(ctx context.Context, q Q) error) error {
	p := db.writer
	slot, err := p.acquire(ctx, db.prompt)
	if err != nil {
		return err
	}
	defer slot.release()
	down, err := p.handDown(ctx)
	if err != nil {
		return p.explain(ctx, err, true)
	}
	sqlTx, err := p.db.BeginTx(down, &sql.TxOptions{Isolation: db.level(level)})
	if err != nil {
		return p.explain(ctx, err, true)
	}
	t := &tx{pool: p, tx: sqlTx}
	defer t.prepareMissing(down)
	defer sqlTx.Rollback() // also when f panics; after a commit it does nothing

	err = f(ctx, t)
	if t.retry != nil {
		return t.retry // the database has rolled back, whatever f returned
	}
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return p.explain(ctx, err, true) // the caller has gone
	}
	return p.explain(ctx, t.commit(), false)
}

// A tx is the Q inside a transaction.
type tx struct {
	pool    *pool
	tx      *sql.Tx
	wrote   bool     // at least one row
	missing []string // queries that were not prepared yet
	retry   error    // the first error that asked for another run
}

func (t *tx) Dialect() Dialect { return t.pool.dialect }

func (t *tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	done, err := t.exec(ctx, query, false, args)
	return done.matched, err
}

func (t *tx) exec(ctx context.Context, query string, returning bool, args []any) (result, error) {
	down, err := t.pool.handDown(ctx)
	if err != nil {
		return result{}, t.explain(ctx, err)
	}
	done, err := t.pool.dialect.run(down, t.runner(down, query), returning, args)
	t.pool.watch(query, args, err)
	t.wrote = t.wrote || done.matched > 0
	return done, t.explain(ctx, err)
}

// commit ends the transaction. When it succeeds, the database has space for writes.
func (t *tx) commit() error {
	err := t.tx.Commit()
	if err == nil && t.wrote {
		t.pool.noteWrite()
	}
	return err
}

func (t *tx) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	down, err := t.pool.handDown(ctx)
	if err != nil {
		return nil, t.explain(ctx, err)
	}
	rows, err := t.runner(down, query).QueryContext(down, args...)
	t.pool.watch(query, args, err)
	if err != nil {
		return nil, t.explain(ctx, err)
	}
	return &Rows{
		ctx:     ctx,
		rows:    rows,
		explain: func(err error) error { return t.explain(ctx, err) },
		release: func() {},
		role:    t.pool.dialect.asksRole(query),
		believe: t.pool.believe,
		empty:   func() error { return t.pool.believeEmpty(down, t.tx) },
	}, nil
}

func (t *tx) QueryRow(ctx context.Context, query string, args ...any) Row {
	return newRow(t.Query(ctx, query, args...))
}

// runner uses the prepared statement if there is one. If there is none, one is prepared
// after the transaction: preparing takes a connection, and this transaction may hold the
// only one.
func (t *tx) runner(ctx context.Context, query string) runner {
	if t.pool.prepares {
		if stmt := t.pool.prepared(query); stmt != nil {
			return t.tx.StmtContext(ctx, stmt)
		}
		t.missing = append(t.missing, query)
	}
	return plain{t.tx, t.pool.text(query)}
}

// prepareMissing prepares the missing statements for the next transaction. It ignores
// errors: the next caller that needs the statement meets them.
func (t *tx) prepareMissing(ctx context.Context) {
	for _, query := range t.missing {
		if t.pool.prepared(query) == nil {
			if _, err := t.pool.prepare(ctx, query); err != nil {
				return
			}
		}
	}
}

// explain is pool.explain for a statement before the commit, when nothing is written yet.
func (t *tx) explain(ctx context.Context, err error) error {
	err = t.pool.explain(ctx, err, true)
	if t.retry == nil && errors.Is(err, ErrRetry) {
		t.retry = err
	}
	return err
}
