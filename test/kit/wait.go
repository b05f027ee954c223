package kit

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// Patience is how long a test waits for what must come: long, because the machine may
// be busy with something else.
const Patience = 3 * time.Minute

// Promised is by when a revoked token must be refused: far above the poll that finds the
// revocation, though tests let views be trusted for longer.
const Promised = 10 * time.Second

// Soak reports whether long tests are to run at their full length.
func Soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// Eventually fails the test unless f comes to return nil.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.After(Patience)
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within %v: %v", Patience, err)
		case <-time.After(wait):
		}
	}
}

// Await fails the test unless an event happens. The message has what is in more.
func Await(t testing.TB, what string, happened func() bool, more ...func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !happened(); <-tick.C {
		if time.Now().After(deadline) {
			text := ""
			for _, m := range more {
				text += "\n" + m()
			}
			t.Fatalf("not in time: %s%s", what, text)
		}
	}
}

// Insist does what the database of a busy machine may refuse at first.
func Insist(t testing.TB, f func(ctx context.Context) error) {
	t.Helper()
	Eventually(t, func() error {
		err := f(t.Context())
		if err != nil && !errors.Is(err, store.ErrBusy) {
			t.Fatal(err)
		}
		return err
	})
}
