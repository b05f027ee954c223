package audit

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// What is stored of events that cost their actor nothing. Without a bound, any user could
// fill the database with them. Each replica counts for itself, and so a cluster may store
// as many times more as it has replicas: state.Limit, which counts for the whole cluster,
// would write to the database for each event, and that is what has to be avoided.
var (
	// likeRate is for events that are alike: 30 at once, and one a minute in the long run,
	// which then stands for all that were left out.
	likeRate = state.Rate{Burst: 30, Period: 30 * time.Minute}
	// actorRate is for all events of one actor together: two a minute in the long run.
	actorRate = state.Rate{Burst: 120, Period: time.Hour}
	// strangerRate is for all events together that have no actor, as refused logins have:
	// ten a minute in the long run. The accounts that are guessed at most come first.
	strangerRate = state.Rate{Burst: 300, Period: 30 * time.Minute}
)

// floodKinds is how many kinds of events a replica counts apart from each other. All
// further ones share one budget.
const floodKinds = 10_000

// A flood counts events that are alike.
type flood struct {
	mu     sync.Mutex
	kinds  map[kind]*alike
	actors map[string]int64 // arrival of state.Rate.Decide
	swept  time.Time        // when idle kinds and actors were last forgotten
}

// A kind is what events have in common that are alike. Those of an actor have the actor,
// the action and the outcome; those without one have the target in its place. The zero kind
// is for all that find no room.
type kind struct{ actor, target, action, outcome string }

// alike are the events of one kind.
type alike struct {
	arrival int64            // of state.Rate.Decide
	left    int              // how many are not stored
	last    store.AuditEvent // the last one of these
}

func newFlood() *flood { return &flood{kinds: map[kind]*alike{}, actors: map[string]int64{}} }

// admit reports whether an event is to be stored at once. If not, it is counted.
func (f *flood) admit(e store.AuditEvent, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.ofLocked(e, now)
	if f.allowLocked(a, e, now) {
		return true
	}
	a.left, a.last = a.left+1, e
	return false
}

// count counts an event, to be stored by way of due.
func (f *flood) count(e store.AuditEvent, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.ofLocked(e, now)
	a.left, a.last = a.left+1, e
}

// due returns what is to be stored of the events that were counted: one event for all of a
// kind, those that stand for the most first. With all set, it asks no budget, and returns at
// most lastEvents.
func (f *flood) due(now time.Time, all bool) (events []store.AuditEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	type counted struct {
		kind
		*alike
	}
	var list []counted
	for k, a := range f.kinds {
		if a.left > 0 {
			list = append(list, counted{k, a})
		}
	}
	slices.SortFunc(list, func(a, b counted) int { return cmp.Compare(b.left, a.left) })
	for _, c := range list {
		if all && len(events) == lastEvents {
			break
		}
		if !all && !f.allowLocked(c.alike, c.last, now) {
			continue
		}
		events = append(events, summary(c.kind, *c.alike))
		c.left, c.last = 0, store.AuditEvent{}
	}
	return events
}

// lastEvents is how many events a replica that ends still stores of those it has counted.
const lastEvents = 100

// summary returns one event that stands for all that are counted.
func summary(k kind, a alike) store.AuditEvent {
	e := a.last
	switch {
	case k == kind{}:
		return store.AuditEvent{Action: "audit.left_out", Outcome: e.Outcome, Detail: fmt.Sprintf("%d times, of many actors", a.left)}
	case a.left > 1:
		e.Detail = fmt.Sprintf("%d times; %s", a.left, e.Detail)
	}
	return clean(e) // the detail may have become too long
}

// allowLocked spends what storing an event takes of the budgets, if they have it.
func (f *flood) allowLocked(a *alike, e store.AuditEvent, now time.Time) bool {
	actor, rate := e.Actor, actorRate
	if _, known := f.actors[actor]; !known && len(f.actors) >= floodKinds {
		actor = "" // there is no room for another one
	}
	if actor == "" {
		rate = strangerRate
	}
	ofKind, one := likeRate.Decide(a.arrival, now.UnixMicro())
	ofActor, all := rate.Decide(f.actors[actor], now.UnixMicro())
	if !one.Allowed || !all.Allowed {
		return false
	}
	a.arrival, f.actors[actor] = ofKind, ofActor
	return true
}

// ofLocked returns the events that are like one. When too many kinds are known, those are
// forgotten whose whole budget is free again and of which nothing is left to be stored.
func (f *flood) ofLocked(e store.AuditEvent, now time.Time) *alike {
	k := kind{actor: e.Actor, action: e.Action, outcome: e.Outcome}
	if e.Actor == "" {
		k.target = e.Target
	}
	if a, ok := f.kinds[k]; ok {
		return a
	}
	if max(len(f.kinds), len(f.actors)) >= floodKinds && now.Sub(f.swept) >= time.Second {
		f.swept = now
		for name, a := range f.kinds {
			if a.left == 0 && a.arrival < now.UnixMicro() {
				delete(f.kinds, name)
			}
		}
		for name, arrival := range f.actors {
			if arrival < now.UnixMicro() {
				delete(f.actors, name)
			}
		}
	}
	if len(f.kinds) >= floodKinds {
		k = kind{}
	}
	a, ok := f.kinds[k]
	if !ok {
		a = &alike{}
		f.kinds[k] = a
	}
	return a
}
