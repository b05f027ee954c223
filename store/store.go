// Package store is what a backend for a node's durable records implements: users,
// groups, claims, signing keys, what was taken back, the audit trail. Store is the
// contract; package storetest holds an implementation to it; watchword.WithStore
// makes a node use it.
//
// The names here stand for those of the node's own backend.
package store

import "github.com/watchword-auth/watchword/internal/store"

// A Store is the durable memory of a deployment; its methods say what is promised.
type Store = store.Store

// Records are all operations, inside a transaction or outside, and their parts.
type (
	Records     = store.Records
	Users       = store.Users
	Groups      = store.Groups
	Claims      = store.Claims
	Keys        = store.Keys
	Revocations = store.Revocations
	Audit       = store.Audit
	Settings    = store.Settings
)

// A Registry is where the replicas of a cluster find each other; a Store that is to
// serve one implements it as well.
type (
	Registry      = store.Registry
	Registered    = store.Registered
	RegisteredKey = store.RegisteredKey
	Replica       = store.Replica
)

// What a Store takes and gives.
type (
	Page       = store.Page
	User       = store.User
	Group      = store.Group
	Claim      = store.Claim
	Key        = store.Key
	Revocation = store.Revocation
	LogHead    = store.LogHead
	AuditEvent = store.AuditEvent
	AuditQuery = store.AuditQuery
	AuditPage  = store.AuditPage
)

// AuditScan is how many events one AuditEvents looks at, at most.
const AuditScan = store.AuditScan

// What a Store returns, each alone or wrapped; see Store for when.
var (
	ErrNotFound = store.ErrNotFound
	ErrConflict = store.ErrConflict
	ErrStale    = store.ErrStale
	ErrBusy     = store.ErrBusy
)
