package testenv

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// templateAge is how old a template gets. What cleans up the directory for temporary
// files leaves younger ones alone.
const templateAge = 24 * time.Hour

// install makes the server's data directory as a program would: initdb and
// mariadb-install-db make the same each time, and cost more than all else of a start. So
// the first server of a machine runs the program and keeps the result as a template, in
// the directory for temporary files, and every server, of any test process, begins with
// a copy.
//
// A template is known by the server's program file, what prepares it, and the user: others
// do not share one. It is made elsewhere and put in its place in one step, by one process
// at a time. Nobody replaces it while it is copied.
func (s *Server) install(t testing.TB, server string, prepare func(dir string) []string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("testenv: the template of %s: %v", s.name, err)
		}
	}
	path := s.template(t, server, prepare)
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	must(err)
	defer lock.Close() // lets go of it
	must(flock(lock, unix.LOCK_EX))
	if !s.usable(t, path) {
		halves, _ := filepath.Glob(path + "-half-*") // of who ended while making one
		for _, dir := range append(halves, path) {
			_ = os.RemoveAll(dir) // a program that runs on may write to it still
		}
		dir, err := os.MkdirTemp("", filepath.Base(path)+"-half-")
		must(err)
		defer os.RemoveAll(dir)
		if uid, gid, change := servant(t); change {
			must(os.Chown(dir, uid, gid))
		}
		words := prepare(dir)
		s.setUp(t, words[0], words[1:]...)
		must(os.Rename(filepath.Join(dir, "data"), path))
	}
	must(flock(lock, unix.LOCK_SH))
	s.setUp(t, "cp", "-a", path, s.data())
}

// template is the path of the template that a program makes.
func (s *Server) template(t testing.TB, server string, prepare func(dir string) []string) string {
	t.Helper()
	version, err := os.Stat(program(t, server))
	if err != nil {
		t.Fatal(err)
	}
	words := sha256.Sum256(fmt.Append(nil, version.Size(), version.ModTime().UnixNano(), strings.Join(prepare("DIR"), "\n")))
	return filepath.Join(os.TempDir(), fmt.Sprintf("watchword-template-%s-%d-%x", s.name, os.Getuid(), words[:6]))
}

// usable reports whether a template is there, young, and of the user whom servers run as.
func (s *Server) usable(t testing.TB, path string) bool {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return false
	}
	owner := os.Getuid()
	if uid, _, change := servant(t); change {
		owner = uid
	}
	return int(info.Sys().(*syscall.Stat_t).Uid) == owner && time.Since(info.ModTime()) < templateAge
}

// flock locks a file, however long others have it.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
