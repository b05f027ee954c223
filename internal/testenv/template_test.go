package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Of many servers that start at once the first makes the template, and all get a copy of
// it. What is old, of another user or half made is no template.
func TestTemplate(t *testing.T) {
	dir, err := os.MkdirTemp("", "watchword-shared-") // others must reach it, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	runs := filepath.Join(dir, "runs")
	prepare := func(dir string) []string {
		return []string{"sh", "-c", `echo run >>"$1"; mkdir "$2"; cat /proc/sys/kernel/random/uuid >"$2/made"`, "prepare", runs, filepath.Join(dir, "data")}
	}
	read := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var servers [8]*Server
	var all sync.WaitGroup
	for i := range servers {
		servers[i] = newServer(t, "thing", "KILL")
		all.Go(func() { servers[i].install(t, "sh", prepare) })
	}
	all.Wait()
	made := read(filepath.Join(servers[0].data(), "made"))
	for _, s := range servers {
		if got := read(filepath.Join(s.data(), "made")); got != made {
			t.Errorf("one server has %s, another %s", made, got)
		}
	}
	if n := strings.Count(read(runs), "run"); n != 1 {
		t.Errorf("it was made %d times", n)
	}
	template := servers[0].template(t, "sh", prepare)
	for _, test := range []struct {
		what  string
		spoil func() error
		more  int
	}{
		{"all is well", func() error { return nil }, 0},
		{"old", func() error { return os.Chtimes(template, time.Now(), time.Now().Add(-2*templateAge)) }, 1},
		{"half made", func() error { return os.Rename(template, template+"-half-1") }, 1},
		{"of another user", func() error { return os.Chown(template, 1, 1) }, 1},
	} {
		if test.what == "of another user" && os.Getuid() != 0 {
			continue // only root can give a file away
		}
		before := strings.Count(read(runs), "run")
		if err := test.spoil(); err != nil {
			t.Fatal(err)
		}
		newServer(t, "thing", "KILL").install(t, "sh", prepare)
		if more := strings.Count(read(runs), "run") - before; more != test.more {
			t.Errorf("%s: it was made %d times more, want %d", test.what, more, test.more)
		}
	}
	if halves, err := filepath.Glob(template + "-half-*"); err != nil || len(halves) > 0 {
		t.Errorf("left over: %q, %v", halves, err)
	}
}
