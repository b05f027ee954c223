package redisstate

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/testenv"
)

const (
	benchCallers = 64
	benchCalls   = 50  // of each caller in a round
	benchValue   = 300 // bytes: a session
)

// A duel is one operation of the store, and the same command sent by the client
// alone: no checks, no names made, no version drawn, no time limit, no record
// made of the answer. Each caller has its own record.
type duel struct {
	store, client func(ctx context.Context, caller int) error
	prepare       func(ctx context.Context) error // before each round, not measured; or nil
}

var duels = []struct {
	name string
	make func(s *Store, c rueidis.Client) duel
}{{"Get", duelGet}, {"Put", duelPut}, {"Limit", duelLimit}, {"Swap", duelSwap}, {"Take", duelTake}}

// BenchmarkStore runs the store and the client in turns, round after round on the
// same server, 64 callers each. "share" is how much of the client's throughput
// the store reaches, the median of all rounds.
func BenchmarkStore(b *testing.B) {
	s, c := duelists(b)
	for _, op := range duels {
		b.Run(op.name, func(b *testing.B) {
			d := op.make(s, c)
			var share []float64
			var took [2]time.Duration // store, client
			var waits [2][]time.Duration
			for round := 0; b.Loop(); round++ {
				each, waited := d.round(b, round)
				for side := range each {
					took[side] += each[side]
					waits[side] = append(waits[side], waited[side]...)
				}
				share = append(share, 100*float64(each[1])/float64(each[0]))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(quantile(share, 0.5), "share-%")
			for side, name := range []string{"store", "client"} {
				b.ReportMetric(float64(len(waits[side]))/took[side].Seconds(), name+"-calls/s")
				b.ReportMetric(float64(quantile(waits[side], 0.5).Microseconds()), name+"-p50-µs")
				b.ReportMetric(float64(quantile(waits[side], 0.99).Microseconds()), name+"-p99-µs")
			}
		})
	}
}

// The store is not far below the client alone. The benchmark says how far; this
// floor is what a busy machine cannot blur, and is asked again when it seems to. It
// measures, and so it runs only with WATCHWORD_SOAK in the environment.
func TestShareOfTheClient(t *testing.T) {
	if os.Getenv("WATCHWORD_SOAK") == "" {
		return
	}
	const floor, enough, most = 65, 5, 60
	s, c := duelists(t)
	for _, op := range duels[:3] { // the others take the same ways
		d := op.make(s, c)
		var share []float64
		for len(share) < enough || len(share) < most && quantile(share, 0.5) < floor {
			each, _ := d.round(t, len(share))
			share = append(share, 100*float64(each[1])/float64(each[0]))
		}
		t.Logf("%s: %.0f %%, the median of %d rounds", op.name, quantile(share, 0.5), len(share))
		if quantile(share, 0.5) < floor {
			t.Errorf("%s reaches less than %d %% of what the client does alone", op.name, floor)
		}
	}
}

func duelists(tb testing.TB) (*Store, rueidis.Client) {
	tb.Helper()
	s, err := Open(testenv.Redis(tb), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	s.Wait(time.Minute)
	c, err := s.Client(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return s, c
}

// round lets the store and the client work, one after the other: who begins
// changes from round to round. It returns what runRound does, of each.
func (d duel) round(tb testing.TB, round int) (took [2]time.Duration, waited [2][]time.Duration) {
	tb.Helper()
	for i := range took {
		side := (i + round) % 2
		call := d.store
		if side == 1 {
			call = d.client
		}
		if d.prepare != nil {
			if err := d.prepare(tb.Context()); err != nil {
				tb.Fatal(err)
			}
		}
		took[side], waited[side] = runRound(tb, call)
	}
	return took, waited
}

// runRound lets all callers call, and returns how long it took and how long each
// call did.
func runRound(tb testing.TB, call func(ctx context.Context, caller int) error) (time.Duration, []time.Duration) {
	waited := make([]time.Duration, benchCallers*benchCalls)
	var group sync.WaitGroup
	begin := time.Now()
	for caller := range benchCallers {
		group.Go(func() {
			ctx, cancel := context.WithCancel(tb.Context()) // as each request has its own
			defer cancel()
			for i := range benchCalls {
				asked := time.Now()
				if err := call(ctx, caller); err != nil {
					tb.Error(err)
					return
				}
				waited[caller*benchCalls+i] = time.Since(asked)
			}
		})
	}
	group.Wait()
	return time.Since(begin), waited
}

func quantile[T float64 | time.Duration](list []T, q float64) T {
	slices.Sort(list)
	return list[int(q*float64(len(list)-1))]
}

// benchKey is a caller's record; what the client writes has other names than what
// the store writes, and the same length.
func benchKey(of string, caller int) state.Key {
	return state.Key{Kind: "session", Owner: fmt.Sprintf("%s-user-%04d", of, caller), ID: "0123456789abcdef0123456789abcdef"}
}

// benchKeys are all callers' names of records and indexes.
func benchKeys(of string) (keys []state.Key, names [][]string) {
	for caller := range benchCallers {
		key := benchKey(of, caller)
		keys, names = append(keys, key), append(names, new(Store).keysOf(key))
	}
	return keys, names
}

func duelGet(s *Store, c rueidis.Client) duel {
	keys, names := benchKeys("get")
	return duel{
		prepare: func(ctx context.Context) error {
			for _, key := range keys {
				if _, err := s.Put(ctx, key, make([]byte, benchValue), time.Hour); err != nil {
					return err
				}
			}
			return nil
		},
		store: func(ctx context.Context, caller int) error {
			_, err := s.Get(ctx, keys[caller])
			return err
		},
		client: func(ctx context.Context, caller int) error {
			_, err := c.Do(ctx, c.B().Get().Key(names[caller][0]).Build()).ToString()
			return err
		},
	}
}

func duelPut(s *Store, c rueidis.Client) duel {
	keys, _ := benchKeys("put")
	_, names := benchKeys("PUT")
	value := make([]byte, benchValue)
	args := []string{keys[0].ID, formatVersion(1), format(time.Hour.Milliseconds()), rueidis.BinaryString(value)}
	return duel{
		store: func(ctx context.Context, caller int) error {
			_, err := s.Put(ctx, keys[caller], value, time.Hour)
			return err
		},
		client: func(ctx context.Context, caller int) error {
			return putScript.Exec(ctx, c, names[caller], args).Error()
		},
	}
}

func duelSwap(s *Store, c rueidis.Client) duel {
	keys, _ := benchKeys("swap")
	clientKeys, names := benchKeys("SWAP")
	value := make([]byte, benchValue)
	text := rueidis.BinaryString(value)
	versions, clientVersions := make([]int64, benchCallers), make([]string, benchCallers)
	next := [2]string{formatVersion(1), formatVersion(2)}
	return duel{
		prepare: func(ctx context.Context) (err error) {
			for caller := range benchCallers {
				if versions[caller], err = s.Put(ctx, keys[caller], value, time.Hour); err != nil {
					return err
				}
				version, err := s.Put(ctx, clientKeys[caller], value, time.Hour)
				if err != nil {
					return err
				}
				clientVersions[caller] = formatVersion(version)
			}
			return nil
		},
		store: func(ctx context.Context, caller int) (err error) {
			versions[caller], err = s.Swap(ctx, keys[caller], versions[caller], value, time.Hour)
			return err
		},
		client: func(ctx context.Context, caller int) error {
			old := clientVersions[caller]
			clientVersions[caller] = next[0]
			if old == next[0] {
				clientVersions[caller] = next[1]
			}
			swapped, err := swapScript.Exec(ctx, c, names[caller],
				[]string{keys[0].ID, clientVersions[caller], "3600000", text, old}).AsBool()
			if err == nil && !swapped {
				err = state.ErrChanged
			}
			return err
		},
	}
}

func duelTake(s *Store, c rueidis.Client) duel {
	value := make([]byte, benchValue)
	keys, names := make([][]state.Key, benchCallers), make([][][]string, benchCallers)
	for caller := range benchCallers {
		for i := range benchCalls {
			key := benchKey("take", caller)
			key.ID = fmt.Sprintf("%032d", i)
			keys[caller], names[caller] = append(keys[caller], key), append(names[caller], new(Store).keysOf(key))
		}
	}
	var at [benchCallers]int
	return duel{
		prepare: func(ctx context.Context) error {
			at = [benchCallers]int{}
			errs := make(chan error, benchCallers)
			for _, own := range keys {
				go func() {
					for _, key := range own {
						if _, err := s.Put(ctx, key, value, time.Hour); err != nil {
							errs <- err
							return
						}
					}
					errs <- nil
				}()
			}
			var failed error
			for range benchCallers {
				if err := <-errs; err != nil {
					failed = err
				}
			}
			return failed
		},
		store: func(ctx context.Context, caller int) error {
			_, err := s.Take(ctx, keys[caller][at[caller]])
			at[caller]++
			return err
		},
		client: func(ctx context.Context, caller int) error {
			i := at[caller]
			at[caller]++
			_, err := takeScript.Exec(ctx, c, names[caller][i], []string{keys[caller][i].ID}).ToString()
			return err
		},
	}
}

func duelLimit(s *Store, c rueidis.Client) duel {
	keys, _ := benchKeys("limit")
	clientKeys, _ := benchKeys("LIMIT")
	var names []string
	for _, key := range clientKeys {
		names = append(names, "rate:{"+key.Owner+"}:session:"+key.ID)
	}
	rate := state.Rate{Burst: state.MaxBurst, Period: time.Hour} // allowed, as nearly all are
	args := []string{format(rate.Interval()), format(rate.Full()), format(state.Skew.Microseconds())}
	return duel{
		store: func(ctx context.Context, caller int) error {
			_, err := s.Limit(ctx, keys[caller], rate)
			return err
		},
		client: func(ctx context.Context, caller int) error {
			_, err := limitScript.Exec(ctx, c, names[caller:caller+1], args).AsIntSlice()
			return err
		},
	}
}
