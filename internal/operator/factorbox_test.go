package operator

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
)

type otherMethods = Holders

// holding is the part of a store that FactorBox reads.
type holding struct {
	otherMethods
	keys    []store.Key
	factors []store.Factor
	err     error
}

func (h holding) Keys(context.Context) ([]store.Key, error) { return h.keys, h.err }

func (h holding) Factors(_ context.Context, after string, limit int) ([]store.Factor, error) {
	rest := slices.DeleteFunc(slices.Clone(h.factors), func(f store.Factor) bool { return f.ID <= after })
	return rest[:min(limit, len(rest))], h.err
}

var (
	keyA, keyB       = strings.Repeat("a1", seal.KeySize), strings.Repeat("b2", seal.KeySize)
	secretA, secretB = strings.Repeat("a", 32), strings.Repeat("b", 32)
)

// postgres is the configuration of a replica that keeps no key in its database.
func postgres(storageKey, clusterSecret string, previous ...string) *config.Config {
	cfg := config.Default()
	cfg.Database.URL, cfg.Tokens.Keys = "postgres://h/db", config.KeysMemory
	cfg.Storage.Key, cfg.Storage.PreviousKeys, cfg.Cluster.Secret = storageKey, previous, clusterSecret
	return cfg
}

// onSQLite is the same with a database in a new directory.
func onSQLite(t *testing.T, storageKey, clusterSecret string) *config.Config {
	cfg := postgres(storageKey, clusterSecret)
	cfg.Database.URL = "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
	return cfg
}

func keyFile(cfg *config.Config) string {
	return strings.TrimPrefix(cfg.Database.URL, "sqlite:") + ".key"
}

// factorBox returns the box, which must be there.
func factorBox(t *testing.T, cfg *config.Config, holders Holders) *seal.Box {
	t.Helper()
	box, err := FactorBox(t.Context(), cfg, holders)
	if err != nil || box == nil {
		t.Fatalf("no box: %v", err)
	}
	return box
}

