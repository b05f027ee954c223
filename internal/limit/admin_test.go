package limit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
)

// An office is where administrators sit: some users, replicas that count over one state, and
// the trail of what was done.
type office struct {
	t     *testing.T
	state *hooked
	users map[string]store.User // by id
	no    error                 // why the actor may not; nil: the actor may
	now   atomic.Int64

	mu    sync.Mutex
	trail []string
}

func newOffice(t *testing.T) *office {
	o := &office{t: t, users: map[string]store.User{}}
	o.now.Store(time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC).UnixNano())
	o.state = &hooked{Store: memstate.New(o.clock)}
	return o
}

func (o *office) clock() time.Time     { return time.Unix(0, o.now.Load()) }
func (o *office) pass(d time.Duration) { o.now.Add(int64(d)) }
func (o *office) user(name string) string { // returns the id
	id := "id-of-" + name
	o.users[id] = store.User{ID: id, Username: name, NameKey: name}
	return id
}

// replica makes a replica with the default lockout.
func (o *office) replica(change ...func(*limit.Config)) *limit.Limiter {
	c := limit.Config{
		State: o.state, Now: o.clock,
		Rules: limit.Rules{
			Lockout: limit.Lockout{After: 5, AfterAll: 50, Delay: 30 * time.Second, Max: 15 * time.Minute},
		},
	}
	for _, f := range change {
		f(&c)
	}
	return limittest.New(c)
}

func (o *office) administration(l *limit.Limiter) limit.Administration {
	return limit.Administration{Limits: l, Audit: o}
}

func (o *office) MaySeeLimits(context.Context) error  { return o.no }
func (o *office) MayLiftLimits(context.Context) error { return o.no }
func (o *office) MaySeeLimitsOf(_ context.Context, user string) (store.User, error) {
	return o.users[user], o.no
}
func (o *office) MayLiftLimitsOf(_ context.Context, user string) (store.User, error) {
	return o.users[user], o.no
}
func (o *office) UserByID(_ context.Context, id string) (store.User, error) {
	if u, ok := o.users[id]; ok {
		return u, nil
	}
	return store.User{}, store.ErrNotFound
}
func (o *office) Actor() (id, address string) { return "root", "192.0.2.200" }

func (o *office) Record(_ context.Context, e store.AuditEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trail = append(o.trail, strings.Join([]string{e.Actor, e.Address, e.Action, e.Target, e.Outcome, e.Detail}, " "))
}

// attempt is one attempt with a wrong credential.
func (o *office) attempt(l *limit.Limiter, address, name string) error {
	o.t.Helper()
	a, err := l.Attempt(o.t.Context(), limit.Login, address, limit.Account(name))
	if err != nil {
		return err
	}
	if accepted, err := a.Checked(o.t.Context(), false, o.users["id-of-"+name].ID); accepted || err != nil {
		o.t.Fatal(accepted, err)
	}
	return nil
}

func (o *office) fail(l *limit.Limiter, address, name string, times int) {
	o.t.Helper()
	for range times {
		if err := o.attempt(l, address, name); err != nil {
			o.t.Fatal(err)
		}
	}
}

// locked reports whether a right credential is refused.
func (o *office) locked(l *limit.Limiter, address, name string) bool {
	o.t.Helper()
	a, err := l.Attempt(o.t.Context(), limit.Login, address, limit.Account(name))
	if err != nil {
		o.t.Fatal(err)
	}
	accepted, err := a.Checked(o.t.Context(), true, o.users["id-of-"+name].ID)
	if err != nil {
		o.t.Fatal(err)
	}
	return !accepted
}

