package revocation

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A Shared is a memory that all replicas share. It is faster than the database, and may
// lose what is in it. Package redislog implements it.
type Shared interface {
	// Tell adds all entries that the log has after one number, up to another. Without
	// entries it notes that everything up to the second number is in the log, where
	// replicas read it.
	Tell(ctx context.Context, log string, after, to int64, lines []store.Revocation) error
	// Ask returns what is known of a token, as of one moment.
	Ask(ctx context.Context, t *accesstoken.Token) (Known, error)
}

// Known is what a Shared knows of a token.
type Known struct {
	Revoked bool
	// The memory has every entry of the log after From, up to To. Zero: it cannot say.
	Log      string
	From, To int64
}

// covers reports whether a replica that has the whole log up to a head, together with the
// memory, has everything up to now.
func (k Known) covers(h store.LogHead) bool { return k.Log == h.ID && k.From <= h.Seq && h.Seq <= k.To }

const (
	// sharedTimeout bounds each use of a Shared. After a failure it is not used for
	// sharedRest.
	sharedTimeout = 250 * time.Millisecond
	sharedRest    = time.Second
	// confirmTimeout is how long the check of a token waits for the database.
	confirmTimeout = 2 * time.Second
)

// How a token is checked in shared mode.
const (
	byShared   = "redis"
	byDatabase = "database"
	byNobody   = "refused" // neither could be asked
)

// shared is the part of a View that has to do with revocation.check shared.
type shared struct {
	memory Shared       // nil: there is none, the database is asked
	down   atomic.Int64 // Unix nanoseconds until which memory is not used
	upTo   atomic.Int64 // memory has what this replica has read, up to this number; -1: unknown
	tellAt time.Time    // when memory was written last; only Run uses it
}

// Share gives the view a shared memory. It is called before Run.
func (v *View) Share(s Shared) { v.shared.memory = s }

// checkShared asks the shared memory, or the database, about a token that this replica
// does not know to be revoked. had is what this replica had read before it looked.
//
// That the memory does not have a token means nothing by itself: it may have been flushed,
// or have failed over. It counts if the memory says that it has everything since a number
// which this replica has passed, and up to at least what this replica has read.
func (v *View) checkShared(ctx context.Context, t *accesstoken.Token, had *confirmation) error {
	if known, ok := v.askShared(ctx, t); ok {
		switch {
		case known.Revoked:
			v.checks.WithLabelValues(byShared).Inc()
			return ErrRevoked
		case had != nil && revoked.Age(had.asOf, v.cfg.Now()) <= v.Trust() && known.covers(had.head):
			v.checks.WithLabelValues(byShared).Inc()
			return nil
		}
	}
	if err := v.confirmNow(ctx); err != nil {
		v.checks.WithLabelValues(byNobody).Inc()
		return err
	}
	v.checks.WithLabelValues(byDatabase).Inc()
	if _, revoked := v.list.Revoked(t); revoked {
		return ErrRevoked
	}
	return nil
}

// Trust is how long after a confirmation a replica relies on a shared memory. A replica
// that could not write to the memory waits for as long before it answers that something is
// revoked.
func (v *View) Trust() time.Duration { return min(2*v.cfg.Poll, v.cfg.MaxStaleness) }

func (v *View) askShared(ctx context.Context, t *accesstoken.Token) (Known, bool) {
	if !v.sharedUp() {
		return Known{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, sharedTimeout)
	defer cancel()
	known, err := v.shared.memory.Ask(ctx, t)
	if err != nil && context.Cause(ctx) != context.Canceled { // the client has not gone
		v.sharedFailed(err)
	}
	return known, err == nil
}

func (v *View) sharedUp() bool {
	return v.shared.memory != nil && v.cfg.Now().UnixNano() >= v.shared.down.Load()
}

func (v *View) sharedFailed(err error) {
	now := v.cfg.Now()
	if was := v.shared.down.Swap(now.Add(sharedRest).UnixNano()); now.UnixNano()-was > int64(sharedRest) {
		v.cfg.Logger.Warn("the shared store cannot be asked what was revoked; asking the database", "err", err)
	}
}

// confirmNow waits for a reading of the log that begins after the call, and returns
// ErrStale if that fails. All callers that wait share one reading.
func (v *View) confirmNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	called := v.round.Load()
	v.Ring()
	for {
		next := v.Next()
		if c := v.confirmed.Load(); c != nil && c.round > called {
			return nil
		}
		if v.failed.Load() > called {
			return ErrStale.After(v.cfg.Poll)
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ErrStale.After(v.cfg.Poll).Because(ctx.Err())
		}
	}
}

// tell gives the shared memory what this replica has just read, from one number of the
// log up to another. Only Run uses it.
func (v *View) tell(ctx context.Context, log string, after, to int64, lines []store.Revocation) {
	if !v.sharedUp() {
		v.shared.upTo.Store(-1)
		return
	}
	now := v.cfg.Now()
	if upTo := v.shared.upTo.Load(); upTo < 0 || upTo != after {
		// The memory lacks entries that were read before; a replica that relies on it must
		// have them.
		after, lines = to, nil
	} else if upTo == to && now.Sub(v.shared.tellAt) < v.cfg.Poll {
		return
	}
	v.shared.tellAt = now
	ctx, cancel := context.WithTimeout(ctx, sharedTimeout)
	defer cancel()
	if err := v.shared.memory.Tell(ctx, log, after, to, lines); err != nil {
		v.shared.upTo.Store(-1)
		v.sharedFailed(err)
		return
	}
	if v.shared.upTo.Swap(to) != to {
		v.wake() // for those that wait in settleShared
	}
}

// settleShared returns when no replica relies any more on a shared memory without the
// entry.
func (v *View) settleShared(ctx context.Context, seq int64) error {
	if v.shared.memory == nil {
		return nil
	}
	everybody := time.NewTimer(v.Trust())
	defer everybody.Stop()
	for {
		next := v.Next()
		if v.shared.upTo.Load() >= seq {
			return nil
		}
		select {
		case <-next:
		case <-everybody.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
