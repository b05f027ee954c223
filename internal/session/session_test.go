package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
)

// A clock is held by the test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type bench struct {
	*Store
	clock *clock
	user  string
}

func newBench(t *testing.T, change func(*Config)) bench {
	t.Helper()
	c := &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	config := Config{
		State: memstate.New(c.Now), TTL: 24 * time.Hour, RefreshDuration: 720 * time.Hour,
		RenewGrace: 10 * time.Second, Now: c.Now, Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&config)
	}
	return bench{New(config), c, uuid.NewString()}
}

func always(context.Context, Session) error { return nil }

func (b bench) start(t *testing.T) (Session, string) {
	t.Helper()
	s, refresh, _, err := b.Start(t.Context(), b.user, 7, "192.0.2.1", "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, refresh
}

func (b bench) renew(t *testing.T, token string) string {
	t.Helper()
	_, next, err := b.Renew(t.Context(), token, always)
	if err != nil {
		t.Fatalf("Renew: %v", err)
	}
	return next
}

func (b bench) refused(t *testing.T, token string, want error) {
	t.Helper()
	if _, _, err := b.Renew(t.Context(), token, always); !errors.Is(err, want) {
		t.Fatalf("Renew: got %v, want %v", err, want)
	}
}

// live are the sessions that have not ended.
func (b bench) live(t *testing.T) []Session {
	t.Helper()
	all, err := b.newest(t.Context(), b.user, 2*MaxSessions)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(s Session) bool { return s.Ended })
}

func TestRenewalRotates(t *testing.T) {
	b := newBench(t, nil)
	s, first := b.start(t)
	b.clock.advance(time.Hour)
	renewed, second, err := b.Renew(t.Context(), first, always)
	if err != nil {
		t.Fatal(err)
	}
	if second == first || !strings.HasPrefix(second, RefreshPrefix) {
		t.Errorf("the successor %q does not differ from the first token", second)
	}
	if renewed.ID != s.ID || renewed.Epoch != 7 || !renewed.RenewedAt.Equal(b.clock.Now()) {
		t.Errorf("the renewed session is %+v", renewed)
	}
	b.renew(t, second)
}

func TestSpentTokenInsideGraceGivesSameSuccessor(t *testing.T) {
	b := newBench(t, nil)
	_, first := b.start(t)
	second := b.renew(t, first)
	third := b.renew(t, second)
	b.clock.advance(b.RenewGrace - time.Nanosecond)
	// Also when the successor was spent meanwhile: a slow duplicate of an honest
	// client's request must not cost it its session.
	if got := b.renew(t, first); got != second {
		t.Error("the first token gave another successor")
	}
	if got := b.renew(t, second); got != third {
		t.Error("the second token gave another successor")
	}
	b.renew(t, third)
}

func TestSpentTokenAfterGraceIsAReplay(t *testing.T) {
	b := newBench(t, nil)
	s, first := b.start(t)
	second := b.renew(t, first)
	third := b.renew(t, second) // so the successor is used
	b.clock.advance(b.RenewGrace)
	got, _, err := b.Renew(t.Context(), first, always)
	if !errors.Is(err, ErrReplayed) {
		t.Fatalf("got %v, want a replay", err)
	}
	if got.ID != s.ID || got.UserID != b.user {
		t.Errorf("the replay names session %+v, want %s", got, s.ID)
	}
	// The family is the caller's to revoke; a token two generations old is a
	// replay as well, whether or not the record still remembers it.
	fourth := b.renew(t, third)
	b.clock.advance(b.RenewGrace)
	b.renew(t, fourth)
	b.refused(t, second, ErrReplayed)
	b.refused(t, first, ErrReplayed)
}

func TestOneTokenRenewedByManyAtOnce(t *testing.T) {
	b := newBench(t, nil)
	_, first := b.start(t)
	successors := make([]string, 64)
	var wg sync.WaitGroup
	for i := range successors {
		wg.Go(func() { _, successors[i], _ = b.Renew(context.Background(), first, always) })
	}
	wg.Wait()
	for i, s := range successors {
		if s == "" || s != successors[0] {
			t.Fatalf("caller %d got %q, caller 0 got %q", i, s, successors[0])
		}
	}
	b.renew(t, successors[0])
}

