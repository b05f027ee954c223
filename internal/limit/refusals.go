package limit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

const (
	// maxRefusals bounds the memory for refusals. One that finds no room is asked for again.
	maxRefusals = 1 << 16
	// lookEvery is how often a refusal that is used may be out of date because an
	// administrator has lifted it at another replica.
	lookEvery = time.Second
	// liftKept is for how long the record of a lift is kept: longer than any replica remembers
	// a refusal.
	liftKept = maxRemembered + time.Minute
	// maxRemembered bounds for how long a refusal is remembered.
	maxRemembered = time.Hour
)

// lifted is written whenever an administrator lifts something; its version tells each time from
// the others.
var lifted = state.Key{Kind: "limits", Owner: "lifted", ID: "lifted"}

// refusals are what this replica need not ask the state about, since the answer is known: it
// is refused for some time.
type refusals struct {
	now func() time.Time

	mu     sync.Mutex
	until  map[state.Key]time.Time
	seen   int64     // version of lifted
	looked time.Time // when
	lifts  int       // how many were seen, and how often all refusals were forgotten
	swept  time.Time // when there were last too many
}

// seenLifts returns how many lifts were seen, for add.
func (r *refusals) seenLifts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lifts
}

// add remembers that what the key counts is refused for some time. lifts is how many were seen
// before the state was asked: if there has been one since, the refusal may be of before it.
func (r *refusals) add(key state.Key, wait time.Duration, lifts int) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lifts != lifts {
		return
	}
	if r.until == nil {
		r.until = map[state.Key]time.Time{}
	}
	if len(r.until) >= maxRefusals {
		if now.Sub(r.swept) < lookEvery {
			return
		}
		r.swept = now
		for k, end := range r.until {
			if !end.After(now) {
				delete(r.until, k)
			}
		}
		if len(r.until) >= maxRefusals {
			return
		}
	}
	r.until[key] = now.Add(min(wait, maxRemembered))
}

// forget forgets all refusals, also those that are on their way, because from now on other
// counters count, or these from zero.
func (r *refusals) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lifts++
	clear(r.until)
}

// wait returns for how long what the key counts is still refused; 0: that is not known. It asks
// the state now and then whether something has been lifted since.
func (r *refusals) wait(ctx context.Context, s state.Store, key state.Key) (time.Duration, error) {
	now := r.now()
	r.mu.Lock()
	end, found := r.until[key]
	if !found || !end.After(now) {
		delete(r.until, key)
		r.mu.Unlock()
		return 0, nil
	}
	look := now.Sub(r.looked) >= lookEvery
	if look {
		r.looked = now
	}
	r.mu.Unlock()
	if !look {
		return end.Sub(now), nil
	}
	record, err := s.Get(ctx, lifted)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return end.Sub(now), nil // it stays refused
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if record.Version != r.seen {
		r.seen = record.Version
		r.lifts++
		clear(r.until)
		return 0, nil
	}
	return end.Sub(now), nil
}
