package cluster

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// What the seed does not decide: when an answer comes, and so who meets a fault;
// addresses; every key; and the kids of a flood.
var seed = flag.Int64("seed", 0, "repeat the faults, and what clients choose, of the run that printed this seed")

// long has each test take its long, random and loaded form, which `make soak` runs;
// without it, each kind of fault comes once, at a load that the machine bears easily.
var long = os.Getenv("WATCHWORD_SOAK") != ""

// command is Watchword, built once. It has the race detector when the tests
// have it.
var command string

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	if given := isSet("test.parallel"); !given {
		at := "10" // they mostly wait
		if long {
			at = "16"
		}
		_ = flag.Set("test.parallel", at)
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
	if long {
		go machine.watch()
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
