package keysource

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/token"
)

// A Source makes private keys, and opens those that it has made before.
type Source interface {
	// New makes a private key for one of accesstoken.Algorithms. kid names the key by its
	// public half. What the store has to keep of the private half is sealed; nil: nothing,
	// and the key ends with the process.
	New(algorithm string, kid func(crypto.PublicKey) string) (private crypto.Signer, sealed []byte, err error)
	// Opens reports whether Open can be called for what the store has kept. Every process
	// with the same source can open such a key, so that they share it.
	Opens(sealed []byte) bool
	// Open returns the private key with that kid. An error says what the operator can do.
	Open(kid string, sealed []byte) (crypto.Signer, error)
}

// Memory keeps private keys in the memory of the process alone.
type Memory struct{ Rand io.Reader }

// New implements Source.
func (m Memory) New(algorithm string, _ func(crypto.PublicKey) string) (crypto.Signer, []byte, error) {
	private, err := token.GenerateKey(m.Rand, algorithm)
	return private, nil, err
}

// Opens implements Source: there is nothing to open.
func (Memory) Opens([]byte) bool { return false }

// Open implements Source.
func (Memory) Open(kid string, _ []byte) (crypto.Signer, error) {
	return nil, fmt.Errorf("the signing key %s was kept in the memory of its process alone", kid)
}

// Sealed keeps private keys in the store, each under the storage key and bound to its kid.
type Sealed struct {
	Box  *seal.Box
	Rand io.Reader // for New
}

// New implements Source.
func (s Sealed) New(algorithm string, kid func(crypto.PublicKey) string) (crypto.Signer, []byte, error) {
	private, err := token.GenerateKey(s.Rand, algorithm)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return private, s.Box.Seal(der, place(kid(private.Public()))), nil
}

// Opens implements Source.
func (Sealed) Opens(sealed []byte) bool { return sealed != nil }

// Open implements Source.
func (s Sealed) Open(kid string, sealed []byte) (crypto.Signer, error) {
	der, err := s.Box.Open(sealed, place(kid))
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return nil, fmt.Errorf("the signing key %s is sealed under another storage key: start with the storage key that was used before (AUTH_STORAGE_KEY, or the key file beside the database)", kid)
	case err != nil:
		return nil, fmt.Errorf("the signing key %s in the database is damaged or was moved there from another row: restore it, or revoke it with \"watchword keys revoke\"", kid)
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("the signing key %s in the database is not a private key", kid)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the signing key %s in the database cannot sign", kid)
	}
	return signer, nil
}

// Reseal seals a private key under the primary storage key. It reports whether that changed
// anything. The error is seal.ErrUnknownKey, if the Box does not have the key under which it
// is sealed, or another seal.ErrOpen.
func (s Sealed) Reseal(kid string, sealed []byte) (again []byte, changed bool, err error) {
	return s.Box.Reseal(sealed, place(kid))
}

// place is what a sealed private key is bound to.
func place(kid string) string { return "signing_keys/" + kid }
