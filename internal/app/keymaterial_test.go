package app

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// No answer, log line, metric or report of a replica has anything of a signing secret, of the PIN of
// an HSM or of a signer's token, through logins, changes of the secret and its revocation.
func TestKeyMaterialStaysInside(t *testing.T) {
	const present, next = "canary-A the present signing secret of the deployment in full", "canary-B the next signing secret of the deployment in full"
	const former, pin, signer = "canary-C the former signing secret of the deployment in full", "canary-D-pin", "canary-E-token"
	w := newWorld(t, func(cfg *config.Config) {
		cfg.Tokens.Keys, cfg.Tokens.Secret, cfg.Tokens.PreviousSecrets = config.KeysSecret, present, []string{former + "@2099-01-01"}
		cfg.Tokens.PKCS11.PIN, cfg.Tokens.Remote.Token = pin, signer
	})
	var seen []string
	ask := func(token string) {
		for _, path := range []string{
			"/api/pkeys", "/api/pkeys?local=true", "/.well-known/jwks.json", "/api/verify", "/api/audit", "/api/cluster", "/api/revocations", "/metrics",
			"/health", "/readyz", "/debug", "/debug/vars", "/debug/pprof/cmdline", "/openapi.json",
		} {
			a := w.do("GET", path, token, nil)
			seen = append(seen, fmt.Sprint(a.status, " ", a.header, " ", string(a.body)))
		}
	}
	first := w.login("admin").AccessToken
	ask(first)

	changed := *w.cfg
	changed.Tokens.Secret, changed.Tokens.PreviousSecrets = next, []string{present, former}
	changed.Tokens.PKCS11.PIN, changed.Tokens.Remote.Token = pin+"2", signer+"2"
	w.node.Reload(&changed)
	second := w.login("admin").AccessToken
	if kidOf(t, first) == kidOf(t, second) {
		t.Error("the next secret does not sign")
	}
	w.verify(first)
	ask(second)
	short := changed
	short.Tokens.Secret = "canary-F too short"
	w.node.Reload(&short)
	w.node.Reload(&changed)

	keys, err := accesstoken.SecretKeys(next)
	if err != nil {
		t.Fatal(err)
	}
	w.revoke(second, map[string]any{"kid": kidOf(t, second), "reason": "it was in a repository"})
	third := w.login("admin").AccessToken
	if kidOf(t, third) == kidOf(t, second) {
		t.Error("the revoked secret signs")
	}
	w.want(w.do("GET", "/api/verify", second, nil), 401, "token_revoked")
	w.verify(first)
	ask(third)
	list, err := w.node.parts.SigningKeys(t.Context(), &changed, time.Now())
	seen = append(seen, w.log.String(), fmt.Sprintf("%+v %v", list, err), fmt.Sprintf("%+v %#v %v", keys, keys, keys))
	seen = append(seen, fmt.Sprintf("%+v", w.node.keys.secrets))
	for _, text := range seen {
		if strings.Contains(text, `"oct"`) {
			t.Errorf("a key set has a secret: %s", text)
		}
		if i := strings.Index(text, "canary-"); i >= 0 {
			t.Errorf("it stands in %s", text[max(0, i-300):min(len(text), i+100)])
		}
	}
}

// forms are texts by which a secret would be known again: as it is, quoted, and in hex and base64,
// at each place that it may have in a longer text.
func forms(secret []byte) map[string]string {
	quoted, _ := json.Marshal(string(secret))
	all := map[string]string{
		"itself": string(secret), "JSON": strings.Trim(string(quoted), `"`), "Go": strings.Trim(fmt.Sprintf("%q", secret), `"`),
		"hex": hex.EncodeToString(secret), "HEX": fmt.Sprintf("%X", secret), "bytes": strings.Trim(fmt.Sprint(secret), "[]"),
	}
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		for skip := range 3 {
			rest := secret[skip:]
			all[fmt.Sprint(name, " ", skip)] = encoding.EncodeToString(rest[:len(rest)-len(rest)%3])
		}
	}
	return all
}

// wantNone fails for each secret that a text has in any form.
func wantNone(t *testing.T, what, text string, secrets map[string][]byte) {
	t.Helper()
	for name, secret := range secrets {
		for form, shape := range forms(secret) {
			if i := strings.Index(text, shape); i >= 0 {
				t.Errorf("%s has %s, as %s: …%s", what, name, form, text[max(0, i-200):i])
			}
		}
	}
}

