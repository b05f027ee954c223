package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// Ping implements store.Store.
func (s *Store) Ping(ctx context.Context) error { return translate(s.db.Ping(ctx)) }

// Close implements store.Store.
func (s *Store) Close() error { return nil }

// records are the operations: each in a transaction of its own, or all in one.
type records struct {
	db *sqldb.DB // nil inside a transaction
	q  sqldb.Q
	// prompt is q for what a replica looks at and says of itself again and again: as
	// long as it can, it is trusted and trusts itself.
	prompt sqldb.Q
}

// within are the operations in a transaction.
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

// page adds to a SELECT what a Page asks for. The column must be compared byte by
// byte and have an index that begins with what the SELECT fixes already.
func page[T any](ctx context.Context, q sqldb.Q, read func(sqldb.Scan) (T, error), p store.Page, column, query string, args ...any) ([]T, error) {
	if p.Limit <= 0 {
		return nil, nil
	}
	// One lower bound: of two, SQLite begins to read at whichever comes first. And a
	// range for the prefix, which every database reads off the index, unlike LIKE.
	if p.After >= p.Prefix {
		query += " AND " + column + " > ?"
		args = append(args, p.After)
	} else {
		query += " AND " + column + " >= ?"
		args = append(args, p.Prefix)
	}
	if p.Prefix != "" {
		query += " AND " + column + " < ?"
		args = append(args, p.Prefix+string(utf8.MaxRune))
	}
	return list(ctx, q, read, query+" ORDER BY "+column+" LIMIT ?", append(args, p.Limit)...)
}

// exists says whether a SELECT finds anything.
func exists(ctx context.Context, q sqldb.Q, query string, args ...any) (bool, error) {
	_, err := one(ctx, q, readInt, query, args...)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// change runs a statement on the rows that have the ids, and says how many those
// are. Its arguments are nothing but ids.
func change(ctx context.Context, q sqldb.Q, query string, ids ...any) (int64, error) {
	if !areText(ids) {
		return 0, nil
	}
	return q.Exec(ctx, query, ids...)
}

// insert adds a row whose keys the caller has found free in the same transaction.
// If one is taken after all, another transaction was faster, and this one must
// look again.
func insert(ctx context.Context, q sqldb.Q, query string, args ...any) error {
	_, err := q.Exec(ctx, query, args...)
	if errors.Is(err, sqldb.ErrUnique) {
		return fmt.Errorf("%w: %w", sqldb.ErrRetry, err)
	}
	return err
}

// mustMatch turns a statement that matched no row into an error.
func mustMatch(none error, rows int64, err error) error {
	if err == nil && rows == 0 {
		return none
	}
	return err
}

func readInt(scan sqldb.Scan) (n int64, err error) { return n, scan(&n) }

// areText says whether a database will take the strings among what is looked for.
// What is no text (it came from a client) is not there, before one complains.
func areText(args []any) bool {
	for _, a := range args {
		if s, ok := a.(string); ok && !isText(s) {
			return false
		}
	}
	return true
}

func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// translate gives sqldb's errors the names of package store. The originals stay
// inside, because InTx looks for them.
func translate(err error) error {
	switch {
	case err == nil, errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrNotFound):
		return err
	case errors.Is(err, sqldb.ErrNoRows):
		return store.ErrNotFound
	case errors.Is(err, sqldb.ErrBusy), errors.Is(err, sqldb.ErrRetry):
		return fmt.Errorf("%w: %w", store.ErrBusy, err)
	}
	return err
}
