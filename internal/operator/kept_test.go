package operator

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/backup"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var discard = slog.New(slog.DiscardHandler)

// keeping is a configuration with keys that a signer keeps, on a SQLite database of its own.
func keeping(t *testing.T) *config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Database.URL = "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
	cfg.Tokens.Keys, cfg.Tokens.Remote.URL = config.KeysRemote, "http://127.0.0.1:1"
	cfg.Server.PublicURL = "https://auth.example.com"
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func open(t *testing.T, cfg *config.Config) *Parts {
	t.Helper()
	p, err := Open(t.Context(), cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// addKept writes the row of a key that signs and that a keeper of that name keeps, under the box of cfg, and returns
// the key.
func addKept(t *testing.T, p *Parts, cfg *config.Config, name string) *token.Signer {
	t.Helper()
	private, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	kid := accesstoken.Key{Algorithm: accesstoken.ES256, Public: private.Public()}.Thumbprint()
	signer, err := token.NewSigner(kid, accesstoken.ES256, private)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := signer.Public().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	row := store.Key{ID: kid, Instance: "a", Algorithm: accesstoken.ES256, PublicJWK: jwk, Sealed: []byte("kept:" + name + ":1"),
		CreatedAt: now.Add(-time.Hour), ActivateAt: now.Add(-time.Minute), RetireAt: now.Add(time.Hour), RemoveAt: now.Add(2 * time.Hour)}
	box, err := KeptBox(t.Context(), cfg, p.Store)
	if err != nil {
		t.Fatal(err)
	}
	row.SourceMAC = keysource.Outside{Name: name, Box: box}.MAC(kid, keyring.Statement(row))
	if err := p.Store.CreateKey(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	return signer
}

// signed is an access token of cfg.
func signed(t *testing.T, cfg *config.Config, signer *token.Signer) string {
	t.Helper()
	id, err := token.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	compact, err := signer.Sign(token.Access{ClientID: token.FirstParty, Issuer: cfg.Tokens.Issuer, Subject: "s", Audience: cfg.Tokens.Audience, ID: id,
		IssuedAt: now, ExpiresAt: now.Add(10 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// inspected returns what is wrong with a token; "": nothing.
func inspected(t *testing.T, p *Parts, cfg *config.Config, compact string) string {
	t.Helper()
	report, err := p.InspectToken(t.Context(), cfg, compact)
	if err != nil {
		t.Fatal(err)
	}
	if report.Valid != (len(report.Findings) == 0) {
		t.Errorf("valid is %v, with %q", report.Valid, report.Findings)
	}
	return strings.Join(report.Findings, " ")
}

func states(t *testing.T, p *Parts, cfg *config.Config) (list []string) {
	t.Helper()
	keys, err := p.SigningKeys(t.Context(), cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		list = append(list, k.Source+" "+k.State)
	}
	slices.Sort(list)
	return list
}

// The command line believes the row of a key that a keeper keeps, without asking the keeper, if it
// is authentic and of the source that is configured, as a replica does. It makes no key file.
func TestRowsOfKeptKeys(t *testing.T) {
	cfg := keeping(t)
	p := open(t, cfg)
	signer, other := addKept(t, p, cfg, "remote"), addKept(t, p, cfg, "pkcs11")
	const unknown = "The key set has no key with the kid"
	if got := inspected(t, p, cfg, signed(t, cfg, signer)); got != "" {
		t.Errorf("a token of the signer's key: %s", got)
	}
	if got := inspected(t, p, cfg, signed(t, cfg, other)); !strings.HasPrefix(got, unknown) {
		t.Errorf("a token of a key in an HSM that is not used: %q", got)
	}
	if got := states(t, p, cfg); !slices.Equal(got, []string{"pkcs11 not believed", "remote active"}) {
		t.Errorf("the list has %q", got)
	}
	for _, keys := range []config.KeyMode{config.KeysDatabase, config.KeysMemory} {
		changed := *cfg
		changed.Tokens.Keys = keys
		if got := inspected(t, p, &changed, signed(t, cfg, signer)); !strings.HasPrefix(got, unknown) {
			t.Errorf("with tokens.keys %s, a token of the signer's key: %q", keys, got)
		}
	}
	rows, err := p.Store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		row.SourceMAC[len(row.SourceMAC)-1] ^= 1
		if err := p.Store.UpdateKey(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	if got := inspected(t, p, cfg, signed(t, cfg, signer)); !strings.HasPrefix(got, unknown) {
		t.Errorf("a token of a row that is not authentic: %q", got)
	}
	if got := states(t, p, cfg); !slices.Equal(got, []string{"pkcs11 not believed", "remote not believed"}) {
		t.Errorf("the list has %q", got)
	}
	if kids, err := p.AdoptKeys(t.Context(), cfg); err == nil || len(kids) > 0 {
		t.Errorf("keys adopt: %v, %v", kids, err)
	}

	// The key file is lost. Neither a command nor a start makes another one, under which the
	// rows would be nobody's.
	file := strings.TrimPrefix(cfg.Database.URL, "sqlite:") + ".key"
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.InspectToken(t.Context(), cfg, signed(t, cfg, signer)); err == nil || !strings.Contains(err.Error(), "AUTH_STORAGE_KEY") {
		t.Errorf("token inspect without the key: %v", err)
	}
	if _, err := KeptBox(t.Context(), cfg, p.Store); err == nil || !strings.Contains(err.Error(), "AUTH_STORAGE_KEY") {
		t.Errorf("a start without the key: %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is another key file: %v", err)
	}
}

// The rows of kept keys get new MACs under another storage key, also those that were made under the
// key that follows from the cluster's secret. What they refer to stays as it is.
func TestRekeyKeptKeys(t *testing.T) {
	cfg := keeping(t)
	p := open(t, cfg)
	signer := addKept(t, p, cfg, "remote")
	old := *cfg
	next := *cfg
	next.Storage.Key = keyB
	raw, err := seal.ReadFile(strings.TrimPrefix(cfg.Database.URL, "sqlite:") + ".key")
	if err != nil {
		t.Fatal(err)
	}
	derived := *cfg
	derived.Database.URL, derived.Cluster.Secret = "postgres://h/db", secretA
	box, err := FactorBox(t.Context(), &derived, nil)
	if err != nil {
		t.Fatal(err)
	}
	second := addKept(t, p, cfg, "remote")
	rows, err := p.Store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.ID == second.KeyID() {
			row.SourceMAC = keysource.Outside{Name: "remote", Box: box}.MAC(row.ID, keyring.Statement(row))
			if err := p.Store.UpdateKey(t.Context(), row); err != nil {
				t.Fatal(err)
			}
		}
	}
	next.Storage.PreviousKeys, next.Cluster.Secret = []string{hex.EncodeToString(raw)}, secretA
	for _, want := range []seal.Resealed{{Changed: 2}, {Current: 2}} {
		done, err := p.Rekey(t.Context(), &next)
		if err != nil || done[0].Resealed != want {
			t.Fatalf("%+v, %v, want %+v", done, err, want)
		}
	}
	next.Storage.PreviousKeys, next.Cluster.Secret = nil, ""
	for _, s := range []*token.Signer{signer, second} {
		if got := inspected(t, p, &next, signed(t, cfg, s)); got != "" {
			t.Errorf("under the new key: %s", got)
		}
		if got := inspected(t, p, &old, signed(t, cfg, s)); got == "" {
			t.Error("the old key still authenticates a row")
		}
	}
	if rows, err = p.Store.Keys(t.Context()); err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		if !bytes.Equal(row.Sealed, []byte("kept:remote:1")) {
			t.Errorf("the row refers to %q", row.Sealed)
		}
	}
}

// A backup with rows of kept keys is restored, under the same storage key alone. A copy that is
// separated has none of them, and their kids do not come back there.
func TestBackupOfKeptKeys(t *testing.T) {
	cfg := keeping(t)
	cfg.Storage.Key = keyA
	p := open(t, cfg)
	signer := addKept(t, p, cfg, "remote")
	file := filepath.Join(t.TempDir(), "backup")
	if _, err := Backup(t.Context(), cfg, discard, file, "a passphrase that is long enough"); err != nil {
		t.Fatal(err)
	}
	to := func(key string) *config.Config {
		c := *cfg
		c.Database.URL, c.Storage.Key = "sqlite:"+filepath.Join(t.TempDir(), "watchword.db"), key
		return &c
	}
	if _, err := Restore(t.Context(), to(keyB), discard, file, "a passphrase that is long enough", false); !errors.Is(err, backup.ErrKept) {
		t.Errorf("under another storage key: %v, want ErrKept", err)
	}
	restored := to(keyA)
	if _, err := Restore(t.Context(), restored, discard, file, "a passphrase that is long enough", false); err != nil {
		t.Fatal(err)
	}
	other := open(t, restored)
	if got := inspected(t, other, restored, signed(t, cfg, signer)); got != "" {
		t.Errorf("after the restore: %s", got)
	}
	if err := Separate(t.Context(), restored, discard); err != nil {
		t.Fatal(err)
	}
	signedOut := to(keyB)
	if _, err := Restore(t.Context(), signedOut, discard, file, "a passphrase that is long enough", true); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*config.Config{"separated": restored, "signed out": signedOut} {
		p := open(t, c)
		if got := states(t, p, c); len(got) > 0 {
			t.Errorf("%s: there is %q", name, got)
		}
		if err := p.Store.CreateKey(t.Context(), store.Key{ID: signer.KeyID(), Instance: "a", Algorithm: "ES256", PublicJWK: []byte("{}")}); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: the kid comes back: %v", name, err)
		}
	}
}

// A token of a signing secret is valid under the configured secrets alone, until the end of the
// secret, and until it is revoked.
func TestInspectTokenOfASecret(t *testing.T) {
	const present, former, foreign = "the present secret, of thirty-two bytes or more", "the former secret, of thirty-two bytes or more", "a foreign secret, of thirty-two bytes or more"
	cfg := keeping(t)
	p := open(t, cfg)
	made := func(secret string) (string, string) {
		t.Helper()
		s, err := token.NewSecretSigner(secret, accesstoken.HS256)
		if err != nil {
			t.Fatal(err)
		}
		return signed(t, cfg, s), s.KeyID()
	}
	of, kid := made(present)
	ofFormer, _ := made(former)
	ofForeign, _ := made(foreign)
	at := func(d time.Duration) string { return former + "@" + time.Now().Add(d).UTC().Format(time.RFC3339) }
	cfg.Tokens.Secret, cfg.Tokens.PreviousSecrets = present, []string{at(time.Hour)}
	for _, keys := range []config.KeyMode{config.KeysSecret, config.KeysMemory} {
		cfg.Tokens.Keys = keys
		for _, compact := range []string{of, ofFormer} {
			if got := inspected(t, p, cfg, compact); got != "" {
				t.Errorf("with tokens.keys %s: %s", keys, got)
			}
		}
		if got := inspected(t, p, cfg, of[:len(of)-4]+"AAAA"); got != "The signature is wrong: the token was changed, or signed with another key." {
			t.Errorf("changed: %q", got)
		}
	}
	const unknown = "No signing secret has the kid "
	if got := inspected(t, p, cfg, ofForeign); !strings.HasPrefix(got, unknown) {
		t.Errorf("of an unknown secret: %q", got)
	}
	cfg.Tokens.PreviousSecrets = []string{at(-time.Hour)}
	if got := inspected(t, p, cfg, ofFormer); !strings.HasPrefix(got, unknown) {
		t.Errorf("of a secret that has ended: %q", got)
	}
	if err := p.RevokeKey(t.Context(), cfg, kid, "it was in a repository"); err != nil {
		t.Fatal(err)
	}
	if got := inspected(t, p, cfg, of); got != "It has been revoked, by a logout or by an administrator." {
		t.Errorf("of a revoked secret: %q", got)
	}
}
