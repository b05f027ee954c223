package login

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// The log is read page by page, the newest entry first, and says what each entry says.
func TestRevocationLog(t *testing.T) {
	s, give := newDirected(t)
	give(bobID, "admin", "sessions:read")
	by := atHome(bobID)
	page, next, err := s.RevocationLog(t.Context(), by, 0, 0, Client{})
	if err != nil || len(page) != 0 || next != 0 {
		t.Errorf("an empty log: %v, %d, %v", page, next, err)
	}
	at := time.Now().Add(-time.Minute).Truncate(time.Microsecond)
	for _, line := range []store.Revocation{
		{Kind: string(revoked.Token), Subject: "j", Actor: adaID, Reason: "revoked"},
		{Kind: string(revoked.Session), Subject: "s", Actor: bobID, Reason: "logout"},
		{Kind: string(revoked.User), Subject: adaID, Epoch: 7, IssuedBefore: at, Actor: bobID, Reason: "user_revoked"},
		{Kind: string(revoked.Key), Subject: "k", Reason: "key_revoked"},
	} {
		line.CreatedAt, line.ExpiresAt = at, at.Add(time.Hour)
		_, err := s.Revocations.Revoke(t.Context(), line)
		ok(t, err)
	}
	want := []LogEntry{
		{Seq: 4, What: revoked.Key, Subject: "k", Reason: "key_revoked"},
		{Seq: 3, What: revoked.User, Subject: adaID, BelowEpoch: 7, IssuedBefore: at, Actor: bobID, Reason: "user_revoked"},
		{Seq: 2, What: revoked.Session, Subject: "s", Actor: bobID, Reason: "logout"},
		{Seq: 1, What: revoked.Token, Subject: "j", Actor: adaID, Reason: "revoked"},
	}
	for _, limit := range []int{0, 1, 2, 3, 4, 5, audit.MaxPage} {
		var all []LogEntry
		for before, pages := int64(0), 0; ; pages++ {
			page, next, err := s.RevocationLog(t.Context(), by, before, limit, Client{})
			ok(t, err)
			if limit > 0 && len(page) > limit || pages > len(want) {
				t.Fatalf("page %d of %d: %v", pages, limit, page)
			}
			all = append(all, page...)
			if before = next; next == 0 {
				break
			}
		}
		if len(all) != len(want) {
			t.Fatalf("by %d: %+v", limit, all)
		}
		for i, one := range all {
			if until := one.Until.Sub(at); !one.At.Equal(at) || until < time.Hour || until > time.Hour+time.Minute {
				t.Errorf("entry %d is of %v and until %v", one.Seq, one.At, one.Until)
			}
			if !one.IssuedBefore.Equal(want[i].IssuedBefore) {
				t.Errorf("entry %d: issued before %v", one.Seq, one.IssuedBefore)
			}
			one.At, one.Until, one.IssuedBefore = time.Time{}, time.Time{}, want[i].IssuedBefore
			if one != want[i] {
				t.Errorf("by %d: %+v, want %+v", limit, one, want[i])
			}
		}
	}
	for _, limit := range []int{-1, audit.MaxPage + 1} {
		if _, _, err := s.RevocationLog(t.Context(), by, 0, limit, Client{}); code(err) != "invalid_limit" {
			t.Errorf("a limit of %d: %v", limit, err)
		}
	}
}

// The log needs sessions:read, and says nothing of users with more rights than its reader's.
func TestWhoReadsTheLog(t *testing.T) {
	s, give := newDirected(t)
	give(adaID, "admin", "users:read")
	for _, line := range []store.Revocation{
		{Kind: string(revoked.Session), Subject: "s", Actor: adaID, Reason: "logout"},
		{Kind: string(revoked.User), Subject: adaID, Epoch: 7, Actor: bobID, Reason: "user_revoked"},
		{Kind: string(revoked.User), Subject: bobID, Epoch: 7, Actor: adaID, Reason: "user_revoked"},
		{Kind: string(revoked.Token), Subject: adaID, Actor: bobID, Reason: "revoked"}, // no user's id here
		{Kind: string(revoked.User), Subject: "gone", Epoch: 7, Reason: "user_revoked"},
	} {
		_, err := s.Revocations.Revoke(t.Context(), line)
		ok(t, err)
	}
	read := func(by *accesstoken.Token, refused string) []LogEntry {
		t.Helper()
		page, _, err := s.RevocationLog(t.Context(), by, 0, 0, Client{})
		if code(err) != refused || err != nil && page != nil {
			t.Fatalf("%v, want %s", err, refused)
		}
		return page
	}
	says := func(page []LogEntry) string {
		text := ""
		for _, one := range page {
			text += fmt.Sprintf("%d %s by %s %v; ", one.Seq, one.Subject, one.Actor, one.Hidden)
		}
		return text
	}
	read(atHome(bobID), "permission_missing")
	give(bobID, "admin", "audit:read")
	read(atHome(bobID), "permission_missing")
	give(bobID, "admin", "sessions:read")
	read(&accesstoken.Token{Subject: bobID, Issuer: "i", Audience: []string{"a"}}, "wrong_audience")
	want := "5 gone by  false; 4 " + adaID + " by " + bobID + " false; 3 " + bobID + " by  true; 2  by " + bobID + " true; 1 s by  true; "
	if got := says(read(atHome(bobID), "")); got != want {
		t.Errorf("it says  %s\nwant %s", got, want)
	}
	give(bobID, "admin", "users:write") // which includes users:read
	whole := "5 gone by  false; 4 " + adaID + " by " + bobID + " false; 3 " + bobID + " by " + adaID + " false; 2 " + adaID + " by " + bobID + " false; 1 s by " + adaID + " false; "
	if got := says(read(atHome(bobID), "")); got != whole {
		t.Errorf("with the same rights it says %s", got)
	}
	give(adaID, "admin", "all")
	if got := says(read(atHome(bobID), "")); got != want {
		t.Errorf("of a superuser it says %s", got)
	}
	if got := says(read(atHome(adaID), "")); got != whole {
		t.Errorf("to a superuser it says %s", got)
	}
}
