// Package canary measures how soon a revoked token is refused. A token is issued, each watcher
// is asked until it accepts the token, the token is revoked, and each watcher is asked until it
// refuses the token.
package canary
