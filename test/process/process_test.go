package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// binary is the command, built once. It has the race detector when the tests
// have it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "watchword-process")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "watchword")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../../cmd/watchword")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\n%v\n", out, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// A node is a running process.
type node struct {
	t       *testing.T
	dir     string
	url     string
	cmd     *exec.Cmd
	out     *output
	log     *output
	ended   chan struct{}
	waitErr error
}

// output is what a process wrote, to be read while it writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// freeAddress returns an address that nobody listens on at this moment.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs `watchword serve` in dir and waits until it is ready.
func start(t *testing.T, dir string, env ...string) *node {
	t.Helper()
	n := launch(t, dir, env...)
	n.awaitReady()
	return n
}

func (n *node) awaitReady() {
	n.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp, err := http.Get(n.url + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
		}
		select {
		case <-n.ended:
			n.t.Fatalf("it ended: %v\n%s", n.waitErr, n.log)
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("it is not ready: %v\n%s", err, n.log)
		}
	}
}

// launch runs `watchword serve` in dir.
func launch(t *testing.T, dir string, env ...string) *node {
	t.Helper()
	n := prepare(t, dir, env...)
	n.begin()
	return n
}

// prepare is launch without the begin.
func prepare(t *testing.T, dir string, env ...string) *node {
	t.Helper()
	address := freeAddress(t)
	n := &node{t: t, dir: dir, url: "http://" + address, out: &output{}, log: &output{}, ended: make(chan struct{})}
	n.cmd = exec.Command(binary, "serve")
	n.cmd.Dir = dir
	n.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "WATCHWORD_SERVER_ADDRESS=" + address,
		"WATCHWORD_PASSWORD_MEMORY=64KiB", "WATCHWORD_PASSWORD_ITERATIONS=1",
	}, env...)
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return n
}

func (n *node) begin() {
	n.t.Helper()
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() {
		n.waitErr = n.cmd.Wait()
		close(n.ended)
	}()
	n.t.Cleanup(func() { n.kill() })
}

// kill is kill -9.
func (n *node) kill() {
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.ended
}

// stop is SIGTERM, and returns how the process ended.
func (n *node) stop() error {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	select {
	case <-n.ended:
	case <-time.After(20 * time.Second):
		n.t.Fatalf("it does not end\n%s", n.log)
	}
	return n.waitErr
}

// call returns the status and the body of an answer, or an error when there was
// none.
func (n *node) call(method, path, token string, body any) (int, []byte, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, n.url+path, bytes.NewReader(encoded))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

type grant struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

func (n *node) login(username, password string) grant {
	n.t.Helper()
	status, body, err := n.call("POST", "/api/login", "", map[string]string{"username": username, "password": password})
	if err != nil || status != 200 {
		n.t.Fatalf("login: %d %s %v", status, body, err)
	}
	var g grant
	if err := json.Unmarshal(body, &g); err != nil {
		n.t.Fatal(err)
	}
	return g
}

var shownPassword = regexp.MustCompile(`(?m)^\s*password: (\S+)\r?$`)

const passwordFile = "data/watchword.db.admin-password"

// adminPassword is what the first start has left.
func (n *node) adminPassword() string {
	n.t.Helper()
	password, err := os.ReadFile(filepath.Join(n.dir, passwordFile))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.TrimSpace(string(password))
}

