package operator

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/store"
)

// offline opens the parts on an empty database.
func offline(t *testing.T) *Parts {
	t.Helper()
	cfg := config.Default()
	cfg.Database.URL = "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
	p, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestRevokeKeyIsOneStep(t *testing.T) {
	p := offline(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	key := store.Key{
		ID: "node-1", Instance: "node", Algorithm: "ES256", PublicJWK: []byte("{}"),
		CreatedAt: now, ActivateAt: now, RetireAt: now.Add(time.Hour), RemoveAt: now.Add(2 * time.Hour),
	}
	if err := p.Store.CreateKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}

	if err := p.RevokeKey(t.Context(), config.Default(), "node-2", "leaked"); !errors.Is(err, keyring.ErrUnknownKey) {
		t.Fatalf("a key that is not there: %v", err)
	}
	expectTrail(t, p)

	if err := p.RevokeKey(t.Context(), config.Default(), "node-1", "leaked\nin a log"); err != nil {
		t.Fatal(err)
	}
	lines, _, err := p.Store.RevocationsAfter(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1 || lines[0].Kind != "kid" || lines[0].Subject != "node-1" || lines[0].ExpiresAt.Before(key.RemoveAt) {
		t.Errorf("the log has %+v", lines)
	}
	keys, err := p.Store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if keyring.State(keys[0], time.Now()) != keyring.Revoked {
		t.Errorf("the key is %+v", keys[0])
	}
	expectTrail(t, p, "key.revoke node-1 ok")
	if events, err := p.Audit.Events(t.Context(), store.AuditQuery{Limit: 1}); err != nil || events[0].Detail != "leaked�in a log" {
		t.Errorf("the trail has %+v, %v", events, err)
	}
}

func TestRotateKeysIsWrittenDown(t *testing.T) {
	p := offline(t)
	if err := p.RotateKeysAtOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectTrail(t, p, "key.rotate  ok")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.RotateKeys(ended); err == nil {
		t.Error("rotated without a database")
	}
	expectTrail(t, p, "key.rotate  ok")
}

// expectTrail compares the audit trail, the newest event first.
func expectTrail(t *testing.T, p *Parts, want ...string) {
	t.Helper()
	events, err := p.Audit.Events(t.Context(), store.AuditQuery{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != len(want) {
		t.Fatalf("the trail has %+v, want %q", events, want)
	}
	for i, e := range events {
		if got := e.Action + " " + e.Target + " " + e.Outcome; got != want[i] {
			t.Errorf("event %d is %q, want %q", i, got, want[i])
		}
	}
}
