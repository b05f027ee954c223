// Package backup writes everything that a database holds into one encrypted file,
// and a file into an empty database of any of the three kinds. Who calls it: app,
// for the commands backup and restore.
//
// A backup is one state of the database: what was committed before it began and
// nothing else, while nodes go on working. It has users with their password
// hashes, groups, claims, signing keys with their sealed private halves, the
// revocation log and how far it has come, the audit trail, the settings, and, when
// they are in the database, sessions and limits. It does not have what is in
// Redis.
//
// A restore is all or nothing: the file is read to its end and checked before
// anything is written, and what is written is one transaction. The log of
// revocations gets another identity, so that whoever follows it reads it from its
// beginning; its numbers go on where they were.
//
// # The file
//
// A header and chunks (envelope.go). The header has the key of the file, new for
// each, sealed under the storage key or under a key that Argon2id makes of a
// passphrase. A chunk is up to 64 KiB of text in AES-256-GCM; its nonce is its
// number and whether it is the last one, so chunks cannot be changed, moved, left
// out or cut off.
//
// The text is JSON, a value a line (tables.go, dump.go): the head, then for every
// table its name with its columns and, a row each, the values in their order, then
// the tail with the number of rows. Bytes are in base64. Columns that a table got
// since are filled by the database's defaults, so files of older versions can be
// restored; what this version does not know is refused.
package backup
