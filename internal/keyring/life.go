package keyring

import (
	"cmp"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
)

// A Phase is where a key stands in its life.
type Phase string

// The phases of a key, in their order. Revoked replaces any of them.
const (
	Pending   Phase = "pending"   // made, but not yet known to be in the store; not published
	Published Phase = "published" // in the key set; signs nothing yet
	Active    Phase = "active"    // signs
	Retiring  Phase = "retiring"  // in the key set until the last token it signed has expired
	Removed   Phase = "removed"   // gone; no other key gets its kid
	Revoked   Phase = "revoked"   // neither signs nor verifies
)

// Phases are all phases.
var Phases = []Phase{Pending, Published, Active, Retiring, Removed, Revoked}

// State returns a key's phase at a moment. It depends on the key's times alone, so that
// every reader of the store comes to the same result.
func State(k store.Key, now time.Time) Phase {
	switch {
	case !k.RevokedAt.IsZero():
		return Revoked
	case !now.Before(k.RemoveAt):
		return Removed
	case !now.Before(k.RetireAt):
		return Retiring
	case !now.Before(k.ActivateAt):
		return Active
	case !now.Before(k.CreatedAt):
		return Published
	default:
		return Pending
	}
}

// A policy is how long each phase lasts.
type policy struct {
	keyDuration   time.Duration
	tokenDuration time.Duration
	leeway        time.Duration
	maxAge        time.Duration
	ahead         time.Duration // how long a key that follows another is published before it signs; maxAge at least
	patience      time.Duration // with peers
}

// poll is how often the store is read: every timing.KeyPoll, or more often when keys
// live so briefly that a second matters.
func (p policy) poll() time.Duration { return min(timing.KeyPoll, p.keyDuration/20) }

// slack is how long a rotation may be late. For as long the store may be away before
// the next key is written. For as long a key may also sign after its RetireAt, while
// the store is away or a peer does not have the next key.
func (p policy) slack() time.Duration { return p.keyDuration/10 + p.patience }

// ripen is how long a key is published before it signs, if no key of its process signs
// meanwhile. A cache may hold a key set without the key for maxAge. Processes that share their
// keys read the store within two polls.
func (p policy) ripen() time.Duration { return p.maxAge + 2*p.poll() }

// follow is how long a key that follows another is published before it signs. It is longer,
// because many verifiers keep a key set for longer than its max-age.
func (p policy) follow() time.Duration { return p.ahead + 2*p.poll() }

// lead is how long before a key retires the next one is made.
func (p policy) lead() time.Duration { return p.follow() + p.slack() }

// date gives a new key its times.
func (p policy) date(k store.Key, created, activate time.Time) store.Key {
	k.CreatedAt, k.ActivateAt = created, activate
	k.RetireAt = activate.Add(p.keyDuration)
	k.RemoveAt = p.removeAt(k.RetireAt)
	return k
}

// removeAt is when the last token of a key has expired that retires at that moment, or
// as much later as slack allows.
func (p policy) removeAt(retire time.Time) time.Time {
	return retire.Add(p.slack() + p.tokenDuration + p.leeway)
}

// longest is how long a key may live that is made now, whatever its row comes to say: twice as
// long as planned, since a key whose successor is late goes on.
func (p policy) longest() time.Duration {
	return 2*(p.lead()+p.keyDuration) + p.tokenDuration + p.leeway
}

// retire moves the end of a key's active time, and the end of its life with it.
func (p policy) retire(k store.Key, at time.Time) store.Key {
	k.RemoveAt = latest(k.RemoveAt.Add(at.Sub(k.RetireAt)), p.removeAt(at))
	k.RetireAt = at
	return k
}

// pull brings the active time of a key forward.
func (p policy) pull(k store.Key, now, at time.Time) store.Key {
	return p.date(k, earliest(k.CreatedAt, now), at)
}

// lastSigning is when a key must stop signing: a token that it signed then would outlive
// the key in the key set.
func (p policy) lastSigning(k store.Key) time.Time {
	return k.RemoveAt.Add(-p.tokenDuration - p.leeway)
}

// ripe reports whether a key that this process began to publish at that moment may sign:
// no cache holds a key set of this process without the key.
func (p policy) ripe(since, now time.Time) bool { return now.Sub(since) >= p.maxAge }

// first reports whether a key was allowed to sign when it was made: there was no key
// before it, or none that may still be used.
func (p policy) first(k store.Key) bool { return k.ActivateAt.Sub(k.CreatedAt) < p.maxAge }

// A plan is what has to change in the store for signing to go on.
type plan struct {
	create  bool
	at      time.Time   // when the created key is to be active
	updates []store.Key // with their new times
	deletes []string    // kids that were published, never signed, and are not wanted
}

func (p plan) empty() bool { return !p.create && len(p.updates) == 0 && len(p.deletes) == 0 }

// A demand is what a plan has to bring about.
type demand struct {
	ours      func(store.Key) bool // reports whether this process can sign with a key, for the algorithm that is planned
	wrong     func(store.Key) bool // reports whether a key is of another algorithm than wanted
	before    time.Time            // a key that came to sign before is to be replaced
	atOnce    time.Time            // if it did before that, the next one waits for ripen alone
	none      bool                 // no key can be made
	follows   bool                 // tokens are signed with a key of another algorithm meanwhile
	elsewhere bool                 // there are keys that the store does not have, and a cache may hold them
	stopped   time.Time            // since then no key set was served until this process started; zero: that is not known
}

