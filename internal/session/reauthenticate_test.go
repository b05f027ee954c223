package session

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/state"
)

func (b bench) reauthenticated(t *testing.T, id string, at time.Time, amr ...string) Session {
	t.Helper()
	s, err := b.Reauthenticated(t.Context(), b.user, id, at, amr)
	if err != nil {
		t.Fatalf("Reauthenticated: %v", err)
	}
	if got, err := b.Get(t.Context(), b.user, id); err != nil || !reflect.DeepEqual(got, s) {
		t.Fatalf("stored is %+v, %v; returned was %+v", got, err, s)
	}
	return s
}

// startBy begins a session by the methods.
func (b bench) startBy(t *testing.T, amr ...string) (Session, string) {
	t.Helper()
	s, refresh, _, err := b.Start(t.Context(), b.user, 7, "192.0.2.1", "test", func(s *Session) error {
		s.AMR = amr
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, refresh
}

func TestReauthentication(t *testing.T) {
	b := newBench(t, nil)
	began := b.clock.Now()
	s, refresh := b.startBy(t, "pwd")
	if !s.AuthTime.Equal(began) || !slices.Equal(s.AMR, []string{"pwd"}) {
		t.Fatalf("a new session is %+v", s)
	}
	b.clock.advance(time.Hour)
	second := b.renew(t, refresh)
	if got, err := b.Get(t.Context(), b.user, s.ID); err != nil || !got.AuthTime.Equal(began) || !slices.Equal(got.AMR, s.AMR) {
		t.Fatalf("a renewal makes it %+v, %v", got, err)
	}
	b.clock.advance(time.Hour)
	at := b.clock.Now()
	want, _ := b.Get(t.Context(), b.user, s.ID)
	want.AuthTime, want.AMR = at, []string{"mfa", "otp", "pwd"}
	if got := b.reauthenticated(t, s.ID, at, "otp", "pwd", "mfa", "otp"); !reflect.DeepEqual(got, want) {
		t.Errorf("it is %+v, want %+v", got, want)
	}
	// An earlier authentication, which another replica has noted later, is not the last one.
	want.AMR = []string{"mfa", "otp", "pwd", "user"}
	if got := b.reauthenticated(t, s.ID, at.Add(-time.Minute), "user"); !reflect.DeepEqual(got, want) {
		t.Errorf("it is %+v, want %+v", got, want)
	}
	renewed, third, err := b.Renew(t.Context(), second, always)
	if err != nil || !renewed.AuthTime.Equal(at) || !slices.Equal(renewed.AMR, want.AMR) {
		t.Errorf("renewed it is %+v, %v", renewed, err)
	}
	// A spent token gives the same successor as before.
	b.reauthenticated(t, s.ID, b.clock.Now().Add(time.Second), "hwk")
	if again := b.renew(t, second); again != third {
		t.Error("another successor")
	}
}

// No session that has ended in any way comes back by it.
func TestNoReauthenticationOfAnEndedSession(t *testing.T) {
	for name, end := range map[string]func(*testing.T, bench, Session){
		"stopped": func(t *testing.T, b bench, s Session) {
			if err := b.Stop(t.Context(), b.user, s.ID); err != nil {
				t.Fatal(err)
			}
		},
		"ended": func(t *testing.T, b bench, s Session) {
			if err := b.End(t.Context(), b.user, s.ID); err != nil {
				t.Fatal(err)
			}
		},
		"expired":           func(_ *testing.T, b bench, s Session) { b.clock.advance(b.TTL) },
		"almost expired":    func(_ *testing.T, b bench, s Session) { b.clock.advance(b.TTL - minLife + 1) },
		"idle for too long": func(_ *testing.T, b bench, s Session) { b.clock.advance(b.Idle) },
		"unreadable": func(t *testing.T, b bench, s Session) {
			if _, err := b.State.Put(t.Context(), key(b.user, s.ID), []byte("garbage"), time.Hour); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.TTL, c.Idle = 24*time.Hour, 20*time.Hour })
			s, _ := b.start(t)
			if name == "almost expired" {
				b.Idle = 0
				s, _ = b.start(t)
			}
			end(t, b, s)
			before, beforeErr := b.State.Get(t.Context(), key(b.user, s.ID))
			if _, err := b.Reauthenticated(t.Context(), b.user, s.ID, b.clock.Now(), []string{"otp"}); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
			if after, err := b.State.Get(t.Context(), key(b.user, s.ID)); !reflect.DeepEqual(after, before) || !errors.Is(err, beforeErr) {
				t.Errorf("it was %+v, %v and is %+v, %v", before, beforeErr, after, err)
			}
		})
	}
	b := newBench(t, nil)
	s, _ := b.start(t)
	for _, id := range []string{"", "x", uuid.NewString(), s.ID + " "} {
		if _, err := b.Reauthenticated(t.Context(), b.user, id, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("session %q: %v", id, err)
		}
	}
	if _, err := b.Reauthenticated(t.Context(), uuid.NewString(), s.ID, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("another user: %v", err)
	}
}

