package limit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

var (
	errNoAddress = problem.New(problem.Invalid, "invalid_address", "this is neither an IP address nor a /64 of IPv6")
	errNoLimit   = problem.New(problem.Invalid, "invalid_limit", "a page has 1 to %d items", MaxPage)
	errNoCursor  = problem.New(problem.Invalid, "invalid_cursor", "this is not where a page ended")
)

// How many items a page has.
const (
	DefaultPage = 50
	MaxPage     = 200
)

// Rights decides who may see limits and who may lift them, in the name of one actor. Each
// error is the reason for the client.
type Rights interface {
	MaySeeLimits(ctx context.Context) error
	MayLiftLimits(ctx context.Context) error
	// MaySeeLimitsOf and MayLiftLimitsOf return the user, named by id or username, unless the
	// user holds a right that the actor does not hold.
	MaySeeLimitsOf(ctx context.Context, user string) (store.User, error)
	MayLiftLimitsOf(ctx context.Context, user string) (store.User, error)
	// UserByID returns a user, or store.ErrNotFound.
	UserByID(ctx context.Context, id string) (store.User, error)
	// Actor returns the actor's user id and the client's address, for the audit trail.
	Actor() (id, address string)
}

// A Recorder writes what an actor did into the audit trail.
type Recorder interface {
	Record(ctx context.Context, e store.AuditEvent)
}

// Administration shows who waits, and lifts it.
type Administration struct {
	Limits *Limiter
	Audit  Recorder
}

// Failures are those that a counter has.
type Failures struct {
	Count int
	Since time.Time // of the first; zero: there is none
	Last  time.Time // of the last
	Until time.Time // until about when attempts wait; zero: they do not wait now
}

// AddressFailures are what is counted of one address, or of a /64 of IPv6: for an account, or
// whatever accounts it names.
type AddressFailures struct {
	Address string
	// Known: the user has signed in from there within KnownFor; without an account, any user.
	Known bool
	Failures
}

// AccountFailures are what is counted for a user.
type AccountFailures struct {
	ID, Username string
	Locked       bool     // some attempts wait now
	Strangers    Failures // of all addresses that are not known, together
	Addresses    []AddressFailures
	Next         string // for the next page of Addresses; empty: this is the last one
}

// A WaitingAccount is a user at whose account there were so many failures that attempts wait
// after each.
type WaitingAccount struct {
	ID, Username string
	// From is the address that waits; empty: all that are not known to be the user's.
	From string
	Failures
}

// Waiting is a page of the accounts and addresses that wait. It may have fewer than were asked
// for, or none, and be followed by another one.
type Waiting struct {
	Accounts  []WaitingAccount
	Unnamed   int // how many more accounts wait on this page, whose names nobody has
	Addresses []AddressFailures
	Next      string // empty: this is the last page
}

// List returns a page of what waits: up to limit accounts, and as many addresses.
func (a Administration) List(ctx context.Context, by Rights, after string, limit int) (Waiting, error) {
	if err := by.MaySeeLimits(ctx); err != nil {
		return Waiting{}, err
	}
	limit, err := pageOf(limit)
	if err != nil {
		return Waiting{}, err
	}
	accounts, addresses, ok := strings.Cut(cmp.Or(after, "."), ".")
	if !ok || !isCursor(accounts) || !isCursor(addresses) {
		return Waiting{}, errNoCursor
	}
	var w Waiting
	if accounts, err = a.waiting(ctx, "accounts", accounts, limit, func(id string, one listed) error {
		return a.addAccount(ctx, by, id, one, &w)
	}); err != nil {
		return Waiting{}, err
	}
	if addresses, err = a.waiting(ctx, "addresses", addresses, limit, func(block string, _ listed) error {
		key := addressCounter(block)
		c, err := a.read(ctx, key)
		if err == nil && c.Known == 0 && c.Failures > 0 {
			w.Addresses = append(w.Addresses, a.address(key, c))
		}
		return err
	}); err != nil {
		return Waiting{}, err
	}
	if accounts != ended || addresses != ended {
		w.Next = accounts + "." + addresses
	}
	return w, nil
}

