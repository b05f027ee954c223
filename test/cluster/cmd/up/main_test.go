package main

import (
	"bufio"
	"bytes"
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
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/test/command"
)

// TestMain runs the command when the test starts itself as it.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_UP") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// With arguments, the command runs on the cluster, and ends it with its status.
func TestACommandRunsOnTheCluster(t *testing.T) {
	dir := t.TempDir()
	binary := command.Build(filepath.Join(dir, "watchword"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, binary, "bench", "--admin", "admin", "--users", "3", "--sessions", "3", "--rate", "40", "--mix", "login=1,renew=1,verify=2,revoke=1",
		"--warmup", "0s", "--duration", "1s", "--bound", "2s", "--timeout", "1m", "--expect-limit", "renew-account=1/1h")
	cmd.Dir = dir
	// A replica that the machine keeps waiting for longer than the bound answers 503.
	cmd.Env = append(os.Environ(), "RUN_UP=1", "WATCHWORD_TOKENS_KEY_SET_MAX_AGE=1s", "WATCHWORD_PASSWORD_MEMORY=64KiB", "WATCHWORD_REVOCATION_MAX_STALENESS=2s")
	runtime.LockOSThread() // it ends with the thread that started it
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 1 {
		t.Errorf("it ends with %v, though a limit is overrun that the replicas do not have", err)
	}
	for _, want := range []string{"removing the users", "limit overrun: 1 times; for example", "http://127.0.0.1:[0-9]+ refuses after", "limit login-account, 30 in 300 s"} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("it does not say %q", want)
		}
	}
	if bytes.Count(out, []byte("VIOLATION")) != 1 || t.Failed() {
		t.Errorf("it says\n%s", out)
	}
}

// A replica that is killed does not end the demonstration: it is said, the others answer,
// and the replica starts again when its name is typed.
func TestAReplicaIsKilled(t *testing.T) {
	dir := t.TempDir()
	binary := command.Build(filepath.Join(dir, "watchword"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, binary)
	cmd.Dir = dir
	// Half a minute is what users get.
	cmd.Env = append(os.Environ(), "RUN_UP=1", "WATCHWORD_TOKENS_KEY_SET_MAX_AGE=1s", "WATCHWORD_PASSWORD_MEMORY=64KiB")
	typed, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	runtime.LockOSThread() // it ends with the thread that started it
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, said := make(chan string, 1000), []string{}
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("it said:\n%s", strings.Join(said, "\n"))
		}
	}()
	// await returns what the pattern has found in a line to come.
	await := func(pattern string) []string {
		t.Helper()
		find, patience := regexp.MustCompile(pattern), time.After(time.Minute)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("it ended and did not say %q", pattern)
				}
				said = append(said, line)
				if found := find.FindStringSubmatch(line); found != nil {
					return found
				}
			case <-patience:
				t.Fatalf("it does not say %q", pattern)
			}
		}
	}
	answers := func(url string) {
		t.Helper()
		res, err := http.Get(url + "/api/pkeys")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s answers %s", url, res.Status)
		}
	}

	balancer := await(`reached at (http://\S+),`)[1]
	victim := await(`auth-1  (http://\S+)  pid (\d+)  log: `)
	pid, err := strconv.Atoi(victim[2])
	if err != nil {
		t.Fatal(err)
	}
	await(`WATCHWORD_SERVER_TRUSTED_PROXIES=127.0.0.1`)
	await(`AUTH_CLUSTER_SECRET=… `)
	await(`cluster status`)
	await(`auth-1 +live `)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(fmt.Sprintf(`auth-1, process %d, has ended: signal: killed\.`, pid))
	await(`type auth-1 and Enter`)
	answers(balancer)
	fmt.Fprintln(typed, "auth-9")
	await(`^Type status, or the name`)
	fmt.Fprintln(typed, "auth-0")
	await(`^auth-0 runs, as process `)
	fmt.Fprintln(typed, "auth-1")
	next := await(`^auth-1 starts, as process (\d+) `)[1]
	if next == victim[2] {
		t.Errorf("it is process %s again", next)
	}
	await(`^auth-1 is ready, process ` + next)
	await(`auth-1 +live `)
	answers(victim[1])
	typed.Close() // as when nobody is there
	answers(balancer)

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(`stopping`)
	for line := range lines {
		said = append(said, line)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	ended = true
}
