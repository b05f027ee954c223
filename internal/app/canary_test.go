package app

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// The job asks every replica and a resource server, and leaves little behind; the
// command does the same as a user.
func TestCanary(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	front, listener := opened(t)
	front = strings.Replace(front, "http:", "https:", 1)
	certFile, keyFile := testenv.SelfSigned(t, "127.0.0.1")
	watched := func(cfg *config.Config) {
		storedKeys(cfg)
		cfg.Server.PublicURL, cfg.Telemetry.Canary = front, 500*time.Millisecond
		cfg.Cluster.CAFile = certFile
	}
	one, _ := reachable(t, database, watched)
	server := &http.Server{Handler: one.node.Handler()} // before it is measured for the first time
	go server.ServeTLS(listener, certFile, keyFile)
	t.Cleanup(func() { server.Close() })
	two, leave := reachable(t, database, watched)

	// Three rounds, of which the first and the last may be half written, and none fails. A round in
	// which the second replica starts, or the machine is busy for ten seconds, is not one of them.
	type counts struct{ failures, replicas, servers float64 }
	before := counts{failures: -1}
	eventually(t, func() error {
		text := string(one.do("GET", "/metrics", "", nil).body)
		of := func(name string) float64 {
			n, _ := sum(t, text, name)
			return n
		}
		now := counts{
			of("watchword_canary_failures_total"),
			of(`watchword_revocation_propagation_seconds_count{by="replica"}`),
			of(`watchword_revocation_propagation_seconds_count{by="resource_server"}`),
		}
		if now.failures != before.failures {
			before = now
		}
		if replicas, servers := now.replicas-before.replicas, now.servers-before.servers; servers < 3 || replicas < servers+2 {
			return fmt.Errorf("%v replicas and %v resource servers were measured without a failure: %s", replicas, servers, one.log.Tail())
		}
		return nil
	})
	lines, _, err := one.node.parts.Store.RevocationsAfter(t.Context(), 0, 100)
	if err != nil || len(lines) == 0 {
		t.Fatalf("%v, %v", lines, err)
	}
	for _, l := range lines {
		if l.Reason != "canary" || l.ExpiresAt.After(l.CreatedAt.Add(canaryLife+2*operator.Leeway)) {
			t.Errorf("it leaves behind %+v", l)
		}
	}

	urls, err := one.node.parts.ReplicaURLs(t.Context(), one.cfg)
	if err != nil || len(urls) != 2 {
		t.Fatalf("the replicas are %v, %v", urls, err)
	}
	eventually(t, func() error { // a busy machine may be late once
		results, err := operator.Canary(t.Context(), one.cfg, urls, "admin", password)
		if err != nil || len(results) != 3 {
			return fmt.Errorf("%+v, %v", results, err)
		}
		for _, r := range results {
			if r.Err != nil || r.Refused > operator.CanaryBound {
				return fmt.Errorf("%+v", r)
			}
			t.Logf("%s: %v", r.Name, r.Refused)
		}
		return nil
	})
	if _, err := operator.Canary(t.Context(), one.cfg, urls, "admin", "wrong"); err == nil || !strings.Contains(err.Error(), "answers 401") {
		t.Errorf("a wrong password: %v", err)
	}

	// A replica that is not reached is a failure, and said.
	failed, said := one.metric("watchword_canary_failures_total"), len(one.log.String())
	leave()
	eventually(t, func() error {
		if one.metric("watchword_canary_failures_total") == failed {
			return errors.New("no failure is counted")
		}
		if !strings.Contains(one.log.String()[said:], two.cfg.Cluster.AdvertiseURL) { // it comes after the count
			return errors.New("the log does not say who it is")
		}
		return nil
	})
}

// Where a secret signs, the resource server of the job has it, also after it has changed.
func TestCanaryWithSecrets(t *testing.T) {
	t.Parallel()
	former, present := strings.Repeat("former secret of the canary ", 2), strings.Repeat("present secret of the canary ", 2)
	front, listener := opened(t)
	front = strings.Replace(front, "http:", "https:", 1)
	certFile, keyFile := testenv.SelfSigned(t, "127.0.0.1")
	w, _ := reachable(t, testenv.Postgres(t), func(cfg *config.Config) {
		cfg.Tokens.Keys, cfg.Tokens.Secret = config.KeysSecret, former
		cfg.Server.PublicURL, cfg.Telemetry.Canary = front, 200*time.Millisecond
		cfg.Cluster.CAFile = certFile
	})
	server := &http.Server{Handler: w.node.Handler()}
	go server.ServeTLS(listener, certFile, keyFile)
	t.Cleanup(func() { server.Close() })
	measured := func(before float64) (n float64) {
		t.Helper()
		eventually(t, func() error {
			text := string(w.do("GET", "/metrics", "", nil).body)
			if n, _ = sum(t, text, `watchword_revocation_propagation_seconds_count{by="resource_server"}`); n < before+2 {
				return fmt.Errorf("%v rounds were measured, want 2 after %v: %s", n, before, w.log.Tail())
			}
			return nil
		})
		return n
	}
	before := measured(0)
	next := *w.cfg
	next.Tokens.Secret, next.Tokens.PreviousSecrets = present, []string{former}
	w.node.Reload(&next)
	measured(before + 1) // one may be under way
	if n := w.metric("watchword_canary_failures_total"); n != 0 {
		t.Errorf("%v rounds failed: %s", n, w.log.Tail())
	}
}