func (o *office) succeed(l *limit.Limiter, address, name string) {
	o.t.Helper()
	a, err := l.Attempt(o.t.Context(), limit.Login, address, limit.Account(name))
	if err != nil {
		o.t.Fatal(err)
	}
	if accepted, err := a.Checked(o.t.Context(), true, o.users["id-of-"+name].ID); !accepted || err != nil {
		o.t.Fatal(accepted, err)
	}
	if err := a.Succeeded(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
}

// exhaust uses up a rate.
func (o *office) exhaust(l *limit.Limiter, address, name string) {
	o.t.Helper()
	for range 100 {
		if err := o.attempt(l, address, name); err != nil {
			o.want(err, "too_many_attempts")
			return
		}
	}
	o.t.Fatal("no rate was used up")
}

// free checks that as many attempts may fail as if some have failed before.
func (o *office) free(l *limit.Limiter, address, name string, before int) {
	o.t.Helper()
	for i := range 5 - before {
		if o.locked(l, address, name) {
			o.t.Errorf("%s is locked for %s after %d failures", name, address, before+i)
		}
		if err := o.attempt(l, address, name); err != nil {
			o.t.Errorf("attempt %d at %s from %s: %v", i+1, name, address, err)
		}
	}
	if !o.locked(l, address, name) {
		o.t.Errorf("%s is not locked for %s after five failures", name, address)
	}
}

func (o *office) account(a limit.Administration, user string) limit.AccountFailures {
	o.t.Helper()
	got, err := a.Account(o.t.Context(), o, user, "", 0)
	if err != nil {
		o.t.Fatal(err)
	}
	return got
}

func (o *office) list(a limit.Administration) limit.Waiting {
	o.t.Helper()
	w, err := a.List(o.t.Context(), o, "", 0)
	if err != nil {
		o.t.Fatal(err)
	}
	return w
}

func (o *office) want(err error, code string) {
	o.t.Helper()
	got := ""
	if err != nil {
		got = problem.From(err).Code
	}
	if got != code {
		o.t.Errorf("%v, want %q", err, code)
	}
}

// hooked is a state in which tests act between two steps, and count them.
type hooked struct {
	state.Store
	before, after func(op string, key state.Key)
	lists, reads  atomic.Int64
	changes       atomic.Int64
}

func (h *hooked) do(op string, key state.Key, f func()) {
	if h.before != nil {
		h.before(op, key)
	}
	f()
	if h.after != nil {
		h.after(op, key)
	}
}

func (h *hooked) Get(ctx context.Context, key state.Key) (r state.Record, err error) {
	h.reads.Add(1)
	h.do("get", key, func() { r, err = h.Store.Get(ctx, key) })
	return r, err
}

func (h *hooked) Limit(ctx context.Context, key state.Key, rate state.Rate) (d state.Decision, err error) {
	h.do("limit", key, func() { d, err = h.Store.Limit(ctx, key, rate) })
	return d, err
}

func (h *hooked) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	h.lists.Add(1)
	return h.Store.List(ctx, kind, owner, after, limit)
}

func (h *hooked) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	h.changes.Add(1)
	var next int64
	var err error
	h.do("swap", key, func() { next, err = h.Store.Swap(ctx, key, version, value, ttl) })
	return next, err
}

func (h *hooked) Reset(ctx context.Context, key state.Key) error {
	h.changes.Add(1)
	return h.Store.Reset(ctx, key)
}

// once calls f the first time that an operation of a kind comes.
func once(op, kind string, f func()) func(string, state.Key) {
	var done atomic.Bool
	return func(what string, key state.Key) {
		if what == op && key.Kind == kind && done.CompareAndSwap(false, true) {
			f()
		}
	}
}

const (
	usual    = "192.0.2.1" // from which the user signs in
	stranger = "198.51.100.7"
)

