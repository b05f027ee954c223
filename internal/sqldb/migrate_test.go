package sqldb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

func TestMigrate(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db, ctx := open(t, Config{URL: url}), t.Context()
		pending, err := db.Pending(ctx)
		if err != nil || len(pending) == 0 || pending[0].Version != 1 || pending[0].Name != "00001_first.sql" {
			t.Fatalf("pending %v, %v", pending, err)
		}
		if v, err := db.SchemaVersion(ctx); v != 0 || err != nil {
			t.Errorf("asking what is pending made version %d, %v", v, err)
		}
		applied, err := db.Migrate(ctx)
		if err != nil || len(applied) != len(pending) {
			t.Fatalf("applied %v, %v", applied, err)
		}
		if more, err := db.Pending(ctx); len(more) != 0 || err != nil {
			t.Errorf("still pending: %v, %v", more, err)
		}
		if again, err := db.Migrate(ctx); len(again) != 0 || err != nil {
			t.Errorf("applied again: %v, %v", again, err)
		}
	})
}

// Several processes start at once on an empty database.
func TestMigrateTogether(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		processes := 4
		if soak() {
			processes = 10
		}
		outs := make([]string, processes)
		var wg sync.WaitGroup
		for i := range processes {
			wg.Go(func() {
				out, err := process(t, "migrate", url).CombinedOutput()
				if err != nil {
					t.Errorf("process %d: %v\n%s", i, err, out)
				}
				outs[i] = strings.TrimSpace(string(out))
			})
		}
		wg.Wait()
		// Each migration was applied once, all by one process or by several in turn.
		did := 0
		for _, out := range outs {
			var n int
			if _, err := fmt.Sscanf(out, "applied %d", &n); err != nil {
				t.Errorf("a process says %q", out)
			}
			did += n
		}
		if files, err := fs.Glob(migrationFiles, "migrations/*.sql"); err != nil || did != len(files) {
			t.Errorf("%d migrations were applied of %v, %v: %q", did, files, err, outs)
		}
	})
}

// A migration that was killed half-way on a database without transactions over
// its schema runs again, over what is there.
func TestMigrateTwice(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db, ctx := migrated(t, Config{URL: url}), t.Context()
		if _, err := db.Exec(ctx, insertSetting, "kept", "x"); err != nil {
			t.Fatal(err)
		}
		var id, again string
		if err := db.QueryRow(ctx, "SELECT log_id FROM revocation_head").Scan(&id); err != nil || id == "" {
			t.Fatal(id, err)
		}
		if _, err := db.Exec(ctx, "DELETE FROM "+versions+" WHERE version_id > 0"); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(ctx, "DROP TABLE state_rates"); err != nil { // it had not come so far
			t.Fatal(err)
		}
		if applied, err := db.Migrate(ctx); err != nil || len(applied) == 0 {
			t.Fatalf("%v, %v", applied, err)
		}
		if err := db.QueryRow(ctx, "SELECT log_id FROM revocation_head").Scan(&again); err != nil || again != id {
			t.Errorf("the log was %s and is %s, %v", id, again, err)
		}
		if err := db.QueryRow(ctx, "SELECT COUNT(*) FROM state_rates").Scan(new(int)); err != nil {
			t.Error(err)
		}
		if count(t, db) != 1 {
			t.Error("a row is gone")
		}
	})
}

// with returns the migrations and more.
func with(t *testing.T, more map[string]string) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	entries, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	all := maps.Clone(more)
	for _, e := range entries {
		text, err := migrationFiles.ReadFile("migrations/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	for name, text := range all {
		files["migrations/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

func TestMigrateFails(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db, ctx := migrated(t, Config{URL: url}), t.Context()
		db.files = with(t, map[string]string{
			"90001_good.sql": "-- +goose Up\nCREATE TABLE good (a BIGINT);",
			"90002_bad.sql":  "-- +goose Up\nCREATE TABLE bad (a BIGINT);\nCREATE NONSENSE;",
		})
		applied, err := db.Migrate(ctx)
		if err == nil || !strings.Contains(err.Error(), "90002_bad.sql") || len(applied) != 1 {
			t.Fatalf("applied %v, %v", applied, err)
		}
		if v, err := db.SchemaVersion(ctx); v != 90001 || err != nil {
			t.Errorf("version %d, %v", v, err)
		}
		if err := db.QueryRow(ctx, "SELECT COUNT(*) FROM bad").Scan(new(int)); err == nil && db.Dialect() != MySQL {
			t.Error("half of the migration is there")
		}
		// The lock is free, and the schema as it was.
		db.files = with(t, map[string]string{
			"90001_good.sql": "-- +goose Up\nCREATE TABLE good (a BIGINT);",
			"90002_bad.sql":  "-- +goose Up\nCREATE TABLE IF NOT EXISTS bad (a BIGINT);",
		})
		if applied, err := db.Migrate(ctx); err != nil || len(applied) != 1 {
			t.Errorf("mended: %v, %v", applied, err)
		}
	})
}

// A binary meets the schema of a newer one.
func TestNewerSchema(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		db, ctx := migrated(t, Config{URL: url}), t.Context()
		older := open(t, Config{URL: url})
		compatible := map[string]string{"90001_more_expand.sql": "-- +goose Up\nCREATE TABLE more (a BIGINT);"}
		db.files = with(t, compatible)
		if _, err := db.Migrate(ctx); err != nil {
			t.Fatal(err)
		}
		if applied, err := older.Migrate(ctx); err != nil || len(applied) != 0 {
			t.Errorf("a schema that only grew: %v, %v", applied, err)
		}
		compatible["90002_less.sql"] = "-- +goose Up\nDROP TABLE more;"
		db.files = with(t, compatible)
		if _, err := db.Migrate(ctx); err != nil {
			t.Fatal(err)
		}
		if applied, err := older.Migrate(ctx); !errors.Is(err, ErrSchemaNewer) || len(applied) != 0 {
			t.Errorf("a schema that changed: %v, %v", applied, err)
		}
		if _, err := older.Pending(ctx); !errors.Is(err, ErrSchemaNewer) {
			t.Errorf("pending: %v", err)
		}
		if more, err := db.Pending(ctx); err != nil || len(more) != 0 {
			t.Errorf("the newer binary itself: %v, %v", more, err)
		}
	})
}

// A caller that gives up while another process migrates does not wait on.
func TestMigrateCancelled(t *testing.T) {
	url := sqliteURL(t)
	holder := migrated(t, Config{URL: url})
	db := open(t, Config{URL: url})
	db.files = with(t, map[string]string{"90001_x.sql": "-- +goose Up\nCREATE TABLE x (a BIGINT);"})
	err := holder.InTx(t.Context(), func(ctx context.Context, q Q) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_, err := db.Migrate(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
