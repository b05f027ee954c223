package poll

import (
	"context"
	"log/slog"
	"time"
)

// A Bell wakes a Loop. It may be rung by any number of goroutines.
type Bell chan struct{}

// NewBell returns a bell that nobody has rung.
func NewBell() Bell { return make(Bell, 1) }

// Ring has the loop call its function once more, as soon as a call that is under way
// has returned. Ring never blocks.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default: // a ring is waiting; the call that follows it begins after this moment
	}
}

// A Loop calls a function again and again. Every field but Due is required.
type Loop struct {
	Do    func(ctx context.Context) error
	Every time.Duration // from the beginning of one call to that of the next
	Bell  Bell
	// Due returns for how long, from now, there is nothing to do before Every has
	// passed. Nil: until then.
	Due    func() time.Duration
	Logger *slog.Logger
	// Failing and Working are the log entries at the first failure of Do, and at the
	// success that ends it.
	Failing, Working string
}

// Run calls Do now and then as the fields say, until ctx ends.
func (l Loop) Run(ctx context.Context) {
	failing := false
	for {
		began := time.Now()
		err := l.Do(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			l.Logger.ErrorContext(ctx, l.Failing, "err", err)
		case err == nil && failing:
			l.Logger.InfoContext(ctx, l.Working)
		}
		failing = err != nil
		if !l.wait(ctx, began) {
			return
		}
	}
}

// wait returns when Do is to be called again, or false when ctx has ended.
func (l Loop) wait(ctx context.Context, began time.Time) bool {
	pause := l.Every - time.Since(began)
	if l.Due != nil {
		pause = min(pause, l.Due())
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-l.Bell:
	}
	return true
}