func TestEndedSessionIsNotRenewed(t *testing.T) {
	b := newBench(t, nil)
	s, refresh := b.start(t)
	if err := b.End(t.Context(), b.user, s.ID); err != nil {
		t.Fatal(err)
	}
	b.refused(t, refresh, ErrInvalid)
	if err := b.End(t.Context(), b.user, s.ID); err != nil {
		t.Errorf("ending it again: %v", err)
	}
}

// A renewal that read the record before the logout must not write it back.
func TestLogoutIsNotUndoneByRenewalsUnderWay(t *testing.T) {
	for range 50 {
		b := newBench(t, nil)
		s, refresh := b.start(t)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				token := refresh
				for {
					_, next, err := b.Renew(context.Background(), token, always)
					if err != nil {
						return
					}
					token = next
				}
			})
		}
		if err := b.Stop(t.Context(), b.user, s.ID); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Get(t.Context(), b.user, s.ID); err != nil || !got.Ended {
			t.Fatalf("the session goes on: %+v, %v", got, err)
		}
		if err := b.End(t.Context(), b.user, s.ID); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if _, err := b.Get(t.Context(), b.user, s.ID); !errors.Is(err, state.ErrNotFound) {
			t.Fatalf("the session is back: %v", err)
		}
	}
}

func TestForgedTokens(t *testing.T) {
	b := newBench(t, nil)
	s, genuine := b.start(t)

	// Somebody who saw an access token knows user and session.
	madeUp, err := newRefreshToken(rand.Reader, b.user, s.ID)
	if err != nil {
		t.Fatal(err)
	}

	parsed, err := parseRefreshToken(genuine)
	if err != nil {
		t.Fatal(err)
	}
	other := parsed
	other.user = uuid.New()

	forged := []string{
		madeUp.String(), other.String(),
		"", RefreshPrefix, genuine[1:], genuine + "A", genuine[:len(genuine)-1], genuine + "=",
		strings.Replace(genuine, RefreshPrefix, "wwa_", 1), genuine[:20] + "\n" + genuine[21:], "eyJhbGciOiJub25lIn0.e30.",
	}
	for _, s := range forged {
		b.refused(t, s, ErrInvalid)
	}
	b.renew(t, genuine) // none of that has ended it
	if !t.Failed() {
		t.Logf("summary: %d forged or malformed refresh tokens, none accepted", len(forged))
	}
}

func TestSessionEnds(t *testing.T) {
	t.Run("at its absolute end, however often it is renewed", func(t *testing.T) {
		b := newBench(t, nil)
		_, token := b.start(t)
		for range 23 {
			b.clock.advance(time.Hour)
			token = b.renew(t, token)
		}
		b.clock.advance(time.Hour)
		b.refused(t, token, ErrInvalid)
	})
	t.Run("when it is idle", func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.Idle = time.Hour })
		_, token := b.start(t)
		b.clock.advance(59 * time.Minute)
		token = b.renew(t, token)
		b.clock.advance(time.Hour)
		b.refused(t, token, ErrInvalid)
	})
	t.Run("when its refresh token is too old", func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.RefreshDuration = time.Hour })
		_, token := b.start(t)
		b.clock.advance(time.Hour)
		b.refused(t, token, ErrInvalid)
	})
}

func TestMaxPerUserEndsTheOldest(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxPerUser = 2 })
	var sessions []Session
	for range 3 {
		b.clock.advance(time.Second)
		s, _, ended, err := b.Start(t.Context(), b.user, 0, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
		if want := max(0, len(sessions)-2); len(ended) != want {
			t.Fatalf("sign-in %d ended %d sessions, want %d", len(sessions), len(ended), want)
		}
	}
	left := b.live(t)
	if len(left) != 2 || left[0].ID != sessions[2].ID || left[1].ID != sessions[1].ID {
		t.Errorf("left are %v, want the two newest, newest first", left)
	}
}

