package login

import (
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
)

// What a user may do to this replica's database by way of what is their own. Sessions are
// counted when they begin, since the end of each is an entry in the revocation log: so that
// nobody, also no thief who has spent the budget, keeps a user from ending them. Superusers
// have no such bounds.
var (
	sessionRate    = state.Rate{Burst: 600, Period: 10 * time.Minute}
	revocationRate = state.Rate{Burst: 60, Period: time.Minute}

	errLoginsTooFast  = problem.New(problem.TooMany, "logging_in_too_fast", "this user has begun too many sessions of late; use and renew one")
	errRevokesTooFast = problem.New(problem.TooMany, "revoking_too_fast",
		"too many tokens of this user have been revoked of late; end their sessions, or revoke all tokens of the user at once")
)

// A budget counts what users do, each for themselves.
type budget struct {
	rate state.Rate

	mu       sync.Mutex
	arrivals map[string]int64 // of state.Rate.Decide, by user id
}

// maxArrivals is how many users are remembered before those are forgotten that have their
// whole budget again. The others are few: each has logged in during the last minutes.
const maxArrivals = 10_000

// spend counts one more. It returns after which time there is room for it; zero: there is.
func (b *budget) spend(user string, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.arrivals) >= maxArrivals {
		for name, arrival := range b.arrivals {
			if arrival <= now.UnixMicro() {
				delete(b.arrivals, name)
			}
		}
	}
	arrival, d := b.rate.Decide(b.arrivals[user], now.UnixMicro())
	if !d.Allowed {
		return d.RetryAfter
	}
	if b.arrivals == nil {
		b.arrivals = map[string]int64{}
	}
	b.arrivals[user] = arrival
	return 0
}
