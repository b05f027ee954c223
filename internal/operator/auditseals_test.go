package operator

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
)

// earlier is a database whose clock is behind.
type earlier struct {
	store.Store
	by time.Duration
}

func (e earlier) LastAuditSeal(ctx context.Context) (store.AuditSeal, time.Time, error) {
	s, now, err := e.Store.LastAuditSeal(ctx)
	return s, now.Add(-e.by), err
}

// replicaTrail returns the audit trail and its chain as a replica had them some time ago. Its events are a
// minute older, and so they can be sealed at once.
func replicaTrail(t *testing.T, p *Parts, cfg *config.Config, ago time.Duration) (*audit.Trail, *audit.Chain) {
	t.Helper()
	box, err := FactorBox(t.Context(), cfg, p.Store)
	if err != nil {
		t.Fatal(err)
	}
	db, registry, logger := earlier{p.Store, ago}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	chain, err := audit.NewChain(audit.ChainConfig{Store: db, Box: box, Logger: logger, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	trail, err := audit.New(audit.Config{
		Store: db, Chain: chain, Now: func() time.Time { return time.Now().Add(-ago - time.Minute) }, Rand: rand.Reader, Logger: logger, Registerer: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return trail, chain
}

// What a replica has sealed, the command checks with the same key; it goes over to the next storage
// key with everything else, and no key is made for a check.
func TestVerifyAudit(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, c *config.Config){
		"storage key":      func(t *testing.T, c *config.Config) { c.Storage.Key = storageKeyOf(1) },
		"key file":         func(t *testing.T, c *config.Config) {},
		"cluster's secret": func(t *testing.T, c *config.Config) { c.Cluster.Secret = strings.Repeat("s", 40) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			cfg.Database.URL = sqldbtest.SQLite(t)
			change(t, cfg)
			p, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if cfg.Storage.Key == "" {
				if _, err := p.VerifyAudit(t.Context(), cfg, audit.Head{}); err == nil {
					t.Fatal("it was checked without a key")
				}
				if _, err := os.Stat(strings.TrimPrefix(cfg.Database.URL, "sqlite:") + ".key"); err == nil {
					t.Fatalf("a key file was made: %v", err)
				}
			}
			trail, chain := replicaTrail(t, p, cfg, 0)
			trail.Record(t.Context(), store.AuditEvent{Action: "login", Outcome: audit.OK})
			if err := chain.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
			holds := func() audit.Head {
				t.Helper()
				r, err := p.VerifyAudit(t.Context(), cfg, chain.Status().Newest)
				if err != nil || r.Found > 0 || r.Seals != 1 || r.Events != 1 {
					t.Fatalf("%+v, %v", r, err)
				}
				return r.Newest
			}
			holds()
			if cfg.Storage.Key == "" {
				return
			}
			cfg.Storage.Key, cfg.Storage.PreviousKeys = storageKeyOf(2), []string{storageKeyOf(1)}
			holds()
			if _, err := p.Rekey(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			cfg.Storage.PreviousKeys = nil
			holds()
			if _, err := p.DB.Exec(t.Context(), "UPDATE audit_events SET actor = 'x' WHERE action = 'login'"); err != nil {
				t.Fatal(err)
			}
			if r, err := p.VerifyAudit(t.Context(), cfg, audit.Head{}); err != nil || r.Found != 1 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}
