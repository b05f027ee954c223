package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Processes of one run share a program that is built in the same way, also when they ask at
// once; a program that does not build is an error each time, and one that is built in
// another way, or from other sources, is another.
func TestProgramsAreShared(t *testing.T) {
	source := func(text string) string {
		t.Helper()
		dir := t.TempDir()
		for name, text := range map[string]string{"go.mod": "module program\n", "main.go": "package main\n\n" + text} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	const text = "var says = \"one\"\n\nfunc main() { print(says) }\n"
	good, bad := source(text), source("func main() { wrong() }\n")
	shared, own := t.TempDir(), t.TempDir()
	says := func(b Build) (path, text string) {
		t.Helper()
		path, err := b.Program(filepath.Join(own, "program"))
		if err != nil {
			t.Error(err)
			return "", ""
		}
		out, err := exec.Command(path).CombinedOutput()
		if err != nil {
			t.Error(err)
		}
		return path, string(out)
	}
	one := Build{Dir: good, Pkg: ".", Env: []string{"GOFLAGS=", "GOWORK=off"}}
	two := one
	two.Flags = []string{"-ldflags=-X main.says=two"}

	t.Setenv("TESTENV_BUILDS", "")
	if path, text := says(one); path != filepath.Join(own, "program") || text != "one" {
		t.Errorf("unshared: %s says %s", path, text)
	}

	t.Setenv("TESTENV_BUILDS", shared)
	var paths [6]string
	var all sync.WaitGroup
	for i := range paths {
		all.Go(func() {
			b, want := one, "one"
			if i%2 == 1 {
				b, want = two, "two"
			}
			path, text := says(b)
			if paths[i] = path; text != want {
				t.Errorf("%s says %s, not %s", path, text, want)
			}
		})
	}
	all.Wait()
	for i, path := range paths {
		if path != paths[i%2] || paths[0] == paths[1] || filepath.Dir(path) != shared {
			t.Errorf("the programs are %v", paths)
		}
	}
	for range 2 {
		if path, err := (Build{Dir: bad, Pkg: "."}).Program(filepath.Join(own, "bad")); err == nil {
			t.Errorf("what is wrong is built at %s", path)
		}
	}
	if path, _ := says(Build{Dir: source(text), Pkg: ".", Env: one.Env}); path == paths[0] {
		t.Error("other sources, and the same program")
	}
	if left, _ := filepath.Glob(filepath.Join(shared, "*.half")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
