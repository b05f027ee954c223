package limit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

const (
	// KnownFor is for how long an address from which a user signed in has counters of its own.
	KnownFor = 30 * 24 * time.Hour
	// knownAgain is after how long a success makes an address known for KnownFor anew: not
	// every login need write that.
	knownAgain = 24 * time.Hour
	// forgetAfter is when failures are forgotten after which none has followed. It is longer
	// than any Lockout.Max.
	forgetAfter = 24 * time.Hour
)

// errUnreadable: another program has written a counter. What it counted is not known, so
// nothing is accepted there until the record has expired or an administrator lifts it.
var errUnreadable = problem.New(problem.Unavailable, "attempts_unreadable", "it is not known how many attempts there were; an administrator can lift that")

// A counter counts failures at an account from an address, at an account from all addresses
// that are strangers there, or from an address at all accounts.
type counter struct {
	Failures int   `json:"failures,omitempty"`
	Since    int64 `json:"since,omitempty"` // when the first of them was, Unix nanoseconds
	At       int64 `json:"at,omitempty"`    // when the last of them was, Unix seconds, rounded up
	// Known is until when the address counts as one from which an attempt has succeeded, in
	// Unix seconds; 0: it does not.
	Known int64 `json:"known,omitempty"`

	version int64 // of its record; 0: there is none
}

// kindOfCounter is the kind of their records.
const kindOfCounter = "attempts"

// ownerOfAddresses owns the counters of addresses, whatever accounts they name. No account has
// this name.
const ownerOfAddresses = "addresses"

func accountCounter(account, block string) state.Key {
	return state.Key{Kind: kindOfCounter, Owner: account, ID: block}
}

func addressCounter(block string) state.Key {
	return state.Key{Kind: kindOfCounter, Owner: ownerOfAddresses, ID: block}
}

// read returns a counter; one that does not exist is zero.
func (l *Limiter) read(ctx context.Context, b backing, key state.Key) (counter, error) {
	r, err := b.Get(ctx, key)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return counter{}, nil
	case errors.Is(err, state.ErrUnreadable):
		return counter{}, errUnreadable.Because(err)
	case err != nil:
		return counter{}, err
	}
	return l.decode(r)
}

// decode reads a counter's record.
func (l *Limiter) decode(r state.Record) (counter, error) {
	var c counter
	now := l.Now()
	if err := json.Unmarshal(r.Value, &c); err != nil || c.Failures < 0 || c.At > now.Add(forgetAfter).Unix() {
		return counter{}, errUnreadable.Because(state.ErrUnreadable)
	}
	if now.Sub(time.Unix(c.At, 0)) >= forgetAfter {
		c.Failures, c.Since, c.At = 0, 0, 0
	}
	if c.Known <= now.Unix() {
		c.Known = 0
	}
	c.version = r.Version
	return c, nil
}

// write replaces the counter that was read by another one, which gets the new version. It
// returns ErrChanged if it has changed since.
func (l *Limiter) write(ctx context.Context, b backing, key state.Key, read counter, next *counter) error {
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	ttl := min(max(forgetAfter, time.Unix(next.Known, 0).Sub(l.Now())), KnownFor)
	if read.version == 0 {
		next.version, err = b.Create(ctx, key, value, ttl)
	} else {
		next.version, err = b.Swap(ctx, key, read.version, value, ttl)
	}
	if errors.Is(err, state.ErrExists) {
		err = state.ErrChanged
	}
	return err
}

// change replaces a counter by what f makes of it; nil: it stays.
func (l *Limiter) change(ctx context.Context, b backing, key state.Key, f func(counter) *counter) error {
	for {
		c, err := l.read(ctx, b, key)
		if err != nil {
			return err
		}
		next := f(c)
		if next == nil {
			return nil
		}
		if err := l.write(ctx, b, key, c, next); !errors.Is(err, state.ErrChanged) {
			return err
		}
	}
}

// threshold is from how many failures on a counter makes attempts wait; 0: it never does.
func (l *Limiter) threshold(b backing, key state.Key) int {
	switch {
	case key.Owner == ownerOfAddresses && l.spraying():
		return 1
	case key.Owner == ownerOfAddresses:
		return b.rules.Spray.After
	case key.ID == all:
		return b.rules.Lockout.AfterAll
	}
	return b.rules.Lockout.After
}

