package keysource

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A Keeper keeps private keys that never leave it: an HSM, or a remote signer.
type Keeper interface {
	// Keys returns the keys there are for one of accesstoken.Algorithms, in the order in which
	// they were made as far as that is known, else in a fixed order. The last one is the one
	// that is to sign.
	Keys(ctx context.Context, algorithm string) ([]Kept, error)
	// Ping returns nil if the keeper can sign now.
	Ping(ctx context.Context) error
	Close() error
}

// A Kept is a private key at its Keeper. Sign may be called by many goroutines, and gives what
// crypto.Signer documents; with EdDSA it is given the message. An error that may pass wraps
// ErrKeeperAway.
type Kept struct {
	crypto.Signer
	Ref string // names the key to its Keeper: 1 to 200 printable ASCII characters without spaces
}

// ErrKeeperAway: the keeper cannot be reached, or cannot sign, at the moment.
var ErrKeeperAway = problem.New(problem.Unavailable, "signer_unavailable",
	"the signing key cannot be used at the moment").After(time.Second)

// ErrNoNewKey: the keeper has no key that has not been used before.
var ErrNoNewKey = errors.New("every signing key that is there was used before or is revoked: make one (docs/signing-keys.md says how)")

// ErrGone: the keeper does not have the key any more.
var ErrGone = errors.New("the HSM or remote signer does not have the key any more")

// The names of sources, as tokens.keys has them.
const (
	NameMemory   = "memory"
	NameDatabase = "database"
	NameHSM      = "pkcs11"
	NameRemote   = "remote"
)

// NameOf returns the name of the source of a key, by what the store has kept of its private half.
func NameOf(sealed []byte) string {
	if sealed == nil {
		return NameMemory
	}
	for _, name := range []string{NameHSM, NameRemote} {
		if bytes.HasPrefix(sealed, reference(name, "")) {
			return name
		}
	}
	return NameDatabase
}

// IsKept reports whether a Keeper has the private half of a key.
func IsKept(sealed []byte) bool { return bytes.HasPrefix(sealed, []byte("kept:")) }

// reference is what the store has in the place of a private half that a keeper keeps.
func reference(name, ref string) []byte { return []byte("kept:" + name + ":" + ref) }

// Outside is the source of keys that a Keeper keeps. It makes none: a key that the keeper has and
// that was never used before becomes the next one.
type Outside struct {
	Name   string // NameHSM or NameRemote
	Keeper Keeper // nil: for MAC and Authentic alone
	Box    *seal.Box
}

// Shared implements Source.
func (Outside) Shared() bool { return true }

// New implements Source.
func (o Outside) New(ctx context.Context, algorithm string, _ time.Time, used func(kid string) bool, kid func(crypto.PublicKey) string) (Opened, []byte, error) {
	keys, err := o.Keeper.Keys(ctx, algorithm)
	if err != nil {
		return Opened{}, nil, err
	}
	if len(keys) == 0 {
		return Opened{}, nil, fmt.Errorf("tokens.keys is %s, and no key for %s is there: make one (docs/signing-keys.md says how)", o.Name, algorithm)
	}
	last := careful(keys[len(keys)-1])
	if used(kid(last.Public())) {
		how := "make one at the signer"
		if o.Name == NameHSM {
			how = `make one with "watchword keys create --pkcs11"`
		}
		return Opened{}, nil, fmt.Errorf("%w; %s", ErrNoNewKey, how)
	}
	return Opened{Signer: last.Signer, Algorithm: algorithm}, reference(o.Name, last.Ref), nil
}

// A carefulSigner makes every error of a keeper one by which a client may try again.
type carefulSigner struct{ crypto.Signer }

func careful(k Kept) Kept { return Kept{carefulSigner{k.Signer}, k.Ref} }

func (s carefulSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := s.Signer.Sign(rand, digest, opts)
	if err != nil && !errors.Is(err, ErrKeeperAway) {
		err = ErrKeeperAway.Because(err)
	}
	return signature, err
}

// Opens implements Source.
func (o Outside) Opens(sealed []byte) bool { return NameOf(sealed) == o.Name }

// Open implements Source. The error is ErrGone if the keeper does not have the key: neither under
// its name, nor another one with the same public half.
func (o Outside) Open(ctx context.Context, kid, algorithm string, sealed []byte) (Opened, error) {
	keys, err := o.Keeper.Keys(ctx, algorithm)
	if err != nil {
		return Opened{}, err
	}
	at := slices.IndexFunc(keys, func(k Kept) bool {
		return accesstoken.Key{Algorithm: algorithm, Public: k.Public()}.Thumbprint() == kid
	})
	if at < 0 {
		return Opened{}, fmt.Errorf("the signing key %s (%s): %w", kid, sealed, ErrGone)
	}
	return Opened{Signer: careful(keys[at]).Signer, Algorithm: algorithm}, nil
}

// MAC implements Source. It differs from that of another source under the same storage key, so
// that no row passes from one source to another unnoticed.
func (o Outside) MAC(kid string, data []byte) []byte { return o.Box.MAC(data, o.place(kid)) }

// Authentic implements Source.
func (o Outside) Authentic(kid string, data, mac []byte) bool {
	return o.Box.Authentic(mac, data, o.place(kid))
}

func (o Outside) place(kid string) string { return "kept_keys/" + o.Name + "/" + kid }

// Foreign implements Source.
func (o Outside) Foreign(mac []byte) bool { return foreign(o.Box, mac) }
