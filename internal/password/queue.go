package password

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
)

// A Source is on whose behalf a hash is computed.
type Source struct {
	Address string // of the client; empty: none, as of the command line
	Account string // the name that the client has given; it may be nobody's
}

type sourceKey struct{}

// From returns a context whose hashes are on behalf of a source. Hashes without a source
// share the place of one client.
func From(ctx context.Context, s Source) context.Context {
	return context.WithValue(ctx, sourceKey{}, s)
}

var (
	// ErrBusy: the queue of this replica is full, and this client has used no more than
	// anybody may.
	ErrBusy = problem.New(problem.Unavailable, "login_busy", "too many logins at this moment; try again").After(time.Second)
	// ErrFlood: the queue of this replica is full, and this client's network, host or account
	// has used more than floodUsage.
	ErrFlood = problem.New(problem.TooMany, "too_many_logins", "too many logins from this network or for this account at this moment; try again later").After(10 * time.Second)
)

// ErrNoWorker: the hash was not waited for.
var ErrNoWorker = errors.New("password: no worker is free")

const (
	// usageHalfLife is how long it takes until half of what a client has used is forgotten:
	// long enough that an attacker who takes turns among many addresses is known again when
	// an address has its next turn.
	usageHalfLife = time.Minute
	// floodUsage is how many hashes of late make it a client's own fault that the queue is
	// full. People need one or two.
	floodUsage = 4
	// maxUsages bounds the memory of a queue. A replica with two workers computes 80 hashes
	// a second, which leave 7000 usages of 1/2 or more.
	maxUsages = 1 << 14
)

// A queue decides which hash is computed next, and which one does not find room. The hash
// comes first whose network has used the least of late, then the one whose host, then the
// one whose account has, then the one that has waited for longer. When too many wait, the
// last in that order is refused, whether or not it was there before.
//
// So a client that floods waits for itself alone; many clients that attack one account
// have each used more than its owner, who comes from elsewhere; and a client that shares
// its network or address with an attacker still comes before the attacker's accounts. What
// has been used follows the names that clients send, whether they exist or not, so that a
// refusal reveals nothing.
//
// A network is what somebody rents as a whole: an IPv4 /24, the least that is routed, or an
// IPv6 /48. A host is what one customer has: an IPv4 address, or an IPv6 /64.
//
// This is about the one replica and the present moment. It is no limit on attempts.
type queue struct {
	room int // how many may wait
	now  func() time.Time
	seed maphash.Seed

	mu      sync.Mutex
	free    int64 // KiB that no hash in work takes
	waiting []*ticket
	usages  map[uint64]usage
}

// A ticket is one hash that waits.
type ticket struct {
	parties [3]uint64 // network, host, account
	weight  int64     // KiB
	price   float64   // what it adds to the usage of its parties
	at      time.Time
	called  chan error // gets nil when the hash may be computed, or why it may not
}

// A usage is what a party had used at a time. It counts hashes of today's cost.
type usage struct {
	hashes float64
	at     time.Time
}

func newQueue(limit int64, room int, now func() time.Time) *queue {
	return &queue{room: room, now: now, seed: maphash.MakeSeed(), free: limit, usages: map[uint64]usage{}}
}

// enter returns nil when a hash may be computed; leave must follow. It returns ErrBusy or
// ErrFlood when there is no room to wait, and the context's error when the context ends.
func (q *queue) enter(ctx context.Context, weight int64, price float64) error {
	source, _ := ctx.Value(sourceKey{}).(Source)
	t := &ticket{parties: q.partiesOf(source), weight: weight, price: price, called: make(chan error, 1)}
	q.add(t)
	select {
	case err := <-t.called:
		return err
	case <-ctx.Done():
	}
	if q.withdraw(t) {
		return ctx.Err()
	}
	err := <-t.called // at the same moment
	if err == nil {
		q.leave(weight)
		err = ctx.Err()
	}
	return err
}

// enterNow is enter for a hash that nobody waits for. It takes no place of anybody, so that nobody is
// charged for it.
func (q *queue) enterNow(weight int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 || weight > q.free {
		return ErrNoWorker
	}
	q.free -= weight
	return nil
}

// leave makes room for the next hash.
func (q *queue) leave(weight int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free += weight
	q.callLocked(q.now())
}

// length returns how many hashes wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