// Standard output that is no terminal ends in some log: the password is not in it.
func TestFirstStart(t *testing.T) {
	dir := t.TempDir()
	n := start(t, dir)
	password := n.adminPassword()
	n.login("admin", password)
	for _, want := range []string{passwordFile, n.url, "curl", "/api/login"} {
		if !strings.Contains(n.out.String(), want) {
			t.Errorf("the start does not say %q:\n%s", want, n.out)
		}
	}
	if err := n.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if strings.Contains(n.log.String()+n.out.String(), password) {
		t.Error("the password is in what it has said")
	}
	files, err := filepath.Glob(filepath.Join(dir, "data", "*"))
	if err != nil || len(files) < 3 {
		t.Errorf("it has left %v, %v", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || strings.HasSuffix(file, ".partial") {
			t.Errorf("%s has mode %v", file, info.Mode())
		}
	}
	if err := os.Remove(filepath.Join(dir, passwordFile)); err != nil {
		t.Fatal(err)
	}

	again := start(t, dir)
	if strings.Contains(again.out.String(), "password in") {
		t.Error("a second start makes a password")
	}
	again.login("admin", password)
	if _, err := os.Stat(filepath.Join(dir, passwordFile)); err == nil {
		t.Error("a second start writes a password")
	}
}

// On a terminal it is shown there and stands in no file.
func TestFirstStartOnATerminal(t *testing.T) {
	dir := t.TempDir()
	terminal, screen := openTerminal(t)
	n := prepare(t, dir)
	n.cmd.Stdout = terminal
	go func() { _, _ = io.Copy(n.out, screen) }() // ends when the terminal closes
	n.begin()
	n.awaitReady()
	var shown []string
	for deadline := time.Now().Add(30 * time.Second); shown == nil; time.Sleep(10 * time.Millisecond) {
		if shown = shownPassword.FindStringSubmatch(n.out.String()); shown == nil && time.Now().After(deadline) {
			t.Fatalf("no password on the terminal:\n%s", n.out)
		}
	}
	n.login("admin", shown[1])
	if strings.Contains(n.log.String(), shown[1]) {
		t.Error("the password is in the log")
	}
	if files, err := filepath.Glob(filepath.Join(dir, "data", "*password*")); err != nil || len(files) > 0 {
		t.Errorf("there is %v, %v", files, err)
	}
}

// openTerminal returns a terminal and what somebody sees on it (pty(7)).
func openTerminal(t *testing.T) (terminal, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal, screen
}

// What was answered 2xx is there after kill -9 at any moment.
func TestKillLosesNothing(t *testing.T) {
	const rounds = 12
	dir := t.TempDir()
	env := []string{"ADMIN_GUI_USERNAME=admin", "ADMIN_GUI_PASSWORD=correct horse battery staple", "WATCHWORD_SERVER_PUBLIC_URL=https://auth.example.com"}
	var users []string
	var revoked []string
	var renewed []string
	for round := range rounds {
		n := start(t, dir, env...)
		admin := n.login("admin", "correct horse battery staple")

		for _, name := range users {
			if status, body, err := n.call("GET", "/api/users/"+name, admin.AccessToken, nil); status != 200 {
				t.Fatalf("round %d: user %s, who was created, is lost: %d %s %v", round, name, status, body, err)
			}
		}
		for _, token := range revoked {
			if status, body, err := n.call("GET", "/api/verify", token, nil); status != 401 {
				t.Fatalf("round %d: a token that was taken back lives again: %d %s %v", round, status, body, err)
			}
		}
		for _, token := range renewed {
			// 429 is for the current token of a session that has just renewed often.
			if status, body, err := n.call("POST", "/api/renew", "", map[string]string{"refresh_token": token}); status != 200 && status != 429 {
				t.Fatalf("round %d: a refresh token that was given out is lost: %d %s %v", round, status, body, err)
			}
		}
		users, revoked, renewed = users[max(0, len(users)-50):], nil, nil

		// Three writers, and the process dies under them.
		var mu sync.Mutex
		var wg sync.WaitGroup
		keep := func(list *[]string, s string) {
			mu.Lock()
			defer mu.Unlock()
			*list = append(*list, s)
		}
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("user-%d-%d", round, i)
				status, _, err := n.call("POST", "/api/users", admin.AccessToken, map[string]string{"username": name})
				if err != nil {
					return
				}
				if status == 201 {
					keep(&users, name)
				}
			}
		})
		wg.Go(func() {
			for {
				status, body, err := n.call("POST", "/api/login", "", map[string]string{"username": "admin", "password": "correct horse battery staple"})
				if err != nil {
					return
				}
				var g grant
				if status != 200 || json.Unmarshal(body, &g) != nil {
					continue
				}
				if status, _, err = n.call("POST", "/api/logout", g.AccessToken, nil); err != nil {
					return
				}
				if status == 204 {
					keep(&revoked, g.AccessToken)
				}
			}
		})
		g := n.login("admin", "correct horse battery staple")
		wg.Go(func() {
			token := g.RefreshToken
			for {
				status, body, err := n.call("POST", "/api/renew", "", map[string]string{"refresh_token": token})
				if err != nil || status != 200 {
					if err == nil && status != 429 {
						t.Errorf("renew: %d %s", status, body)
					}
					break
				}
				if err := json.Unmarshal(body, &g); err != nil {
					t.Error(err)
				}
				token = g.RefreshToken
			}
			keep(&renewed, token)
		})
		time.Sleep(time.Duration(50+round*17) * time.Millisecond) // the moment at which it dies
		n.kill()
		wg.Wait()
	}
	t.Logf("%d rounds", rounds)
	if len(users) == 0 || len(revoked) == 0 {
		t.Errorf("the last round wrote %d users and %d revocations: this test has tested nothing", len(users), len(revoked))
	}
}