// wait returns how long attempts wait that a counter counts.
func (l *Limiter) wait(b backing, key state.Key, c counter) time.Duration {
	after := b.share(l.threshold(b, key))
	if after == 0 || c.Failures < after {
		return 0
	}
	return max(0, time.Unix(c.At, 0).Add(b.rules.Lockout.delay(c.Failures-after)).Sub(l.Now()))
}

// delay returns how long an attempt waits after the failure before, when so many failures have
// followed the first one that made attempts wait.
func (l Lockout) delay(more int) time.Duration {
	d := l.Delay
	for ; more > 0 && 0 < d && d < l.Max; more-- {
		d *= 2
	}
	return min(d, l.Max)
}

// An Attempt is one presentation of a credential that can be guessed, for an account.
type Attempt struct {
	l       *Limiter
	account string
	block   string
	address string
	own     counter // of the account and the address
	source  counter // of the address, unless the user signs in from there

	accepted bool
}

// Attempt counts one presentation of a credential that can be guessed, from an address, for an
// Account. It returns ErrTooMany, or an error of the state if it is not known how many attempts
// there were. If there is no error, the caller checks the credential, calls Checked whatever
// comes of it, and believes only what Checked accepts.
func (l *Limiter) Attempt(ctx context.Context, class Class, address, account string) (a *Attempt, err error) {
	err = l.counted(ctx, func(b backing) error {
		a, err = l.attempt(ctx, b, class, address, account)
		return err
	})
	return a, err
}

func (l *Limiter) attempt(ctx context.Context, b backing, class Class, address, account string) (*Attempt, error) {
	policy, a := b.rules.Policies[class], &Attempt{l: l, account: account, block: Block(address), address: address}
	// A refusal is remembered for the account and the address, too, so that nothing need be read
	// to know whether the address is the user's.
	fromAddress, refusedHere := bucket(class, "address", a.block, all), bucket(class, "account", account, a.block)
	if err := l.remembered(ctx, b, class, policy, fromAddress, refusedHere); err != nil {
		return nil, err
	}
	lifts := l.refusals.seenLifts()
	var err error
	if a.own, err = l.read(ctx, b, accountCounter(account, a.block)); err != nil {
		return nil, err
	}
	forAccount := bucket(class, "account", account, all)
	if a.known() {
		forAccount = refusedHere
	} else if wait, err := l.refusals.wait(ctx, b, forAccount); err != nil {
		return nil, err
	} else if wait > 0 { // of another stranger
		l.refusals.add(refusedHere, wait, lifts)
		return nil, l.refuse(ctx, class, "account", policy.PerAccount, state.Decision{RetryAfter: wait, ResetAfter: wait})
	}
	if err := l.step(ctx, b, class, "address", fromAddress, policy.PerAddress); err != nil {
		return nil, err
	}
	if err := l.step(ctx, b, class, "account", forAccount, policy.PerAccount); err != nil {
		return nil, err
	}
	if !a.watched(b) {
		return a, nil
	}
	key := addressCounter(a.block)
	if a.source, err = l.read(ctx, b, key); err != nil {
		return nil, err
	}
	if wait := l.wait(b, key, a.source); a.source.Known == 0 && wait > 0 {
		l.refusals.add(fromAddress, wait, lifts)
		l.metrics.refused.WithLabelValues(string(class), "spray").Inc()
		return nil, ErrTooMany.After(wait)
	}
	return a, nil
}

// known reports whether the user has signed in from the address within KnownFor.
func (a *Attempt) known() bool { return a.own.Known != 0 }

// watched reports whether a failure counts as one of a stranger.
func (a *Attempt) watched(b backing) bool { return !a.known() && b.rules.Spray != (Spray{}) }

// concludeFor bounds what follows a check of a credential.
const concludeFor = 5 * time.Second

// concluding returns a context that goes on when the client hangs up, so that this changes
// nothing of what is counted.
func concluding(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), concludeFor)
}