// What was counted is forgotten on every replica, and known addresses stay known.
func TestLiftAnAccount(t *testing.T) {
	o := newOffice(t)
	id := o.user("alice")
	limited := func(c *limit.Config) {
		c.Rules.Policies = map[limit.Class]limit.Policy{
			limit.Login: {PerAccount: state.Rate{Burst: 25, Period: 5 * time.Minute}},
			limit.Admin: {PerAccount: state.Rate{Burst: 1, Period: time.Hour}},
		}
	}
	one, two := o.replica(limited), o.replica(limited)
	o.succeed(one, usual, "alice")
	began := o.clock()
	o.fail(one, stranger, "alice", 7)
	o.fail(one, usual, "alice", 6)
	// The second replica remembers three refusals.
	o.fail(two, "203.0.113.1", "alice", 3)
	o.exhaust(two, stranger, "alice")
	o.exhaust(two, usual, "alice")
	o.want(two.Count(t.Context(), limit.Admin, "", limit.UserAccount(id)), "")
	o.want(two.Count(t.Context(), limit.Admin, "", limit.UserAccount(id)), "too_many_attempts")
	o.pass(time.Millisecond)

	a := o.administration(one)
	w := o.list(a)
	if len(w.Accounts) != 1 || w.Accounts[0].Username != "alice" || w.Accounts[0].ID != id || w.Accounts[0].From != usual || w.Accounts[0].Count != 5 {
		t.Fatalf("waiting: %+v", w)
	}
	got := o.account(a, id)
	if !got.Locked || got.Username != "alice" || got.Strangers.Count != 5+3 || len(got.Addresses) != 3 {
		t.Errorf("%+v", got)
	}
	for _, one := range got.Addresses {
		if one.Address == usual && (!one.Known || one.Count != 5) || one.Address == stranger && (one.Known || one.Count != 5) {
			t.Errorf("%+v", one)
		}
		if one.Address == stranger && (!one.Since.Equal(began) || !one.Until.Equal(began.Add(30*time.Second))) {
			t.Errorf("since %v, until %v, at %v", one.Since, one.Until, began)
		}
	}

	if err := a.LiftAccount(t.Context(), o, id); err != nil {
		t.Fatal(err)
	}
	o.pass(time.Second) // in which the others see it
	got = o.account(a, id)
	if got.Locked || got.Strangers.Count != 0 || len(got.Addresses) != 1 || got.Addresses[0].Address != usual || !got.Addresses[0].Known || got.Addresses[0].Count != 0 {
		t.Errorf("after the lift: %+v", got)
	}
	if w := o.list(a); len(w.Accounts) != 0 || w.Unnamed != 0 {
		t.Errorf("after the lift: %+v", w)
	}
	o.free(two, stranger, "alice", 0)
	o.free(two, "203.0.113.1", "alice", 0)
	o.free(two, usual, "alice", 0)
	o.want(two.Count(t.Context(), limit.Admin, "", limit.UserAccount(id)), "")
	// Again, and of an account at which nothing was counted.
	for _, user := range []string{id, id, o.user("bob")} {
		if err := a.LiftAccount(t.Context(), o, user); err != nil {
			t.Error(err)
		}
	}
	if want := "root 192.0.2.200 limit.lift " + id + " ok account"; len(o.trail) != 4 || o.trail[0] != want {
		t.Errorf("the trail has %q, want %q first", o.trail, want)
	}
}

// The replica that lifts forgets its own refusals at once.
func TestLiftIsKnownAtOnceWhereItIsDone(t *testing.T) {
	o := newOffice(t)
	id := o.user("alice")
	l := o.replica(func(c *limit.Config) {
		c.Rules.Policies = map[limit.Class]limit.Policy{limit.Admin: {PerAccount: state.Rate{Burst: 1, Period: time.Hour}}}
	})
	count := func() error { return l.Count(t.Context(), limit.Admin, "", limit.UserAccount(id)) }
	o.want(count(), "")
	for range 2 { // the second one has looked for a lift
		o.want(count(), "too_many_attempts")
	}
	if err := o.administration(l).LiftAccount(t.Context(), o, id); err != nil {
		t.Fatal(err)
	}
	o.want(count(), "")
}

