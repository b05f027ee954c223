// Package session knows who is signed in where. A session and its family of
// refresh tokens are one record of package state, so that renewing and ending it
// cannot overtake each other.
//
// A browser's session is one like any other, in the same list and with the same ends. Its holder
// has a cookie instead of refresh tokens, and its record the hash of that. A cookie is not spent
// by its use. It is replaced when its user authenticates again. Neither a cookie nor a refresh
// token is ever good where the other one is. A browser's session may lie unused for as long as
// another one may go without a renewal.
//
// Whoever changes a session reads its record and replaces that very version. Whoever
// only has to know in each request whether a session lives calls Recognise or
// RecogniseCookie, which may do with a copy.
package session
