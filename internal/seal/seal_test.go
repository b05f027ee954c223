package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

var (
	oldKey = bytes.Repeat([]byte{1}, KeySize)
	newKey = bytes.Repeat([]byte{2}, KeySize)
)

func newBox(t *testing.T, primary []byte, previous ...[]byte) *Box {
	t.Helper()
	b, err := New(primary, previous...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenGivesBackWhatWasSealed(t *testing.T) {
	b := newBox(t, newKey)
	rapid.Check(t, func(t *rapid.T) {
		plaintext := rapid.SliceOf(rapid.Byte()).Draw(t, "plaintext")
		place := rapid.String().Draw(t, "place")
		got, err := b.Open(b.Seal(plaintext, place), place)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("got %x, %v", got, err)
		}
	})
}

func TestSealNeverRepeatsItself(t *testing.T) {
	b := newBox(t, newKey)
	seen := map[string]bool{}
	for range 1000 {
		sealed := string(b.Seal([]byte("secret"), "place"))
		if seen[sealed] {
			t.Fatal("the same plaintext was sealed to the same value twice: a nonce was repeated")
		}
		seen[sealed] = true
		if bytes.Contains([]byte(sealed), []byte("secret")) {
			t.Fatal("the plaintext is readable")
		}
	}
}

func TestAnotherPlaceDoesNotOpen(t *testing.T) {
	b := newBox(t, newKey)
	rapid.Check(t, func(t *rapid.T) {
		place := rapid.String().Draw(t, "place")
		other := rapid.String().Filter(func(s string) bool { return s != place }).Draw(t, "other")
		if _, err := b.Open(b.Seal([]byte("secret"), place), other); !errors.Is(err, ErrOpen) {
			t.Fatalf("got %v, want ErrOpen", err)
		}
	})
}

func TestEveryChangedBitIsFound(t *testing.T) {
	// Both keys are known to the box, so that a changed key id could pick the other.
	b := newBox(t, newKey, oldKey)
	sealed := b.Seal([]byte("secret"), "place")
	for i := range len(sealed) * 8 {
		changed := bytes.Clone(sealed)
		changed[i/8] ^= 1 << (i % 8)
		if _, err := b.Open(changed, "place"); err == nil {
			t.Fatalf("opened with bit %d changed", i)
		}
	}
	for n := range len(sealed) {
		if _, err := b.Open(sealed[:n], "place"); err == nil {
			t.Fatalf("opened when cut to %d bytes", n)
		}
	}
	if _, err := b.Open(append(sealed, 0), "place"); !errors.Is(err, ErrOpen) {
		t.Fatalf("with a byte more: %v, want ErrOpen", err)
	}
}

func TestStorageKeyRotation(t *testing.T) {
	sealed := newBox(t, oldKey).Seal([]byte("secret"), "place")

	between := newBox(t, newKey, oldKey)
	plaintext, err := between.Open(sealed, "place")
	if err != nil || string(plaintext) != "secret" {
		t.Fatalf("an older key's value does not open: %q, %v", plaintext, err)
	}
	again := between.Seal(plaintext, "place")

	after := newBox(t, newKey)
	if _, err := after.Open(again, "place"); err != nil {
		t.Errorf("sealed under the old key although there is a new one: %v", err)
	}
	if _, err := after.Open(sealed, "place"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("got %v, want ErrUnknownKey", err)
	}
}

func TestNewRefusesKeysOfAnotherLength(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := New(make([]byte, n)); err == nil {
			t.Errorf("a primary key of %d bytes was accepted", n)
		}
		if _, err := New(newKey, make([]byte, n)); err == nil {
			t.Errorf("a previous key of %d bytes was accepted", n)
		}
	}
}

// The format is on disks and may not change under the same version byte. The value
// was made by another implementation (Python's hmac, and AESGCM of cryptography).
func TestOldValuesStillOpen(t *testing.T) {
	sealed, err := hex.DecodeString("01beac8aae67b7851c000102030405060708090a0b" +
		"446b8d646c79ae200bd82178021f85c697d729ef43e041862dfcdae83d52")
	if err != nil {
		t.Fatal(err)
	}
	key := make([]byte, KeySize)
	for i := range key {
		key[i] = byte(i)
	}
	plaintext, err := newBox(t, key).Open(sealed, "signing_keys/a")
	if err != nil || string(plaintext) != "attack at dawn" {
		t.Fatalf("got %q, %v", plaintext, err)
	}
}

func TestReseal(t *testing.T) {
	old := newBox(t, oldKey).Seal([]byte("secret"), "here")
	b := newBox(t, newKey, oldKey)
	sealed, changed, err := b.Reseal(old, "here")
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if got, err := newBox(t, newKey).Open(sealed, "here"); err != nil || string(got) != "secret" {
		t.Errorf("the new key alone: %q, %v", got, err)
	}
	again, changed, err := b.Reseal(sealed, "here")
	if err != nil || changed || !bytes.Equal(again, sealed) {
		t.Errorf("the second time: changed %v, %v", changed, err)
	}
	if _, _, err := b.Reseal(old, "elsewhere"); !errors.Is(err, ErrOpen) {
		t.Errorf("at another place: %v", err)
	}
	if _, _, err := newBox(t, newKey).Reseal(old, "here"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("without the old key: %v", err)
	}
	damaged := append([]byte{}, sealed...)
	damaged[len(damaged)-1] ^= 1
	if _, _, err := b.Reseal(damaged, "here"); !errors.Is(err, ErrOpen) {
		t.Errorf("a damaged value that is current: %v", err)
	}
}

func TestKnows(t *testing.T) {
	old := newBox(t, oldKey).Seal(nil, "")
	for name, test := range map[string]struct {
		box  *Box
		text []byte
		want bool
	}{
		"primary":  {newBox(t, oldKey), old, true},
		"previous": {newBox(t, newKey, oldKey), old, true},
		"neither":  {newBox(t, newKey), old, false},
		"short":    {newBox(t, oldKey), old[:headerSize-1], false},
		"later":    {newBox(t, oldKey), append([]byte{2}, old[1:]...), false},
	} {
		if got := test.box.Knows(test.text); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
