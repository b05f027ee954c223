package accesstoken

import "crypto"

// The signature algorithms a key may have (RFC 7518 §3.1, RFC 8037 §3.1).
const (
	ES256 = "ES256"
	ES384 = "ES384"
	ES512 = "ES512"
	EdDSA = "EdDSA"
	RS256 = "RS256"
	PS256 = "PS256"
)

// A Key verifies tokens: one public key, bound to one name and one algorithm.
// The algorithm is a property of the key, never of the token (RFC 8725 §3.1).
type Key struct {
	ID        string           // kid
	Algorithm string           // one of the constants above
	Public    crypto.PublicKey // *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey
}
