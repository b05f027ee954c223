package revoked

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A List is what is known to be revoked. The zero List is empty and ready. It is safe for
// concurrent use, and a reader never waits for more than the insertion of one entry.
//
// An entry takes about 70 bytes.
type List struct {
	write sync.Mutex               // held while a shard is changed
	count [len(kinds)]atomic.Int64 // live entries of each kind
	// complete is the number up to which everything applied is in the shards.
	complete atomic.Int64
	// former are entries of logs before the present one, with numbers of their own, from 1. The
	// slice is replaced, not changed.
	former atomic.Pointer[[]Entry]
	shards [64]shard
}

// A shard holds the entries whose IDs have one prefix. IDs are digests, so shards fill
// evenly.
type shard struct {
	mu sync.RWMutex // guards the two slices; held to write only for moments
	// records are ordered by seq. An element is never changed, so that a copy of the slice's
	// header may be read without the lock. A superseded record stays until the next rebuild,
	// and the table does not point to it.
	records []record
	// table is a hash table with linear probing. A place holds the position in records plus
	// one, or 0 if it is free. The length is a power of two, and at most half is in use.
	table []uint32
	live  int // places of table in use
}

// A record is an Entry without padding. Seq 0: it is not from the present log.
type record struct {
	seq          int64
	epoch        int64
	issuedBefore int64
	expiresAt    int64
	id           ID
	kind         uint8 // index in kinds
}

// Apply adds entries. It does no harm to add one twice, or in another order. Of two entries
// for one user the stronger of each bound is kept. If one entry fails its Check, none is
// applied.
//
// A caller that uses After applies the entries of one log in the order of their numbers.
func (l *List) Apply(entries ...Entry) error {
	for _, e := range entries {
		if err := e.Check(); err != nil {
			return err
		}
	}
	l.write.Lock()
	defer l.write.Unlock()
	complete := l.complete.Load()
	for _, e := range entries {
		l.putLocked(e.record())
		complete = max(complete, e.Seq)
	}
	l.complete.Store(complete)
	return nil
}

// ApplyFormer adds entries of logs before the present one, whatever their numbers: After does
// not return them, and Former does. If one entry fails its Check, none is applied.
func (l *List) ApplyFormer(entries ...Entry) error {
	for _, e := range entries {
		if err := e.Check(); err != nil {
			return err
		}
	}
	l.write.Lock()
	defer l.write.Unlock()
	var former []Entry
	if had := l.former.Load(); had != nil {
		former = slices.Clone(*had)
	}
	for _, e := range entries {
		r := e.record()
		r.seq = 0
		if l.putLocked(r) {
			e.Seq = 1
			if n := len(former); n > 0 {
				e.Seq = former[n-1].Seq + 1
			}
			former = append(former, e)
		}
	}
	l.former.Store(&former)
	return nil
}

// Former returns up to limit entries of logs before the present one with a greater number than
// after. The numbers are those of this list, and change with Detach.
func (l *List) Former(after int64, limit int) []Entry {
	had := l.former.Load()
	if had == nil {
		return nil
	}
	from := sort.Search(len(*had), func(i int) bool { return (*had)[i].Seq > after })
	return slices.Clone((*had)[from:min(from+limit, len(*had))])
}

// putLocked reports whether the list knows more than before.
func (l *List) putLocked(r record) bool {
	s := l.shard(r.id)
	old, found := s.find(r.id)
	if found {
		merged := old.merge(r)
		if merged == old {
			return false
		}
		r = merged
	} else {
		l.count[r.kind].Add(1) // before the entry can be found; see Revoked
	}
	if (s.live+1)*2 > len(s.table) || len(s.records) > 2*s.live+64 {
		l.rebuildLocked(s, func(record) bool { return true })
	}
	ordered := len(s.records) == 0 || s.records[len(s.records)-1].seq <= r.seq
	s.mu.Lock()
	s.records = append(s.records, r)
	if s.point(len(s.records) - 1) {
		s.live++
	}
	s.mu.Unlock()
	if !ordered {
		l.rebuildLocked(s, func(record) bool { return true })
	}
	return true
}