// A user with many more sessions than are allowed from now on can sign in, and each time
// some end. A sign-in that fails leaves none.
func TestALowerMaxPerUserTakesEffectInSteps(t *testing.T) {
	const many = 3*boundStep - 10
	b := newBench(t, nil)
	for range many {
		b.start(t)
	}
	config := b.Config
	config.MaxPerUser = 2
	lower := New(config)
	left := many
	for left > 2 {
		_, _, ended, err := lower.Start(t.Context(), b.user, 0, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(ended) != min(boundStep, left+1-2) {
			t.Fatalf("of %d sessions %d ended", left+1, len(ended))
		}
		for _, old := range ended {
			if err := lower.End(t.Context(), b.user, old.ID); err != nil {
				t.Fatal(err)
			}
		}
		left += 1 - len(ended)
	}
	// The time is over in the middle.
	ctx, cancel := context.WithCancel(t.Context())
	config.State = &cancelling{Store: b.State, cancel: cancel}
	if _, _, _, err := New(config).Start(ctx, b.user, 0, "", "", nil); err == nil {
		t.Fatal("the sign-in succeeded")
	}
	if now := len(b.live(t)); now > left {
		t.Errorf("%d sessions where there were %d", now, left)
	}
}

// cancelling is a state whose caller's time is over once a session has begun.
type cancelling struct {
	state.Store
	cancel context.CancelFunc
}

func (c *cancelling) Create(ctx context.Context, k state.Key, value []byte, ttl time.Duration) (int64, error) {
	defer c.cancel()
	return c.Store.Create(ctx, k, value, ttl)
}

func (c *cancelling) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.Store.List(ctx, kind, owner, after, limit)
}

func (c *cancelling) Delete(ctx context.Context, k state.Key) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.Store.Delete(ctx, k)
}

