package seal

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/watchword-auth/watchword/internal/newfile"
	"github.com/watchword-auth/watchword/internal/secretfile"
)

// ParseKey reads a storage key as an operator writes it (AUTH_STORAGE_KEY):
// KeySize random bytes in base64, of either alphabet and padded or not, or in hex.
// The error never repeats the text.
func ParseKey(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if key, err := hex.DecodeString(text); err == nil && len(key) == KeySize {
		return key, nil
	}
	unpadded := strings.TrimRight(text, "=")
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if key, err := encoding.DecodeString(unpadded); err == nil && len(key) == KeySize {
			return key, nil
		}
	}
	return nil, fmt.Errorf("the storage key is not %d bytes in base64 or hex: make one with \"openssl rand -base64 32\"", KeySize)
}

// maxKeyFile bounds what is read from a key file.
const maxKeyFile = 4096

// FromFile reads the storage key from a file, which it makes if there is none.
// When several processes start at once, all come back with the same key, and the
// file is on disk before any of them does.
//
// A file that every user of the machine may read or change is refused (package
// secretfile). Its group may: Kubernetes gives the files of a volume to the pod's group
// (fsGroup).
func FromFile(path string) ([]byte, error) {
	key, err := ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKeyFile(path); err != nil {
		return nil, fmt.Errorf("the storage key file %s cannot be made (create its directory, or set AUTH_STORAGE_KEY): %w", path, err)
	}
	// Read it back: the process that came first decides which key it is.
	return ReadFile(path)
}

// ReadFile is FromFile for a file that has to be there: the error is an fs.ErrNotExist if it
// is not. A byte order mark at its beginning is no part of the key.
func ReadFile(path string) ([]byte, error) {
	text, _, err := secretfile.Rules{Max: maxKeyFile, Denied: 0o007}.Read(path)
	if err != nil {
		return nil, fmt.Errorf("the storage key file cannot be read: %w", err)
	}
	plain, err := secretfile.Text(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, err := ParseKey(plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// createKeyFile writes a new key. When another process was first, its key stands, and
// that is no error.
func createKeyFile(path string) error {
	key := make([]byte, KeySize)
	rand.Read(key) // never fails
	err := newfile.Write(path, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, base64.StdEncoding.EncodeToString(key))
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
