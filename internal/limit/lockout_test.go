package limit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
)

const (
	home    = "192.0.2.1"
	foreign = "203.0.113.9"
)

func TestDelaysGrow(t *testing.T) {
	w := newCluster(t, 3, limit.Config{Rules: limit.Rules{Lockout: lockout}})
	w.wrong(4, home, "ester")
	w.want("after 4 failures", w.try(home, "ester"), accepted)
	w.wrong(1, home, "ester")
	for _, wait := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute, 15 * time.Minute} {
		for range 7 { // what is refused meanwhile makes nothing longer
			w.wrong(1, home, "ester")
		}
		w.want("another address", w.try(foreign, "ester"), accepted)
		w.want("another account", w.try(home, "david"), accepted)
		w.wantWait(fmt.Sprint("the wait of ", wait), home, "ester", wait)
		w.wrong(1, home, "ester")
	}
	if n := w.audit.count("lockout"); n != 1 || w.metric("watchword_limit_lockouts_total") != 1 {
		t.Errorf("%d lockouts in the audit trail, %v in the metric", n, w.metric("watchword_limit_lockouts_total"))
	}
	if e := w.audit.events[0]; e.Target != "ester" || e.Address != home {
		t.Errorf("the audit entry is %+v", e)
	}
	if n := w.metric("watchword_limit_locked_attempts_total"); n != 7*7+7 {
		t.Errorf("%v locked attempts", n)
	}
}

// The right password at a locked account is refused like a wrong one, and changes nothing.
func TestALockedAccountLearnsNothing(t *testing.T) {
	w := newCluster(t, 2, limit.Config{Rules: limit.Rules{Lockout: lockout}})
	w.wrong(5, home, "ester")
	w.clock.pass(20 * time.Second)
	for range 3 {
		w.want("the right password", w.login(home, "ester"), refused)
	}
	w.wantWait("the wait", home, "ester", 10*time.Second)
	w.wrong(1, home, "ester") // the sixth: nothing was reset
	w.wantWait("the next wait", home, "ester", time.Minute)
	if a, _ := w.guess(0, home, "nobody", false); a.Succeeded(t.Context()) == nil {
		t.Error("a wrong password has succeeded")
	}
}

func TestASuccessResets(t *testing.T) {
	w := newCluster(t, 2, limit.Config{Rules: limit.Rules{Lockout: lockout}})
	for range 3 {
		w.wrong(4, home, "ester")
		w.want("login", w.login(home, "ester"), accepted)
	}
	w.wrong(5, home, "ester")
	w.want("locked", w.login(home, "ester"), refused)
	w.clock.pass(30 * time.Second)
	w.want("login after the wait", w.login(home, "ester"), accepted)
	w.wrong(4, home, "ester")
	w.want("after 4 failures", w.try(home, "ester"), accepted)
	// A first step alone resets nothing: a second factor is guessed by who knows the password.
	w.wrong(1, home, "ester")
	w.want("after 5", w.try(home, "ester"), refused)
}

func TestFailuresAreForgotten(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Lockout: lockout}})
	w.wrong(4, home, "ester")
	w.clock.pass(limit.ForgetAfter - time.Minute)
	w.wrong(1, home, "ester")
	w.want("the fifth within a day", w.try(home, "ester"), refused)
	w.clock.pass(limit.ForgetAfter + time.Second)
	w.wrong(4, home, "ester")
	w.want("a day after the fifth", w.try(home, "ester"), accepted)
}

// Guesses from many addresses lock an account for all that the user does not sign in from.
func TestGuessesFromEverywhere(t *testing.T) {
	rate := state.Rate{Burst: 60, Period: time.Hour}
	w := newCluster(t, 3, limit.Config{Rules: limit.Rules{Lockout: lockout, Policies: map[limit.Class]limit.Policy{limit.Login: {PerAccount: rate}}}})
	w.want("first login", w.login(home, "ester"), accepted)
	for i := range 49 {
		w.wrong(1, addressOf(i), "ester")
	}
	w.want("after 49", w.try(foreign, "ester"), accepted)
	w.wrong(1, addressOf(49), "ester")
	w.want("a stranger", w.try(foreign, "ester"), refused)
	w.want("at home", w.login(home, "ester"), accepted)
	w.want("a stranger, though the user has logged in at home", w.try(foreign, "ester"), refused)
	w.clock.pass(30 * time.Second)
	w.want("a stranger after the wait", w.try(foreign, "ester"), accepted)
	w.wrong(1, foreign, "ester")
	w.want("another stranger", w.try(addressOf(1000), "ester"), refused)
	if w.audit.count("lockout") != 1 || w.metric("watchword_limit_lockouts_total") != 1 {
		t.Errorf("audit: %+v", w.audit.events)
	}

	// The rate for the account, too, is of strangers alone.
	for i := range 100 {
		if _, got := w.guess(i%3, addressOf(i), "ester", false); got == tooMany {
			break
		}
	}
	for i := range 3 {
		if _, got := w.guess(i, addressOf(2000), "ester", false); got != tooMany {
			t.Errorf("a stranger beyond the rate: %s", got)
		}
	}
	for range 30 {
		w.want("at home", w.login(home, "ester"), accepted)
	}

	// Who shares the address has its counters, and no others.
	w.wrong(5, home, "ester")
	w.want("a guest at home", w.login(home, "ester"), refused)
}

