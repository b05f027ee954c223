package sqldb

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	// writeTrust is for how long a write shows that the database takes writes. In a cluster
	// each replica writes every second, so that TakesWrites seldom does.
	writeTrust = time.Second
	// sqliteTrust is the same for a file, which no other process demotes: an idle machine is
	// not to write every second.
	sqliteTrust = 10 * time.Second
	// fullFor is for how long a server counts as full that had no space for a write, unless
	// a later write of a caller finds some: the small one of TakesWrites may fit where others
	// do not.
	fullFor = time.Minute
)

// TakesWrites returns nil if the database answers and a write has succeeded in the last
// second, on SQLite in the last ten, or does now. The error is an ErrReadOnly or an ErrFull where that is known.
// The schema must be up to date.
func (db *DB) TakesWrites(ctx context.Context) error {
	p := db.writer
	if full := p.full.Load(); full != 0 && db.dialect != SQLite && time.Since(time.Unix(0, full)) < fullFor {
		return fmt.Errorf("sqldb: %w", ErrFull)
	}
	if time.Since(time.Unix(0, p.wrote.Load())) < db.dialect.writeTrust() {
		return db.Ping(ctx)
	}
	_, err := db.Exec(ctx, db.dialect.Upsert("settings", []string{"name"}, []string{"value"}),
		"write_probe", strconv.FormatInt(time.Now().UnixMicro(), 10))
	return err
}

func (d Dialect) writeTrust() time.Duration {
	if d == SQLite {
		return sqliteTrust
	}
	return writeTrust
}

// noteWrite notes that the database has taken a write.
func (p *pool) noteWrite() {
	p.full.Store(0)
	p.wrote.Store(time.Now().UnixNano())
}

// noteRefusal notes that it takes none.
func (p *pool) noteRefusal() { p.wrote.Store(0) }
