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

// The phases of a key, in their order. Revoked ends any of them.
const (
	Pending   Phase = "pending"   // made, but not yet known to be in the store: nobody is told of it
	Published Phase = "published" // in the key set; signs nothing yet
	Active    Phase = "active"    // signs
	Retiring  Phase = "retiring"  // in the key set until the last token it signed has expired
	Removed   Phase = "removed"   // gone; its kid never comes back
	Revoked   Phase = "revoked"   // taken back: neither signs nor verifies
)

// Phases are all phases.
var Phases = []Phase{Pending, Published, Active, Retiring, Removed, Revoked}

// State tells a key's phase at a moment by its times alone, so that every reader
// of the store says the same.
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
	patience      time.Duration // with peers
}

// poll is how often the store is asked for news: a second, or less when keys live
// so briefly that a second matters.
func (p policy) poll() time.Duration { return min(timing.KeyPoll, p.keyDuration/20) }

// slack is how long the store may be away before the next key is in it, and again
// how long after its time a key may still sign because the store is away or a peer
// does not have the next one.
func (p policy) slack() time.Duration { return p.keyDuration/10 + p.patience }

// ripen is how long a key is published before it signs: as long as a key set
// without it may be in a cache, and two polls in which processes that share the
// store come to know it.
func (p policy) ripen() time.Duration { return p.maxAge + 2*p.poll() }

// lead is how long before a key retires the next one is made.
func (p policy) lead() time.Duration { return p.ripen() + p.slack() }

// date gives a new key its times.
func (p policy) date(k store.Key, created, activate time.Time) store.Key {
	k.CreatedAt, k.ActivateAt = created, activate
	k.RetireAt = activate.Add(p.keyDuration)
	k.RemoveAt = p.removeAt(k.RetireAt)
	return k
}

// removeAt is when the last token has expired that a key may have signed which
// retires at that moment, or a little late.
func (p policy) removeAt(retire time.Time) time.Time {
	return retire.Add(p.slack() + p.tokenDuration + p.leeway)
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

// lastSigning is from when on a key may sign no more: a token that it signed then
// would outlive it in the key set.
func (p policy) lastSigning(k store.Key) time.Time {
	return k.RemoveAt.Add(-p.tokenDuration - p.leeway)
}

// ripe says whether a key that this process began to publish at that moment may
// sign: no cache holds a key set of this process without it.
func (p policy) ripe(since, now time.Time) bool { return now.Sub(since) >= p.maxAge }

// first says whether a key was allowed to sign when it was made: there was nothing
// before it, or nothing that may be used any more.
func (p policy) first(k store.Key) bool { return k.ActivateAt.Sub(k.CreatedAt) < p.maxAge }

// A plan is what has to change in the store so that signing goes on.
type plan struct {
	create  bool
	at      time.Time   // when the created key is to be active
	updates []store.Key // with their new times
	deletes []string    // kids that were published and never signed
}

func (p plan) empty() bool { return !p.create && len(p.updates) == 0 && len(p.deletes) == 0 }

// plan looks at all keys in the store and says what is due. Which of them this
// process can sign with, ours says. Keys that are outdated are to be replaced
// before their time. Keys that are known elsewhere, though the store has none, may be
// in a cache like those in the store that are not ours.
func (p policy) plan(rows []store.Key, elsewhere bool, ours, outdated func(store.Key) bool, now time.Time) plan {
	var (
		current *store.Key  // the newest whose active time has begun
		next    []store.Key // whose has not, in their order
		revoked []store.Key
		foreign = elsewhere // a cache may hold a key set without ours
	)
	rows = slices.SortedFunc(slices.Values(rows), byActivation)
	for _, k := range rows {
		if !now.Before(k.RemoveAt) {
			continue
		}
		switch {
		case !ours(k):
			foreign = foreign || k.RevokedAt.IsZero()
		case !k.RevokedAt.IsZero():
			revoked = append(revoked, k)
		case k.ActivateAt.After(now):
			next = append(next, k)
		default:
			current = &k
		}
	}
	first := now
	if foreign {
		first = now.Add(p.ripen())
	}
	compromised := superseded(current, revoked, now)
	switch {
	case compromised && len(next) == 0:
		return plan{create: true, at: now} // better refused by a cache than forged
	case compromised:
		return plan{updates: []store.Key{p.pull(next[0], now, now)}}
	case current == nil && len(next) == 0:
		return plan{create: true, at: first}
	case current == nil && next[0].CreatedAt.After(now): // the clock was put back
		return plan{updates: []store.Key{p.pull(next[0], now, first)}}
	case current == nil:
		return plan{} // it is ripening
	default:
		return p.planSuccessor(*current, next, outdated, now)
	}
}

// superseded says whether a revoked key came to sign after the key had retired, or
// there is no key: then that one does not sign again, and there is nothing to wait
// for.
func superseded(key *store.Key, revoked []store.Key, now time.Time) bool {
	return slices.ContainsFunc(revoked, func(k store.Key) bool {
		came := !k.ActivateAt.After(now) && !k.RevokedAt.Before(k.ActivateAt)
		return came && (key == nil || !k.ActivateAt.Before(key.RetireAt))
	})
}

// planSuccessor has the next key ready when the current one is to retire; one that
// is outdated retires as soon as there is a ripe one. What was to come before that
// still does, even if it is outdated too; what was to come later does not.
func (p policy) planSuccessor(current store.Key, next []store.Key, outdated func(store.Key) bool, now time.Time) plan {
	at := now.Add(p.ripen())
	if !outdated(current) {
		end := earliest(current.RetireAt, p.lastSigning(current))
		if now.Before(end.Add(-p.lead())) {
			return plan{}
		}
		at = latest(at, current.RetireAt)
	}
	result := plan{create: true, at: at}
	before := current
	for _, k := range next {
		switch late := k.ActivateAt.After(at); {
		case !outdated(k) && !late:
			return plan{} // it is on its way
		case !outdated(k) && result.create: // a clock that was ahead made it
			result.create = false
			result.updates = append(result.updates, p.pull(k, now, at))
		case outdated(k) && late:
			result.deletes = append(result.deletes, k.ID)
		case outdated(k):
			before = k
		}
	}
	result.updates = append(result.updates, p.retire(before, at))
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
