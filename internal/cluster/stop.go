package cluster

import (
	"math"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
)

// takeInStopLocked finds out whether all replicas had stopped before this one joined, and when.
//
// The registry says so, and may be wrong: after the database was away, live replicas look
// silent for a moment. Therefore each silent one must be one that AskAll asks, and none may
// beat again.
func (r *registry) takeInStopLocked(stop store.Stop) {
	joining := r.joined == math.MaxInt64
	if joining {
		r.stopped, r.together = time.Time{}, !stop.CachesEnd.IsZero()
		clear(r.silent)
		// With less than that in between, a key of another replica that was made since could
		// look older by that one's clock.
		if at := stop.CachesEnd.Add(-r.cfg.MaxAge); !stop.CachesEnd.IsZero() && r.asOf.Sub(at) >= timing.Leeway {
			r.stopped = at.Add(r.ahead).UTC()
		}
	}
	for _, other := range r.replicas {
		if other.Instance == r.cfg.Instance {
			continue
		}
		live := r.silentLocked(other) < timing.LiveFor
		switch {
		case joining && slices.Contains(stop.Started, other.Incarnation):
		case joining && !live:
			r.silent[other.Incarnation] = true
			if r.cfg.Peers == nil && other.URL == "" {
				r.stopped = time.Time{}
			}
		case joining || live && r.silent[other.Incarnation]:
			r.stopped = time.Time{}
		}
	}
}

// notStopped notes that another replica is live.
func (r *registry) notStopped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = time.Time{}
}

// stoppedAt: see Cluster.Stopped.
func (r *registry) stoppedAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}