// ended is the cursor of a list of which nothing is left.
const ended = "~"

var cursor = regexp.MustCompile(`^([A-Za-z0-9_-]{0,128}|` + ended + `)$`)

func isCursor(text string) bool { return cursor.MatchString(text) }

func pageOf(limit int) (int, error) {
	if limit < 0 || limit > MaxPage {
		return 0, errNoLimit
	}
	return cmp.Or(limit, DefaultPage), nil
}

// waiting calls f for a page of a list, and returns where the next one begins.
func (a Administration) waiting(ctx context.Context, list, after string, limit int, f func(id string, one listed) error) (next string, err error) {
	if after == ended {
		return ended, nil
	}
	page, err := a.Limits.State.List(ctx, kindOfLocked, list, after, limit)
	if err != nil {
		return "", err
	}
	for _, r := range page {
		var one listed
		if json.Unmarshal(r.Value, &one) != nil {
			continue // another program wrote it
		}
		if err := f(r.Key.ID, one); err != nil {
			return "", err
		}
	}
	if len(page) < limit {
		return ended, nil
	}
	return page[limit-1].Key.ID, nil
}

// addAccount adds an account to a page, if it still waits. The counter says so: the record
// in the list may be from before a success.
func (a Administration) addAccount(ctx context.Context, by Rights, account string, one listed, w *Waiting) error {
	key := accountCounter(account, one.Counter)
	c, err := a.read(ctx, key)
	if after := a.Limits.threshold(a.Limits.shared(), key); err != nil || after == 0 || c.Failures < after {
		return err
	}
	var user store.User
	if one.User != "" {
		if user, err = by.UserByID(ctx, one.User); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if user.ID == "" || Account(user.NameKey) != account { // deleted or renamed since
		w.Unnamed++
		return nil
	}
	from := ""
	if one.Counter != all {
		from = addressOf(one.Counter)
	}
	w.Accounts = append(w.Accounts, WaitingAccount{user.ID, user.Username, from, a.failures(key, c)})
	return nil
}

// read is Limiter.read for a counter that is only shown. What another program wrote counts
// nothing.
func (a Administration) read(ctx context.Context, key state.Key) (counter, error) {
	c, err := a.Limits.read(ctx, a.Limits.shared(), key)
	if errors.Is(err, state.ErrUnreadable) {
		return counter{}, nil
	}
	return c, err
}

func (a Administration) address(key state.Key, c counter) AddressFailures {
	return AddressFailures{addressOf(key.ID), c.Known != 0, a.failures(key, c)}
}

func (a Administration) failures(key state.Key, c counter) Failures {
	if c.Failures == 0 {
		return Failures{}
	}
	f := Failures{Count: c.Failures, Since: time.Unix(0, c.Since), Last: time.Unix(c.At, 0)}
	if wait := a.Limits.wait(a.Limits.shared(), key, c); wait > 0 {
		f.Until = a.Limits.Now().Add(wait)
	}
	return f
}

// Account returns what is counted for a user, named by id or username, with a page of the
// addresses from which the user has signed in or from which attempts have failed.
func (a Administration) Account(ctx context.Context, by Rights, user, after string, limit int) (AccountFailures, error) {
	u, err := by.MaySeeLimitsOf(ctx, user)
	if err != nil {
		return AccountFailures{}, err
	}
	if limit, err = pageOf(limit); err != nil {
		return AccountFailures{}, err
	}
	if after == ended || !isCursor(after) {
		return AccountFailures{}, errNoCursor
	}
	account := AccountFailures{ID: u.ID, Username: u.Username}
	name := Account(u.NameKey)
	strangers, err := a.read(ctx, accountCounter(name, all))
	if err != nil {
		return AccountFailures{}, err
	}
	account.Strangers = a.failures(accountCounter(name, all), strangers)
	latest, err := a.latest(ctx, name)
	if err != nil {
		return AccountFailures{}, err
	}
	account.Locked = !account.Strangers.Until.IsZero() || !latest.Until.IsZero()
	page, err := a.Limits.State.List(ctx, kindOfCounter, name, after, limit)
	if err != nil {
		return AccountFailures{}, err
	}
	for _, r := range page {
		c, err := a.Limits.decode(r)
		if err != nil || r.Key.ID == all || c.Known == 0 && c.Failures == 0 {
			continue
		}
		one := a.address(r.Key, c)
		account.Addresses = append(account.Addresses, one)
		account.Locked = account.Locked || !one.Until.IsZero()
	}
	if len(page) == limit {
		account.Next = page[limit-1].Key.ID
	}
	return account, nil
}

// latest returns the failures by which an account has come to wait most lately; they may be
// on another page.
func (a Administration) latest(ctx context.Context, account string) (Failures, error) {
	r, err := a.Limits.State.Get(ctx, waitingAccount(account))
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnreadable) {
		return Failures{}, nil
	}
	if err != nil {
		return Failures{}, err
	}
	var one listed
	if json.Unmarshal(r.Value, &one) != nil {
		return Failures{}, nil
	}
	key := accountCounter(account, one.Counter)
	c, err := a.read(ctx, key)
	return a.failures(key, c), err
}

