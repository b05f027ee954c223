package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

var (
	// ErrBusy: there was no connection in time, or the database refused for now: it
	// starts, shuts down, is read-only or full, or has too many connections. Nothing
	// was written. A later attempt may work.
	ErrBusy = errors.New("the database is busy or away")
	// ErrFull: there is no space for the write. It is an ErrBusy, too.
	ErrFull = fmt.Errorf("%w: no space is left", ErrBusy)
	// ErrReadOnly: the server that was reached, or the file, takes no writes. It is an ErrBusy,
	// too.
	ErrReadOnly = fmt.Errorf("%w: it takes no writes", ErrBusy)
	// ErrUnique: the row's key is taken.
	ErrUnique = errors.New("the key is taken")
	// ErrRetry: the transaction must run again from its beginning. InTx does so by
	// itself; its function may return ErrRetry to ask for it.
	ErrRetry = errors.New("the transaction must run again")
	// ErrNoRows: there is no such row.
	ErrNoRows = sql.ErrNoRows
)

// A kind is the meaning of a driver's error.
type kind int

const (
	other    kind = iota
	unique        // a unique or primary key is taken
	retry         // deadlock, serialization failure: rolled back; to run again
	refused       // the server or the disk refuses for now; rolled back
	noWrites      // refused, because the server takes no writes
	full          // refused, because there is no space
	lost          // the connection ended; the statement may or may not have run
	noTable       // the table does not exist
)

// kindOf classifies an error of the dialect's driver.
func (d Dialect) kindOf(err error) kind {
	if errors.Is(err, sql.ErrTxDone) {
		return refused // its context ended and it was rolled back: a commit is tried once
	}
	var k kind
	switch d {
	case SQLite:
		k = sqliteKind(err)
	case Postgres:
		k = postgresKind(err)
	case MySQL:
		k = mysqlKind(err)
	}
	var ne net.Error
	if k == other && (errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &ne)) {
		return lost
	}
	return k
}

// explain gives a driver's error its meaning. harmless says that nothing can have been
// written, or that it may be written twice. Without it, a lost connection is no ErrBusy:
// whether the statement was done is unknown.
func (p *pool) explain(ctx context.Context, err error, harmless bool) error {
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("sqldb: %w: %w", context.Canceled, err)
	}
	k := p.dialect.kindOf(err)
	if p.dialect == SQLite {
		err = sqliteAdvice(p.path, err)
	}
	switch {
	case k == unique:
		return fmt.Errorf("sqldb: %w: %w", ErrUnique, err)
	case k == retry:
		return fmt.Errorf("sqldb: %w: %w", ErrRetry, err)
	case errors.Is(err, ErrReadOnly): // from connector or believe, which have seen to it
		return fmt.Errorf("sqldb: %w", err)
	case k == noWrites && p.dialect == SQLite:
		p.noteRefusal()
		return fmt.Errorf("sqldb: %w: %w", ErrReadOnly, err)
	case k == noWrites:
		return fmt.Errorf("sqldb: %w", p.distrust(fmt.Errorf("%w: %w", ErrReadOnly, err)))
	case k == full:
		p.full.Store(time.Now().UnixNano())
		p.noteRefusal()
		return fmt.Errorf("sqldb: %w: %w", ErrFull, err)
	case k == refused, harmless && (k == lost || ctx.Err() != nil):
		return fmt.Errorf("sqldb: %w: %w", ErrBusy, err)
	}
	return fmt.Errorf("sqldb: %w", err)
}
