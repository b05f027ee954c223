package sqldb

import (
	"context"
	"errors"
	"slices"
	"sync"

	sqlite3 "modernc.org/sqlite/lib"
)

// mostTogether bounds how many statements share a commit, and so how long the first of
// them waits for the last.
const mostTogether = 64

// commits lets the single statements that wait for SQLite's one writer share a commit.
// A commit costs a sync of the disk, which lasts much longer than a statement
// (docs/benchmarks.md). No caller is answered before it. The result is the same as if
// each statement had a commit of its own, one right after the other, except that a crash
// takes all of them or none.
type commits struct {
	pool *pool

	mu    sync.Mutex
	queue []*write // the first waits for the slot and then writes the others, too
}

var errUnfinished = errors.New("sqldb: the statement was not run to its end")

// A write is a statement that waits.
type write struct {
	ctx       context.Context
	query     string
	returning bool
	args      []any

	first  chan struct{} // closed when it becomes the first of the queue
	done   chan struct{} // closed when result and err are set
	result result
	err    error
}

// exec runs a statement, alone when no other caller writes.
func (c *commits) exec(ctx context.Context, query string, returning bool, args []any) (result, error) {
	if c.pool.tryAcquire() {
		defer c.pool.slots.release()
		return c.pool.exec(ctx, query, returning, args)
	}
	patience, gaveUp, done := c.pool.wait(ctx)
	defer done()
	w := &write{ctx: ctx, query: query, returning: returning, args: args, first: make(chan struct{}), done: make(chan struct{})}
	c.join(w)
	first := w.first
	var slots chan<- struct{} // nil, so that nothing can be sent, unless w is the first
	for {
		select {
		case <-first:
			first, slots = nil, c.pool.slots
		case slots <- struct{}{}:
			c.run(c.take())
			return w.result, w.err
		case <-w.done:
			return w.result, w.err
		case <-patience.Done():
			if c.leave(w) {
				return result{}, gaveUp()
			}
			<-w.done // it is being written
			return w.result, w.err
		}
	}
}

func (c *commits) join(w *write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, w)
	if len(c.queue) == 1 {
		close(w.first)
	}
}

// leave removes w from the queue. It reports whether w was still there: if not, another
// caller is writing it.
func (c *commits) leave(w *write) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.queue, w)
	if i < 0 {
		return false
	}
	c.queue = slices.Delete(c.queue, i, i+1)
	if i == 0 && len(c.queue) > 0 {
		close(c.queue[0].first)
	}
	return true
}

// take removes from the queue what one commit may hold.
func (c *commits) take() []*write {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), mostTogether)
	batch := slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	if len(c.queue) > 0 {
		close(c.queue[0].first)
	}
	return batch
}

// run runs the statements of a batch, answers their callers, and releases the slot.
func (c *commits) run(batch []*write) {
	finished := false
	defer func() {
		c.pool.slots.release()
		for _, w := range batch {
			if !finished { // a panic
				w.result, w.err = result{}, errUnfinished
			}
			close(w.done)
		}
	}()
	if len(batch) == 1 || !c.together(batch) {
		for _, w := range batch {
			w.result, w.err = c.pool.exec(w.ctx, w.query, w.returning, w.args)
		}
	}
	finished = true
}

// together runs a batch in one transaction. A violated constraint undoes its statement
// alone. Any other failure before the commit undoes all of them; then together reports
// false, and each statement has to run by itself.
func (c *commits) together(batch []*write) bool {
	ctx, p := context.WithoutCancel(batch[0].ctx), c.pool
	all := func(err error, harmless bool) {
		for _, w := range batch {
			if w.err == nil {
				w.result, w.err = result{}, p.explain(ctx, err, harmless)
			}
		}
	}
	sqlTx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		all(err, true)
		return true
	}
	t := &tx{pool: p, tx: sqlTx}
	defer t.prepareMissing(ctx)
	defer sqlTx.Rollback() // after a commit it does nothing
	for _, w := range batch {
		if err := w.ctx.Err(); err != nil {
			w.err = p.explain(w.ctx, err, true)
			continue
		}
		w.result, w.err = t.exec(ctx, w.query, w.returning, w.args)
		if w.err != nil && sqliteCode(w.err)&0xff != sqlite3.SQLITE_CONSTRAINT {
			return false
		}
	}
	if err := t.commit(); err != nil {
		all(err, false)
	}
	return true
}