func (e Entry) record() record {
	return record{e.Seq, e.Epoch, e.IssuedBefore, e.ExpiresAt, e.ID, uint8(e.Kind.index())}
}

func (r record) entry() Entry {
	return Entry{r.seq, kinds[r.kind], r.id, r.epoch, r.issuedBefore, r.expiresAt}
}

// merge returns the stronger of both records, at the later place in the log.
func (r record) merge(n record) record {
	m := r
	m.epoch = max(r.epoch, n.epoch)
	m.issuedBefore = max(r.issuedBefore, n.issuedBefore)
	m.expiresAt = max(r.expiresAt, n.expiresAt)
	if m != r || r.seq == 0 {
		m.seq = max(r.seq, n.seq)
	}
	return m
}

// Revoked reports whether the token is revoked, and by which kind of entry. It does not
// allocate for names of usual length.
func (l *List) Revoked(t *accesstoken.Token) (Kind, bool) {
	for i, name := range names(t) {
		if name != "" && l.count[i].Load() > 0 && l.has(kinds[i], Digest(kinds[i], name), t) {
			return kinds[i], true
		}
	}
	return "", false
}

// IDs are those by which a token may be revoked, for callers that check it often.
type IDs [len(kinds)]ID

// IDsOf returns the IDs of a token's key, user, session and own id.
func IDsOf(t *accesstoken.Token) IDs {
	var ids IDs
	for i, name := range names(t) {
		if name != "" {
			ids[i] = Digest(kinds[i], name)
		}
	}
	return ids
}

// RevokedByIDs is Revoked for a token whose IDs are known.
func (l *List) RevokedByIDs(t *accesstoken.Token, ids *IDs) (Kind, bool) {
	for i, id := range ids {
		if id != (ID{}) && l.count[i].Load() > 0 && l.has(kinds[i], id, t) {
			return kinds[i], true
		}
	}
	return "", false
}

// names are a token's names in the order of kinds. One that the token does not have is
// empty.
func names(t *accesstoken.Token) [len(kinds)]string {
	return [len(kinds)]string{t.KeyID, t.Subject, t.SessionID, t.ID}
}

func (l *List) has(kind Kind, id ID, t *accesstoken.Token) bool {
	s := l.shard(id)
	s.mu.RLock()
	r, found := s.find(id)
	s.mu.RUnlock()
	return found && (kind != User || r.covers(t))
}

// covers reports whether the token is one of the user's that the record revokes.
func (r record) covers(t *accesstoken.Token) bool {
	return t.Epoch < r.epoch || r.issuedBefore != 0 && t.IssuedAt.Unix() < r.issuedBefore
}

// After returns up to limit entries of the present log with a greater number, in order.
// What is missing between two of them has expired or was superseded by a later entry.
func (l *List) After(seq int64, limit int) []Entry {
	complete := l.complete.Load() // before the shards: what is applied from now on may be there in part
	seq = max(seq, 0)
	if seq >= complete {
		return nil
	}
	var runs merge
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		records := s.records
		s.mu.RUnlock()
		from := sort.Search(len(records), func(i int) bool { return records[i].seq > seq })
		if from < len(records) {
			runs = append(runs, records[from:])
		}
	}
	heap.Init(&runs)
	var entries []Entry
	for len(runs) > 0 && len(entries) < limit && runs[0][0].seq <= complete {
		r := runs[0][0]
		entries = append(entries, r.entry())
		if runs[0] = runs[0][1:]; len(runs[0]) == 0 {
			heap.Pop(&runs)
		} else {
			heap.Fix(&runs, 0)
		}
	}
	return entries
}

// Last returns the number up to which entries of the present log have been applied.
func (l *List) Last() int64 { return l.complete.Load() }

