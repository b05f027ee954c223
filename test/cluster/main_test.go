package cluster

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var seed = flag.Int64("seed", 0, "repeat the faults of the run that printed this seed")

// command is Watchword, built once. It has the race detector when the tests
// have it.
var command string

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func TestMain(m *testing.M) {
	flag.Parse()
	if given := isSet("test.parallel"); !given {
		_ = flag.Set("test.parallel", "16") // they mostly wait
	}
	dir, err := os.MkdirTemp("", "watchword-cluster")
	if err != nil {
		panic(err)
	}
	command = filepath.Join(dir, "watchword")
	args := []string{"build", "-o", command}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../../cmd/watchword")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\n%v\n", out, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
