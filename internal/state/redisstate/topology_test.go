package redisstate_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Every operation's keys are on one node, and owners are spread over all.
func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := testenv.RedisCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	statetest.Run(t, "redis cluster", func(t *testing.T) state.Store { return open(t, nodes[0].URL) })

	ctx, s := t.Context(), open(t, nodes[0].URL)
	if err := s.Check(ctx); err != nil {
		t.Error(err)
	}
	var keys []state.Key
	for i := range 60 {
		key := state.Key{Kind: "session", Owner: fmt.Sprint("user", i), ID: "id"}
		must(t)(s.Put(ctx, key, []byte(key.Owner), time.Hour))
		keys = append(keys, key)
	}
	for address, node := range client(t, s).Nodes() {
		if n, err := node.Do(ctx, node.B().Dbsize().Build()).AsInt64(); err != nil || n < 10 {
			t.Errorf("%s has %d keys, %v", address, n, err)
		}
	}

	// Without one node, what it has is not said to be missing; and it comes back
	// with the node.
	there := client(t, s).Nodes()[nodes[0].Addr]
	away := slices.IndexFunc(keys, func(k state.Key) bool {
		n, err := there.Do(ctx, there.B().Exists().Key("session:{"+k.Owner+"}:id").Build()).AsInt64()
		return err == nil && n == 1
	})
	hasty := asServed(t, nodes[0].URL)
	until(t, "the first connection", func() bool { _, err := hasty.Get(ctx, keys[away]); return err == nil })
	nodes[0].Stop()
	if r, err := hasty.Get(ctx, keys[away]); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("without its node: %q, %v", r.Value, err)
	}
	nodes[0].Start(t)
	for _, key := range keys {
		until(t, "the node that was away", func() bool {
			r, err := s.Get(ctx, key)
			if err != nil && !errors.Is(err, state.ErrUnavailable) {
				t.Fatalf("%s: %v", key.Owner, err)
			}
			return err == nil && string(r.Value) == key.Owner
		})
	}
}

// The primary dies, or hangs, while many read and write. Callers get the right
// answer or ErrUnavailable, until its replica has taken over; what the replica had
// is there. What it had not is lost: doc.go says so. Then the old primary comes
// back, and nothing goes there any more.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]struct {
		lose, bring func(*testenv.Server, testing.TB)
	}{
		"dies":  {func(s *testenv.Server, _ testing.TB) { s.Stop() }, (*testenv.Server).Start},
		"hangs": {(*testenv.Server).Pause, (*testenv.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failover(t, way.lose, way.bring)
		})
	}
}

func failover(t *testing.T, lose, bring func(*testenv.Server, testing.TB)) {
	ctx, env := t.Context(), testenv.RedisSentinel(t)
	s, slow := asServed(t, env.URL), open(t, env.URL)
	c := client(t, slow)
	const kept = 50
	key := func(i int) state.Key { return state.Key{Kind: "session", Owner: fmt.Sprint("before", i), ID: "id"} }
	for i := range kept {
		must(t)(slow.Put(ctx, key(i), []byte("kept"), time.Hour))
	}
	until(t, "the replica", func() bool {
		n, err := c.Do(ctx, c.B().Wait().Numreplicas(1).Timeout(1000).Build()).AsInt64()
		return err == nil && n == 1
	})

	var users sync.WaitGroup
	var answered [16]atomic.Int64 // how many writes of each
	done := make(chan struct{})
	stop := sync.OnceFunc(func() { close(done); users.Wait() })
	defer stop()
	use := func(call func() error) {
		users.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(3 * time.Millisecond):
				}
				if err := call(); err != nil && !errors.Is(err, state.ErrUnavailable) {
					t.Error(err)
					return
				}
			}
		})
	}
	at := func(w, n int64) state.Key {
		return state.Key{Kind: "session", Owner: fmt.Sprint("w", w), ID: fmt.Sprint(n)}
	}
	for w := range answered {
		use(func() error {
			_, err := s.Put(ctx, at(int64(w), answered[w].Load()), []byte("x"), time.Hour)
			if err == nil {
				answered[w].Add(1)
			}
			return err
		})
	}
	var reads atomic.Int64
	for range 4 {
		use(func() error {
			r, err := s.Get(ctx, key(int(reads.Load())%kept))
			if err == nil {
				reads.Add(1)
				if string(r.Value) != "kept" {
					return fmt.Errorf("read %q", r.Value)
				}
			}
			return err
		})
	}
	now := func() (then [len(answered)]int64) {
		for w := range answered {
			then[w] = answered[w].Load()
		}
		return then
	}
	untilAllWrite := func(what string) {
		t.Helper()
		then, read := now(), reads.Load()
		until(t, what, func() bool {
			for w := range answered {
				if answered[w].Load() <= then[w]+5 {
					return false
				}
			}
			return reads.Load() > read+5
		})
	}
	untilAllWrite("writers and readers")
	begin := time.Now()
	lose(env.Primary, t)
	then := now() // and each may have been answered once more of which it has not told yet
	untilAllWrite("all to write again")
	t.Logf("all write again after %v", time.Since(begin).Round(time.Millisecond))
	bring(env.Primary, t)
	until(t, "the old primary to follow the new one", func() bool {
		return role(t, env.Primary) == "slave" && role(t, env.Replica) == "master"
	})
	untilAllWrite("all to write on")
	stop()

	total, lost := int64(0), 0
	for w := range int64(len(answered)) {
		for n := range answered[w].Load() {
			total++
			switch _, err := slow.Get(ctx, at(w, n)); {
			case errors.Is(err, state.ErrNotFound) && n <= then[w]:
				lost++
			case err != nil:
				t.Errorf("write %d of %d, which was answered after the failover: %v", n, w, err)
			}
		}
	}
	t.Logf("%d of %d writes that were answered are lost", lost, total)
}

// role is what a server thinks that it is, or nothing.
func role(t *testing.T, s *testenv.Server) string {
	o := rueidis.MustParseURL(s.URL)
	o.ForceSingleClient, o.DisableCache = true, true
	c, err := rueidis.NewClient(o)
	if err != nil {
		return ""
	}
	defer c.Close()
	info, err := c.Do(t.Context(), c.B().Info().Section("replication").Build()).ToString()
	if err != nil {
		return ""
	}
	_, role, _ := strings.Cut(info, "role:")
	role, _, _ = strings.Cut(role, "\r")
	return role
}

// Sentinel has credentials of its own, and is not shown those of Redis.
func TestSentinelPassword(t *testing.T) {
	env := testenv.RedisSentinel(t)
	if err := open(t, env.URL).Ping(t.Context()); err != nil {
		t.Errorf("with the password: %v", err)
	}
	without, _, _ := strings.Cut(env.URL, "&sentinel_password=")
	for _, url := range []string{without, without + "&sentinel_password=wrong", without + "&sentinel_username=nobody&sentinel_password=wrong"} {
		err := open(t, url).Ping(t.Context())
		if !errors.Is(err, state.ErrUnavailable) || !(strings.Contains(err.Error(), "NOAUTH") || strings.Contains(err.Error(), "WRONGPASS")) {
			t.Errorf("%v, want that it was refused", err)
		}
	}
	o, err := redisstate.ClientOption("redis://u:p@a/0?master_set=main&sentinel_username=su&sentinel_password=s%26p")
	if err != nil || o.Username != "u" || o.Password != "p" || o.Sentinel.Username != "su" || o.Sentinel.Password != "s&p" {
		t.Errorf("%q %q %q %q, %v", o.Username, o.Password, o.Sentinel.Username, o.Sentinel.Password, err)
	}
}
