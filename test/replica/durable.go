package replica

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Durable starts servers that may be killed, because they keep what they have acknowledged, by
// name. The database is the one of the replicas, and change configures them for the server.
var Durable = map[string]func(t *testing.T) (server *testenv.Server, database string, change func(*config.Config)){
	"postgres": func(t *testing.T) (*testenv.Server, string, func(*config.Config)) {
		s := testenv.StartPostgres(t)
		return s, s.URL, func(*config.Config) {}
	},
	"mariadb": func(t *testing.T) (*testenv.Server, string, func(*config.Config)) {
		s := testenv.StartMariaDB(t)
		return s, s.URL, func(*config.Config) {}
	},
	"redis": func(t *testing.T) (*testenv.Server, string, func(*config.Config)) {
		s := testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
		return s, testenv.Postgres(t), func(cfg *config.Config) { cfg.Redis.URL, cfg.State.Backend = s.URL, "redis" }
	},
}
