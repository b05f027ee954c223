// Package state is what a backend for a node's shared state implements: sessions
// with their refresh tokens, pending second factors, attempt counters. Store is
// the contract; package statetest holds an implementation to it;
// watchword.WithState makes a node use it. examples/custom-state is a whole one.
//
// The names here stand for those of the node's own backends.
package state

import (
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

// A Store keeps records; its methods say what is promised.
type Store = state.Store

// What a Store takes and gives.
type (
	Key      = state.Key
	Record   = state.Record
	Rate     = state.Rate
	Decision = state.Decision
)

// What a Store returns, each alone or wrapped; see Store for when.
var (
	ErrNotFound = state.ErrNotFound
	ErrExists   = state.ErrExists
	ErrChanged  = state.ErrChanged
	// ErrUnreadable: something else has written to the backend.
	ErrUnreadable = state.ErrUnreadable
	// ErrInvalid: an argument is not one; Key.Check, CheckOwned, CheckWrite and
	// Rate.Check return it.
	ErrInvalid = state.ErrInvalid
	// ErrUnavailable: the backend gave no answer. A node answers 503; give it the
	// cause with Because.
	ErrUnavailable = state.ErrUnavailable
)

// Bounds of what a Store takes.
const (
	MaxValue  = state.MaxValue
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

// CheckWrite returns ErrInvalid unless the record may be written.
func CheckWrite(key Key, value []byte, ttl time.Duration) error {
	return state.CheckWrite(key, value, ttl)
}
