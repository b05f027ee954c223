// Package sqlstore implements package store in portable SQL on package sqldb: one
// file for each interface of store.
//
// Every writing operation is a serializable transaction, so that it composes with
// those of other replicas. What a name is compared with is the database's business
// only byte by byte: names arrive folded.
//
// Who calls it: app opens it; everybody else sees store.Store.
package sqlstore
