package backends

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A replica that is cut off from the database goes on, by what the others tell it:
// it accepts what is good and refuses in time what was revoked. Without the others
// it refuses all.
func TestCutOffFromTheDatabase(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]testenv.Fault{"refused": {Cut: true}, "silent": {HoldUp: true, HoldDown: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := testenv.Postgres(t)
			way, throughIt := replica.Link(t, database)
			bound := func(cfg *config.Config) {
				cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = 100*time.Millisecond, 1500*time.Millisecond
			}
			one, leaveAlone := reachable(t, database, bound)
			island, _ := reachable(t, throughIt, bound)
			kept := one.Login("admin").AccessToken
			var gone []string
			for range 2 {
				gone = append(gone, one.Login("admin").AccessToken)
			}
			way.Set(cut)
			began := time.Now()
			for time.Since(began) < 2*island.Config.Revocation.MaxStaleness {
				island.Accepts(kept)
			}
			for _, token := range gone {
				island.Accepts(token)
				kit.Eventually(t, func() error { // 503 says to try again
					if a := one.Do("POST", "/api/logout", token, nil); a.Status != 204 && a.Code() != "token_revoked" {
						return fmt.Errorf("%d %s", a.Status, a.Body)
					}
					return nil
				})
				logout := time.Now()
				island.Refuses(token, "token_revoked", logout, island.Config.Revocation.MaxStaleness)
				island.Accepts(kept)
				t.Logf("refused %v after the logout", time.Since(logout).Round(time.Millisecond))
			}
			if island.Metric(`watchword_cluster_feed_fetches_total{result="ok"}`) == 0 {
				t.Error("it has not asked the other replica")
			}

			// A key of the other replica's that is made now is learned from it.
			before := len(one.KeyIDs())
			kit.Insist(t, one.Parts().RotateKeys)
			one.Await("the next key", func() bool { return len(one.KeyIDs()) > before })
			known := len(one.KeyIDs())
			kit.Eventually(t, func() error {
				if n := len(island.KeyIDs()); n != known {
					return fmt.Errorf("it knows %d keys of %d", n, known)
				}
				return nil
			})

			leaveAlone()
			island.Refuses(kept, "revocation_stale", time.Now(), island.Config.Revocation.MaxStaleness)
			way.Set(testenv.Fault{})
			kit.Eventually(t, func() error {
				if a := island.Do("GET", "/api/verify", kept, nil); a.Status != 200 {
					return fmt.Errorf("%d %s", a.Status, a.Body)
				}
				return nil
			})
			for _, token := range gone {
				island.Want(island.Do("GET", "/api/verify", token, nil), 401, "token_revoked")
			}
		})
	}
}
