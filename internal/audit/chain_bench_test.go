package audit_test

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// BenchmarkEvent is what docs/design/audit-log.md says an event costs: to write it, which is what the
// request pays; to seal it, which a replica does later; and to check it. "seal one by one" is a quiet
// service, in which each seal has one event.
func BenchmarkEvent(b *testing.B) {
	for _, name := range []string{"sqlite", "postgres", "mariadb"} {
		b.Run(name, func(b *testing.B) {
			db := openAt(b, trailDatabases[name](b))
			world := func(b *testing.B) (*audit.Trail, *audit.Chain) {
				for _, table := range []string{"audit_events", "audit_seals"} {
					if _, err := db.Exec(b.Context(), "DELETE FROM "+table); err != nil {
						b.Fatal(err)
					}
				}
				return benchTrail(b, db)
			}
			b.Run("write", func(b *testing.B) {
				trail, _ := world(b)
				for b.Loop() {
					benchWrite(b, trail, 1)
				}
			})
			b.Run("seal", func(b *testing.B) {
				trail, chain := world(b)
				benchWrite(b, trail, b.N)
				b.ResetTimer()
				if err := chain.Seal(b.Context()); err != nil {
					b.Fatal(err)
				}
			})
			b.Run("seal one by one", func(b *testing.B) {
				trail, chain := world(b)
				for b.Loop() {
					b.StopTimer()
					benchWrite(b, trail, 1)
					b.StartTimer()
					if err := chain.Seal(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("check", func(b *testing.B) {
				trail, chain := world(b)
				benchWrite(b, trail, b.N)
				if err := chain.Seal(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.ResetTimer()
				if r, err := chain.Verify(b.Context(), audit.Head{}); err != nil || r.Events != b.N {
					b.Fatalf("%+v, %v", r, err)
				}
			})
		})
	}
}

func benchTrail(b *testing.B, db *sqldb.DB) (*audit.Trail, *audit.Chain) {
	b.Helper()
	s, logger, registry := sqlstore.New(db), slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	chain, err := audit.NewChain(audit.ChainConfig{Store: s, Box: newBox(b, 1), Logger: logger, Registerer: registry})
	if err != nil {
		b.Fatal(err)
	}
	trail, err := audit.New(audit.Config{
		Store: s, Chain: chain, Now: func() time.Time { return time.Now().Add(-time.Minute) }, Rand: rand.Reader, Logger: logger, Registerer: registry,
	})
	if err != nil {
		b.Fatal(err)
	}
	return trail, chain
}

func benchWrite(b *testing.B, trail *audit.Trail, n int) {
	for i := range n {
		trail.Record(b.Context(), store.AuditEvent{
			Actor: "019ac2f8-3b5e-7000-8000-5a2b3c4d5e6f", Action: "login", Target: fmt.Sprintf("019ac2f8-3b5e-7000-8000-%012d", i),
			Outcome: audit.OK, Address: "192.0.2.1", Detail: "pwd",
		})
	}
}
