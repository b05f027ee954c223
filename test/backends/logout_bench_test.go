package backends

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/replica"
)

// BenchmarkLogout measures from the answer to a logout until the last of five replicas
// has refused the token, with the default settings. Each replica is asked every
// millisecond.
func BenchmarkLogout(b *testing.B) {
	for _, bb := range []struct {
		name     string
		database func(testing.TB) string
		redis    bool
		rounds   int
	}{
		{"redis", testenv.MariaDB, true, 200}, // MariaDB rings no bell of its own
		{"postgres", testenv.Postgres, false, 200},
		{"mariadb", testenv.MariaDB, false, 100},
	} {
		b.Run(bb.name, func(b *testing.B) {
			database, redis := bb.database(b), ""
			if bb.redis {
				redis = testenv.Redis(b)
			}
			var replicas []*replica.World
			for range 5 {
				replicas = append(replicas, replica.Join(b, database, func(cfg *config.Config) {
					cfg.Redis.URL, cfg.Revocation.Poll = redis, config.Default().Revocation.Poll
				}))
			}
			var took []time.Duration
			for range b.N {
				for n := range bb.rounds {
					here := replicas[n%len(replicas)]
					token := here.Login("admin").AccessToken
					for _, w := range replicas {
						w.Verify(token)
					}
					here.Want(here.Do("POST", "/api/logout", token, nil), 204, "")
					took = append(took, lastRefusal(b, replicas, token, time.Now()))
				}
			}
			slices.Sort(took)
			for unit, share := range map[string]float64{"ms-p50": .5, "ms-p99": .99, "ms-max": 1} {
				b.ReportMetric(float64(took[int(share*float64(len(took)-1))].Microseconds())/1000, unit)
			}
			b.ReportMetric(0, "ns/op") // it has no meaning here
		})
	}
}

// lastRefusal is how long after the answer the last replica was asked that had not
// refused the token before.
func lastRefusal(b *testing.B, replicas []*replica.World, token string, answered time.Time) (last time.Duration) {
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, w := range replicas {
		asking.Go(func() {
			for {
				status, err := verifyAt(b.Context(), w.URL, token)
				after := time.Since(answered)
				if status == http.StatusUnauthorized {
					mu.Lock()
					defer mu.Unlock()
					last = max(last, after)
					return
				}
				if err != nil || after > w.Config.Revocation.MaxStaleness {
					b.Errorf("after %v: %d, %v", after, status, err)
					return
				}
				<-time.After(time.Millisecond)
			}
		})
	}
	asking.Wait()
	return last
}
