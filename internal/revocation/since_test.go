package revocation

import (
	"log/slog"
	"testing"
	"time"
	"unsafe"
)

// While a machine is suspended its monotonic clock may stand still.
func TestASuspendedMachineDoesNotTrustItself(t *testing.T) {
	now := time.Now()
	v, err := NewView(Config{
		Store: newMemLog(), Poll: time.Second, MaxStaleness: 5 * time.Second,
		Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Refresh(t.Context()); err != nil || v.Ready() != nil {
		t.Fatal(err, v.Ready())
	}
	began := now
	now = suspended(t, now, time.Hour)
	if v.Ready() == nil {
		t.Error("fresh after an hour's sleep")
	}
	if p, err := v.Page("", 0, 1); err != nil || p.Age < time.Hour.Milliseconds() {
		t.Errorf("a page of %d ms, %v", p.Age, err)
	}
	now = suspended(t, began.Add(6*time.Second), -time.Hour) // the clock was set back
	if v.Ready() == nil {
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