// An attempt that has read its counters before the lift counts from zero after it.
func TestLiftBetweenReadAndWrite(t *testing.T) {
	for _, failures := range []int{4, 9} {
		for name, hook := range map[string]func(o *office, f func()){
			"before the check":   func(_ *office, f func()) { f() },
			"between two reads":  func(o *office, f func()) { o.state.after = once("get", "attempts", f) },
			"before the write":   func(o *office, f func()) { o.state.before = once("swap", "attempts", f) },
			"between two writes": func(o *office, f func()) { o.state.after = once("swap", "attempts", f) },
		} {
			t.Run(fmt.Sprint(name, failures), func(t *testing.T) {
				o := newOffice(t)
				id := o.user("alice")
				l := o.replica()
				for range failures {
					o.fail(l, stranger, "alice", 1)
					o.pass(15 * time.Minute)
				}
				attempt, err := l.Attempt(t.Context(), limit.Login, stranger, limit.Account("alice"))
				if err != nil {
					t.Fatal(err)
				}
				lifted := false
				hook(o, func() {
					lifted = true
					if err := o.administration(o.replica()).LiftAccount(t.Context(), o, id); err != nil {
						t.Error(err)
					}
				})
				if accepted, err := attempt.Checked(t.Context(), false, id); accepted || err != nil || !lifted {
					t.Fatal(accepted, err, lifted)
				}
				o.state.before, o.state.after = nil, nil
				got := o.account(o.administration(l), id)
				if got.Locked || got.Strangers.Count > 1 || sum(got.Addresses) > 1 {
					t.Errorf("%+v", got)
				}
				o.free(l, stranger, "alice", sum(got.Addresses))
			})
		}
	}
}

// A refusal that was decided before the lift and arrives after it is not remembered.
func TestLiftWhileARefusalIsOnItsWay(t *testing.T) {
	o := newOffice(t)
	id := o.user("alice")
	limited := func(c *limit.Config) {
		c.Rules.Policies = map[limit.Class]limit.Policy{limit.Admin: {
			PerAccount: state.Rate{Burst: 1, Period: time.Hour}, PerAddress: state.Rate{Burst: 2, Period: time.Hour},
		}}
	}
	l, other := o.replica(limited), o.replica(limited)
	count := func(address string) error {
		return l.Count(t.Context(), limit.Admin, address, limit.UserAccount(id))
	}
	for what, lift := range map[string]func(limit.Administration) error{
		"account": func(a limit.Administration) error { return a.LiftAccount(t.Context(), o, id) },
		"address": func(a limit.Administration) error { return a.LiftAddress(t.Context(), o, usual) },
	} {
		t.Run(what, func(t *testing.T) {
			if err := errors.Join(o.administration(other).LiftAddress(t.Context(), o, usual), o.administration(other).LiftAccount(t.Context(), o, id)); err != nil {
				t.Fatal(err)
			}
			o.pass(2 * time.Second)
			address, noise := usual, map[string]string{"account": "203.0.113.1", "address": "203.0.113.2"}[what]
			if what == "account" {
				address = ""
			} else {
				o.want(l.Count(t.Context(), limit.Admin, usual, ""), "")
			}
			one := func() error {
				if what == "account" {
					return count(address)
				}
				return l.Count(t.Context(), limit.Admin, address, "")
			}
			o.want(one(), "")
			o.state.after = once("limit", "admin_"+what, func() {
				if err := lift(o.administration(other)); err != nil {
					t.Error(err)
				}
				o.pass(2 * time.Second)
				// The replica remembers something else, and so sees the lift.
				o.want(l.Count(t.Context(), limit.Admin, noise, ""), "")
				o.want(l.Count(t.Context(), limit.Admin, noise, ""), "")
				o.want(l.Count(t.Context(), limit.Admin, noise, ""), "too_many_attempts")
				o.pass(2 * time.Second)
				_ = l.Count(t.Context(), limit.Admin, noise, "")
			})
			o.want(one(), "too_many_attempts")
			o.state.after = nil
			o.want(one(), "")
		})
	}
}

