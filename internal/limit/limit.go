package limit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// ErrTooMany: the address or the account has used up its rate. It says how long to wait.
var ErrTooMany = problem.New(problem.TooMany, "too_many_attempts", "too many attempts from this address or for this account; try again later")

// A Class is what is counted together.
type Class string

// The classes.
const (
	Login Class = "login" // a password is presented
	MFA   Class = "mfa"   // a second factor is presented
	// Ceremony: a sign-in by passkey alone may begin, and nothing is presented. Each sign-in page
	// that is open asks for it, so it uses up nothing of MFA.
	Ceremony Class = "ceremony"
	Renew    Class = "renew" // a refresh token is presented
	API      Class = "api"   // an access token is presented
	Admin    Class = "admin" // an access token is presented for administration
)

// Classes are all of them.
var Classes = []Class{Login, MFA, Ceremony, Renew, API, Admin}

// A Policy is the rates of a class. A rate without a burst counts nothing.
type Policy struct{ PerAddress, PerAccount state.Rate }

// A Lockout says how those wait who fail again and again at one account.
type Lockout struct {
	After    int // failures from one address before attempts from there wait; 0: they never do
	AfterAll int // the same for all addresses together that the user does not sign in from
	// Delay is the first wait. Each further failure doubles it, up to Max.
	Delay, Max time.Duration
}

// Spray says when an address waits that has never succeeded, whatever accounts it names.
// It waits as a Lockout says.
type Spray struct {
	After int // failures of the address before it waits; 0: it never does
	// Total is how many failures all such addresses together may have. Beyond it, each waits
	// from its first failure on.
	Total state.Rate
}

// Auditor writes what the audit trail must know.
type Auditor interface{ RecordSoon(e store.AuditEvent) }

// Rules say how much is too much. They may change while a Limiter counts (Limiter.Change).
type Rules struct {
	Policies map[Class]Policy
	Lockout  Lockout
	Spray    Spray
	// Local reports what happens while the state is away: this replica goes on counting by
	// itself, with its part of each rate. Otherwise what is counted is refused.
	Local bool
}

