package session

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/timing"
)

// A phone whose answers are lost comes back after the grace period, again and again. It is
// given another successor each time, and the one that it uses is good.
func TestSpentTokenAfterGraceGivesANewSuccessor(t *testing.T) {
	b := newBench(t, nil)
	_, first := b.start(t)
	given := map[string]bool{}
	last := ""
	for range maxOthers {
		last = b.renew(t, first)
		if given[last] {
			t.Fatal("the same successor after the grace period")
		}
		given[last] = true
		b.clock.advance(b.RenewGrace - time.Nanosecond)
		if b.renew(t, first) != last {
			t.Fatal("another successor inside the grace period")
		}
		b.clock.advance(time.Nanosecond)
	}
	b.renew(t, last)
}

// Of several successors the first that is used wins, whichever it is. Each of the others is
// theft from then on, and so is the token that they come from.
func TestTheFirstSuccessorThatIsUsedWins(t *testing.T) {
	for used := range 3 {
		for shown := range 4 {
			if shown == used {
				continue
			}
			b := newBench(t, nil)
			s, first := b.start(t)
			tokens := make([]string, 4)
			for i := range 3 {
				tokens[i] = b.renew(t, first)
				b.clock.advance(b.RenewGrace)
			}
			tokens[3] = first
			next := b.renew(t, tokens[used])
			b.clock.advance(b.RenewGrace)
			got, _, err := b.Renew(t.Context(), tokens[shown], always)
			if !errors.Is(err, ErrReplayed) || got.ID != s.ID || got.UserID != b.user {
				t.Errorf("%d was used, %d is presented: %+v, %v", used, shown, got, err)
			}
			b.renew(t, next)
		}
	}
}

// A client that presents a spent token for ever writes once in a grace period, and the
// record stays small.
func TestASpentTokenForEverCostsLittle(t *testing.T) {
	var counted *swaps
	b := newBench(t, func(c *Config) { counted = &swaps{Store: c.State}; c.State = counted })
	s, first := b.start(t)
	for range 3 * maxOthers {
		for range 10 {
			b.renew(t, first)
			b.clock.advance(b.RenewGrace / 10)
		}
	}
	if counted.n != 3*maxOthers {
		t.Errorf("%d writes in %d grace periods", counted.n, 3*maxOthers)
	}
	stored, err := b.State.Get(t.Context(), key(b.user, s.ID))
	if err != nil {
		t.Fatal(err)
	}
	var rec record
	if err := json.Unmarshal(stored.Value, &rec); err != nil {
		t.Fatal(err)
	}
	if len(rec.Others) != maxOthers || len(rec.Recent) != 1 || len(stored.Value) > 2000 {
		t.Errorf("the record has %d others and %d spent ones in %d bytes", len(rec.Others), len(rec.Recent), len(stored.Value))
	}
}

// swaps counts them. Each may take some time.
type swaps struct {
	state.Store
	n     int
	takes func(n int)
}

func (s *swaps) Swap(ctx context.Context, k state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	s.n++
	if s.takes != nil {
		s.takes(s.n)
	}
	return s.Store.Swap(ctx, k, version, value, ttl)
}

// A second tab has the whole grace period, however late the answer of the first one was sent.
func TestTheGraceBeginsWithTheAnswer(t *testing.T) {
	for _, slow := range []time.Duration{2 * time.Second, 9 * time.Second, time.Minute} {
		var b bench
		var counted *swaps
		b = newBench(t, func(c *Config) {
			counted = &swaps{Store: c.State, takes: func(n int) {
				if n == 1 {
					b.clock.advance(slow)
				}
			}}
			c.State = counted
		})
		_, first := b.start(t)
		second := b.renew(t, first)
		b.clock.advance(b.RenewGrace - time.Nanosecond)
		if b.renew(t, first) != second {
			t.Errorf("a commit took %v: another successor", slow)
		}
		b.clock.advance(time.Nanosecond)
		if b.renew(t, first) == second {
			t.Errorf("a commit took %v: the same successor after the grace period", slow)
		}
		if counted.n != 3 {
			t.Errorf("%d writes for one renewal that was slow and one that was not", counted.n)
		}
	}
}

// A request that was sent in time is answered as such, however long the state had it wait.
func TestTheGraceEndsByWhenTheTokenIsPresented(t *testing.T) {
	var b bench
	late := time.Duration(0)
	b = newBench(t, func(c *Config) {
		c.State = &gets{Store: c.State, takes: func() { b.clock.advance(late) }}
	})
	_, first := b.start(t)
	second := b.renew(t, first)
	b.clock.advance(b.RenewGrace - time.Nanosecond)
	late = time.Minute
	if b.renew(t, first) != second {
		t.Error("another successor")
	}
}

type gets struct {
	state.Store
	takes func()
}

