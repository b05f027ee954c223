package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// This file asks the same as tiered_test.go of real servers: Redis in front of
// PostgreSQL, two replicas, and a proxy before each server.

// A site is two replicas, each with its own way to either server.
type site struct {
	redis, sql [2]*proxy
	wires      [2]*wire
	durables   [2]*flaky
	stores     [2]*tiered.Store
	truth      *sqlstate.Store // SQL without a proxy
}

// A wire is told of what is asked of Redis, before it is.
type wire struct {
	tiered.Fast
	tell atomic.Pointer[func(op string)]
}

func (w *wire) told(op string) {
	if tell := w.tell.Load(); tell != nil {
		(*tell)(op)
	}
}

func (w *wire) CacheRead(ctx context.Context, generation string, key state.Key, token string, hold time.Duration) (state.Record, redisstate.Entry, error) {
	w.told("CacheRead")
	return w.Fast.CacheRead(ctx, generation, key, token, hold)
}

func (w *wire) CacheFill(ctx context.Context, generation, token string, r state.Record, ttl time.Duration) error {
	w.told("CacheFill")
	return w.Fast.CacheFill(ctx, generation, token, r, ttl)
}

func (w *wire) CacheMark(ctx context.Context, generation string, key state.Key, token string, hold time.Duration) error {
	w.told("CacheMark")
	return w.Fast.CacheMark(ctx, generation, key, token, hold)
}

func (w *wire) CacheClear(ctx context.Context, generation string, key state.Key, token string) error {
	w.told("CacheClear")
	return w.Fast.CacheClear(ctx, generation, key, token)
}

// newSite opens replicas on a Redis, with so many connections to the database each.
func newSite(t *testing.T, redis string, connections int, open func(tiered.Fast, tiered.Durable) *tiered.Store) *site {
	t.Helper()
	s := &site{}
	sql := testenv.Postgres(t)
	s.truth = openSQL(t, sql, 2)
	for i := range s.stores {
		var redisURL, sqlURL string
		s.redis[i], redisURL = through(t, redis)
		s.sql[i], sqlURL = through(t, sql)
		fast, err := redisstate.Open(redisURL)
		check(t, err)
		t.Cleanup(func() { fast.Close() })
		s.wires[i] = &wire{Fast: fast}
		s.durables[i] = &flaky{Durable: openSQL(t, sqlURL, connections)}
		s.stores[i] = open(s.wires[i], s.durables[i])
	}
	return s
}

func openSQL(t *testing.T, url string, connections int) *sqlstate.Store {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, MaxConnections: connections, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute})
	check(t, err)
	t.Cleanup(func() { db.Close() })
	_, err = db.Migrate(t.Context())
	check(t, err)
	return sqlstate.New(db, time.Now)
}

// heal ends all faults and waits until both replicas read copies.
func (s *site) heal(t *testing.T) {
	t.Helper()
	for i := range s.stores {
		s.redis[i].mode.Store(pass)
		s.sql[i].mode.Store(pass)
		s.wires[i].tell.Store(nil)
		s.durables[i].heal()
	}
	for _, store := range s.stores {
		untilReads(t, store)
	}
}

// old makes the record "old", of which both replicas read a copy.
func (s *site) old(t *testing.T) *house {
	t.Helper()
	s.heal(t)
	h := &house{stores: s.stores, key: state.Key{Kind: "test", Owner: "owner", ID: fmt.Sprint("id", time.Now().UnixNano())}}
	// The database has each statement prepared, so that an answer lost is that of
	// the statement itself.
	for _, write := range writes {
		var err error
		h.version, err = s.stores[0].Put(t.Context(), h.key, []byte("warm"), time.Hour)
		check(t, err)
		check(t, write.run(t.Context(), s.stores[0], h))
	}
	var err error
	h.version, err = s.stores[0].Put(t.Context(), h.key, []byte("old"), time.Hour)
	check(t, err)
	for i := range s.stores {
		until(t, "a read from the copy", func() bool {
			h.want(t, "old")
			gets := s.durables[i].gets.Load()
			return h.read(t, i) == "old" && s.durables[i].gets.Load() == gets
		})
	}
	return h
}

