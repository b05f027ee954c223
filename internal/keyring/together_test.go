package keyring

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Three processes that share their keys start at once on an empty database, are asked for
// rotations, are killed and started, some of them with another algorithm. Whatever two of them do
// at the same moment, one key is active, at most one is published, and all sign with the same one.
func TestTogether(t *testing.T) {
	for name, url := range map[string]func(testing.TB) string{"postgres": testenv.Postgres, "mariadb": testenv.MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url(t)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if _, err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			s, c := sqlstore.New(db), &clock{now: start}
			rings := make([]*Ring, 3)
			algorithms := []string{accesstoken.EdDSA, accesstoken.ES256}
			during := func(i int, algorithm string) {
				cfg := testConfig(t, s, c)
				cfg.InstanceID, cfg.PublishAhead, cfg.Algorithms = fmt.Sprint("auth-", i), publishAhead, []string{algorithm}
				for attempt := 0; ; attempt++ { // as a replica that starts does
					var err error
					if rings[i], err = Open(t.Context(), cfg); err == nil {
						return
					} else if attempt == 10 {
						t.Error(err)
						return
					}
				}
			}
			var all sync.WaitGroup
			for i := range rings {
				all.Go(func() { during(i, algorithms[0]) })
			}
			all.Wait()
			used := map[string]bool{}
			for second := range 300 {
				c.Move(time.Second)
				for i := range rings {
					all.Go(func() {
						switch {
						case second%40 == 10+i: // a rolling restart; the algorithm changes twice
							during(i, algorithms[second/100%2])
						default:
							_ = rings[i].Refresh(t.Context()) // of two that write at once, one may have to try again
						}
					})
				}
				if second == 5 || second == 6 || second == 150 {
					all.Go(func() {
						if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if t.Failed() {
					return
				}
				count := map[Phase]int{}
				for _, k := range rows(t, s) {
					used[k.ID] = true
					count[State(k, c.Now())]++
				}
				if count[Active] != 1 || count[Published] > 1 {
					t.Fatalf("after %ds: %v", second, count)
				}
				for _, r := range rings {
					if got, want := signing(t, r), signing(t, rings[0]); got == "" || got != want && second%40 > 20 {
						t.Fatalf("after %ds %q and %q sign", second, got, want)
					}
				}
			}
			if len(used) < 4 || len(used) > 12 {
				t.Errorf("%d keys were made", len(used))
			}
			t.Logf("%d keys were made", len(used))
		})
	}
}