// A request that was accepted is answered, although the process was told to end.
func TestTermDropsNoRequest(t *testing.T) {
	n := start(t, t.TempDir(), "ADMIN_GUI_USERNAME=admin", "ADMIN_GUI_PASSWORD=correct horse battery staple",
		"WATCHWORD_PASSWORD_MEMORY=64MiB", "WATCHWORD_PASSWORD_ITERATIONS=4", "WATCHWORD_PASSWORD_WORKERS=1", "WATCHWORD_SERVER_DRAIN_DELAY=200ms")
	const callers = 6
	statuses := make(chan string, callers)
	for range callers {
		go func() {
			status, _, err := n.call("POST", "/api/login", "", map[string]string{"username": "admin", "password": "correct horse battery staple"})
			statuses <- fmt.Sprint(status, err)
		}()
	}
	waitUntil(t, "the logins are under way", func() bool { return openConnections(n) >= callers })
	if err := n.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	for range callers {
		if got := <-statuses; got != "200 <nil>" {
			t.Errorf("a login that was under way: %s", got)
		}
	}
	if !strings.Contains(n.log.String(), "draining") {
		t.Error("the log does not say that it drained")
	}
}

// openConnections counts the established connections to the node.
func openConnections(n *node) int {
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(n.url, "http://"))
	var number int
	fmt.Sscan(port, &number)
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0
	}
	defer file.Close()
	local := fmt.Sprintf(":%04X", number)
	count := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 3 && strings.HasSuffix(fields[1], local) && fields[3] == "01" {
			count++
		}
	}
	return count
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A client that sends its request byte by byte, or never, is cut off.
func TestSlowClientIsCutOff(t *testing.T) {
	n := start(t, t.TempDir())
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(began.Add(20 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("after %v it is not cut off: %v", time.Since(began), err)
	}
}

func TestStartThatFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	garbage := filepath.Join(t.TempDir(), "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, env, says string }{
		{"a port in use", "WATCHWORD_SERVER_ADDRESS=" + taken.Addr().String(), "in use"},
		{"a directory that is not there", "DATABASE_URL=sqlite:/nowhere/at/all/watchword.db", "directory"},
		{"no database", "DATABASE_URL=sqlite:" + garbage, "not a database"},
		{"an unknown setting", "WATCHWORD_SERVER_ADRESS=:8080", "WATCHWORD_SERVER_ADDRESS"},
		{"an init file that is not there", "WATCHWORD_USERS_INIT_FILE=nowhere.yaml", "nowhere.yaml"},
		{"half an administrator", "ADMIN_GUI_USERNAME=admin", "password"},
		{"a storage key that is none", "AUTH_STORAGE_KEY=short", "openssl rand -base64 32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := launch(t, t.TempDir(), c.env)
			select {
			case <-n.ended:
			case <-time.After(20 * time.Second):
				t.Fatalf("it runs\n%s", n.log)
			}
			if n.waitErr == nil || !strings.Contains(n.log.String(), c.says) {
				t.Errorf("it ended with %v and said\n%s\nwant %q", n.waitErr, n.log, c.says)
			}
			if strings.Contains(n.log.String(), "goroutine ") {
				t.Error("it panicked")
			}
		})
	}
}

// The frame that the README promises: ready soon, and small. The best of several
// starts counts, because the machine may be busy with something else.
func TestReadySoonAndSmall(t *testing.T) {
	ready, resident := time.Hour, 1<<30
	for range 5 {
		began := time.Now()
		n := start(t, t.TempDir(), "WATCHWORD_PASSWORD_MEMORY=19MiB", "WATCHWORD_PASSWORD_ITERATIONS=2")
		ready = min(ready, time.Since(began))
		waitUntil(t, "the process is small", func() bool {
			resident = min(resident, n.resident())
			return resident < limit(40)<<10
		})
		n.kill()
	}
	t.Logf("ready after %v, %d MB resident (race detector: %v)", ready, resident>>10, raceEnabled)
	if ready > time.Duration(limit(300))*time.Millisecond {
		t.Errorf("ready after %v", ready)
	}
}

// resident is the process's memory in KiB.
func (n *node) resident() int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	var kib int
	fmt.Sscan(regexp.MustCompile(`VmRSS:\s+(\d+)`).FindStringSubmatch(string(status))[1], &kib)
	return kib
}

// limit is a bound as it is without the race detector, or ten times as wide.
func limit(n int) int {
	if raceEnabled {
		return 10 * n
	}
	return n
}
