// Package interop holds Watchword's tokens and key sets against the libraries
// that its users have: go-oidc, jwx and PyJWT verify what Watchword issues, also by
// the URL of a running replica; these and the libraries of stacks/ do what
// docs/algorithms.md says of them; the Wycheproof project's cases are put to Watchword's
// own checks; and another project's server judges the ceremonies of passkeys.
//
// It is a module of its own, so that none of these becomes a dependency.
package interop
