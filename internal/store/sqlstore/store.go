package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

// A Store keeps its records in an SQL database.
type Store struct {
	records
}

var _ store.Store = (*Store)(nil)

// New returns the store in a database whose schema is up to date. Closing the
// store does not close the database.
func New(db *sqldb.DB) *Store { return &Store{records{db: db, q: db, prompt: db.Prompt()}} }

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, f func(r store.Records) error) error {
	return translate(s.db.InTx(ctx, func(_ context.Context, q sqldb.Q) error {
		return f(within(q))
	}))
}

// Ping implements store.Store. It does not wait for a connection behind other work: a
// database with many callers is well.
func (s *Store) Ping(ctx context.Context) error { return translate(s.db.Prompt().TakesWrites(ctx)) }

// Close implements store.Store.
func (s *Store) Close() error { return nil }

// records are the operations: each in a transaction of its own, or all in one.
type records struct {
	db *sqldb.DB // nil inside a transaction
	q  sqldb.Q
	// prompt is q for what a replica must read and write again and again to be live:
	// beats, the keys, the registry, the revocation log. These do not wait for a connection behind
	// other work.
	prompt sqldb.Q
}

// within returns the operations inside a transaction.
func within(q sqldb.Q) records { return records{q: q, prompt: q} }

// write runs f in the transaction, or in a serializable one of its own.
func (r records) write(ctx context.Context, f func(q sqldb.Q) error) error {
	if r.db == nil {
		return translate(f(r.q))
	}
	return translate(r.db.InTx(ctx, func(_ context.Context, q sqldb.Q) error { return f(q) }))
}

// one reads the record that a SELECT finds, or returns ErrNotFound.
func one[T any](ctx context.Context, q sqldb.Q, read func(sqldb.Scan) (T, error), query string, args ...any) (T, error) {
	var none T
	if !areText(args) {
		return none, store.ErrNotFound
	}
	rec, err := read(q.QueryRow(ctx, query, args...).Scan)
	if err != nil {
		return none, translate(err)
	}
	return rec, nil
}

// list reads the records that a SELECT finds.
func list[T any](ctx context.Context, q sqldb.Q, read func(sqldb.Scan) (T, error), query string, args ...any) ([]T, error) {
	if !areText(args) {
		return nil, nil
	}
	recs, err := sqldb.All(ctx, q, read, query, args...)
	return recs, translate(err)
}

// page adds the conditions of a Page to a SELECT. The column must be compared byte by
// byte, and needs an index that begins with the columns that the SELECT fixes.
func page[T any](ctx context.Context, q sqldb.Q, read func(sqldb.Scan) (T, error), p store.Page, column, query string, args ...any) ([]T, error) {
	if p.Limit <= 0 {
		return nil, nil
	}
	lower, upper, order := p.Prefix, "", ""
	if p.Prefix != "" {
		upper = p.Prefix + string(utf8.MaxRune)
	}
	above := ">="
	switch {
	case p.Descending:
		order = " DESC"
		if p.After != "" && (upper == "" || p.After < upper) {
			upper = p.After
		}
	case p.After >= p.Prefix:
		lower, above = p.After, ">"
	}
	// There is one bound on each side, because of two SQLite begins to read at the outer one.
	// The prefix is a range, which every database reads from the index, unlike LIKE.
	query += " AND " + column + " " + above + " ?"
	args = append(args, lower)
	if upper != "" {
		query += " AND " + column + " < ?"
		args = append(args, upper)
	}
	return list(ctx, q, read, query+" ORDER BY "+column+order+" LIMIT ?", append(args, p.Limit)...)
}

// exists reports whether a SELECT finds a row.
func exists(ctx context.Context, q sqldb.Q, query string, args ...any) (bool, error) {
	_, err := one(ctx, q, readInt, query, args...)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// change runs a statement on the rows that have the ids, and returns how many rows those
// are. All its arguments are ids.
func change(ctx context.Context, q sqldb.Q, query string, ids ...any) (int64, error) {
	if !areText(ids) {
		return 0, nil
	}
	return q.Exec(ctx, query, ids...)
}

// insert adds a row whose keys the caller has found free in the same transaction. If a
// key is taken after all, another transaction was faster, and this one must run again.
func insert(ctx context.Context, q sqldb.Q, query string, args ...any) error {
	_, err := q.Exec(ctx, query, args...)
	if errors.Is(err, sqldb.ErrUnique) {
		return fmt.Errorf("%w: %w", sqldb.ErrRetry, err)
	}
	return err
}

// mustMatch returns the error none for a statement that matched no row.
func mustMatch(none error, rows int64, err error) error {
	if err == nil && rows == 0 {
		return none
	}
	return err
}

func readInt(scan sqldb.Scan) (n int64, err error) { return n, scan(&n) }

// timeOf is the reverse of store.Micros.
func timeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// areText reports whether every string among the arguments of a search is text that a
// database accepts. A client may send anything; no row has a value that is not text, and
// some databases refuse to search for one.
func areText(args []any) bool {
	for _, a := range args {
		if s, ok := a.(string); ok && !isText(s) {
			return false
		}
	}
	return true
}

func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// translate wraps sqldb's errors in those of package store. The originals stay inside,
// because InTx checks for them.
func translate(err error) error {
	switch {
	case err == nil, errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrNotFound):
		return err
	case errors.Is(err, sqldb.ErrNoRows):
		return store.ErrNotFound
	case errors.Is(err, sqldb.ErrFull):
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case errors.Is(err, sqldb.ErrReadOnly):
		return fmt.Errorf("%w: %w", store.ErrReadOnly, err)
	case errors.Is(err, sqldb.ErrBusy), errors.Is(err, sqldb.ErrRetry):
		return fmt.Errorf("%w: %w", store.ErrBusy, err)
	}
	return err
}
