package app

import (
	"context"
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"

	"modernc.org/sqlite"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// The clock of a SQLite database is that of the goroutine that asks it: in a bubble it
// stands and jumps with the bubble's. No commit waits for the disk, since no test here
// turns the power off.
func init() {
	sqlite.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
		_, err := conn.ExecContext(context.Background(), "PRAGMA synchronous = OFF", nil)
		return err
	})
	sqlite.MustRegisterScalarFunction("unixepoch", 1, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		return float64(time.Now().UnixMicro()) / 1e6, nil
	})
}

// A bubble is a cluster in a bubble of package synctest, where waiting costs no time.
// Its replicas share a SQLite database and a state in memory, and are asked without a
// network.
type bubble struct {
	t     *testing.T
	store *sqlstore.Store
	state state.Store
}

// inBubble calls a function with a cluster that has no replica yet.
func inBubble(t *testing.T, f func(t *testing.T, b *bubble)) {
	t.Helper()
	url := sqldbtest.SQLite(t) // whose schema is made once, outside of any bubble
	synctest.Test(t, func(t *testing.T) {
		db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, AcquireTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		f(t, &bubble{t: t, store: sqlstore.New(db), state: memstate.New(time.Now)})
	})
}

// join starts a replica.
func (b *bubble) join(change func(*config.Config)) *world {
	b.t.Helper()
	return b.joinOn(nil, change)
}

// joinOn starts a replica that reaches the database through a store of the test's own.
func (b *bubble) joinOn(through store.Store, change func(*config.Config)) *world {
	b.t.Helper()
	w := b.world(change)
	if through != nil {
		w.kept = through
	}
	w.start()
	b.t.Cleanup(w.stop)
	return w
}

// world is a replica that is not started yet.
func (b *bubble) world(change func(*config.Config)) *world {
	b.t.Helper()
	cfg := clusterConfig(b.t, "")
	cfg.Revocation.Poll = time.Second // else most of the work were polling
	if change != nil {
		change(cfg)
	}
	cfg.Complete()
	return &world{t: b.t, cfg: cfg, own: b.state, kept: b.store, quiet: true, log: &logBuffer{}}
}

// newQuietWorld is newWorld without a network, for a bubble.
func newQuietWorld(t *testing.T, change func(*config.Config)) *world {
	t.Helper()
	cfg := testConfig(t)
	cfg.Revocation.Poll = time.Second
	if change != nil {
		change(cfg)
	}
	cfg.Complete()
	w := &world{t: t, cfg: cfg, quiet: true, log: &logBuffer{}}
	w.start()
	t.Cleanup(w.stop)
	return w
}
