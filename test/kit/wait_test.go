package kit

import (
	"testing"
	"testing/synctest"
	"time"
)

// What takes too long fails, unless the machine is as slow with ordinary work; one sample that
// meets something rare excuses nothing.
func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		name         string
		took, sample time.Duration
		rare         time.Duration // the first sample
		fails        bool
	}{
		{name: "in time", took: 2 * time.Second, sample: time.Millisecond},
		{name: "late", took: 2*time.Second + 17*time.Millisecond, sample: time.Millisecond, fails: true},
		{name: "late on a busy machine", took: 2*time.Second + 16*100*time.Millisecond, sample: 100 * time.Millisecond},
		{name: "too late on a busy machine", took: 2*time.Second + 17*100*time.Millisecond, sample: 100 * time.Millisecond, fails: true},
		{name: "late, and something rare", took: 3 * time.Second, sample: time.Millisecond, rare: time.Minute, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := &failing{TB: t}
				first := true
				Within(seen, "it works", tt.took, 2*time.Second, func() {
					time.Sleep(tt.sample)
					if first {
						time.Sleep(tt.rare)
					}
					first = false
				})
				if seen.failed != tt.fails {
					t.Errorf("it fails: %v", seen.failed)
				}
			})
		})
	}
}

// A failing takes down that a test fails.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Errorf(string, ...any) { f.failed = true }
func (f *failing) Helper()               {}
