package process

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
