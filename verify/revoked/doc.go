// Package revoked knows what has been taken back: the entries of the revocation
// feed, and the list of them in memory against which a verified token is asked.
// The server's view (internal/revocation) and the one of resource servers
// (package verify) are both a List of this package, so that the question "is it
// revoked?" is answered in one place.
//
// An entry names what it takes back only by a truncated SHA-256, so that the
// feed may be read and cached by anybody.
package revoked
