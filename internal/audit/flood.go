package audit

import (
	"fmt"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// What is refused costs the one who asks nothing, so of his refusals the store gets
// floodBurst, and from then on one for each floodEvery, which says how many were left
// out. The log has them all.
const (
	floodBurst = 30
	floodEvery = time.Second
	// floodActors bounds whom a replica remembers.
	floodActors = 10000
)

// A flood knows who was refused how often.
type flood struct {
	mu     sync.Mutex
	actors map[string]*refusals
}

type refusals struct {
	full time.Time // as of when the whole burst is there again
	left int       // how many were left out since the last one that was stored
}

// stored says whether an event goes into the store, and as what.
func (f *flood) stored(e store.AuditEvent) (store.AuditEvent, bool) {
	if e.Outcome != Denied && e.Outcome != Failed {
		return e, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.of(e.Actor, e.At)
	if r.full.Before(e.At) {
		r.full = e.At
	}
	if r.full.Add(floodEvery).Sub(e.At) > floodBurst*floodEvery {
		r.left++
		return e, false
	}
	r.full = r.full.Add(floodEvery)
	if r.left > 0 {
		e.Detail = fmt.Sprintf("%d refusals before were left out; %s", r.left, e.Detail)
		r.left = 0
		return clean(e), true // its detail has become longer
	}
	return e, true
}

// of finds the actor's, and forgets those who have been quiet when there are many.
func (f *flood) of(actor string, now time.Time) *refusals {
	if r, ok := f.actors[actor]; ok {
		return r
	}
	if len(f.actors) >= floodActors {
		for name, r := range f.actors {
			if r.full.Before(now) {
				delete(f.actors, name)
			}
		}
	}
	r := &refusals{}
	f.actors[actor] = r
	return r
}
