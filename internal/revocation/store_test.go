package revocation

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// TestOnADatabase has two replicas revoke at the same time, half of it inside
// transactions, and asks each at once and the other after its poll.
func TestOnADatabase(t *testing.T) {
	s := sqlstore.New(sqldbtest.Open(t))
	replicas := []*replica{start(t, s, Outage{}), start(t, s, Outage{})}

	const writers, each = 4, 10
	var wg sync.WaitGroup
	for i, r := range replicas {
		for w := range writers {
			wg.Go(func() {
				for n := range each {
					id := fmt.Sprint(i, "-", w, "-", n)
					if err := revoke(t, r.log, s, id, n%2 == 0); err != nil {
						t.Errorf("%s: %v", id, err)
						return
					}
					if err := r.Check(t.Context(), token(id)); !errors.Is(err, ErrRevoked) {
						t.Errorf("%s was revoked, then: %v", id, err)
					}
				}
			})
		}
	}
	wg.Wait()
	for i, r := range replicas {
		if err := r.Wait(t.Context(), 2*writers*each); err != nil { // at its next poll
			t.Fatal(err)
		}
		other := 1 - i
		for w := range writers {
			for n := range each {
				r.expect(t, token(fmt.Sprint(other, "-", w, "-", n)), ErrRevoked)
			}
		}
	}
}

func revoke(t *testing.T, l *Log, s store.Store, id string, inTransaction bool) error {
	rev := store.Revocation{Kind: string(revoked.Token), Subject: id, ExpiresAt: time.Now().Add(time.Hour)}
	if !inTransaction {
		_, err := l.Revoke(t.Context(), rev)
		return err
	}
	var seq int64
	err := s.Update(t.Context(), func(r store.Records) error {
		var err error
		seq, err = l.Append(t.Context(), r, rev)
		return err
	})
	if err != nil {
		return err
	}
	return l.Settle(t.Context(), seq)
}
