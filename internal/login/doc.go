// Package login holds the use cases of a token's life: log in, renew, log out, verify,
// revoke. Credentials, sessions, keys and revocation meet here, and it is decided here who
// may end or revoke what.
package login
