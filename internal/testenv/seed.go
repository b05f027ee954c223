package testenv

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Seed returns where a test begins that chooses at random what happens, and logs it. It is that of
// RAPID_SEED in the environment, as in tests that use package rapid, and otherwise another one each
// time. scripts/test.sh says which tests get which.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text, set := os.LookupEnv("RAPID_SEED"); set {
		var err error
		if seed, err = strconv.ParseUint(text, 0, 64); err != nil {
			t.Fatalf("RAPID_SEED: %v", err)
		}
	}
	t.Logf("RAPID_SEED=%d repeats what is chosen at random", seed)
	return seed
}