// A client that authenticates again and again, and never renews, has its session for as long
// as one that does not.
func TestReauthenticationMovesNoEnd(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"the session's end":        func(c *Config) { c.TTL = 10 * time.Hour },
		"the refresh token's wait": func(c *Config) { c.RefreshDuration = 10 * time.Hour },
		"the idle time":            func(c *Config) { c.Idle = 10 * time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, change)
			s, _ := b.start(t)
			end := b.clock.Now().Add(10 * time.Hour)
			for range 9 {
				b.clock.advance(time.Hour)
				got := b.reauthenticated(t, s.ID, b.clock.Now(), "otp")
				stored, err := b.State.Get(t.Context(), key(b.user, s.ID))
				if err != nil || !stored.Expires.Equal(end) || !got.ExpiresAt.Equal(s.ExpiresAt) || !got.RenewedAt.Equal(s.RenewedAt) {
					t.Fatalf("it ends at %v, want %v; %+v, %v", stored.Expires, end, got, err)
				}
			}
			b.clock.advance(time.Hour)
			if _, err := b.Get(t.Context(), b.user, s.ID); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("after its end: %v", err)
			}
		})
	}
}

// A replica of a former version knows neither member, and drops both when it renews. What is
// left says that the user authenticated once, at sign-in.
func TestReauthenticationBesideAFormerVersion(t *testing.T) {
	b := newBench(t, nil)
	began := b.clock.Now()
	s, refresh := b.startBy(t, "pwd")
	b.clock.advance(time.Hour)
	b.reauthenticated(t, s.ID, b.clock.Now(), "otp")
	k := key(b.user, s.ID)
	stored, err := b.State.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(stored.Value, &members); err != nil {
		t.Fatal(err)
	}
	if members["auth_time"] == nil || members["amr"] == nil {
		t.Fatalf("the record is %s", stored.Value)
	}
	delete(members, "auth_time")
	delete(members, "amr")
	value, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.State.Swap(t.Context(), k, stored.Version, value, time.Hour); err != nil {
		t.Fatal(err)
	}
	renewed, _, err := b.Renew(t.Context(), refresh, always)
	if err != nil || !renewed.AuthTime.Equal(began) || renewed.AMR != nil {
		t.Errorf("it is %+v, %v", renewed, err)
	}
	at := b.clock.Now()
	if got := b.reauthenticated(t, s.ID, at, "otp"); !got.AuthTime.Equal(at) || !slices.Equal(got.AMR, []string{"otp"}) {
		t.Errorf("authenticated again, it is %+v", got)
	}
}

func TestReauthenticationThatFailed(t *testing.T) {
	for name, persisted := range map[string]bool{"but persisted": true, "and did not persist": false} {
		t.Run(name, func(t *testing.T) {
			f := &faulty{persist: persisted}
			b := newBench(t, func(c *Config) { f.Store, c.State = c.State, f })
			s, _ := b.start(t)
			b.clock.advance(time.Minute)
			at := b.clock.Now()
			f.fail = true
			if _, err := b.Reauthenticated(t.Context(), b.user, s.ID, at, []string{"otp"}); !errors.Is(err, errFault) {
				t.Fatalf("got %v, want the fault", err)
			}
			f.fail = false
			if got := b.reauthenticated(t, s.ID, at, "otp"); !got.AuthTime.Equal(at) || !slices.Equal(got.AMR, []string{"otp"}) {
				t.Errorf("repeated, it is %+v", got)
			}
		})
	}
}
