package cluster

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/command"
	"github.com/watchword-auth/watchword/test/kit"
)

const patience = kit.Patience

// A replica is a place for a process: it keeps its address, its part of the
// network and its log over all the processes that run there one after the other.
type replica struct {
	world *world
	name  string // as the load balancer names it
	addr  string
	url   string
	ahead time.Duration // of its wall clock
	env   []string

	database, redis, balancer *testenv.Link // what it reaches, and what reaches it
	peers                     []*testenv.Link

	log testenv.Log

	mu      sync.Mutex
	process *command.Process
	up      bool // it has been ready and nothing has been done to it since
}

// launch starts the process and waits for nothing.
func (r *replica) launch() {
	t := r.world.t
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != nil {
		t.Fatalf("%s runs already", r.name)
	}
	p := command.Serve(program, r.world.dir, r.addr, &r.log, r.env...)
	p.Begin(t, func() error { return startWithClock(p.Cmd, r.ahead) })
	r.process = p
}

// awaitReady waits until the replica answers /readyz with 200.
func (r *replica) awaitReady() {
	t := r.world.t
	t.Helper()
	r.mu.Lock()
	p := r.process
	r.mu.Unlock()
	p.IsReady(t, r.world.probe, r.url, &r.log)
	r.mu.Lock()
	r.up = true
	r.mu.Unlock()
}

// isUp reports whether a client that asks the replica directly may expect an answer.
func (r *replica) isUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up
}

func (r *replica) setDown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up = false
}

func (r *replica) start() {
	r.world.t.Helper()
	r.launch()
	r.awaitReady()
}

// kill is kill -9.
func (r *replica) kill() {
	r.setDown()
	if p := r.take(); p != nil {
		p.Kill()
	}
}

// stop is SIGTERM, after which the process ends well and in time.
func (r *replica) stop() {
	t := r.world.t
	t.Helper()
	r.setDown()
	p := r.take()
	if p == nil {
		t.Fatalf("%s does not run", r.name)
	}
	if err := p.Stop(t, &r.log); err != nil {
		t.Errorf("%s ended with %v\n%s", r.name, err, r.tail())
	}
}

// freeze is SIGSTOP for a while.
func (r *replica) freeze(d time.Duration) {
	r.setDown()
	r.mu.Lock()
	p := r.process
	r.mu.Unlock()
	r.signal(p, syscall.SIGSTOP)
	pause(r.world.t.Context(), d)
	r.signal(p, syscall.SIGCONT)
}

func (r *replica) signal(p *command.Process, s syscall.Signal) {
	if err := p.Cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.world.t.Errorf("%v to %s: %v", s, r.name, err)
	}
}

func (r *replica) take() *command.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.process
	r.process = nil
	return p
}

func (r *replica) tail() string {
	return r.name + " wrote:\n" + r.log.Tail()
}

// goodLog finds what must not be in a log.
func (r *replica) goodLog() {
	s := r.log.String()
	for _, bad := range []string{"DATA RACE", "panic", "goroutine "} {
		if i := strings.Index(s, bad); i >= 0 {
			r.world.t.Errorf("%s: %q in its log:\n%s", r.name, bad, s[i:min(len(s), i+3000)])
		}
	}
}

// metric is one value of /metrics.
func (r *replica) metric(name string) float64 {
	r.world.t.Helper()
	c := kit.Client{T: r.world.t, URL: r.url, HTTP: r.world.probe}
	return c.Metric(name)
}

// await waits for an event, which has to come.
func await(t testing.TB, what string, happened func() bool, more ...func() string) {
	t.Helper()
	kit.Await(t, what, happened, more...)
}

// pause lets time pass on purpose: for as long as a fault is to last.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func newHTTPClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 10 * time.Second},
	}
}
