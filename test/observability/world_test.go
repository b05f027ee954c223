// Package observability holds what is said about metrics (the manual, the dashboard and the
// alerts in deploy/observability) against what replicas export.
package observability

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A deployment is replicas that together export all metrics that there are.
type deployment struct {
	one, two *replica.World // of a cluster: its state is in SQL and Redis
	alone    *replica.World // with a signing secret
}

// deploy starts a deployment in which everything happens that is counted.
func deploy(t *testing.T) *deployment {
	database, redis := testenv.Postgres(t), testenv.Redis(t)
	join := func() *replica.World {
		return replica.Join(t, database, func(cfg *config.Config) {
			kit.StoredKeys(cfg)
			cfg.Redis.URL, cfg.State.Backend = redis, config.StateTiered
			cfg.Limits = config.Default().Limits
			cfg.Server.TrustedProxies = []string{"127.0.0.1"}
			cfg.Server.CORSOrigins = []string{"https://app.example.com"}
			cfg.Telemetry.Canary, cfg.Server.PublicURL = time.Hour, "https://127.0.0.1:1" // it would ask there
		})
	}
	d := &deployment{one: join(), two: join(), alone: replica.New(t, func(cfg *config.Config) {
		cfg.Telemetry.Traces.Endpoint = "http://127.0.0.1:1/v1/traces" // where nobody is
		cfg.Tokens.Keys, cfg.Tokens.Secret = config.KeysSecret, strings.Repeat("0123456789abcdef", 4)
	})}
	d.one.User("alice")
	for _, w := range []*replica.World{d.one, d.two, d.alone} {
		grant := w.Login("admin")
		w.Verify(grant.AccessToken)
		again, _ := w.Renew(grant.RefreshToken)
		w.Want(w.Do("POST", "/api/logout", again.AccessToken, nil), 204, "")
		w.Want(w.Do("GET", "/api/verify", again.AccessToken, nil), 401, "token_revoked")
		w.Want(w.Do("POST", "/api/login", "", map[string]string{"username": "admin", "password": "wrong"}), 401, "invalid_credentials")
	}
	d.two.Await("a ring is heard", func() bool { // of the log of revocations
		n, _ := kit.Sum(t, scrape(d.two), "watchword_bell_rings_total")
		return n > 0
	})
	return d
}

// all are the replicas.
func (d *deployment) all() []*replica.World { return []*replica.World{d.one, d.two, d.alone} }

// scrape is what a replica exports.
func scrape(w *replica.World) string { return string(w.Do("GET", "/metrics", "", nil).Body) }

// A metric is a family of metrics.
type metric struct {
	name, kind, help string
	labels           map[string]map[string]bool // their values, by name
	series           int
}

// metrics are those of several replicas together.
func metrics(t *testing.T, worlds ...*replica.World) map[string]*metric {
	t.Helper()
	all := map[string]*metric{}
	for _, w := range worlds {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(scrape(w)))
		if err != nil {
			t.Fatal(err)
		}
		for name, family := range families {
			m := all[name]
			if m == nil {
				m = &metric{name: name, kind: kindOf(family), help: family.GetHelp(), labels: map[string]map[string]bool{}}
				all[name] = m
			}
			for _, one := range family.GetMetric() {
				m.series++
				for _, l := range one.GetLabel() {
					if m.labels[l.GetName()] == nil {
						m.labels[l.GetName()] = map[string]bool{}
					}
					m.labels[l.GetName()][l.GetValue()] = true
				}
			}
		}
	}
	return all
}

func kindOf(f *dto.MetricFamily) string { return strings.ToLower(f.GetType().String()) }

// sorted are metrics in the order of their names.
func sorted(all map[string]*metric) []*metric {
	var list []*metric
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name])
	}
	return list
}

// own reports whether a metric is Watchword's, and not of the process that it runs in.
func (m *metric) own() bool { return strings.HasPrefix(m.name, "watchword_") }

// send sends a request, whatever comes of it.
func send(w *replica.World, method, path, token, body string, header map[string]string) {
	r, err := http.NewRequestWithContext(w.T.Context(), method, w.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		w.T.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for name, value := range header {
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	a, err := w.Try(r)
	if err != nil {
		w.T.Fatal(fmt.Errorf("%s %s: %w", method, path, err))
	}
	_ = a
}
