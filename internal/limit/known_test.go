package limit_test

import (
	"fmt"
	"testing"

	"github.com/watchword-auth/watchword/internal/limit"
)

// Of many users who log in from a new address, the first makes it known. When all wrote that,
// logins at the same moment would wait for each other.
func TestOneLoginMakesAnAddressKnown(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Lockout: lockout}})
	for i := range 20 {
		w.want("login", w.login(home, fmt.Sprint("user", i)), accepted)
	}
	if n := len(w.state.wrote[limit.AddressCounter(limit.Block(home))]); n != 1 {
		t.Errorf("it was written %d times", n)
	}
}
