package limit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/state"
)

var sprayed = limit.Spray{After: 50, Total: state.Rate{Burst: 300, Period: 10 * time.Minute}}

// sprayWorld has an address from which somebody has signed in.
func sprayWorld(t *testing.T, spray limit.Spray) *cluster {
	w := newCluster(t, 3, limit.Config{Rules: limit.Rules{Lockout: lockout, Spray: spray}})
	w.want("login", w.login(home, "ester"), accepted)
	return w
}

// One password at 10,000 accounts, from 200 addresses, a hundred attempts a second: an address
// that has to wait is left out, and comes again in its turn.
func TestSpraying(t *testing.T) {
	w := sprayWorld(t, sprayed)
	attack := func(attempts int) (checked, untilAlarm int) {
		for i := range attempts {
			w.clock.pass(10 * time.Millisecond)
			if _, got := w.guess(i%3, addressOf(i%200), fmt.Sprint("user", i%10_000), false); got == refused {
				checked++
			}
			if untilAlarm == 0 && w.audit.count("spraying") > 0 {
				untilAlarm = checked
			}
		}
		return checked, untilAlarm
	}
	checked, alarm := attack(10_000)
	t.Logf("summary: spraying: one password at 10,000 accounts from 200 addresses, 100 attempts a second: %d are checked before the alarm, %d in all", alarm, checked)
	if alarm < 301 || alarm > 305 || checked > 1000 {
		t.Errorf("%d are checked before the alarm, and %d in all", alarm, checked)
	}
	if w.metric("watchword_limit_spraying") != 3 || w.metric("watchword_limit_refusals_total") < 9000 {
		t.Errorf("metrics: %v replicas see it, %v refused", w.metric("watchword_limit_spraying"), w.metric("watchword_limit_refusals_total"))
	}
	if w.audit.count("spraying") != 1 || w.logs.count("many logins fail") != 1 {
		t.Errorf("%d entries in the audit trail, %d in the log", w.audit.count("spraying"), w.logs.count("many logins fail"))
	}

	// An address from which somebody has signed in goes on, for all accounts.
	for i := range 60 {
		w.wrong(1, home, fmt.Sprint("user", i))
	}
	w.want("an address that has succeeded", w.login(home, "somebody"), accepted)
	// A new address waits from its first failure on, and not before.
	w.want("a new address", w.try(foreign, "david"), accepted)
	w.wrong(1, foreign, "david")
	w.want("a new address that has failed", w.try(foreign, "david"), tooMany)
	w.clock.pass(30 * time.Second)
	w.want("a new address after the wait", w.login(foreign, "david"), accepted)
	w.wrong(4, foreign, "david")
	w.want("an address that has succeeded now", w.login(foreign, "david"), accepted)

	// It ends by itself.
	w.clock.pass(sprayed.Total.Period)
	if w.metric("watchword_limit_spraying") != 0 {
		t.Error("it does not end")
	}
	w.wrong(4, addressOf(5000), "david")
	w.want("a new address that has failed", w.try(addressOf(5000), "david"), accepted)

	// The next one is said again.
	w.clock.pass(time.Hour)
	for i := range 400 {
		w.guess(i%3, addressOf(10_000+i), fmt.Sprint("user", i), false)
	}
	if w.audit.count("spraying") != 2 || w.logs.count("many logins fail") != 2 {
		t.Errorf("%d entries in the audit trail, %d in the log", w.audit.count("spraying"), w.logs.count("many logins fail"))
	}
}

// One address at many accounts waits by itself.
func TestOneAddressSprays(t *testing.T) {
	w := sprayWorld(t, limit.Spray{After: 50})
	for i := range 50 {
		w.wrong(1, foreign, fmt.Sprint("user", i))
	}
	for i := range 3 {
		if _, got := w.guess(i, foreign, "one more", true); got != tooMany {
			t.Errorf("after 50 failures: %s", got)
		}
	}
	w.want("another address", w.try(addressOf(1), "david"), accepted)
	w.clock.pass(30 * time.Second)
	w.wrong(1, foreign, "user")
	w.clock.pass(59 * time.Second)
	w.want("within the second wait", w.try(foreign, "user"), tooMany)
	w.clock.pass(time.Second)
	w.want("after it", w.try(foreign, "user"), accepted)
	if n := w.audit.count("spraying"); n != 0 {
		t.Errorf("%d entries about spraying, which is off", n)
	}
}

// The total alone works, too.
func TestTotalOfSprayingAlone(t *testing.T) {
	w := sprayWorld(t, limit.Spray{Total: state.Rate{Burst: 100, Period: time.Minute}})
	for i := range 101 {
		w.wrong(1, foreign, fmt.Sprint("user", i))
	}
	w.want("beyond the total", w.try(foreign, "david"), tooMany)
	w.clock.pass(time.Minute)
	w.want("after it", w.try(foreign, "david"), tooMany) // its own wait is 15 minutes by now
	if w.audit.count("spraying") != 1 {
		t.Errorf("audit: %+v", w.audit.events)
	}
}

// An account of one's own, with which one signs in from each address, hides nothing.
func TestSprayingWithAnOwnAccount(t *testing.T) {
	w := sprayWorld(t, sprayed)
	for i := range 200 {
		w.want("own login", w.login(addressOf(i), "mallory"), accepted)
	}
	for i := range 400 {
		w.guess(i%3, addressOf(i%200), fmt.Sprint("user", i), false)
	}
	if w.audit.count("spraying") != 1 {
		t.Errorf("audit: %+v", w.audit.events)
	}
}
