package loadgen

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A userList is a service that makes and removes users, each in a second.
type userList struct {
	mu    sync.Mutex
	users map[string]bool // by id
	n     int
	busy  time.Time // until then it refuses logins and removals
	keeps string    // the id of the one user that it does not remove
}

// RoundTrip is the service as a client sees it. It does what it is asked though the client goes.
func (s *userList) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	s.mu.Lock()
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/api/users":
		s.n++
		id := fmt.Sprint("u", s.n)
		s.users[id] = true
		rec.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(rec).Encode(map[string]string{"id": id})
	case r.Method == http.MethodGet:
		rec.WriteHeader(http.StatusNotFound)
	case time.Now().Before(s.busy):
		rec.WriteHeader(http.StatusTooManyRequests)
	case r.URL.Path == "/api/login":
		_, _ = rec.WriteString(`{"access_token":"t"}`)
	case path.Base(r.URL.Path) == s.keeps:
		rec.WriteHeader(http.StatusConflict)
	default:
		delete(s.users, path.Base(r.URL.Path))
		rec.WriteHeader(http.StatusNoContent)
	}
	s.mu.Unlock()
	select {
	case <-time.After(time.Second):
		return rec.Result(), nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func (s *userList) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.users)
}

// Whoever interrupts the making of users leaves none behind, not even those whose answer was on
// its way.
func TestInterruptedWhileUsersAreMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &userList{users: map[string]bool{}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3500*time.Millisecond, cancel) // two requests before the first users
		m, err := MakeUsers(ctx, &http.Client{Transport: s}, "http://auth", User{"admin", "p"}, 100)
		if m != nil || err == nil || s.n == 0 || s.n == 100 {
			t.Errorf("%v, %d were made", err, s.n)
		}
		if n := s.left(); n != 0 {
			t.Errorf("%d of %d users are left", n, s.n)
		}
	})
}

// The users are removed also if the load has used up what the tool may do in a minute, and all but
// those that cannot be.
func TestUsersAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &userList{users: map[string]bool{}}
		m, err := MakeUsers(t.Context(), &http.Client{Transport: s}, "http://auth", User{"admin", "p"}, 20)
		if err != nil || s.left() != 20 {
			t.Fatalf("%v, %d", err, s.left())
		}
		s.busy, s.keeps = time.Now().Add(time.Minute), "u7"
		err = m.Remove(t.Context())
		if err == nil || !strings.Contains(err.Error(), "1 of 20") || !strings.Contains(err.Error(), "409") || s.left() != 1 {
			t.Errorf("%v, %d are left", err, s.left())
		}
		s.busy = time.Now().Add(time.Hour)
		began := time.Now()
		if err := m.Remove(t.Context()); err == nil || !strings.Contains(err.Error(), "429") && !strings.Contains(err.Error(), "deadline") || time.Since(began) > removeWithin+time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
