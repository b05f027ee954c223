package limit_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/state"
)

// Other rules hold from the moment on in which they are given: also for what was refused under
// the former ones.
func TestRulesChange(t *testing.T) {
	ctx := t.Context()
	rules := func(burst int) limit.Rules {
		return limit.Rules{
			Policies: map[limit.Class]limit.Policy{limit.API: {PerAddress: state.Rate{Burst: burst, Period: time.Hour}}},
			Lockout:  limit.Lockout{After: burst, Delay: time.Hour, Max: time.Hour},
		}
	}
	c := &clock{t: time.Now()}
	l := limittest.New(limit.Config{Now: c.now})
	count := func(want error) {
		t.Helper()
		if err := l.Count(ctx, limit.API, "192.0.2.1", ""); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	guess := func(right, want bool) {
		t.Helper()
		a, err := l.Attempt(ctx, limit.Login, "192.0.2.1", limit.Account("ada"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.Checked(ctx, right, "1"); err != nil || got != want {
			t.Errorf("%v, %v", got, err)
		}
	}
	count(nil)
	if l.Counts(limit.API) {
		t.Error("it counts without a rule")
	}
	l.Change(rules(2))
	count(nil)
	count(nil)
	count(limit.ErrTooMany)
	guess(false, false)
	guess(false, false)
	guess(true, false) // it waits
	if l.Remembered() != 1 || !l.Counts(limit.API) {
		t.Errorf("%d refusals are remembered", l.Remembered())
	}
	l.Change(rules(1000))
	c.pass(4 * time.Second) // one in 3.6 s
	count(nil)
	count(limit.ErrTooMany)
	guess(true, true)
	l.Change(limit.Rules{})
	for range 3 {
		count(nil)
		guess(false, false)
	}
	guess(true, true)

	// While they change, each attempt is held to those or to these.
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 200 {
				if i == 0 {
					l.Change(rules(1000 + n%2))
					continue
				}
				if err := l.Count(ctx, limit.API, "", "x"); err != nil {
					t.Error(err)
				}
				a, err := l.Attempt(ctx, limit.Login, "192.0.2.2", limit.Account("eve"))
				if err == nil {
					_, err = a.Checked(ctx, true, "")
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
