// Package sqlstore implements package store in portable SQL on package sqldb: one file
// for each interface of store.
//
// Each writing operation is a serializable transaction, so that it composes with those
// of other replicas. Names arrive folded, and the database compares them byte by byte.
package sqlstore
