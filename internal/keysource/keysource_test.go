package keysource

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func box(t *testing.T, keys ...byte) *seal.Box {
	t.Helper()
	var all [][]byte
	for _, k := range keys {
		key := make([]byte, seal.KeySize)
		key[0] = k
		all = append(all, key)
	}
	b, err := seal.New(all[0], all[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var end = time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)

func kid(crypto.PublicKey) string { return "auth-0-key" }

// What was made and sealed is opened again, by a source with the same storage key, under
// the same kid, and by no other.
func TestSealed(t *testing.T) {
	s := Sealed{Box: box(t, 1), Rand: rand.Reader}
	for _, algorithm := range accesstoken.Algorithms() {
		private, sealed, err := s.New(t.Context(), algorithm, end, nil, kid)
		if err != nil {
			t.Fatal(algorithm, err)
		}
		if !s.Opens(sealed) {
			t.Errorf("%s: what was sealed is not opened", algorithm)
		}
		opened, err := Sealed{Box: box(t, 1)}.Open(t.Context(), "auth-0-key", accesstoken.EdDSA, sealed)
		if err != nil {
			t.Fatal(algorithm, err)
		}
		public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(opened.Public()) {
			t.Errorf("%s: another key was opened", algorithm)
		}
		if opened.Algorithm != algorithm || !opened.End.Equal(end) {
			t.Errorf("%s: opened for %s until %v", algorithm, opened.Algorithm, opened.End)
		}
	}
	_, sealed, err := s.New(t.Context(), accesstoken.EdDSA, end, nil, kid)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := s.Box.Open(sealed, place("auth-0-key"))
	if err != nil {
		t.Fatal(err)
	}
	former := s.Box.Seal(plain[:bytes.LastIndexByte(plain, '{')], place("auth-0-key"))
	// An older version opens what this one has sealed.
	if _, err := x509.ParsePKCS8PrivateKey(plain); err != nil {
		t.Error(err)
	}
	if s.Opens(nil) {
		t.Error("a key of which the store has nothing is opened")
	}
	for name, c := range map[string]struct {
		source Sealed
		kid    string
		sealed []byte
		want   string
	}{
		"another storage key": {Sealed{Box: box(t, 2)}, "auth-0-key", sealed, "AUTH_STORAGE_KEY"},
		"another kid":         {s, "auth-1-key", sealed, "moved there from another row"},
		"a changed byte":      {s, "auth-0-key", append(sealed[:len(sealed)-1:len(sealed)-1], sealed[len(sealed)-1]^1), "damaged"},
		"of an older version": {s, "auth-0-key", former, "older version"},
		"of a later version":  {s, "auth-0-key", s.Box.Seal(append(plain, "unknown"...), place("auth-0-key")), "later version"},
		"not a key":           {s, "auth-0-key", s.Box.Seal([]byte("der"), place("auth-0-key")), "not a private key"},
	} {
		if _, err := c.source.Open(t.Context(), c.kid, accesstoken.EdDSA, c.sealed); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.kid) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A key that is sealed anew opens under the new storage key alone.
func TestReseal(t *testing.T) {
	_, old, err := Sealed{Box: box(t, 1), Rand: rand.Reader}.New(t.Context(), accesstoken.EdDSA, end, nil, kid)
	if err != nil {
		t.Fatal(err)
	}
	again, changed, err := Sealed{Box: box(t, 2, 1)}.Reseal("auth-0-key", old)
	if err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	if key, err := (Sealed{Box: box(t, 2)}).Open(t.Context(), "auth-0-key", accesstoken.EdDSA, again); err != nil || key.Public() == nil {
		t.Error(err)
	}
	if _, changed, err := (Sealed{Box: box(t, 2, 1)}).Reseal("auth-0-key", again); err != nil || changed {
		t.Errorf("a second time: changed %v, %v", changed, err)
	}
	if _, _, err := (Sealed{Box: box(t, 3)}).Reseal("auth-0-key", old); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("without the former storage key: %v", err)
	}
}

// A key in memory leaves nothing in the store and cannot be opened again.
func TestMemory(t *testing.T) {
	m := Memory{Rand: rand.Reader}
	private, sealed, err := m.New(t.Context(), accesstoken.EdDSA, end, nil, kid)
	if err != nil || sealed != nil {
		t.Fatalf("%v, %v", sealed, err)
	}
	if _, ok := private.Public().(ed25519.PublicKey); !ok {
		t.Errorf("the key is %T", private.Public())
	}
	if m.Opens([]byte("what another source has sealed")) {
		t.Error("it opens a sealed key")
	}
	if _, err := m.Open(t.Context(), "auth-0-key", accesstoken.EdDSA, nil); err == nil {
		t.Error("it opens nothing")
	}
	if _, _, err := m.New(t.Context(), "HS256", end, nil, kid); err == nil {
		t.Error("an algorithm without a private key")
	}
}

// A MAC is for one key, one text and one source.
func TestMAC(t *testing.T) {
	for name, s := range map[string]Source{"memory": Memory{}, "sealed": Sealed{Box: box(t, 2, 1)}} {
		mac := s.MAC("a", []byte("bc"))
		if !s.Authentic("a", []byte("bc"), mac) {
			t.Errorf("%s: its own is refused", name)
		}
		if s.Authentic("ab", []byte("c"), mac) || s.Authentic("a", []byte("bd"), mac) || s.Authentic("a", []byte("bc"), nil) || s.Authentic("a", []byte("bc"), make([]byte, 41)) {
			t.Errorf("%s: another one is taken", name)
		}
	}
	old := Sealed{Box: box(t, 1)}.MAC("a", nil)
	if !(Sealed{Box: box(t, 2, 1)}).Authentic("a", nil, old) || (Sealed{Box: box(t, 2)}).Authentic("a", nil, old) {
		t.Error("a former storage key counts exactly as long as it is given")
	}
}
