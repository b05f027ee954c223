package backends

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A counting is what one step of a bucket does.
type counting int

const (
	event counting = iota
	reset
)

// A counted is the answer to it.
type counted int

const (
	allowed counted = iota
	denied
	done    // a reset
	unknown // it failed, and may have been done, at any time later
)

// bucket is what a bucket of so many events is to do while none comes back. Its state is the
// set of the numbers of events that it may have: bit n stands for n events.
func bucket(limit int) porcupine.Model {
	full := uint64(1) << limit
	one := func(may uint64) uint64 { return (may &^ full) << 1 }
	return porcupine.Model{
		Init: func() any { return uint64(1) },
		Step: func(state, input, output any) (bool, any) {
			may := state.(uint64)
			switch {
			case input == reset && output == unknown:
				may |= 1
			case input == reset:
				may = 1
			case output == allowed:
				may = one(may)
			case output == denied:
				may &= full
			case output == unknown:
				may |= one(may)
			}
			return may != 0, may
		},
	}
}

// The model refuses what must not happen.
func TestBucketModel(t *testing.T) {
	step := func(at int64, c counting, answer counted) porcupine.Operation {
		op := porcupine.Operation{Input: c, Call: at, Output: answer, Return: at + 1}
		if answer == unknown {
			op.Return = math.MaxInt64
		}
		return op
	}
	for name, one := range map[string]struct {
		history []porcupine.Operation
		right   bool
	}{
		"all that are allowed":         {[]porcupine.Operation{step(0, event, allowed), step(10, event, allowed), step(20, event, denied)}, true},
		"one too many":                 {[]porcupine.Operation{step(0, event, allowed), step(10, event, allowed), step(20, event, allowed)}, false},
		"one too few":                  {[]porcupine.Operation{step(0, event, allowed), step(10, event, denied)}, false},
		"one was counted and failed":   {[]porcupine.Operation{step(0, event, unknown), step(10, event, allowed), step(20, event, denied)}, true},
		"one was not":                  {[]porcupine.Operation{step(0, event, unknown), step(10, event, allowed), step(20, event, allowed), step(30, event, denied)}, true},
		"one counted twice":            {[]porcupine.Operation{step(0, event, unknown), step(10, event, denied)}, false},
		"after a reset":                {[]porcupine.Operation{step(0, event, allowed), step(10, event, allowed), step(20, reset, done), step(30, event, allowed)}, true},
		"a reset that forgot nothing":  {[]porcupine.Operation{step(0, event, allowed), step(10, event, allowed), step(20, reset, done), step(30, event, denied)}, false},
		"a reset that may have failed": {[]porcupine.Operation{step(0, event, allowed), step(10, event, allowed), step(20, reset, unknown), step(30, event, denied), step(40, event, allowed)}, true},
	} {
		if got := porcupine.CheckOperations(bucket(2), one.history); got != one.right {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// countingStores opens a shared state three times, as three replicas have it, each behind a
// link of its own.
func countingStores(t *testing.T, name string) (stores []state.Store, links []*testenv.Link) {
	t.Helper()
	server := map[string]func(testing.TB) string{"postgres": testenv.Postgres, "mariadb": testenv.MariaDB, "redis": testenv.Redis}[name](t)
	for range 3 {
		link, url := replica.Link(t, server)
		links = append(links, link)
		if name == "redis" {
			s, err := redisstate.Open(url, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			stores = append(stores, s)
			continue
		}
		cfg := kit.ClusterConfig(t, url)
		cfg.Database.MaxConnections = 4
		parts, err := operator.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { parts.Close() })
		stores = append(stores, sqlstate.New(parts.DB, time.Now))
	}
	return stores, links
}

// Whatever order the steps of a bucket come in, through whichever replicas, and though
// connections break while answers are under way: the answers are those of one counter, step
// after step. An event that failed may have counted, once.
func TestCountingIsLinearizable(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"postgres", "mariadb", "redis"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stores, links := countingStores(t, name)
			rounds := 4
			if kit.Soak() {
				rounds = 200
			}
			steps, failed, denials := 0, 0, 0
			for round := range rounds {
				h := &countingHistory{seed: rand.Uint64(), key: state.Key{Kind: "login_account", Owner: "somebody", ID: strconv.Itoa(round)}}
				fault := testenv.Fault{}
				switch round % 4 {
				case 1:
					fault.HoldDown = true // done, and not answered
				case 3:
					fault.HoldUp = true // not done
				}
				h.run(t.Context(), stores, links[round%3], fault)
				if got := porcupine.CheckOperationsTimeout(bucket(historyLimit), h.steps, kit.Patience); got != porcupine.Ok {
					t.Errorf("round %d, seed %d, %+v: %s: %+v", round, h.seed, fault, got, h.steps)
				}
				steps += len(h.steps)
				for _, s := range h.steps {
					switch s.Output {
					case unknown:
						failed++
					case denied:
						denials++
					}
				}
			}
			t.Logf("summary: limits: %d steps of %d buckets through 3 replicas are linearizable (%s): %d failed while a connection was cut, %d denied",
				steps, rounds, name, failed, denials)
			if failed == 0 || denials == 0 {
				t.Errorf("%d steps failed and %d were denied", failed, denials)
			}
		})
	}
}

const (
	historyLimit = 20
	historySteps = 12 // of each client
)

// A countingHistory is what happened at one bucket.
type countingHistory struct {
	seed uint64
	key  state.Key

	clock atomic.Int64
	mu    sync.Mutex
	steps []porcupine.Operation
}

// run has clients count through stores. In the middle the link of one has a fault while some
// steps begin, and then its connections are cut.
func (h *countingHistory) run(ctx context.Context, stores []state.Store, link *testenv.Link, fault testenv.Fault) {
	const clients = 6
	mended, begun := make(chan struct{}), make(chan struct{}, clients*historySteps)
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			random := rand.New(rand.NewPCG(h.seed, uint64(client)))
			for range historySteps {
				what := event
				if random.IntN(20) == 0 {
					what = reset
				}
				begun <- struct{}{}
				if h.step(ctx, client, stores[random.IntN(len(stores))], what) == unknown {
					<-mended
				}
			}
		})
	}
	// A step that holds a lock of the database behind the link may stop all clients.
	after := func(steps int) {
		for patience := time.After(300 * time.Millisecond); steps > 0; steps-- {
			select {
			case <-begun:
			case <-patience:
				return
			}
		}
	}
	if fault == (testenv.Fault{}) {
		close(mended)
	} else {
		after(clients * 2)
		link.Set(fault)
		after(clients) // of which some stay where they are
		link.Set(testenv.Fault{Cut: true})
		link.Set(testenv.Fault{})
		close(mended)
	}
	all.Wait()
}

// step does one step and notes it.
func (h *countingHistory) step(ctx context.Context, client int, s state.Store, what counting) (answer counted) {
	op := porcupine.Operation{ClientId: client, Input: what, Call: h.clock.Add(1)}
	switch what {
	case reset:
		if answer = done; s.Reset(ctx, h.key) != nil {
			answer = unknown
		}
	case event:
		d, err := s.Limit(ctx, h.key, state.Rate{Burst: historyLimit, Period: long})
		switch {
		case err != nil:
			answer = unknown
		case !d.Allowed:
			answer = denied
		}
	}
	op.Output, op.Return = answer, h.clock.Add(1)
	if answer == unknown {
		op.Return = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps = append(h.steps, op)
	return answer
}
