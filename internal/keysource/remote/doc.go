// Package remote owns signing keys that a signer on the network keeps: a keysource.Keeper
// over HTTPS. It promises that no signature of the signer is used that the signer's public
// key does not verify, that a lost signer is noticed within the timeout, and that no token
// and no private key is in an error.
//
// # The kind transit
//
// The transit engine of HashiCorp Vault, over Vault's API. OpenBao, which began as a copy of
// Vault 1.14, has the same requests and answers. The keys are named by Config.Key, and each
// version of a key is a key of its own, from min_encryption_version on.
//
//	GET  /v1/MOUNT/keys/KEY   the versions and their public keys
//	POST /v1/MOUNT/sign/KEY   {"input", "key_version", "prehashed", "hash_algorithm", …}
//
// The token needs the capability read on the first path, and update on the second. A key in
// a namespace is reached by a mount with the name of the namespace before it: "team/transit".
// ECDSA and RSA keys sign a digest, which is all that the signer sees. An Ed25519 key signs
// the message, which is the token without its signature.
//
// # The kind http
//
// The contract for a signer of one's own. Config.URL is the address before the paths, and
// examples/remote-signer is such a signer. A client has a bearer token, a client
// certificate, or both. All bodies are JSON, and binary values are base64url without padding.
//
//	GET URL/keys
//	200 {"keys": [{"kty": "EC", "crv": "P-256", "x": "…", "y": "…", "kid": "2026-11", "alg": "ES256"}, …]}
//
// The answer is a JWK Set (RFC 7517 §5) with the oldest key first. Each key has a kid, of at
// most 128 characters, and an alg: ES256, ES384, ES512, RS256, PS256 or EdDSA. Keys of other
// algorithms are passed over.
//
//	POST URL/sign {"kid": "2026-11", "alg": "ES256", "digest": "…"}
//	200 {"signature": "…"}
//
// The digest is the SHA-256, SHA-384 or SHA-512 that the algorithm asks for. For EdDSA
// there is "message" in its place. The signature is in ASN.1 DER for ECDSA (RFC 3279
// §2.2.3); for PS256 its salt is as long as the hash. A signer may get the same request twice,
// when a connection breaks.
//
// An error has a status from 400 on, and {"error": "one sentence"}, which comes into
// Watchword's log. 408, 412, 425, 429 and those from 500 on may pass: Watchword answers its
// clients with 503, and tries again. After every other one an operator has to act.
package remote
