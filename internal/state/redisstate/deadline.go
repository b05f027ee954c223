package redisstate

import (
	"context"
	"sync/atomic"
	"time"
)

// A deadline ends what was begun about the same time. A context of its own for
// each operation, with a timer and a place in its parent, would cost a third of
// the throughput.
type deadline struct {
	context.Context // Background
	began, end      time.Time
	done            chan struct{}
}

// share is how long operations begin under one deadline: the last of them have
// that much less than the timeout.
const share = 50 * time.Millisecond

func newDeadline(began time.Time, timeout time.Duration) *deadline {
	d := &deadline{context.Background(), began, began.Add(timeout), make(chan struct{})}
	time.AfterFunc(timeout, func() { close(d.done) })
	return d
}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return d.end, true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} { return d.done }

// Err implements context.Context.
func (d *deadline) Err() error {
	select {
	case <-d.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// deadlines gives each operation its deadline.
type deadlines struct {
	timeout time.Duration
	current atomic.Pointer[deadline]
}

// bound returns the context of an operation: the caller's if that ends in time,
// or has ended, else one that does. So a caller that goes away in the middle waits
// for the answer all the same, but not longer than the timeout.
func (s *deadlines) bound(ctx context.Context) context.Context {
	now := time.Now()
	if end, ok := ctx.Deadline(); ctx.Err() != nil || ok && end.Before(now.Add(s.timeout)) {
		return ctx
	}
	d := s.current.Load()
	if d == nil || now.Sub(d.began) > share {
		d = newDeadline(now, s.timeout)
		s.current.Store(d)
	}
	return d
}