// The clocks of two replicas differ by more than lies between two sign-ins.
func TestMaxPerUserDoesNotEndTheNewest(t *testing.T) {
	for _, ahead := range []time.Duration{5 * time.Second, 0} {
		b := newBench(t, func(c *Config) { c.MaxPerUser = 2 })
		config := b.Config
		config.Now = func() time.Time { return b.clock.Now().Add(ahead) }
		replicas := []*Store{New(config), b.Store}
		var began []string
		for i := range 8 {
			s, _, ended, err := replicas[i/2%2].Start(t.Context(), b.user, 0, "", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			began = append(began, s.ID)
			for _, old := range ended {
				if old.ID != began[i-2] {
					t.Errorf("%v ahead: sign-in %d ended number %d", ahead, i, slices.Index(began, old.ID))
				}
				if err := b.End(t.Context(), b.user, old.ID); err != nil {
					t.Fatal(err)
				}
			}
			if want := max(0, i-1); len(ended) != min(want, 1) {
				t.Errorf("%v ahead: sign-in %d ended %d", ahead, i, len(ended))
			}
		}
	}
}

// Where nothing is configured, a user's sessions have a bound all the same.
func TestNobodyHasSessionsWithoutEnd(t *testing.T) {
	b := newBench(t, nil)
	for i := range MaxSessions + 100 {
		sess := Session{ID: uuid.NewString(), UserID: b.user, CreatedAt: b.clock.now.Add(time.Duration(i-2*MaxSessions) * time.Second)}
		value, err := json.Marshal(record{Session: sess})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.State.Create(t.Context(), key(b.user, sess.ID), value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	var ended []Session
	looked := 0
	for tries := 0; ended == nil; tries++ {
		if tries > 100*boundEvery {
			t.Fatal("nothing ends")
		}
		var err error
		if _, _, ended, err = b.Start(t.Context(), b.user, 0, "", "", nil); err != nil {
			t.Fatal(err)
		}
		looked++
	}
	left := b.live(t)
	if len(left) != MaxSessions+100+looked-len(ended) || len(left) < MaxSessions {
		t.Errorf("left are %d, ended %d", len(left), len(ended))
	}
	for _, one := range ended {
		if !one.CreatedAt.Before(b.clock.now.Add(-time.Hour)) {
			t.Errorf("one that began at %v has ended", one.CreatedAt)
		}
	}
	if want := min(boundStep, 100+looked); len(ended) != want {
		t.Errorf("%d have ended, want %d", len(ended), want)
	}
}

// A list is read page by page, the newest session first, also where sessions end between
// two pages. Nothing is read but the page, however many sessions there are.
func TestAListIsReadPageByPage(t *testing.T) {
	b := newBench(t, nil)
	counted := &reading{Store: b.State}
	config := b.Config
	config.State = counted
	s := New(config)
	var began []string
	for range 250 {
		b.clock.advance(time.Millisecond)
		one, _ := b.start(t)
		began = append(began, one.ID)
	}
	slices.Reverse(began)
	for _, limit := range []int{1, 7, 100, 249, 250, 251} {
		var got []string
		pages := 0
		for after := ""; ; pages++ {
			counted.records = 0
			page, next, err := s.List(t.Context(), b.user, after, limit)
			if err != nil || len(page) > limit || counted.records > limit+1 {
				t.Fatalf("a page of %d has %d sessions, %d records were read; %v", limit, len(page), counted.records, err)
			}
			for _, one := range page {
				got = append(got, one.ID)
			}
			if next == "" {
				break
			}
			after = next
		}
		if want := (len(began) - 1) / limit; !slices.Equal(got, began) || pages != want {
			t.Errorf("by pages of %d: %d sessions, want the %d in their order; %d pages and the last, want %d", limit, len(got), len(began), pages, want)
		}
	}
	seen := 0
	if err := s.Each(t.Context(), b.user, func(some []Session) error {
		for _, one := range some {
			seen++
			if err := s.End(t.Context(), b.user, one.ID); err != nil {
				return err
			}
		}
		return nil
	}); err != nil || seen != len(began) {
		t.Errorf("each was called with %d of %d, %v", seen, len(began), err)
	}
	for _, bad := range []string{"x.y", "!", strings.Repeat("z", state.MaxName+1)} {
		if _, _, err := s.List(t.Context(), b.user, bad, 1); problem.From(err).Code != "invalid_cursor" {
			t.Errorf("after %q: %v", bad, err)
		}
	}
}

// reading counts the records that are listed.
type reading struct {
	state.Store
	records int
}

func (r *reading) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	list, err := r.Store.List(ctx, kind, owner, after, limit)
	r.records += len(list)
	return list, err
}

// Sessions of a version whose ids were random, and whose turn may be higher, count with the
// others: none of the new ones ends for them, and they end as the oldest.
func TestSessionsOfFormerVersionsAreTheOldest(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxPerUser = 10 })
	for range 500 {
		old := Session{ID: uuid.NewString(), UserID: b.user, CreatedAt: b.clock.now.Add(-time.Hour)}
		value, err := json.Marshal(record{Session: old})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.State.Create(t.Context(), key(b.user, old.ID), value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	var began []string
	for len(began) < 10 {
		b.clock.advance(time.Second)
		s, _, ended, err := b.Start(t.Context(), b.user, 0, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		began = append(began, s.ID)
		for _, old := range ended {
			if slices.Contains(began, old.ID) {
				t.Fatal("a new session ended for one of a former version")
			}
			if err := b.End(t.Context(), b.user, old.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left := b.live(t); len(left) != 10 || left[0].ID != began[9] || left[9].ID != began[0] {
		t.Errorf("%d are left", len(left))
	}
}

func TestMaxPerUserHoldsWhenManySignInAtOnce(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxPerUser = 3 })
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, _, _, err := b.Start(context.Background(), b.user, 0, "", "", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left := b.live(t); len(left) > 3 {
		t.Errorf("%d sessions are left, want at most 3", len(left))
	}
}

// A session that was stopped is renewed by nobody, and found until it is deleted: by
// its id, by every refresh token of its family, and by the next sign-in that has to
// look after the number of them.
func TestAStoppedSessionIsFoundUntilItIsDeleted(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxPerUser, c.Idle = 2, time.Minute })
	s, spent := b.start(t)
	current := b.renew(t, spent)
	for range 2 { // twice is as good as once
		if err := b.Stop(t.Context(), b.user, s.ID); err != nil {
			t.Fatal(err)
		}
	}
	b.clock.advance(time.Hour) // it is not idle: its access tokens may still live
	for _, token := range []string{spent, current} {
		got, _, err := b.Renew(t.Context(), token, always)
		if !errors.Is(err, ErrEnded) || got.ID != s.ID || got.UserID != b.user {
			t.Errorf("renewed: %+v, %v", got, err)
		}
	}
	if got, err := b.Get(t.Context(), b.user, s.ID); err != nil || !got.Ended {
		t.Errorf("by its id: %+v, %v", got, err)
	}
	_, _, ended, err := b.Start(t.Context(), b.user, 0, "", "", nil)
	if err != nil || len(ended) != 1 || ended[0].ID != s.ID {
		t.Errorf("the next sign-in found %+v, %v", ended, err)
	}
	if err := b.End(t.Context(), b.user, s.ID); err != nil {
		t.Fatal(err)
	}
	b.refused(t, current, ErrInvalid)
	if err := b.Stop(t.Context(), b.user, s.ID); err != nil {
		t.Errorf("what is gone cannot be stopped: %v", err)
	}
}

func TestTooManyRenewalsInAGracePeriod(t *testing.T) {
	b := newBench(t, nil)
	_, token := b.start(t)
	for range maxRecent {
		token = b.renew(t, token)
	}
	b.refused(t, token, ErrTooFast)
	b.clock.advance(b.RenewGrace)
	b.renew(t, token)
}

// faulty fails writes, in either truth.
type faulty struct {
	state.Store
	persist bool
	fail    bool
}

var errFault = errors.New("the backend went away")

func (f *faulty) Swap(ctx context.Context, k state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if !f.fail {
		return f.Store.Swap(ctx, k, version, value, ttl)
	}
	if f.persist {
		if _, err := f.Store.Swap(ctx, k, version, value, ttl); err != nil {
			return 0, err
		}
	}
	return 0, errFault
}

func TestRenewalThatFailed(t *testing.T) {
	for name, persisted := range map[string]bool{"but persisted": true, "and did not persist": false} {
		t.Run(name, func(t *testing.T) {
			f := &faulty{persist: persisted}
			b := newBench(t, func(c *Config) { f.Store, c.State = c.State, f })
			_, token := b.start(t)
			f.fail = true
			if _, _, err := b.Renew(t.Context(), token, always); !errors.Is(err, errFault) {
				t.Fatalf("got %v, want the fault", err)
			}
			f.fail = false
			// The client got an error and tries again with what it has.
			next := b.renew(t, token)
			if got := b.renew(t, token); got != next {
				t.Error("two successors")
			}
			b.renew(t, next)
		})
	}
}

func TestNothingOfATokenIsKept(t *testing.T) {
	b := newBench(t, nil)
	s, first := b.start(t)
	second := b.renew(t, first)
	stored, err := b.State.Get(t.Context(), key(b.user, s.ID))
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{first, second} {
		parsed, err := parseRefreshToken(token)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range [][]byte{parsed.family[:], parsed.secret[:]} {
			if bytes.Contains(stored.Value, []byte(base64.StdEncoding.EncodeToString(secret))) || bytes.Contains(stored.Value, secret) {
				t.Error("the record holds a part of a refresh token")
			}
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"abcd", "abcd"}, {"abcde", "abcd"}, {"äöü", "äö"}, {"aäö", "aä"}, {"a\xff", "a\uFFFD"},
	} {
		if got := clip(c.in, 4); got != c.want {
			t.Errorf("clip(%q, 4) = %q, want %q", c.in, got, c.want)
		}
	}
}

// What a backend holds under a session's name, and was not written here, opens
// nothing.
func TestForeignRecord(t *testing.T) {
	b := newBench(t, nil)
	_, refresh := b.start(t)
	token, err := parseRefreshToken(refresh)
	if err != nil {
		t.Fatal(err)
	}
	k := key(token.userID(), token.sessionID())
	original, err := b.State.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*record){
		"another user":    func(r *record) { r.UserID = uuid.NewString() },
		"another session": func(r *record) { r.ID = uuid.NewString() },
		"spent in the time to come": func(r *record) {
			r.Current = hash([]byte("another"))
			later := b.clock.Now().Add(time.Hour)
			r.Recent = []rotation{{Spent: hash(token.secret[:]), Salt: make([]byte, 32), At: later}, {Spent: hash([]byte("a third")), Salt: make([]byte, 32), At: later}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var rec record
			if err := json.Unmarshal(original.Value, &rec); err != nil {
				t.Fatal(err)
			}
			change(&rec)
			value, err := json.Marshal(rec)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.State.Put(t.Context(), k, value, time.Hour); err != nil {
				t.Fatal(err)
			}
			if s, next, err := b.Renew(t.Context(), refresh, always); err == nil || next != "" {
				t.Errorf("it renews %+v", s)
			}
		})
	}
}

// Two replicas' clocks differ: what one has just spent, seems to come yet to the
// other, and has its successor all the same.
func TestGraceOnASlowerClock(t *testing.T) {
	b := newBench(t, nil)
	_, first := b.start(t)
	second := b.renew(t, first)
	b.clock.advance(-3 * time.Second)
	if again := b.renew(t, first); again != second {
		t.Error("another successor")
	}
}

func TestRenewalThatMayNotBeSpendsNothing(t *testing.T) {
	b := newBench(t, nil)
	started, refresh := b.start(t)
	for range 3 {
		_, _, err := b.Renew(t.Context(), refresh, func(_ context.Context, s Session) error {
			if !reflect.DeepEqual(s, started) {
				t.Errorf("asked about %+v", s)
			}
			return errFault
		})
		if !errors.Is(err, errFault) {
			t.Fatalf("Renew: %v", err)
		}
	}
	b.clock.advance(b.RenewGrace)
	b.renew(t, refresh)
}

// What a record that cannot be read was, nobody knows here: a later version may have
// written it. It locks nobody out, renews nothing, and ends like a session.
func TestARecordThatCannotBeRead(t *testing.T) {
	for name, garbage := range map[string]string{
		"garbage":          "\x00\xff",
		"nothing":          "",
		"a later version":  `{"id":{"v":2},"turn":"17"}`,
		"another's record": `{"id":"x","user_id":"y","turn":17}`,
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			b := newBench(t, func(c *Config) { c.MaxPerUser, c.Registerer = 2, registry })
			spoilt, refresh := b.start(t)
			k := key(b.user, spoilt.ID)
			if _, err := b.State.Put(t.Context(), k, []byte(garbage), time.Hour); err != nil {
				t.Fatal(err)
			}
			b.refused(t, refresh, ErrInvalid)

			// It counts as one, and as the oldest.
			second, _ := b.start(t)
			unread := Session{ID: spoilt.ID, UserID: b.user, Unreadable: true}
			if all, _, err := b.List(t.Context(), b.user, "", 100); err != nil || !reflect.DeepEqual(all, []Session{second, unread}) {
				t.Fatalf("listed are %+v, %v", all, err)
			}
			if got, err := b.Get(t.Context(), b.user, spoilt.ID); err != nil || !reflect.DeepEqual(got, unread) {
				t.Fatalf("got %+v, %v", got, err)
			}
			_, _, ended, err := b.Start(t.Context(), b.user, 0, "", "", nil)
			if err != nil || !reflect.DeepEqual(ended, []Session{unread}) {
				t.Fatalf("the third sign-in ended %+v, %v", ended, err)
			}
			// Until its tokens are revoked it is there to be found, and it has ended for
			// whoever could read it, too.
			if got, err := b.Get(t.Context(), b.user, spoilt.ID); err != nil || !got.Ended || got.Unreadable {
				t.Errorf("it is %+v, %v", got, err)
			}
			b.refused(t, refresh, ErrInvalid)
			families, err := registry.Gather()
			i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "watchword_session_unreadable_records_total" })
			if err != nil || i < 0 || families[i].GetMetric()[0].GetCounter().GetValue() != 1 {
				t.Errorf("counted was %v, %v, want one", families, err)
			}

			if _, err := b.State.Put(t.Context(), k, []byte(garbage), time.Hour); err != nil {
				t.Fatal(err)
			}
			if err := b.EndAll(t.Context(), b.user); err != nil {
				t.Fatal(err)
			}
			if all, _, err := b.List(t.Context(), b.user, "", 100); err != nil || len(all) != 0 {
				t.Errorf("left are %+v, %v", all, err)
			}
		})
	}
}
