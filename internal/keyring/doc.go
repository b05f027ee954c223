// Package keyring owns this replica's signing keys and their life: a key is
// published before it is active, retiring until the last token it signed has
// expired, then removed. It hands out the key that signs now and the public keys
// that verify, and rotates by itself. docs/design/key-timing.md explains the times.
package keyring