// Config is what a Limiter needs.
type Config struct {
	State state.Store
	Rules Rules // from the beginning; see Limiter.Present
	// Replicas returns how many replicas there are, for their parts.
	Replicas func() int

	Audit      Auditor
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Limiter counts. It may be used by any number of goroutines.
type Limiter struct {
	Config   // without rules
	rules    atomic.Pointer[Rules]
	refusals refusals
	metrics  metrics
	local    local
	sprayed  atomic.Int64 // until when addresses wait from their first failure on, Unix nanoseconds
}

// New makes a Limiter.
func New(c Config) *Limiter {
	l := &Limiter{}
	l.rules.Store(new(c.Rules))
	c.Rules = Rules{} // nobody reads what no longer holds
	l.Config = c
	l.refusals.now, l.local.now = c.Now, c.Now
	l.metrics = newMetrics(c.Registerer, l)
	return l
}

// Present returns the rules that hold now. They are not to be changed.
func (l *Limiter) Present() *Rules { return l.rules.Load() }

// Change has other rules hold for what is counted from now on. What has been counted stays
// counted: a rate that is used up is used up, and there is more of it as the new one says. What
// this replica remembers as refused is asked for again.
func (l *Limiter) Change(rules Rules) {
	l.rules.Store(&rules)
	l.refusals.forget()
}

// Counts reports whether anything of a class is counted.
func (l *Limiter) Counts(class Class) bool { return l.Present().Policies[class] != (Policy{}) }

// Account returns the name under which attempts for a username are counted. All spellings that
// mean one user have one, whether or not there is such a user. It is a digest: people type
// passwords into the field of the username.
func Account(username string) string {
	key, err := names.UsernameKey(username)
	if err != nil {
		return digest("none", username)
	}
	return digest("name", names.Fold(key))
}

// UserAccount is Account for a user who is known by id, as the holder of a token.
func UserAccount(id string) string { return digest("id", id) }

func digest(space, text string) string {
	sum := sha256.Sum256([]byte(space + " " + text))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// Block returns the name under which attempts from an address are counted: the address, or the
// /64 of IPv6, which is what one client has.
func Block(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return noBlock
	}
	if a = a.Unmap(); a.Is4() {
		return strings.ReplaceAll(a.String(), ".", "-")
	}
	b := a.As16()
	return fmt.Sprintf("%x-%x-%x-%x--64", be(b[0:]), be(b[2:]), be(b[4:]), be(b[6:]))
}

// noBlock is the block of clients without an IP address.
const noBlock = "none"

func be(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }

// Count counts one request of a class, from an address and for an account; either may be
// empty. It returns ErrTooMany if there have been too many, and an error of the state if it is
// not known how many there were.
func (l *Limiter) Count(ctx context.Context, class Class, address, account string) error {
	policy := func(rules *Rules) Policy {
		p := rules.Policies[class]
		if address == "" {
			p.PerAddress = state.Rate{}
		}
		if account == "" {
			p.PerAccount = state.Rate{}
		}
		return p
	}
	if policy(l.Present()) == (Policy{}) {
		return nil
	}
	fromAddress, forAccount := bucket(class, "address", Block(address), all), bucket(class, "account", cmp.Or(account, all), all)
	return l.counted(ctx, func(b backing) error {
		policy := policy(b.rules)
		if err := l.remembered(ctx, b, class, policy, fromAddress, forAccount); err != nil {
			return err
		}
		if err := l.step(ctx, b, class, "address", fromAddress, policy.PerAddress); err != nil {
			return err
		}
		return l.step(ctx, b, class, "account", forAccount, policy.PerAccount)
	})
}

// all is the id of a bucket or counter that is for all addresses.
const all = "all"

// bucket returns the key of what is counted of a class, by address or by account.
func bucket(class Class, by, owner, id string) state.Key {
	return state.Key{Kind: string(class) + "_" + by, Owner: owner, ID: id}
}

// remembered returns ErrTooMany if this replica remembers that one of the keys was refused.
func (l *Limiter) remembered(ctx context.Context, b backing, class Class, policy Policy, address, account state.Key) error {
	for _, one := range []struct {
		by   string
		key  state.Key
		rate state.Rate
	}{{"address", address, policy.PerAddress}, {"account", account, policy.PerAccount}} {
		wait, err := l.refusals.wait(ctx, b, one.key)
		if err != nil {
			return err
		}
		if wait > 0 {
			return l.refuse(ctx, class, one.by, one.rate, state.Decision{RetryAfter: wait, ResetAfter: wait})
		}
	}
	return nil
}

// step counts one event in a bucket. A refusal is remembered.
func (l *Limiter) step(ctx context.Context, b backing, class Class, by string, key state.Key, rate state.Rate) error {
	if rate == (state.Rate{}) {
		return nil
	}
	rate = b.part(rate)
	lifts := l.refusals.seenLifts()
	d, err := b.Limit(ctx, key, rate)
	if err != nil {
		return err
	}
	if !d.Allowed {
		l.refusals.add(key, d.RetryAfter, lifts)
		return l.refuse(ctx, class, by, rate, d)
	}
	l.metrics.allowed.WithLabelValues(string(class), by).Inc()
	report(ctx, class, by, rate, d)
	return nil
}

func (l *Limiter) refuse(ctx context.Context, class Class, by string, rate state.Rate, d state.Decision) error {
	report(ctx, class, by, rate, d)
	l.metrics.refused.WithLabelValues(string(class), by).Inc()
	return ErrTooMany.After(d.RetryAfter)
}

// A Quota is what is left of a rate, for the client.
type Quota struct {
	Policy    string // class and what is counted: "login-address"
	Limit     int    // events
	Window    time.Duration
	Remaining int           // events
	Reset     time.Duration // until there is more: one event if none remains, otherwise all
}

type reporterKey struct{}

// Reporting returns a context in which each quota that is counted is reported to f.
func Reporting(ctx context.Context, f func(Quota)) context.Context {
	return context.WithValue(ctx, reporterKey{}, f)
}

func report(ctx context.Context, class Class, by string, rate state.Rate, d state.Decision) {
	f, ok := ctx.Value(reporterKey{}).(func(Quota))
	if !ok || rate == (state.Rate{}) {
		return
	}
	q := Quota{Policy: string(class) + "-" + by, Limit: rate.Burst, Window: rate.Period, Remaining: d.Remaining, Reset: d.ResetAfter}
	switch {
	case !d.Allowed:
		q.Reset = d.RetryAfter
	case d.Remaining == 0:
		q.Reset = max(0, d.ResetAfter-time.Duration(rate.Full()-rate.Interval())*time.Microsecond)
	}
	f(q)
}
