package operator

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

func storageKeyOf(b byte) string { return strings.Repeat(hex.EncodeToString([]byte{b}), seal.KeySize) }

// factorOf adds a factor of a new user that has the text.
func factorOf(t *testing.T, s store.Store, b *seal.Box, user, text string) store.Factor {
	t.Helper()
	f := store.Factor{ID: "of-" + user, UserID: user, Kind: "totp", Digest: user}
	f.Data = b.Seal([]byte(text), "factors/"+user+"/totp/"+user+"/of-"+user)
	if err := errors.Join(s.CreateUser(t.Context(), store.User{ID: user, NameKey: user}), s.CreateFactor(t.Context(), f)); err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t *testing.T, s store.Store, b *seal.Box, user string) (store.Factor, string) {
	t.Helper()
	f, err := s.FactorByDigest(t.Context(), "totp", user)
	if err != nil {
		t.Fatal(err)
	}
	text, err := b.Open(f.Data, "factors/"+user+"/totp/"+user+"/"+f.ID)
	if err != nil {
		t.Fatal(err)
	}
	return f, string(text)
}

// Factors are spent while the storage key is changed, by replicas before and after the step in
// which they seal under the new one. What was spent stays spent, and nothing is lost.
func TestRekeyWhileFactorsAreSpent(t *testing.T) {
	p := offline(t)
	cfg := config.Default()
	cfg.Storage.Key, cfg.Storage.PreviousKeys = storageKeyOf(2), []string{storageKeyOf(1)}
	before := *cfg
	before.Storage.Key, before.Storage.PreviousKeys = storageKeyOf(1), []string{storageKeyOf(2)}
	var boxes []*seal.Box
	for _, c := range []*config.Config{&before, cfg} {
		b, err := FactorBox(t.Context(), c, p.Store)
		if err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, b)
	}
	const users, spends = 4, 40
	for u := range users {
		factorOf(t, p.Store, boxes[0], fmt.Sprint("user", u), "0")
	}
	var wg sync.WaitGroup
	for u := range users {
		user := fmt.Sprint("user", u)
		wg.Go(func() {
			for n := 0; n < spends; {
				b := boxes[(u+n/10)%2]
				f, text := read(t, p.Store, b, user)
				if text != strconv.Itoa(n) {
					t.Errorf("%s was spent %d times, and has %s", user, n, text)
					return
				}
				f.Data = b.Seal([]byte(strconv.Itoa(n+1)), "factors/"+user+"/totp/"+user+"/"+f.ID)
				switch err := p.Store.UpdateFactor(t.Context(), f); {
				case err == nil:
					n++
				case !errors.Is(err, store.ErrStale):
					t.Error(err)
					return
				}
			}
		})
	}
	changed := 0
	for range 20 {
		done, err := p.Rekey(t.Context(), cfg)
		if err != nil || len(done) != 3 || done[1].Kind != "second factors" {
			t.Errorf("%+v, %v", done, err)
			break
		}
		changed += done[1].Changed
	}
	wg.Wait()
	t.Logf("%d factors were sealed anew while %d spends ran", changed, users*spends)
	if _, err := p.Rekey(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	alone, err := seal.New(bytes.Repeat([]byte{2}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	for u := range users {
		if _, text := read(t, p.Store, alone, fmt.Sprint("user", u)); text != strconv.Itoa(spends) {
			t.Errorf("user%d has %s of %d spends", u, text, spends)
		}
	}
}

// A SQLite database with second factors that has lost its key file gets no new one, whether or
// not it has signing keys.
func TestNoNewStorageKeyForFactors(t *testing.T) {
	cfg := config.Default()
	cfg.Database.URL = "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
	p, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	file, _ := sqldb.SQLiteFile(cfg.Database.URL)
	file += ".key"
	boxOf := map[string]func(c *config.Config) (*seal.Box, error){
		"factors":      func(c *config.Config) (*seal.Box, error) { return FactorBox(t.Context(), c, p.Store) },
		"signing keys": func(c *config.Config) (*seal.Box, error) { return StorageBox(t.Context(), c, p.Store) },
	}
	first, err := boxOf["factors"](cfg) // there is nothing: the file is made
	if err != nil {
		t.Fatal(err)
	}
	factorOf(t, p.Store, first, "alice", "secret")
	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	given, another := *cfg, *cfg
	given.Storage.PreviousKeys = []string{string(key)}
	another.Storage.PreviousKeys = []string{storageKeyOf(7)}
	another.Cluster.Secret = strings.Repeat("another secret ", 3)
	for what, box := range boxOf {
		for _, c := range []*config.Config{cfg, &another} {
			if _, err := box(c); err == nil || !strings.Contains(err.Error(), "second factors in the database") || !strings.Contains(err.Error(), file) {
				t.Errorf("%s: %v", what, err)
			}
			if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%s: there is a new key file: %v", what, err)
			}
		}
	}
	b, err := boxOf["factors"](&given) // the old key is there, so that a new one hides nothing
	if err != nil {
		t.Fatal(err)
	}
	read(t, p.Store, b, "alice")
}
