package revocation

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A Shared is a memory of all replicas, faster than the database, that may lose
// what it was told (package redislog).
type Shared interface {
	// Tell adds lines: all that the log has after one number, up to another. Without
	// lines it says that everything up to the second number is in the log for
	// whoever reads it there.
	Tell(ctx context.Context, log string, after, to int64, lines []store.Revocation) error
	// Ask says what is known of a token, as of one moment.
	Ask(ctx context.Context, t *accesstoken.Token) (Known, error)
}

// Known is what a Shared knows of a token.
type Known struct {
	Revoked bool
	// It has every line of the log after From, up to To; zero if it cannot say.
	Log      string
	From, To int64
}

// covers says whether who has the whole log up to a number has, together with
// this, everything up to now.
func (k Known) covers(h store.LogHead) bool { return k.Log == h.ID && k.From <= h.Seq && h.Seq <= k.To }

const (
	// sharedTimeout bounds a question to a Shared, and telling it. One that has
	// failed is let alone for sharedRest.
	sharedTimeout = 250 * time.Millisecond
	sharedRest    = time.Second
	// confirmTimeout is how long a token waits for the database.
	confirmTimeout = 2 * time.Second
)

// The ways by which a token is asked about in shared mode.
const (
	byShared   = "redis"
	byDatabase = "database"
	byNobody   = "refused" // there was nobody to ask
)

// shared is the part of a View that has to do with revocation.check shared.
type shared struct {
	memory Shared       // nil: there is none, the database is asked
	down   atomic.Int64 // Unix nanoseconds until which memory is let alone
	told   atomic.Int64 // the number up to which memory knows what this replica has read; -1: unknown
	toldAt time.Time    // Run's alone
}

// Share gives the view a memory that is shared. To be called before Run.
func (v *View) Share(s Shared) { v.shared.memory = s }

// checkShared asks everybody's memory, or the database, about a token which this
// replica does not know to be taken back. had is what this replica had read before
// it looked.
//
// That a memory does not have a token means nothing by itself: it may have been
// flushed, or have failed over. It means something if the memory says that it has
// had everything since a number which this replica has passed, and has not lost
// anything that this replica has seen.
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

// Trust is for how long after a confirmation a replica relies on a shared memory.
// So whoever could not tell that memory waits as long before it says that
// something is taken back.
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
		v.cfg.Logger.Warn("the shared store cannot be asked what was taken back; asking the database", "err", err)
	}
}

// confirmNow has the log read by somebody who begins after the call, for all who
// wait, and returns ErrStale when that fails.
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

// tell gives the shared memory what this replica has just read, from one number of
// the log up to another. Run's alone.
func (v *View) tell(ctx context.Context, log string, after, to int64, lines []store.Revocation) {
	if !v.sharedUp() {
		v.shared.told.Store(-1)
		return
	}
	now := v.cfg.Now()
	if told := v.shared.told.Load(); told < 0 || told != after {
		// It lacks lines that were read before; who relies on it must have them.
		after, lines = to, nil
	} else if told == to && now.Sub(v.shared.toldAt) < v.cfg.Poll {
		return
	}
	v.shared.toldAt = now
	ctx, cancel := context.WithTimeout(ctx, sharedTimeout)
	defer cancel()
	if err := v.shared.memory.Tell(ctx, log, after, to, lines); err != nil {
		v.shared.told.Store(-1)
		v.sharedFailed(err)
		return
	}
	if v.shared.told.Swap(to) != to {
		v.wake() // who waits in settleShared
	}
}

// settleShared returns when no replica relies any more on a shared memory without
// the line.
func (v *View) settleShared(ctx context.Context, seq int64) error {
	if v.shared.memory == nil {
		return nil
	}
	everybody := time.NewTimer(v.Trust())
	defer everybody.Stop()
	for {
		next := v.Next()
		if v.shared.told.Load() >= seq {
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
