// Package revoked owns the entries of the revocation feed, and the list of them in memory
// against which a verified token is checked. The server's view (internal/revocation) and
// that of resource servers (package verify) are both a List of this package, so that
// whether a token is revoked is decided in one place.
//
// An entry names what it revokes by a truncated SHA-256, so that the feed may be read and
// cached by anybody.
package revoked
