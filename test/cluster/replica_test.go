package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// patience is how long anything may take that has to happen at last, on a machine that
// does a lot besides.
const patience = 3 * time.Minute

// A replica is a place for a process: it keeps its address, its part of the
// network and its log over all the processes that run there one after the other.
type replica struct {
	world *world
	name  string // as the load balancer names it
	addr  string
	url   string
	ahead time.Duration // of its wall clock
	env   []string

	database, redis, balancer *testenv.Link // what it reaches, and who reaches it
	peers                     []*testenv.Link

	log log

	mu      sync.Mutex
	process *process
	up      bool // it has been ready and nothing has been done to it since
}

// A process is one run of a replica.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

// log is what a replica wrote.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
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
	p := &process{cmd: exec.Command(command, "serve"), ended: make(chan struct{})}
	p.cmd.Dir = r.world.dir
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.world.dir, "WATCHWORD_SERVER_ADDRESS=" + r.addr}, r.env...)
	p.cmd.Stdout, p.cmd.Stderr = &r.log, &r.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startWithClock(p.cmd, r.ahead); err != nil {
		t.Fatalf("start %s: %v", r.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	r.process = p
}

// awaitReady waits until the replica answers /readyz with 200.
func (r *replica) awaitReady() {
	t := r.world.t
	t.Helper()
	var last string
	await(t, r.name+" to be ready", func() bool {
		resp, err := r.world.probe.Get(r.url + "/readyz")
		if err != nil {
			last = err.Error()
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		last = string(body)
		return resp.StatusCode == 200
	}, func() string { return last + "\n" + r.tail() })
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
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
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
	r.signal(p, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		t.Fatalf("%s does not end\n%s", r.name, r.tail())
	}
	if p.err != nil {
		t.Errorf("%s ended with %v\n%s", r.name, p.err, r.tail())
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

func (r *replica) signal(p *process, s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.world.t.Errorf("%v to %s: %v", s, r.name, err)
	}
}

func (r *replica) take() *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.process
	r.process = nil
	return p
}

func (r *replica) tail() string {
	s := r.log.String()
	return r.name + " wrote:\n" + s[max(0, len(s)-3000):]
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
	t := r.world.t
	t.Helper()
	resp, err := r.world.probe.Get(r.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("%s has no metric %s", r.name, name)
	return 0
}

// freeAddress is an address for one replica alone: on a loopback address of its
// own no outgoing connection takes the port while the replica is down.
func freeAddress(t testing.TB) string {
	t.Helper()
	b := make([]byte, 3)
	_, _ = rand.Read(b) // never fails
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+b[0]%254, b[1], 1+b[2]%254))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await waits for an event, which has to come.
func await(t testing.TB, what string, happened func() bool, more ...func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !happened(); <-tick.C {
		if time.Now().After(deadline) {
			text := ""
			for _, m := range more {
				text += "\n" + m()
			}
			t.Fatalf("waited in vain for %s%s", what, text)
		}
	}
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