// What prints a configuration, whole or in part, also in a panic or an error of a setting that
// cannot work, shows no secret of signing keys.
func TestConfigurationShowsNoKeyMaterial(t *testing.T) {
	t.Parallel()
	secrets := map[string][]byte{
		"the secret": []byte("canary-A-the-present-signing-secret-of-all"), "the former secret": []byte("canary-C-the-former-signing-secret-of-all"),
		"the PIN": []byte("canary-D-pin-of-the-token"), "the signer's token": []byte(signerToken), "the storage key": []byte(strings.Repeat("c4a7", 16)),
	}
	cfg := testConfig(t)
	cfg.Tokens.Secret, cfg.Tokens.PreviousSecrets = string(secrets["the secret"]), []string{string(secrets["the former secret"]) + "@2099-01-01"}
	cfg.Tokens.PKCS11.PIN, cfg.Tokens.Remote.Token, cfg.Storage.Key = string(secrets["the PIN"]), signerToken, string(secrets["the storage key"])
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := cfg.Print(&printed); err != nil {
		t.Fatal(err)
	}
	wantNone(t, "watchword config", printed.String(), secrets)
	cfg.Cluster.Secret = cfg.Tokens.Secret // which is worth a warning
	wantNone(t, "a warning", strings.Join(cfg.Warnings(), " "), secrets)
	for _, value := range []any{*cfg, cfg, Options{Config: cfg}, &Options{Config: cfg}} {
		wantNone(t, "a printed value", fmt.Sprintf("%v %+v %#v %s", value, value, value, value), secrets)
	}
	other := *cfg
	other.Tokens.Secret, other.Tokens.PreviousSecrets, other.Tokens.PKCS11.PIN, other.Tokens.Remote.Token, other.Storage.Key = "", nil, "", "", ""
	wantNone(t, "a change of the configuration", fmt.Sprintf("%+v %#v", cfg.Changes(&other), other.Changes(cfg)), secrets)
	for what, change := range map[string]func(*config.Config){
		"an unknown mode":        func(c *config.Config) { c.Tokens.Keys = "hsm" },
		"no library":             func(c *config.Config) { c.Tokens.Keys = config.KeysPKCS11 },
		"no signer":              func(c *config.Config) { c.Tokens.Keys = config.KeysRemote },
		"a secret that is short": func(c *config.Config) { c.Tokens.Keys, c.Tokens.Algorithm = config.KeysSecret, accesstoken.HS512 },
		"an end that is none":    func(c *config.Config) { c.Tokens.PreviousSecrets[0] += "x" },
		"a secret twice": func(c *config.Config) {
			c.Tokens.PreviousSecrets = append(c.Tokens.PreviousSecrets, c.Tokens.PreviousSecrets[0])
		},
	} {
		wrong := *cfg
		wrong.Tokens.PreviousSecrets = append([]string{}, cfg.Tokens.PreviousSecrets...)
		change(&wrong)
		err := wrong.Validate()
		if err == nil {
			_, err = New(t.Context(), Options{Config: &wrong, Logger: discard, Version: "test"})
		}
		if err == nil {
			t.Errorf("%s is accepted", what)
		}
		wantNone(t, "the error of "+what, fmt.Sprintf("%+v %#v", err, err), secrets)
	}
}

// Nothing that a replica with stored keys answers, logs or reports has their private half.
func TestStoredKeysStayInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storedKeys)
	token := w.login("admin").AccessToken
	rows, err := w.node.store.Keys(t.Context())
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	box, err := operator.StorageBox(t.Context(), w.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := keysource.Sealed{Box: box}.Open(t.Context(), rows[0].ID, rows[0].Algorithm, rows[0].Sealed)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(opened.Signer)
	if err != nil {
		t.Fatal(err)
	}
	d, err := opened.Signer.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"PKCS #8": der, "d": d, "the sealed key": rows[0].Sealed, "the storage key": []byte(w.cfg.Storage.Key)}
	for _, path := range []string{
		"/api/pkeys", "/api/pkeys?local=true", "/api/verify", "/api/audit", "/api/cluster", "/api/revocations?limit=10", "/metrics", "/health", "/readyz", "/openapi.json",
	} {
		a := w.do("GET", path, token, nil)
		wantNone(t, path, fmt.Sprint(a.header, string(a.body)), secrets)
		if strings.Contains(string(a.body), `"d"`) || strings.Contains(string(a.body), "PRIVATE KEY") {
			t.Errorf("%s has a private key: %s", path, a.body)
		}
	}
	keys, err := w.node.parts.SigningKeys(t.Context(), w.cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	report, err := w.node.parts.InspectToken(t.Context(), w.cfg, token)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := w.node.keys.Signer()
	if err != nil {
		t.Fatal(err)
	}
	wantNone(t, "a report", fmt.Sprintf("%s %+v %+v %#v %+v", list, keys, report, w.node.keys.Published(), signer.Public()), secrets)

	// Rows that were changed are reported without what is in them.
	rows[0].Sealed = append([]byte{}, rows[0].Sealed...)
	rows[0].Sealed[len(rows[0].Sealed)-1] ^= 1
	if err := w.node.store.UpdateKey(t.Context(), rows[0]); err != nil {
		t.Fatal(err)
	}
	_, err = keyring.Open(t.Context(), keyring.Config{
		Source: keysource.Sealed{Box: box}, Algorithms: []string{accesstoken.ES256}, InstanceID: "b", KeyDuration: w.cfg.Tokens.KeyDuration,
		TokenDuration: w.cfg.Tokens.TokenDuration, MaxAge: time.Second, PublishAhead: time.Second, Revoked: w.node.revoked, Peers: keyring.Alone{},
		Store: w.node.store, Now: time.Now, Logger: slog.New(slog.NewTextHandler(w.log, nil)), Registerer: prometheus.NewRegistry(),
	})
	wantNone(t, "the log", fmt.Sprint(err, w.log.String()), secrets)
}
