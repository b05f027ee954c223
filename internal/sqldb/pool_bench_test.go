package sqldb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// BenchmarkPool compares the two ways to bound the wait for a connection: the slots of
// pool, and sql.DB.Conn with a deadline. Both read one row, in turns.
func BenchmarkPool(b *testing.B) {
	const calls, query = 4000, "SELECT value FROM settings WHERE name = ?"
	for name, url := range map[string]string{
		"sqlite":   "sqlite:" + b.TempDir() + "/watchword.db",
		"postgres": testenv.Postgres(b),
	} {
		db, err := Open(b.Context(), Config{URL: url, AcquireTimeout: patience, Timeout: 2 * patience})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		if _, err := db.Migrate(b.Context()); err != nil {
			b.Fatal(err)
		}
		ways := []func(dest any) error{
			func(dest any) error { return db.QueryRow(b.Context(), query, "schema_oldest").Scan(dest) },
			func(dest any) error { return db.readByConn(b.Context(), dest, query, "schema_oldest") },
		}
		for _, callers := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) {
				var wall, cpu [2][]float64 // µs a call, by way and round
				for b.Loop() {
					for way, read := range ways {
						began, used := time.Now(), cpuTime(b)
						var wg sync.WaitGroup
						for range callers {
							wg.Go(func() {
								for range calls / callers {
									if err := read(new(string)); err != nil {
										b.Error(err)
									}
								}
							})
						}
						wg.Wait()
						wall[way] = append(wall[way], float64(time.Since(began).Microseconds())/calls)
						cpu[way] = append(cpu[way], float64((cpuTime(b)-used).Microseconds())/calls)
					}
				}
				b.ReportMetric(median(wall[0]), "slots-µs")
				b.ReportMetric(median(wall[1]), "conn-µs")
				b.ReportMetric(median(cpu[0]), "slots-cpu-µs")
				b.ReportMetric(median(cpu[1]), "conn-cpu-µs")
			})
		}
	}
}

// readByConn reads one row as QueryRow does, with sql.DB.Conn in the place of the slots.
// A statement that is prepared on a sql.DB cannot run on a sql.Conn.
func (db *DB) readByConn(ctx context.Context, dest any, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	defer cancel()
	wait, stop := context.WithTimeout(ctx, db.reader.patience)
	defer stop()
	conn, err := db.reader.db.Conn(wait)
	if err != nil {
		return err
	}
	defer conn.Close()
	down, err := db.reader.handDown(ctx)
	if err != nil {
		return err
	}
	rows, err := conn.QueryContext(down, db.dialect.rebind(query), args...)
	if err != nil {
		return err
	}
	return newRow(&Rows{ctx: ctx, rows: rows, explain: func(err error) error { return err }, release: func() {}}, nil).Scan(dest)
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkRole compares a SELECT that asks for the server's role with one that does not, in
// turns: the time of a call, and of this process's processor.
func BenchmarkRole(b *testing.B) {
	const calls, query = 2000, "SELECT value FROM settings WHERE name = ?"
	for name, url := range map[string]string{"postgres": testenv.Postgres(b), "mariadb": testenv.MariaDB(b)} {
		b.Run(name, func(b *testing.B) {
			db, err := Open(b.Context(), Config{URL: url, AcquireTimeout: patience, Timeout: 2 * patience})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Migrate(b.Context()); err != nil {
				b.Fatal(err)
			}
			var wall, cpu [2][]float64 // µs a call, by way and round
			for b.Loop() {
				for way, query := range []string{query, strings.Replace(query, "SELECT", "select", 1)} {
					if db.dialect.asksRole(query) != (way == 0) {
						b.Fatal(query)
					}
					began, used := time.Now(), cpuTime(b)
					for range calls {
						if err := db.QueryRow(b.Context(), query, "schema_oldest").Scan(new(string)); err != nil {
							b.Fatal(err)
						}
					}
					wall[way] = append(wall[way], float64(time.Since(began).Microseconds())/calls)
					cpu[way] = append(cpu[way], float64((cpuTime(b)-used).Microseconds())/calls)
				}
			}
			b.ReportMetric(median(wall[0]), "role-µs")
			b.ReportMetric(median(wall[1]), "plain-µs")
			b.ReportMetric(median(cpu[0]), "role-cpu-µs")
			b.ReportMetric(median(cpu[1]), "plain-cpu-µs")
		})
	}
}
