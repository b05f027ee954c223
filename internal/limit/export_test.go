package limit

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

// What tests look at, and write as an administrator does.
var (
	Lifted         = lifted
	LiftKept       = liftKept
	AccountCounter = accountCounter
	AddressCounter = addressCounter
	Bucket         = bucket
)

const (
	All         = all
	MaxRefusals = maxRefusals
	MaxLocal    = maxLocal
	KeptFor     = keptFor
	ForgetAfter = forgetAfter
)

// Remembered returns how many refusals are remembered.
func (l *Limiter) Remembered() int { return len(l.refusals.until) }

// Remember has n refusals remembered.
func (l *Limiter) Remember(n int, wait time.Duration) {
	for i := range n {
		l.refusals.add(bucket(Login, "address", fmt.Sprint(i), all), wait, l.refusals.seenLifts())
	}
}

// CountLocally has n buckets counted by this replica alone.
func (l *Limiter) CountLocally(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.local.counters.Limit(t.Context(), bucket(Login, "address", fmt.Sprint(i), all), state.Rate{Burst: 1, Period: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
}
