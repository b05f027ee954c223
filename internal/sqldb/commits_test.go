package sqldb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// queued starts writers while another caller writes, and waits until all of them are in
// the queue. Then it lets them write.
func queued(t *testing.T, db *DB, meanwhile func(), writers ...func()) {
	t.Helper()
	if !db.writer.tryAcquire() {
		t.Fatal("another caller writes already")
	}
	var wg sync.WaitGroup
	for i, w := range writers {
		wg.Go(w)
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			db.commits.mu.Lock()
			n := len(db.commits.queue)
			db.commits.mu.Unlock()
			if n == i+1 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d wait", n, i+1)
			}
		}
	}
	meanwhile()
	db.writer.slots.release()
	wg.Wait()
	if len(db.writer.slots) != 0 || len(db.commits.queue) != 0 || db.writer.waiting.Load() != 0 {
		t.Error("something is left over")
	}
}

func writes(t *testing.T, db *DB, ctx context.Context, want error, query string, args ...any) func() {
	return func() {
		n, err := db.Exec(ctx, query, args...)
		if !errors.Is(err, want) || want == nil && n != 1 {
			t.Errorf("%s %.20q: %d, %v; want %v", query, args, n, err, want)
		}
	}
}

// Callers that wait share a commit. What happens to one of them does not affect the
// others.
func TestCommitsTogether(t *testing.T) {
	url := sqliteURL(t)
	db, ctx := migrated(t, Config{URL: url}), t.Context()
	size := func() int64 {
		info, err := os.Stat(strings.TrimPrefix(url, "sqlite:") + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	all := []func(){
		writes(t, db, ctx, nil, insertSetting, "first", "x"),
		writes(t, db, ctx, ErrUnique, insertSetting, "first", "y"),
		writes(t, db, ctx, nil, "UPDATE settings SET value = ? WHERE name = ? AND value = ?", "z", "first", "x"),
	}
	const more = 40
	for i := range more {
		all = append(all, writes(t, db, ctx, nil, insertSetting, fmt.Sprint("more", i), "x"))
	}
	before := size()
	queued(t, db, func() {}, all...)
	if grown := (size() - before) / 4096; grown > more/2 {
		t.Errorf("%d pages were written: each had a commit", grown)
	}
	if n := count(t, db); n != more+1 {
		t.Errorf("%d rows", n)
	}
	var value string
	if err := db.QueryRow(ctx, "SELECT value FROM settings WHERE name = 'first'").Scan(&value); value != "z" || err != nil {
		t.Errorf("one after the other would have made it z, not %q, %v", value, err)
	}
}

// A caller that leaves the queue does not keep the others from writing.
func TestCommitsLeave(t *testing.T) {
	for leaves := range 3 {
		db, ctx := migrated(t, Config{URL: sqliteURL(t)}), t.Context()
		gone, cancel := context.WithCancel(ctx)
		left := make(chan struct{})
		var all []func()
		for i := range 3 {
			all = append(all, writes(t, db, ctx, nil, insertSetting, fmt.Sprint(i), "x"))
		}
		goes := writes(t, db, gone, context.Canceled, insertSetting, fmt.Sprint(leaves), "x")
		all[leaves] = func() { goes(); close(left) }
		queued(t, db, func() { cancel(); <-left }, all...)
		if n := count(t, db); n != 2 {
			t.Errorf("%d rows", n)
		}
	}
}

// A caller that waits too long gets ErrBusy, and its statement is not written.
func TestCommitsImpatient(t *testing.T) {
	db, ctx := migrated(t, Config{URL: sqliteURL(t)}), t.Context()
	db.writer.patience = 50 * time.Millisecond
	if !db.writer.tryAcquire() {
		t.Fatal("another caller writes already")
	}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(writes(t, db, ctx, ErrBusy, insertSetting, fmt.Sprint(i), "x"))
	}
	wg.Wait()
	if n := db.writer.refused.Load(); n != 3 {
		t.Errorf("%d refused", n)
	}
	db.writer.slots.release()
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows", n)
	}
	writes(t, db, ctx, nil, insertSetting, "a", "x")()
}

// A statement that undoes the whole transaction fails alone.
func TestCommitsApart(t *testing.T) {
	db, ctx := migrated(t, Config{URL: sqliteURL(t)}), t.Context()
	var pages int
	if err := db.QueryRow(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if _, err := db.writer.db.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages+5)); err != nil {
		t.Fatal(err)
	}
	queued(t, db, func() {},
		writes(t, db, ctx, nil, insertSetting, "a", "x"),
		writes(t, db, ctx, ErrBusy, insertSetting, "big", strings.Repeat("x", 100_000)),
		writes(t, db, ctx, nil, insertSetting, "b", "x"))
	if n := count(t, db); n != 2 {
		t.Errorf("%d rows", n)
	}
}

// A statement whose caller has gone is passed over.
func TestCommitsGone(t *testing.T) {
	db, ctx := migrated(t, Config{URL: sqliteURL(t)}), t.Context()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	batch := []*write{
		{ctx: gone, query: insertSetting, args: []any{"gone", "x"}},
		{ctx: ctx, query: insertSetting, args: []any{"here", "x"}},
	}
	if !db.commits.together(batch) || !errors.Is(batch[0].err, context.Canceled) || batch[1].err != nil || batch[1].result.matched != 1 {
		t.Errorf("%v, %v", batch[0].err, batch[1].err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// After a panic no statement of the batch is answered as done, and other callers can
// write.
func TestCommitsPanic(t *testing.T) {
	panics := true
	db, ctx := migrated(t, Config{URL: sqliteURL(t), Watch: func(_ string, args []any, _ error) {
		if panics && len(args) > 0 && args[0] == "bad" {
			panic("now")
		}
	}}), t.Context()
	queued(t, db, func() {},
		func() {
			defer func() {
				if recover() != "now" {
					t.Error("the panic was lost")
				}
			}()
			_, _ = db.Exec(ctx, insertSetting, "a", "x")
		},
		writes(t, db, ctx, errUnfinished, insertSetting, "bad", "x"),
		writes(t, db, ctx, errUnfinished, insertSetting, "b", "x"))
	panics = false
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows", n)
	}
	writes(t, db, ctx, nil, insertSetting, "a", "x")()
}

// Sixteen callers that commit at once; BenchmarkSQLiteCommit has one.
func BenchmarkSQLiteCommitTogether(b *testing.B) {
	ctx := b.Context()
	db, err := Open(ctx, Config{URL: "sqlite:" + b.TempDir() + "/watchword.db"})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(ctx); err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := db.Exec(ctx, insertSetting, fmt.Sprint(n.Add(1)), "x"); err != nil {
				b.Error(err)
			}
		}
	})
}
