package operator

import (
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/backup"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// A new installation gets an id, and all replicas that start together get the same one. One
// that has users and no id is of an earlier version, and goes on without.
func TestInstallation(t *testing.T) {
	fresh, other, earlier := sqlstore.New(sqldbtest.Open(t)), sqlstore.New(sqldbtest.Open(t)), sqlstore.New(sqldbtest.Open(t))
	ask := func(s store.Store) string {
		t.Helper()
		id, err := Installation(t.Context(), s)
		if err != nil {
			t.Error(err)
		}
		return id
	}
	var ids sync.Map
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { ids.Store(ask(fresh), true) })
	}
	wg.Wait()
	user := store.User{ID: "u", Username: "u", NameKey: "u"}
	for _, s := range []store.Store{fresh, earlier} {
		if err := s.CreateUser(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	id := ask(fresh)
	if _, known := ids.LoadAndDelete(id); !known || len(id) != 16 {
		t.Errorf("the id is %q", id)
	}
	ids.Range(func(id, _ any) bool { t.Errorf("another id is %q", id); return true })
	if ask(other) == id {
		t.Error("two installations have one id")
	}
	if id := ask(earlier); id != "" {
		t.Errorf("that of an earlier version has the id %q", id)
	}
	if err := earlier.PutSetting(t.Context(), backup.InstallationSetting, "a:{b}"); err != nil {
		t.Fatal(err)
	}
	if id, err := Installation(t.Context(), earlier); err == nil {
		t.Errorf("%q would change what the names in Redis mean", id)
	}
}
