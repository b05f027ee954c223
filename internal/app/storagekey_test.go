package app

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
)

// A database with signing keys whose storage key is not given gets no new key file beside it,
// which would hide that the old one is missing: not by a start, and not by a command.
func TestNoNewStorageKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "watchword.db")
	key := strings.Repeat("0123456789abcdef", 4)
	w := newWorld(t, func(c *config.Config) {
		c.Database.URL = "sqlite:" + file
		storedKeys(c)
		c.Storage.Key = key
	})
	w.login("admin")
	ctx, cfg := t.Context(), *w.cfg
	backup := filepath.Join(dir, "backup")
	if _, err := operator.Backup(ctx, &cfg, discard, backup, ""); err != nil {
		t.Fatal(err)
	}
	absent := func(what, path string) {
		t.Helper()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s wrote %s: %v", what, path, err)
		}
	}
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "AUTH_STORAGE_KEY") {
			t.Errorf("%s: %v", what, err)
		}
		absent(what, file+".key")
	}
	cfg.Storage.Key = ""
	start := func(cfg config.Config) error {
		n, err := New(ctx, Options{Config: &cfg, Version: "test", Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			err = n.Close()
		}
		return err
	}
	refused("a start without the key", start(cfg))
	wrong := cfg
	wrong.Storage.PreviousKeys = []string{strings.Repeat("ab", 32)}
	refused("a start with another key", start(wrong))
	wrong.Storage.Key = strings.Repeat("ab", 32)
	if err := start(wrong); err == nil {
		t.Error("it starts under another key")
	}
	absent("a start under another key", file+".key")
	parts, err := operator.Open(ctx, &cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer parts.Close()
	_, err = parts.Rekey(ctx, &cfg)
	refused("storage rekey", err)
	_, err = parts.AdoptKeys(ctx, &cfg)
	refused("keys adopt", err)
	_, err = operator.Backup(ctx, &cfg, discard, filepath.Join(dir, "other"), "")
	refused("a backup", err)
	elsewhere := cfg
	elsewhere.Database.URL = "sqlite:" + filepath.Join(dir, "elsewhere.db")
	_, err = operator.Restore(ctx, &elsewhere, discard, backup, "", false)
	refused("a restore", err)
	absent("a restore", filepath.Join(dir, "elsewhere.db.key"))

	// With the old key a new one is made, and a byte order mark before it is no part of it.
	cfg.Storage.PreviousKeys = []string{key}
	if _, err := parts.Rekey(ctx, &cfg); err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(file + ".key")
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(made))); err != nil || len(raw) != 32 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if err := os.WriteFile(file+".key", append([]byte("\xef\xbb\xbf"), made...), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Storage.PreviousKeys = nil
	if err := start(cfg); err != nil {
		t.Errorf("with the new key: %v", err)
	}
}
