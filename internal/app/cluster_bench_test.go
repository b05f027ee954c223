package app

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// benchReplica starts a replica for a benchmark.
func benchReplica(b *testing.B, change func(*config.Config)) *Node {
	b.Helper()
	cfg := config.Default()
	cfg.Server.PublicURL = "https://auth.example.com"
	cfg.Cluster.Enabled, cfg.Cluster.Secret = true, clusterSecret
	cfg.Tokens.KeySetMaxAge = time.Second
	change(cfg)
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		b.Fatal(err)
	}
	n, err := New(b.Context(), Options{Config: cfg, Logger: discard, Version: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { n.Close() }) // a benchmark may have ended its servers
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		b.Fatal(err)
	}
	return n
}

// From before a key's row is written until the last of five replicas has it in the
// key set that it serves.
func BenchmarkKeyKnown(b *testing.B) {
	for _, line := range []struct {
		name string
		set  func(b *testing.B, cfg *config.Config)
	}{
		{"postgres", func(b *testing.B, cfg *config.Config) { cfg.Database.URL = testenv.Postgres(b) }},
		{"redis", func(b *testing.B, cfg *config.Config) {
			cfg.Database.URL, cfg.Redis.URL = testenv.MariaDB(b), testenv.Redis(b)
		}},
		{"poll", func(b *testing.B, cfg *config.Config) { cfg.Database.URL = testenv.MariaDB(b) }},
	} {
		b.Run(line.name, func(b *testing.B) {
			var shared config.Config
			line.set(b, &shared)
			var nodes []*Node
			for range 5 {
				nodes = append(nodes, benchReplica(b, func(cfg *config.Config) {
					cfg.Database.URL, cfg.Redis.URL = shared.Database.URL, shared.Redis.URL
				}))
			}
			var took []time.Duration
			b.ResetTimer()
			for range b.N {
				row := peerRow(b, nodes[0])
				began := time.Now()
				if err := nodes[0].parts.Store.CreateKey(b.Context(), row); err != nil {
					b.Fatal(err)
				}
				nodes[0].cluster.Changed()
				for _, n := range nodes {
					for known := false; !known; _, known = n.cluster.Keys().Key(row.ID) {
						time.Sleep(100 * time.Microsecond) // the resolution
					}
				}
				took = append(took, time.Since(began))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(milliseconds(took[len(took)/2]), "p50-ms")
			b.ReportMetric(milliseconds(took[len(took)*99/100]), "p99-ms")
			b.ReportMetric(milliseconds(took[len(took)-1]), "max-ms")
		})
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// peerRow is the row of a new key in the replica's name.
func peerRow(b *testing.B, n *Node) store.Key {
	b.Helper()
	private, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		b.Fatal(err)
	}
	key := accesstoken.Key{Algorithm: accesstoken.ES256, Public: private.Public()}
	key.ID = n.cluster.Instance() + "-" + key.Thumbprint()
	now := time.Now().UTC().Truncate(time.Microsecond)
	row := store.Key{
		ID: key.ID, Instance: n.cluster.Instance(), Algorithm: key.Algorithm,
		CreatedAt: now, ActivateAt: now.Add(time.Hour), RetireAt: now.Add(2 * time.Hour), RemoveAt: now.Add(3 * time.Hour),
	}
	if row.PublicJWK, err = key.MarshalJSON(); err != nil {
		b.Fatal(err)
	}
	row.MAC = n.cluster.Authenticate(row)
	return row
}

// GET /api/pkeys with the database and Redis there, and after they were killed.
func BenchmarkKeySetWithoutServers(b *testing.B) {
	database, redis := testenv.StartPostgres(b), testenv.StartRedis(b)
	n := benchReplica(b, func(cfg *config.Config) { cfg.Database.URL, cfg.Redis.URL = database.URL, redis.URL })
	ask := func() float64 {
		const requests = 20_000
		r := httptest.NewRequest("GET", "/api/pkeys", nil)
		began := time.Now()
		for range requests {
			w := httptest.NewRecorder()
			n.Handler().ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				b.Fatalf("answers %d", w.Code)
			}
		}
		return float64(time.Since(began).Nanoseconds()) / requests
	}
	rounds := func() float64 {
		var all []float64
		for range 7 {
			all = append(all, ask())
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	for range b.N {
		with := rounds()
		database.Stop()
		redis.Stop()
		without := rounds()
		b.ReportMetric(with, "with-ns")
		b.ReportMetric(without, "without-ns")
		b.ReportMetric(without/with, "ratio")
		database.Start(b)
		redis.Start(b)
	}
}
