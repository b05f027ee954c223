package operator

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

// The longest wait for a connection that can be configured is one that is not cut short.
func TestAcquireTimeout(t *testing.T) {
	if config.MaxAcquireTimeout != sqldb.DefaultTimeout || config.Default().Database.AcquireTimeout != sqldb.DefaultAcquireTimeout {
		t.Errorf("package config has %v and %v, package sqldb %v and %v", config.MaxAcquireTimeout, config.Default().Database.AcquireTimeout, sqldb.DefaultTimeout, sqldb.DefaultAcquireTimeout)
	}
}