// While replicas count, a lift leaves no more failures than attempts have ended since it began,
// and no failure of before comes back.
func TestLiftWhileReplicasCount(t *testing.T) {
	o := newOffice(t)
	id := o.user("alice")
	never := func(c *limit.Config) { c.Rules.Lockout.After, c.Rules.Lockout.AfterAll = 1<<20, 1<<20 }
	replicas := []*limit.Limiter{o.replica(never), o.replica(never), o.replica(never)}
	a := o.administration(replicas[0])
	const attempts = 200
	var ended, lifts atomic.Int64
	var counting, lifting sync.WaitGroup
	done := make(chan struct{})
	endedBefore := int64(0) // of the last lift, when it began
	lifting.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			endedBefore = ended.Load()
			if err := a.LiftAccount(t.Context(), o, id); err != nil {
				t.Error(err)
			}
			lifts.Add(1)
		}
	})
	for i := range 9 {
		counting.Go(func() {
			for range attempts {
				if err := o.attempt(replicas[i%3], stranger, "alice"); err != nil {
					t.Error(err)
				}
				ended.Add(1)
			}
		})
	}
	counting.Wait()
	close(done)
	lifting.Wait()
	got := o.account(a, id)
	for what, n := range map[string]int{"strangers": got.Strangers.Count, "the address": sum(got.Addresses)} {
		if most := 9*attempts - endedBefore; int64(n) > most {
			t.Errorf("%s: %d failures are left, but only %d attempts were not over when the last lift began", what, n, most)
		}
	}
	if err := a.LiftAccount(t.Context(), o, id); err != nil {
		t.Fatal(err)
	}
	if got := o.account(a, id); got.Strangers.Count+sum(got.Addresses) != 0 {
		t.Errorf("%+v after the last lift", got)
	}
	t.Logf("%d attempts at three replicas, %d lifts meanwhile", 9*attempts, lifts.Load())
}

func sum(addresses []limit.AddressFailures) (n int) {
	for _, one := range addresses {
		n += one.Count
	}
	return n
}

