package kit

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state/redisstate"
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

// Within fails the test if what should take a time at most took longer than that and as long as a
// sample of ordinary work takes sixteen times: the machine may be busy, and then the sample is slow, too.
func Within(t testing.TB, what string, took, most time.Duration, sample func()) {
	t.Helper()
	if took <= most {
		return
	}
	var usual [5]time.Duration // one may meet something rare
	for i := range usual {
		began := time.Now()
		sample()
		usual[i] = time.Since(began)
	}
	slices.Sort(usual[:])
	if median := usual[len(usual)/2]; took > most+16*median {
		t.Errorf("%s after %v, where %v and sixteen times %v are right at most", what, took, most, median)
	}
}

// Patiently does what a database or a Redis of a busy machine may refuse with a 503, again each time that
// it was refused after a wait. What is refused at once is refused for another reason.
func Patiently[A any](do func() A, status func(A) int) A {
	for began := time.Now(); ; {
		asked := time.Now()
		a := do()
		if status(a) != 503 || time.Since(asked) < redisstate.Timeout || time.Since(began) > Patience {
			return a
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
