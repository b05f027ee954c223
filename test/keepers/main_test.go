package keepers

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets more tests run side by side than there are processors: they wait for signers most
// of the time.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
