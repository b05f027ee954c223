package state

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever the rate and whenever the events come: in no stretch of time more are
// allowed than the burst and what drains meanwhile, what is promised is kept, and
// a clock that is set back locks no caller out.
func TestDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := Rate{
			Burst:  rapid.IntRange(1, 1000).Draw(t, "burst"),
			Period: time.Duration(rapid.Int64Range(1, 1e8).Draw(t, "period")) * time.Microsecond,
		}
		now := int64(1_800_000_000_000_000)
		var arrival int64
		var allowed []int64
		for range rapid.IntRange(1, 200).Draw(t, "events") {
			now += rapid.Int64Range(0, 2*rate.Interval()).Draw(t, "pause")
			next, d := rate.Decide(arrival, now)
			if d.Allowed {
				allowed = append(allowed, now)
			} else {
				if next != arrival { // it was never more than full
					t.Fatal("an event that was not allowed was counted")
				}
				wait := d.RetryAfter.Microseconds()
				if _, later := rate.Decide(arrival, now+wait); wait <= 0 || !later.Allowed {
					t.Fatalf("retry after %v, but then: %+v", d.RetryAfter, later)
				}
				if _, sooner := rate.Decide(arrival, now+wait-1); sooner.Allowed {
					t.Fatalf("allowed before the %v", d.RetryAfter)
				}
			}
			left, probe := 0, next
			for {
				var more Decision
				if probe, more = rate.Decide(probe, now); !more.Allowed {
					break
				}
				left++
			}
			if left != d.Remaining {
				t.Fatalf("%d remaining, said %d", left, d.Remaining)
			}
			if _, reset := rate.Decide(next, now+d.ResetAfter.Microseconds()); reset.Remaining != rate.Burst-1 {
				t.Fatalf("after the reset %+v", reset)
			}
			arrival = next
		}
		for i := range allowed {
			for j := i; j < len(allowed); j++ {
				most := int64(rate.Burst) + (allowed[j]-allowed[i])/rate.Interval()
				if int64(j-i+1) > most {
					t.Fatalf("%d events within %d µs, at most %d", j-i+1, allowed[j]-allowed[i], most)
				}
			}
		}
		next, back := rate.Decide(arrival, now-3600e6)
		if back.RetryAfter.Microseconds() > rate.Interval() {
			t.Fatalf("the clock went back an hour: retry after %v", back.RetryAfter)
		}
		if _, later := rate.Decide(next, now-3600e6+back.RetryAfter.Microseconds()); !back.Allowed && !later.Allowed {
			t.Fatalf("the clock went back an hour: retry after %v, but then: %+v", back.RetryAfter, later)
		}
	})
}

func TestNewVersion(t *testing.T) {
	seen := make(map[int64]bool)
	for range 10_000 {
		v := NewVersion()
		if v <= 0 || seen[v] {
			t.Fatalf("version %d", v)
		}
		seen[v] = true
	}
}
