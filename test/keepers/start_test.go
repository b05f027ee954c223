package keepers

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// refusesToStart fails the test unless a replica does not start, and says why in one sentence, in
// which the words stand.
func refusesToStart(t testing.TB, name, words string, changes ...func(*config.Config)) {
	t.Helper()
	cfg := kit.Config(t)
	for _, change := range changes {
		change(cfg)
	}
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	log := &testenv.Log{}
	n, err := app.New(t.Context(), app.Options{Config: cfg, Version: "test", Logger: slog.New(slog.NewJSONHandler(log, nil))})
	if err == nil {
		_ = n.Close()
	}
	if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %v, want one sentence with %q", name, err, words)
		return
	}
	for _, secret := range []string{cfg.Tokens.PKCS11.PIN, cfg.Tokens.Remote.Token} {
		if secret != "" && (strings.Contains(err.Error(), secret) || strings.Contains(log.String(), secret)) {
			t.Errorf("%s: the secret stands in the error or the log: %v", name, err)
		}
	}
	if strings.Contains(log.String(), "trying again") {
		t.Errorf("%s: the start was tried again: %s", name, log.Tail())
	}
}
