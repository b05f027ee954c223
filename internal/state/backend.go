package state

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
)

// This file holds the rules that backends share: which arguments are refused, how a
// version is made, how a bucket is counted.

var (
	// ErrInvalid: a key, a value, a lifetime or a rate is outside its bounds. The
	// caller made a mistake, and the backend did nothing.
	ErrInvalid = errors.New("state: invalid argument")
	// ErrUnavailable: the backend gave no answer in time. Its cause is the reason; a
	// write may or may not have happened.
	ErrUnavailable = problem.New(problem.Unavailable, "state_unavailable", "the store of sessions does not answer")
)

// Bounds of what a Store takes.
const (
	MaxKind   = 64                        // bytes of Key.Kind
	MaxName   = 128                       // bytes of Key.Owner and of Key.ID
	MaxTTL    = 10 * 365 * 24 * time.Hour // lifetime of a record
	MinTTL    = time.Millisecond          // the same, at least
	MaxPeriod = 366 * 24 * time.Hour      // Rate.Period
	MaxBurst  = 1_000_000                 // Rate.Burst
)

// Skew is by how much a backend may read its clock earlier than it reads a bucket.
const Skew = time.Minute

// Check returns ErrInvalid, with the wrong field, unless k may name a record.
func (k Key) Check() error {
	if err := CheckOwned(k.Kind, k.Owner); err != nil {
		return err
	}
	if !isName(k.ID) {
		return fmt.Errorf("%w: the id must be 1 to %d of [A-Za-z0-9_-]", ErrInvalid, MaxName)
	}
	return nil
}

// CheckOwned returns ErrInvalid unless there may be records of the kind and owner.
func CheckOwned(kind, owner string) error {
	if !isKind(kind) {
		return fmt.Errorf("%w: the kind must be 1 to %d of [a-z_]", ErrInvalid, MaxKind)
	}
	if !isName(owner) {
		return fmt.Errorf("%w: the owner must be 1 to %d of [A-Za-z0-9_-]", ErrInvalid, MaxName)
	}
	return nil
}

// CheckPage returns ErrInvalid unless List may be called so.
func CheckPage(kind, owner, after string, limit int) error {
	if err := CheckOwned(kind, owner); err != nil {
		return err
	}
	if after != "" && !isName(after) {
		return fmt.Errorf("%w: a page begins after an id, or after \"\"", ErrInvalid)
	}
	if limit < 1 || limit > MaxPage {
		return fmt.Errorf("%w: a page of %d records; it must be from 1 to %d", ErrInvalid, limit, MaxPage)
	}
	return nil
}

// CheckWrite returns ErrInvalid unless the record may be written.
func CheckWrite(key Key, value []byte, ttl time.Duration) error {
	if err := key.Check(); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return fmt.Errorf("%w: a value of %d bytes; at most %d are kept", ErrInvalid, len(value), MaxValue)
	}
	if ttl < MinTTL || ttl > MaxTTL {
		return fmt.Errorf("%w: a lifetime of %v; it must be from %v to %v", ErrInvalid, ttl, MinTTL, MaxTTL)
	}
	return nil
}

// Check returns ErrInvalid unless r can be counted.
func (r Rate) Check() error {
	if r.Burst < 1 || r.Burst > MaxBurst || r.Period < time.Microsecond || r.Period > MaxPeriod {
		return fmt.Errorf("%w: a rate of %d per %v", ErrInvalid, r.Burst, r.Period)
	}
	return nil
}

// NewVersion returns a version that has not been used: 63 random bits, never zero. On a
// backend that was flushed or restored, a counter would repeat itself.
func NewVersion() int64 {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails
		if v := int64(binary.BigEndian.Uint64(b[:]) >> 1); v != 0 {
			return v
		}
	}
}

// Interval is the cost of one event in microseconds. It is rounded up, so that rounding
// never allows more than the rate.
func (r Rate) Interval() int64 {
	period, burst := r.Period.Microseconds(), int64(r.Burst)
	return (period + burst - 1) / burst
}

// Full is the cost of the whole burst in microseconds.
func (r Rate) Full() int64 { return r.Interval() * int64(r.Burst) }

// Decide is the generic cell rate algorithm. The state of a bucket is its theoretical
// arrival time: the time when it will be empty again, in microseconds since 1970. It is
// zero for a new bucket. Decide returns the state after one more event at now, or the
// state as it was if the event is not allowed.
//
// A bucket cannot be more than full: a state that is further ahead (the clock was set
// back, or the rate was changed) counts as full. If it is ahead by more than Skew, it becomes
// full, so that it drains from now on.
func (r Rate) Decide(arrival, now int64) (int64, Decision) {
	used := min(max(arrival-now, 0), r.Full())
	if used+r.Interval() > r.Full() {
		if arrival-now > r.Full()+Skew.Microseconds() {
			arrival = now + r.Full()
		}
		return arrival, r.Decision(false, used)
	}
	used += r.Interval()
	return now + used, r.Decision(true, used)
}

// Decision makes the answer of Limit from the result of Decide, or of its twin in another
// language: used is how full the bucket is now, in microseconds.
func (r Rate) Decision(allowed bool, used int64) Decision {
	d := Decision{
		Allowed:    allowed,
		Remaining:  int((r.Full() - used) / r.Interval()),
		ResetAfter: micros(used),
	}
	if !allowed {
		d.RetryAfter = micros(used + r.Interval() - r.Full())
	}
	return d
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// The parts of a key in which a byte may stand. They are in a table, because every
// operation checks its key.
const (
	inKind = 1 << iota
	inName
)

var names = func() (table [256]byte) {
	for c := range table {
		switch {
		case 'a' <= c && c <= 'z', c == '_':
			table[c] = inKind | inName
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
			table[c] = inName
		}
	}
	return table
}()

func isKind(s string) bool { return consists(s, inKind, MaxKind) }

func isName(s string) bool { return consists(s, inName, MaxName) }

func consists(s string, of byte, length int) bool {
	for i := range len(s) {
		if names[s[i]]&of == 0 {
			return false
		}
	}
	return 1 <= len(s) && len(s) <= length
}