// A device from which the user signs in is known for 30 days, and failures there do not make
// it known for longer.
func TestKnownFor30Days(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Lockout: limit.Lockout{After: 5, AfterAll: 5, Delay: time.Minute, Max: 12 * time.Hour}}})
	attack := func() {
		t.Helper()
		for i := range 5 {
			w.guess(0, addressOf(i), "ester", false)
		}
		w.want("a stranger", w.try(foreign, "ester"), refused)
	}
	w.want("login", w.login(home, "ester"), accepted)
	for range 29 {
		w.clock.pass(24 * time.Hour)
		w.wrong(1, home, "ester")
	}
	w.clock.pass(23 * time.Hour)
	attack()
	w.want("within 30 days", w.try(home, "ester"), accepted)
	w.clock.pass(2 * time.Hour)
	attack()
	w.want("after 30 days", w.try(home, "ester"), refused)

	// Logins make it known again, though not each of them writes that.
	w.clock.pass(48 * time.Hour)
	for range 40 {
		w.want("login", w.login(home, "ester"), accepted)
		w.clock.pass(23 * time.Hour)
	}
	attack()
	w.want("after 40 days with logins", w.try(home, "ester"), accepted)
}

func TestNoLockout(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Spray: limit.Spray{After: 100}, Lockout: limit.Lockout{AfterAll: 1, Delay: time.Second, Max: time.Minute}}})
	w.wrong(50, home, "ester")
	w.want("without lockouts", w.try(home, "ester"), accepted)
}

// Of attempts that are never answered nothing is counted, and nobody learns anything by them.
func TestAttemptsThatAreGivenUp(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Lockout: lockout, Spray: limit.Spray{After: 2}}})
	for range 100 {
		if _, err := w.replicas[0].Attempt(t.Context(), limit.Login, home, limit.Account("ester")); err != nil {
			t.Fatal(err)
		}
	}
	w.want("after 100 that were given up", w.try(home, "ester"), accepted)
}

// A record that is no counter lets nothing pass.
func TestForgedCounters(t *testing.T) {
	own, strangers, address := limit.AccountCounter(limit.Account("ester"), limit.Block(home)), limit.AccountCounter(limit.Account("ester"), limit.All), limit.AddressCounter(limit.Block(home))
	for _, value := range []string{"", "x", "[]", `{"failures":-1}`, `{"failures":9223372036854775808}`, `{"failures":"many"}`} {
		for _, key := range []state.Key{own, strangers, address} {
			w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Lockout: lockout, Spray: limit.Spray{After: 9}, Local: true}})
			if _, err := w.state.Put(t.Context(), key, []byte(value), time.Hour); err != nil {
				t.Fatal(err)
			}
			for _, right := range []bool{true, false} {
				if _, got := w.guess(0, home, "ester", right); got != nobody {
					t.Errorf("%s %q: %s", key.ID, value, got)
				}
			}
			w.want("another account", w.try(foreign, "david"), accepted)
			if err := w.state.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			w.want("after it is lifted", w.login(home, "ester"), accepted)
		}
	}
	for _, value := range []string{fmt.Sprintf(`{"failures":9223372036854775807,"at":%d}`, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Unix()), `{"failures":9,"at":9223372036854775807}`, `{"failures":9,"at":99999999999}`} {
		w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Lockout: lockout}})
		if _, err := w.state.Put(t.Context(), own, []byte(value), time.Hour); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := w.try(home, "ester"); got == accepted {
				t.Errorf("%s: accepted", value)
			}
			w.clock.pass(20 * time.Minute)
			w.guess(0, home, "ester", false) // the failures cannot become negative
		}
	}
}

// The state fails at one of the steps: the client learns neither that the password is right
// nor that it is wrong.
func TestErrorsInTheMiddle(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, right := range []bool{false, true} {
			for step := 1; ; step++ {
				w := newCluster(t, 1, limit.Config{
					Rules: limit.Rules{
						Lockout:  limit.Lockout{After: 2, AfterAll: 2, Delay: time.Minute, Max: time.Hour},
						Spray:    limit.Spray{After: 9, Total: state.Rate{Burst: 9, Period: time.Minute}},
						Policies: map[limit.Class]limit.Policy{limit.Login: {PerAddress: state.Rate{Burst: 99, Period: time.Hour}, PerAccount: state.Rate{Burst: 99, Period: time.Hour}}},
					},
				})
				n := 0
				w.state.fail = func() (bool, bool) { n++; return n == step && !after, n == step && after }
				a, got := w.guess(0, home, "ester", right)
				if a != nil && got == accepted {
					if err := a.Succeeded(t.Context()); err != nil {
						got = w.why(err)
					}
				}
				if n < step {
					if step < 9 {
						t.Errorf("an attempt has only %d steps", n)
					}
					break
				}
				w.want(fmt.Sprintf("step %d fails (persisted %v, right %v)", step, after, right), got, nobody)
				// Nothing that failed lets a later attempt pass.
				for range 3 {
					w.guess(0, home, "ester", false)
				}
				w.want(fmt.Sprintf("after step %d had failed", step), w.login(home, "ester"), refused)
			}
		}
	}
}

func TestProblemOfTooMany(t *testing.T) {
	p := problem.From(limit.ErrTooMany.After(time.Minute))
	if p.Kind != problem.TooMany || p.RetryAfter != time.Minute {
		t.Errorf("%+v", p)
	}
}
