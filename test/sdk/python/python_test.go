package python

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/test/sdk/programs"
)

// bound is how long each program may take, on a busy machine.
const bound = 5 * time.Minute

// interpreter returns the Python of the environment that venv.sh makes by a lock file with hashes, unless it is
// there.
func interpreter(t *testing.T) string {
	t.Helper()
	out := run(t, "./venv.sh")
	return out[strings.LastIndexByte(strings.TrimSpace(out), '\n')+1:]
}

// run returns what a program prints in sdk/python that must not fail.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = filepath.Join("..", "..", "..", "sdk", "python")
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", // nothing is left behind
		"PYTHONFAULTHANDLER=1") // one that hangs says where
	out, err := programs.Run(t, bound, cmd)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

var (
	vectors = regexp.MustCompile(`(?m)^vectors: (\d+) passed .*$`)
	total   = regexp.MustCompile(`(?m)^(\d+) passed in .*$`)
)

// All tests pass, none was skipped or left out, and the vectors are among them.
func TestPython(t *testing.T) {
	t.Parallel()
	out := run(t, interpreter(t), "-m", "pytest", "-q", "--basetemp", filepath.Join(t.TempDir(), "pytest"))
	passed, counted := total.FindString(out), vectors.FindString(out)
	if passed == "" || counted == "" {
		t.Fatalf("some tests did not run:\n%s", out)
	}
	t.Logf("summary: %s", counted)
	t.Logf("summary: %s", passed)
}

// The types are complete and right, also those of the tests and the examples.
func TestTypes(t *testing.T) {
	t.Parallel()
	python := interpreter(t)
	run(t, python, "-m", "mypy", "--cache-dir", filepath.Join(filepath.Dir(filepath.Dir(python)), "mypy"))
}
