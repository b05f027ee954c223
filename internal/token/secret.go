package token

import (
	"crypto"
	"crypto/hmac"
	"hash"
	"io"
	"sync"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A secretKey makes HMACs (RFC 7518 §3.2) where a Signer expects signatures: Sign gets the
// whole message, as with EdDSA.
type secretKey struct {
	macs sync.Pool // of hash.Hash, keyed with the secret
}

func newSecretKey(secret, alg string) *secretKey {
	h := crypto.SHA256
	switch alg {
	case accesstoken.HS384:
		h = crypto.SHA384
	case accesstoken.HS512:
		h = crypto.SHA512
	}
	key := []byte(secret)
	return &secretKey{macs: sync.Pool{New: func() any { return hmac.New(h.New, key) }}}
}

// Public returns nil: there is no public half.
func (k *secretKey) Public() crypto.PublicKey { return nil }

func (k *secretKey) Sign(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	mac := k.macs.Get().(hash.Hash)
	defer k.macs.Put(mac)
	mac.Reset()
	mac.Write(message)
	return mac.Sum(nil), nil
}
