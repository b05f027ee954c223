package doctor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// In a healthy cluster nothing is found, and each check can look. With a fault planted, the check
// that is for it finds it and names it.
func TestCluster(t *testing.T) {
	w := newWorld(t)
	w.proxies(t)
	t.Run("healthy", func(t *testing.T) { healthy(t, w) })

	strange := w.start(t, "stranger", app.Options{Version: "test"}, func(cfg *config.Config) {
		cfg.Cluster.Secret = strings.Repeat("another secret ", 3)
	})
	elsewhere := w.start(t, "elsewhere", app.Options{Version: "test"}, func(cfg *config.Config) {
		cfg.Database.URL, cfg.Redis.URL = testenv.Postgres(t), ""
		cfg.Cluster.Discovery, cfg.Cluster.StaticPeers = config.DiscoveryStatic, []string{w.replicas[0].url}
		cfg.Tokens.KeySetMaxAge, cfg.Tokens.KeyPublishAhead = time.Second, time.Second
	})
	fast := func() time.Time { return time.Now().Add(8 * time.Second) }
	different := w.start(t, "different", app.Options{Version: "test-2", Now: fast}, func(cfg *config.Config) {
		cfg.Tokens.TokenDuration = 5 * time.Minute
		cfg.Storage.PreviousKeys = []string{strings.Repeat("fedcba9876543210", 4)}
		cfg.Cluster.Algorithms = []string{"ES256"}
		cfg.Server.TrustedProxies, cfg.Admin.Password = nil, "another password for the same one"
	})
	twin := w.start(t, "twin", app.Options{Version: "test"}, func(cfg *config.Config) { cfg.Cluster.InstanceID = "auth-0" })
	w.start(t, "unlisted", app.Options{Version: "test"}, func(cfg *config.Config) {
		cfg.Cluster.AdvertiseURL = ""
		cfg.Tokens.Keys, cfg.Tokens.Algorithm = config.KeysMemory, "EdDSA" // which "different" does not accept
	})
	link, url := replica.Link(t, w.database)
	lost := w.start(t, "lost", app.Options{Version: "test"}, func(cfg *config.Config) { cfg.Database.URL = url })
	link.Set(testenv.Fault{Cut: true})
	lost.stop()

	all := []string{w.replicas[0].url, w.replicas[1].url, w.replicas[2].url}
	two := all[:2]
	with := func(r *member) plan { return plan{peers: append(slices.Clone(two), r.url)} }
	for _, fault := range []struct {
		what  string
		plan  plan
		found map[string]string // what the check says of it
	}{
		{"a URL leads nowhere", plan{peers: append(slices.Clone(all), "http://"+w.address(t, "nobody"))},
			map[string]string{"replica-answers": w.address(t, "nobody")}},
		{"another secret", with(strange), map[string]string{"replica-secret": strange.url, "registry-rows": "rows"}},
		{"a URL for two", plan{peers: append(slices.Clone(all), strings.Replace(all[0], "127.0.0.1", "localhost", 1))},
			map[string]string{"replica-urls": "localhost"}},
		{"another database", with(elsewhere), map[string]string{
			"replica-database": "elsewhere", "shared-records": "elsewhere", "shared-counters": "elsewhere",
		}},
		{"keys of another database", with(elsewhere), map[string]string{"token-recognised": "elsewhere", "replica-key": "elsewhere"}},
		{"revocations in another database", with(elsewhere), map[string]string{"token-revoked": "elsewhere"}},
		{"other settings", with(different), map[string]string{
			"replica-version": "test-2", "replica-promises": "5m", "replica-key-source": "storage.previous_keys",
			"replica-settings": "server.trusted_proxies", "replica-administrator": "admin.password", "registry-clocks": "different",
		}},
		{"two with one name", with(twin), map[string]string{"replica-ids": "auth-0", "replica-ready": "cluster.instance_id"}},
		{"no URL", plan{}, map[string]string{"replica-unlisted": "unlisted"}},
		{"a key that is not taken in", plan{}, map[string]string{"registry-keys": "different"}},
		{"killed", plan{}, map[string]string{"registry-silent": "lost"}},
		{"no such administrator", plan{config: func(cfg *config.Config) { cfg.Admin.Username = "root" }}, map[string]string{"replica-administrator": `"root"`}},

		{"no load balancer", plan{front: "nobody"}, map[string]string{"front-answers": "refused"}},
		{"a certificate for another name", plan{front: "other-certificate"}, map[string]string{"front-certificate": publicHost}},
		{"a certificate that expires", plan{change: func(d *doctor.Deployment) {
			d.Now = func() time.Time { return time.Now().Add(50 * time.Minute) }
		}}, map[string]string{"front-certificate-expiry": "expires"}},
		{"plain HTTP", plan{plain: "plain"}, map[string]string{"front-plain": "without TLS"}},
		{"everything is open", plan{front: "open"}, map[string]string{"front-hsts": "Strict-Transport-Security", "front-metrics": "everybody"}},
		{"the header is passed on", plan{front: "passing-on"}, map[string]string{"front-client-address": "without X-Forwarded-For", "front-forged-address": "192.0.2.177"}},
		{"the balancer is not trusted", plan{front: "before-different"}, map[string]string{"front-client-address": "different takes 127.0.0.1"}},
		{"no health", plan{front: "no-health"}, map[string]string{"front-probes": "404"}},
		{"one replica", plan{front: "one"}, map[string]string{"front-spread": "auth-0"}},
		{"a stranger behind it", plan{front: "before-stranger"}, map[string]string{"front-strangers": "secret"}},
		{"another database behind it", plan{front: "before-elsewhere"}, map[string]string{"front-strangers": "elsewhere"}},
		{"a proxy that holds back", plan{front: "holding-back"}, map[string]string{"front-stream": "stream"}},
		{"a proxy with small buffers", plan{front: "small"}, map[string]string{"front-token-size": "400"}},
	} {
		t.Run(fault.what, func(t *testing.T) {
			t.Parallel()
			w.finds(t, fault.plan, fault.found)
		})
	}
}

