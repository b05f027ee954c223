// Package command runs Watchword as processes of their own.
package command

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// Build builds the command as it is released, at a path or where all packages of a run of
// scripts/test.sh share it, and returns the path. It is for TestMain, and ends the process if it
// fails.
func Build(path string, flags ...string) string {
	b := testenv.Build{
		Pkg:   "github.com/watchword-auth/watchword/cmd/watchword",
		Flags: append([]string{"-tags=pkcs11", "-ldflags=-s -w"}, flags...),
	}
	path, err := b.Program(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return path
}

// A Process is one run of the command.
type Process struct {
	Cmd   *exec.Cmd
	Ended chan struct{} // closed when the process has ended
	err   error
}

// Serve prepares `watchword serve` in a directory, which is the home of the process. All
// that it writes goes to the log.
func Serve(binary, dir, address string, log *testenv.Log, env ...string) *Process {
	p := &Process{Cmd: exec.Command(binary, "serve"), Ended: make(chan struct{})}
	p.Cmd.Dir = dir
	p.Cmd.Env = slices.Concat([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "WATCHWORD_SERVER_ADDRESS=" + address,
		"WATCHWORD_PASSWORD_MEMORY=64KiB", "WATCHWORD_PASSWORD_ITERATIONS=1",
	}, kit.UnlimitedEnv, env)
	p.Cmd.Stdout, p.Cmd.Stderr = log, log
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p
}

// Begin starts the process by a function, Cmd.Start for instance. When the test ends, its log is
// searched for secrets.
func (p *Process) Begin(t testing.TB, start func() error) {
	t.Helper()
	if log, ok := p.Cmd.Stderr.(*testenv.Log); ok {
		t.Cleanup(func() { kit.KeepsSecrets(t, log.String()) })
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Cmd.Wait()
		close(p.Ended)
	}()
}

// Err is how the process ended, once it has.
func (p *Process) Err() error { return p.err }

// Kill is kill -9.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill() // it may have ended
	<-p.Ended
}

// Stop is SIGTERM. It returns how the process ended, and fails the test if it does not.
func (p *Process) Stop(t testing.TB, log *testenv.Log) error {
	t.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	select {
	case <-p.Ended:
	case <-time.After(kit.Patience):
		p.Kill()
		t.Fatalf("the process does not end\n%s", log.Tail())
	}
	return p.err
}

// IsReady waits until the process, which serves at a URL, answers /readyz with 200.
func (p *Process) IsReady(t testing.TB, client *http.Client, url string, log *testenv.Log) {
	t.Helper()
	c := &kit.Client{T: t, URL: url, HTTP: client}
	var last string
	kit.Await(t, url+" to be ready", func() bool {
		select {
		case <-p.Ended:
			t.Fatalf("it ended: %v\n%s", p.err, log.Tail())
		default:
		}
		a, err := c.Try(c.Request("GET", "/readyz", "", nil))
		last = fmt.Sprint(string(a.Body), err)
		return err == nil && a.Status == http.StatusOK
	}, func() string { return last }, log.Tail)
}
