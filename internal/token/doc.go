// Package token says what Watchword's access token is: which claims it carries
// and under which names, which names a user's claim may not take, how it is
// signed and, for people, what is wrong with one. Checking is package
// verify/accesstoken, which resource servers share.
//
// It is pure: no clock and no I/O of its own. Who calls it: login and keyring to
// sign, directory for the names, the command line to explain.
package token