func (g *gets) Get(ctx context.Context, k state.Key) (state.Record, error) {
	g.takes()
	return g.Store.Get(ctx, k)
}

// reachable does not answer while it is away.
type reachable struct {
	state.Store
	away bool
	ping func(context.Context)
}

func (r *reachable) Ping(ctx context.Context) error {
	if r.ping != nil {
		r.ping(ctx)
	}
	if r.away {
		return errFault
	}
	return ctx.Err()
}

// One tab has renewed just before a failover, and another one asks after it.
func TestTheGraceDoesNotRunDuringAnOutage(t *testing.T) {
	state := &reachable{}
	b := newBench(t, func(c *Config) { state.Store, c.State = c.State, state })
	pass := func(d time.Duration) {
		for ; d > 0; d -= timing.StatePoll {
			b.clock.advance(min(d, timing.StatePoll))
			_ = b.reach(t.Context())
		}
	}
	_, first := b.start(t)
	pass(time.Second)
	second := b.renew(t, first)
	for range 2 { // two outages with a pause between
		pass(4 * time.Second)
		state.away = true
		pass(20 * time.Second)
		if b.renew(t, first) != second {
			t.Error("another successor before the outage has ended")
		}
		state.away = false
	}
	pass(time.Second)
	if b.renew(t, first) != second {
		t.Error("another successor after the outages")
	}
	pass(3 * time.Second) // beside 4 and 3, because the first outage was over when the state answered
	if b.renew(t, first) == second {
		t.Error("the same successor after the grace period")
	}
}

// What a client does to its own requests does not keep the grace from running: it hangs up,
// or has its own record fail. Nor does the end of the replica.
func TestAClientCannotStretchTheGrace(t *testing.T) {
	f := &faulty{}
	away := &reachable{}
	b := newBench(t, func(c *Config) { away.Store, c.State = c.State, f; f.Store = away })
	_, first := b.start(t)
	second := b.renew(t, first)
	third := b.renew(t, second)
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	for range 10 {
		_, _, err := b.Renew(gone, third, always)
		f.fail = true
		_, _, err2 := b.Renew(t.Context(), third, always)
		f.fail = false
		if err == nil || err2 == nil {
			t.Fatal("nothing has failed")
		}
		away.away = true
		_ = b.reach(gone)
		away.away = false
		b.clock.advance(time.Second)
		_ = b.reach(t.Context())
	}
	b.refused(t, first, ErrReplayed)
}

// A state that answers too late is away; a replica that has slept was not cut off.
func TestOutages(t *testing.T) {
	state := &reachable{}
	b := newBench(t, func(c *Config) { state.Store, c.State = c.State, state })
	at := b.clock.Now()
	for name, tt := range map[string]struct {
		do   func(o *outages)
		want time.Duration
	}{
		"none": {func(o *outages) { o.note(at, at, true); o.note(at.Add(9*time.Second), at.Add(9*time.Second), true) }, 0},
		"has passed": {func(o *outages) {
			o.note(at.Add(2*time.Second), at.Add(5*time.Second), false)
			o.note(at.Add(6*time.Second), at.Add(7*time.Second), true)
		}, 6 * time.Second},
		"goes on": {func(o *outages) { o.note(at.Add(2*time.Second), at.Add(5*time.Second), false) }, 9 * time.Second},
		"begins after an answer": {func(o *outages) {
			o.note(at.Add(2*time.Second), at.Add(2*time.Second), true)
			o.note(at.Add(2500*time.Millisecond), at.Add(5*time.Second), false)
			o.note(at.Add(5*time.Second), at.Add(8*time.Second), false)
		}, 8 * time.Second},
		"after a sleep": {func(o *outages) {
			o.note(at.Add(-time.Hour), at.Add(-time.Hour), true)
			o.note(at.Add(8*time.Second), at.Add(8*time.Second), false)
			o.note(at.Add(9*time.Second), at.Add(9*time.Second), true)
		}, 2 * time.Second},
		"too many": {func(o *outages) {
			for i := range 2 * maxOutages {
				now := at.Add(time.Duration(i) * 10 * time.Millisecond)
				o.note(now, now, i%2 == 1)
			}
			for range 2 * maxOutages { // later ones
				o.note(at.Add(time.Hour), at.Add(time.Hour), false)
				o.note(at.Add(time.Hour), at.Add(time.Hour), true)
			}
			if len(o.past) > maxOutages {
				t.Errorf("%d are remembered", len(o.past))
			}
		}, 0},
	} {
		o := &outages{}
		tt.do(o)
		if got := o.between(at, at.Add(10*time.Second)); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	state.ping = func(ctx context.Context) {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > timing.StateTimeout {
			t.Errorf("the state may take until %v", deadline)
		}
	}
	if err := b.reach(t.Context()); err != nil {
		t.Error(err)
	}
}
