package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/watchword-auth/watchword/internal/cluster"
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
	instance := n.cluster.(*cluster.Cluster).Instance()
	key.ID = instance + "-" + key.Thumbprint()
	now := time.Now().UTC().Truncate(time.Microsecond)
	row := store.Key{
		ID: key.ID, Instance: instance, Algorithm: key.Algorithm,
		CreatedAt: now, ActivateAt: now.Add(time.Hour), RetireAt: now.Add(2 * time.Hour), RemoveAt: now.Add(3 * time.Hour),
	}
	if row.PublicJWK, err = key.MarshalJSON(); err != nil {
		b.Fatal(err)
	}
	row = n.cluster.Authenticate(row)
	return row
}

// GET /api/pkeys over HTTP with the database and Redis there, and after they were
// killed: when the replica has noticed, and whatever it tries then is under way.
func BenchmarkKeySetWithoutServers(b *testing.B) {
	const settled = 10 * time.Second // longer than all that bounds an attempt to reach them
	database, redis := testenv.StartPostgres(b), testenv.StartRedis(b)
	n := benchReplica(b, func(cfg *config.Config) { cfg.Database.URL, cfg.Redis.URL = database.URL, redis.URL })
	server := httptest.NewServer(n.Handler())
	defer server.Close()
	var with, without []time.Duration
	for range b.N {
		untilHealth(b, server, http.StatusOK)
		with = append(with, askKeySet(b, server)...)
		database.Stop()
		redis.Stop()
		stopped := time.Now()
		untilHealth(b, server, http.StatusServiceUnavailable)
		time.Sleep(time.Until(stopped.Add(settled)))
		without = append(without, askKeySet(b, server)...)
		untilHealth(b, server, http.StatusServiceUnavailable)
		database.Start(b)
		redis.Start(b)
	}
	for name, took := range map[string][]time.Duration{"with": with, "without": without} {
		slices.Sort(took)
		b.ReportMetric(milliseconds(took[len(took)/2]), name+"-p50-ms")
		b.ReportMetric(milliseconds(took[len(took)*99/100]), name+"-p99-ms")
		b.ReportMetric(milliseconds(took[len(took)-1]), name+"-max-ms")
	}
	b.ReportMetric(0, "ns/op") // it has no meaning here
}

// untilHealth waits until the replica's health is that.
func untilHealth(b *testing.B, server *httptest.Server, status int) {
	b.Helper()
	eventually(b, func() error {
		answer, err := server.Client().Get(server.URL + "/health")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != status {
			return fmt.Errorf("the health is %d", answer.StatusCode)
		}
		return nil
	})
}

// askKeySet has several clients, each with a connection of its own, ask for the key
// set, and returns how long each answer took.
func askKeySet(b *testing.B, server *httptest.Server) []time.Duration {
	b.Helper()
	const clients, each = 8, 5_000
	took := make([]time.Duration, clients*each)
	var asking errgroup.Group
	for i := range clients {
		asking.Go(func() error {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for j := range each {
				began := time.Now()
				answer, err := client.Get(server.URL + "/api/pkeys")
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, answer.Body)
				if err = errors.Join(err, answer.Body.Close()); err != nil {
					return err
				}
				if answer.StatusCode != http.StatusOK {
					return fmt.Errorf("answers %d", answer.StatusCode)
				}
				took[i*each+j] = time.Since(began)
			}
			return nil
		})
	}
	if err := asking.Wait(); err != nil {
		b.Fatal(err)
	}
	return took
}