// healthy fails the test unless all checks find nothing.
func healthy(t *testing.T, w *world) {
	kit.Eventually(t, func() error {
		var wrong []string
		for _, r := range w.examine(t, plan{}) {
			if r.Status == doctor.Failed || r.Status == doctor.Unknown {
				wrong = append(wrong, fmt.Sprintf("%s: %s%+v", r.ID, r.Reason, r.Findings))
			}
		}
		if wrong != nil {
			return errors.New(strings.Join(wrong, "\n"))
		}
		return nil
	})
}

// finds waits until each check of some finds a fault and says this of it.
func (w *world) finds(t *testing.T, p plan, says map[string]string) {
	t.Helper()
	ids := slices.Sorted(maps.Keys(says))
	wrong := func() error {
		results := w.examine(t, p, ids...)
		if len(results) != len(ids) {
			t.Fatalf("there are %d of the checks %q", len(results), ids)
		}
		for _, r := range results {
			named := func(f doctor.Finding) bool {
				return strings.Contains(f.Subject+": "+f.Seen, says[r.ID]) && f.Mend != ""
			}
			if r.Status != doctor.Failed || !slices.ContainsFunc(r.Findings, named) {
				return fmt.Errorf("%s does not say %q: %s %s %+v", r.ID, says[r.ID], r.Status, r.Reason, r.Findings)
			}
			t.Logf("%s: %+v", r.ID, r.Findings)
		}
		return nil
	}
	tick := time.NewTicker(500 * time.Millisecond) // a look costs more than to wait for the next one
	defer tick.Stop()
	for deadline := time.Now().Add(kit.Patience); ; <-tick.C {
		err := wrong()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", kit.Patience, err)
		}
	}
}