// Checked says whether the credential was right, and reports whether that may be believed. It
// may not while attempts at the account wait: then the caller does what it does with a wrong
// credential, and nothing before, since the client must not learn what was right, not even by
// the time that the answer takes. A failure is counted. After an error the caller must answer
// neither that the credential is right nor that it is wrong.
//
// The user is the one who has the account's name; "": nobody has it, which takes the same
// time.
func (a *Attempt) Checked(ctx context.Context, right bool, userID string) (accepted bool, err error) {
	ctx, cancel := concluding(ctx)
	defer cancel()
	err = a.l.counted(ctx, func(b backing) error {
		accepted, err = a.check(ctx, b, right, userID)
		return err
	})
	a.accepted = accepted && err == nil
	return a.accepted, err
}

// A tally is a counter that counts an attempt.
type tally struct {
	key   state.Key
	scope string // for the metric; empty: the failures of the address at all accounts
	c     *counter
}

// tallies returns the counters that count an attempt.
func (a *Attempt) tallies(ctx context.Context, b backing) (list []tally, err error) {
	if b.rules.Lockout.After > 0 {
		list = append(list, tally{accountCounter(a.account, a.block), "address", &a.own})
		if key := accountCounter(a.account, all); !a.known() && b.rules.Lockout.AfterAll > 0 {
			c, err := a.l.read(ctx, b, key)
			if err != nil {
				return nil, err
			}
			list = append(list, tally{key, "account", &c})
		}
	}
	if a.watched(b) && a.source.Known == 0 {
		list = append(list, tally{addressCounter(a.block), "", &a.source})
	}
	return list, nil
}

// check decides. Whether the attempt is accepted depends on nothing but a compare-and-swap of
// each counter, which a right credential does as a wrong one: of many at the same moment, no
// more are of use to guess than may fail.
func (a *Attempt) check(ctx context.Context, b backing, right bool, userID string) (bool, error) {
	l := a.l
	tallies, err := a.tallies(ctx, b)
	if err != nil {
		return false, err
	}
	var waiting string // the id of the counter by which the account waits
	free := true
	for _, t := range tallies {
		if l.wait(b, t.key, *t.c) > 0 {
			free = false
			if t.scope != "" {
				waiting = t.key.ID
			}
		}
	}
	for _, t := range tallies {
		if t.scope != "" && !free {
			// A write in place of the one of an attempt that does not wait, which takes as long.
			if err := l.list(ctx, b, waitingAccount(a.account), listed{User: userID, Counter: cmp.Or(waiting, t.key.ID)}); err != nil {
				return false, err
			}
			continue
		}
		failed := !right || !free
		counted, err := l.count(ctx, b, t, failed)
		if err == nil && counted && failed {
			err = a.noteFailure(ctx, b, t, userID)
		}
		if err != nil {
			return false, err
		}
		free = free && counted
	}
	if !free {
		l.metrics.locked.Inc()
	}
	if right && free {
		return true, nil
	}
	if a.watched(b) {
		return false, l.watch(ctx, b)
	}
	return false, nil
}

// count counts an attempt unless it has to wait. It returns what the counter is then.
func (l *Limiter) count(ctx context.Context, b backing, t tally, failed bool) (counted bool, err error) {
	for {
		if l.wait(b, t.key, *t.c) > 0 {
			return false, nil
		}
		next := *t.c
		if failed {
			now := l.Now()
			if next.Failures == 0 {
				next.Since = now.UnixNano()
			}
			next.Failures++
			next.At = now.Add(time.Second - 1).Unix()
		}
		err := l.write(ctx, b, t.key, *t.c, &next)
		if err == nil {
			*t.c = next
			return true, nil
		}
		if !errors.Is(err, state.ErrChanged) {
			return false, err
		}
		if *t.c, err = l.read(ctx, b, t.key); err != nil {
			return false, err
		}
	}
}