// plan returns what is due for the keys of one algorithm, from all keys in the store. A cache
// may hold those that are not ours, too, unless no key set was served since they were made.
func (p policy) plan(rows []store.Key, d demand, now time.Time) plan {
	var (
		current *store.Key    // the newest key whose active time has begun
		next    []store.Key   // the keys whose active time has not begun, in their order
		revoked []store.Key   // ours
		removed *store.Key    // ours: the last one, if its time has ended
		foreign = d.elsewhere // a cache may hold a key set without ours
		ended   = false       // a cache could, for some time after stopped
	)
	rows = slices.SortedFunc(slices.Values(rows), byActivation)
	for _, k := range rows {
		if !now.Before(k.RemoveAt) {
			if d.none && k.RevokedAt.IsZero() && d.ours(k) {
				removed = &k
			}
			continue
		}
		switch {
		case !d.ours(k):
			foreign = foreign || k.RevokedAt.IsZero() && k.CreatedAt.After(d.stopped)
			ended = ended || k.RevokedAt.IsZero()
		case !k.RevokedAt.IsZero():
			revoked = append(revoked, k)
		case k.ActivateAt.After(now):
			next = append(next, k)
		default:
			current = &k
		}
	}
	first := now
	switch {
	case d.follows:
		first = now.Add(p.follow())
	case foreign:
		first = now.Add(p.ripen())
	case ended:
		first = latest(now, earliest(d.stopped.Add(p.maxAge), now.Add(p.ripen()))) // stopped may be in the future, if a clock was put back
	}
	compromised := superseded(current, revoked, now)
	switch {
	case compromised && len(next) == 0:
		return plan{create: true, at: now} // a cache may refuse its tokens; a thief may forge those of the other
	case compromised:
		return plan{updates: []store.Key{p.pull(next[0], now, now)}}
	case current == nil && len(next) == 0 && removed != nil: // nobody was there who would have prolonged it
		return plan{updates: []store.Key{p.date(*removed, now, first)}}
	case current == nil && len(next) == 0:
		return plan{create: true, at: first}
	case current == nil && next[0].CreatedAt.After(now): // the clock was put back
		return plan{updates: []store.Key{p.pull(next[0], now, first)}}
	case current == nil:
		return plan{} // it is ripening
	case d.none:
		return p.prolong(*current, next, now)
	default:
		return p.planSuccessor(*current, next, d, now)
	}
}

// prolong has a key go on for which there will be no other one.
func (p policy) prolong(current store.Key, next []store.Key, now time.Time) plan {
	if len(next) > 0 || now.Before(p.end(current).Add(-p.lead())) {
		return plan{}
	}
	return plan{updates: []store.Key{p.retire(current, now.Add(p.keyDuration))}}
}

// end is when the active time of a key ends.
func (p policy) end(k store.Key) time.Time { return earliest(k.RetireAt, p.lastSigning(k)) }

// superseded reports whether a revoked key came to sign after the given key had retired,
// or whether one came to sign at all if no key is given. Then the given key does not sign
// again, and the next one need not wait.
func superseded(key *store.Key, revoked []store.Key, now time.Time) bool {
	return slices.ContainsFunc(revoked, func(k store.Key) bool {
		came := !k.ActivateAt.After(now) && !k.RevokedAt.Before(k.ActivateAt)
		return came && (key == nil || !k.ActivateAt.Before(key.RetireAt))
	})
}

// planSuccessor has the next key ready when the current one is to retire, or as soon as it may
// sign if the current one is to be replaced. The next key stays whatever was asked for since it
// was made, since it has signed nothing; it is replaced if it is of the wrong algorithm. There are
// several only if a clock was put back. They stay, too: they may have signed by the clock that
// was ahead, and a process that has not stopped may sign with the last of them.
func (p policy) planSuccessor(current store.Key, next []store.Key, d demand, now time.Time) plan {
	wait, replace := p.follow(), d.wrong(current) || current.ActivateAt.Before(d.before)
	if current.ActivateAt.Before(d.atOnce) {
		wait = p.ripen()
	}
	var result plan
	successor := -1
	for i, k := range next {
		switch {
		case d.wrong(k):
			result.deletes = append(result.deletes, k.ID)
		case successor < 0:
			successor = i
		}
	}
	at := now.Add(wait)
	if !replace {
		at = latest(at, current.RetireAt)
	}
	switch {
	case !replace && now.Before(p.end(current).Add(-p.lead())):
		return result // there is time
	case successor >= 0:
		k := next[successor]
		if replace && !k.CreatedAt.After(now) { // else it was made by a clock that was ahead
			at = latest(now, k.CreatedAt.Add(wait))
		}
		if !k.ActivateAt.After(at) {
			return result // it is on its way
		}
		result.updates = append(result.updates, p.pull(k, now, at))
	default:
		result.create, result.at = true, at
	}
	result.updates = append(result.updates, p.retire(current, at))
	return result
}

// byActivation is the order in which keys come to sign.
func byActivation(a, b store.Key) int {
	return cmp.Or(a.ActivateAt.Compare(b.ActivateAt), cmp.Compare(a.ID, b.ID))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
