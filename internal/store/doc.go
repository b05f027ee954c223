// Package store keeps what must last: users with their factors, groups, claims and their
// links, signing keys, the revocation log, the audit trail, and the registry of the replicas
// of a cluster. It consists of small interfaces and the records that they carry. Package
// sqlstore implements them on package sqldb, and package storetest holds an
// implementation to their promises.
package store
