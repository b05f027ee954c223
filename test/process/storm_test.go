package process

import "testing"

// The Go scheduler has a processor that no hash takes, also where there is one CPU.
func TestHashesLeaveAProcessorOfTheScheduler(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cpus, workers string
		want          float64
	}{{"1", "0", 2}, {"3", "0", 3}, {"3", "2", 3}, {"3", "3", 4}, {"3", "4", 5}} {
		n := start(t, t.TempDir(), "GOMAXPROCS="+c.cpus, "WATCHWORD_PASSWORD_WORKERS="+c.workers)
		if got := n.Metric("go_sched_gomaxprocs_threads"); got != c.want {
			t.Errorf("%s CPUs, password.workers %s: %v processors, want %v", c.cpus, c.workers, got, c.want)
		}
	}
}
