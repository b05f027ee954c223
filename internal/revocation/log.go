package revocation

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

var (
	// ErrNotRecorded: the log could not be written. It is not known whether the
	// line is there; to take back twice is harmless.
	ErrNotRecorded = problem.New(problem.Unavailable, "revocation_not_recorded",
		"it could not be recorded that this is taken back; try again")
	// ErrUnsettled: the line is in the log, but this replica has not read it yet.
	ErrUnsettled = problem.New(problem.Unavailable, "revocation_unsettled",
		"it is recorded that this is taken back, but not every replica knows it yet; try again to be certain")
)

// A Log takes back.
type Log struct {
	Store Store
	View  *View
	Now   func() time.Time
	// Lives are what this process gives; see Promise.
	Lives Lives
	// Bell tells the other replicas that there is news; nil: they find it at their
	// next poll. It must not block.
	Bell func()
}

// Store is what a Log needs of package store.
type Store interface {
	store.Revocations
	setting
}

// TakeBack appends lines to the log and returns the last one's number. When it
// returns nil, this replica refuses what was taken back, and every other will within
// the bound; otherwise some of the lines may be there. CreatedAt may be left out, and
// ExpiresAt: then the line is kept until every token has expired that any replica
// has issued by now.
//
// What must not be issued any more once a line for it is there, such as tokens of
// a session, has to be stopped before the call; in a transaction Append needs
// nothing of the kind.
func (l *Log) TakeBack(ctx context.Context, revs ...store.Revocation) (seq int64, err error) {
	if seq, err = l.append(ctx, l.Store, revs...); err != nil {
		return 0, err
	}
	return seq, l.Settle(ctx, seq)
}

// Append is the first half of TakeBack for any number of lines, for use in a
// transaction: after its commit the caller calls Settle with the number that it
// returned, the last one's. It holds the log until the transaction ends, so let it
// be the last step.
func (l *Log) Append(ctx context.Context, r store.Records, revs ...store.Revocation) (seq int64, err error) {
	return l.append(ctx, r, revs...)
}

// Settle rings the bells and returns nil when this replica's view has the log up
// to seq, and every other one that asks a shared memory refuses likewise.
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
			return 0, fmt.Errorf("revocation: a line of kind %s names nothing", rev.Kind)
		}
		if seq, err = r.AppendRevocation(ctx, rev); err != nil {
			return 0, ErrNotRecorded.Because(err)
		}
	}
	return seq, nil
}

// slow is by how much longer lines are kept than this process's clock says, because
// it is behind the database's: by a clock that is hours behind they would be over
// before they begin.
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
