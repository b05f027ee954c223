package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/state"
	"github.com/watchword-auth/watchword/state/statetest"
)

func openFile(t *testing.T, path string) *FileState {
	t.Helper()
	s, err := OpenFileState(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	stores := make(map[*testing.T]*FileState)
	statetest.Run(t, "custom file", func(t *testing.T) state.Store {
		if stores[t] == nil {
			stores[t] = openFile(t, filepath.Join(t.TempDir(), "state"))
		}
		return stores[t]
	})
}

// A change that was answered is there after the process has died, also in the middle of
// writing a line.
func TestRestart(t *testing.T) {
	path, ctx, rate := filepath.Join(t.TempDir(), "state"), t.Context(), state.Rate{Burst: 1, Period: time.Hour}
	key := func(id string) state.Key { return state.Key{Kind: "test", Owner: "o", ID: id} }
	first := openFile(t, path)
	version, err := first.Put(ctx, key("kept"), []byte("value"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Put(ctx, key("taken"), nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Take(ctx, key("taken")); err != nil {
		t.Fatal(err)
	}
	if d, err := first.Limit(ctx, key("limit"), rate); err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	if d, err := first.Limit(ctx, key("reset"), rate); err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	if err := first.Reset(ctx, key("reset")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFileState(path, time.Now); err == nil {
		t.Error("a file that is open was opened again")
	}
	if err := first.Close(); err != nil { // unlocks the file, and writes nothing
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"gone":[{"Kind":"test","Own`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	for round := range 2 { // the second time, from the file that was replaced
		again := openFile(t, path)
		if r, err := again.Get(ctx, key("kept")); err != nil || string(r.Value) != "value" || r.Version != version {
			t.Errorf("got %+v, %v", r, err)
		}
		if _, err := again.Take(ctx, key("taken")); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("taken twice: %v", err)
		}
		if d, err := again.Limit(ctx, key("limit"), rate); err != nil || d.Allowed {
			t.Errorf("counted from zero: %+v, %v", d, err)
		}
		if d, err := again.Limit(ctx, key("reset"), rate); err != nil || d.Allowed != (round == 0) {
			t.Errorf("after a reset, and the restart %d: %+v, %v", round+1, d, err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
