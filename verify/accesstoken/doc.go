// Package accesstoken holds the rules by which an access token is accepted: the
// one place where a token is parsed, its signature checked and its registered
// claims judged. Both the server (internal/token) and resource servers (package
// verify) use it, so that a rule exists once.
//
// It is pure: no clock, no network, no state. The caller says what time it is
// and which keys there are. It uses the standard library and golang-jwt alone.
//
// Standards: RFC 7515 (JWS), 7517 and 7518 (JWK, algorithms), 7519 (JWT), 7638
// (thumbprint), 8037 (Ed25519), 8725 (best practice), 9068 (access token profile).
package accesstoken
