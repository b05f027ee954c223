package programs

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestAProgramThatEnds(t *testing.T) {
	t.Parallel()
	out, err := Run(t, time.Minute, exec.Command("sh", "-c", "sleep 3600 & echo $!"))
	command, _ := os.ReadFile("/proc/" + strings.TrimSpace(out) + "/cmdline") // empty after its end
	if err != nil || len(command) > 0 {
		t.Errorf("%v: %s is left behind: %s", err, out, command)
	}
}

// A child that hangs, in a group of its own, holds up nothing, and it can say where it is.
func TestAProgramThatHangs(t *testing.T) {
	t.Parallel()
	program := `set -m; (trap 'echo "here it hangs"' ABRT; while :; do sleep 0.02; done) & wait`
	out, err := Run(t, time.Second, exec.Command("bash", "-c", program))
	if err == nil || !strings.Contains(out, "here it hangs") {
		t.Errorf("%v:\n%s", err, out)
	}
}
