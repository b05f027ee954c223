package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/stdlib"
)

// A Foreign is the database of another program, of which one snapshot is read. It may be used by one
// goroutine at a time.
type Foreign struct {
	dialect Dialect
	db      *sql.DB
	tx      *sql.Tx
}

// OpenForeign opens the database of another program, of a URL as in database.url, and begins a
// transaction that only reads. A SQLite file must be there and is not changed. The errors never show
// the URL. A transaction that is open for long keeps the server from removing old rows.
func OpenForeign(ctx context.Context, raw string) (_ *Foreign, err error) {
	f := &Foreign{}
	db := &DB{cfg: Config{URL: raw, AcquireTimeout: DefaultAcquireTimeout, Timeout: foreignTimeout}}
	switch scheme, _, _ := strings.Cut(raw, ":"); scheme {
	case "sqlite":
		f.dialect = SQLite
		f.db, err = openForeignSQLite(raw)
	case "postgres", "postgresql":
		f.dialect = Postgres
		cfg, failed := db.postgresConfig(raw)
		if failed != nil {
			return nil, failed
		}
		cfg.ValidateConnect = nil // a standby is good enough
		f.db = stdlib.OpenDB(*cfg)
	case "mysql":
		f.dialect = MySQL
		cfg, failed := db.mysqlConfig(raw)
		if failed != nil {
			return nil, failed
		}
		connector, failed := mysql.NewConnector(cfg)
		if failed != nil {
			return nil, failed
		}
		f.db = sql.OpenDB(connector)
	default:
		err = errors.New("the URL of a database begins with sqlite:, postgres:// or mysql://")
	}
	if err != nil {
		return nil, err
	}
	options := &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
	if f.dialect == SQLite {
		options = nil // the file is opened for reading alone, and a transaction is a snapshot
	}
	if f.tx, err = f.db.BeginTx(ctx, options); err != nil {
		switch f.dialect {
		case Postgres:
			err = postgresCause(err)
		case MySQL:
			err = mysqlCause(err)
		}
		return nil, errors.Join(err, f.db.Close())
	}
	return f, nil
}

// foreignTimeout is how long a server keeps the transaction open while what was read is written
// elsewhere.
const foreignTimeout = 90 * DefaultTimeout

func openForeignSQLite(raw string) (*sql.DB, error) {
	path, _ := SQLiteFile(raw)
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(abs); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s", path)
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(abs), RawQuery: "mode=ro&_busy_timeout=5000&_defensive=1"}
	db, err := sql.Open("sqlite", u.String())
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// Columns returns the names of the columns of a table.
func (f *Foreign) Columns(ctx context.Context, table string) ([]string, error) {
	rows, err := f.tx.QueryContext(ctx, "SELECT * FROM "+table+" WHERE 1 = 0")
	if err != nil {
		return nil, fmt.Errorf("the table %s: %w", table, err)
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	return columns, errors.Join(err, rows.Err())
}

// Each calls do for every row of a query, whose parameters are question marks. do may not use the
// database.
func (f *Foreign) Each(ctx context.Context, query string, args []any, do func(Scan) error) error {
	rows, err := f.tx.QueryContext(ctx, f.dialect.rebind(query), args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := do(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Close ends the transaction and the connection.
func (f *Foreign) Close() error { return errors.Join(f.tx.Rollback(), f.db.Close()) }
