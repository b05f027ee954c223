package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../../../.."

// Every section of the document that has a table has a command, and every command runs
// benchmarks or tests that there are.
func TestEachTableHasItsCommand(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := commands(string(text))
	measured := map[string]bool{}
	for _, c := range all {
		measured[c.section] = true
		checkCommand(t, c.text)
	}
	section := ""
	for line := range strings.Lines(string(text)) {
		if after, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(after)
		}
		if strings.HasPrefix(line, "|---") && !measured[section] {
			t.Errorf("a table of %q has no command", section)
			measured[section] = true
		}
	}
	if len(all) < 30 {
		t.Errorf("only %d commands were found", len(all))
	}
}

var (
	flagRun    = regexp.MustCompile(`-run (?:'([^']*)'|(\S+))`)
	flagBench  = regexp.MustCompile(`-bench (?:'([^']*)'|(\S+))`)
	flagPkg    = regexp.MustCompile(` (\./\S+)`)
	benchFuncs = regexp.MustCompile(`(?m)^func (?:Test|Benchmark)(\w+)\(`)
)

// others are the commands that measure what is not written in Go, with the file that each of them runs.
var others = map[string]string{
	"npm --prefix sdk/js run bench":               "sdk/js/bench.js",
	`"$(sdk/python/venv.sh)" sdk/python/bench.py`: "sdk/python/bench.py",
}

// checkCommand fails the test unless a go test names a package and what is in it.
func checkCommand(t *testing.T, text string) {
	t.Helper()
	if file, ok := others[text]; ok {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		return
	}
	if target, ok := strings.CutPrefix(text, "make "); ok {
		makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
		if name := strings.Fields(target)[0]; err != nil || !strings.Contains(string(makefile), "\n"+name+":") {
			t.Errorf("%s: there is no such target", text)
		}
		return
	}
	pkg := flagPkg.FindStringSubmatch(text)
	if !strings.HasPrefix(text, "go test ") || pkg == nil {
		t.Errorf("%s: it is no go test of a package", text)
		return
	}
	files, err := filepath.Glob(filepath.Join(root, pkg[1], "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("%s: the package has no tests", text)
	}
	var names []string
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range benchFuncs.FindAllStringSubmatch(string(source), -1) {
			names = append(names, found[0][len("func "):len(found[0])-1])
		}
	}
	for _, flag := range []*regexp.Regexp{flagRun, flagBench} {
		found := flag.FindStringSubmatch(text)
		if found == nil {
			continue
		}
		pattern := found[1] + found[2]
		if flag == flagRun && pattern == "^$" {
			continue
		}
		for one := range strings.SplitSeq(strings.Split(pattern, "/")[0], "|") {
			matches, err := regexp.Compile(one)
			if err != nil || !slices.ContainsFunc(names, matches.MatchString) {
				t.Errorf("%s: nothing in %s is called %s", text, pkg[1], one)
			}
		}
	}
}

func TestCommands(t *testing.T) {
	got := commands("# A\n\n## One\n\n```sh\ngo test ./a -bench A\nmake b\n```\n\n| a |\n|---|\n\nand (`go test ./c\n  -run C`), again `go test ./a -bench A`, by `make bench`.\n\n```yaml\nno: command\n```\n\n## Two\n`go version` and `go test ./d`\n")
	want := []command{{"One", "go test ./a -bench A"}, {"One", "make b"}, {"One", "go test ./c -run C"}, {"Two", "go test ./d"}}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
