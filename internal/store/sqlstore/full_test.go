package sqlstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// A database without space is an ErrFull, alone and inside Update, and an ErrBusy, too.
// Nothing was written, and with space again the write succeeds.
func TestFull(t *testing.T) {
	db, ctx := sqldbtest.Open(t), t.Context()
	var pages int
	if err := db.QueryRow(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		t.Helper()
		if _, err := db.Exec(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
			t.Fatal(err)
		}
	}
	s, big := sqlstore.New(db), strings.Repeat("x", 100_000)
	put := func(r store.Records) error { return r.PutSetting(ctx, "big", big) }
	limit(pages + 5)
	for name, err := range map[string]error{"alone": put(s), "in a transaction": s.Update(ctx, put)} {
		if !errors.Is(err, store.ErrFull) || !errors.Is(err, store.ErrBusy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Setting(ctx, "big"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("afterwards: %v", err)
	}
	limit(pages + 1000)
	if err := put(s); err != nil {
		t.Errorf("with space again: %v", err)
	}
}
