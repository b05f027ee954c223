// Package store is the contract of a backend for a replica's durable records: users,
// their factors, groups, claims, signing keys, the revocation log, the audit trail. Store is the
// contract, package storetest holds an implementation to it, and watchword.WithStore
// makes a replica use it. The package is experimental until version 1.0: a minor version
// may change it.
//
// The names here are aliases of those of the replica's own backend.
package store

import "github.com/watchword-auth/watchword/internal/store"

// A Store is the durable memory of a deployment; its methods say what is promised.
type Store = store.Store

// Records are all operations, inside or outside a transaction, and their parts.
type (
	Records     = store.Records
	Users       = store.Users
	Marks       = store.Marks
	Factors     = store.Factors
	Groups      = store.Groups
	Claims      = store.Claims
	Keys        = store.Keys
	Revocations = store.Revocations
	Audit       = store.Audit
	AuditSeals  = store.AuditSeals
	Settings    = store.Settings
)

// A Registry is where the replicas of a cluster find each other. A Store for a cluster
// implements it as well.
type (
	Registry      = store.Registry
	Registered    = store.Registered
	RegisteredKey = store.RegisteredKey
	Replica       = store.Replica
)

// The records of a Store, and what selects them.
type (
	Page       = store.Page
	User       = store.User
	Mark       = store.Mark
	Factor     = store.Factor
	Group      = store.Group
	Claim      = store.Claim
	Key        = store.Key
	Revocation = store.Revocation
	LogHead    = store.LogHead
	Grant      = store.Grant
	AuditEvent = store.AuditEvent
	AuditQuery = store.AuditQuery
	AuditPage  = store.AuditPage
	AuditSeal  = store.AuditSeal
)

// AuditScan is how many events one AuditEvents looks at, at most.
const AuditScan = store.AuditScan

// MaxNamed is how many users of one mark UsersNamed returns.
const MaxNamed = store.MaxNamed

// What a Store returns, each alone or wrapped; see Store for when.
var (
	ErrNotFound = store.ErrNotFound
	ErrConflict = store.ErrConflict
	ErrStale    = store.ErrStale
	ErrBusy     = store.ErrBusy
	// ErrFull is an ErrBusy, too. A replica answers that the database has no space.
	ErrFull = store.ErrFull
	// ErrReadOnly is an ErrBusy, too. A replica says that the database takes no writes.
	ErrReadOnly = store.ErrReadOnly
)