// Address returns what is counted of an address, in any spelling of it.
func (a Administration) Address(ctx context.Context, by Rights, address string) (AddressFailures, error) {
	if err := by.MaySeeLimits(ctx); err != nil {
		return AddressFailures{}, err
	}
	block, err := blockOf(address)
	if err != nil {
		return AddressFailures{}, err
	}
	key := addressCounter(block)
	c, err := a.read(ctx, key)
	return a.address(key, c), err
}

// The action in the audit trail.
const lifts = "limit.lift"

// LiftAccount forgets every failure and every attempt that was counted for a user, named by id
// or username, when it was called, on all replicas. The addresses from which the user has
// signed in stay known. It does no harm twice; after an error it may be called again, and goes
// on where it ended.
func (a Administration) LiftAccount(ctx context.Context, by Rights, user string) error {
	u, err := by.MayLiftLimitsOf(ctx, user)
	if err == nil {
		err = a.liftAccount(ctx, u)
	}
	a.record(ctx, by, store.AuditEvent{Target: cmp.Or(u.ID, user), Detail: "account"}, err)
	return err
}

// liftAccount goes in an order in which replicas may count meanwhile:
//
//  1. The counters, each by compare-and-swap. An attempt that has read one before cannot
//     write it any more, reads it again and counts from zero.
//  2. The buckets. An attempt that was counted before is forgotten.
//  3. The record that all replicas read. From then on each forgets what it remembers to be
//     refused. If it came before the buckets were empty, a replica would ask them in between
//     and remember their refusal for as long as they say.
func (a Administration) liftAccount(ctx context.Context, u store.User) error {
	name := Account(u.NameKey)
	if err := a.liftCounters(ctx, name); err != nil {
		return err
	}
	for _, owner := range []string{name, UserAccount(u.ID)} {
		if err := a.emptyBuckets(ctx, "account", owner, all); err != nil {
			return err
		}
	}
	return a.lifted(ctx, waitingAccount(name))
}

// liftedAtOnce is how many counters are lifted at the same time: an account that is attacked
// from everywhere has many, and lifting must leave the state to others.
const liftedAtOnce = 4

