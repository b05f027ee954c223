package accesstoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
)

// The signature algorithms with a shared secret (RFC 7518 §3.2). Only a key that NewSecretKey
// made has one of them; there is no such key in a key set.
const (
	HS256 = "HS256"
	HS384 = "HS384"
	HS512 = "HS512"
)

// SecretAlgorithms returns the signature algorithms with a shared secret. They are not among
// Algorithms.
func SecretAlgorithms() []string { return []string{HS256, HS384, HS512} }

// MinSecretLength is the least length of a secret for the algorithm, in bytes: that of the
// hash (RFC 7518 §3.2). It is 0 for an algorithm that is not one of SecretAlgorithms.
func MinSecretLength(alg string) int {
	switch alg {
	case HS256:
		return 32
	case HS384:
		return 48
	case HS512:
		return 64
	}
	return 0
}

// A secret is behind a function, so that nothing that prints a Key shows it: package fmt
// follows a pointer when a verb does not fit, and other printers follow every pointer.
type secret struct{ text func() []byte }

// NewSecretKey makes the Key of a shared secret, whose bytes are used as they are. Its ID is
// derived from the secret and the algorithm by a truncated HMAC, so that all who have the
// secret give the key the same name, which does not reveal it. A secret that can be guessed
// can be found out from any token, so it is made by a machine: MinSecretLength random bytes.
//
// With the secret one can sign as well as verify. Such a Key is therefore never published:
// it has no JSON, and NewKeySet refuses it.
func NewSecretKey(text, alg string) (Key, error) {
	bytes := []byte(text)
	k := Key{Algorithm: alg, secret: &secret{text: func() []byte { return bytes }}}
	if err := k.check(); err != nil {
		return Key{}, err
	}
	mac := hmac.New(sha256.New, k.secret.text())
	mac.Write([]byte("watchword signing secret 1: " + alg))
	k.ID = encoding.EncodeToString(mac.Sum(nil)[:16])
	return k, nil
}

// SecretKeys makes the keys of a shared secret: one for each algorithm for which it is long
// enough, in the order of SecretAlgorithms. A secret that is too short for all of them is an
// error.
func SecretKeys(text string) ([]Key, error) {
	var keys []Key
	for _, alg := range SecretAlgorithms() {
		k, err := NewSecretKey(text, alg)
		if err != nil && len(keys) == 0 {
			return nil, err
		}
		if err != nil {
			break
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// HasSecret reports whether NewSecretKey made the key. Then Public is nil.
func (k Key) HasSecret() bool { return k.secret != nil }

// equalSecrets takes the same time wherever the secrets differ.
func (k Key) equalSecrets(other Key) bool {
	if k.secret == nil || other.secret == nil || k.Algorithm != other.Algorithm {
		return false
	}
	return k.secret == other.secret || hmac.Equal(k.secret.text(), other.secret.text())
}

// checkSecret is check for a key with a secret.
func (k Key) checkSecret() error {
	least := MinSecretLength(k.Algorithm)
	switch {
	case least == 0:
		return fmt.Errorf("key: a shared secret cannot be used with the algorithm %q", k.Algorithm)
	case k.Public != nil:
		return errors.New("key: both a shared secret and a public key")
	case len(k.secret.text()) < least:
		return fmt.Errorf("key: a secret for %s has at least %d bytes, not %d", k.Algorithm, least, len(k.secret.text()))
	}
	return nil
}
