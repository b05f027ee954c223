package process

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A running replica takes over another list of peers when its file changes and on SIGHUP,
// which does not end one that is starting.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "watchword.yaml")
	write := func(file, peers string) {
		t.Helper()
		text := "cluster: {enabled: true, discovery: static, refresh_sec: 1, static_peers: [" + peers + "]}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hangUp := func(n *node) {
		t.Helper()
		if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	// A link into another directory, in which nothing is noticed.
	hidden := filepath.Join(t.TempDir(), "hidden.yaml")
	write(hidden, "'http://127.0.0.1:1'")
	if err := os.Symlink(hidden, file); err != nil {
		t.Fatal(err)
	}
	n := launch(t, dir, "DATABASE_URL="+testenv.Postgres(t), "AUTH_CLUSTER_SECRET=0123456789abcdef0123456789abcdef",
		"WATCHWORD_CONFIG="+file, "ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse")
	waitUntil(t, "it answers", func() bool { return n.answers("/livez") })
	hangUp(n)
	waitUntil(t, "it is ready", func() bool { return n.answers("/readyz") })
	admin := n.login("root", "correct horse").AccessToken
	asks := func(want ...string) func() bool {
		return func() bool {
			status, body, err := n.call("GET", "/api/cluster", admin, nil)
			if status == http.StatusServiceUnavailable {
				return false
			}
			if err != nil || status != 200 {
				t.Fatalf("%d %s %v", status, body, err)
			}
			var view struct{ Peers []struct{ URL string } }
			if err := json.Unmarshal(body, &view); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range view.Peers {
				got = append(got, p.URL)
			}
			return slices.Equal(got, want)
		}
	}
	waitUntil(t, "it asks the peer of its file", asks("http://127.0.0.1:1"))
	write(hidden, "'http://127.0.0.1:2', 'http://127.0.0.1:3'")
	hangUp(n)
	waitUntil(t, "it asks those of the file on SIGHUP", asks("http://127.0.0.1:2", "http://127.0.0.1:3"))
	write(filepath.Join(dir, "next.yaml"), "'http://127.0.0.1:4', '"+n.url+"'")
	if err := os.Rename(filepath.Join(dir, "next.yaml"), file); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "it asks the one of the new file, and not itself", asks("http://127.0.0.1:4"))
	if err := n.stop(); err != nil {
		t.Error(err)
	}
}

// answers reports whether a path is answered 200; the process must not have ended.
func (n *node) answers(path string) bool {
	n.t.Helper()
	select {
	case <-n.ended:
		n.t.Fatalf("it ended: %v\n%s", n.Err(), n.log)
	default:
	}
	resp, err := n.client.Get(n.url + path)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == 200
}

// A running replica takes over other limits and another level of the log, and serves profiles
// on a port of this machine alone.
func TestLimitsAndLevelChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "watchword.yaml")
	write := func(level, rate string) {
		t.Helper()
		text := fmt.Sprintf("log: {level: %s}\nlimits: {api: {per_address: %s}}\nsessions: {max_per_user: %d}\n", level, rate, len(rate)+5)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("info", "off")
	debug := "http://" + testenv.Address(t)
	n := start(t, dir, "WATCHWORD_CONFIG="+file, "WATCHWORD_DEBUG_ADDRESS="+debug[len("http://"):], "ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse")
	token := n.login("root", "correct horse").AccessToken
	counted := func() bool {
		verify := n.Do("GET", "/api/verify", token, nil)
		return verify.Header.Get("RateLimit-Policy") == `"api-address";q=1000;w=60`
	}
	if counted() {
		t.Error("requests are counted before there is a limit")
	}
	write("debug", "1000/1m")
	waitUntil(t, "requests are counted", counted)
	waitUntil(t, "every request is logged", func() bool { return strings.Contains(n.log.String(), `"msg":"request"`) })
	for _, want := range []string{
		`"msg":"the configuration has changed","key":"limits.api.per_address","old":"off","new":"1000/1m"`,
		`"msg":"the level of the log has changed","old":"info","new":"debug","by":"log.level"`,
		`"msg":"the configuration has changed in what needs a restart","key":"sessions.max_per_user","old":"8","new":"12"`,
	} {
		waitUntil(t, "the log has "+want, func() bool { return strings.Contains(n.log.String(), want) })
	}
	write("debug", "off")
	waitUntil(t, "nothing is counted any more", func() bool {
		return n.Do("GET", "/api/verify", token, nil).Header.Get("RateLimit-Policy") == ""
	})

	ask := func(method, path, host, body string, want int) string {
		t.Helper()
		r, err := http.NewRequest(method, debug+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			r.Host = host
		}
		a := n.Send(r)
		if a.Status != want {
			t.Errorf("%s %s of %q: %d %s, want %d", method, path, host, a.Status, a.Body, want)
		}
		return string(a.Body)
	}
	if got := ask("GET", "/debug/log-level", "", "", 200); got != "debug\n" {
		t.Errorf("the level is %q", got)
	}
	ask("PUT", "/debug/log-level", "", "loud", 422)
	ask("PUT", "/debug/log-level", "localhost", "error\n", 204)
	waitUntil(t, "the log says that it ends", func() bool { // what a process writes is read a moment later
		return strings.Contains(n.log.String(), `"old":"debug","new":"error","by":"/debug/log-level"`)
	})
	ask("PUT", "/debug/log-level", "evil.example:6060", "debug", 403)
	ask("POST", "/debug/log-level", "", "debug", 405)
	before := len(n.log.String())
	n.Want(n.Do("GET", "/api/verify", token, nil), 200, "")
	if got := n.log.String()[before:]; got != "" {
		t.Errorf("it still logs %s", got)
	}
	if got := ask("GET", "/debug/pprof/goroutine?debug=1", "", "", 200); !strings.Contains(got, "goroutine profile") {
		t.Errorf("no profile: %.100s", got)
	}
	if got := ask("GET", "/debug/pprof/profile?seconds=1", "", "", 200); !strings.HasPrefix(got, "\x1f\x8b") {
		t.Errorf("no profile of the CPU: %.100q", got)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/log-level"} { // not on the port for everybody
		n.Want(n.Do("GET", path, "", nil), 404, "no_such_path")
	}
	if err := n.stop(); err != nil {
		t.Error(err)
	}
}
