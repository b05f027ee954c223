// Package login holds the use cases of a token's life: log in, renew, log out,
// verify, take back. It is where credentials, sessions, keys and revocation meet.
//
// Who calls it: httpapi.
package login
