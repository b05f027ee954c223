package operator

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The list of signing keys has each key in its state, with the seconds until the next one, also
// those of signing secrets, and nothing of what is secret.
func TestSigningKeys(t *testing.T) {
	const (
		present = "the present secret has sixty-four characters or more, so that HS512 can use it"
		former  = "the former secret has forty-eight characters or so"
		ended   = "the secret before that one is at its end"
		sealed  = "what is sealed"
	)
	p := offline(t)
	now := time.Now().UTC().Truncate(time.Second)
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	row := func(id string, created int, private string) {
		t.Helper()
		k := store.Key{ID: id, Instance: "a", Algorithm: "ES256", PublicJWK: []byte("{}"),
			CreatedAt: at(created), ActivateAt: at(created + 10), RetireAt: at(created + 20), RemoveAt: at(created + 30)}
		if private != "" {
			k.Sealed = []byte(private)
		}
		if err := p.Store.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	row("published", -1, "")
	row("active", -11, "")
	row("retiring", -21, sealed)
	row("removed", -31, "")
	row("revoked", -12, sealed)
	cfg := config.Default()
	cfg.Tokens.Keys, cfg.Tokens.Secret = config.KeysSecret, present
	cfg.Tokens.PreviousSecrets = []string{former + "@" + at(5).Format(time.RFC3339), ended + "@" + at(-5).Format(time.RFC3339)}
	if err := p.RevokeKey(t.Context(), cfg, "revoked", ""); err != nil {
		t.Fatal(err)
	}
	lines := func(cfg *config.Config) (got []string) {
		t.Helper()
		list, err := p.SigningKeys(t.Context(), cfg, now)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			name := k.ID
			if k.Source == "secret" {
				name = k.Algorithm
			}
			got = append(got, fmt.Sprint(name, "|", k.Source, "|", k.State, "|", k.NextIn, " ", k.Next))
			text = append(text, fmt.Sprintf("%+v", k)...)
		}
		for _, secret := range []string{present, former, ended, sealed} {
			if strings.Contains(string(text), secret) {
				t.Errorf("the list has %q: %s", secret, text)
			}
		}
		return got
	}
	rows := []string{
		"active|memory|active|32400 retiring", "published|memory|published|32400 active", "removed||removed|0 ",
		"retiring|database|not believed|0 ", "revoked||revoked|0 ",
	}
	expect := func(cfg *config.Config, secrets ...string) {
		t.Helper()
		got := lines(cfg)
		keys, rest := got[:5], got[5:]
		slices.Sort(keys)
		if !slices.Equal(keys, rows) || !slices.Equal(rest, secrets) {
			t.Errorf("the keys are %q, and the secrets %q, want %q", keys, rest, secrets)
		}
	}
	expect(cfg,
		"HS256|secret|active|0 ", "HS384|secret|accepted|0 ", "HS512|secret|accepted|0 ",
		"HS256|secret|accepted|18000 removed", "HS384|secret|accepted|18000 removed", "HS256|secret|removed|0 ")
	list, err := p.SigningKeys(t.Context(), cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	var inKeySet []string
	for _, k := range list {
		if k.InKeySet() {
			inKeySet = append(inKeySet, k.ID)
			if _, err := k.Public(); err == nil {
				t.Errorf("the row of %s has no JWK, and a public key", k.ID)
			}
		}
	}
	slices.Sort(inKeySet)
	if want := []string{"active", "published"}; !slices.Equal(inKeySet, want) {
		t.Errorf("in the key set are %q, want %q", inKeySet, want)
	}

	// The present one is revoked: the former one signs, with what it is long enough for.
	keys, err := accesstoken.SecretKeys(present)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.RevokeKey(t.Context(), cfg, keys[2].ID, ""); err != nil {
		t.Fatal(err)
	}
	cfg.Tokens.Algorithm = "HS512"
	expect(cfg,
		"HS256|secret|revoked|0 ", "HS384|secret|revoked|0 ", "HS512|secret|revoked|0 ",
		"HS256|secret|accepted|18000 removed", "HS384|secret|active|18000 removed", "HS256|secret|removed|0 ")

	// Secrets beside other keys sign nothing. A row that is not authentic is not believed.
	beside := *cfg
	beside.Tokens.Keys, beside.Tokens.Algorithm = config.KeysDatabase, "ES256"
	beside.Storage.Key = strings.Repeat("0123456789abcdef", 4)
	rows = []string{
		"active|memory|not believed|0 ", "published|memory|not believed|0 ", "removed||removed|0 ",
		"retiring|database|not believed|0 ", "revoked||revoked|0 ",
	}
	expect(&beside,
		"HS256|secret|revoked|0 ", "HS384|secret|revoked|0 ", "HS512|secret|revoked|0 ",
		"HS256|secret|accepted|18000 removed", "HS384|secret|accepted|18000 removed", "HS256|secret|removed|0 ")
}

// Without a storage key, the rows of keys that a signer keeps are authenticated under the key file
// that the replica has made beside its SQLite database.
func TestKeysOfASignerUnderAKeyFile(t *testing.T) {
	p := offline(t)
	cfg := config.Default()
	cfg.Database.URL = "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
	cfg.Tokens.Keys = config.KeysRemote
	if _, err := KeptBox(t.Context(), cfg, p.Store); err != nil { // as the replica does
		t.Fatal(err)
	}
	now := time.Now()
	k := store.Key{ID: "active", Instance: "a", Algorithm: "ES256", PublicJWK: []byte("{}"), Sealed: []byte("kept:remote:1"),
		CreatedAt: now, ActivateAt: now, RetireAt: now.Add(time.Hour), RemoveAt: now.Add(2 * time.Hour)}
	if err := p.Store.CreateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	list, err := p.SigningKeys(t.Context(), cfg, now)
	if err != nil || len(list) != 1 || list[0].State != stateNotBelieved {
		t.Errorf("the list is %v (%v), want the row, which has no MAC, as not believed", list, err)
	}
}

// A kid that a writer of the database has chosen makes no second key of a line of the list.
func TestPublicKeysWithAStrangeID(t *testing.T) {
	private, err := token.GenerateKey(rand.Reader, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := token.NewSigner("auth-0", "ES256", private)
	if err != nil {
		t.Fatal(err)
	}
	good, err := signer.Public().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{
		"auth-0": true, "a\n-----BEGIN PUBLIC KEY-----": false, "a\r": false, "a b": false, "\x1b[2J": false, "a\u202e": false, "é": false,
	} {
		text, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		k := SigningKey{ID: id, Algorithm: "ES256", public: bytes.Replace(good, []byte(`"auth-0"`), text, 1)}
		if _, err := k.Public(); (err == nil) != want || err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
