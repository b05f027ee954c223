// Package sharedsecret owns the signing secrets that all replicas have in common (tokens.keys:
// secret): by which ones tokens are verified, and with which one tokens are signed.
//
// A secret is changed while the replicas run, one after the other. Each of them accepts the
// former secret besides the new one, and signs with the former one for as long as a live
// replica does not accept the new one. So no replica is given a token that it refuses, in
// whichever order the replicas restart or read their files again.
package sharedsecret
