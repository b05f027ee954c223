// Package session knows who is signed in where. A session and its family of
// refresh tokens are one record of package state, so that renewing and ending it
// cannot overtake each other.
//
// Who calls it: login; httpapi shows what it knows.
package session
