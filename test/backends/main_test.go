package backends

import (
	"flag"
	"os"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/test/replica"
)

// TestMain lets more tests run side by side than there are processors: those that are
// parallel wait most of the time.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// reachable starts a replica that the others reach.
func reachable(t *testing.T, database string, change func(*config.Config)) (w *replica.World, unreachable func()) {
	t.Helper()
	at, l := replica.Listen(t)
	w = replica.Join(t, database, func(cfg *config.Config) {
		cfg.Cluster.AdvertiseURL = at
		change(cfg)
	})
	return w, replica.Serve(t, l, w.Replica.Handler())
}
