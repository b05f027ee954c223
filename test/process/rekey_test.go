package process

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
)

// The storage key is changed while two replicas run, one of them still under the
// old key; the command is killed in the middle and run again. Nobody notices.
func TestRekey(t *testing.T) {
	t.Parallel()
	oldKey, newKey := bytes.Repeat([]byte{1}, seal.KeySize), bytes.Repeat([]byte{2}, seal.KeySize)
	environment := func(primary, previous []byte) []string {
		return []string{
			"AUTH_STORAGE_KEY=" + hex.EncodeToString(primary), "AUTH_STORAGE_KEY_PREVIOUS=" + hex.EncodeToString(previous),
			"ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse", "WATCHWORD_SERVER_PUBLIC_URL=http://auth.example.com",
		}
	}
	url := "DATABASE_URL=" + testenv.Postgres(t)
	dir := t.TempDir()
	a := start(t, dir, append(environment(oldKey, newKey), url)...)
	s := sqlstore.New(openDB(t, strings.TrimPrefix(url, "DATABASE_URL=")))
	const many = 50
	addSealedKeys(t, s, oldKey, many)
	b := start(t, dir, append(environment(newKey, oldKey), url)...)
	first := a.login("root", "correct horse").AccessToken

	// Both serve all the while.
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var served atomic.Int64
	for _, n := range []*node{a, b} {
		clients.Go(func() {
			for ctx.Err() == nil {
				status, body, err := n.call("GET", "/api/verify", first, nil)
				if err != nil || status != 200 {
					t.Errorf("verify during the change: %d %s %v", status, body, err)
					return
				}
				served.Add(1)
				time.Sleep(5 * time.Millisecond) // the others need the processor, too
			}
		})
	}

	rekey := func() (*exec.Cmd, *testenv.Log) {
		cmd, out := exec.Command(binary, "storage", "rekey"), &testenv.Log{}
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, os.Stderr
		cmd.Env = append(environment(newKey, oldKey), url, "PATH="+os.Getenv("PATH"))
		return cmd, out
	}
	box, err := seal.New(newKey)
	if err != nil {
		t.Fatal(err)
	}
	// It comes to a key that is held, and is killed there.
	killed := errors.New("killed")
	db := openDB(t, strings.TrimPrefix(url, "DATABASE_URL="))
	var session int
	err = db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
		if _, err := q.Exec(ctx, "UPDATE signing_keys SET id = id WHERE id = ?", otherKey(many/10)); err != nil {
			return err
		}
		cmd, _ := rekey()
		if err := cmd.Start(); err != nil {
			return err
		}
		waitUntil(t, "it waits for the key that is held", func() bool {
			session = number(t, db, "SELECT COALESCE(MAX(pid), 0) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'UPDATE signing_keys%'")
			return session != 0
		})
		if err := cmd.Process.Kill(); err != nil {
			return err
		}
		_ = cmd.Wait() // it was killed
		return killed  // and the key is let go
	})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	// What the server was doing for it, it does to its end.
	waitUntil(t, "its session has ended", func() bool {
		return number(t, db, "SELECT COUNT(*) FROM pg_stat_activity WHERE pid = ?", session) == 0
	})
	done := underKey(t, s, box)
	if done == 0 || done >= many {
		t.Fatalf("of %d keys %d were done when it was killed", many, done)
	}

	counts := regexp.MustCompile(`^signing keys: (\d+) encrypted anew, (\d+) were under this key already\n`)
	for _, want := range []string{fmt.Sprint(many + 1 - done), "0"} { // and the replicas' own key
		cmd, out := rekey()
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if got := counts.FindStringSubmatch(out.String()); got == nil || got[1] != want {
			t.Errorf("got %q, want %s anew; %d were done when it was killed", out, want, done)
		}
	}
	b.login("root", "correct horse")
	stop()
	clients.Wait()
	if served.Load() == 0 {
		t.Error("nothing was served meanwhile")
	}

	for _, n := range []*node{a, b} {
		if err := n.stop(); err != nil {
			t.Error(err)
		}
	}
	after := start(t, dir, append(environment(newKey, newKey), url)...)
	if status, body, err := after.call("GET", "/api/verify", first, nil); err != nil || status != 200 {
		t.Errorf("with the new key alone: %d %s %v", status, body, err)
	}
}

// addSealedKeys adds keys that sign no more.
func addSealedKeys(t *testing.T, s store.Store, key []byte, n int) {
	t.Helper()
	box, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i := range n {
		kid := otherKey(i)
		private, err := token.GenerateKey(rand.Reader, "ES256")
		if err != nil {
			t.Fatal(err)
		}
		signer, err := token.NewSigner(kid, "ES256", private)
		if err != nil {
			t.Fatal(err)
		}
		k := store.Key{
			ID: kid, Instance: "other", Algorithm: "ES256",
			CreatedAt: now.Add(-3 * time.Hour), ActivateAt: now.Add(-3 * time.Hour), RetireAt: now.Add(-time.Minute), RemoveAt: now.Add(time.Hour),
		}
		if k.PublicJWK, err = signer.Public().MarshalJSON(); err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		k.Sealed = box.Seal(der, "signing_keys/"+kid)
		if err := s.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
}

func otherKey(i int) string { return fmt.Sprintf("other-%03d", i) }

// underKey counts the keys that are sealed under the one key of a box.
func underKey(t *testing.T, s store.Store, box *seal.Box) (n int) {
	t.Helper()
	keys, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if box.Knows(k.Sealed) {
			n++
		}
	}
	return n
}
