package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestParseKey(t *testing.T) {
	key := bytes.Repeat([]byte{0xfb, 0xef}, KeySize/2) // has + and / in base64
	for name, text := range map[string]string{
		"base64":               base64.StdEncoding.EncodeToString(key),
		"base64 with newline":  base64.StdEncoding.EncodeToString(key) + "\n",
		"base64 without =":     base64.RawStdEncoding.EncodeToString(key),
		"base64url":            base64.URLEncoding.EncodeToString(key),
		"base64url without =":  base64.RawURLEncoding.EncodeToString(key),
		"hex":                  hex.EncodeToString(key),
		"hex in upper case":    strings.ToUpper(hex.EncodeToString(key)),
		"hex with white space": " " + hex.EncodeToString(key) + "\r\n",
	} {
		if got, err := ParseKey(text); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
}

func TestParseKeyRefusesWithoutRepeating(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                "",
		"a password":           "correct horse battery staple",
		"32 letters":           "abcdefghijklmnopqrstuvwxyzabcdef",
		"31 bytes":             base64.StdEncoding.EncodeToString(make([]byte, 31)),
		"33 bytes":             base64.StdEncoding.EncodeToString(make([]byte, 33)),
		"16 bytes in hex":      strings.Repeat("ab", 16),
		"two keys in one text": strings.Repeat("ab", 64),
	} {
		_, err := ParseKey(text)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%s: the error repeats the text", name)
		}
		if !strings.Contains(err.Error(), "openssl rand -base64 32") {
			t.Errorf("%s: the error does not say how to make one: %v", name, err)
		}
	}
}

func TestFromFileMakesTheKeyOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "storage.key")
	first, err := FromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	second, err := FromFile(path)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("read back: equal %v, %v", bytes.Equal(first, second), err)
	}
	if bytes.Equal(first, make([]byte, KeySize)) {
		t.Error("the key is all zeros")
	}
}

func TestFirstStartsAgreeOnTheKey(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		path := filepath.Join(dir, "storage.key")
		keys := make([][]byte, 16)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range keys {
			wg.Go(func() {
				<-start
				var err error
				if keys[i], err = FromFile(path); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		for _, key := range keys {
			if !bytes.Equal(key, keys[0]) {
				t.Fatal("two first starts came away with different keys")
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
			t.Fatalf("left behind: %v", left)
		}
	}
}

func TestFromFileRefuses(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(newKey)
	for name, c := range map[string]struct {
		text string
		mode fs.FileMode
		want string // of the error; empty: accepted
	}{
		"owner only":              {good, 0o600, ""},
		"read-only for the owner": {good, 0o400, ""},
		"the pod's group":         {good, 0o660, ""},
		"readable by all":         {good, 0o604, "chmod 600"},
		"writable by all":         {good, 0o602, "chmod 600"},
		"empty":                   {"", 0o600, "32 bytes"},
		"not a key":               {"swordfish", 0o600, "32 bytes"},
		"far too long":            {strings.Repeat("A", maxKeyFile+44), 0o600, "too large"},
	} {
		path := filepath.Join(t.TempDir(), "storage.key")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := FromFile(path)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: refused: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		case err != nil && c.text != "" && strings.Contains(err.Error(), c.text):
			t.Errorf("%s: the error repeats the file", name)
		}
		if left, _ := os.ReadFile(path); string(left) != c.text {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// A name that leads elsewhere is neither written through nor replaced.
func TestFromFileFollowsNobodyElsewhere(t *testing.T) {
	dir := t.TempDir()
	path, elsewhere := filepath.Join(dir, "storage.key"), filepath.Join(dir, "elsewhere")
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	if _, err := FromFile(path); err == nil {
		t.Error("a key was made behind a dangling link")
	}
	if _, err := os.Lstat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written there: %v", err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is now %v, %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFromFileSaysWhatIsMissing(t *testing.T) {
	_, err := FromFile(filepath.Join(t.TempDir(), "missing", "storage.key"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "create its directory") {
		t.Errorf("got %v", err)
	}
	if _, err := FromFile(t.TempDir()); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a directory: got %v", err)
	}
	// A name that leads nowhere is not followed and not replaced.
	link := filepath.Join(t.TempDir(), "storage.key")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	if _, err := FromFile(link); err == nil {
		t.Error("a dangling link gave a key")
	}
}
