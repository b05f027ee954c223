package login

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Ending a session again writes neither an event nor an entry: not with a token that was
// verified before the session ended, and not where only its record was left.
func TestEndingASessionAgainWritesNothing(t *testing.T) {
	s, _ := newService(t)
	me := signedIn(t, s, "ada")
	loggedOut := func() *accesstoken.Token {
		t.Helper()
		ended := signedIn(t, s, "ada")
		if err := s.logout(t.Context(), sessionOf(ended), Client{}); err != nil {
			t.Fatal(err)
		}
		return ended
	}
	leftOver := func() *accesstoken.Token {
		t.Helper()
		left := signedIn(t, s, "ada")
		if _, err := s.append(t.Context(), s.entry(revoked.Session, left.SessionID, adaID, "session_ended")); err != nil {
			t.Fatal(err)
		}
		return left
	}
	written := func() (events int, head int64) {
		t.Helper()
		list, err := s.Audit.Events(t.Context(), store.AuditQuery{Actor: adaID, Outcome: audit.OK, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		_, at, err := s.Store.RevocationsAfter(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(list), at.Seq
	}
	logout := func(ended *accesstoken.Token) error { return s.logout(t.Context(), sessionOf(ended), Client{}) }
	revoke := func(by *accesstoken.Token) func(*accesstoken.Token) error {
		return func(ended *accesstoken.Token) error {
			if by == nil {
				by = ended
			}
			_, err := s.Revoke(t.Context(), by, Target{SessionID: ended.SessionID}, Client{})
			return err
		}
	}
	for _, c := range []struct {
		name  string
		ended *accesstoken.Token
		end   func(ended *accesstoken.Token) error
	}{
		{"logout", loggedOut(), logout},
		{"logout, with a record", leftOver(), logout},
		{"revoking one's own", loggedOut(), revoke(nil)},
		{"revoking one's own, with a record", leftOver(), revoke(nil)},
		{"revoking another one, with a record", leftOver(), revoke(me)},
		{"ending one, with a record", leftOver(), func(ended *accesstoken.Token) error {
			return s.EndSession(t.Context(), me, ended.SessionID, Client{})
		}},
		{"ending all others, with a record", leftOver(), func(*accesstoken.Token) error {
			return s.EndOtherSessions(t.Context(), me, Client{})
		}},
	} {
		events, head := written()
		if err := c.end(c.ended); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if e, h := written(); e != events || h != head {
			t.Errorf("%s writes %d events and %d entries", c.name, e-events, h-head)
		}
	}
	if n := sessionsOf(t, s, adaID); n != 1 {
		t.Errorf("%d sessions are left", n)
	}
}

// A heldStore writes nothing to the log before the test says so.
type heldStore struct {
	store.Store
	begin chan struct{}
}

func (h *heldStore) Update(ctx context.Context, f func(r store.Records) error) error {
	<-h.begin
	return h.Store.Update(ctx, f)
}

func (h *heldStore) AppendRevocation(ctx context.Context, r store.Revocation) (int64, error) {
	<-h.begin
	return h.Store.AppendRevocation(ctx, r)
}

// Of many requests that have all found a token good, one writes an entry.
func TestManyThatFoundATokenGoodWriteOneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newService(t)
		records := s.Store
		for _, c := range []struct {
			name string
			end  func(by *accesstoken.Token) error
		}{
			{"logout", func(by *accesstoken.Token) error { return s.logout(t.Context(), sessionOf(by), Client{}) }},
			{"session", func(by *accesstoken.Token) error {
				_, err := s.Revoke(t.Context(), by, Target{SessionID: by.SessionID}, Client{})
				return err
			}},
			{"user", func(by *accesstoken.Token) error {
				_, err := s.Revoke(t.Context(), by, Target{User: adaID}, Client{})
				return err
			}},
		} {
			by := signedIn(t, s, "ada")
			_, before, err := records.RevocationsAfter(t.Context(), 0, 1)
			if err != nil {
				t.Fatal(err)
			}
			held := &heldStore{records, make(chan struct{})}
			s.Store, s.Revocations.Store = held, held
			errs := make(chan error, 10)
			var all sync.WaitGroup
			for range cap(errs) {
				all.Go(func() { errs <- c.end(by) })
			}
			synctest.Wait() // each has come as far as it can
			close(held.begin)
			all.Wait()
			close(errs)
			done := 0
			for err := range errs {
				if err == nil {
					done++
				} else if !errors.Is(err, revocation.ErrRevoked) {
					t.Errorf("%s: %v", c.name, err)
				}
			}
			_, after, err := records.RevocationsAfter(t.Context(), 0, 1)
			if err != nil || done == 0 || after.Seq != before.Seq+1 {
				t.Errorf("%s: %d are done, %d entries are written, %v", c.name, done, after.Seq-before.Seq, err)
			}
		}
	})
}
