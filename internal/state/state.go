package state

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrNotFound: there is no live record under the key. An expired record is
	// not found, whether or not it has been swept.
	ErrNotFound = errors.New("state: not found")
	// ErrExists: Create found a live record under the key.
	ErrExists = errors.New("state: exists already")
	// ErrChanged: Swap met another version than the caller had read,
	// or nothing at all.
	ErrChanged = errors.New("state: changed meanwhile")
	// ErrUnreadable: there is something under the key that is no record, because
	// something else has written to the backend.
	ErrUnreadable = errors.New("state: not a record")
)

// A Key names a record. Records of one owner can be listed and deleted together;
// on a partitioned backend they live in one partition, so Owner is part of every
// key. A record that belongs to nobody has its own ID as owner.
//
// No field holds a secret: what a client presents is hashed before it becomes an
// ID, because keys appear in the backend's tools and logs.
type Key struct {
	Kind  string // what it is: "session", "mfa_pending_secret"… ([a-z_]+)
	Owner string // whose: usually a user's id ([A-Za-z0-9_-]+)
	ID    string // which ([A-Za-z0-9_-]+)
}

// A Record is a value that ends by itself.
type Record struct {
	Key     Key
	Value   []byte    // at most MaxValue bytes
	Expires time.Time // by the backend's clock; truncated to milliseconds
	// Version changes with every write of the key and is never used again for
	// it, not even after the record was deleted and made anew. Zero in a record
	// that has not been read.
	Version int64
}

// MaxValue bounds Record.Value.
const MaxValue = 64 << 10

// A Rate allows Burst events at once and Burst events per Period in the long
// run. Written "20/1m" in the configuration.
type Rate struct {
	Burst  int
	Period time.Duration
}

// A Decision is the answer of Limit.
type Decision struct {
	Allowed    bool
	Remaining  int           // events that would be allowed at this moment
	RetryAfter time.Duration // zero when allowed; else when one event will be
	ResetAfter time.Duration // until the full burst is there again
}

// A Store keeps records. Every method is one atomic step, also against other
// processes, and is safe for concurrent use. When a method that writes returns
// nil, what it wrote survives the death of the process and, as far as the
// backend's own durability reaches, of the backend; when it returns an error
// that is none of this package's, the write may or may not have happened, and
// what a later reader finds is either the whole old or the whole new record.
//
// The clock is the backend's own, so that replicas whose clocks differ agree on
// what has expired and on what is counted.
type Store interface {
	// Get returns the live record under key, as of the last write that was
	// answered anywhere: there is no stale read. Or ErrNotFound, or ErrUnreadable.
	Get(ctx context.Context, key Key) (Record, error)

	// Put writes the record, whatever was there, and returns its new version.
	Put(ctx context.Context, key Key, value []byte, ttl time.Duration) (version int64, err error)

	// Create writes the record if none is live under its key. Of several
	// concurrent calls exactly one succeeds; the others get ErrExists.
	Create(ctx context.Context, key Key, value []byte, ttl time.Duration) (version int64, err error)

	// Swap replaces the record if it still has the version that the caller read
	// (compare and swap). Of several concurrent calls with one version exactly
	// one succeeds; the others get ErrChanged, as do those that find nothing.
	Swap(ctx context.Context, key Key, version int64, value []byte, ttl time.Duration) (newVersion int64, err error)

	// Take reads and deletes: of several concurrent calls exactly one gets the
	// record, the others ErrNotFound.
	Take(ctx context.Context, key Key) (Record, error)

	// Delete removes the record. That none was there is no error.
	Delete(ctx context.Context, key Key) error

	// List returns the live records of one kind and owner, in no order; of one that
	// is not readable, the key alone. Its cost depends on how many the owner has, not
	// on how many there are.
	List(ctx context.Context, kind, owner string) ([]Record, error)

	// DeleteOwned removes the records of one kind and owner and says how many.
	// A record that is created at the same time may survive.
	DeleteOwned(ctx context.Context, kind, owner string) (int, error)

	// Limit counts one event of cost 1 against the bucket named by key, if rate
	// allows it (the generic cell rate algorithm, ITU-T I.371). An event that is
	// not allowed is not counted. Of any number of concurrent calls no more are
	// allowed than rate says.
	Limit(ctx context.Context, key Key, rate Rate) (Decision, error)

	// Sweep deletes expired records, at most limit of them, and says how many.
	// Nothing depends on it but space.
	Sweep(ctx context.Context, limit int) (int, error)

	// Ping asks whether the backend answers.
	Ping(ctx context.Context) error

	// Close releases what the store opened. What it was given stays open.
	Close() error
}