// TestRealRedisFails is TestRedisFails.
func TestRealRedisFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, testenv.Redis(t), 10, replica)
	names := []string{"Put"}
	if soak() {
		names = []string{"Put", "Take"}
	}
	for _, name := range names {
		for op, writer := range map[string]int{"CacheMark": 0, "CacheClear": 0, "CacheRead": 1, "CacheFill": 1} {
			if name == "Take" && op == "CacheFill" {
				continue // it leaves nothing to fill in
			}
			for mode, way := range map[int32]string{refuse: "before", swallow: "after"} {
				t.Run(fmt.Sprint(name, op, way), func(t *testing.T) {
					h := s.old(t)
					var failed atomic.Bool
					tell := func(o string) {
						if o == op {
							failed.Store(true)
							s.redis[0].mode.Store(mode)
						}
					}
					s.wires[0].tell.Store(&tell)
					check(t, writes[name].run(t.Context(), s.stores[writer], h))
					h.want(t, writes[name].leaves)
					until(t, "the fault", func() bool {
						h.want(t, writes[name].leaves)
						return failed.Load()
					})
					s.heal(t)
					h.want(t, writes[name].leaves)
				})
			}
		}
	}
}

// TestRealSQLFails is TestSQLFails. The one connection that each replica has is
// lost with the request, or with the answer.
func TestRealSQLFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, testenv.Redis(t), 1, replica)
	for name, write := range writes {
		if !soak() && name != "Put" && name != "Take" {
			continue // TestSQLFails has all
		}
		for mode, way := range map[int32]string{refuse: "before", swallow: "after"} {
			t.Run(fmt.Sprint(name, way), func(t *testing.T) {
				h := s.old(t)
				s.durables[0].inject(func(op string, key state.Key) fault {
					if key == h.key && op != "Get" {
						if op == "Take" {
							s.sql[0].spare.Store(1) // it reads before it writes
						}
						s.sql[0].mode.Store(mode)
					}
					return none
				})
				err := write.run(t.Context(), s.stores[0], h)
				s.sql[0].mode.Store(pass)
				s.sql[0].spare.Store(0)
				if !errors.Is(err, state.ErrUnavailable) {
					t.Fatalf("the write failed with %v", err)
				}
				want := "old"
				if mode == swallow {
					want = write.leaves
				}
				switch r, err := s.truth.Get(t.Context(), h.key); {
				case err != nil && !errors.Is(err, state.ErrNotFound):
					t.Fatal(err)
				case string(r.Value) != want:
					t.Fatalf("SQL has %q, want %q", r.Value, want)
				}
				h.want(t, want)
				s.heal(t)
				h.want(t, want)
			})
		}
	}
}

// The primary dies, and its replica takes over. Nobody is answered with an error,
// and nobody reads what is old.
func TestRealFailover(t *testing.T) {
	t.Parallel()
	env := testenv.RedisSentinel(t)
	s := newSite(t, env.URL, 10, replica)
	s.heal(t)
	var users sync.WaitGroup
	done := make(chan struct{})
	for u := range 8 {
		key := state.Key{Kind: "test", Owner: "owner", ID: fmt.Sprint("id", u)}
		users.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-time.After(2 * time.Millisecond):
				}
				value := fmt.Sprint(n)
				if _, err := s.stores[u%2].Put(t.Context(), key, []byte(value), time.Hour); err != nil {
					t.Errorf("Put: %v", err)
				}
				for _, store := range s.stores {
					if r, err := store.Get(t.Context(), key); err != nil || string(r.Value) != value {
						t.Errorf("read %q, %v, after %q had been answered", r.Value, err, value)
					}
				}
			}
		})
	}
	defer func() { close(done); users.Wait() }()
	env.Primary.Stop()
	for _, store := range s.stores {
		until(t, "the end of copies", func() bool { return !store.Reads() })
	}
	for _, store := range s.stores {
		until(t, "copies from the new primary", store.Reads)
	}
}

// The node of a Redis Cluster that has the copies dies, and comes back. Nobody is
// answered with an error or reads what is old, and copies are read meanwhile from
// the nodes that are left.
func TestClusterNodeDies(t *testing.T) {
	t.Parallel()
	nodes := testenv.RedisCluster(t, "--cluster-require-full-coverage", "no")
	durable := openSQL(t, testenv.Postgres(t), 10)
	var stores [2]*tiered.Store
	for i := range stores {
		stores[i] = replica(openRedis(t, nodes[0].URL), durable)
		untilReads(t, stores[i])
	}
	key, n := state.Key{Kind: "test", Owner: "owner", ID: "id"}, 0
	read := func() {
		t.Helper()
		for _, s := range stores {
			r, err := s.Get(t.Context(), key)
			if err != nil || string(r.Value) != fmt.Sprint(n) {
				t.Fatalf("read %q, %v, after %d had been answered", r.Value, err, n)
			}
		}
	}
	round := func() {
		t.Helper()
		n++
		_, err := stores[n%2].Put(t.Context(), key, fmt.Append(nil, n), time.Hour)
		check(t, err)
		read()
	}
	client, err := openRedis(t, nodes[0].URL).Client(t.Context())
	check(t, err)
	var holder *testenv.Server
	until(t, "copies", func() bool {
		round()
		for _, node := range nodes {
			c := client.Nodes()[node.Addr]
			keys, err := c.Do(t.Context(), c.B().Dbsize().Build()).AsInt64()
			check(t, err)
			if keys > 0 {
				holder = node
			}
		}
		return holder != nil
	})
	for _, s := range stores {
		untilReads(t, s)
	}
	holder.Stop()
	read()
	for _, s := range stores {
		until(t, "the end of copies", func() bool { round(); return !s.Reads() })
	}
	for _, s := range stores {
		until(t, "copies on another node", func() bool { round(); return s.Reads() })
	}
	holder.Start(t)
	for range 20 {
		round()
	}
}

