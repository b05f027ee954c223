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
	// ErrBusy: no connection could be had in time, or the database refused for
	// now. Nothing was written; trying later may work.
	ErrBusy = errors.New("the database is busy or away")
	// ErrFull: there is no space for what was to be written. It is an ErrBusy, too.
	ErrFull = fmt.Errorf("%w: no space is left", ErrBusy)
	// ErrUnique: the row's key is taken.
	ErrUnique = errors.New("the key is taken")
	// ErrRetry: the transaction must be run again from its beginning. InTx does
	// so by itself; its function may return ErrRetry to ask for it.
	ErrRetry = errors.New("the transaction must run again")
	// ErrNoRows: there is no such row.
	ErrNoRows = sql.ErrNoRows
)

// A kind is what sqldb needs to know about a driver's error.
type kind int

const (
	other   kind = iota
	unique       // a unique or primary key is taken
	retry        // deadlock, serialization failure: rolled back, run again
	refused      // the server, or the disk, will not do it now; rolled back
	full         // refused, because there is no space
	lost         // the connection ended; a statement may have run or not
	noTable      // the table does not exist
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

// explain gives a driver's error its meaning. Unless nothing of the statement
// can have been written (harmless), a lost connection stays what it is: nobody
// knows.
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
	case k == full:
		p.full.Store(time.Now().UnixNano())
		return fmt.Errorf("sqldb: %w: %w", ErrFull, err)
	case k == refused, harmless && (k == lost || ctx.Err() != nil):
		return fmt.Errorf("sqldb: %w: %w", ErrBusy, err)
	}
	return fmt.Errorf("sqldb: %w", err)
}
