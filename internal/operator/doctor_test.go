package operator_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// open opens a deployment that may be in any state.
func openDeployment(t *testing.T, cfg *config.Config, peers ...string) *doctor.Deployment {
	t.Helper()
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d, closeAll, err := operator.OpenDeployment(ctx, cfg, slog.New(slog.DiscardHandler), peers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeAll(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// A doctor looks at what is there: a backend that is away is in the deployment and is not waited
// for, and nothing is made or changed.
func TestOpenDeployment(t *testing.T) {
	const password = "a-password-in-a-url"
	t.Run("no SQLite file", func(t *testing.T) {
		cfg := config.Default()
		file := filepath.Join(t.TempDir(), "none.db")
		cfg.Database.URL = "sqlite:" + file
		d := openDeployment(t, cfg)
		if d.DB != nil || d.DBErr == nil || d.State != nil || d.Replicas != nil || d.Cluster != nil {
			t.Errorf("%+v", d)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("the doctor made a database")
		}
	})
	t.Run("SQLite", func(t *testing.T) {
		cfg := config.Default()
		cfg.Database.URL = sqldbtest.SQLite(t)
		d := openDeployment(t, cfg)
		if d.DBErr != nil || d.DB == nil || d.Store == nil || d.State == nil || d.Redis != nil || d.RedisErr != nil {
			t.Errorf("%+v", d)
		}
	})
	t.Run("everything is away", func(t *testing.T) {
		cfg := kit.ClusterConfig(t, "postgres://watchword:"+password+"@"+closedPort(t)+"/watchword")
		cfg.Redis.URL, cfg.State.Backend = "redis://watchword:"+password+"@"+closedPort(t), config.StateRedis
		d := openDeployment(t, cfg, "http://"+closedPort(t))
		if d.DB != nil || d.DBErr == nil || d.Redis != nil || d.RedisErr == nil || d.ClusterErr == nil || d.Cluster != nil || len(d.Replicas) != 1 || d.Replicas[0].Err == nil {
			t.Fatalf("%+v", d)
		}
		for _, err := range []error{d.DBErr, d.RedisErr, d.ClusterErr, d.Replicas[0].Err} {
			if strings.Contains(err.Error(), password) {
				t.Errorf("the error has the password: %v", err)
			}
		}
		// Every check says that it cannot look, or has nothing to look at, or finds it.
		for _, r := range doctor.Run(t.Context(), d, doctor.Checks()) {
			if strings.Contains(r.Reason, "the check failed") || strings.Contains(r.Reason, password) {
				t.Errorf("%s: %s", r.ID, r.Reason)
			}
		}
	})
	t.Run("an empty database", func(t *testing.T) {
		cfg := kit.ClusterConfig(t, testenv.Postgres(t))
		d := openDeployment(t, cfg)
		if d.DBErr != nil || d.Installation != "" || d.ClusterErr == nil || len(d.Replicas) != 0 {
			t.Fatalf("%+v", d)
		}
		doctor.Run(t.Context(), d, doctor.Checks())
		if v, err := d.DB.SchemaVersion(t.Context()); v != 0 || err != nil {
			t.Errorf("the doctor made a schema: version %d, %v", v, err)
		}
	})
	t.Run("peers that the settings name", func(t *testing.T) {
		cfg := kit.ClusterConfig(t, testenv.Postgres(t))
		cfg.Cluster.Discovery, cfg.Cluster.StaticPeers = config.DiscoveryStatic, []string{"http://" + closedPort(t), "http://" + closedPort(t)}
		if d := openDeployment(t, cfg); len(d.Replicas) != 2 || d.DiscoveryErr != nil {
			t.Errorf("%+v", d.Replicas)
		}
		cfg.Cluster.Discovery, cfg.Cluster.StaticPeers, cfg.Cluster.ServiceURL = config.DiscoveryDNS, nil, "http://no-such-service.invalid:8080"
		if d := openDeployment(t, cfg); len(d.Replicas) != 0 || d.DiscoveryErr == nil {
			t.Errorf("%+v, %v", d.Replicas, d.DiscoveryErr)
		}
		cfg.Cluster.Discovery = config.DiscoveryKubernetes // not in a pod
		if d := openDeployment(t, cfg); len(d.Replicas) != 0 || d.DiscoveryErr == nil {
			t.Errorf("%+v, %v", d.Replicas, d.DiscoveryErr)
		}
	})
}
