package app

import (
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

const signingSecret = "a signing secret of the tests that all replicas share"

// A replica alone that restarts with another tokens.keys, and nothing else changed, starts. It
// says that it refuses the access tokens of keys that it does not use any more, and does with 401 invalid_token, so that
// clients renew: the sessions go on. Back at stored keys, their tokens are accepted again.
func TestRestartWithAnotherSource(t *testing.T) {
	hsm, signer := testenv.StartSoftHSM(t, "signing"), newSigner(t)
	for name, change := range map[string]func(*config.Config){
		"secret": func(cfg *config.Config) { cfg.Tokens.Keys, cfg.Tokens.Secret = config.KeysSecret, signingSecret },
		"memory": func(cfg *config.Config) { cfg.Tokens.Keys = config.KeysMemory },
		"remote": signer.use,
		"pkcs11": func(cfg *config.Config) {
			p := &cfg.Tokens.PKCS11
			cfg.Tokens.Keys, p.Library, p.PIN, p.Token = config.KeysPKCS11, hsm.Library, hsm.PIN, "signing"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *config.Config) {
				cfg.Tokens.Keys, cfg.Tokens.KeySetMaxAge = config.KeysDatabase, time.Second
			})
			before := w.login("admin")
			change(w.cfg)
			if name == "pkcs11" {
				hsm.Tool(t, "signing", "--keypairgen", "--key-type", "EC:prime256v1", "--label", w.cfg.Tokens.PKCS11.Key, "--id", "01", "--usage-sign")
			}
			if err := w.cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			const says = "tokens of signing keys from another source than tokens.keys are refused"
			if log := w.log.String(); strings.Contains(log, says) {
				t.Errorf("at the first start it warns: %s", log)
			}
			w.restart()
			log := w.log.String()
			if _, warning, _ := strings.Cut(log, says); strings.Count(log, says) != 1 || !strings.Contains(warning, kidOf(t, before.AccessToken)) {
				t.Errorf("it does not say once which tokens it refuses: %s", log)
			}
			w.want(w.do("GET", "/api/verify", before.AccessToken, nil), 401, "invalid_token")
			refresh, renewed := w.renew(before.RefreshToken)
			w.want(renewed, 200, "")
			after := decode[struct {
				AccessToken string `json:"access_token"`
			}](t, renewed)
			w.verify(after.AccessToken)

			w.cfg.Tokens.Keys = config.KeysDatabase
			w.restart()
			w.verify(before.AccessToken)
			_, renewed = w.renew(refresh)
			w.want(renewed, 200, "")
			if name == "secret" { // which is still configured
				w.verify(after.AccessToken)
				if w.metric(`watchword_signing_secrets{kid="`+kidOf(t, after.AccessToken)+`",state="accepted"}`) != 1 {
					t.Error("the metrics do not say that the secret is accepted and signs nothing")
				}
			}
		})
	}
}

// A program that brings its own store has no key file beside it: what authenticates the rows of
// kept keys has to be configured, and the start says so before it touches the store.
func TestOwnStoreNeedsAKey(t *testing.T) {
	signer := newSigner(t)
	w := newWorld(t, nil)
	for name, change := range map[string]func(*config.Config){
		"database": func(cfg *config.Config) { cfg.Tokens.Keys = config.KeysDatabase },
		"remote":   signer.use,
		"pkcs11":   func(cfg *config.Config) { cfg.Tokens.Keys = config.KeysPKCS11 },
	} {
		cfg := *w.cfg
		change(&cfg)
		n, err := New(t.Context(), Options{Config: &cfg, Logger: discard, Version: "test", Store: struct{ store.Store }{}})
		if err == nil {
			_ = n.Close()
			t.Fatalf("%s: it starts without a key", name)
		}
		if text := err.Error(); !strings.HasPrefix(text, "storage.key: it is needed to ") || strings.Contains(text, "\n") {
			t.Errorf("%s: %s", name, text)
		}
	}
	cfg := *w.cfg
	signer.use(&cfg)
	cfg.Storage.Key = strings.Repeat("0123456789abcdef", 4)
	parts, err := operator.Open(t.Context(), &cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer parts.Close()
	n, err := New(t.Context(), Options{Config: &cfg, Logger: discard, Version: "test", Store: parts.Store, State: memstate.New(time.Now)})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
