// Package known remembers the access tokens whose signature has been verified, so that a
// token which comes again need not be verified again. The server and package verify share
// it, so that the rule of what may be remembered exists once.
//
// Nothing but the signature is taken from memory. Each time the key must still be found
// under its kid and be the same key, and the token's issuer, audience and times are judged.
// Whether the token was revoked is the caller's question, each time.
package known
