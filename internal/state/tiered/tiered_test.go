package tiered_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/testenv"
)

const (
	lease = 100 * time.Millisecond
	rest  = 150 * time.Millisecond
)

// TestMain runs many tests at once: what they do is wait.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "8")
	m.Run()
}

// soak reports whether WATCHWORD_SOAK asks for the long form of what is repeated.
func soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// The databases themselves are held to it by package sqlstate.
func TestConformance(t *testing.T) {
	t.Parallel()
	conform(t, "tiered, redis in front of postgres", testenv.Postgres(t))
	if soak() {
		conform(t, "tiered, redis in front of mariadb", testenv.MariaDB(t))
		conform(t, "tiered, redis in front of sqlite", "sqlite:"+filepath.Join(t.TempDir(), "watchword.db"))
	}
}

func TestConformanceCluster(t *testing.T) {
	t.Parallel()
	conformOn(t, "tiered, a redis cluster in front of postgres", testenv.RedisCluster(t)[0].URL, testenv.Postgres(t))
}

func conform(t *testing.T, name, sql string) {
	conformOn(t, name, testenv.Redis(t), sql)
}

func conformOn(t *testing.T, name, redis, sql string) {
	durable := openSQL(t, sql, 10)
	statetest.Run(t, name, func(t *testing.T) state.Store {
		s := replica(openRedis(t, redis), durable)
		untilReads(t, s)
		return s
	})
}

func TestConformanceRedisAway(t *testing.T) {
	t.Parallel()
	durable := memstate.New(time.Now)
	statetest.Run(t, "tiered, redis away", func(t *testing.T) state.Store {
		l := newLink(newServer("x"))
		l.cut()
		return replica(l, durable)
	})
}

// A house is two replicas that read copies of one record, "old".
type house struct {
	durable *flaky
	server  *server
	links   [2]*link
	stores  [2]*tiered.Store
	key     state.Key
	version int64
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{
		durable: &flaky{Durable: memstate.New(time.Now)},
		server:  newServer("x"),
		key:     state.Key{Kind: "test", Owner: "owner", ID: "id"},
	}
	for i := range h.stores {
		h.links[i] = newLink(h.server)
		h.stores[i] = replica(h.links[i], h.durable)
		untilReads(t, h.stores[i])
	}
	var err error
	h.version, err = h.stores[0].Put(t.Context(), h.key, []byte("old"), time.Hour)
	check(t, err)
	for _, l := range h.links {
		before := l.hits.Load()
		until(t, "a read from the copy", func() bool {
			h.want(t, "old")
			return l.hits.Load() > before
		})
	}
	return h
}

// want reads on both replicas. Nothing: "".
func (h *house) want(t *testing.T, value string) {
	t.Helper()
	for i := range h.stores {
		if got := h.read(t, i); got != value {
			t.Fatalf("replica %d reads %q, want %q", i, got, value)
		}
	}
}

func (h *house) read(t *testing.T, i int) string {
	t.Helper()
	r, err := h.stores[i].Get(t.Context(), h.key)
	if errors.Is(err, state.ErrNotFound) {
		return ""
	}
	check(t, err)
	return string(r.Value)
}

// control is what the control record says.
func (h *house) control(t *testing.T) string {
	t.Helper()
	r, err := h.durable.Get(t.Context(), state.Key{Kind: "tier_control", Owner: "cluster", ID: "cache"})
	check(t, err)
	return string(r.Value)
}

// readers read numbers on both replicas, none lower than what was answered, until
// the function that it returns is called.
func (h *house) readers(t *testing.T, answered *atomic.Int64) (stop func()) {
	var group sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				least := answered.Load()
				r, err := h.stores[i%2].Get(t.Context(), h.key)
				var n int64
				fmt.Sscan(string(r.Value), &n)
				if err != nil || n < least {
					t.Errorf("read %q, %v, after %d had been answered", r.Value, err, least)
					return
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { close(done); group.Wait() })
	t.Cleanup(stop)
	return stop
}

var writes = map[string]struct {
	leaves string
	run    func(ctx context.Context, s state.Store, h *house) error
}{
	"Put": {"new", func(ctx context.Context, s state.Store, h *house) error {
		_, err := s.Put(ctx, h.key, []byte("new"), time.Hour)
		return err
	}},
	"Swap": {"new", func(ctx context.Context, s state.Store, h *house) error {
		_, err := s.Swap(ctx, h.key, h.version, []byte("new"), time.Hour)
		return err
	}},
	"Take": {"", func(ctx context.Context, s state.Store, h *house) error {
		_, err := s.Take(ctx, h.key)
		return err
	}},
	"Delete": {"", func(ctx context.Context, s state.Store, h *house) error { return s.Delete(ctx, h.key) }},
	"DeleteOwned": {"", func(ctx context.Context, s state.Store, h *house) error {
		_, err := s.DeleteOwned(ctx, h.key.Kind, h.key.Owner)
		return err
	}},
}

