package sqlstate_test

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A write waits for the lock of a row when its caller is cut off. The server gives the
// write up by itself, and does not do it when the lock is released.
func TestGivenUp(t *testing.T) {
	pg, behind, maria := testenv.Postgres(t), testenv.Postgres(t), testenv.MariaDB(t)
	type server struct{ direct, through, waits string }
	for name, server := range map[string]server{
		"postgres":  {pg, pg, sqlstate.PostgresWaits},
		"pgbouncer": {behind, testenv.PgBouncer(t, behind).URL, sqlstate.PostgresWaits},
		"mariadb":   {maria, maria, sqlstate.MariaDBWaits},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(server.through)
			if err != nil {
				t.Fatal(err)
			}
			link := testenv.NewLink(t, u.Host)
			u.Host = link.Addr
			truth, other := open(t, server.direct), connect(t, sqldb.Config{URL: server.direct, Timeout: 5 * time.Minute})
			watch := connect(t, sqldb.Config{URL: server.direct}) // a transaction would see the same answer again and again
			s := sqlstate.New(connect(t, sqldb.Config{URL: u.String(), Timeout: 2 * time.Second}), time.Now)
			for op, write := range map[string]func(key state.Key, version int64) error{
				"Put": func(key state.Key, _ int64) error {
					_, err := s.Put(t.Context(), key, []byte("new"), time.Hour)
					return err
				},
				"Swap": func(key state.Key, version int64) error {
					_, err := s.Swap(t.Context(), key, version, []byte("new"), time.Hour)
					return err
				},
				"Delete": func(key state.Key, _ int64) error { return s.Delete(t.Context(), key) },
				"Take":   func(key state.Key, _ int64) error { _, err := s.Take(t.Context(), key); return err },
			} {
				key := state.Key{Kind: "test", Owner: "o", ID: op}
				version, err := truth.Put(t.Context(), key, []byte("old"), time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				failed := make(chan error, 1)
				err = other.InTxReadCommitted(t.Context(), func(ctx context.Context, q sqldb.Q) error {
					if _, err := q.Exec(ctx, "UPDATE state_records SET expires_at = expires_at + 0 WHERE kind = 'test' AND owner = 'o' AND id = ?", op); err != nil {
						return err
					}
					begin := func() { go func() { failed <- write(key, version) }() }
					begin()
					waits := func(want int, meanwhile func()) {
						t.Helper()
						for deadline := time.Now().Add(time.Minute); ; <-time.After(200 * time.Millisecond) { // MariaDB's answer is kept for 100 ms
							var n int
							if err := watch.QueryRow(ctx, server.waits).Scan(&n); err != nil {
								t.Fatal(err)
							}
							if n == want {
								return
							}
							if time.Now().After(deadline) {
								t.Fatalf("%s: %d statements wait for a lock, want %d", op, n, want)
							}
							meanwhile()
						}
					}
					waits(1, func() {
						select {
						case err := <-failed: // the machine stood still for longer than it waits
							if !errors.Is(err, state.ErrUnavailable) {
								t.Fatalf("%s: %v", op, err)
							}
							begin()
						default:
						}
					})
					link.Set(testenv.Fault{HoldUp: true, HoldDown: true})
					waits(0, func() {})
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := <-failed; !errors.Is(err, state.ErrUnavailable) {
					t.Errorf("%s: %v", op, err)
				}
				if r, err := truth.Get(t.Context(), key); err != nil || string(r.Value) != "old" {
					t.Errorf("%s: after it was given up, the database has %q, %v", op, r.Value, err)
				}
				link.Set(testenv.Fault{})
			}
		})
	}
}

func connect(t *testing.T, cfg sqldb.Config) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
