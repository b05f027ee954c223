// Package statetest holds a backend to what state.Store promises: every operation
// and every error, and what must stay true when many callers of two replicas meet.
package statetest

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/state/statetest"
	"github.com/watchword-auth/watchword/state"
)

// Run tests a backend under the given name. Every call of open, within one test,
// opens the same backend anew, as another replica would (a backend of one process
// returns the same store again), and leaves the closing to t.Cleanup. Tests use
// owners of their own, so the backend need not be empty. It takes some seconds,
// and with WATCHWORD_SOAK in the environment a minute, for it then repeats more.
func Run(t *testing.T, name string, open func(t *testing.T) state.Store) {
	statetest.Run(t, name, open)
}
