package activity

import "time"

// The columns of a point. They are the format of the record: new ones come at the end.
const (
	signIns = iota
	signInsRefused
	renewals
	renewalsRefused
	verifications
	verificationsRefused
	sessionsBegun
	sessionsEnded
	revocations
	limitsHit
	lockouts
	requests
	failures
	latency                         // the first of buckets columns
	propagation = latency + buckets // the same
	columns     = propagation + buckets
)

// maxFigure is the highest figure of a point: 298,000 a second for a quarter of an hour. A higher
// one is kept as this one. It is what four bytes hold, so that every record is within
// state.MaxValue.
const maxFigure = 1<<28 - 1

// figures are what happened in some time, by column.
type figures [columns]uint32

// add adds what happened besides.
func (f *figures) add(more *figures) {
	for i, n := range more {
		f[i] = min(f[i]+n, maxFigure) // both are maxFigure at most
	}
}

// A shape is how long the points of a ring are, and how many it has.
type shape struct {
	step   time.Duration
	length int
}

// shapes are the rings of a replica. Each has a few points more than a view shows, since replicas'
// clocks differ, and the newest points are not shown until all replicas have written them.
var shapes = [...]shape{
	{Every, 36},
	{time.Minute, 184},
	{15 * time.Minute, 196},
}

// slot returns the number of the point that a time belongs to; less than 1: none.
func (s shape) slot(at time.Time) int64 {
	return at.Unix() / int64(s.step/time.Second)
}

// A ring has the newest points of one length.
type ring struct {
	shape
	last   int64 // number of the newest point; 0: there is none
	known  []bool
	points []figures // a point stands at its number modulo length
}

func newRing(s shape) *ring {
	return &ring{shape: s, known: make([]bool, s.length), points: make([]figures, s.length)}
}

// at returns the point of a number, and whether there is one.
func (r *ring) at(slot int64) (*figures, bool) {
	if slot < 1 || slot > r.last || slot <= r.last-int64(r.length) {
		return nil, false
	}
	i := slot % int64(r.length)
	return &r.points[i], r.known[i]
}

// add adds figures to the point of a number. A number before all that the ring has means that the
// clock was set back: the ring begins anew.
func (r *ring) add(slot int64, f *figures) {
	if slot < 1 {
		return
	}
	n := int64(r.length)
	if slot <= r.last-n {
		r.last = 0
	}
	for s := max(r.last, slot-n) + 1; s <= slot; s++ {
		r.known[s%n], r.points[s%n] = false, figures{}
	}
	r.last = max(r.last, slot)
	r.points[slot%n].add(f)
	r.known[slot%n] = true
}

// each calls f with the known points, the oldest first.
func (r *ring) each(f func(slot int64, p *figures)) {
	for slot := r.last - int64(r.length) + 1; slot <= r.last; slot++ {
		if p, known := r.at(slot); known {
			f(slot, p)
		}
	}
}

// rings are all that a replica keeps.
type rings [len(shapes)]*ring

func newRings() (all rings) {
	for i, s := range shapes {
		all[i] = newRing(s)
	}
	return all
}

// add adds what happened around a time.
func (all rings) add(at time.Time, f *figures) {
	for _, r := range all {
		r.add(r.slot(at), f)
	}
}

// addAll adds what another process has kept, or what was kept after it.
func (all rings) addAll(more rings) {
	for i, r := range all {
		more[i].each(r.add)
	}
}

// minutes returns how many points of a minute are known.
func (all rings) minutes() (n int) {
	for _, known := range all[1].known {
		if known {
			n++
		}
	}
	return n
}
