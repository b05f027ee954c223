package login

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// sessionsIn returns the ids of all sessions that SignedIn shows, page by page.
func sessionsIn(t *testing.T, s *Service, by *accesstoken.Token, limit int) (ids []string) {
	t.Helper()
	for after, pages := "", 0; ; pages++ {
		page, next, err := s.SignedIn(t.Context(), by, after, limit, Client{})
		ok(t, err)
		if limit > 0 && len(page) > limit || pages > 1000 {
			t.Fatalf("a page of %d: %v", limit, page)
		}
		for _, one := range page {
			ids = append(ids, one.Session.ID)
			if one.Session.UserID != one.User.ID || one.User.Username == "" || one.User.PasswordHash != "" || one.Session.CreatedAt.IsZero() {
				t.Errorf("%+v", one)
			}
		}
		if after = next; next == "" {
			return ids
		}
	}
}

// Those are shown who are signed in, the latest first, and nobody whose session has ended, however
// it has.
func TestSignedIn(t *testing.T) {
	s, give := newDirected(t)
	give(bobID, "admin", "sessions:read")
	by := atHome(bobID)
	want := func(what string, ids ...string) {
		t.Helper()
		for _, limit := range []int{0, 1, 2, audit.MaxPage} {
			if got := sessionsIn(t, s, by, limit); fmt.Sprint(got) != fmt.Sprint(ids) {
				t.Errorf("%s, by %d: %v, want %v", what, limit, got, ids)
			}
		}
	}
	want("nobody")
	var id [5]string
	for i, name := range []string{"ada", "bob", "ada", "bob", "ada"} {
		step, err := s.Begin(t.Context(), Credential{name, "right", ""}, "", Client{Address: "192.0.2.1", UserAgent: "Firefox"})
		ok(t, err)
		id[i] = step.Grant.SessionID
	}
	if _, err := s.Begin(t.Context(), Credential{"ada", "wrong", ""}, "", Client{}); err == nil {
		t.Fatal("a wrong password is right")
	}
	want("all", id[4], id[3], id[2], id[1], id[0])
	page, _, err := s.SignedIn(t.Context(), by, "", 1, Client{})
	if err != nil || len(page) != 1 || page[0].User.Username != "ada" || page[0].Session.Address != "192.0.2.1" || page[0].Session.UserAgent != "Firefox" {
		t.Errorf("%+v, %v", page, err)
	}
	ok(t, s.EndSession(t.Context(), &accesstoken.Token{Subject: adaID}, id[4], Client{}))
	want("after a logout", id[3], id[2], id[1], id[0])
	ok(t, s.Sessions.Stop(t.Context(), bobID, id[3])) // its record is still there
	want("after a half-way end", id[2], id[1], id[0])
	_, err = s.Revocations.Revoke(t.Context(), s.entry("sid", id[2], bobID, "session_ended"))
	ok(t, err) // and that of this one
	want("after a revocation", id[1], id[0])
	now := s.Now
	s.Now = func() time.Time { return now().Add(2 * time.Hour) }
	want("after its time")
	s.Now = now
	_, err = s.Store.NextEpoch(t.Context(), adaID, true)
	ok(t, err)
	want("after ada's sessions have ended by epoch", id[1])
	change(t, s, bobID, func(u *store.User) { u.Disabled = true })
	give(adaID, "admin", "sessions:read")
	by = atHome(adaID)
	want("after bob was disabled")
	ok(t, s.Store.DeleteUser(t.Context(), bobID))
	want("after bob was deleted")
}