// An account that was attacked from many addresses is lifted page by page, and what has
// nothing to lift is not written.
func TestLiftAfterAnAttackFromEverywhere(t *testing.T) {
	o := newOffice(t)
	id := o.user("alice")
	l := o.replica()
	a := o.administration(l)
	o.succeed(l, usual, "alice")
	const addresses, failing = 40_000, 400
	for i := range addresses {
		// Most came while the account was locked for strangers, and so were no failures.
		value := `{"at":1795953600}`
		if i%(addresses/failing) == 0 {
			value = `{"at":1795953600,"failures":3}`
		}
		key := state.Key{Kind: "attempts", Owner: limit.Account("alice"), ID: fmt.Sprintf("10-%d-%d-%d", 100+i/10_000, 100+i/100%100, 100+i%100)}
		if _, err := o.state.Put(t.Context(), key, []byte(value), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	o.fail(l, "10.100.100.100", "alice", 4)
	o.state.lists.Store(0)
	o.state.reads.Store(0)
	o.state.changes.Store(0)
	if err := a.LiftAccount(t.Context(), o, id); err != nil {
		t.Fatal(err)
	}
	lists, reads, changes := o.state.lists.Load(), o.state.reads.Load(), o.state.changes.Load()
	if lists > addresses/state.MaxPage+1 || reads > failing+20 || changes > failing+20 {
		t.Errorf("%d pages and %d records were read and %d things written", lists, reads, changes)
	}
	t.Logf("summary: an account with counters of %d addresses, %d with failures, was lifted by %d pages and %d writes", addresses, failing, lists, changes)
	if got := o.account(a, id); got.Strangers.Count != 0 || len(got.Addresses) > 1 {
		t.Errorf("%+v", got)
	}
	o.free(l, "10.100.100.100", "alice", 0)
}

// An address waits whatever accounts it names, is listed, and is lifted in any spelling of it.
func TestLiftAnAddress(t *testing.T) {
	for _, one := range []struct {
		client, shown string
		spellings     []string
	}{
		{"198.51.100.7", "198.51.100.7", []string{"198.51.100.7", "::ffff:198.51.100.7", "::FFFF:c633:6407", "198.51.100.7/32"}},
		{"2001:db8:0:1::42", "2001:db8:0:1::/64", []string{
			"2001:db8:0:1::42", "2001:DB8::1:0:0:0:1", "2001:0db8:0000:0001:0000:0000:0000:0000", "[2001:db8:0:1::9]", "2001:db8:0:1::/64", "2001:db8:0:1::9/64",
			"2001:db8:0:1::192.0.2.1", "2001:db8:0:1::1%eth0",
		}},
		{"fe80::1%eth0", "fe80::/64", []string{"fe80::1%eth0", "fe80::2", "fe80::/64"}},
		{"", "unknown", []string{"unknown"}},
	} {
		for _, spelling := range one.spellings {
			t.Run(spelling, func(t *testing.T) {
				o := newOffice(t)
				spray := func(c *limit.Config) {
					c.Rules.Spray = limit.Spray{After: 3}
					c.Rules.Policies = map[limit.Class]limit.Policy{limit.MFA: {PerAddress: state.Rate{Burst: 1, Period: time.Hour}}}
				}
				l, other := o.replica(spray), o.replica(spray)
				a := o.administration(l)
				for i := range 3 {
					o.fail(other, one.client, fmt.Sprintf("user%d", i), 1)
				}
				o.want(o.attempt(other, one.client, "somebody"), "too_many_attempts")
				if one.client != "" {
					o.want(other.Count(t.Context(), limit.MFA, one.client, ""), "")
					o.want(other.Count(t.Context(), limit.MFA, one.client, ""), "too_many_attempts")
				}
				w := o.list(a)
				if len(w.Addresses) != 1 || w.Addresses[0].Address != one.shown || w.Addresses[0].Count != 3 || w.Addresses[0].Until.IsZero() {
					t.Fatalf("waiting: %+v", w)
				}
				if got, err := a.Address(t.Context(), o, spelling); err != nil || got != w.Addresses[0] {
					t.Errorf("%+v, %v, want %+v", got, err, w.Addresses[0])
				}
				if err := a.LiftAddress(t.Context(), o, spelling); err != nil {
					t.Fatal(err)
				}
				if err := a.LiftAddress(t.Context(), o, spelling); err != nil {
					t.Error(err)
				}
				o.pass(time.Second)
				if w := o.list(a); len(w.Addresses) != 0 {
					t.Errorf("after the lift: %+v", w)
				}
				if got, err := a.Address(t.Context(), o, one.shown); err != nil || got.Count != 0 || got.Known {
					t.Errorf("after the lift: %+v, %v", got, err)
				}
				for i := range 3 {
					if err := o.attempt(other, one.client, fmt.Sprintf("user%d", i)); err != nil {
						t.Errorf("attempt %d after the lift: %v", i+1, err)
					}
				}
				if one.client != "" {
					o.want(other.Count(t.Context(), limit.MFA, one.client, ""), "")
				}
				if want := "root 192.0.2.200 limit.lift " + one.shown + " ok address"; !slices.Equal(o.trail, []string{want, want}) {
					t.Errorf("the trail has %q", o.trail)
				}
			})
		}
	}
	o := newOffice(t)
	a := o.administration(o.replica())
	for _, bad := range []string{"", "x", "192.0.2", "192.0.2.1/24", "2001:db8::/48", "2001:db8::/65", "[", "192.0.2.1:443", "1.2.3.04", "all", "none", "2001-db8-0-1--64", "\x00"} {
		o.want(a.LiftAddress(t.Context(), o, bad), "invalid_address")
		_, err := a.Address(t.Context(), o, bad)
		o.want(err, "invalid_address")
	}
	if len(o.trail) != 0 {
		t.Errorf("the trail has %q", o.trail)
	}
}

// Every block is shown as an address that names it.
func TestBlocksAreShownAsAddresses(t *testing.T) {
	o := newOffice(t)
	l := o.replica(func(c *limit.Config) { c.Rules.Spray = limit.Spray{After: 1000} })
	a := o.administration(l)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		var b [16]byte
		for j := range b {
			if random.IntN(2) == 0 { // zeros are likely
				b[j] = byte(random.Uint32())
			}
		}
		address := netip.AddrFrom16(b)
		if i%2 == 0 {
			address = netip.AddrFrom4([4]byte(b[:4]))
		}
		o.fail(l, address.String(), "nobody", 1)
		got, err := a.Address(t.Context(), o, address.String())
		if err != nil || got.Count == 0 {
			t.Fatalf("%s: %+v, %v", address, got, err)
		}
		if again, err := a.Address(t.Context(), o, got.Address); err != nil || again != got {
			t.Errorf("%s is shown as %s, which has %+v, %v", address, got.Address, again, err)
		}
		want := address.String()
		if address.Is6() && !address.Is4In6() {
			want = netip.PrefixFrom(address, 64).Masked().String()
		}
		if got.Address != want {
			t.Errorf("%s is shown as %s", address, got.Address)
		}
	}
}

// Accounts and addresses come page by page, each once. Names that nobody has, or has any more,
// are counted. An account that has succeeded since does not wait.
func TestListInPages(t *testing.T) {
	o := newOffice(t)
	l := o.replica(func(c *limit.Config) { c.Rules.Spray = limit.Spray{After: 6} })
	a := o.administration(l)
	want := map[string]bool{}
	const accounts, strangers, addresses = 23, 11, 23 + 11 + 3
	for i := range accounts {
		name := fmt.Sprintf("user%d", i)
		o.user(name)
		want[name] = true
		o.fail(l, fmt.Sprintf("192.0.2.%d", i), name, 6)
	}
	for i := range strangers {
		o.fail(l, fmt.Sprintf("198.51.100.%d", i), fmt.Sprintf("nobody%d", i), 6)
	}
	for i, name := range []string{"deleted", "renamed", "returned"} {
		o.user(name)
		o.fail(l, fmt.Sprintf("203.0.113.%d", i), name, 6)
	}
	delete(o.users, "id-of-deleted")
	o.users["id-of-renamed"] = store.User{ID: "id-of-renamed", Username: "other", NameKey: "other"}
	o.pass(15 * time.Minute)
	o.succeed(l, "203.0.113.2", "returned")

	for _, limit := range []int{1, 7, 50, 200} {
		seen, from, unnamed, pages := map[string]int{}, map[string]int{}, 0, 0
		for after := ""; ; pages++ {
			w, err := a.List(t.Context(), o, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(w.Accounts) > limit || len(w.Addresses) > limit {
				t.Errorf("a page of %d has %d accounts and %d addresses", limit, len(w.Accounts), len(w.Addresses))
			}
			for _, one := range w.Accounts {
				seen[one.Username]++
			}
			for _, one := range w.Addresses {
				from[one.Address]++
			}
			unnamed += w.Unnamed
			if after = w.Next; after == "" {
				break
			}
		}
		for name, n := range seen {
			if !want[name] || n != 1 {
				t.Errorf("pages of %d: %s was listed %d times", limit, name, n)
			}
		}
		if len(seen) != accounts || unnamed != strangers+2 || len(from) != addresses-1 {
			t.Errorf("pages of %d: %d accounts, %d without a name, %d addresses", limit, len(seen), unnamed, len(from))
		}
	}
	for after, code := range map[string]string{"x": "invalid_cursor", "a.b.c": "invalid_cursor", "a b.": "invalid_cursor", "~.~": "", strings.Repeat("a", 129) + ".": "invalid_cursor"} {
		_, err := a.List(t.Context(), o, after, 0)
		o.want(err, code)
	}
	for _, limit := range []int{-1, 201} {
		_, err := a.List(t.Context(), o, "", limit)
		o.want(err, "invalid_limit")
		_, err = a.Account(t.Context(), o, "id-of-user1", "", limit)
		o.want(err, "invalid_limit")
	}
	for _, after := range []string{"~", "a.b", " "} {
		_, err := a.Account(t.Context(), o, "id-of-user1", after, 0)
		o.want(err, "invalid_cursor")
	}
}

// The addresses of an account come page by page, and on each page it says that it is locked.
func TestAddressesOfAnAccountInPages(t *testing.T) {
	o := newOffice(t)
	id := o.user("alice")
	l := o.replica()
	a := o.administration(l)
	for i := range 9 {
		o.fail(l, fmt.Sprintf("192.0.2.%d", i), "alice", 1)
	}
	o.fail(l, "99.0.0.1", "alice", 6)
	seen := map[string]int{}
	for after := ""; ; {
		got, err := a.Account(t.Context(), o, id, after, 2)
		if err != nil || !got.Locked || len(got.Addresses) > 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, one := range got.Addresses {
			seen[one.Address] += one.Count
		}
		if after = got.Next; after == "" {
			break
		}
	}
	if len(seen) != 10 || seen["99.0.0.1"] != 5 {
		t.Errorf("%v", seen)
	}
	o.pass(time.Hour)
	if got := o.account(a, id); got.Locked {
		t.Errorf("locked after an hour: %+v", got)
	}
}

// Whoever may not gets the reason, sees and changes nothing, and is in the trail.
func TestWhoMayNotSeeOrLift(t *testing.T) {
	o := newOffice(t)
	id := o.user("alice")
	l := o.replica()
	a := o.administration(l)
	o.fail(l, stranger, "alice", 7)
	before := o.account(a, id)
	o.no = problem.New(problem.Denied, "permission_missing", "no")
	_, err := a.List(t.Context(), o, "", 0)
	o.want(err, "permission_missing")
	got, err := a.Account(t.Context(), o, id, "", 0)
	o.want(err, "permission_missing")
	if got.ID != "" {
		t.Errorf("%+v is shown", got)
	}
	_, err = a.Address(t.Context(), o, stranger)
	o.want(err, "permission_missing")
	_, err = a.Address(t.Context(), o, "nonsense")
	o.want(err, "permission_missing")
	o.want(a.LiftAccount(t.Context(), o, id), "permission_missing")
	o.want(a.LiftAddress(t.Context(), o, stranger), "permission_missing")
	o.no = nil
	if after := o.account(a, id); after.Strangers != before.Strangers || len(after.Addresses) != len(before.Addresses) {
		t.Errorf("%+v, before it was %+v", after, before)
	}
	if want := []string{
		"root 192.0.2.200 limit.lift " + id + " denied account: permission_missing", "root 192.0.2.200 limit.lift " + stranger + " denied address: permission_missing",
	}; !slices.Equal(o.trail, want) {
		t.Errorf("the trail has %q, want %q", o.trail, want)
	}
}

// While the state is away nothing is said to be lifted. A second lift does the rest.
func TestLiftWhileTheStateIsAway(t *testing.T) {
	o := newOffice(t)
	id := o.user("alice")
	l := o.replica()
	o.fail(l, stranger, "alice", 7)
	for fails := 1; ; fails++ {
		broken := &failing{Store: o.state.Store}
		broken.left.Store(int64(fails))
		away := o.administration(o.replica(func(c *limit.Config) { c.State, c.Rules.Local = broken, true }))
		err := away.LiftAccount(t.Context(), o, id)
		if err == nil {
			break
		}
		o.want(err, "state_unavailable")
	}
	if len(o.trail) < 5 || !strings.HasSuffix(o.trail[0], "failed account: state_unavailable") {
		t.Errorf("the trail has %q", o.trail)
	}
	if got := o.account(o.administration(l), id); got.Strangers.Count != 0 || len(got.Addresses) != 0 {
		t.Errorf("%+v", got)
	}
	o.free(l, stranger, "alice", 0)
}

// failing is a state that does some steps and then no more.
type failing struct {
	state.Store
	left atomic.Int64
}

func (f *failing) may() error {
	if f.left.Add(-1) < 0 {
		return state.ErrUnavailable
	}
	return nil
}

func (f *failing) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if err := f.may(); err != nil {
		return 0, err
	}
	return f.Store.Swap(ctx, key, version, value, ttl)
}

func (f *failing) Reset(ctx context.Context, key state.Key) error {
	return errors.Join(f.may(), f.Store.Reset(ctx, key))
}

func (f *failing) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if err := f.may(); err != nil {
		return 0, err
	}
	return f.Store.Put(ctx, key, value, ttl)
}