// Whatever fails in Redis, in either truth, once or from then on: the write is
// answered, and once it is, nobody reads the old record.
func TestRedisFails(t *testing.T) {
	for name, write := range writes {
		for _, op := range []string{"", "CacheMark", "CacheClear", "CacheRead", "CacheFill", "CacheServer", "CacheOpen"} {
			if name != "Put" && op != "CacheMark" && op != "CacheClear" {
				continue // what else a write asks does not depend on which it is
			}
			for kind, times := range map[fault][]int{before: {1, 1000}, after: {1, 1000}} {
				for _, n := range times {
					t.Run(fmt.Sprint(name, op, kind, n), func(t *testing.T) {
						t.Parallel()
						h := newHouse(t)
						var count atomic.Int64
						h.links[0].inject(func(o string) fault {
							if (op == "" || o == op) && count.Add(1) <= int64(n) {
								return kind
							}
							return none
						})
						check(t, write.run(t.Context(), h.stores[0], h))
						h.want(t, write.leaves)
						h.links[0].heal()
						for _, s := range h.stores {
							untilReads(t, s)
						}
						h.want(t, write.leaves)
					})
				}
			}
		}
	}
}

// Whatever fails in SQL, in either truth, or is done only later: the answer is an
// error, and what is read afterwards is what SQL has.
func TestSQLFails(t *testing.T) {
	for name, write := range writes {
		for _, kind := range []fault{before, after, later} {
			for _, redis := range []fault{none, before, after} {
				t.Run(fmt.Sprint(name, kind, redis), func(t *testing.T) {
					t.Parallel()
					h := newHouse(t)
					h.durable.inject(func(op string, key state.Key) fault {
						if key == h.key && (op == name || op == "Take") && op != "Get" {
							return kind
						}
						return none
					})
					h.links[0].inject(func(op string) fault {
						if op == "CacheClear" {
							return redis
						}
						return none
					})
					// The caller has gone by the time at which it is done.
					if err := write.run(context.WithoutCancel(t.Context()), h.stores[0], h); !errors.Is(err, state.ErrUnavailable) {
						t.Fatalf("the write failed with %v", err)
					}
					if kind == after {
						h.want(t, write.leaves)
						return
					}
					for range 10 { // often enough to fill in a copy, and to read it
						h.want(t, "old")
					}
					h.durable.finish()
					if kind == later {
						h.want(t, write.leaves)
					}
				})
			}
		}
	}
}

// A write begins while copies are not read, fails, and is done only when Redis is
// well again: no copy from before is read then.
func TestLateWrite(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, s := range h.stores {
		s.Late(time.Hour)
	}
	h.links[0].cut()
	_, err := h.stores[0].Put(t.Context(), h.key, []byte("older"), time.Hour)
	check(t, err)
	h.durable.inject(func(op string, key state.Key) fault {
		if key == h.key && op == "Put" {
			return later
		}
		return none
	})
	begin := time.Now()
	if _, err := h.stores[0].Put(t.Context(), h.key, []byte("new"), time.Hour); !errors.Is(err, state.ErrUnavailable) {
		t.Fatalf("the write failed with %v", err)
	}
	h.links[0].heal()
	hits := h.links[1].hits.Load()
	until(t, "a read from the copy, if there may be one", func() bool {
		h.want(t, "older")
		return h.links[1].hits.Load() > hits || time.Since(begin) > time.Second
	})
	h.durable.finish()
	h.want(t, "new")
	for i, s := range h.stores {
		s.Late(0)
		untilReads(t, s)
		hits := h.links[i].hits.Load()
		until(t, "a read from the copy", func() bool {
			h.want(t, "new")
			return h.links[i].hits.Load() > hits
		})
	}
}

