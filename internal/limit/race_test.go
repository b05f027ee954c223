package limit_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/state"
)

// Of 500 guesses at the same moment, at three replicas, no more are of use than may fail. One is
// of use if it would have been believed had it been right. Each that is of use is a write of
// the counter, and so is each that is right and accepted.
func TestSimultaneousGuesses(t *testing.T) {
	const guesses = 500
	type faults func(r *rand.Rand) func() (before, after bool)
	some := func(before, after float64) faults {
		return func(r *rand.Rand) func() (bool, bool) {
			return func() (bool, bool) { return r.Float64() < before, r.Float64() < after }
		}
	}
	for name, c := range map[string]struct {
		fail     faults
		policies map[limit.Class]limit.Policy
		from     func(i int) string // of the addresses
		counter  string
		most     int
	}{
		"one address":             {nil, nil, func(int) string { return home }, limit.Block(home), 5},
		"many addresses":          {nil, nil, addressOf, limit.All, 50},
		"one address, lost":       {some(0.1, 0), nil, func(int) string { return home }, limit.Block(home), 5},
		"one address, kept":       {some(0, 0.1), nil, func(int) string { return home }, limit.Block(home), 5},
		"many addresses, kept":    {some(0, 0.05), nil, addressOf, limit.All, 50},
		"many addresses, lost":    {some(0.05, 0), nil, addressOf, limit.All, 50},
		"one address, with rates": {nil, map[limit.Class]limit.Policy{limit.Login: {PerAccount: state.Rate{Burst: 100, Period: 1e12}}}, func(int) string { return home }, limit.Block(home), 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for round := range 2 {
				seed := rand.Uint64()
				w := newCluster(t, 3, limit.Config{Rules: limit.Rules{Lockout: lockout, Policies: c.policies}})
				if c.fail != nil {
					w.state.fail = c.fail(rand.New(rand.NewPCG(seed, 0)))
				}
				ends := map[try]*atomic.Int64{accepted: {}, refused: {}, tooMany: {}, nobody: {}}
				var all sync.WaitGroup
				begin := make(chan struct{})
				for i := range guesses {
					all.Go(func() {
						<-begin
						// In the second round, the right password is among the guesses.
						_, got := w.guess(i%3, c.from(i), "ester", round%2 == 1 && i%20 == int(seed%20))
						ends[got].Add(1)
					})
				}
				close(begin)
				all.Wait()
				key := limit.AccountCounter(limit.Account("ester"), c.counter)
				before, guessed, right := 0, 0, 0
				for _, n := range w.state.failures(t, key) {
					switch n {
					case before + 1:
						guessed++
					case before:
						right++
					default:
						t.Fatalf("seed %d: the counter went from %d to %d", seed, before, n)
					}
					if before >= c.most {
						t.Errorf("seed %d: an attempt after %d failures was not refused", seed, before)
					}
					before = n
				}
				if int(ends[accepted].Load()) > right {
					t.Errorf("seed %d: %d right passwords were accepted, %d by the counter", seed, ends[accepted].Load(), right)
				}
				if guessed > c.most || c.fail == nil && guessed != c.most && round%2 == 0 {
					t.Errorf("seed %d: %d guesses were of use", seed, guessed)
				}
				if c.fail != nil && ends[nobody].Load() == 0 {
					t.Errorf("seed %d: nothing failed", seed)
				}
				w.state.away(false)
				if got := w.try(c.from(guesses), "ester"); guessed == c.most && got == accepted {
					t.Errorf("seed %d: a guess afterwards: %s", seed, got)
				}
				if round == 0 {
					t.Logf("summary: lockout: %d guesses at once, 3 replicas (%s): %d of use, %d refused", guesses, name, guessed, ends[refused].Load()-int64(guessed))
				}
			}
		})
	}
}

// A user who logs in many times at the same moment is not refused. Failures at the same moment
// are reset or not, and never lost otherwise.
func TestSimultaneousSuccesses(t *testing.T) {
	for range 5 {
		w := newCluster(t, 3, limit.Config{Rules: limit.Rules{Lockout: lockout, Spray: limit.Spray{After: 50, Total: state.Rate{Burst: 300, Period: 1e12}}}})
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				a, got := w.guess(i%3, home, "ester", true)
				if got != accepted {
					t.Errorf("login: %s", got)
					return
				}
				if err := a.Succeeded(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()

		for i := range 60 {
			all.Go(func() {
				if a, got := w.guess(i%3, home, "ester", i%20 == 0); got == accepted {
					if err := a.Succeeded(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		before := 0
		for i, n := range w.state.failures(t, limit.AccountCounter(limit.Account("ester"), limit.Block(home))) {
			if n > lockout.After || n > before+1 || n != 0 && n < before {
				t.Errorf("write %d of the counter: from %d to %d", i, before, n)
			}
			before = n
		}
	}
}

// Guesses at many accounts from one address at the same moment, and at one account by many
// users of one address, do not disturb each other.
func TestSimultaneousAddresses(t *testing.T) {
	w := newCluster(t, 3, limit.Config{Rules: limit.Rules{Lockout: lockout, Spray: limit.Spray{After: 50}}})
	var all sync.WaitGroup
	ends := map[try]*atomic.Int64{refused: {}, tooMany: {}}
	for i := range 200 {
		all.Go(func() {
			_, got := w.guess(i%3, foreign, fmt.Sprint("user", i), false)
			ends[got].Add(1)
		})
	}
	all.Wait()
	counts := w.state.failures(t, limit.AddressCounter(limit.Block(foreign)))
	if last := counts[len(counts)-1]; last != 50 {
		t.Errorf("%d failures of the address are counted", last)
	}
	w.want("the address", w.try(foreign, "somebody"), tooMany)
	w.want("another", w.try(home, "somebody"), accepted)
}
