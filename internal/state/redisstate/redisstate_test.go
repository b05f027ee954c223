package redisstate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
	"github.com/watchword-auth/watchword/internal/testenv"
)

var key = state.Key{Kind: "session", Owner: "user", ID: "id"}

func TestConformance(t *testing.T) {
	url := testenv.Redis(t)
	statetest.Run(t, "redis", func(t *testing.T) state.Store { return open(t, url) })
}

// The names are a promise to operators, and the owner is the hash tag of each.
func TestKeys(t *testing.T) {
	s := open(t, testenv.Redis(t))
	c := client(t, s)
	must(t)(s.Put(t.Context(), key, []byte("value"), time.Hour))
	must(t)(s.Limit(t.Context(), key, state.Rate{Burst: 1, Period: time.Hour}))
	names, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	want := []string{"rate:{user}:session:id", "session:{user}:id", "session_index:{user}"}
	if !slices.Equal(names, want) {
		t.Errorf("keys %q, want %q", names, want)
	}
	for _, name := range names { // nothing stays for ever
		ttl, err := c.Do(t.Context(), c.B().Pttl().Key(name).Build()).AsInt64()
		if err != nil || ttl <= 0 || ttl > time.Hour.Milliseconds() {
			t.Errorf("%s expires in %d ms, %v", name, ttl, err)
		}
	}
}