// SQL goes away between the write and its answer, so that the phase cannot be
// moved: the write is not answered, and the old record is not read once the new
// one has been seen.
func TestUnsettled(t *testing.T) {
	h := newHouse(t)
	h.links[0].inject(func(op string) fault {
		if op == "CacheClear" {
			return before
		}
		return none
	})
	h.durable.inject(func(op string, key state.Key) fault {
		if op == "Swap" && key != h.key {
			return before
		}
		return none
	})
	if _, err := h.stores[0].Put(t.Context(), h.key, []byte("new"), time.Hour); !errors.Is(err, state.ErrUnavailable) {
		t.Fatalf("a write that could not be settled: %v", err)
	}
	h.want(t, "new") // the mark keeps readers away from the copy
	h.durable.heal()
	h.links[0].heal()
	h.want(t, "new")
}

// If Redis can not be told, and the phase can not be moved, nothing is written.
func TestNothingWithoutTelling(t *testing.T) {
	h := newHouse(t)
	h.links[0].cut()
	h.durable.inject(func(op string, key state.Key) fault {
		if key != h.key && op == "Swap" {
			return before
		}
		return none
	})
	if _, err := h.stores[0].Put(t.Context(), h.key, []byte("new"), time.Hour); !errors.Is(err, state.ErrUnavailable) {
		t.Fatalf("Put: %v", err)
	}
	if r, err := h.durable.Get(t.Context(), h.key); err != nil || string(r.Value) != "old" {
		t.Fatalf("SQL has %q, %v", r.Value, err)
	}
	h.want(t, "old")
}

// One replica cannot reach Redis, the other can and reads copies.
func TestPartition(t *testing.T) {
	h := newHouse(t)
	h.links[0].cut()
	for i := range 5 {
		value := fmt.Sprint("new", i)
		_, err := h.stores[0].Put(t.Context(), h.key, []byte(value), time.Hour)
		check(t, err)
		h.want(t, value)
	}
	_, err := h.stores[1].Put(t.Context(), h.key, []byte("other side"), time.Hour)
	check(t, err)
	h.want(t, "other side")
	h.links[0].heal()
	for i, s := range h.stores {
		untilReads(t, s)
		hits := h.links[i].hits.Load()
		until(t, "a read from the copy", func() bool {
			h.want(t, "other side")
			return h.links[i].hits.Load() > hits
		})
	}
}

// A replica without Redis writes what the others have copies of, and the others
// go on as soon as it has written all.
func TestBeside(t *testing.T) {
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			beside := tiered.Beside(h.durable, time.Now, slog.New(slog.DiscardHandler))
			check(t, write.run(t.Context(), beside, h))
			h.want(t, write.leaves)
			for _, s := range h.stores {
				untilReads(t, s)
			}
			h.want(t, write.leaves)
		})
	}
}

// It conforms, and while nobody reads copies its writes cost no more than SQL's.
func TestBesideAlone(t *testing.T) {
	t.Parallel()
	durable := memstate.New(time.Now)
	statetest.Run(t, "no redis, in a cluster", func(t *testing.T) state.Store {
		s := tiered.Beside(durable, time.Now, slog.New(slog.DiscardHandler))
		tiered.HastenBeside(s, lease, rest)
		return s
	})
	counting := &flaky{Durable: memstate.New(time.Now)}
	s := tiered.Beside(counting, time.Now, slog.New(slog.DiscardHandler))
	put := func() {
		_, err := s.Put(t.Context(), state.Key{Kind: "test", Owner: "owner", ID: "id"}, nil, time.Hour)
		check(t, err)
	}
	put()
	begin, gets := time.Now(), counting.gets.Load()
	for range 1000 {
		put()
	}
	if n, leases := counting.gets.Load()-gets, int64(time.Since(begin)/(500*time.Millisecond)); n > leases+1 {
		t.Errorf("1000 writes asked for the control record %d times in %d leases", n, leases)
	}
}

