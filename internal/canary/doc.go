// Package canary measures how soon a revoked token is refused: a token is issued, every
// watcher accepts it, it is revoked, and each watcher is asked until it refuses.
package canary
