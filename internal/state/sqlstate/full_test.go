package sqlstate_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
)

// A database without space is an ErrUnavailable that an ErrFull has caused.
func TestFull(t *testing.T) {
	db, ctx := sqldbtest.Open(t), t.Context()
	var pages int
	if err := db.QueryRow(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages+5)); err != nil {
		t.Fatal(err)
	}
	key := state.Key{Kind: "session", Owner: "a", ID: "b"}
	_, err := sqlstate.New(db, time.Now).Put(ctx, key, bytes.Repeat([]byte("x"), state.MaxValue), time.Hour)
	if !errors.Is(err, state.ErrFull) || !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}
