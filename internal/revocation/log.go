package revocation

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var (
	// ErrNotRecorded: writing the log has failed. It is not known whether the entry is
	// there; to revoke something twice is harmless.
	ErrNotRecorded = problem.New(problem.Unavailable, "revocation_not_recorded",
		"it could not be recorded that this is revoked; try again")
	// ErrUnsettled: the entry is in the log, but this replica has not read it yet.
	ErrUnsettled = problem.New(problem.Unavailable, "revocation_unsettled",
		"it is recorded that this is revoked, but not every replica knows it yet; try again to be certain")
)

// A Log is what entries are appended to.
type Log struct {
	Store Store
	View  *View
	Now   func() time.Time
	// Lifetimes are those that this process gives; see Promise.
	Lifetimes Lifetimes
	// Bell tells the other replicas to read the log. It must not block. Nil: they read it
	// at their next poll.
	Bell func()
}

// Store is what a Log needs of package store.
type Store interface {
	store.Revocations
	setting
}

// Revoke appends entries to the log and returns the number of the last one. When it
// returns nil, this replica refuses what was revoked, and every other one will within the
// bound. When it returns an error, some of the entries may be in the log.
//
// CreatedAt may be left out, and ExpiresAt, too: then an entry is kept until every token
// has expired that any replica has issued by now.
//
// If a revoked thing must not be issued again, such as tokens of a session, the caller
// stops that before the call. A transaction that calls Append need not.
func (l *Log) Revoke(ctx context.Context, revs ...store.Revocation) (seq int64, err error) {
	if seq, err = l.append(ctx, l.Store, revs...); err != nil {
		return 0, err
	}
	return seq, l.Settle(ctx, seq)
}

// Append is the first half of Revoke, for use in a transaction. After the commit the
// caller calls Settle with the number that Append returned. Append locks the log until the
// transaction ends, so it should be the transaction's last step.
func (l *Log) Append(ctx context.Context, r store.Records, revs ...store.Revocation) (seq int64, err error) {
	return l.append(ctx, r, revs...)
}

// Expiry returns when every token has expired that any replica has issued by now. In a
// transaction no replica begins to issue for longer until it ends.
func (l *Log) Expiry(ctx context.Context, r store.Records) (time.Time, error) {
	longest, err := l.Longest(ctx, r)
	if err != nil {
		return time.Time{}, err
	}
	slow, err := l.slow(ctx, r)
	if err != nil {
		return time.Time{}, err
	}
	return l.Now().Add(longest.Token + slow), nil
}

// Settle rings the bells. It returns nil when this replica's view has the log up to seq,
// and every replica that asks a shared memory refuses what the entries revoke.
func (l *Log) Settle(ctx context.Context, seq int64) error {
	called := l.View.round.Load() // before the ring, which may be heard at once
	l.View.Ring()
	if l.Bell != nil {
		l.Bell()
	}
	err := l.View.wait(ctx, called, seq)
	if err == nil {
		err = l.View.settleShared(ctx, seq)
	}
	if err != nil {
		return ErrUnsettled.Because(err)
	}
	return nil
}

// Known reports whether the log has entries already that revoke all of the tokens, so that
// nothing need be written. If so, it returns the number of the last entry, and what Settle
// says of it. It is false of entries that the view has read in a log that was replaced since,
// because the present one may lack them.
func (l *Log) Known(ctx context.Context, tokens ...*accesstoken.Token) (seq int64, known bool, err error) {
	listed := func() bool {
		for _, t := range tokens {
			if _, ok := l.View.list.Revoked(t); !ok || l.View.replaced.Load() {
				return false
			}
		}
		return len(tokens) > 0
	}
	if !listed() {
		return 0, false, nil
	}
	seq = l.View.list.Last()
	if err := l.Settle(ctx, seq); err != nil {
		return 0, false, err
	}
	return seq, listed(), nil
}

func (l *Log) append(ctx context.Context, r Store, revs ...store.Revocation) (seq int64, err error) {
	longest, err := l.Longest(ctx, r)
	if err != nil {
		return 0, err
	}
	slow, err := l.slow(ctx, r)
	if err != nil {
		return 0, err
	}
	for _, rev := range revs {
		if rev.CreatedAt.IsZero() {
			rev.CreatedAt = l.Now()
		}
		if rev.ExpiresAt.IsZero() {
			rev.ExpiresAt = rev.CreatedAt.Add(longest.Token)
		}
		rev.ExpiresAt = rev.ExpiresAt.Add(slow)
		check := entryOf(rev)
		check.Seq = 1 // the store gives the number
		if err := check.Check(); err != nil {
			return 0, err
		}
		if rev.Subject == "" {
			return 0, fmt.Errorf("revocation: an entry of kind %s names nothing", rev.Kind)
		}
		if seq, err = r.AppendRevocation(ctx, rev); err != nil {
			return 0, ErrNotRecorded.Because(err)
		}
		if l.View != nil {
			l.View.appended.WithLabelValues(rev.Kind, rev.Reason).Inc()
		}
	}
	return seq, nil
}

// slow is by how much this process's clock is behind the database's. Entries are kept for
// as much longer: by a clock that is hours behind they would expire before they begin.
func (l *Log) slow(ctx context.Context, r Store) (time.Duration, error) {
	now := l.Now()
	if l.View != nil {
		if slow, known := l.View.slow(now); known {
			return max(slow, 0).Truncate(time.Second), nil
		}
	}
	_, head, err := r.RevocationsAfter(ctx, math.MaxInt64, 0)
	if err != nil {
		return 0, ErrNotRecorded.Because(err)
	}
	if head.Now.IsZero() {
		return 0, nil
	}
	return max(head.Now.Round(0).Sub(now.Round(0)), 0).Truncate(time.Second), nil
}
