package cluster

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/test/command"
	"github.com/watchword-auth/watchword/test/kit"
)

// What the seed does not decide: when an answer comes, and so which client meets a fault;
// addresses; every key; and the kids of a flood.
var seed = flag.Int64("seed", 0, "repeat the faults, and what clients choose, of the run that printed this seed")

// long has each test take its long, random and loaded form, which `make soak` runs;
// without it, each kind of fault comes once, at a load that the machine bears easily.
var long = kit.Soak()

// program is Watchword, built once. It has the race detector when the tests
// have it.
var program string

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
		at := "12" // they mostly wait
		if long {
			at = "16"
		}
		_ = flag.Set("test.parallel", at)
	}
	dir, err := os.MkdirTemp("", "watchword-cluster")
	if err != nil {
		panic(err)
	}
	var flags []string
	if raceEnabled {
		flags = append(flags, "-race")
	}
	program = command.Build(filepath.Join(dir, "watchword"), flags...)
	if long {
		go machine.watch()
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
