package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// KeySize is the length of a storage key in bytes.
const KeySize = 32

var (
	// ErrUnknownKey: the value was sealed under a storage key that the Box was not
	// given.
	ErrUnknownKey = errors.New("seal: sealed under another storage key")
	// ErrOpen: the value is not one that was sealed for this place: damaged, cut
	// short, or moved here from elsewhere.
	ErrOpen = errors.New("seal: does not open here: damaged, or moved from another place")
)

// A sealed value is
//
//	version (1) | key id (8) | nonce (12) | ciphertext | tag (16)
//
// and everything before the nonce is authenticated, together with the place.
const (
	version    = 1
	keyIDSize  = 8
	headerSize = 1 + keyIDSize

	labelKeyID = "watchword/seal/v1 key id"
	labelAEAD  = "watchword/seal/v1 AES-256-GCM"
	labelMAC   = "watchword/seal/v1 HMAC-SHA-256"
)

// A Box seals values under one storage key and opens what was sealed under it or
// under an older one. It may be used by any number of goroutines.
//
// Nonces are random, 96 bits, and come from the standard library itself: a caller
// cannot repeat one. One storage key is good for 2^32 values (NIST SP 800-38D
// §8.3), more than a deployment seals in its life.
type Box struct {
	primary keyID
	aeads   map[keyID]cipher.AEAD
	macs    map[keyID][]byte // keys for MAC
}

type keyID [keyIDSize]byte

// New makes a Box that seals under primary. Values that were sealed under one of
// the previous keys still open. Every key has KeySize bytes.
func New(primary []byte, previous ...[]byte) (*Box, error) {
	b := &Box{aeads: make(map[keyID]cipher.AEAD, 1+len(previous)), macs: make(map[keyID][]byte, 1+len(previous))}
	for i, secret := range append([][]byte{primary}, previous...) {
		if len(secret) != KeySize {
			return nil, fmt.Errorf("a storage key has %d bytes, not %d: make one with \"openssl rand -base64 32\"", KeySize, len(secret))
		}
		id := identify(secret)
		if i == 0 {
			b.primary = id
		}
		aead, err := newAEAD(secret)
		if err != nil {
			return nil, err
		}
		b.aeads[id] = aead
		if b.macs[id], err = hkdf.Key(sha256.New, secret, nil, labelMAC, sha256.Size); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Seal encrypts plaintext for a place: the one record and field in which it will
// stand, such as "signing_keys/<kid>". Open wants the same place again.
func (b *Box) Seal(plaintext []byte, place string) []byte {
	sealed := make([]byte, headerSize, headerSize+len(plaintext)+28)
	sealed[0] = version
	copy(sealed[1:], b.primary[:])
	return b.aeads[b.primary].Seal(sealed, nil, plaintext, bind(sealed, place))
}

// Open decrypts what was sealed for the place. The errors are ErrUnknownKey and
// ErrOpen.
func (b *Box) Open(sealed []byte, place string) ([]byte, error) {
	if len(sealed) < headerSize || sealed[0] != version {
		return nil, ErrOpen
	}
	header, rest := sealed[:headerSize], sealed[headerSize:]
	aead, ok := b.aeads[keyID(header[1:])]
	if !ok {
		return nil, ErrUnknownKey
	}
	plaintext, err := aead.Open(nil, nil, rest, bind(header, place))
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// Knows reports whether the value was sealed under one of the keys that the Box was
// given. It does not say whether it opens.
func (b *Box) Knows(sealed []byte) bool {
	if len(sealed) < headerSize || sealed[0] != version {
		return false
	}
	_, ok := b.aeads[keyID(sealed[1:headerSize])]
	return ok
}

// Reseal returns the value sealed under the primary key, and whether that is a
// change. The errors are those of Open.
func (b *Box) Reseal(sealed []byte, place string) ([]byte, bool, error) {
	plaintext, err := b.Open(sealed, place)
	if err != nil {
		return nil, false, err
	}
	defer clear(plaintext)
	if keyID(sealed[1:headerSize]) == b.primary {
		return sealed, false, nil
	}
	return b.Seal(plaintext, place), true, nil
}

// MAC authenticates what stands in the open at a place, under the primary key. Like a sealed
// value it names the key.
func (b *Box) MAC(data []byte, place string) []byte { return b.mac(b.primary, data, place) }

// Authentic reports whether a MAC was made for this data at this place, under one of the keys
// that the Box was given.
func (b *Box) Authentic(mac, data []byte, place string) bool {
	if len(mac) < headerSize || mac[0] != version {
		return false
	}
	id := keyID(mac[1:headerSize])
	_, known := b.macs[id]
	return known && hmac.Equal(mac, b.mac(id, data, place))
}

// Current reports whether a MAC or a sealed value names the primary key.
func (b *Box) Current(value []byte) bool {
	return len(value) >= headerSize && keyID(value[1:headerSize]) == b.primary
}

func (b *Box) mac(id keyID, data []byte, place string) []byte {
	h := hmac.New(sha256.New, b.macs[id])
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(place)))) // so that no place runs into the data
	h.Write([]byte(place))
	h.Write(data)
	return h.Sum(append([]byte{version}, id[:]...))
}

// A Holder keeps sealed values somewhere. Who seals with the storage key is one,
// so that the key can be changed.
type Holder interface {
	// Sealed says what the values are, in the plural: "signing keys".
	Sealed() string
	// Reseal seals every value anew that is not under the primary key of b. Each
	// is a step of its own that others may run beside: when the call ends early,
	// what is done is done, and the next call goes on from there. A value that
	// does not open is left as it is; the error says which, after all others are
	// done.
	Reseal(ctx context.Context, b *Box) (Resealed, error)
}

// Resealed counts values.
type Resealed struct {
	Changed int // sealed anew
	Current int // were under the primary key already
}

// identify names a key without telling anything about it.
func identify(secret []byte) keyID {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(labelKeyID))
	return keyID(mac.Sum(nil)[:keyIDSize])
}

func newAEAD(secret []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, labelAEAD, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// bind is the associated data: the header has a fixed length, so the place begins
// where no other value's could.
func bind(header []byte, place string) []byte {
	return append(header[:headerSize:headerSize], place...)
}
