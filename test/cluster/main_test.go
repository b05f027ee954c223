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

// limit is how long all tests together should take.
const limit = 5 * time.Minute

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
	go machine.watch()
	began := time.Now()
	code := m.Run()
	if all() {
		took := time.Since(began)
		kept := "kept"
		if took > limit {
			kept = "missed" // and no failure: it is the machine that is slow
		}
		fmt.Printf("summary: test/cluster: all tests took %v; the aim, %v, is %s\n", took.Round(time.Second), limit, kept)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// all says whether every test runs, and once.
func all() bool {
	for name, usual := range map[string]string{"run": "", "skip": "", "list": "", "count": "1"} {
		if flag.Lookup("test."+name).Value.String() != usual {
			return false
		}
	}
	return true
}
