package limit_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/limit"
)

// A modelCounter is a counter as docs/limits.md describes it.
type modelCounter struct {
	failures int
	last     time.Time
	known    time.Time // until when
}

// A model is what limit promises, said once more in the simplest way: by one replica, at which
// nothing happens at the same time.
type model struct {
	lockout limit.Lockout
	spray   int
	now     func() time.Time
	records map[[2]string]*modelCounter // by account (or "") and address (or "")
}

func (m *model) of(account, address string) *modelCounter {
	key := [2]string{account, address}
	if m.records[key] == nil {
		m.records[key] = &modelCounter{}
	}
	c := m.records[key]
	if !m.now().Before(c.last.Add(24 * time.Hour)) {
		c.failures = 0
	}
	return c
}

func (m *model) isKnown(c *modelCounter) bool { return m.now().Before(c.known) }

func (m *model) waits(c *modelCounter, after int) bool {
	if c.failures < after {
		return false
	}
	delay := m.lockout.Max
	if more := c.failures - after; more < 10 {
		delay = min(m.lockout.Max, m.lockout.Delay<<more)
	}
	return m.now().Before(c.last.Add(delay))
}

// attempt returns how an attempt ends. steps: 1 presents the first of two credentials.
func (m *model) attempt(account, address string, right, complete bool) try {
	own, strangers, source := m.of(account, address), m.of(account, ""), m.of("", address)
	stranger, never := !m.isKnown(own), !m.isKnown(source)
	if stranger && never && m.waits(source, m.spray) {
		return tooMany
	}
	locked := m.waits(own, m.lockout.After) || stranger && m.waits(strangers, m.lockout.AfterAll)
	fail := func(c *modelCounter) { c.failures, c.last = c.failures+1, m.now() }
	if locked || !right {
		if !locked {
			fail(own)
			if stranger {
				fail(strangers)
			}
		}
		if stranger && never {
			fail(source)
		}
		return refused
	}
	if complete && (own.failures > 0 || own.known.Sub(m.now()) <= limit.KnownFor-24*time.Hour) {
		until := m.now().Add(limit.KnownFor)
		*own, *source = modelCounter{known: until}, modelCounter{known: until}
		if stranger {
			*strangers = modelCounter{}
		}
	}
	return accepted
}

// Whatever comes in whatever order, at whatever replica, ends as the model says.
func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := limit.Lockout{After: 3, AfterAll: 6, Delay: 10 * time.Second, Max: time.Minute}
		w := newCluster(t, 2, limit.Config{Rules: limit.Rules{Lockout: l, Spray: limit.Spray{After: 8}}})
		m := &model{lockout: l, spray: 8, now: w.clock.now, records: map[[2]string]*modelCounter{}}
		accounts, addresses := rapid.SampledFrom([]string{"ester", "david"}), rapid.SampledFrom([]string{home, foreign, "2001:db8::1"})
		attempt := func(right, complete bool) func(*rapid.T) {
			return func(r *rapid.T) {
				account, address, replica := accounts.Draw(r, "account"), addresses.Draw(r, "address"), rapid.IntRange(0, 1).Draw(r, "replica")
				a, got := w.guess(replica, address, account, right)
				if want := m.attempt(account, address, right, complete); got != want {
					r.Fatalf("%s from %s, right %v: %s, and not %s", account, address, right, got, want)
				}
				if got == accepted && complete {
					if err := a.Succeeded(t.Context()); err != nil {
						r.Fatal(err)
					}
				}
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"wrong":      attempt(false, true),
			"wrong too":  attempt(false, true), // more often than the others
			"login":      attempt(true, true),
			"first step": attempt(true, false),
			"given up": func(r *rapid.T) {
				account, address := accounts.Draw(r, "account"), addresses.Draw(r, "address")
				_, _ = w.replicas[0].Attempt(t.Context(), limit.Login, address, limit.Account(account))
			},
			"time": func(r *rapid.T) {
				w.clock.pass(rapid.SampledFrom([]time.Duration{
					time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Hour, 23 * time.Hour, 24 * time.Hour, 10 * 24 * time.Hour, 30 * 24 * time.Hour,
				}).Draw(r, "time"))
			},
		})
	})
}