// Somebody else writes to Redis. What no replica has written there is not read.
func TestForgedCopy(t *testing.T) {
	for name, forge := range map[string]func(r, other *state.Record){
		"another value":   func(r, _ *state.Record) { r.Value[len(r.Value)-1]++ },
		"no MAC":          func(r, _ *state.Record) { r.Value = []byte("new") },
		"another's value": func(r, other *state.Record) { r.Value = other.Value },
		"another version": func(r, _ *state.Record) { r.Version++ },
		"a later expiry":  func(r, _ *state.Record) { r.Expires = r.Expires.Add(time.Hour) },
		"another's, wholly": func(r, other *state.Record) {
			r.Value, r.Version, r.Expires = other.Value, other.Version, other.Expires
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			generation := strings.Fields(h.control(t))[1]
			other := state.Key{Kind: "test", Owner: "owner", ID: "other"}
			_, err := h.stores[0].Put(t.Context(), other, []byte("new"), time.Hour)
			check(t, err)
			copied := func(key state.Key) *state.Record {
				h.server.mu.Lock()
				defer h.server.mu.Unlock()
				for name, e := range h.server.entries {
					if strings.Contains(name, generation) {
						t.Fatal("redis knows the generation")
					}
					if e.condition == 'V' && strings.HasSuffix(name, key.ID) {
						r := e.record
						r.Value = bytes.Clone(r.Value)
						return &r
					}
				}
				return nil
			}
			var mine, others *state.Record
			until(t, "both copies", func() bool {
				h.want(t, "old")
				_, err := h.stores[0].Get(t.Context(), other)
				check(t, err)
				mine, others = copied(h.key), copied(other)
				return mine != nil && others != nil
			})
			forge(mine, others)
			h.server.mu.Lock()
			for name, e := range h.server.entries {
				if e.condition == 'V' && strings.HasSuffix(name, h.key.ID) {
					h.server.entries[name] = entry{condition: 'V', record: *mine}
				}
			}
			h.server.mu.Unlock()
			for i, s := range h.stores {
				r, err := s.Get(t.Context(), h.key)
				if err != nil || string(r.Value) != "old" || r.Version != h.version || r.Expires.After(time.Now().Add(time.Hour+time.Minute)) {
					t.Errorf("replica %d reads %+v, %v", i, r, err)
				}
				if !s.Avoids() {
					t.Errorf("replica %d goes on asking redis", i)
				}
			}
		})
	}
}

// Redis fails over to a replica that has not got the last write.
func TestFailover(t *testing.T) {
	h := newHouse(t)
	successor := h.server.successor("y")
	_, err := h.stores[0].Put(t.Context(), h.key, []byte("new"), time.Hour)
	check(t, err)
	for _, l := range h.links {
		l.server.Store(successor)
	}
	h.want(t, "new")
	_, err = h.stores[1].Put(t.Context(), h.key, []byte("newer"), time.Hour)
	check(t, err)
	h.want(t, "newer")
	untilReads(t, h.stores[0])
	h.want(t, "newer")
}

// The primary was demoted, lost the last write to its successor's copy, and is
// primary again: the same process, which has the generation open.
func TestDemotedAndBack(t *testing.T) {
	h := newHouse(t)
	successor := h.server.successor("")
	_, err := h.stores[0].Put(t.Context(), h.key, []byte("new"), time.Hour)
	check(t, err)
	until(t, "the end of the leases", func() bool { return !h.stores[0].Reads() && !h.stores[1].Reads() })
	h.server.mu.Lock()
	h.server.name, h.server.entries = "x, another history", successor.entries
	h.server.mu.Unlock()
	h.want(t, "new")
}

// One replica follows the failover, the other still reads from the old primary.
func TestSplitBrain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.links[0].server.Store(h.server.successor("y"))
	for i := range 20 {
		value := fmt.Sprint("new", i)
		_, err := h.stores[i%2].Put(t.Context(), h.key, []byte(value), time.Hour)
		check(t, err)
		h.want(t, value)
	}
}

// Redis is flushed at any step of a write, while others read and fill in.
func TestFlush(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"CacheMark", "CacheClear", "CacheRead", "CacheFill"} {
		t.Run(at, func(t *testing.T) {
			h := newHouse(t)
			h.links[0].inject(func(op string) fault {
				if op == at {
					h.server.flush()
				}
				return none
			})
			var answered atomic.Int64
			readers := h.readers(t, &answered)
			rounds := 40
			if soak() {
				rounds = 100
			}
			for n := range rounds {
				_, err := h.stores[0].Put(t.Context(), h.key, fmt.Append(nil, n), time.Hour)
				check(t, err)
				answered.Store(int64(n))
				if n%10 == 0 {
					h.server.flush()
				}
			}
			readers()
		})
	}
}

// A caller that goes away in the middle is no reason to distrust Redis, and its
// write is settled all the same, also when Redis fails at that moment.
func TestCallerGoesAway(t *testing.T) {
	for _, kind := range []fault{none, before, after} {
		h := newHouse(t)
		control := h.control(t)
		ctx, cancel := context.WithCancel(t.Context())
		h.links[0].inject(func(op string) fault {
			if op == "CacheClear" {
				cancel()
				return kind
			}
			return none
		})
		_, err := h.stores[0].Put(ctx, h.key, []byte("new"), time.Hour)
		check(t, err)
		h.want(t, "new")
		if kind == none && h.control(t) != control {
			t.Error("redis was given up because a caller went away")
		}
	}
}

