package storetest_test

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/store"
	"github.com/watchword-auth/watchword/store/storetest"
)

// ours is a backend as another program has one: all that it shows are the names of
// package store.
type ours interface {
	store.Store
	store.Registry
}

func open(t *testing.T) (a, b ours) {
	url := sqldbtest.SQLite(t)
	one := func() ours {
		db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute}) // 32 callers on a busy machine
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return sqlstore.New(db)
	}
	return one(), one()
}

// The public suites are the ones that our own backend is held to.
func TestPublicSuites(t *testing.T) {
	storetest.Run(t, "ours", func(t *testing.T) (a, b store.Store) { return open(t) })
	storetest.RunRegistry(t, "ours-registry", func(t *testing.T) (a, b storetest.RegistryStore) { return open(t) })
}
