// Package store keeps what must last: users, groups, claims and who has which,
// signing keys, the revocation log, the audit trail. It is small interfaces and
// the records they carry; sqlstore implements them on package sqldb, and
// storetest holds an implementation to what the interfaces say.
//
// Who calls it: directory, login, keyring, cluster, revocation, audit.
package store
