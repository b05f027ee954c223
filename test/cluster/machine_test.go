package cluster

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// machine is what the long tests know of the machine that they run on. The short ones
// excuse nothing with it.
var machine = &witness{}

const (
	// portion is the processor time that the witness takes now and then, and starvation
	// how long that may take before one cannot say of a request that was not answered in
	// time whose fault it was: a process gets a twentieth of a processor then, or the
	// machine stood still.
	portion    = 50 * time.Millisecond
	starvation = 20 * portion
	between    = 2 * time.Second
)

// A witness tells a replica's fault from the machine's. It is no part of the cluster, and knows
// nothing of it.
type witness struct {
	mu     sync.Mutex
	found  []*trouble
	judged time.Time // up to then
}

// watch looks all the time.
func (w *witness) watch() {
	runtime.LockOSThread() // whose time is measured
	for {
		began := time.Now()
		time.Sleep(between)
		for spent := threadTime(); threadTime()-spent < portion; {
		}
		w.note(began, time.Now())
	}
}

// note takes down one look. Afterwards it takes as long again, and a little, until
// timers, health checks and what has queued up are in order.
func (w *witness) note(began, ended time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if lost := ended.Sub(began) - between; lost > starvation {
		w.found = append(w.found, &trouble{kind: starved, from: began, to: ended.Add(lost + between)})
	}
	w.judged = ended
}

// threadTime is the processor time that this thread has had.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var r syscall.Rusage
	_ = syscall.Getrusage(thread, &r) // fails for a wrong argument alone
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// awaitJudged waits until the witness, if there is one, has looked at that moment.
func (w *witness) awaitJudged(ctx context.Context, moment time.Time) {
	if !long {
		return
	}
	for ctx.Err() == nil {
		w.mu.Lock()
		done := w.judged.After(moment)
		w.mu.Unlock()
		if done {
			return
		}
		pause(ctx, between/20)
	}
}

// excuses reports whether a request, which lies before what was looked at, may have failed
// because of the machine.
func (w *witness) excuses(e event) bool {
	return slices.ContainsFunc(w.troubles(), func(t *trouble) bool { return t.excuses(e) })
}

func (w *witness) troubles() []*trouble {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.found)
}

func (w *witness) times() int { return len(w.troubles()) }

// idle returns the time that all processors of the machine have been idle, since it
// started, and how long they all have run (proc_stat(5)).
func idle() (idle, all time.Duration) {
	text, _ := os.ReadFile("/proc/stat") // it is there on Linux
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line)[1:9] {
		n, _ := strconv.ParseInt(field, 10, 64)
		const tick = 10 * time.Millisecond // USER_HZ
		all += time.Duration(n) * tick
		if i == 3 || i == 4 { // idle, iowait
			idle += time.Duration(n) * tick
		}
	}
	return idle, all
}

// disturbed is excuses, once the witness has judged that time.
func (w *witness) disturbed(ctx context.Context, e event) bool {
	w.awaitJudged(ctx, e.until)
	return w.excuses(e)
}
