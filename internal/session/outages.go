package session

import (
	"context"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/poll"
	"github.com/watchword-auth/watchword/internal/timing"
)

// maxOutages bounds how many outages are remembered. Without the older ones a grace period
// is shorter, never longer.
const maxOutages = 100

// outages are the times in which this replica could not reach the state. It finds them out
// by asking by itself, now and then: what a request meets is no measure, because clients
// can hang up, and have their own records busy, as they like.
type outages struct {
	mu      sync.Mutex
	reached time.Time // when the state last answered
	since   time.Time // beginning of the outage that has not ended; zero: there is none
	past    []interval
}

type interval struct{ from, to time.Time }

// note notes that the state was asked at a time, and whether it had answered at another.
func (o *outages) note(asked, now time.Time, answered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !answered {
		if o.since.IsZero() {
			// It may have begun just after the last answer.
			if o.since = asked.Add(-timing.StatePoll); o.since.Before(o.reached) {
				o.since = o.reached
			}
		}
		return
	}
	if !o.since.IsZero() {
		o.past = append(o.past[max(0, len(o.past)+1-maxOutages):], interval{o.since, now})
	}
	o.reached, o.since = now, time.Time{}
}

// between returns for how long, between two times, the state could not be reached.
func (o *outages) between(from, to time.Time) (sum time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, one := range o.past {
		sum += one.within(from, to)
	}
	if !o.since.IsZero() {
		sum += interval{o.since, to}.within(from, to)
	}
	return sum
}

// within returns how much of the interval lies between two times.
func (i interval) within(from, to time.Time) time.Duration {
	if i.from.After(from) {
		from = i.from
	}
	if i.to.Before(to) {
		to = i.to
	}
	return max(0, to.Sub(from))
}

// Run asks every second whether the state can be reached, until ctx ends: no grace period
// runs while it cannot.
func (s *Store) Run(ctx context.Context) {
	poll.Loop{
		Do: s.reach, Every: timing.StatePoll, Bell: poll.NewBell(), Logger: s.Logger,
		Failing: "the store of sessions does not answer; nobody can log in or renew",
		Working: "the store of sessions answers again",
	}.Run(ctx)
}

// reach asks once.
func (s *Store) reach(ctx context.Context) error {
	asked := s.Now()
	bounded, cancel := context.WithTimeout(ctx, timing.StateTimeout)
	defer cancel()
	err := s.State.Ping(bounded)
	if ctx.Err() == nil { // else the replica ends
		s.outages.note(asked, s.Now(), err == nil)
	}
	return err
}
