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
	// ErrChanged: Swap found another version than the caller had read, or no record.
	ErrChanged = errors.New("state: changed meanwhile")
	// ErrUnreadable: the value under the key is no record, because another program has
	// written to the backend.
	ErrUnreadable = errors.New("state: not a record")
	// ErrFull: the backend has no space for the write. It comes inside an
	// ErrUnavailable.
	ErrFull = errors.New("state: no space is left")
	// ErrReadOnly: the backend takes no writes. It comes inside an ErrUnavailable.
	ErrReadOnly = errors.New("state: it takes no writes")
)

// A Key names a record. The records of one owner can be listed and deleted together; a
// partitioned backend keeps them in one partition, so Owner is part of every key. A
// record that belongs to no user has its own ID as owner.
//
// No field holds a secret, because keys appear in the backend's tools and logs: a secret
// that a client presents is hashed before it becomes an ID.
type Key struct {
	Kind  string // the kind of record, such as "session" ([a-z_]+)
	Owner string // usually a user's id ([A-Za-z0-9_-]+)
	ID    string // unique for the kind and the owner ([A-Za-z0-9_-]+)
}

// A Record is a value that expires by itself.
type Record struct {
	Key     Key
	Value   []byte    // at most MaxValue bytes
	Expires time.Time // by the backend's clock; truncated to milliseconds
	// Version changes with every write of the key. It is never used again for the key,
	// not even after the record was deleted and created anew. It is zero in a record
	// that was not read.
	Version int64
}

// MaxValue bounds Record.Value.
const MaxValue = 64 << 10

// MaxPage bounds how many records List returns.
const MaxPage = 1024

// A Rate allows Burst events at once, and Burst events per Period in the long run.
type Rate struct {
	Burst  int
	Period time.Duration
}

// A Decision is the answer of Limit.
type Decision struct {
	Allowed    bool
	Remaining  int           // events that would be allowed at this moment
	RetryAfter time.Duration // until one event will be allowed; zero when Allowed
	ResetAfter time.Duration // until the full burst is allowed again
}

// A Store keeps records. Each method is one atomic step, also against other processes,
// and is safe for concurrent use. When a method that writes returns nil, what it wrote
// survives the death of the process and, as far as the backend's own durability reaches,
// of the backend. After an error that is none of this package's, and after
// ErrUnavailable, the write may or may not have happened, and a later reader finds
// either the whole old record or the whole new one.
//
// The clock is the backend's own, so that replicas whose clocks differ agree on which
// records have expired and on what is counted.
type Store interface {
	// Get returns the live record under key, as of the last write that was answered on
	// any replica: there is no stale read. It returns ErrNotFound if there is none, and
	// ErrUnreadable if another program wrote it.
	Get(ctx context.Context, key Key) (Record, error)

	// Put writes the record, whether or not there is one, and returns its new version.
	Put(ctx context.Context, key Key, value []byte, ttl time.Duration) (version int64, err error)

	// Create writes the record if none is live under its key. Of several
	// concurrent calls exactly one succeeds; the others get ErrExists.
	Create(ctx context.Context, key Key, value []byte, ttl time.Duration) (version int64, err error)

	// Swap replaces the record if it still has the version that the caller read
	// (compare and swap). Of several concurrent calls with one version exactly one
	// succeeds; the others get ErrChanged. If there is no live record, all of them do.
	Swap(ctx context.Context, key Key, version int64, value []byte, ttl time.Duration) (newVersion int64, err error)

	// Take reads and deletes the record. Of several concurrent calls exactly one gets
	// it; the others get ErrNotFound.
	Take(ctx context.Context, key Key) (Record, error)

	// Delete removes the record. It returns nil if there is none.
	Delete(ctx context.Context, key Key) error

	// List returns a page of the live records of one kind and owner: the first limit
	// records, in the order of the bytes of their IDs, whose ID comes after the given
	// one; "" comes before all. Fewer than limit are returned only if no more follow.
	// limit is from 1 to MaxPage. An unreadable record has only its key. The cost
	// depends on limit and not on the number of all records, and as little as the
	// backend can on the number of the owner's.
	List(ctx context.Context, kind, owner, after string, limit int) ([]Record, error)

	// DeleteOwned removes the live records of one kind and owner and returns how many
	// there were. It is the one method of several steps, each of a bounded number of
	// records: after an error some may be gone. A record that is created at the same
	// time may survive.
	DeleteOwned(ctx context.Context, kind, owner string) (int, error)

	// Limit counts one event against the bucket under key, if rate allows it (the
	// generic cell rate algorithm, ITU-T I.371). An event that is not allowed is not
	// counted. However many calls are concurrent, no more events are allowed than rate
	// says.
	Limit(ctx context.Context, key Key, rate Rate) (Decision, error)

	// Reset empties the bucket under key, as if nothing had been counted, and returns nil if
	// there is none. A Limit that was answered before counts no more; one that begins
	// after the answer to Reset finds only what was counted since.
	Reset(ctx context.Context, key Key) error

	// Sweep deletes expired records, at most limit of them, and returns how many it
	// deleted. It only frees space.
	Sweep(ctx context.Context, limit int) (int, error)

	// Ping returns nil if the backend answers and takes writes.
	Ping(ctx context.Context) error

	// Close releases what the store opened. What its maker passed to it stays open.
	Close() error
}