// What one installation keeps, counts and deletes is not another one's, though both have the
// same users, as after a copy.
func TestInstallationsApart(t *testing.T) {
	url := testenv.Redis(t)
	here, there, before := open(t, url), open(t, url), open(t, url)
	here.Installation, there.Installation = "here", "there"
	ctx, rate := t.Context(), state.Rate{Burst: 1, Period: time.Hour}
	for _, s := range []*redisstate.Store{here, there, before} {
		must(t)(s.Create(ctx, key, []byte(s.Installation), time.Hour))
		if d, err := s.Limit(ctx, key, rate); err != nil || !d.Allowed {
			t.Errorf("%q has no attempt of its own: %+v, %v", s.Installation, d, err)
		}
		if err := s.Copies(redisstate.Timeout).Write([]redisstate.Copy{{Record: state.Record{Key: key, Value: []byte(s.Installation), Expires: time.Now().Add(time.Hour), Version: 1}, Life: time.Hour}}); err != nil {
			t.Error(err)
		}
	}
	if n, err := here.DeleteOwned(ctx, key.Kind, key.Owner); n != 1 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	for _, s := range []*redisstate.Store{there, before} {
		r, err := s.Get(ctx, key)
		list, err2 := s.List(ctx, key.Kind, key.Owner, "", 10)
		copied, err3 := s.Copies(redisstate.Timeout).Get(key)
		if err := errors.Join(err, err2, err3); err != nil || string(r.Value) != s.Installation || len(list) != 1 || string(copied.Value) != s.Installation {
			t.Errorf("%q has %q, %d, the copy %q, %v", s.Installation, r.Value, len(list), copied.Value, err)
		}
	}
	c := client(t, here)
	names, err := c.Do(ctx, c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	want := []string{
		"copy:session:here:{user}:id", "copy:session:there:{user}:id", "copy:session:{user}:id",
		"rate:here:{user}:session:id", "rate:there:{user}:session:id", "rate:{user}:session:id",
		"session:there:{user}:id", "session:{user}:id", "session_index:there:{user}", "session_index:{user}",
	}
	if !slices.Equal(names, want) {
		t.Errorf("the names %q, want %q", names, want)
	}
}

// The index lets go of what has expired, and lives as long as its last record.
func TestIndex(t *testing.T) {
	ctx, s := t.Context(), open(t, testenv.Redis(t))
	c := client(t, s)
	for _, id := range []string{"a", "b", "c"} {
		must(t)(s.Put(ctx, state.Key{Kind: "session", Owner: "user", ID: id}, nil, 20*time.Millisecond))
	}
	must(t)(s.Put(ctx, key, nil, time.Hour))
	until(t, "expiry", func() bool {
		_, err := s.Get(ctx, state.Key{Kind: "session", Owner: "user", ID: "c"})
		return errors.Is(err, state.ErrNotFound)
	})
	pause(t, 2*time.Millisecond) // scores are compared by whole milliseconds
	must(t)(s.Put(ctx, state.Key{Kind: "session", Owner: "user", ID: "d"}, nil, time.Minute))
	n, err := c.Do(ctx, c.B().Zcard().Key("session_index:{user}").Build()).AsInt64()
	if err != nil || n != 2 {
		t.Errorf("the index has %d, %v, want 2", n, err)
	}
	ttl, err := c.Do(ctx, c.B().Pttl().Key("session_index:{user}").Build()).AsInt64()
	if err != nil || ttl < 59*time.Minute.Milliseconds() {
		t.Errorf("the index expires in %d ms, %v", ttl, err)
	}
}

// No operation walks all keys: each asks for its own by name.
func TestNoOperationWalksAllKeys(t *testing.T) {
	ctx, s := t.Context(), open(t, testenv.Redis(t))
	c := client(t, s)
	for i := range 1000 {
		must(t)(s.Put(ctx, state.Key{Kind: "session", Owner: fmt.Sprint("other", i), ID: "id"}, []byte("value"), time.Hour))
	}
	if err := c.Do(ctx, c.B().ConfigResetstat().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	version, err := s.Create(ctx, key, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	must(t)(s.Swap(ctx, key, version, nil, time.Hour))
	must(t)(s.Get(ctx, key))
	must(t)(s.List(ctx, key.Kind, key.Owner, "", state.MaxPage))
	must(t)(s.Take(ctx, key))
	must(t)(s.Put(ctx, key, nil, time.Hour))
	must(t)(s.DeleteOwned(ctx, key.Kind, key.Owner))
	must(t)(s.Limit(ctx, key, state.Rate{Burst: 1, Period: time.Hour}))
	must(t)(s.Sweep(ctx, 100))
	if err := errors.Join(s.Delete(ctx, key), s.Ping(ctx)); err != nil {
		t.Fatal(err)
	}
	stats, err := c.Do(ctx, c.B().Info().Section("commandstats").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	byName := strings.Fields("get getex mget getrange set del exists zadd zrem zrange zremrangebyscore pexpireat time" +
		" evalsha eval script|load role config|resetstat")
	calls := 0
	for line := range strings.Lines(stats) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok {
			continue
		}
		if !slices.Contains(byName, name) {
			t.Errorf("an operation uses %s", name)
		}
		number, _, _ := strings.Cut(rest, ",")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		calls += n
	}
	if calls < 20 || calls > 100 {
		t.Errorf("ten operations took %d commands\n%s", calls, stats)
	}
}

// A flush forgets records, but no version comes back with them.
func TestFlush(t *testing.T) {
	ctx, s := t.Context(), open(t, testenv.Redis(t))
	old, err := s.Put(ctx, key, []byte("old"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, s)
	if err := c.Do(ctx, c.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	must(t)(s.Put(ctx, key, []byte("new"), time.Hour))
	if _, err := s.Swap(ctx, key, old, nil, time.Hour); !errors.Is(err, state.ErrChanged) {
		t.Errorf("Swap with a version from before the flush: %v", err)
	}
	// Scripts that the server has forgotten are sent again.
	if err := c.Do(ctx, c.B().ScriptFlush().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	must(t)(s.Put(ctx, key, []byte("newer"), time.Hour))
}

// A server that hangs or is away is said to be so, within the time; a store that
// was opened before its server was there finds it.
func TestAway(t *testing.T) {
	t.Parallel()
	ctx, srv := t.Context(), testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	s := asServed(t, srv.URL)
	must(t)(open(t, srv.URL).Put(ctx, key, []byte("kept"), time.Hour))
	until(t, "the first connection", func() bool { return s.Ping(ctx) == nil })

	fails := func(what string, s *redisstate.Store) {
		t.Helper()
		var group sync.WaitGroup
		for name, call := range map[string]func() error{
			"Get":   func() error { _, err := s.Get(ctx, key); return err },
			"Swap":  func() error { _, err := s.Swap(ctx, key, 1, nil, time.Hour); return err },
			"Ping":  func() error { return s.Ping(ctx) },
			"Reset": func() error { return s.Reset(ctx, key) },
			"Limit": func() error { _, err := s.Limit(ctx, key, state.Rate{Burst: 1, Period: time.Hour}); return err },
		} {
			group.Go(func() {
				soon(t, what+": "+name, redisstate.Timeout+5*time.Second, func() {
					if err := call(); !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrNotFound) {
						t.Errorf("%s: %s: %v, want ErrUnavailable", what, name, err)
					}
				})
			})
		}
		group.Wait()
	}
	srv.Pause(t)
	fails("hangs", s)
	stuck := asServed(t, srv.URL)
	fails("hangs from the beginning", stuck)
	soon(t, "a caller who has 50 ms", redisstate.Timeout, func() {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := s.Get(short, key); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("a caller who has 50 ms: %v", err)
		}
	})
	srv.Resume(t)
	until(t, "the server that hung", func() bool { return s.Ping(ctx) == nil && stuck.Ping(ctx) == nil })

	srv.Stop()
	fails("away", s)
	early := asServed(t, srv.URL)
	fails("not there yet", early)
	srv.Start(t)
	for _, s := range []*redisstate.Store{s, early} {
		var r state.Record
		until(t, "the server that was away", func() (ok bool) {
			var err error
			r, err = s.Get(ctx, key)
			return err == nil
		})
		if string(r.Value) != "kept" {
			t.Errorf("the record is %q", r.Value)
		}
	}
}

func TestURL(t *testing.T) {
	for _, bad := range []string{"", "http://user:hunter2@host", "redis://:hunter2@host/x/y", "redis://:hunter2%@host", "redis://host/notanumber:hunter2"} {
		_, err := redisstate.Open(bad, nil)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	o, err := redisstate.ClientOption("rediss://u:p@a:1/3?addr=b:2&master_set=main")
	if err != nil || o.TLSConfig == nil || o.Sentinel.MasterSet != "main" || o.Sentinel.Password != "" || o.SelectDB != 3 || len(o.InitAddress) != 2 || o.Sentinel.TLSConfig == nil {
		t.Errorf("%+v, %v", o, err)
	}
}

// Check refuses a server that may throw sessions away.
func TestCheck(t *testing.T) {
	if err := open(t, testenv.Redis(t)).Check(t.Context()); err != nil {
		t.Errorf("noeviction: %v", err)
	}
	srv := testenv.StartRedis(t, "--maxmemory-policy", "allkeys-lru")
	if err := open(t, srv.URL).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "noeviction") {
		t.Errorf("allkeys-lru: %v", err)
	}
}

// open opens a store with more patience than in production.
func open(t testing.TB, url string) *redisstate.Store {
	t.Helper()
	s := asServed(t, url)
	s.Wait(time.Minute)
	return s
}

// asServed opens a store as it is in production.
func asServed(t testing.TB, url string) *redisstate.Store {
	t.Helper()
	s, err := redisstate.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func client(t testing.TB, s *redisstate.Store) rueidis.Client {
	t.Helper()
	c, err := s.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t testing.TB) func(_ any, err error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// soon does something again and again, should it last longer than most: the machine may
// have stood still, but not each time.
func soon(t *testing.T, what string, most time.Duration, do func()) {
	t.Helper()
	var took time.Duration
	for range 4 {
		begin := time.Now()
		do()
		if took = time.Since(begin); took <= most {
			return
		}
	}
	t.Errorf("%s takes %v", what, took)
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !condition(); pause(t, 2*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func pause(t *testing.T, d time.Duration) {
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}
