// Package hsm owns signing keys that are kept in a hardware security module, behind the
// PKCS #11 library of its maker. A private key never leaves its token.
//
// It promises:
//
//   - Many goroutines sign at once, each in a session of a bounded pool.
//   - When the token was away, or its library has lost its sessions, signing works again as
//     soon as the token is back, without a restart. Until then every signature is
//     keysource.ErrKeeperAway.
//   - A PIN that the token has refused is not tried again. A PIN whose next refusal would lock
//     the token is not tried at all.
//   - A key is used only after its private half has proved that it belongs to the public half on
//     the token.
//   - The PIN is in no error and no log. It is a string, as the library takes it, so that it
//     cannot be zeroed; no copy of it is kept here.
//
// The code needs cgo and the build tag pkcs11. Without either, Open returns an error that says
// so.
package hsm
