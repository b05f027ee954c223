package token

import (
	"crypto/x509"
	"encoding/pem"
	"errors"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// PublicPEM returns a public key as a SubjectPublicKeyInfo in PEM (RFC 7468 §13), for software
// that reads no key set. The text has neither the key's kid nor its algorithm. A key with a
// secret is an error: it has no public half.
func PublicPEM(k accesstoken.Key) ([]byte, error) {
	if k.HasSecret() {
		return nil, errors.New("token: a secret has no public key")
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
