package backup

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"

	"github.com/watchword-auth/watchword/internal/seal"
)

var (
	// ErrNotBackup: the file is no backup, or a later version made it.
	ErrNotBackup = errors.New("this is not a backup that this version of Watchword can read")
	// ErrDamaged: the file was changed or is incomplete.
	ErrDamaged = errors.New("the backup is damaged or incomplete; nothing was restored")
	// ErrKey: the file was made with another storage key.
	ErrKey = errors.New("the backup was made with another storage key: set AUTH_STORAGE_KEY, or AUTH_STORAGE_KEY_PREVIOUS, to the one that it was made with (on SQLite: the content of the file .key next to the database)")
	// ErrPassphrase: the file was made with another passphrase.
	ErrPassphrase = errors.New("this is not the passphrase that the backup was made with")
	// ErrNoPassphrase: the file was made with a passphrase, and none was given.
	ErrNoPassphrase = errors.New("the backup was made with a passphrase: say --passphrase")
	// ErrNoStorageKey: the file was made with the storage key.
	ErrNoStorageKey = errors.New("the backup was made with the storage key and not with a passphrase")
)

// A Secret is what a backup is encrypted with: the storage key, or a passphrase.
type Secret struct {
	Box        *seal.Box // nil: a passphrase
	Passphrase string
}

// The header is
//
//	magic (8) | version (1) | kind of secret (1) | salt (16) | sealed key of the file (69)
//
// and all before the key is authenticated with it.
const (
	magic      = "wwbackup"
	format     = 1
	byStorage  = 0
	byPhrase   = 1
	saltAt     = len(magic) + 2
	saltSize   = 16
	sealedAt   = saltAt + saltSize
	sealedSize = 1 + 8 + 12 + fileKeySize + tagSize
	headerSize = sealedAt + sealedSize

	fileKeySize = 32
	tagSize     = 16
	chunkSize   = 64 << 10
)

// phraseBox makes a key of a passphrase by Argon2id with the second recommended option of
// RFC 9106 §4. The parameters belong to the format's version, so that a file cannot demand
// more.
func phraseBox(passphrase string, salt []byte) (*seal.Box, error) {
	return seal.New(argon2.IDKey([]byte(passphrase), salt, 3, 64<<10, 4, seal.KeySize))
}

// place is the text to which the sealed key of a file is bound.
func place(header []byte) string { return "backup/" + string(header[:sealedAt]) }

// A writer encrypts what is written to it.
type writer struct {
	to    io.Writer
	aead  cipher.AEAD
	nonce nonce
	plain []byte
	out   []byte
}

// newWriter writes the header. Only after Close is the file complete.
func newWriter(to io.Writer, secret Secret) (*writer, error) {
	header := append([]byte(magic), format, byStorage)
	header = append(header, make([]byte, saltSize)...)
	box := secret.Box
	if box == nil {
		header[saltAt-1] = byPhrase
		rand.Read(header[saltAt:]) // never fails
		var err error
		if box, err = phraseBox(secret.Passphrase, header[saltAt:]); err != nil {
			return nil, err
		}
	}
	key := make([]byte, fileKeySize)
	rand.Read(key)
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	header = append(header, box.Seal(key, place(header))...)
	_, err = to.Write(header)
	return &writer{to: to, aead: aead, plain: make([]byte, 0, chunkSize)}, err
}

func (w *writer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(w.plain) == chunkSize { // there is more text, so this chunk is not the last
			if err := w.flush(false); err != nil {
				return n - len(p), err
			}
		}
		part := min(len(p), chunkSize-len(w.plain))
		w.plain = append(w.plain, p[:part]...)
		p = p[part:]
	}
	return n, nil
}

// Close writes the last chunk. It does not close the file.
func (w *writer) Close() error { return w.flush(true) }

func (w *writer) flush(last bool) error {
	w.out = w.aead.Seal(w.out[:0], w.nonce.next(last), w.plain, nil)
	w.plain = w.plain[:0]
	_, err := w.to.Write(w.out)
	return err
}

// A reader decrypts what a writer wrote. It returns io.EOF only after the last chunk.
type reader struct {
	from  *bufio.Reader
	aead  cipher.AEAD
	nonce nonce
	chunk []byte
	plain []byte
	last  bool
}

// newReader reads the header.
func newReader(from io.Reader, secret Secret) (*reader, error) {
	r := &reader{from: bufio.NewReaderSize(from, chunkSize), chunk: make([]byte, chunkSize+tagSize)}
	header := make([]byte, headerSize)
	switch n, err := io.ReadFull(r.from, header); {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case !bytes.HasPrefix(header[:n], append([]byte(magic), format)):
		return nil, ErrNotBackup
	case n < headerSize:
		return nil, ErrDamaged
	}
	box, wrong := secret.Box, ErrKey
	switch kind := header[saltAt-1]; {
	case kind == byPhrase && secret.Box != nil:
		return nil, ErrNoPassphrase
	case kind == byPhrase:
		wrong = ErrPassphrase
		var err error
		if box, err = phraseBox(secret.Passphrase, header[saltAt:sealedAt]); err != nil {
			return nil, err
		}
	case kind != byStorage:
		return nil, ErrDamaged
	case box == nil:
		return nil, ErrNoStorageKey
	}
	key, err := box.Open(header[sealedAt:], place(header))
	if errors.Is(err, seal.ErrUnknownKey) {
		return nil, wrong
	}
	if err != nil || len(key) != fileKeySize {
		return nil, ErrDamaged
	}
	r.aead, err = newAEAD(key)
	return r, err
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.last {
			return 0, io.EOF
		}
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// open reads a chunk. It is the last one if nothing follows, and its nonce must say the
// same.
func (r *reader) open() error {
	n, err := io.ReadFull(r.from, r.chunk)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	_, peeked := r.from.Peek(1)
	if peeked != nil && !errors.Is(peeked, io.EOF) {
		return peeked
	}
	r.last = peeked != nil
	r.plain, err = r.aead.Open(r.chunk[:0], r.nonce.next(r.last), r.chunk[:n], nil)
	if err != nil {
		return ErrDamaged
	}
	return nil
}

// A nonce counts the chunks of one file. Each file has its own key, so no nonce is used
// twice with a key.
type nonce struct{ count uint64 }

func (n *nonce) next(last bool) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint64(b[3:], n.count)
	if last {
		b[11] = 1
	}
	n.count++
	return b
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return cipher.NewGCM(block)
}
