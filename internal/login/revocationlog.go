package login

import (
	"context"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

var errPage = problem.New(problem.Invalid, "invalid_limit", "a page has 1 to %d items", audit.MaxPage)

// pageLimit returns how many items a page has for which a client asks for a number; 0: it asks for
// none.
func pageLimit(limit int) (int, error) {
	switch {
	case limit == 0:
		return audit.DefaultPage, nil
	case limit < 0 || limit > audit.MaxPage:
		return 0, errPage
	}
	return limit, nil
}

// A LogEntry is an entry of the revocation log.
type LogEntry struct {
	Seq int64
	At  time.Time // since when it is revoked
	// Until is when the last token has expired that the entry concerns. After it the entry is
	// deleted.
	Until time.Time
	What  revoked.Kind
	// Subject is the id of the token, session, user or key.
	Subject string
	// BelowEpoch and IssuedBefore say which tokens of a user are revoked: those with a lower
	// epoch, and those issued before. Zero: none by it.
	BelowEpoch   int64
	IssuedBefore time.Time
	Actor        string // id of the user who revoked; empty: the system, or hidden
	Reason       string // a word: "logout", "replay"…; see docs/revocation.md
	// Hidden: the entry concerns a user, or was written by one, with a right that the reader
	// does not hold. The ids of such users are left out.
	Hidden bool
}

// RevocationLog returns a page of the revocation log, the newest entry first, and where the next
// page begins, 0 after the last. before is 0 or what the page before has returned. limit is 1 to
// audit.MaxPage; 0: audit.DefaultPage. An entry that is being written may be missing.
//
// The holder of by needs directory.SessionsRead. As in ListSessions, they learn nothing of users
// with a right that they do not hold, but that there are such entries: see LogEntry.Hidden. A
// session's id does not say whose it is. A page costs one query, and one for each user on it.
func (s *Service) RevocationLog(ctx context.Context, by *accesstoken.Token, before int64, limit int, client Client) ([]LogEntry, int64, error) {
	limit, err := pageLimit(limit)
	if err != nil {
		return nil, 0, err
	}
	within, err := s.reading(ctx, by, client)
	if err != nil {
		return nil, 0, err
	}
	lines, err := s.Store.RevocationsBefore(ctx, before, limit+1)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	var next int64
	if len(lines) > limit {
		lines = lines[:limit]
		next = lines[limit-1].Seq
	}
	page := make([]LogEntry, len(lines))
	for i, line := range lines {
		one := LogEntry{
			Seq: line.Seq, At: line.CreatedAt, Until: line.ExpiresAt, What: revoked.Kind(line.Kind), Subject: line.Subject,
			BelowEpoch: line.Epoch, IssuedBefore: line.IssuedBefore, Actor: line.Actor, Reason: line.Reason,
		}
		for _, id := range []*string{&one.Actor, &one.Subject} {
			if *id == "" || id == &one.Subject && one.What != revoked.User {
				continue
			}
			visible, err := within.includes(ctx, *id)
			if err != nil {
				return nil, 0, err
			}
			if !visible {
				*id, one.Hidden = "", true
			}
		}
		page[i] = one
	}
	return page, next, nil
}

// A reader may read about the sessions of users all of whose rights they hold.
type reader struct {
	s      *Service
	rights directory.Rights
	known  map[string]bool // by user id
}

// reading returns the holder of a token as a reader, if they hold directory.SessionsRead.
func (s *Service) reading(ctx context.Context, by *accesstoken.Token, client Client) (*reader, error) {
	if err := s.People.Authorize(ctx, actor(by, client), directory.SessionsRead); err != nil {
		return nil, err
	}
	_, rights, err := s.People.Administration(ctx, actor(by, client))
	if err != nil {
		return nil, err
	}
	return &reader{s: s, rights: rights, known: map[string]bool{by.Subject: true}}, nil
}

// includes reports whether the reader holds all rights of a user. One who is gone has none.
func (r *reader) includes(ctx context.Context, userID string) (bool, error) {
	if r.rights.Superuser() {
		return true, nil
	}
	included, known := r.known[userID]
	if !known {
		claims, err := r.s.Store.ClaimsOfUser(ctx, userID)
		if err != nil {
			return false, unavailable(err)
		}
		included = r.rights.Include(directory.RightsOf(claims))
		r.known[userID] = included
	}
	return included, nil
}
