// Package state is the contract of a backend for a replica's shared state: sessions with
// their refresh tokens, and counters of attempts. Store is the contract, package
// statetest holds an implementation to it, and watchword.WithState makes a replica use
// it. examples/custom-state is a whole implementation. The package is experimental until
// version 1.0: a minor version may change it.
//
// The names here are aliases of those of the replica's own backends.
package state

import (
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

// A Store keeps records; its methods say what is promised.
type Store = state.Store

// The records and buckets of a Store.
type (
	Key      = state.Key
	Record   = state.Record
	Rate     = state.Rate
	Decision = state.Decision
)

// The errors of a Store, each alone or wrapped; its methods say when.
var (
	ErrNotFound = state.ErrNotFound
	ErrExists   = state.ErrExists
	ErrChanged  = state.ErrChanged
	// ErrUnreadable: another program has written to the backend.
	ErrUnreadable = state.ErrUnreadable
	// ErrInvalid: an argument is outside its bounds. Key.Check, CheckOwned, CheckPage, CheckWrite
	// and Rate.Check return it.
	ErrInvalid = state.ErrInvalid
	// ErrFull: the backend has no space for the write. It is the cause of an
	// ErrUnavailable. A replica answers that the database has no space.
	ErrFull = state.ErrFull
	// ErrReadOnly: the backend takes no writes. It is the cause of an ErrUnavailable. A replica
	// says so where it is asked whether it is ready.
	ErrReadOnly = state.ErrReadOnly
	// ErrUnavailable: the backend gave no answer. A replica answers 503. Its method
	// Because adds the cause.
	ErrUnavailable = state.ErrUnavailable
)

// The bounds of the arguments of a Store.
const (
	MaxValue  = state.MaxValue
	MaxPage   = state.MaxPage
	MaxKind   = state.MaxKind
	MaxName   = state.MaxName
	MinTTL    = state.MinTTL
	MaxTTL    = state.MaxTTL
	MaxPeriod = state.MaxPeriod
	MaxBurst  = state.MaxBurst
)

// NewVersion returns a version that has not been used.
func NewVersion() int64 { return state.NewVersion() }

// CheckOwned returns ErrInvalid unless there may be records of the kind and owner.
func CheckOwned(kind, owner string) error { return state.CheckOwned(kind, owner) }

// CheckPage returns ErrInvalid unless List may be called so.
func CheckPage(kind, owner, after string, limit int) error {
	return state.CheckPage(kind, owner, after, limit)
}

// CheckWrite returns ErrInvalid unless the record may be written.
func CheckWrite(key Key, value []byte, ttl time.Duration) error {
	return state.CheckWrite(key, value, ttl)
}