// liftCounters sets the counters of an account to zero, and empties the buckets of the
// addresses that have some of their own, because they are known.
func (a Administration) liftCounters(ctx context.Context, account string) error {
	for after := ""; ; {
		page, err := a.Limits.State.List(ctx, kindOfCounter, account, after, state.MaxPage)
		if err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(liftedAtOnce)
		for _, r := range page {
			c, err := a.Limits.decode(r)
			if err == nil && c.Known == 0 && c.Failures == 0 {
				continue
			}
			g.Go(func() error {
				if err := a.liftCounter(ctx, r.Key); err != nil || c.Known == 0 {
					return err
				}
				return a.emptyBuckets(ctx, "account", account, r.Key.ID)
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if len(page) < state.MaxPage {
			return nil
		}
		after = page[len(page)-1].Key.ID
	}
}

// liftCounter sets a counter to zero. It deletes what another program wrote.
func (a Administration) liftCounter(ctx context.Context, key state.Key) error {
	err := a.Limits.change(ctx, a.Limits.shared(), key, func(c counter) *counter {
		if c.Failures == 0 {
			return nil
		}
		return &counter{Known: c.Known}
	})
	if errors.Is(err, state.ErrUnreadable) {
		return a.Limits.State.Delete(ctx, key)
	}
	return err
}

// emptyBuckets empties the buckets of all classes that count by address or by account.
func (a Administration) emptyBuckets(ctx context.Context, by, owner, id string) error {
	for _, class := range Classes {
		if err := a.Limits.State.Reset(ctx, bucket(class, by, owner, id)); err != nil {
			return err
		}
	}
	return nil
}

// lifted takes an account or address from the list of those that wait, and writes that
// something was lifted.
func (a Administration) lifted(ctx context.Context, listed state.Key) error {
	if err := a.Limits.State.Delete(ctx, listed); err != nil {
		return err
	}
	_, err := a.Limits.State.Put(ctx, lifted, nil, liftKept)
	a.Limits.refusals.forget() // the others look once a second
	return err
}

// LiftAddress forgets every failure and every attempt that was counted from an address, in any
// spelling of it, when it was called, on all replicas. What was counted for the accounts that
// it named stays counted. It does no harm twice.
func (a Administration) LiftAddress(ctx context.Context, by Rights, address string) error {
	err := by.MayLiftLimits(ctx)
	block, invalid := blockOf(address)
	if err = cmp.Or(err, invalid); err == nil {
		err = a.liftAddress(ctx, block)
	}
	if invalid == nil {
		a.record(ctx, by, store.AuditEvent{Target: addressOf(block), Detail: "address"}, err)
	}
	return err
}

// liftAddress goes in the order of liftAccount.
func (a Administration) liftAddress(ctx context.Context, block string) error {
	if err := a.liftCounter(ctx, addressCounter(block)); err != nil {
		return err
	}
	if err := a.emptyBuckets(ctx, "address", block, all); err != nil {
		return err
	}
	return a.lifted(ctx, waitingAddress(block))
}

// record writes a lift into the audit trail, unless nothing was lifted and nothing denied.
func (a Administration) record(ctx context.Context, by Rights, e store.AuditEvent, err error) {
	e.Action, e.Outcome = lifts, audit.OK
	e.Actor, e.Address = by.Actor()
	if err != nil {
		p := problem.From(err)
		switch e.Detail += ": " + p.Code; p.Kind {
		case problem.NotFound, problem.Invalid:
			return
		case problem.Denied, problem.Unauthenticated:
			e.Outcome = audit.Denied
		default:
			e.Outcome = audit.Failed
		}
	}
	a.Audit.Record(ctx, e)
}

// unknownAddress is what is shown for the block of clients without an IP address.
const unknownAddress = "unknown"

// blockOf returns the Block of an address, or of a /64 of IPv6.
func blockOf(address string) (string, error) {
	if address == unknownAddress {
		return noBlock, nil
	}
	if prefix, err := netip.ParsePrefix(address); err == nil && (prefix.Addr().Is4() && prefix.Bits() == 32 || prefix.Addr().Is6() && prefix.Bits() == 64) {
		return Block(prefix.Addr().String()), nil
	}
	one, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(address, "["), "]"))
	if err != nil {
		return "", errNoAddress
	}
	return Block(one.String()), nil
}

// addressOf returns what people write for a Block.
func addressOf(block string) string {
	groups, v6 := strings.CutSuffix(block, "--64")
	if !v6 {
		if a, err := netip.ParseAddr(strings.ReplaceAll(block, "-", ".")); err == nil {
			return a.String()
		}
		return unknownAddress
	}
	var b [16]byte
	for i, group := range strings.SplitN(groups, "-", 4) {
		n, err := strconv.ParseUint(group, 16, 16)
		if err != nil {
			return unknownAddress
		}
		b[2*i], b[2*i+1] = byte(n>>8), byte(n)
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 64).String()
}
