// Package backends tests whole replicas, in one process, over every kind of database and
// shared state: what they do together, and while a server is away, comes back, fails over
// or is restored.
package backends
