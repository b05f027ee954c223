package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A replica is one of several over one PostgreSQL and one Redis.
type replica struct {
	*session.Store
	tier  *tiered.Store
	view  *revocation.View
	log   *revocation.Log
	users store.Store
	reads *counting
}

// counting counts the sessions that are read in the database.
type counting struct {
	state.Store
	gets atomic.Int64
}

func (c *counting) Get(ctx context.Context, key state.Key) (state.Record, error) {
	c.gets.Add(1)
	return c.Store.Get(ctx, key)
}

// newReplica opens a replica, which waits for Redis no longer than timeout.
func newReplica(t testing.TB, sql, redis string, timeout time.Duration) *replica {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: sql, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	fast, err := redisstate.Open(redis, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fast.Close() })
	logger := slog.New(slog.DiscardHandler)
	r := &replica{users: sqlstore.New(db), reads: &counting{Store: sqlstate.New(db, time.Now)}}
	r.tier = tiered.New(tiered.Config{
		Truth: r.reads, Redis: fast.Copies(timeout), Kind: session.Kind, Secret: []byte("the cluster's secret"),
		Log: func() string { return r.view.LogID() }, Margin: 5 * time.Second, Now: time.Now, Logger: logger,
	})
	t.Cleanup(func() { r.tier.Close() })
	// However slow the machine is, the view is fresh: what is tested is what it lists.
	r.view, err = revocation.NewView(revocation.Config{Store: r.users, Poll: 20 * time.Millisecond, MaxStaleness: time.Minute, Now: time.Now, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); r.view.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := r.view.Wait(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	r.log = &revocation.Log{Store: r.users, View: r.view, Now: time.Now}
	r.Store = session.New(session.Config{
		State: r.tier, TTL: 24 * time.Hour, RefreshDuration: 24 * time.Hour, RenewGrace: time.Minute,
		Revoked: r.view.SessionRevoked, Clear: r.clear, Now: time.Now, Rand: rand.Reader, Logger: logger,
	})
	return r
}

// clear is as package app has it.
func (r *replica) clear(s session.Session) bool {
	return r.view.Clears(&accesstoken.Token{Subject: s.UserID, SessionID: s.ID, Epoch: s.Epoch, IssuedAt: s.CreatedAt})
}

// may is as package login has it.
func (r *replica) may(ctx context.Context, s session.Session) error {
	user, err := r.users.User(ctx, s.UserID)
	if err != nil {
		return err
	}
	if s.Epoch < user.SessionEpoch {
		return session.ErrInvalid
	}
	return r.view.Check(ctx, &accesstoken.Token{Subject: user.ID, SessionID: s.ID, Epoch: user.Epoch, IssuedAt: time.Now()})
}

// recogniseBy recognises a session by its cookie, or by its id if it has none.
func (r *replica) recogniseBy(ctx context.Context, cookie string, s session.Session) error {
	if cookie == "" {
		return r.recognise(ctx, s)
	}
	_, err := r.RecogniseCookie(ctx, cookie, r.may)
	return err
}

func (r *replica) recognise(ctx context.Context, s session.Session) error {
	_, err := r.Recognise(ctx, s.UserID, s.ID, r.may)
	return err
}

// end ends a session as package login does: by its id, or with everything of its user;
// then the record may stay. It returns the number of the entry in the log.
func (r *replica) end(ctx context.Context, s session.Session, user, stays bool) (seq int64, err error) {
	entry := store.Revocation{Kind: string(revoked.Session), Subject: s.ID, ExpiresAt: time.Now().Add(time.Hour)}
	if !user {
		if err := r.Stop(ctx, s.UserID, s.ID); err != nil {
			return 0, err
		}
		if seq, err = r.log.Revoke(ctx, entry); err != nil {
			return 0, err
		}
		return seq, r.End(ctx, s.UserID, s.ID)
	}
	err = r.users.Update(ctx, func(records store.Records) (err error) {
		entry.Kind, entry.Subject = string(revoked.User), s.UserID
		if entry.Epoch, err = records.NextEpoch(ctx, s.UserID, true); err != nil {
			return err
		}
		seq, err = r.log.Append(ctx, records, entry)
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := r.log.Settle(ctx, seq); err != nil || stays {
		return seq, err
	}
	return seq, r.EndAll(ctx, s.UserID)
}

// start begins a session of a new user.
func (r *replica) start(t testing.TB) (session.Session, string) {
	t.Helper()
	id := uuid.NewString()
	if err := r.users.CreateUser(t.Context(), store.User{ID: id, Username: id, NameKey: id, CreatedAt: time.Now(), UpdatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	s, refresh, _, err := r.Start(t.Context(), id, 0, "192.0.2.1", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, refresh
}

// Sessions are renewed, recognised and ended on three replicas, while Redis is flushed,
// stopped and started, and somebody writes there what was there before. A session that
// has ended is never recognised on a replica whose view has the entry, and until a
// session begins to end it is recognised. Some of the sessions are browsers'.
func TestAnEndedSessionIsNeverRecognised(t *testing.T) {
	sessions := 24
	if os.Getenv("WATCHWORD_SOAK") != "" {
		sessions = 400
	}
	redis := testenv.StartRedis(t)
	sql := testenv.Postgres(t)
	var replicas [3]*replica
	for i := range replicas {
		replicas[i] = newReplica(t, sql, redis.URL, tiered.Timeout)
	}
	ctx := t.Context()

	type subject struct {
		session.Session
		refresh string
		cookie  string // of a browser's; then there is no refresh token
		ending  atomic.Bool
		known   [len(replicas)]atomic.Bool // the view of the replica has the entry
	}
	subjects := make([]*subject, sessions)
	for i := range subjects {
		subjects[i] = &subject{}
		if r := replicas[i%len(replicas)]; i/2%2 == 1 {
			subjects[i].Session, subjects[i].cookie = r.startBrowser(t)
		} else {
			subjects[i].Session, subjects[i].refresh = r.start(t)
		}
	}
	var recognised, refused atomic.Int64
	var work, background sync.WaitGroup
	over := make(chan struct{})
	until := func(f func(round int)) {
		background.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-over:
					return
				default:
					f(round)
				}
			}
		})
	}

	for i, r := range replicas {
		until(func(round int) { // looks
			s := subjects[round%sessions]
			known := s.known[i].Load()
			err := r.recogniseBy(ctx, s.cookie, s.Session)
			switch ended := s.ending.Load(); {
			case err == nil && known:
				t.Errorf("replica %d recognises session %d, which has ended", i, round%sessions)
			case err == nil:
				recognised.Add(1)
			case !ended:
				t.Errorf("replica %d does not recognise session %d: %v", i, round%sessions, err)
			default:
				refused.Add(1)
			}
		})
	}
	until(func(round int) { // renews
		s := subjects[round%sessions]
		if s.cookie != "" {
			return
		}
		_, next, err := replicas[round%len(replicas)].Renew(ctx, s.refresh, func(context.Context, session.Session) error { return nil })
		switch {
		case err == nil:
			s.refresh = next
		case !s.ending.Load() && !errors.Is(err, session.ErrTooFast):
			t.Errorf("session %d: %v", round%sessions, err)
		}
	})
	attacker := newAttacker(t, redis.URL)
	until(func(round int) { attacker.act(ctx, round) })

	for i, s := range subjects {
		work.Go(func() {
			at := i % len(replicas)
			s.ending.Store(true)
			seq, err := replicas[at].end(ctx, s.Session, i%4 == 1, i%8 == 1)
			if err != nil {
				t.Errorf("ending session %d: %v", i, err)
				return
			}
			s.known[at].Store(true)
			for j, r := range replicas {
				if err := r.view.Wait(ctx, seq); err != nil {
					t.Error(err)
				}
				s.known[j].Store(true)
			}
		})
		if i%6 == 5 { // a few at once, and between them all is looked at
			work.Wait()
			for n := recognised.Load() + refused.Load(); recognised.Load()+refused.Load() < n+int64(2*sessions); {
				time.Sleep(time.Millisecond)
			}
		}
		if i == sessions/3 {
			redis.Stop()
		}
		if i == 2*sessions/3 {
			redis.Start(t)
		}
	}
	work.Wait()
	close(over)
	background.Wait()
	t.Logf("%d times recognised, %d times refused; %d old copies written", recognised.Load(), refused.Load(), attacker.wrote)
	if recognised.Load() == 0 || refused.Load() == 0 || attacker.wrote == 0 {
		t.Error("nothing was tested")
	}
	for i, r := range replicas {
		for j, s := range subjects {
			if err := r.recogniseBy(ctx, s.cookie, s.Session); err == nil {
				t.Errorf("replica %d recognises session %d in the end", i, j)
			}
		}
	}
}

// An attacker can read and write Redis.
type attacker struct {
	client rueidis.Client
	before map[string]string // what was there once
	wrote  int
}

func newAttacker(t *testing.T, url string) *attacker {
	t.Helper()
	options, err := redisstate.ClientOption(url)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &attacker{client: client, before: map[string]string{}}
}

// act notes what is there, and writes what was there before: under its own key,
// without an end, and under another one's. Now and then it deletes everything. Redis
// may be away.
func (a *attacker) act(ctx context.Context, round int) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c := a.client
	set := func(key, value string) {
		if c.Do(ctx, c.B().Set().Key(key).Value(value).Build()).Error() == nil {
			a.wrote++
		}
	}
	last := ""
	for key, copied := range a.before {
		set(key, copied)
		if last != "" && round%5 == 1 {
			set(key, last)
		}
		last = copied
	}
	if round%7 == 6 {
		_ = c.Do(ctx, c.B().Flushall().Build()).Error()
	}
	keys, _ := c.Do(ctx, c.B().Keys().Pattern("copy:*").Build()).AsStrSlice()
	for _, key := range keys {
		if copied, err := c.Do(ctx, c.B().Get().Key(key).Build()).ToString(); err == nil && round%3 == 0 {
			a.before[key] = copied
		}
	}
}

// Somebody writes back the copy of a session that has ended since. It is genuine, and
// has not come to its end; the view refuses it alone. So it is with the copy under
// another session's name, which its MAC refuses.
func TestAnOldCopyIsWrittenBack(t *testing.T) {
	redis, sql := testenv.Redis(t), testenv.Postgres(t)
	replicas := []*replica{newReplica(t, sql, redis, time.Minute), newReplica(t, sql, redis, time.Minute)}
	attacker, ctx := newAttacker(t, redis), t.Context()
	for _, how := range []struct {
		name        string
		user, stays bool
	}{{"by its id", false, false}, {"with its user", true, false}, {"with its user, and the record stays", true, true}} {
		t.Run(how.name, func(t *testing.T) {
			s, _ := replicas[0].start(t)
			other, _ := replicas[0].start(t)
			key := state.Key{Kind: session.Kind, Owner: s.UserID, ID: s.ID}
			name := func(s session.Session) string { return fmt.Sprintf("copy:session:{%s}:%s", s.UserID, s.ID) }
			if err := replicas[0].tier.Close(); err != nil { // it waits for the copies
				t.Fatal(err)
			}
			copied, err := attacker.client.Do(ctx, attacker.client.B().Get().Key(name(s)).Build()).ToString()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range replicas {
				gets := r.reads.gets.Load()
				if err := r.recognise(ctx, s); err != nil || r.reads.gets.Load() != gets {
					t.Fatalf("%v; it was read in the database: %v", err, r.reads.gets.Load() != gets)
				}
			}
			seq, err := replicas[0].end(ctx, s, how.user, how.stays)
			if err != nil {
				t.Fatal(err)
			}
			if err := replicas[1].view.Wait(ctx, seq); err != nil {
				t.Fatal(err)
			}
			for _, r := range replicas {
				if err := r.tier.Close(); err != nil {
					t.Fatal(err)
				}
				set := attacker.client.B().Set().Key(name(s)).Value(copied).Build()
				if err := attacker.client.Do(ctx, set).Error(); err != nil {
					t.Fatal(err)
				}
				if _, found := r.tier.Copy(key); !found {
					t.Fatal("the copy is not believed, so that nothing is tested")
				}
				if err := r.recognise(ctx, s); err == nil {
					t.Error("the session is recognised")
				}
				set = attacker.client.B().Set().Key(name(other)).Value(copied).Build()
				if err := attacker.client.Do(ctx, set).Error(); err != nil {
					t.Fatal(err)
				}
				if _, found := r.tier.Copy(state.Key{Kind: session.Kind, Owner: other.UserID, ID: other.ID}); found {
					t.Error("one session's copy is another's")
				}
				if err := r.recognise(ctx, other); err != nil {
					t.Errorf("the other session: %v", err)
				}
			}
		})
	}
}

// Ten recognitions for each renewal, over three replicas: nine of ten find a copy, and
// the database is asked for a fifth of the sessions, or for less.
func TestRecognitionsFindCopies(t *testing.T) {
	const sessions, rounds, looks = 20, 5, 10
	redis, sql := testenv.Redis(t), testenv.Postgres(t)
	var replicas [3]*replica
	for i := range replicas {
		replicas[i] = newReplica(t, sql, redis, time.Minute)
	}
	var subjects [sessions]struct {
		session.Session
		refresh string
	}
	for i := range subjects {
		subjects[i].Session, subjects[i].refresh = replicas[i%3].start(t)
	}
	count := func() (gets int64) {
		for _, r := range replicas {
			gets += r.reads.gets.Load()
		}
		return gets
	}
	before, missed := count(), int64(0)
	for round := range rounds {
		for _, r := range replicas { // a person is slower than a copy is under way
			if err := r.tier.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range subjects {
			s := &subjects[i]
			asked := count()
			for look := range looks {
				if err := replicas[(i+look)%3].recognise(t.Context(), s.Session); err != nil {
					t.Fatal(err)
				}
			}
			missed += count() - asked
			var err error
			if _, s.refresh, err = replicas[(i+round)%3].Renew(t.Context(), s.refresh, func(context.Context, session.Session) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	asked := count() - before
	without := int64(sessions * rounds * (looks + 1)) // a renewal reads the record, too
	hits := 100 - 100*float64(missed)/(sessions*rounds*looks)
	t.Logf("%.1f %% hits; sessions read in the database: %d, without copies %d", hits, asked, without)
	if hits < 90 || 5*asked > without {
		t.Error("that is too few hits, or too much for the database")
	}
}