// Detach keeps all entries but no longer counts them to a log: tokens are refused as
// before, After begins anew, and Former has them. It is called when the log is replaced by
// another one.
func (l *List) Detach() {
	l.write.Lock()
	defer l.write.Unlock()
	l.complete.Store(0)
	former := make([]Entry, 0, l.Len())
	for i := range l.shards {
		s := &l.shards[i]
		records := slices.Clone(s.records)
		for j := range records {
			records[j].seq = 0
		}
		s.mu.Lock()
		s.records = records
		s.mu.Unlock()
		for _, at := range s.table {
			if at != 0 {
				e := records[at-1].entry()
				e.Seq = int64(len(former) + 1)
				former = append(former, e)
			}
		}
	}
	l.former.Store(&former)
}

// Expire forgets the entries that expired before t, and returns how many.
func (l *List) Expire(t time.Time) int {
	now, dropped := t.Unix(), 0
	for i := range l.shards {
		l.write.Lock() // for one shard at a time, so that Apply need not wait for all
		s := &l.shards[i]
		if slices.ContainsFunc(s.records, func(r record) bool { return r.expiresAt < now }) {
			dropped += l.rebuildLocked(s, func(r record) bool { return r.expiresAt >= now })
		}
		l.write.Unlock()
	}
	l.write.Lock()
	defer l.write.Unlock()
	expired := func(e Entry) bool { return e.ExpiresAt < now }
	if had := l.former.Load(); had != nil && slices.ContainsFunc(*had, expired) {
		left := slices.DeleteFunc(slices.Clone(*had), expired)
		l.former.Store(&left)
	}
	return dropped
}

// Len returns how many entries there are.
func (l *List) Len() int {
	n := int64(0)
	for i := range l.count {
		n += l.count[i].Load()
	}
	return int(n)
}

func (l *List) shard(id ID) *shard { return &l.shards[id[0]%uint8(len(l.shards))] }

// rebuildLocked replaces the shard by those of its live records for which keep is true, in
// order, with room for as many again. It returns how many live ones it dropped. Readers see
// the old shard until the new one is ready. The caller holds l.write.
func (l *List) rebuildLocked(s *shard, keep func(record) bool) (dropped int) {
	fresh := shard{records: make([]record, 0, s.live)}
	var gone [len(kinds)]int64
	for _, at := range s.table {
		if at == 0 {
			continue
		}
		if r := s.records[at-1]; keep(r) {
			fresh.records = append(fresh.records, r)
		} else {
			gone[r.kind]++
			dropped++
		}
	}
	slices.SortFunc(fresh.records, func(a, b record) int { return cmp.Compare(a.seq, b.seq) })
	size := 16
	for size < 4*len(fresh.records) {
		size *= 2
	}
	fresh.table = make([]uint32, size)
	for i := range fresh.records {
		fresh.point(i)
	}
	s.mu.Lock()
	s.records, s.table, s.live = fresh.records, fresh.table, len(fresh.records)
	s.mu.Unlock()
	for i := range gone {
		l.count[i].Add(-gone[i]) // when the entries cannot be found any more
	}
	return dropped
}

// find returns the live record of id.
func (s *shard) find(id ID) (record, bool) {
	if len(s.table) == 0 {
		return record{}, false
	}
	at := s.table[s.slot(id)]
	if at == 0 {
		return record{}, false
	}
	return s.records[at-1], true
}

// point has the table lead to the record at position i instead of any other with its ID. It
// reports whether there was no other.
func (s *shard) point(i int) (added bool) {
	slot := s.slot(s.records[i].id)
	added = s.table[slot] == 0
	s.table[slot] = uint32(i + 1)
	return added
}

// slot returns the place in the table where id is or would be. There is always a free
// one.
func (s *shard) slot(id ID) uint32 {
	mask := uint32(len(s.table) - 1)
	slot := binary.LittleEndian.Uint32(id[4:]) & mask
	for s.table[slot] != 0 && s.records[s.table[slot]-1].id != id {
		slot = (slot + 1) & mask
	}
	return slot
}

// merge is a heap of runs of records, the one with the lowest number on top.
type merge [][]record

func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return m[i][0].seq < m[j][0].seq }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)        { *m = append(*m, x.([]record)) }
func (m *merge) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}
