package testenv

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main is a TestMain that fails if the tests leave a goroutine behind. It gives those
// that are ending the time that a busy machine takes, of which goleak.VerifyTestMain
// has less than half a second.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	if code == 0 {
		err := goleak.Find(options...)
		for deadline := time.Now().Add(startTime); err != nil && time.Now().Before(deadline); {
			err = goleak.Find(options...)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "testenv:", err)
			code = 1
		}
	}
	os.Exit(code)
}