// Redis takes two seconds for every answer. Nobody waits that long; nearly nobody
// notices; nobody reads what is old; and then all is as before. It measures, and so it
// runs only with WATCHWORD_SOAK: TestRealRedis has a server that hangs.
func TestSlowRedis(t *testing.T) {
	if !soak() {
		return
	}
	s := newSite(t, testenv.Redis(t), 10, func(fast tiered.Fast, durable tiered.Durable) *tiered.Store {
		store := patient(fast, durable)
		store.Hasten(500*time.Millisecond, time.Second) // the lease as it is, and a shorter rest
		return store
	})
	s.heal(t)
	type call struct {
		what string
		took time.Duration
	}
	var (
		mu    sync.Mutex
		calls []call
		users sync.WaitGroup
		done  = make(chan struct{})
	)
	for u := range 16 {
		key := state.Key{Kind: "test", Owner: "owner", ID: fmt.Sprint("id", u)}
		users.Go(func() {
			measure := func(what string, do func() error) {
				begin := time.Now()
				if err := do(); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				mu.Lock()
				defer mu.Unlock()
				calls = append(calls, call{what, time.Since(begin)})
			}
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
				value := fmt.Sprint(n)
				measure("Put", func() error {
					_, err := s.stores[u%2].Put(t.Context(), key, []byte(value), time.Hour)
					return err
				})
				for i := range 4 {
					measure("Get", func() error {
						r, err := s.stores[i%2].Get(t.Context(), key)
						if err == nil && string(r.Value) != value {
							err = fmt.Errorf("read %q after %q had been answered", r.Value, value)
						}
						return err
					})
				}
				measure("Limit", func() error {
					_, err := s.stores[u%2].Limit(t.Context(), key, state.Rate{Burst: 100, Period: time.Second})
					return err
				})
			}
		})
	}
	defer func() { close(done); users.Wait() }()
	kinds := []string{"Get", "Put", "Limit"}
	took := func(what string) (list []time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range calls {
			if c.what == what {
				list = append(list, c.took)
			}
		}
		slices.Sort(list)
		return list
	}
	// phase measures for a while and until there is enough to see.
	phase := func(name string, lasts time.Duration) map[string][]time.Duration {
		t.Helper()
		mu.Lock()
		calls = nil
		mu.Unlock()
		pause(lasts)
		for _, what := range kinds {
			until(t, "200 calls of "+what, func() bool { return len(took(what)) >= 200 })
		}
		lists := map[string][]time.Duration{}
		for _, what := range kinds {
			list := took(what)
			lists[what] = list
			t.Logf("%s: %s: %d calls, median %v, p99 %v, longest %v",
				name, what, len(list), list[len(list)/2], list[len(list)*99/100], list[len(list)-1])
		}
		return lists
	}
	// wrong says what is wrong with what was measured. Beyond what is allowed to last,
	// calls may be as late as the machine makes them.
	wrong := func(before, meanwhile, after map[string][]time.Duration) (all []string) {
		var noise time.Duration
		for _, what := range kinds {
			noise = max(noise, slices.Max(before[what]), slices.Max(after[what]))
		}
		for _, what := range kinds {
			list := meanwhile[what]
			late := len(list) - sort.Search(len(list), func(i int) bool { return list[i] > 200*time.Millisecond+noise })
			if slices.Max(list) > 1400*time.Millisecond+5*noise || late > len(list)/10 {
				all = append(all, fmt.Sprintf("%s waits for Redis: %d of %d calls are late, the longest takes %v; %v is what the machine may take",
					what, late, len(list), slices.Max(list), noise))
			}
		}
		return all
	}
	var found []string
	for range 4 { // the machine may stand still, but not each time
		before := phase("well", time.Second)
		for _, p := range s.redis {
			p.mode.Store(slow)
		}
		meanwhile := phase("slow", 4*time.Second)
		for _, p := range s.redis {
			p.mode.Store(pass)
		}
		for _, store := range s.stores {
			until(t, "reading from redis", store.Reads)
		}
		if found = wrong(before, meanwhile, phase("well again", time.Second)); found == nil {
			return
		}
	}
	for _, complaint := range found {
		t.Error(complaint)
	}
}
