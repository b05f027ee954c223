// Package token owns the kinds of tokens that Watchword issues: the claims of each and
// their names, the names that a user's claim may not have, the signature, and a report for
// people of what is wrong with a token. Checking is in package verify/accesstoken, which
// resource servers share.
//
// It is pure: no clock and no I/O of its own.
package token
