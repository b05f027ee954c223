package verify

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/timing"
)

// What a resource server keeps, it keeps for as long as the server relies on; package
// verify cannot import the server's table.
func TestTimesOfTheServer(t *testing.T) {
	if keyOutage != timing.KeySetOutage || clockSkew != timing.ClockSkew {
		t.Errorf("a key set is used for %v, and expired entries are kept for %v; the server expects %v and %v", keyOutage, clockSkew, timing.KeySetOutage, timing.ClockSkew)
	}
}
