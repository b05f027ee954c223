package login

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// SignedIn is a live session with its user, without the password's hash.
type SignedIn struct {
	Session session.Session
	User    store.User
}

// SignedIn returns a page of the sessions that are live, that of the latest sign-in first, and where
// the next page begins, "" after the last. after is "" or what the page before has returned.
// limit is 1 to audit.MaxPage; 0: audit.DefaultPage. A page may have fewer than limit, or none,
// and a next one.
//
// Sessions are found by the logins in the audit trail, so that those are missing whose logins are
// not there: they are older than audit.retention, or the user logged in more often than
// audit.Trail.RecordOwn stores. ListSessions has all of one user.
//
// The holder of by needs directory.SessionsRead. The sessions of users with a right that they do
// not hold are left out, as ListSessions refuses them. One call looks at audit.MaxPage logins at
// most: it costs a query of the trail, one read of the state for each login, one query for some
// fifty users, and, if the reader is no superuser, one more for each of them.
func (s *Service) SignedIn(ctx context.Context, by *accesstoken.Token, after string, limit int, client Client) ([]SignedIn, string, error) {
	limit, err := pageLimit(limit)
	if err != nil {
		return nil, "", err
	}
	within, err := s.reading(ctx, by, client)
	if err != nil {
		return nil, "", err
	}
	logins, err := s.Audit.Page(ctx, audit.Query{Action: "login", Outcome: audit.OK, After: after, Limit: audit.MaxPage})
	if err != nil {
		return nil, "", unavailable(err)
	}
	enabled, err := s.enabled(ctx, logins.Events)
	if err != nil {
		return nil, "", err
	}
	page := []SignedIn{}
	for _, login := range logins.Events {
		user, ok := enabled[login.Actor]
		if !ok {
			continue
		}
		if ok, err := within.includes(ctx, user.ID); err != nil {
			return nil, "", err
		} else if !ok {
			continue
		}
		sess, err := s.Sessions.Get(ctx, user.ID, login.Target)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, "", unavailable(err)
		}
		if sess.Ended || sess.Unreadable || sess.Epoch < user.SessionEpoch || !s.Now().Before(sess.ExpiresAt) || s.View.SessionRevoked(sess.ID) {
			continue
		}
		if page = append(page, SignedIn{sess, user}); len(page) == limit {
			return page, login.ID, nil
		}
	}
	return page, logins.Next, nil
}

// enabled returns those who did the events and may be signed in, by id.
func (s *Service) enabled(ctx context.Context, events []store.AuditEvent) (map[string]store.User, error) {
	var ids []string
	for _, e := range events {
		ids = append(ids, e.Actor)
	}
	users, err := s.Store.UsersWithIDs(ctx, ids)
	if err != nil {
		return nil, unavailable(err)
	}
	enabled := map[string]store.User{}
	for _, u := range users {
		if !u.Disabled {
			u.PasswordHash = ""
			enabled[u.ID] = u
		}
	}
	return enabled, nil
}
