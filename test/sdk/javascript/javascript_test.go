package javascript_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/test/sdk/programs"
)

const (
	root = "../../.."
	sdk  = root + "/sdk/js"
	// bound is how long each program may take, on a busy machine.
	bound = 5 * time.Minute
)

// install installs the npm packages that `make tools` has not installed.
func install(t *testing.T) {
	t.Helper()
	out, err := programs.Run(t, bound, exec.CommandContext(t.Context(), root+"/scripts/npm.sh", "sdk/js"))
	if err != nil {
		t.Fatalf("scripts/npm.sh: %v\n%s", err, out)
	}
}

// run runs a program in sdk/js and returns what it prints.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = sdk
	return programs.Run(t, bound, cmd)
}

func TestJavaScript(t *testing.T) {
	install(t)
	t.Run("tests", func(t *testing.T) {
		t.Parallel()
		tests(t)
	})
	t.Run("types", func(t *testing.T) {
		t.Parallel()
		if out, err := run(t, "node_modules/.bin/tsc", "-p", "test"); err != nil {
			t.Errorf("the types do not fit: %v\n%s", err, out)
		}
	})
	t.Run("what npm would publish", func(t *testing.T) {
		t.Parallel()
		published(t)
	})
}

// tests runs the tests of the package. One that was skipped is a failure, and so is a vector that
// none of them has looked at.
func tests(t *testing.T) {
	files, err := filepath.Glob(sdk + "/test/*.test.js")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no tests: %v", err)
	}
	// They wait for most of the time, and one that hangs is named.
	args := []string{"--test", "--test-reporter=tap", "--test-concurrency=4", "--test-timeout=120000"}
	for _, file := range files {
		args = append(args, "test/"+filepath.Base(file))
	}
	out, err := run(t, "node", args...)
	if err != nil {
		t.Errorf("%v\n%s", err, failures(out))
	}
	for _, outcome := range []string{"fail", "cancelled", "skipped", "todo"} {
		if n := count(t, out, `(?m)^# `+outcome+` (\d+)$`); n != 0 {
			t.Errorf("%d tests: %s", n, outcome)
		}
	}
	counts := vectors(t)
	var line []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		want := counts[name]
		got := count(t, out, `(?m)^# vectors: `+name+` (\d+)$`)
		if got != want {
			t.Errorf("of the %d vectors of %s, %d were run", want, name, got)
		}
		line = append(line, fmt.Sprintf("%s %d", name, got))
	}
	t.Logf("summary: JavaScript passes %d tests; vectors: %s", count(t, out, `(?m)^# pass (\d+)$`), strings.Join(line, ", "))
}

// vectors returns how many vectors each file of testdata/verifier has.
func vectors(t *testing.T) map[string]int {
	t.Helper()
	files, err := filepath.Glob(root + "/testdata/verifier/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no vectors: %v", err)
	}
	counts := make(map[string]int)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var set struct{ Cases []json.RawMessage }
		if err := json.Unmarshal(data, &set); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		counts[strings.TrimSuffix(filepath.Base(file), ".json")] = len(set.Cases)
	}
	return counts
}

func count(t *testing.T, out, pattern string) int {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(out)
	if m == nil {
		t.Errorf("node prints nothing like %s", pattern)
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Error(err)
	}
	return n
}

// failures is what is printed of the tests that failed.
func failures(out string) string {
	var failed bytes.Buffer
	show := false
	for line := range strings.Lines(out) {
		text := strings.TrimLeft(line, " ")
		if strings.HasPrefix(text, "ok ") || strings.HasPrefix(text, "not ok ") {
			show = strings.HasPrefix(text, "not ok ")
		}
		if show {
			failed.WriteString(line)
		}
	}
	return failed.String()
}

// published holds what is in the package to what belongs there, and its dependencies to jose alone.
func published(t *testing.T) {
	var pkg struct {
		Dependencies map[string]string
		Exports      map[string]map[string]string
	}
	data, err := os.ReadFile(sdk + "/package.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &pkg); err != nil {
		t.Fatal(err)
	}
	if len(pkg.Dependencies) != 1 || pkg.Dependencies["jose"] == "" {
		t.Errorf("the package depends on %v; it is to depend on jose alone", pkg.Dependencies)
	}
	out, err := run(t, "npm", "pack", "--dry-run", "--json", "--offline", "--loglevel=error")
	if err != nil {
		t.Fatalf("npm pack: %v\n%s", err, out)
	}
	files := regexp.MustCompile(`"path": "([^"]+)"`).FindAllStringSubmatch(out, -1)
	has := make(map[string]bool)
	for _, file := range files {
		has[file[1]] = true
		if !strings.HasPrefix(file[1], "src/") && file[1] != "package.json" && file[1] != "README.md" && file[1] != "LICENSE" {
			t.Errorf("%s would be published", file[1])
		}
	}
	for name, targets := range pkg.Exports {
		for condition, target := range targets {
			if !has[strings.TrimPrefix(target, "./")] {
				t.Errorf("%s (%s) is %s, which would not be published", name, condition, target)
			}
		}
	}
	for _, file := range []string{"README.md", "LICENSE"} {
		if !has[file] {
			t.Errorf("%s would not be published", file)
		}
	}
}
