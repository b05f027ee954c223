package audit

import (
	"fmt"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// floodRate is how many refusals of one actor are stored: 30 at once, and one per
// second in the long run. A refused request costs its sender nothing, so without a
// bound any user could fill the database with refusals. The log has all of them.
//
// Each replica counts for itself, and so a cluster may store as many times more as it
// has replicas. state.Limit, which counts for the whole cluster, would write to the
// database for each refusal, and that is what has to be avoided.
var floodRate = state.Rate{Burst: 30, Period: 30 * time.Second}

// floodActors is how many actors a replica counts apart from each other. All further
// ones share one budget.
const floodActors = 10_000

// A flood counts the refusals of each actor.
type flood struct {
	mu     sync.Mutex
	actors map[string]*refusals
	swept  time.Time // when idle actors were last forgotten
}

// refusals are those of one actor.
type refusals struct {
	arrival int64 // of state.Rate.Decide
	left    int   // how many were left out since the last one that was stored
}

// admit reports whether an event is to be stored, and returns it as it is to be stored:
// the first refusal after others that were left out says in its detail how many.
func (f *flood) admit(e store.AuditEvent) (store.AuditEvent, bool) {
	if e.Outcome != Denied && e.Outcome != Failed {
		return e, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.ofLocked(e.Actor, e.At)
	var d state.Decision
	if r.arrival, d = floodRate.Decide(r.arrival, e.At.UnixMicro()); !d.Allowed {
		r.left++
		return e, false
	}
	if r.left > 0 {
		e.Detail = fmt.Sprintf("%d refusals before were left out; %s", r.left, e.Detail)
		r.left = 0
		e = clean(e) // the detail may have become too long
	}
	return e, true
}

// ofLocked returns the refusals of an actor. When too many actors are known, those whose
// whole budget is free again are forgotten. f.mu is held.
func (f *flood) ofLocked(actor string, now time.Time) *refusals {
	if r, ok := f.actors[actor]; ok {
		return r
	}
	if len(f.actors) >= floodActors && now.Sub(f.swept) >= time.Second {
		f.swept = now
		for name, r := range f.actors {
			if r.arrival < now.UnixMicro() {
				delete(f.actors, name)
			}
		}
	}
	if len(f.actors) >= floodActors {
		actor = "" // the budget of events without an actor
	}
	r, ok := f.actors[actor]
	if !ok {
		r = &refusals{}
		f.actors[actor] = r
	}
	return r
}
