package tiered

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A breaker keeps this replica's requests away from a Redis that has failed one
// of them, so that a Redis that is slow costs a moment now and then, and not one
// in each request. It opens at a failure. After a rest a ping asks, beside all
// requests, whether Redis is back; the first that is answered closes it.
type breaker struct {
	ping func(ctx context.Context) error
	now  func() time.Time
	rest time.Duration

	open  atomic.Bool
	mu    sync.Mutex // guards what follows, and the setting of open
	wait  time.Duration
	next  time.Time // no ping before
	pings bool      // one is under way
}

// maxRests is how many times the rest may double while Redis answers pings, and
// never anything else for long.
const maxRests = 12

// avoids says whether Redis is not to be asked now.
func (b *breaker) avoids() bool {
	if !b.open.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Load() && !b.pings && !b.now().Before(b.next) {
		b.pings = true
		go b.try()
	}
	return b.open.Load()
}

func (b *breaker) try() {
	ctx, cancel := context.WithTimeout(context.Background(), fastTimeout)
	defer cancel()
	err := b.ping(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pings = false
	if err != nil {
		b.next = b.now().Add(b.rest)
	} else {
		b.open.Store(false)
	}
}

// trip opens the breaker, and says whether it was closed.
func (b *breaker) trip() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Load() {
		return false
	}
	b.wait = min(max(2*b.wait, b.rest), maxRests*b.rest)
	b.next = b.now().Add(b.wait)
	b.open.Store(true)
	return true
}

// proved notes that Redis does all that is asked of it.
func (b *breaker) proved() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wait = 0
}
