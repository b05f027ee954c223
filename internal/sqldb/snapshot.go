package sqldb

import (
	"context"
	"database/sql"
	"fmt"
)

// Snapshot runs f on one unchanging state of the database, while other callers read and
// write. It lasts as long as f does: Config.Timeout does not bound it. f runs once and
// can only read.
func (db *DB) Snapshot(ctx context.Context, f func(ctx context.Context, q Q) error) error {
	p := db.reader
	slot, err := p.acquire(ctx, db.prompt)
	if err != nil {
		return err
	}
	defer slot.release()
	options := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	if db.dialect == SQLite {
		options = nil // in WAL mode a transaction reads one state; these connections cannot write
	}
	down, err := p.handDown(ctx)
	if err != nil {
		return p.explain(ctx, err, true)
	}
	sqlTx, err := p.db.BeginTx(down, options)
	if err != nil {
		return p.explain(ctx, err, true)
	}
	defer sqlTx.Rollback()
	if _, bounded := ctx.Deadline(); !bounded && unlimited[db.dialect] != "" {
		// f may be slow, and it locks nothing.
		if _, err := sqlTx.ExecContext(down, unlimited[db.dialect]); err != nil {
			return p.explain(ctx, err, true)
		}
	}
	return f(ctx, &tx{pool: p, tx: sqlTx})
}

// unlimited removes the limit of abandonedAfter: from the transaction, or on MariaDB from
// the read-only transactions of the connection. MySQL has no such limit.
var unlimited = map[Dialect]string{
	Postgres: "SET LOCAL " + idleLimit + " = 0",
	MySQL:    "SET @ignored = 0 /*M!100300 , idle_readonly_transaction_timeout = 31536000*/",
}

// CheckSchema returns an error unless the schema is exactly the one that this binary
// knows: a merely compatible schema may hold data that this binary would overlook.
func (db *DB) CheckSchema(ctx context.Context) error {
	has, err := db.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	all, err := migrationsOf(db.files)
	if err != nil {
		return err
	}
	if knows := all[len(all)-1].Version; has != knows {
		return fmt.Errorf("the schema of the database is version %d, and this binary's is %d: use the version of Watchword that the replicas run, or \"watchword migrate\" first", has, knows)
	}
	return nil
}
