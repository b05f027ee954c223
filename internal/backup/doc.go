// Package backup writes the content of a database into one encrypted file, and such a file
// into an empty database of any of the three kinds.
//
// A backup is one state of the database: what was committed before the backup began, and
// nothing else, while replicas go on working. It has users with their password hashes and
// their sealed second factors, groups, claims, signing keys with their sealed private halves,
// the revocation log with its newest number, the audit trail, the settings, and, if they are
// in the database, sessions and limits. It does not have what is in Redis, and not the links
// by which users recover: each is good once, and for a short time.
//
// A restore is all or nothing: the file is read to its end and checked before anything is
// written, and everything is written in one transaction. The revocation log gets a new
// identity, so that its followers read it from its beginning; its numbers continue. The
// installation keeps its id, and so its sessions in Redis, unless everybody is signed out.
//
// # The file
//
// The file is a header and chunks (envelope.go). The header has the key of the file, which
// is new for each file, sealed under the storage key or under a key that Argon2id makes of
// a passphrase. A chunk is up to 64 KiB of text in AES-256-GCM. Its nonce is its number
// and whether it is the last one, so that chunks cannot be changed, moved, left out or cut
// off.
//
// The text is JSON, one value a line (tables.go, dump.go): the head; then for each table
// its name with its columns, and for each row its values in the order of the columns; then
// the tail with the number of rows. Bytes are in base64. Columns that a table got later
// take the database's defaults, so that files of older versions can be restored. A table
// or column that this version does not know is refused.
package backup