// Every factor that was sealed under a configuration opens under the next one, and under no
// other.
func TestFactorBox(t *testing.T) {
	const place = "factors/u/totp/f"
	secret := []byte("secret")
	short := secretA[:31]
	for _, tt := range []struct {
		name          string
		before, after *config.Config
		opens, same   bool // same: it is sealed under the key that is the primary one then
	}{
		{"a storage key", postgres(keyA, ""), postgres(keyA, ""), true, true},
		{"a secret of the cluster", postgres("", secretA), postgres("", secretA), true, true},
		{"a storage key with a secret", postgres(keyA, secretA), postgres(keyA, secretB), true, true},
		{"a storage key that is set later", postgres("", secretA), postgres(keyA, secretA), true, false},
		{"another storage key", postgres(keyA, ""), postgres(keyB, "", keyA), true, false},
		{"a storage key that not every replica has yet", postgres(keyA, secretA), postgres("", secretA, keyA), true, false},
		{"a storage key that is lost", postgres(keyA, secretA), postgres(keyB, secretA), false, false},
		{"a secret that is lost", postgres("", secretA), postgres("", secretB), false, false},
		{"a secret that is too short", postgres("", secretA), postgres(keyA, short), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sealed := factorBox(t, tt.before, holding{}).Seal(secret, place)
			box := factorBox(t, tt.after, holding{})
			opened, err := box.Open(sealed, place)
			switch {
			case tt.opens && (err != nil || !bytes.Equal(opened, secret)):
				t.Fatalf("opens as %q, %v", opened, err)
			case !tt.opens && !errors.Is(err, seal.ErrUnknownKey):
				t.Fatalf("opens as %q, %v", opened, err)
			case !tt.opens:
				return
			}
			if _, changed, err := box.Reseal(sealed, place); err != nil || changed == tt.same {
				t.Errorf("sealed anew: %v, %v", changed, err)
			}
		})
	}

	// Another version opens it: the derived key is that of RFC 5869, as other software computes it.
	key, err := hex.DecodeString("166f7058f34e6b7f1332ec608819ecd35d9967e9b66b2b8451326908b3a5d62c")
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(factorBox(t, postgres("", secretA), holding{}).Seal(secret, place), place); err != nil {
		t.Errorf("the derived key is another one than before, and what was sealed is lost: %v", err)
	}

	for name, cfg := range map[string]*config.Config{
		"neither key nor secret": postgres("", ""), "a short secret": postgres("", short), "a former key alone": postgres("", "", keyA),
	} {
		if box, err := FactorBox(t.Context(), cfg, holding{}); box != nil || err != nil {
			t.Errorf("%s: a box: %t, %v", name, box != nil, err)
		}
	}
	for name, cfg := range map[string]*config.Config{"a storage key that is none": postgres("x", secretA), "a former one": postgres(keyA, "", "x")} {
		if _, err := FactorBox(t.Context(), cfg, holding{}); err == nil || !strings.HasPrefix(err.Error(), "storage.") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// On SQLite there is one key file for signing keys and factors, and it is made once.
func TestFactorBoxOnSQLite(t *testing.T) {
	const place = "factors/u/totp/f"
	cfg := onSQLite(t, "", secretA)
	sealed := factorBox(t, cfg, holding{}).Seal([]byte("secret"), place)
	made, err := os.ReadFile(keyFile(cfg))
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() (*seal.Box, error){
		"FactorBox":  func() (*seal.Box, error) { return FactorBox(t.Context(), cfg, holding{}) },
		"StorageBox": func() (*seal.Box, error) { return StorageBox(t.Context(), cfg, holding{}) },
	} {
		box, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := box.Open(sealed, place); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if again, err := os.ReadFile(keyFile(cfg)); err != nil || !bytes.Equal(again, made) {
		t.Errorf("the key file was made anew: %v", err)
	}
	// What was sealed on PostgreSQL opens after the database has moved here.
	moved := factorBox(t, postgres("", secretA), holding{}).Seal([]byte("secret"), place)
	if _, err := factorBox(t, cfg, holding{}).Open(moved, place); err != nil {
		t.Error(err)
	}

	configured := onSQLite(t, keyA, "")
	factorBox(t, configured, holding{})
	own := onSQLite(t, "", secretA) // which is not the database of a program that brings its own store
	factorBox(t, own, nil)
	if box, err := FactorBox(t.Context(), onSQLite(t, "", ""), nil); box != nil || err != nil {
		t.Errorf("a program with its own store: a box: %t, %v", box != nil, err)
	}
	for _, cfg := range []*config.Config{configured, own} {
		if _, err := os.Lstat(keyFile(cfg)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a key file was made: %v", err)
		}
	}
}

// A database that has lost its key file gets no new one while something in it needs the old one.
func TestFactorBoxOfADatabaseThatHasLostItsKey(t *testing.T) {
	lost, err := seal.New(bytes.Repeat([]byte{1}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	signing := holding{keys: []store.Key{{ID: "k", Sealed: lost.Seal([]byte("x"), "signing_keys/k"), CreatedAt: time.Now()}}}
	cfg := onSQLite(t, "", secretA)
	cfg.Tokens.Keys = config.KeysDatabase
	if box, err := FactorBox(t.Context(), cfg, signing); err == nil || !strings.Contains(err.Error(), "bring the key file") {
		t.Errorf("with signing keys: a box: %t, %v", box != nil, err)
	}
	forgotten := onSQLite(t, "", secretA) // tokens.keys memory: nothing needs those signing keys
	factorBox(t, forgotten, signing)
	var factors []store.Factor // of which the last one needs the lost key; more than one page
	box := factorBox(t, postgres("", secretA), nil)
	for i := range 1001 {
		if i == 1000 {
			box = lost
		}
		id := fmt.Sprintf("%04d", i)
		factors = append(factors, store.Factor{ID: id, Data: box.Seal([]byte("x"), "factors/u/totp/"+id)})
	}
	for name, open := range map[string]func(context.Context, *config.Config, Holders) (*seal.Box, error){"FactorBox": FactorBox, "StorageBox": StorageBox} {
		for _, mode := range []config.KeyMode{config.KeysMemory, config.KeysDatabase} {
			cfg := onSQLite(t, "", secretA)
			cfg.Tokens.Keys = mode
			if box, err := open(t.Context(), cfg, holding{factors: factors}); err == nil || !strings.Contains(err.Error(), "the second factors in the database are sealed under a storage key that is not given") {
				t.Errorf("%s with factors: a box: %t, %v", name, box != nil, err)
			}
			if _, err := open(t.Context(), cfg, holding{factors: factors[:1000]}); err != nil {
				t.Errorf("%s with factors that open: %v", name, err)
			}
		}
	}
	away := errors.New("away")
	if box, err := FactorBox(t.Context(), cfg, holding{err: away}); !errors.Is(err, away) {
		t.Errorf("without the database: a box: %t, %v", box != nil, err)
	}
	if _, err := os.Lstat(keyFile(cfg)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key file was made: %v", err)
	}
}
