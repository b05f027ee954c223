// Package operator owns what an operator does without a running replica: open and
// migrate the database, back it up and restore it, seal it under another storage key,
// rotate and revoke signing keys, and inspect a token.
//
// Its Parts, the use cases on a database, are also what a replica is built on, so that
// the command line and the HTTP API keep the same rules.
package operator
