package keysource

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/token"
)

// A Source makes private keys, and opens those that it has made before.
type Source interface {
	// Shared reports whether every process with the same source can use the same keys.
	Shared() bool
	// New makes a private key for one of accesstoken.Algorithms, which no row may let live
	// beyond end, or takes one that was never used before. kid names the key by its public
	// half. What the store has to keep of the private half is sealed; nil: nothing, and the
	// key ends with the process. The error is ErrNoNewKey if the source makes no keys and all
	// that it has are used.
	New(ctx context.Context, algorithm string, end time.Time, used func(kid string) bool, kid func(crypto.PublicKey) string) (made Opened, sealed []byte, err error)
	// Opens reports whether Open can be called for what the store has kept. Every process
	// with the same source can open such a key, so that they share it.
	Opens(sealed []byte) bool
	// Open returns the private key with that kid, whose row says that algorithm. An error says
	// what the operator can do. It is ErrFormer if an older version has sealed the key, and
	// ErrGone if the key does not exist any more.
	Open(ctx context.Context, kid, algorithm string, sealed []byte) (Opened, error)
	// MAC authenticates what the store says about the key with that kid, in the open.
	MAC(kid string, data []byte) []byte
	// Authentic reports whether a MAC was made for this data by the same source.
	Authentic(kid string, data, mac []byte) bool
	// Foreign reports whether a MAC says that it was made under a storage key which this source
	// does not have.
	Foreign(mac []byte) bool
}

// Opened is a private key that can be used, with what was sealed together with it.
type Opened struct {
	crypto.Signer
	Algorithm string
	End       time.Time // a row that lets the key live longer is not the source's; zero: it has no end
}

// ErrFormer: the key was sealed by a version that sealed neither its algorithm nor its end.
var ErrFormer = errors.New("it was sealed by an older version, which did not authenticate what else the database says about it")

// Memory keeps private keys in the memory of the process alone.
type Memory struct{ Rand io.Reader }

// Shared implements Source.
func (Memory) Shared() bool { return false }

// New implements Source.
func (m Memory) New(_ context.Context, algorithm string, end time.Time, _ func(string) bool, _ func(crypto.PublicKey) string) (Opened, []byte, error) {
	private, err := token.GenerateKey(m.Rand, algorithm)
	return Opened{private, algorithm, end}, nil, err
}

// Opens implements Source: there is nothing to open.
func (Memory) Opens([]byte) bool { return false }

// Open implements Source.
func (Memory) Open(_ context.Context, kid, _ string, _ []byte) (Opened, error) {
	return Opened{}, fmt.Errorf("the signing key %s was kept in the memory of its process alone", kid)
}

// processKey is the key of MACs that mean something to this process alone.
var processKey = sync.OnceValue(func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return key
})

// MAC implements Source. Like the keys, it ends with the process.
func (Memory) MAC(kid string, data []byte) []byte {
	h := hmac.New(sha256.New, processKey())
	fmt.Fprintf(h, "%d %s", len(kid), kid)
	h.Write(data)
	return h.Sum(nil)
}

// Authentic implements Source.
func (m Memory) Authentic(kid string, data, mac []byte) bool {
	return hmac.Equal(mac, m.MAC(kid, data))
}

// Foreign implements Source: there is no storage key.
func (Memory) Foreign([]byte) bool { return false }

// Sealed keeps private keys in the store, each under the storage key and bound to its kid.
type Sealed struct {
	Box  *seal.Box
	Rand io.Reader // for New
}

// A sealed value is the private key as PKCS #8, followed by its bounds as JSON. An older
// version opens it, too, because it does not look beyond the end of the first.
type bounds struct {
	Algorithm string `json:"alg"`
	End       int64  `json:"end"` // in microseconds since 1970
}

// Shared implements Source.
func (Sealed) Shared() bool { return true }

// New implements Source.
func (s Sealed) New(_ context.Context, algorithm string, end time.Time, _ func(string) bool, kid func(crypto.PublicKey) string) (Opened, []byte, error) {
	private, err := token.GenerateKey(s.Rand, algorithm)
	if err != nil {
		return Opened{}, nil, err
	}
	sealed, err := s.Seal(kid(private.Public()), private, algorithm, end)
	return Opened{private, algorithm, end}, sealed, err
}

// Seal returns what the store has to keep of a private key.
func (s Sealed) Seal(kid string, private crypto.Signer, algorithm string, end time.Time) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	limits, err := json.Marshal(bounds{algorithm, end.UnixMicro()})
	plain := slices.Concat(der, limits)
	defer clear(der)
	defer clear(plain)
	return s.Box.Seal(plain, place(kid)), err
}

// Opens implements Source.
func (Sealed) Opens(sealed []byte) bool { return NameOf(sealed) == NameDatabase }

// Open implements Source. With ErrFormer it returns the private key.
func (s Sealed) Open(_ context.Context, kid, _ string, sealed []byte) (Opened, error) {
	plain, err := s.Box.Open(sealed, place(kid))
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return Opened{}, fmt.Errorf("the signing key %s is sealed under another storage key: start with the storage key that was used before (AUTH_STORAGE_KEY, or the key file beside the database): %w", kid, seal.ErrUnknownKey)
	case err != nil:
		return Opened{}, fmt.Errorf("the signing key %s in the database is damaged or was moved there from another row: restore it, or revoke it with \"watchword keys revoke\"", kid)
	}
	defer clear(plain)
	var der asn1.RawValue
	rest, err := asn1.Unmarshal(plain, &der)
	if err != nil {
		return Opened{}, fmt.Errorf("the signing key %s in the database is not a private key", kid)
	}
	private, err := x509.ParsePKCS8PrivateKey(der.FullBytes)
	if err != nil {
		return Opened{}, fmt.Errorf("the signing key %s in the database is not a private key", kid)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return Opened{}, fmt.Errorf("the signing key %s in the database cannot sign", kid)
	}
	if len(rest) == 0 {
		return Opened{Signer: signer}, fmt.Errorf("the signing key %s: %w", kid, ErrFormer)
	}
	var limits bounds
	if err := json.Unmarshal(rest, &limits); err != nil {
		return Opened{}, fmt.Errorf("the signing key %s in the database was sealed by a later version", kid)
	}
	return Opened{signer, limits.Algorithm, time.UnixMicro(limits.End).UTC()}, nil
}

// MAC implements Source.
func (s Sealed) MAC(kid string, data []byte) []byte { return s.Box.MAC(data, place(kid)) }

// Authentic implements Source.
func (s Sealed) Authentic(kid string, data, mac []byte) bool {
	return s.Box.Authentic(mac, data, place(kid))
}

// Foreign implements Source.
func (s Sealed) Foreign(mac []byte) bool { return foreign(s.Box, mac) }

// foreign uses that a MAC names its key as a sealed value does.
func foreign(box *seal.Box, mac []byte) bool {
	_, err := box.Open(mac, "")
	return errors.Is(err, seal.ErrUnknownKey)
}

// Reseal seals a private key under the primary storage key. It reports whether that changed
// anything. The error is seal.ErrUnknownKey, if the Box does not have the key under which it
// is sealed, or another seal.ErrOpen.
func (s Sealed) Reseal(kid string, sealed []byte) (again []byte, changed bool, err error) {
	return s.Box.Reseal(sealed, place(kid))
}

// place is what a sealed private key is bound to.
func place(kid string) string { return "signing_keys/" + kid }
