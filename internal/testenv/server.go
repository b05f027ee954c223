package testenv

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTime is how long a server may take until it answers.
const startTime = 2 * time.Minute

// A Server is one server process that belongs to the test.
type Server struct {
	URL string // of a database on it; with the password
	// Addr is host:port.
	Addr string

	name    string
	dir     string
	command func() []string                 // what to run
	answers func(ctx context.Context) error // nil: it is up, and it is ours
	secret  string                          // the password; nobody else's server knows it
	tls     []string                        // Redis: options, if it speaks TLS alone
	signal  string                          // what ends it at once
	mu      sync.Mutex
	process *process
}

// A process is one run of the server under its supervisor.
type process struct {
	pid    int
	stdin  io.Closer // closing it, or the end of this process, ends the server
	exited chan struct{}
}

// supervisor runs a server until its standard input ends, which happens when the
// test process is gone, however it went. The first line it writes is the server's
// process id. It ignores SIGHUP, which the kernel sends when a paused server loses
// the test process.
const supervisor = `
exec 3<&0
signal=$1; shift
"$@" </dev/null >&2 &
server=$!
trap '' HUP
echo $server
exec >&2
( read _ <&3; kill -CONT $server; kill -$signal $server; sleep 3; kill -KILL $server ) 2>/dev/null &
watcher=$!
wait $server
kill $watcher`

// reaper removes the directory when the test process is gone.
const reaper = `read _; cd /; n=0; while [ -e "$1" ] && [ $n -lt 600 ]; do rm -rf "$1"; sleep 0.1; n=$((n+1)); done 2>/dev/null`

// newServer prepares a server's directory, which is removed when this process
// ends.
func newServer(t testing.TB, name, signal string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "watchword-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	if uid, gid, change := servant(t); change {
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command(t, "/", "sh", "-c", reaper, "reaper", dir)
	if _, err := cmd.StdinPipe(); err != nil { // it stays open as long as we live
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	return &Server{name: name, dir: dir, signal: signal, secret: rand.Text()}
}

var errEnded = errors.New("it ended by itself")

// Start starts the server and waits until it answers. The first time it takes a
// free port, which it keeps, also while it is stopped.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		t.Fatalf("testenv: %s runs already", s.name)
	}
	if s.Addr == "" {
		s.Addr = freeAddr(t)
	}
	err := s.run(t)
	for attempt := 0; errors.Is(err, errEnded) && attempt < 4; attempt++ {
		time.Sleep(200 * time.Millisecond) // what is left of one that was killed may be in its way
		err = s.run(t)
	}
	if err == nil {
		return
	}
	log, _ := os.ReadFile(s.log())
	t.Fatalf("testenv: %s did not start: %v\n%s", s.name, err, tail(log))
}

func (s *Server) run(t testing.TB) error {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := command(t, s.dir, "sh", append([]string{"-c", supervisor, "supervisor", s.signal}, s.command()...)...)
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{stdin: stdin, exited: make(chan struct{})}
	if _, err := fmt.Fscanln(stdout, &p.pid); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // servers that are killed have no other status
	}()
	s.process = p
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.exited:
			s.process = nil
			return errEnded
		case <-ctx.Done():
			s.end()
			return err
		}
	}
}

// Stop ends the server as a crash does, and waits until it is gone. Start brings
// it back with its data.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

func (s *Server) end() {
	if s.process == nil {
		return
	}
	s.process.stdin.Close()
	<-s.process.exited
	s.process = nil
}

// Pause lets the server hang: connections stay, and nothing is answered.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.send(t, syscall.SIGSTOP)
}

// Resume ends Pause.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.send(t, syscall.SIGCONT)
}

// send signals the server and then its children, of which a stopped server makes no
// more. The process is not waited for before its supervisor has seen it end, so the id
// is still its own.
func (s *Server) send(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		t.Fatalf("testenv: %s does not run", s.name)
	}
	signal := func(pid int) {
		err := syscall.Kill(pid, sig)
		if err == nil && sig == syscall.SIGSTOP {
			err = awaitStopped(pid)
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("testenv: %s: %v", s.name, err)
		}
	}
	signal(s.process.pid)
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.process.pid, s.process.pid))
	for pid := range strings.FieldsSeq(string(children)) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		signal(n)
	}
}

// awaitStopped returns when no thread of a process runs any more that SIGSTOP was sent
// to: the signal is under way to those on other processors, which may yet answer.
func awaitStopped(pid int) error {
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if !slices.ContainsFunc(threads, runs) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not stop", pid)
}

// runs reports whether a thread is neither stopped nor gone, by its file in /proc; see
// proc_pid_stat(5).
func runs(stat string) bool {
	b, _ := os.ReadFile(stat) // it may have ended
	_, state, there := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte(" "))
	return there && !bytes.ContainsAny(state[:1], "TtZX")
}

func (s *Server) log() string { return filepath.Join(s.dir, "log") }

func (s *Server) port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// setUp runs a program that prepares the server's directory.
func (s *Server) setUp(t testing.TB, name string, args ...string) {
	t.Helper()
	out, err := command(t, s.dir, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("testenv: %s: %v\n%s", filepath.Base(name), err, tail(out))
	}
}

// write puts a file into the server's directory and returns its path.
func (s *Server) write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if uid, gid, change := servant(t); change {
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// command is a program that runs as an unprivileged user, in a process group of
// its own, so that an interrupt at the terminal reaches only the test.
func command(t testing.TB, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid, gid, change := servant(t); change {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

// servant is the user whom the servers run as: PostgreSQL and MariaDB refuse
// root.
func servant(t testing.TB) (uid, gid int, change bool) {
	t.Helper()
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(nobody.Uid)
	gid, err2 := strconv.Atoi(nobody.Gid)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return uid, gid, true
}

// program finds a program where Debian puts it.
func program(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/sbin/", "/usr/lib/postgresql/*/bin/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	t.Fatalf("testenv: %s is not installed: run `make tools`", name)
	return ""
}

// freeAddr is an Address for as long as this process lives: servers are shared.
func freeAddr(t testing.TB) string {
	t.Helper()
	_, addr := keepAddress(t)
	return addr
}

func tail(log []byte) []byte { return log[max(0, len(log)-4000):] }

// shared starts a server once for the process.
type shared struct {
	once   sync.Once
	server *Server
}

func (s *shared) get(t testing.TB, start func(t testing.TB, options ...string) *Server) *Server {
	t.Helper()
	s.once.Do(func() { s.server = start(t) })
	if s.server == nil {
		t.Fatal("testenv: the server did not start for an earlier test")
	}
	return s.server
}
