package sqlstate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// How many statements wait for a lock in a database. MariaDB's answer is kept for 100 ms.
const (
	PostgresWaits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
	MariaDBWaits  = "SELECT count(*) FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p" +
		" ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT'"
)

// A sweep reads only expired records, however many live ones there are, and callers that
// use live records do not wait for it.
func TestSweepIsLight(t *testing.T) {
	for name, tt := range map[string]struct {
		url, analyze, explain, plan, waits string
	}{
		"sqlite":   {"sqlite:" + filepath.Join(t.TempDir(), "w.db"), "SELECT 1", "EXPLAIN QUERY PLAN ", `USING (COVERING )?INDEX \S+ \(expires_at<\?\)`, ""},
		"postgres": {testenv.Postgres(t), "ANALYZE state_records, state_rates", "EXPLAIN ", `(?s)Index Cond: \(expires_at <= .*Tid Scan`, PostgresWaits},
		"mariadb":  {testenv.MariaDB(t), "ANALYZE TABLE state_records, state_rates", "EXPLAIN FORMAT=JSON ", `"key": "state_\w+_expiry"`, MariaDBWaits},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: tt.url, Timeout: 5 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if _, err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := New(db, time.Now)
			const expired = batch + 10
			live := 10_000
			if db.Dialect() == sqldb.SQLite { // its plan does not depend on the number of rows
				live = 1_000
			}
			fillExpiring(t, db, live, expired)
			if rows, err := db.Query(t.Context(), tt.analyze); err != nil {
				t.Fatal(err)
			} else if err := rows.Close(); err != nil {
				t.Fatal(err)
			}

			for _, query := range []string{s.sql.sweepRecords, s.sql.sweepRates} {
				query = strings.NewReplacer("LIMIT ?", fmt.Sprint("LIMIT ", batch), "?", fmt.Sprint(time.Now().UnixMicro())).Replace(query)
				lines, err := sqldb.All(t.Context(), db, func(scan sqldb.Scan) (line string, err error) {
					if db.Dialect() == sqldb.SQLite {
						var id, parent, unused int
						err = scan(&id, &parent, &unused, &line)
						return line, err
					}
					err = scan(&line)
					return line, err
				}, tt.explain+query)
				if err != nil {
					t.Fatal(err)
				}
				plan := strings.Join(lines, "\n")
				if !regexp.MustCompile(tt.plan).MatchString(plan) || strings.Contains(plan, "Seq Scan") {
					t.Errorf("%s\n%s", query, plan)
				}
			}

			if db.Dialect() != sqldb.SQLite { // there no other caller can write during one statement
				held := errors.New("held")
				err = db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
					if n, err := q.Exec(ctx, s.sql.sweepRecords, batch); err != nil || n != batch {
						t.Errorf("swept %d, %v", n, err)
					}
					useLive(t, s, func() (n int) {
						if err := db.QueryRow(t.Context(), tt.waits).Scan(&n); err != nil {
							t.Error(err)
						}
						return n
					})
					// Otherwise the server has ended the transaction, and the test shows nothing.
					if _, err := q.Exec(ctx, s.sql.sweepRates, 1); err != nil {
						t.Errorf("the sweep goes on: %v", err)
					}
					return held
				})
				if !errors.Is(err, held) {
					t.Fatal(err)
				}
			}
			for _, want := range []int{1000, 2*expired - 1000, 0} {
				if n, err := s.Sweep(t.Context(), 1000); err != nil || n != want {
					t.Errorf("swept %d, want %d: %v", n, want, err)
				}
			}
		})
	}
}

// fillExpiring makes so many rows of each sort in each table.
func fillExpiring(t *testing.T, db *sqldb.DB, live, expired int) {
	t.Helper()
	later := time.Now().Add(time.Hour).UnixMicro()
	row := func(i int) (id string, expires int64) {
		if i < expired {
			return fmt.Sprintf("expired-%05d", i), int64(i)
		}
		return fmt.Sprintf("live-%05d", i-expired), later + int64(i)
	}
	err := db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
		const batch = 500
		for _, table := range []string{"state_records (kind, owner, id, expires_at, value, version)", "state_rates (kind, owner, id, expires_at, tat)"} {
			for i := 0; i < live+expired; i += batch {
				var rows []string
				for j := i; j < min(i+batch, live+expired); j++ {
					id, expires := row(j)
					rest := "'', 1"
					if strings.HasSuffix(table, "tat)") {
						rest = "1"
					}
					rows = append(rows, fmt.Sprintf("('k', 'o', '%s', %d, %s)", id, expires, rest))
				}
				if _, err := q.Exec(ctx, "INSERT INTO "+table+" VALUES "+strings.Join(rows, ", ")); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// useLive does what a request does with live records, and fails as soon as an operation
// waits for a lock: only the sweep holds locks.
func useLive(t *testing.T, s *Store, waits func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	key := func(id string) state.Key { return state.Key{Kind: "k", Owner: "o", ID: id} }
	done := make(chan error)
	go func() {
		_, getErr := s.Get(ctx, key("live-00100"))
		_, putErr := s.Put(ctx, key("live-00101"), nil, 2*time.Hour)
		_, createErr := s.Create(ctx, key("new"), nil, 2*time.Hour)
		_, swapErr := s.Swap(ctx, key("live-00102"), 1, nil, 2*time.Hour)
		_, takeErr := s.Take(ctx, key("live-00103"))
		done <- errors.Join(getErr, putErr, createErr, swapErr, takeErr, s.Delete(ctx, key("live-00104")))
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("during a sweep: %v", err)
			}
			return
		case <-time.After(200 * time.Millisecond):
			if waits() > 0 {
				t.Error("an operation on a live record waits for the sweep")
				cancel()
			}
		}
	}
}
