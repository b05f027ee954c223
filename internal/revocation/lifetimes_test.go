package revocation

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

func openStore(t *testing.T) store.Store {
	t.Helper()
	return sqlstore.New(sqldbtest.Open(t))
}

func TestTheLongestPromiseIsKept(t *testing.T) {
	s := openStore(t)
	log := &Log{Store: s, Now: time.Now, Lifetimes: Lifetimes{Token: time.Minute, Session: time.Hour}}
	for _, step := range []struct{ promised, longest Lifetimes }{
		{Lifetimes{Token: time.Second, Session: time.Second}, Lifetimes{Token: time.Minute, Session: time.Hour}},
		{Lifetimes{Token: 30*time.Minute + 5*time.Second, Session: 24 * time.Hour}, Lifetimes{Token: 1805 * time.Second, Session: 24 * time.Hour}},
		{Lifetimes{Token: time.Hour, Session: time.Hour}, Lifetimes{Token: time.Hour, Session: 24 * time.Hour}},
		{Lifetimes{Token: time.Minute, Session: 48 * time.Hour}, Lifetimes{Token: time.Hour, Session: 48 * time.Hour}},
		{Lifetimes{Token: time.Minute, Session: time.Minute}, Lifetimes{Token: time.Hour, Session: 48 * time.Hour}},
	} {
		if err := Promise(t.Context(), s, step.promised); err != nil {
			t.Fatal(err)
		}
		if got, err := log.Longest(t.Context(), s); got != step.longest || err != nil {
			t.Errorf("after %v the longest are %v, %v, and should be %v", step.promised, got, err, step.longest)
		}
	}

	at := time.Now().Truncate(time.Microsecond)
	rev := line("x")
	rev.CreatedAt, rev.ExpiresAt = at, time.Time{}
	if _, err := log.Append(t.Context(), s, rev, line("y")); err != nil {
		t.Fatal(err)
	}
	lines, _, err := s.RevocationsAfter(t.Context(), 0, 10)
	if err != nil || len(lines) != 2 || !lines[0].ExpiresAt.Equal(at.Add(time.Hour)) || lines[1].ExpiresAt.After(time.Now().Add(time.Hour)) {
		t.Errorf("the log has %+v, %v", lines, err)
	}
}

func TestPromisesOfManyReplicas(t *testing.T) {
	s := openStore(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := Promise(t.Context(), s, Lifetimes{Token: time.Duration(i) * time.Minute, Session: time.Duration(8-i) * time.Hour}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	log := &Log{Store: s, Now: time.Now}
	if got, err := log.Longest(t.Context(), s); err != nil || got != (Lifetimes{Token: 7 * time.Minute, Session: 8 * time.Hour}) {
		t.Errorf("the longest are %v, %v", got, err)
	}
}

// Nothing is revoked for a time that is not known, and nothing is promised
// over what cannot be read.
func TestALongestLifeThatCannotBeRead(t *testing.T) {
	s := openStore(t)
	log := &Log{Store: s, Now: time.Now, Lifetimes: Lifetimes{Token: time.Minute}}
	for _, text := range []string{"", "1h", "1h 2", "x 1h", "1h 2h 3h"} {
		if err := s.PutSetting(t.Context(), settingLongest, text); err != nil {
			t.Fatal(err)
		}
		if _, err := log.Revoke(t.Context(), line("x")); !errors.Is(err, ErrNotRecorded) {
			t.Errorf("%q: %v", text, err)
		}
		if err := Promise(t.Context(), s, Lifetimes{Token: time.Hour}); err == nil {
			t.Errorf("%q: promised", text)
		}
	}
	if lines, _, err := s.RevocationsAfter(t.Context(), 0, 10); len(lines) != 0 || err != nil {
		t.Errorf("the log has %v, %v", lines, err)
	}
}
