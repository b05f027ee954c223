package revocation

import (
	"log/slog"
	"testing"
	"time"
)

// The floor is a time by the database's clock, later with each log that the view begins to
// read, also if the clock is not, and the same while the log is.
func TestFloor(t *testing.T) {
	m := newMemLog()
	v, err := NewView(Config{Store: m, Poll: time.Second, MaxStaleness: time.Minute, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	refresh := func() int64 {
		t.Helper()
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		return v.Floor()
	}
	if v.Floor() != 0 {
		t.Errorf("it is %d before anything was read", v.Floor())
	}
	m.set(func(m *memLog) { m.ahead = 4 * time.Hour })
	before := time.Now().Add(4 * time.Hour)
	first := refresh()
	if after := time.Now().Add(4 * time.Hour); first < before.UnixMilli() || first > after.UnixMilli() {
		t.Errorf("it is %v, between %v and %v", time.UnixMilli(first), before, after)
	}
	m.set(func(m *memLog) { m.ahead += time.Hour })
	if again := refresh(); again != first {
		t.Errorf("it has become %v, in the same log", time.UnixMilli(again))
	}
	m.set(func(m *memLog) { m.id = "log-2" })
	second := refresh()
	if second-first < time.Hour.Milliseconds() {
		t.Errorf("it is %v in another log an hour later, and was %v", time.UnixMilli(second), time.UnixMilli(first))
	}
	m.set(func(m *memLog) { m.id, m.ahead = "log-3", -time.Hour })
	if third := refresh(); third != second+1 {
		t.Errorf("it is %v in a log on a server whose clock is behind, and was %v", time.UnixMilli(third), time.UnixMilli(second))
	}
}
