// Package session knows who is signed in where. A session and its family of
// refresh tokens are one record of package state, so that renewing and ending it
// cannot overtake each other.
//
// Whoever changes a session reads its record and replaces that very version. Whoever
// only has to know in each request whether a session lives calls Recognise, which may
// do with a copy.
package session