// Who is signed in is shown to who holds sessions:read, and of whom the reader holds all rights.
func TestWhoSeesWhoIsSignedIn(t *testing.T) {
	s, give := newDirected(t)
	adas, bobs := signedIn(t, s, "ada").SessionID, signedIn(t, s, "bob").SessionID
	refused := func(by *accesstoken.Token, want string) {
		t.Helper()
		if page, next, err := s.SignedIn(t.Context(), by, "", 0, Client{}); code(err) != want || page != nil || next != "" {
			t.Errorf("%v, %q, %v, want %s", page, next, err, want)
		}
	}
	seen := func(by string, ids ...string) {
		t.Helper()
		got := sessionsIn(t, s, atHome(by), 0)
		if fmt.Sprint(got) != fmt.Sprint(ids) {
			t.Errorf("%v, want %v", got, ids)
		}
		// It is what ListSessions shows.
		var listed []string
		for _, user := range []string{bobID, adaID} {
			list, _, err := s.ListSessions(t.Context(), atHome(by), user, "", 10, Client{})
			if err == nil {
				for _, one := range list {
					listed = append(listed, one.ID)
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(listed) {
			t.Errorf("%v, and ListSessions shows %v", got, listed)
		}
	}
	refused(atHome(bobID), "permission_missing")
	give(bobID, "admin", "users:write")
	refused(atHome(bobID), "permission_missing")
	give(bobID, "admin", "sessions:read")
	refused(&accesstoken.Token{Subject: bobID, Issuer: "i", Audience: []string{"a"}}, "wrong_audience")
	seen(bobID, bobs, adas)
	give(adaID, "log", "r")
	seen(bobID, bobs)
	give(bobID, "log", "r")
	seen(bobID, bobs, adas)
	give(adaID, "admin", "all")
	seen(bobID, bobs)
	seen(adaID, bobs, adas)
	for _, after := range []string{"x", "' OR 1=1 --"} {
		if _, _, err := s.SignedIn(t.Context(), atHome(adaID), after, 0, Client{}); code(err) != "invalid_cursor" {
			t.Errorf("after %q: %v", after, err)
		}
	}
	for _, limit := range []int{-1, audit.MaxPage + 1} {
		if _, _, err := s.SignedIn(t.Context(), atHome(adaID), "", limit, Client{}); code(err) != "invalid_limit" {
			t.Errorf("a limit of %d: %v", limit, err)
		}
	}
}

// counted counts what is read of the state.
type counted struct {
	state.Store
	reads atomic.Int64
}

func (c *counted) Get(ctx context.Context, k state.Key) (state.Record, error) {
	c.reads.Add(1)
	return c.Store.Get(ctx, k)
}

// However many have signed in and are gone, a call looks at so many logins, and the next one goes on.
func TestSignedInIsBounded(t *testing.T) {
	s, give := newDirected(t)
	give(bobID, "admin", "all")
	first := signedIn(t, s, "ada").SessionID
	for i := range 2*audit.MaxPage + 10 {
		s.Audit.Record(t.Context(), store.AuditEvent{Actor: adaID, Action: "login", Target: fmt.Sprintf("0198c8c4-2f5e-8a63-9f3e-%012d", i), Outcome: audit.OK})
	}
	last := signedIn(t, s, "ada").SessionID
	c := &counted{Store: s.Sessions.State}
	config := s.Sessions.Config
	config.State = c
	s.Sessions = session.New(config)
	if got := sessionsIn(t, s, atHome(bobID), 0); fmt.Sprint(got) != fmt.Sprint([]string{last, first}) {
		t.Errorf("%v, want %v", got, []string{last, first})
	}
	c.reads.Store(0)
	page, next, err := s.SignedIn(t.Context(), atHome(bobID), "", 0, Client{})
	if err != nil || len(page) != 1 || next == "" || c.reads.Load() != audit.MaxPage {
		t.Errorf("%d of %d reads, next %q, %v", len(page), c.reads.Load(), next, err)
	}
	c.reads.Store(0)
	page, next, err = s.SignedIn(t.Context(), atHome(bobID), "", 1, Client{})
	if err != nil || len(page) != 1 || next == "" || c.reads.Load() != 1 {
		t.Errorf("a page of one: %d with %d reads, next %q, %v", len(page), c.reads.Load(), next, err)
	}
	// Refused logins do not count.
	for i := range audit.MaxPage {
		ok(t, s.Store.AppendAudit(t.Context(), store.AuditEvent{ID: fmt.Sprintf("ffffffff-ffff-7fff-bfff-%012d", i), Action: "login", Target: adaID, Outcome: audit.Denied}))
	}
	if page, _, err = s.SignedIn(t.Context(), atHome(bobID), "", 0, Client{}); err != nil || len(page) != 1 {
		t.Errorf("after many refusals: %v, %v", page, err)
	}
	// Of a user whose sessions are not to be seen, no session is read.
	give(adaID, "admin", "sessions:read")
	for i := range audit.MaxPage {
		s.Audit.Record(t.Context(), store.AuditEvent{Actor: bobID, Action: "login", Target: fmt.Sprintf("0198c8c4-2f5e-8a63-9f3e-%012d", i), Outcome: audit.OK})
	}
	c.reads.Store(0)
	if page, next, err = s.SignedIn(t.Context(), atHome(adaID), "", 0, Client{}); err != nil || len(page) != 0 || next == "" || c.reads.Load() != 0 {
		t.Errorf("of a superuser: %v with %d reads, next %q, %v", page, c.reads.Load(), next, err)
	}
}