func (q *queue) add(t *ticket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.at = q.now()
	for _, p := range t.parties {
		q.useLocked(p, t.price, t.at)
	}
	q.waiting = append(q.waiting, t)
	q.callLocked(t.at)
	if len(q.waiting) <= q.room {
		return
	}
	_, i := q.endsLocked(t.at)
	last := q.waiting[i]
	refusal := error(ErrBusy)
	if rank := q.rankLocked(last, t.at); slices.Max(rank[:]) > floodUsage {
		refusal = ErrFlood
	}
	q.removeLocked(last, t.at)
	last.called <- refusal
}

// withdraw removes a hash that waits, and reports whether it has waited until now.
func (q *queue) withdraw(t *ticket) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.removeLocked(t, q.now())
}

// callLocked lets the hashes begin that come first, as long as they find memory. A dear one
// that finds none is not overtaken by cheaper ones.
func (q *queue) callLocked(now time.Time) {
	for len(q.waiting) > 0 && q.free > 0 {
		i, _ := q.endsLocked(now)
		first := q.waiting[i]
		if first.weight > q.free {
			return
		}
		q.free -= first.weight
		q.waiting = slices.Delete(q.waiting, i, i+1)
		first.called <- nil
	}
}

// endsLocked returns which of the waiting hashes comes first, and which one last.
func (q *queue) endsLocked(now time.Time) (first, last int) {
	least := q.rankLocked(q.waiting[0], now)
	most := least
	for i, t := range q.waiting {
		rank := q.rankLocked(t, now)
		if slices.Compare(rank[:], least[:]) < 0 {
			first, least = i, rank
		}
		if slices.Compare(rank[:], most[:]) >= 0 {
			last, most = i, rank
		}
	}
	return first, last
}

// rankLocked returns what the parties of a hash have used, of which the first one counts
// most.
func (q *queue) rankLocked(t *ticket, now time.Time) (rank [3]float64) {
	for i, p := range t.parties {
		rank[i] = q.usedLocked(p, now)
	}
	return rank
}

// removeLocked takes back a hash that waits, and what it has used. It reports whether it
// has waited until now.
func (q *queue) removeLocked(t *ticket, now time.Time) bool {
	i := slices.Index(q.waiting, t)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	for _, p := range t.parties {
		q.useLocked(p, -t.price*remains(now.Sub(t.at)), now)
	}
	return true
}

// usedLocked returns what a party has used of late.
func (q *queue) usedLocked(party uint64, now time.Time) float64 {
	u := q.usages[party]
	return u.hashes * remains(now.Sub(u.at))
}

// useLocked adds to what a party has used.
func (q *queue) useLocked(party uint64, hashes float64, now time.Time) {
	used := q.usedLocked(party, now) + hashes
	if used < 1e-3 {
		delete(q.usages, party)
		return
	}
	if _, known := q.usages[party]; !known && len(q.usages) >= maxUsages {
		q.forgetLocked(now)
	}
	q.usages[party] = usage{used, now}
}

// forgetLocked forgets the half of the parties that has used the least. An attacker who
// appears under very many names does not make the queue forget those that flood it.
func (q *queue) forgetLocked(now time.Time) {
	all := make([]float64, 0, len(q.usages))
	for p := range q.usages {
		all = append(all, q.usedLocked(p, now))
	}
	slices.Sort(all)
	most, forget := all[len(all)/2], len(all)/2
	for p := range q.usages {
		if forget > 0 && q.usedLocked(p, now) <= most {
			delete(q.usages, p)
			forget--
		}
	}
}

// remains is the part of a usage that remains after a time.
func remains(d time.Duration) float64 {
	return math.Exp2(-max(d, 0).Seconds() / usageHalfLife.Seconds())
}

// partiesOf returns the parties of a source, by hashes that nobody outside can foresee, so
// that they take the same little memory however long the names are.
func (q *queue) partiesOf(s Source) [3]uint64 {
	network, host := blocksOf(s.Address)
	party := func(kind byte, name string) uint64 {
		var h maphash.Hash
		h.SetSeed(q.seed)
		_ = h.WriteByte(kind)
		_, _ = h.WriteString(name)
		return h.Sum64()
	}
	return [3]uint64{party('n', network), party('h', host), party('a', s.Account)}
}

// blocksOf returns the network and the host that an address belongs to.
func blocksOf(address string) (network, host string) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return "", ""
	}
	a = a.Unmap().WithZone("")
	bits := [2]int{24, 32}
	if a.Is6() {
		bits = [2]int{48, 64}
	}
	wide, _ := a.Prefix(bits[0]) // fails for bits that the family does not have
	narrow, _ := a.Prefix(bits[1])
	return wide.String(), narrow.String()
}
