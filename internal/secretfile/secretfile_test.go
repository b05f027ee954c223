//go:build unix

package secretfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var rules = Rules{Max: 100}

// A place is a directory in a test, with what is in it.
type place struct {
	*testing.T
	dir string
}

// newPlace makes a directory with a mode, which no umask changes.
func newPlace(t *testing.T, mode fs.FileMode) place {
	t.Helper()
	p := place{t, filepath.Join(t.TempDir(), "place")}
	p.must(os.Mkdir(p.dir, 0o700))
	p.must(os.Chmod(p.dir, mode))
	return p
}

func (p place) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p place) at(name string) string { return filepath.Join(p.dir, name) }

func (p place) write(name, text string, mode fs.FileMode) string {
	p.Helper()
	p.must(os.WriteFile(p.at(name), []byte(text), 0o600))
	p.must(os.Chmod(p.at(name), mode))
	return p.at(name)
}

func (p place) link(target, name string) string {
	p.Helper()
	p.must(os.Symlink(target, p.at(name)))
	return p.at(name)
}

// What deployments do goes on working.
func TestRead(t *testing.T) {
	p := newPlace(t, 0o775) // its group may write, as in a volume with fsGroup
	p.write("key", "secret", 0o440)

	// Kubernetes: tls.key -> ..data/tls.key, ..data -> ..2026_11_29, in a directory with
	// mode 1777.
	k := newPlace(t, 0o777|fs.ModeSticky)
	k.must(os.Mkdir(k.at("..2026_11_29"), 0o755))
	k.write("..2026_11_29/tls.key", "secret", 0o644)
	k.link("..2026_11_29", "..data")
	// certbot: live/name/privkey.pem -> ../../archive/name/privkey1.pem
	c := newPlace(t, 0o755)
	c.must(os.MkdirAll(c.at("live/name"), 0o700))
	c.must(os.MkdirAll(c.at("archive/name"), 0o700))
	c.write("archive/name/privkey1.pem", "secret", 0o600)

	for _, path := range []string{
		p.at("key"), p.link("key", "link"), p.link(p.at("link"), "link to a link"), p.dir + "/../place/./key",
		k.link("..data/tls.key", "tls.key"), c.link("../../archive/name/privkey1.pem", "live/name/privkey.pem"),
	} {
		got, info, err := rules.Read(path)
		if err != nil || string(got) != "secret" || !info.Mode().IsRegular() {
			t.Errorf("%s: %q, %v, %v", path, got, info, err)
		}
	}
	t.Chdir(p.dir)
	if got, _, err := (Rules{Max: 6, Denied: 0o007, Own: true}).Read("key"); err != nil || string(got) != "secret" {
		t.Errorf("in the working directory: %q, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	p := newPlace(t, 0o755)
	fifo := p.at("fifo")
	p.must(syscall.Mkfifo(fifo, 0o600))
	strict := Rules{Max: 100, Denied: 0o007, Own: true}
	others := newPlace(t, 0o777)
	others.write("key", "secret", 0o600)
	others.must(os.Mkdir(others.at("below"), 0o700))
	others.write("below/key", "secret", 0o600)
	cases := map[string]struct {
		rules Rules
		path  string
		want  string
	}{
		"nothing":                               {rules, p.at("none"), "no such file"},
		"a dangling link":                       {rules, p.link("none", "dangling"), "no such file"},
		"a circle of links":                     {rules, p.link("circle", "circle"), "too many links"},
		"a directory":                           {rules, p.dir, "not a regular file"},
		"the root":                              {rules, "/", "not a regular file"},
		"a file as a directory":                 {rules, p.write("file", "secret", 0o600) + "/key", "not a directory"},
		"a device":                              {rules, "/dev/null", "not a regular file"},
		"a pipe that nobody opens":              {rules, fifo, "not a regular file"},
		"a link to such a pipe":                 {rules, p.link("fifo", "to fifo"), "not a regular file"},
		"too large":                             {rules, p.write("large", strings.Repeat("x", 101), 0o600), "too large"},
		"others may write":                      {rules, p.write("writable", "secret", 0o602), "mode 0602): run \"chmod 600 " + p.at("writable")},
		"others may read":                       {strict, p.write("readable", "secret", 0o604), "chmod 600"},
		"a link instead of ours":                {strict, p.link("key", "not ours"), "not a regular file"},
		"a directory to which others may write": {rules, others.at("key"), "chmod o-w " + others.dir},
		"a directory below it":                  {rules, others.at("below/key"), "chmod o-w " + others.dir},
		"a link into it":                        {rules, p.link(others.at("key"), "elsewhere"), "chmod o-w " + others.dir},
		"a link in it to what others may not replace": {rules, others.link(p.at("large"), "key2"), "chmod o-w " + others.dir},
	}
	for name, c := range cases {
		began := time.Now()
		got, _, err := c.rules.Read(c.path)
		var e *fs.PathError
		if !errors.As(err, &e) || e.Path != c.path || !strings.Contains(err.Error(), c.want) || len(got) > 0 {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
		if errors.Is(err, ErrTooLarge) != (name == "too large") || errors.Is(err, fs.ErrNotExist) != strings.Contains(c.want, "no such") {
			t.Errorf("%s: the error is another one: %v", name, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
	}
	if !t.Failed() {
		t.Logf("summary: %d secret files that are exposed, replaced or none, none read", len(cases))
	}
}

// A stranger is neither root nor the user of this process.
const stranger = 65533

// A made is what stands at a path, as far as it is judged.
type made struct {
	fs.FileInfo
	mode fs.FileMode
	uid  int
}

func (m made) Mode() fs.FileMode { return m.mode }
func (m made) Sys() any          { return &syscall.Stat_t{Uid: uint32(m.uid)} }

// In a directory in which everybody may make files, a file, a directory or a link counts
// only if root, this user or the directory's owner made it.
func TestTrust(t *testing.T) {
	const private, sticky, everyones = fs.ModeDir | 0o775, fs.ModeDir | fs.ModeSticky | 0o777, fs.ModeDir | 0o777
	us := os.Geteuid()
	for _, c := range []struct {
		dir  fs.FileMode
		dirs int // owner
		file int // owner
		good bool
	}{
		{private, stranger, stranger, true}, {private, 0, stranger, true}, {private, us, us, true},
		{sticky, 0, us, true}, {sticky, stranger, us, true}, {sticky, us, 0, true}, {sticky, stranger, 0, true}, {sticky, stranger, stranger, true},
		{sticky, 0, stranger, false}, {sticky, us, stranger, false}, {sticky, stranger + 1, stranger, false},
		{everyones, 0, 0, false}, {everyones, us, us, false}, {everyones, stranger, us, false},
	} {
		if err := trust("/dir", made{mode: c.dir, uid: c.dirs}, "/dir/file", made{uid: c.file}); (err == nil) != c.good {
			t.Errorf("%+v: %v", c, err)
		}
	}
	theirs := made{uid: stranger}
	if err := (Rules{Own: true}).judge("file", theirs, theirs); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("another user's file is taken for ours: %v", err)
	}
}

// What another user has put into /tmp, in the place of a secret or of a directory on the way
// to it, is not read.
func TestPlanted(t *testing.T) {
	p := newPlace(t, 0o777|fs.ModeSticky)
	secret := newPlace(t, 0o755).write("secret", "of another program", 0o600)
	p.must(os.Mkdir(p.at("dir"), 0o755))
	p.write("dir/key", "planted", 0o600)
	planted := []string{p.write("key", "planted", 0o600), p.link(secret, "link"), p.at("dir")}
	for _, path := range planted {
		if err := os.Lchown(path, stranger, -1); errors.Is(err, fs.ErrPermission) {
			return // only root can give files away; TestTrust has the rule
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range append(planted[:2], p.at("dir/key"), p.link("key", "ours to theirs"), p.link("dir/key", "ours to dir")) {
		if got, _, err := rules.Read(path); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

// Between the look at a file and its opening, something else takes its name.
func TestSwappedWhileItIsOpened(t *testing.T) {
	for name, swap := range map[string]func(p place, key string){
		"another file": func(p place, key string) { p.must(os.Rename(p.write("planted", "planted", 0o600), key)) },
		"a link":       func(p place, key string) { p.must(os.Rename(p.link(p.write("planted", "planted", 0o600), "l"), key)) },
		"a link to the same file": func(p place, key string) {
			p.must(os.Rename(key, p.at("moved")))
			p.link("moved", "key")
		},
		"a pipe": func(p place, key string) { p.must(os.Remove(key)); p.must(syscall.Mkfifo(key, 0o600)) },
		"a hard link to another file": func(p place, key string) {
			p.must(os.Remove(key))
			p.must(os.Link(p.write("planted", "planted", 0o600), key))
		},
	} {
		p := newPlace(t, 0o755)
		key := p.write("key", "secret", 0o600)
		at, found, err := resolve(key)
		p.must(err)
		swap(p, key)
		if got, _, err := rules.open(key, at, found); err == nil {
			t.Errorf("%s is read: %q", name, got)
		}
	}
}

// While Kubernetes renews a volume, and removes what the links led to, the secret is read:
// the old or the new one.
func TestRenewed(t *testing.T) {
	p := newPlace(t, 0o777|fs.ModeSticky)
	version := func(i int) string { return fmt.Sprint("..", i) }
	renew := func(i int) {
		p.must(os.Mkdir(p.at(version(i)), 0o755))
		p.write(version(i)+"/key", version(i), 0o644)
		p.must(os.Rename(p.link(version(i), "..new"), p.at("..data")))
		p.must(os.RemoveAll(p.at(version(i - 1))))
	}
	renew(0)
	path := p.link("..data/key", "key")
	for i := 1; i <= 1000; i++ {
		renewed := make(chan struct{})
		go func() {
			defer close(renewed)
			renew(i)
		}()
		got, _, err := rules.Read(path)
		<-renewed
		if now := string(got); err != nil || now != version(i) && now != version(i-1) {
			t.Fatalf("renewal %d: %q, %v", i, got, err)
		}
	}
}

func TestCheckDirectory(t *testing.T) {
	for _, c := range []struct {
		mode fs.FileMode
		good bool
	}{{0o700, true}, {0o775, true}, {0o777 | fs.ModeSticky, true}, {0o777, false}, {0o702, false}} {
		p := newPlace(t, c.mode)
		if err := CheckDirectory(p.dir); (err == nil) != c.good || err != nil && !strings.Contains(err.Error(), "chmod o-w "+p.dir) {
			t.Errorf("%v: %v", c.mode, err)
		}
		below := p.at("below")
		p.must(os.Mkdir(below, 0o700))
		if err := CheckDirectory(below); (err == nil) != c.good {
			t.Errorf("a directory below %v: %v", c.mode, err)
		}
	}
	if err := CheckDirectory(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}
