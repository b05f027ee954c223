package limit_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/state"
)

func TestOutageDenies(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Lockout: lockout, Policies: map[limit.Class]limit.Policy{limit.Login: rates}}})
	w.wrong(4, home, "ester")
	w.state.away(true)
	for range 20 {
		w.want("while the state is away", w.try(home, "ester"), nobody)
	}
	if err := w.replicas[0].Count(t.Context(), limit.Login, home, ""); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	w.state.away(false)
	w.wrong(1, home, "ester") // the fifth
	w.want("when it is back", w.try(home, "ester"), refused)
	if w.metric("watchword_limit_counting_locally") != 0 || w.logs.text.Len() > 0 {
		t.Errorf("log: %s", &w.logs.text)
	}
}

func TestOutageLocal(t *testing.T) {
	w := newCluster(t, 3, limit.Config{
		Rules: limit.Rules{
			Local:    true,
			Lockout:  limit.Lockout{After: 6, AfterAll: 60, Delay: 30 * time.Second, Max: time.Hour},
			Policies: map[limit.Class]limit.Policy{limit.Login: {PerAccount: state.Rate{Burst: 30, Period: time.Hour}}},
		},
	})
	pass := func(account string) (n int) {
		for i := range 90 {
			if _, got := w.guess(i%3, home, account, true); got == accepted {
				n++
			} else if got != tooMany {
				t.Errorf("%s", got)
			}
		}
		return n
	}
	w.want("login", w.login(home, "ester"), accepted)
	if n := pass("david"); n != 30 {
		t.Errorf("with the state %d pass", n)
	}
	w.wrong(3, home, "ester")

	w.state.away(true)
	if n := pass("rachel"); n != 30 {
		t.Errorf("without the state %d pass at three replicas", n)
	}
	if n := w.metric("watchword_limit_counting_locally"); n != 3 {
		t.Errorf("%v replicas say that they count by themselves", n)
	}
	// Lockouts are counted by each replica, too.
	of := 0
	for i := range 30 {
		if _, got := w.guess(i%3, foreign, "ruth", false); got != refused {
			t.Errorf("%s", got)
		}
	}
	for i := range 3 {
		if _, got := w.guess(i, foreign, "ruth", true); got == accepted {
			of++
		}
	}
	if of != 0 {
		t.Errorf("%d replicas accept a password after many failures", of)
	}
	// One attempt a second asks the state whether it is back.
	w.state.asked()
	for i := range 1000 {
		if i%100 == 0 {
			w.clock.pass(200 * time.Millisecond)
		}
		w.guess(i%3, home, fmt.Sprint("user", i), true)
	}
	if calls := w.state.asked(); len(calls) > 3*3 {
		t.Errorf("the state was asked %d times in two seconds", len(calls))
	}
	if n := w.logs.count("counts attempts by itself"); n != 3 {
		t.Errorf("%d entries in the log of three replicas", n)
	}

	w.state.away(false)
	w.clock.pass(time.Second)
	for i := range 3 {
		if _, got := w.guess(i, home, "naomi", true); got != accepted {
			t.Errorf("%s", got)
		}
	}
	if w.metric("watchword_limit_counting_locally") != 0 || w.logs.count("counted over all replicas again") != 3 {
		t.Errorf("log: %s", &w.logs.text)
	}
	// What the state had counted is counted.
	w.want("beyond the rate", w.try(home, "david"), tooMany)
	w.wrong(3, home, "ester") // the fourth to the sixth
	w.want("after six failures", w.try(home, "ester"), refused)
}

// The state goes away, or comes back, in the middle of an attempt.
func TestOutageInTheMiddle(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Local: true, Lockout: lockout}})
	attempt := func(account string) *limit.Attempt {
		a, err := w.replicas[0].Attempt(t.Context(), limit.Login, home, limit.Account(account))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, right := range []bool{true, false} {
		w.wrong(1, home, "ester")
		a := attempt("ester")
		w.state.away(true)
		if ok, err := a.Checked(t.Context(), right, "ester"); ok != right || err != nil {
			t.Errorf("it goes away: %v, %v", ok, err)
		}
		if right {
			if err := a.Succeeded(t.Context()); err != nil {
				t.Error(err)
			}
		}
		b := attempt("david")
		w.state.away(false)
		w.clock.pass(time.Second)
		if ok, err := b.Checked(t.Context(), right, "david"); ok != right || err != nil {
			t.Errorf("it comes back: %v, %v", ok, err)
		}
		if right {
			if err := b.Succeeded(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	// What was wrong after it had come back is counted in it.
	w.wrong(4, home, "david")
	w.want("after five failures", w.try(home, "david"), refused)
}

// Whoever can make the state come and go gains nothing.
func TestOutageAgainAndAgain(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Local: true, Lockout: lockout}})
	for i := range 20 {
		w.state.away(i%2 == 0)
		w.clock.pass(time.Second)
		w.guess(0, home, "ester", false)
	}
	for range 2 {
		w.want("with the state", w.try(home, "ester"), refused)
		w.state.away(true)
		w.want("without it", w.try(home, "ester"), refused)
		w.state.away(false)
		w.clock.pass(time.Second)
	}
	// A minute after it has come back nothing is kept of it.
	for range 2 {
		w.want("with the state", w.try(home, "david"), accepted)
		w.clock.pass(limit.KeptFor + 5*time.Minute)
	}
	w.state.away(true)
	w.wrong(4, home, "ester")
	w.want("without it, much later", w.try(home, "ester"), accepted)
}

// What a replica counts by itself has a bound, beyond which it denies.
func TestOutageHasABound(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Local: true, Policies: map[limit.Class]limit.Policy{limit.API: {PerAddress: state.Rate{Burst: 5, Period: time.Minute}}}}})
	w.state.away(true)
	count := func(i int) error { return w.replicas[0].Count(t.Context(), limit.API, addressOf(i), "") }
	if err := count(0); err != nil {
		t.Fatal(err)
	}
	w.replicas[0].CountLocally(t, limit.MaxLocal-11)
	for i := range 20 {
		if err := count(1 + i); (err == nil) != (i < 10) || err != nil && !errors.Is(err, state.ErrUnavailable) {
			t.Fatalf("counter %d beside those that there are: %v", i, err)
		}
	}
	w.clock.pass(time.Minute)
	for i := range 100 {
		if err := count(i); err != nil {
			t.Fatalf("when the others have expired: %v", err)
		}
	}
}
