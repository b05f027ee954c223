package servers

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// A Language is what a resource server is written in.
type Language string

const (
	Go         Language = "Go"
	JavaScript Language = "JavaScript"
	Python     Language = "Python"
)

// Languages are all of them.
var Languages = []Language{Go, JavaScript, Python}

// Options are those of all resource servers of a process.
type Options struct {
	Audience     string        // empty: the issuer
	MaxStaleness time.Duration // 0: the default
}

// A Process runs resource servers.
type Process struct {
	Servers []*Server
	Log     *testenv.Log // what it wrote

	cmd   *exec.Cmd
	ended chan struct{}
}

// A Server is one resource server.
type Server struct {
	kit.Client
	Language Language
}

// A Status is what a resource server knows.
type Status struct {
	Keys         int    `json:"keys"`
	Revocations  int    `json:"revocations"`
	ConfirmedAge *int64 `json:"confirmed_age_ms"` // nil: it has never known all revocations
	Fresh        bool   `json:"fresh"`
}

// Start starts a process with a resource server for each issuer. It ends with the test, by
// itself when it gets SIGTERM; its log is searched for the secrets of the tests.
func Start(t testing.TB, l Language, o Options, issuers ...string) *Process {
	t.Helper()
	var args []string
	for _, issuer := range issuers {
		args = append(args, "--issuer", issuer)
	}
	if o.Audience != "" {
		args = append(args, "--audience", o.Audience)
	}
	if o.MaxStaleness > 0 {
		args = append(args, "--max-staleness", strconv.FormatFloat(o.MaxStaleness.Seconds(), 'f', -1, 64))
	}
	p := &Process{cmd: command(t, l, args...), Log: &testenv.Log{}, ended: make(chan struct{})}
	p.cmd.Stderr = p.Log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addresses := make(chan string, len(issuers))
	go func() {
		defer close(p.ended)
		defer close(addresses)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if address, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
				addresses <- address
				continue
			}
			fmt.Fprintln(p.Log, lines.Text())
		}
		_ = p.cmd.Wait() // stop asks how it ended
	}()
	t.Cleanup(func() { p.stop(t, l) })
	for range issuers {
		select {
		case address, ok := <-addresses:
			if !ok {
				t.Fatalf("the resource servers in %s ended: %s", l, p.Log)
			}
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}, Timeout: kit.Patience}
			t.Cleanup(client.CloseIdleConnections)
			p.Servers = append(p.Servers, &Server{kit.Client{T: t, URL: "http://" + address, HTTP: client, Log: p.Log}, l})
		case <-time.After(kit.Patience):
			t.Fatalf("the resource servers in %s do not listen: %s", l, p.Log)
		}
	}
	return p
}

func (p *Process) stop(t testing.TB, l Language) {
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(kit.Patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
		t.Errorf("the resource servers in %s do not end: %s", l, p.Log.Tail())
	}
	if state := p.cmd.ProcessState; err != nil || !state.Success() {
		t.Errorf("the resource servers in %s ended with %v: %s", l, state, p.Log.Tail())
	}
	kit.KeepsSecrets(t, p.Log.String())
}

var peak = regexp.MustCompile(`VmHWM:\s*(\d+) kB`)

// PeakMemory is the most memory in bytes that the process has had so far.
func (p *Process) PeakMemory(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := peak.FindSubmatch(status)
	if m == nil {
		t.Fatalf("no peak in %s", status)
	}
	kilobytes, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// For returns the same resource server for a subtest, which its messages belong to.
func (s *Server) For(t testing.TB) *Server {
	c := *s
	c.T = t
	return &c
}

// Get asks for a path with a token.
func (s *Server) Get(path, token string) kit.Answer {
	s.T.Helper()
	return s.Do(http.MethodGet, path, token, nil)
}

// Status returns what the resource server knows at this moment.
func (s *Server) Status() Status {
	s.T.Helper()
	return kit.Decode[Status](s.T, s.Want(s.Get("/status", ""), http.StatusOK, ""))
}

// Codes has the verifier check tokens, and returns the code of each, empty for a good one.
func (s *Server) Codes(tokens ...string) []string {
	s.T.Helper()
	kit.Secret(tokens...)
	a := s.Want(s.Do(http.MethodPost, "/tokens", "", strings.Join(tokens, "\n")), http.StatusOK, "")
	codes := kit.Decode[[]string](s.T, a)
	if len(codes) != len(tokens) {
		s.T.Fatalf("%d answers to %d tokens", len(codes), len(tokens))
	}
	return codes
}

// Refused returns the code with which the token is refused for good, as soon as it is.
func (s *Server) Refused(token string) string {
	s.T.Helper()
	return kit.Decode[string](s.T, s.Want(s.Get("/refused", token), http.StatusOK, ""))
}

// root is the directory of the module, found by this very file.
var root = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../..")
}()

// built is the resource server in Go.
var built string

// Main runs the tests of a package that starts resource servers. What else they need is prepared
// in a directory that is removed at the end.
func Main(m *testing.M, prepare ...func(dir string)) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "watchword-servers-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if built, err = Build("./test/sdk/servers/server", filepath.Join(dir, "server")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for _, f := range prepare {
			f(dir)
		}
		return m.Run()
	}())
}

// command is the program of a language.
func command(t testing.TB, l Language, args ...string) *exec.Cmd {
	t.Helper()
	switch l {
	case Go:
		return exec.Command(built, args...)
	case JavaScript:
		return Script(t, l, filepath.Join(root, "test/sdk/servers/server.mjs"), args...)
	case Python:
		return Script(t, l, filepath.Join(root, "test/sdk/servers/server.py"), args...)
	}
	t.Fatalf("there is no resource server in %s", l)
	return nil
}

// Script runs a script in JavaScript or Python that has the SDK of its language. In JavaScript it
// is in a directory with node_modules.
func Script(t testing.TB, l Language, path string, args ...string) *exec.Cmd {
	t.Helper()
	if l == JavaScript {
		Installed(t, "sdk/js/node_modules")
		return exec.Command("node", append([]string{path}, args...)...)
	}
	python, err := interpreter()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, append([]string{path}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(root, "sdk/python/src"), "PYTHONDONTWRITEBYTECODE=1")
	return cmd
}

// interpreter is the Python of the environment that sdk/python/venv.sh makes, unless it is there.
var interpreter = sync.OnceValues(func() (string, error) {
	out, err := exec.Command(filepath.Join(root, "sdk/python/venv.sh")).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = errors.New(string(failed.Stderr))
	}
	return strings.TrimSpace(string(out)), err
})

// Installed is the path of what `make tools` installs in the module.
func Installed(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(root, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make tools`", err)
	}
	return path
}

// Build builds a program in Go of this module, without the race detector, and returns its path.
func Build(pkg, path string) (string, error) {
	return testenv.Build{Dir: root, Pkg: pkg, Flags: []string{"-race=false", "-ldflags=-s -w"}}.Program(path)
}
