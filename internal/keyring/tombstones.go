package keyring

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/verify/revoked"
)

// Tombstones are the keys that this replica has seen revoked: in their rows, in the
// revocation log, or at other replicas. What was seen once stays, whatever the database says
// later. A key is named by its digest, as in the log's feed.
//
// The methods may be called by any number of goroutines.
type Tombstones struct {
	keep time.Duration
	now  func() time.Time

	mu   sync.RWMutex // guards everything below
	ends map[revoked.ID]int64
	all  []Tombstone // see All; nil: to be made
}

// A Tombstone is one of them.
type Tombstone struct {
	ID  revoked.ID `json:"id"`
	End int64      `json:"exp"` // until when it is kept, in Unix time
}

// NewTombstones returns none yet. Each is kept for the given time at least, which has to be as
// long as any row of a key may let it live.
func NewTombstones(keep time.Duration, now func() time.Time) *Tombstones {
	return &Tombstones{keep: keep, now: now, ends: map[revoked.ID]int64{}}
}

// Add notes that a key is revoked.
func (t *Tombstones) Add(kid string, until time.Time) {
	t.Entry(revoked.Digest(revoked.Key, kid), until)
}

// Entry is Add for a key of which only the digest is known.
func (t *Tombstones) Entry(id revoked.ID, until time.Time) {
	end := latest(until, t.now().Add(t.keep)).Unix()
	t.mu.RLock()
	before, known := t.ends[id]
	t.mu.RUnlock()
	if known && before >= until.Unix() { // else it would be kept for longer each time that its row is read
		return
	}
	t.Merge([]Tombstone{{id, end}})
}

// Len returns how many there are.
func (t *Tombstones) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, now := 0, t.now().Unix()
	for _, end := range t.ends {
		if end >= now {
			n++
		}
	}
	return n
}

// Merge takes in what another replica knows.
func (t *Tombstones) Merge(others []Tombstone) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = nil
	now := t.now().Unix()
	maps.DeleteFunc(t.ends, func(_ revoked.ID, end int64) bool { return end < now })
	for _, other := range others {
		if other.End >= now {
			t.ends[other.ID] = max(t.ends[other.ID], other.End)
		}
	}
}

// Has reports whether a key is known to be revoked.
func (t *Tombstones) Has(kid string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.ends) == 0 {
		return false
	}
	_, known := t.ends[revoked.Digest(revoked.Key, kid)]
	return known
}

// maxTombstones bounds what one replica tells another.
const maxTombstones = 5000

// All returns them for another replica; of too many, those that are kept the longest. It is the
// same slice until there is a new one, and not to be changed.
func (t *Tombstones) All() []Tombstone {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil && len(t.ends) > 0 {
		for id, end := range t.ends {
			t.all = append(t.all, Tombstone{id, end})
		}
		slices.SortFunc(t.all, func(a, b Tombstone) int {
			return cmp.Or(cmp.Compare(b.End, a.End), slices.Compare(a.ID[:], b.ID[:]))
		})
		t.all = t.all[:min(len(t.all), maxTombstones)]
	}
	return t.all
}
