package verify

import (
	"testing"
	"time"
	"unsafe"
)

// While a machine is suspended its monotonic clock may stand still.
func TestASuspendedMachineDoesNotTrustItself(t *testing.T) {
	now := time.Now()
	f := newFollower(Config{MaxStaleness: 5 * time.Second, Now: func() time.Time { return now }})
	f.confirmed.Store(&now)
	if !f.within(f.lastConfirmed(), f.cfg.MaxStaleness) {
		t.Error("stale at once")
	}
	confirmed := now
	now = suspended(t, now, time.Hour)
	if f.within(confirmed, f.cfg.MaxStaleness) {
		t.Error("fresh after an hour's sleep")
	}
	now = confirmed.Add(6 * time.Second)
	now = suspended(t, now, -time.Hour) // the clock was set back
	if f.within(confirmed, f.cfg.MaxStaleness) {
		t.Error("fresh after six seconds, because the clock was set back")
	}
}

// suspended is a time at which the wall clock shows so much more, and the monotonic
// one the same.
func suspended(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	moved := at
	const seconds = 30 // the bit at which they begin in the first word of a time.Time
	*(*uint64)(unsafe.Pointer(&moved)) += uint64(d/time.Second) << seconds
	if moved.Sub(at) != 0 || moved.Round(0).Sub(at.Round(0)) != d {
		t.Fatal("package time keeps its times in another way")
	}
	return moved
}