// The same while it reads: the others go on reading from Redis.
func TestReaderGoesAway(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	h.links[0].inject(func(op string) fault {
		if op == "CacheRead" {
			cancel()
		}
		return none
	})
	until(t, "a read from the copy", func() bool {
		h.stores[0].Get(ctx, h.key)
		return ctx.Err() != nil
	})
	if h.stores[0].Avoids() {
		t.Error("redis was given up because a caller went away")
	}
}

// A lease ends while the copy is under way.
func TestLateCopy(t *testing.T) {
	h := newHouse(t)
	var once sync.Once
	h.links[1].inject(func(op string) fault {
		if op == "CacheRead" {
			once.Do(func() {
				h.links[0].cut()
				_, err := h.stores[0].Put(t.Context(), h.key, []byte("new"), time.Hour)
				if err != nil {
					t.Error(err)
				}
			})
		}
		return none
	})
	if got := h.read(t, 1); got != "new" {
		t.Errorf("read %q after a write had been answered", got)
	}
}

// A copy is read without SQL, and not beyond the end of its record.
func TestReadsFromRedis(t *testing.T) {
	h := newHouse(t)
	until(t, "ten reads without SQL", func() bool {
		gets := h.durable.gets.Load()
		for range 10 {
			h.want(t, "old")
		}
		return h.durable.gets.Load() == gets
	})
	hits := int64(0)
	until(t, "a copy of the short record", func() bool {
		if h.read(t, 1) != "short" { // it has ended, while the machine stood still
			_, err := h.stores[0].Put(t.Context(), h.key, []byte("short"), time.Second)
			check(t, err)
			hits = h.links[1].hits.Load()
		}
		return h.links[1].hits.Load() > hits
	})
	until(t, "the end of the record", func() bool {
		_, err := h.durable.Get(t.Context(), h.key)
		over := errors.Is(err, state.ErrNotFound)
		switch copied := h.read(t, 1); {
		case over && copied != "":
			t.Fatal("the copy outlived the record")
		case !over && copied == "":
			_, err := h.durable.Get(t.Context(), h.key)
			if err == nil {
				t.Fatal("SQL has the record still")
			}
		}
		return over
	})
}

// Everything at once, on three replicas: Redis fails in both truths, is cut off,
// flushed and replaced by an old copy of itself, SQL fails in both truths,
// or does later what it did not answer. Who has been told of a write never reads an older record.
func TestEverythingFails(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	durable := &flaky{Durable: memstate.New(time.Now)}
	current := newServer("s0")
	var links []*link
	var stores []*tiered.Store
	for range 3 {
		l := newLink(current)
		links, stores = append(links, l), append(stores, replica(l, durable))
	}
	untilReads(t, stores[0])
	durable.inject(func(_ string, key state.Key) fault {
		if kind := some(0.01); kind != before || key.Kind != "test" || rand.N(2) > 0 {
			return kind
		}
		return later
	})

	var work sync.WaitGroup
	done := make(chan struct{})
	var reads, answers atomic.Int64
	for w := range 3 {
		key := state.Key{Kind: "test", Owner: "owner", ID: fmt.Sprint("id", w)}
		var answered atomic.Int64 // the highest number whose write was answered
		work.Go(func() {
			for n := int64(1); ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if _, err := stores[rand.N(3)].Put(ctx, key, fmt.Append(nil, n), time.Hour); err == nil {
					answered.Store(n)
					answers.Add(1)
				} else { // numbers rise only if what is done later is done before the next
					pause(time.Duration(rand.N(3000)) * time.Microsecond)
					durable.finish()
				}
				pause(time.Duration(rand.N(3000)) * time.Microsecond)
			}
		})
		for _, s := range stores {
			work.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					least := answered.Load()
					r, err := s.Get(ctx, key)
					if least == 0 || err != nil && !errors.Is(err, state.ErrNotFound) {
						continue
					}
					reads.Add(1)
					var n int64
					fmt.Sscan(string(r.Value), &n)
					if n < least {
						t.Errorf("read %d, %v, after %d had been answered", n, err, least)
						return
					}
					pause(200 * time.Microsecond)
				}
			})
		}
	}
	hits := func() (n int64) {
		for _, l := range links {
			n += l.hits.Load()
		}
		return n
	}
	rounds, step := 18, 50*time.Millisecond
	if soak() {
		rounds, step = 60, 100*time.Millisecond
	}
	begin := time.Now()
	for i := 0; i < rounds || time.Since(begin) < time.Minute && (answers.Load() < 100 || hits() < 20); i++ {
		pause(step)
		l := links[rand.N(3)]
		switch i % 6 {
		case 0:
			l.cut()
		case 1:
			l.inject(func(string) fault { return some(0.05) })
		case 2:
			current.flush()
		case 3: // a failover to an old copy, which some notice late
			old := current.successor(fmt.Sprint("s", i))
			pause(20 * time.Millisecond)
			current = old
			for _, l := range links {
				l.server.Store(old)
				pause(10 * time.Millisecond)
			}
		default:
			for _, l := range links {
				l.heal()
			}
		}
	}
	close(done)
	work.Wait()
	t.Logf("%d writes answered, %d reads, %d of them from copies", answers.Load(), reads.Load(), hits())
	if answers.Load() < 100 || hits() < 20 {
		t.Error("too little happened to say anything")
	}
}

