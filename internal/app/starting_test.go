package app

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/watchword-auth/watchword/internal/sqldb"
)

// A server that starts tries again after whatever may be better a little later.
func TestAway(t *testing.T) {
	for err, want := range map[error]bool{
		nil:                                   false,
		fmt.Errorf("keys: %w", sqldb.ErrBusy): true,
		fmt.Errorf("commit: timeout: %w", context.DeadlineExceeded): true,
		errors.New("the password is wrong"):                         false,
	} {
		if got := away(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
