package sqlstate_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// BenchmarkLimit compares an event that is counted, and one that is refused, with the upsert of
// one row of a table that has a key alone, by the same pool. The calls take turns, one by one, so
// that what else the machine does falls on all; the figures are medians.
func BenchmarkLimit(b *testing.B) {
	counted, refused := state.Rate{Burst: state.MaxBurst, Period: time.Hour}, state.Rate{Burst: 1, Period: state.MaxPeriod}
	for _, server := range []struct{ name, url, clash string }{
		{"postgres", testenv.Postgres(b), " ON CONFLICT (kind, owner, id) DO UPDATE SET n = bare.n + 1"},
		{"mariadb", testenv.MariaDB(b), " ON DUPLICATE KEY UPDATE n = n + 1"},
		{"sqlite", "sqlite:" + filepath.Join(b.TempDir(), "w.db"), " ON CONFLICT (kind, owner, id) DO UPDATE SET n = bare.n + 1"},
	} {
		db, err := sqldb.Open(b.Context(), sqldb.Config{URL: server.url, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		if _, err := db.Migrate(b.Context()); err != nil {
			b.Fatal(err)
		}
		bare := "INSERT INTO bare (kind, owner, id, n) VALUES (?, ?, ?, 1)" + server.clash
		if _, err := db.Exec(b.Context(), "CREATE TABLE bare (kind VARCHAR(64) NOT NULL, owner VARCHAR(128) NOT NULL, id VARCHAR(128) NOT NULL, "+
			"n BIGINT NOT NULL, PRIMARY KEY (kind, owner, id))"); err != nil {
			b.Fatal(err)
		}
		s := sqlstate.New(db, time.Now)
		key := func(id string) state.Key {
			return state.Key{Kind: "login", Owner: "0123456789abcdef0123456789abcdef", ID: id}
		}
		ways := []struct {
			name string
			call func(ctx context.Context, id string) error
		}{
			{"upsert", func(ctx context.Context, id string) error {
				_, err := db.Exec(ctx, bare, "login", key(id).Owner, id)
				return err
			}},
			{"counted", func(ctx context.Context, id string) error {
				_, err := s.Limit(ctx, key(id), counted)
				return err
			}},
			{"refused", func(ctx context.Context, id string) error {
				_, err := s.Limit(ctx, key(id+"-refused"), refused)
				return err
			}},
		}
		b.Run(server.name, func(b *testing.B) {
			took := make([][]time.Duration, len(ways))
			for round := 0; b.Loop(); round++ {
				for i := range ways {
					i = (i + round) % len(ways)
					begin := time.Now()
					if err := ways[i].call(b.Context(), fmt.Sprint("caller-", round%16)); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], time.Since(begin))
				}
			}
			b.ReportMetric(0, "ns/op")
			for i, way := range ways {
				b.ReportMetric(float64(median(took[i]).Microseconds()), way.name+"-µs")
				b.ReportMetric(float64(median(took[i]))/float64(median(took[0])), way.name+"-×")
			}
		})
	}
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