// The real thing: lost, slow, flushed, started anew.
func TestRealRedis(t *testing.T) {
	t.Parallel()
	ctx, srv := t.Context(), testenv.StartRedis(t)
	site := newSite(t, srv.URL, 10, replica)
	site.heal(t)
	stores := site.stores
	key, n := state.Key{Kind: "test", Owner: "owner", ID: "id"}, 0
	const each = 4                                        // rounds of each phase
	rate := state.Rate{Burst: 20, Period: 24 * time.Hour} // of which none comes back meanwhile
	counted := 0
	var longest time.Duration
	rounds := func(what string) (took time.Duration) {
		t.Helper()
		slow := 0 // not more than one or two, for which the machine may be the reason
		for range each {
			n++
			begin := time.Now()
			_, err := stores[n%2].Put(ctx, key, fmt.Append(nil, n), time.Hour)
			if err != nil {
				t.Fatalf("%s: Put: %v", what, err)
			}
			for _, s := range stores {
				if r, err := s.Get(ctx, key); err != nil || string(r.Value) != fmt.Sprint(n) {
					t.Fatalf("%s: read %q, %v, want %d", what, r.Value, err, n)
				}
			}
			d, err := stores[n%2].Limit(ctx, key, rate)
			if err != nil {
				t.Fatalf("%s: Limit: %v", what, err)
			}
			if d.Allowed {
				counted++
			}
			took = max(took, time.Since(begin))
			if longest > 0 && time.Since(begin) > 5*time.Second+longest {
				if slow++; slow > 2 || took > 30*time.Second+longest {
					t.Errorf("%s: a round took %v, and %v when all was well", what, time.Since(begin), longest)
				}
			}
		}
		return took
	}
	longest = rounds("well")
	srv.Pause(t)
	rounds("hangs")
	srv.Resume(t)
	site.heal(t)
	rounds("well again")
	flush(t, srv.URL)
	rounds("flushed")
	srv.Stop()
	rounds("away")
	srv.Start(t)
	site.heal(t)
	rounds("started anew")
	if counted != rate.Burst {
		t.Errorf("%d of %d events were allowed, want %d", counted, n, rate.Burst)
	}
}

func flush(t *testing.T, url string) {
	t.Helper()
	c, err := openRedis(t, url).Client(t.Context())
	check(t, err)
	check(t, c.Do(t.Context(), c.B().Flushall().Build()).Error())
}

func openRedis(t *testing.T, url string) *redisstate.Store {
	t.Helper()
	s, err := redisstate.Open(url)
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func replica(fast tiered.Fast, durable tiered.Durable) *tiered.Store {
	s := patient(fast, durable)
	s.Hasten(lease, rest)
	return s
}

// patient is a replica as it is in production.
func patient(fast tiered.Fast, durable tiered.Durable) *tiered.Store {
	s, err := tiered.New(tiered.Config{Fast: fast, Durable: durable, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err) // only a registerer could be the reason
	}
	return s
}

// untilReads waits until the replica reads copies. The phase moves when somebody
// asks for something.
func untilReads(t *testing.T, s *tiered.Store) {
	t.Helper()
	until(t, "reading from redis", func() bool {
		s.Get(t.Context(), state.Key{Kind: "test", Owner: "nobody", ID: "nothing"})
		return s.Reads()
	})
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !condition(); pause(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// pause is the interval of polling, and of the dice.
func pause(d time.Duration) { <-time.After(d) }

func some(p float64) fault {
	switch x := rand.Float64(); {
	case x < p/2:
		return before
	case x < p:
		return after
	}
	return none
}
