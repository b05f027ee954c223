package sqlstate_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Buckets that nobody uses any longer go away, and those in use stay. With WATCHWORD_SOAK
// there are a million, and the test says what they cost: docs/storage.md has the figures.
func TestAbandonedBuckets(t *testing.T) {
	many := 10_000
	if os.Getenv("WATCHWORD_SOAK") != "" {
		many = 1_000_000
	}
	for _, server := range []struct{ name, url, size string }{
		{"sqlite", "sqlite:" + filepath.Join(t.TempDir(), "w.db"), "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"},
		{"postgres", testenv.Postgres(t), "SELECT pg_total_relation_size('state_rates')"},
		{"mariadb", testenv.MariaDB(t), "SELECT file_size FROM information_schema.innodb_sys_tablespaces WHERE name LIKE CONCAT(DATABASE(), '/state_rates')"},
	} {
		t.Run(server.name, func(t *testing.T) {
			if many == 10_000 {
				t.Parallel() // what is measured is measured alone
			}
			s, db := open(t, server.url), connect(t, sqldb.Config{URL: server.url, Timeout: 2 * time.Minute})
			number := func(query string) (n int) {
				t.Helper()
				if err := db.QueryRow(t.Context(), query).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			limit := func(id string, rate state.Rate) {
				t.Helper()
				if d, err := s.Limit(t.Context(), state.Key{Kind: "login", Owner: id, ID: "address"}, rate); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
			}
			empty := number(server.size)
			fillAbandoned(t, db, many)
			full := number(server.size)
			const each = 20
			for i := range each {
				limit(fmt.Sprint("abandoned-", i), state.Rate{Burst: 1, Period: time.Microsecond})
				limit(fmt.Sprint("live-", i), state.Rate{Burst: 1, Period: time.Hour})
			}
			begin := time.Now()
			for deadline := begin.Add(5 * time.Minute); number("SELECT COUNT(*) FROM state_rates") > each; { // its last millisecond may last
				if _, err := s.Sweep(t.Context(), 1000); err != nil || time.Now().After(deadline) {
					t.Fatalf("%d buckets are left, %v", number("SELECT COUNT(*) FROM state_rates"), err)
				}
				for n := 1000; n == 1000; {
					var err error
					if n, err = s.Sweep(t.Context(), 1000); err != nil {
						t.Fatal(err)
					}
				}
			}
			took := time.Since(begin)
			if n := number("SELECT COUNT(*) FROM state_rates WHERE owner LIKE 'live-%'"); n != each {
				t.Errorf("of %d live buckets %d are left", each, n)
			}
			t.Logf("summary: %d buckets on %s: %d bytes each, freed at %.0f a second", many, server.name, (full-empty)/many, float64(many)/took.Seconds())
		})
	}
}

// fillAbandoned makes buckets that became empty one after the other, until a moment ago.
func fillAbandoned(t *testing.T, db *sqldb.DB, many int) {
	t.Helper()
	const together = 500
	end := time.Now().UnixMicro() - int64(many)
	for made := 0; made < many; made += 20 * together {
		err := db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
			i := made
			for range 20 {
				var rows strings.Builder
				for j := range min(together, many-i) {
					fmt.Fprintf(&rows, "%c('login', '%s', 'address', %d, %d)", " ,"[min(j, 1)], rand.Text(), end+int64(i), end+int64(i))
					i++
				}
				if rows.Len() == 0 {
					return nil
				}
				if _, err := q.Exec(ctx, "INSERT INTO state_rates (kind, owner, id, tat, expires_at) VALUES"+rows.String()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