// noteFailure says that attempts wait from now on, if they do.
func (a *Attempt) noteFailure(ctx context.Context, b backing, t tally, userID string) error {
	l := a.l
	after := b.share(l.threshold(b, t.key))
	if after == 0 || t.c.Failures < after {
		return nil
	}
	if t.scope == "" {
		return l.list(ctx, b, waitingAddress(a.block), listed{Counter: a.block})
	}
	if t.c.Failures == after {
		l.metrics.lockouts.WithLabelValues(t.scope).Inc()
		if userID != "" {
			l.Audit.RecordSoon(store.AuditEvent{Action: "lockout", Target: userID, Outcome: audit.Denied, Address: a.address, Detail: "too many failures; scope: " + t.scope})
		}
	}
	return l.list(ctx, b, waitingAccount(a.account), listed{User: userID, Counter: t.key.ID})
}

// Succeeded says that nothing more is asked for after a credential that was accepted. It
// resets the counters that counted the attempt, and makes the address one that the user signs
// in from.
func (a *Attempt) Succeeded(ctx context.Context) error {
	if !a.accepted {
		return errors.New("limit: an attempt that was not accepted cannot succeed")
	}
	now := a.l.Now()
	until := now.Add(KnownFor).Unix()
	if a.own.Failures == 0 && a.own.Known > now.Add(KnownFor-knownAgain).Unix() {
		return nil
	}
	ctx, cancel := concluding(ctx)
	defer cancel()
	return a.l.counted(ctx, func(b backing) error {
		// Of many logins at the same moment one writes it.
		known := func(c counter) *counter {
			if c.Failures == 0 && c.Known > now.Add(KnownFor-time.Minute).Unix() {
				return nil
			}
			return &counter{Known: until}
		}
		if err := a.l.change(ctx, b, accountCounter(a.account, a.block), known); err != nil {
			return err
		}
		// At the same time, so that the address is known for as long as it is for any user.
		if err := a.l.change(ctx, b, addressCounter(a.block), known); err != nil || a.known() {
			return err
		}
		return b.Delete(ctx, accountCounter(a.account, all))
	})
}

// spraying reports whether addresses that never succeeded wait from their first failure on.
func (l *Limiter) spraying() bool { return l.Now().UnixNano() < l.sprayed.Load() }

// spray is the bucket of all failures of strangers, and the record of the time in which there
// were too many.
var spray = state.Key{Kind: "spray", Owner: all, ID: all}

// watch counts one failure at an account from an address that is a stranger there. When there
// are too many in the cluster, addresses that never succeeded wait for Spray.Total.Period. The
// replica that sees it first says so.
func (l *Limiter) watch(ctx context.Context, b backing) error {
	total := b.rules.Spray.Total
	if total == (state.Rate{}) {
		return nil
	}
	d, err := b.Limit(ctx, spray, b.part(total))
	if err != nil || d.Allowed {
		return err
	}
	l.sprayed.Store(l.Now().Add(total.Period).UnixNano())
	switch _, err := b.Create(ctx, spray, nil, total.Period); {
	case errors.Is(err, state.ErrExists):
		return nil
	case err != nil:
		return err
	}
	l.Logger.WarnContext(ctx, "many logins fail from addresses from which their users do not sign in; for some time addresses that never succeeded wait after each failure",
		"failures", total.Burst, "within", total.Period)
	l.Audit.RecordSoon(store.AuditEvent{Action: "spraying", Outcome: audit.Denied, Detail: fmt.Sprintf("more than %d failures within %v from addresses from which their users do not sign in", total.Burst, total.Period)})
	return nil
}

// kindOfLocked is the kind of the records that list the accounts and addresses that wait.
const kindOfLocked = "locked"

func waitingAccount(account string) state.Key {
	return state.Key{Kind: kindOfLocked, Owner: "accounts", ID: account}
}

func waitingAddress(block string) state.Key {
	return state.Key{Kind: kindOfLocked, Owner: "addresses", ID: block}
}

// A listed is the record of an account or address that waits.
type listed struct {
	User    string `json:"user,omitempty"` // id; empty: nobody has the name, or it is an address
	Counter string `json:"counter"`        // the id of the counter by which it waits
	At      int64  `json:"at"`             // when it was written, Unix seconds
}

// list writes that an account or address waits, so that administrators find it.
func (l *Limiter) list(ctx context.Context, b backing, key state.Key, one listed) error {
	one.At = l.Now().Unix()
	value, err := json.Marshal(one)
	if err != nil {
		return err
	}
	_, err = b.Put(ctx, key, value, forgetAfter)
	return err
}
