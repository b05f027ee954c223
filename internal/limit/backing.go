package limit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/trace"
)

// A backing is where attempts are counted: in the shared state, or in this replica alone.
type backing struct {
	state.Store
	parts int    // into how many each number is divided
	rules *Rules // that hold for what is counted here
}

// part returns the part of a rate that is this replica's.
func (b backing) part(r state.Rate) state.Rate {
	return state.Rate{Burst: b.share(r.Burst), Period: r.Period}
}

// share is part for a number; 0 stays 0.
func (b backing) share(n int) int {
	if n == 0 {
		return 0
	}
	return max(1, n/b.parts)
}

// counted calls f with the shared state. If the state is away and this replica may count by
// itself, it calls f again with the counters of this replica.
func (l *Limiter) counted(ctx context.Context, f func(backing) error) (err error) {
	_, t := trace.Start(ctx, "count attempts")
	defer func() { t.End(err) }()
	rules := l.Present()
	if !rules.Local {
		return f(backing{l.State, 1, rules})
	}
	if l.local.only() {
		return l.alone(ctx, rules, f)
	}
	if l.local.counting() && !l.back(ctx) {
		return l.alone(ctx, rules, f)
	}
	err = f(backing{l.State, 1, rules})
	if !errors.Is(err, state.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	if l.local.begin() {
		l.Logger.ErrorContext(ctx, "the state does not answer; until it does, this replica counts attempts by itself", "replicas", l.Replicas(), "err", err)
	}
	return l.alone(ctx, rules, f)
}

// back reports whether the state answers again. It asks the state itself, because f need not: a
// refusal may be one that is remembered.
func (l *Limiter) back(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if l.State.Ping(ctx) != nil {
		return false
	}
	if l.local.end() {
		l.refusals.forget()
		l.Logger.InfoContext(ctx, "attempts are counted over all replicas again")
	}
	return true
}

// shared is the shared state, with the rules that hold now.
func (l *Limiter) shared() backing { return backing{l.State, 1, l.Present()} }

// alone calls f with the counters of this replica.
func (l *Limiter) alone(ctx context.Context, rules *Rules, f func(backing) error) error {
	s, err := l.local.store(ctx)
	if err != nil {
		return err
	}
	return f(backing{s, max(1, l.Replicas()), rules})
}

const (
	// askEvery is how often one attempt asks the state whether it is back, while all others are
	// counted by this replica.
	askEvery = time.Second
	// askFor is how long that attempt waits for the answer.
	askFor = 200 * time.Millisecond
	// maxLocal bounds how many counters this replica keeps by itself: 50 MB at most.
	maxLocal = 1 << 16
)

var errLocalFull = errors.New("limit: this replica cannot count more attempts by itself")

// keptFor is how long this replica keeps its counters when the state is back, so that nothing is
// forgotten while it comes and goes.
const keptFor = time.Minute

// local is what this replica counts by itself while the state is away.
type local struct {
	now func() time.Time

	mu       sync.Mutex
	away     bool
	ask      time.Time // when the state is asked again
	back     time.Time // since when it has not been away
	counters *memstate.Store
	swept    time.Time // when the counters were last swept because they were too many
}

// counting reports whether this replica counts by itself.
func (o *local) counting() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.away
}

// only reports whether the state need not be asked: it is away, and was asked a moment ago.
func (o *local) only() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	if !o.away {
		if now.Sub(o.back) > keptFor {
			o.counters = nil
		}
		return false
	}
	if now.Before(o.ask) {
		return true
	}
	o.ask = now.Add(askEvery)
	return false
}

// begin says that the state gave no answer, and reports whether it is the first time.
func (o *local) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := !o.away
	o.away, o.ask = true, o.now().Add(askEvery)
	return first
}

// end says that the state answered, and reports whether it was away.
func (o *local) end() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.away
	if was {
		o.away, o.back = false, o.now()
	}
	return was
}

// store returns the counters, or ErrUnavailable if there are too many.
func (o *local) store(ctx context.Context) (state.Store, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.counters == nil {
		o.counters = memstate.New(o.now)
	}
	if now := o.now(); o.counters.Len() >= maxLocal && now.Sub(o.swept) >= askEvery {
		o.swept = now
		if _, err := o.counters.Sweep(ctx, maxLocal); err != nil {
			return nil, err
		}
	}
	if o.counters.Len() >= maxLocal {
		return nil, state.ErrUnavailable.Because(errLocalFull)
	}
	return o.counters, nil
}
