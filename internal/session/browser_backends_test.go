package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/testenv"
)

func always(context.Context, session.Session) error { return nil }

// Over each backend two replicas recognise a browser's session, note its use and give it other
// cookies, at the same time, until one of them stops it. Before that the present cookie is
// recognised on both at once, and no former one is. After it none is, and nothing is written any
// more.
func TestBrowsersSessionsOnTwoReplicas(t *testing.T) {
	overBackends(t, func(t *testing.T, stores [2]*session.Store) {
		var ahead time.Duration
		for _, s := range stores {
			s.Now = func() time.Time { return time.Now().Add(ahead) }
		}
		for range 3 {
			browserHistory(t, stores, func() { ahead += 6 * time.Minute }) // the next use is to be noted
		}
	})
}

func browserHistory(t *testing.T, stores [2]*session.Store, pass func()) {
	t.Helper()
	const callers, cookies = 4, 3
	ctx, user := t.Context(), uuid.NewString()
	s, cookie, _, err := stores[0].StartBrowser(ctx, user, 0, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	everybody := func(f func(store *session.Store) error) {
		t.Helper()
		var work sync.WaitGroup
		for caller := range callers {
			work.Go(func() {
				if err := f(stores[caller%2]); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
	}
	former := []string{}
	for n := range cookies {
		pass()
		var mu sync.Mutex
		next := ""
		everybody(func(store *session.Store) error {
			known, err := store.RecogniseCookie(ctx, cookie, always)
			if errors.Is(err, state.ErrNotFound) { // another caller was faster
				return nil
			}
			if err != nil {
				return err
			}
			if err := store.Used(ctx, known); err != nil && !errors.Is(err, state.ErrNotFound) {
				return fmt.Errorf("use: %w", err)
			}
			_, other, err := store.ReauthenticatedBrowser(ctx, user, s.ID, known.CookieID, store.Now(), []string{fmt.Sprint(n)})
			if errors.Is(err, session.ErrInvalid) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil && next != "" {
				return errors.New("two callers have another cookie")
			}
			next = other
			return err
		})
		former, cookie = append(former, cookie), next
		everybody(func(store *session.Store) error {
			got, err := store.RecogniseCookie(ctx, cookie, always)
			if err != nil || !slices.Equal(got.AMR, []string{fmt.Sprint(n)}) || !got.ExpiresAt.Equal(s.ExpiresAt) || got.RenewedAt.Before(s.RenewedAt) {
				return fmt.Errorf("it is %+v, %w", got, err)
			}
			for _, one := range former {
				if _, err := store.RecogniseCookie(ctx, one, always); !errors.Is(err, state.ErrNotFound) {
					return fmt.Errorf("a former cookie: %w", err)
				}
			}
			return nil
		})
	}
	pass()
	before, err := stores[1].Get(ctx, user, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	key := state.Key{Kind: session.Kind, Owner: user, ID: s.ID}
	var work sync.WaitGroup
	for caller := range callers {
		work.Go(func() {
			if err := stores[caller%2].Used(ctx, before); err != nil && !errors.Is(err, state.ErrNotFound) {
				t.Errorf("a use beside the end: %v", err)
			}
			_, _, err := stores[caller%2].ReauthenticatedBrowser(ctx, user, s.ID, before.CookieID, stores[0].Now(), nil)
			if err != nil && !errors.Is(err, session.ErrInvalid) {
				t.Errorf("another cookie beside the end: %v", err)
			}
		})
	}
	if err := stores[1].Stop(ctx, user, s.ID); err != nil {
		t.Error(err)
	}
	stopped, err := stores[0].State.Get(ctx, key)
	if err != nil {
		t.Error(err)
	}
	work.Wait()
	if after, err := stores[0].State.Get(ctx, key); err != nil || after.Version != stopped.Version {
		t.Errorf("after it was stopped, it was written: %s, %v", after.Value, err)
	}
	everybody(func(store *session.Store) error {
		for _, one := range append([]string{cookie}, former...) {
			if _, err := store.RecogniseCookie(ctx, one, always); !errors.Is(err, state.ErrNotFound) {
				return fmt.Errorf("after it was stopped: %w", err)
			}
		}
		return nil
	})
	if err := stores[0].End(ctx, user, s.ID); err != nil {
		t.Error(err)
	}
	if err := stores[1].Used(ctx, before); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a use after its end: %v", err)
	}
}

// startBrowser begins a browser's session of a new user.
func (r *replica) startBrowser(t testing.TB) (session.Session, string) {
	t.Helper()
	s, _ := r.start(t)
	s, cookie, _, err := r.StartBrowser(t.Context(), s.UserID, 0, "192.0.2.1", s.UserAgent, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, cookie
}

// Replicas have copies of a session. When it has another cookie, that is recognised everywhere at
// once, and the former one is refused as soon as the copy is replaced. Somebody who brings the old
// copy back has the former cookie recognised until the copy's end, as the session was before; and
// the new one is recognised all the same. The end of the session is the end of both.
func TestAnotherCookieAndCopiesInRedis(t *testing.T) {
	redis, sql := testenv.Redis(t), testenv.Postgres(t)
	replicas := []*replica{newReplica(t, sql, redis, time.Minute), newReplica(t, sql, redis, time.Minute)}
	attacker, ctx := newAttacker(t, redis), t.Context()
	written := func() {
		t.Helper()
		for _, r := range replicas {
			if err := r.tier.Close(); err != nil { // it waits for the copies
				t.Fatal(err)
			}
		}
	}
	s, first := replicas[0].startBrowser(t)
	written()
	name := fmt.Sprintf("copy:session:{%s}:%s", s.UserID, s.ID)
	old, err := attacker.client.Do(ctx, attacker.client.B().Get().Key(name).Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	bringBack := func() {
		t.Helper()
		written()
		if err := attacker.client.Do(ctx, attacker.client.B().Set().Key(name).Value(old).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	// recognise returns the session of a cookie, and reports whether it was read in the database.
	recognise := func(r *replica, cookie string) (session.Session, bool, error) {
		before := r.reads.gets.Load()
		got, err := r.RecogniseCookie(ctx, cookie, r.may)
		return got, r.reads.gets.Load() > before, err
	}
	for i, r := range replicas {
		if got, read, err := recognise(r, first); err != nil || read || got.CookieID != s.CookieID {
			t.Fatalf("replica %d: %+v, %v; it was read in the database: %v", i, got, err, read)
		}
	}
	changed, second, err := replicas[0].ReauthenticatedBrowser(ctx, s.UserID, s.ID, s.CookieID, time.Now().Add(time.Minute), []string{"pwd"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := recognise(replicas[1], second); err != nil || got.CookieID != changed.CookieID { // whatever copy is there
		t.Errorf("the new cookie, at once: %+v, %v", got, err)
	}
	written()
	for i, r := range replicas {
		if _, _, err := recognise(r, first); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("the former cookie on replica %d: %v", i, err)
		}
	}
	for i, r := range replicas {
		bringBack()
		if got, read, err := recognise(r, first); err != nil || read || !got.AuthTime.Equal(s.AuthTime) || got.AMR != nil {
			t.Errorf("by the old copy, on replica %d: %+v, %v; it was read in the database: %v", i, got, err, read)
		}
		if got, read, err := recognise(r, second); err != nil || !read || got.CookieID != changed.CookieID {
			t.Errorf("the new cookie beside the old copy, on replica %d: %+v, %v", i, got, err)
		}
		written() // the old copy is none of a version that follows
		if _, _, err := recognise(r, first); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("the former cookie, after the new one, on replica %d: %v", i, err)
		}
	}
	seq, err := replicas[0].end(ctx, s, false, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := replicas[1].view.Wait(ctx, seq); err != nil {
		t.Fatal(err)
	}
	bringBack()
	for i, r := range replicas {
		for _, cookie := range []string{first, second} {
			if _, _, err := recognise(r, cookie); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("after the end, on replica %d: %v", i, err)
			}
		}
	}
}
