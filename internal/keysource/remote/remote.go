package remote

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The kinds of signers.
const (
	Transit = "transit" // the transit engine of HashiCorp Vault or OpenBao
	HTTP    = "http"    // the contract in the documentation of this package
)

// DefaultTimeout bounds one request to the signer. A login waits for it.
const DefaultTimeout = 2 * time.Second

// Config says where the signer is.
type Config struct {
	Kind string // Transit or HTTP
	// URL is the address before the signer's paths: https, or http to a loopback address.
	URL string
	// Token returns the signer's token. It is called for each request, so that a token that
	// is renewed is used at once. Nil: requests have no token, because the client certificate
	// or an agent on this machine authenticates them.
	Token func() (string, error)
	Mount string // of the transit engine; empty: "transit"
	// Key is the name of a transit key, or several with commas between them, one for each
	// algorithm. The kind http has no such name.
	Key      string
	CAFile   string // certificates of authorities that the signer's is from; empty: the system's
	CertFile string // client certificate; it and its key are read anew for each connection
	KeyFile  string
	Timeout  time.Duration // of one request; zero: DefaultTimeout
}

// A Keeper is the keysource.Keeper of a remote signer.
type Keeper struct {
	signer signer
	client *client

	mu    sync.Mutex
	asked []string // the algorithms that Keys was called for
}

// A signer speaks the protocol of one kind of signers.
type signer interface {
	// list returns the keys for an algorithm that may sign now, the oldest first. A nil list
	// without an error does not occur: the error says why there is none.
	list(ctx context.Context, algorithm string) ([]key, error)
	// sign returns the signature over a digest, or over the message for EdDSA.
	sign(ctx context.Context, k key, input []byte) ([]byte, error)
}

// A key is a key of the signer.
type key struct {
	accesstoken.Key     // its ID is the signer's name for it
	version         int // of a transit key
}

// New returns a Keeper. It does not need the signer to be there. An error says which setting
// is wrong.
func New(cfg Config) (*Keeper, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	k := &Keeper{client: c}
	switch cfg.Kind {
	case Transit:
		k.signer, err = newTransit(c, cmp.Or(cfg.Mount, "transit"), cfg.Key)
	case HTTP:
		k.signer, err = contract{c}, nil
	default:
		err = fmt.Errorf("the kind of the remote signer is %q; it is %s or %s", cfg.Kind, Transit, HTTP)
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Keys implements keysource.Keeper. A Ref holds the signer's name for the key and the key's
// thumbprint, so that another key under the same name has another one.
func (k *Keeper) Keys(ctx context.Context, algorithm string) ([]keysource.Kept, error) {
	if !slices.Contains(accesstoken.Algorithms(), algorithm) {
		return nil, fmt.Errorf("a remote signer is not asked for the algorithm %q", algorithm)
	}
	list, err := k.signer.list(ctx, algorithm)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	if !slices.Contains(k.asked, algorithm) {
		k.asked = append(k.asked, algorithm)
	}
	k.mu.Unlock()
	kept := make([]keysource.Kept, len(list))
	for i, key := range list {
		kept[i] = keysource.Kept{Signer: &remoteKey{k, key}, Ref: key.ID + "/" + key.Thumbprint()}
	}
	return kept, nil
}

// pinged is what Ping has signed. It cannot be taken for a token, which has dots.
const pinged = "watchword asks whether the signer signs"

// Ping implements keysource.Keeper: the newest key of each algorithm that Keys was called for
// signs a fixed text.
func (k *Keeper) Ping(ctx context.Context) error {
	k.mu.Lock()
	asked := slices.Clone(k.asked)
	k.mu.Unlock()
	for _, algorithm := range asked {
		list, err := k.signer.list(ctx, algorithm)
		if err != nil {
			return err
		}
		input := []byte(pinged)
		if hash := hashOf(algorithm); hash != 0 {
			h := hash.New()
			h.Write(input)
			input = h.Sum(nil)
		}
		if _, err := k.sign(ctx, list[len(list)-1], input); err != nil {
			return err
		}
	}
	return nil
}

// Close implements keysource.Keeper. Requests under way end with an error.
func (k *Keeper) Close() error {
	k.client.close()
	return nil
}

// sign has the signer sign, and checks what it gives.
func (k *Keeper) sign(ctx context.Context, key key, input []byte) ([]byte, error) {
	signature, err := k.signer.sign(ctx, key, input)
	if err != nil {
		return nil, fmt.Errorf("the key %s of the remote signer: %w", key.ID, err)
	}
	if !verifies(key.Key, input, signature) {
		return nil, fmt.Errorf("the key %s of the remote signer gave a signature that its public key does not verify", key.ID)
	}
	return signature, nil
}

// A remoteKey is the crypto.Signer of one key.
type remoteKey struct {
	keeper *Keeper
	key    key
}

// Public implements crypto.Signer.
func (r *remoteKey) Public() crypto.PublicKey { return r.key.Public }

// Sign implements crypto.Signer for the one algorithm of the key: other opts are an error.
func (r *remoteKey) Sign(_ io.Reader, input []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := hashOf(r.key.Algorithm)
	pss, isPSS := opts.(*rsa.PSSOptions)
	switch {
	case opts.HashFunc() != hash,
		isPSS != (r.key.Algorithm == accesstoken.PS256),
		isPSS && pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != hash.Size():
		return nil, fmt.Errorf("the key %s of the remote signer signs %s alone", r.key.ID, r.key.Algorithm)
	case hash != 0 && len(input) != hash.Size():
		return nil, fmt.Errorf("the key %s of the remote signer signs digests of %d bytes, not of %d", r.key.ID, hash.Size(), len(input))
	}
	return r.keeper.sign(context.Background(), r.key, input)
}

// hashOf returns the hash whose digest an algorithm signs; zero for EdDSA.
func hashOf(algorithm string) crypto.Hash {
	switch algorithm {
	case accesstoken.ES384:
		return crypto.SHA384
	case accesstoken.ES512:
		return crypto.SHA512
	case accesstoken.EdDSA:
		return 0
	}
	return crypto.SHA256
}

// verifies reports whether the signature is that of the key.
func verifies(k accesstoken.Key, input, signature []byte) bool {
	switch public := k.Public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, input, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(public, input, signature)
	case *rsa.PublicKey:
		if k.Algorithm == accesstoken.PS256 {
			return rsa.VerifyPSS(public, crypto.SHA256, input, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, input, signature) == nil
	}
	return false
}

// maxKeyID bounds the signer's name for a key, so that a Ref stays below 200 characters.
const maxKeyID = 128

// newKey checks what the signer says about a key.
func newKey(id, algorithm string, public crypto.PublicKey, version int) (key, error) {
	if len(id) > maxKeyID {
		return key{}, fmt.Errorf("the remote signer has a key with a name of more than %d characters: %.40q…", maxKeyID, id)
	}
	k, err := accesstoken.NewKey(id, algorithm, public)
	if err != nil {
		return key{}, fmt.Errorf("the key %.128q of the remote signer cannot be used: %w", strings.ToValidUTF8(id, "?"), err)
	}
	return key{k, version}, nil
}
