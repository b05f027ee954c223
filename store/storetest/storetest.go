// Package storetest holds a backend to what store.Store promises: every operation
// and every error, and what must stay true when many writers of two replicas meet.
package storetest

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/store/storetest"
	"github.com/watchword-auth/watchword/store"
)

// Run tests a backend under the given name. Every call of open makes an empty
// store and opens it twice, as two replicas would; it leaves the closing to
// t.Cleanup.
func Run(t *testing.T, name string, open func(t *testing.T) (a, b store.Store)) {
	storetest.Run(t, name, open)
}

// A RegistryStore is a store for a cluster.
type RegistryStore = storetest.RegistryStore

// RunRegistry is Run for what a cluster needs in addition.
func RunRegistry(t *testing.T, name string, open func(t *testing.T) (a, b RegistryStore)) {
	storetest.RunRegistry(t, name, open)
}
