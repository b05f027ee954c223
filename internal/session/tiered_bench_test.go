package session

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sys/unix"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/tiered"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// counting counts the sessions that are read in SQL.
type counting struct {
	tiered.Durable
	reads atomic.Int64
}

func (c *counting) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if key.Kind == Kind {
		c.reads.Add(1)
	}
	return c.Durable.Get(ctx, key)
}

// inTiered is Redis in front of PostgreSQL, once copies are read. What is filled in has
// no copy in Redis, so the first look at it is one in SQL.
func inTiered(b *testing.B) (state.Store, func(b *testing.B, from, to int, value string), func() (int64, error)) {
	durable, fill, size := inPostgres(b)
	fast, _, _ := inRedis(b)
	sql := &counting{Durable: durable.(*sqlstate.Store)}
	s := before(b, fast.(*redisstate.Store), sql)
	one := state.Key{Kind: Kind, Owner: userID(98_000_000), ID: sessionID(98_000_000, 0)}
	if _, err := s.Put(b.Context(), one, []byte("{}"), time.Hour); err != nil {
		b.Fatal(err)
	}
	copied(b, sql, 1, func(int) error { _, err := s.Get(b.Context(), one); return err })
	return s, fill, size
}

// before puts Redis in front of SQL.
func before(b *testing.B, fast tiered.Fast, durable tiered.Durable) *tiered.Store {
	b.Helper()
	s, err := tiered.New(tiered.Config{Fast: fast, Durable: durable, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkSessionRead measures how many reads of a session through Redis in front of
// SQL this process makes for a second of its CPU time, beside as many GETs of as many
// bytes by the client library alone: rounds of 64 callers in turns, on the same Redis.
// Every session has its copy in Redis. "share" is the median of all rounds.
func BenchmarkSessionRead(b *testing.B) {
	const callers, calls = 64, 200
	fast, err := redisstate.Open(testenv.Redis(b))
	if err != nil {
		b.Fatal(err)
	}
	defer fast.Close()
	client, err := fast.Client(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	durable, _, _ := inPostgres(b)
	sql := &counting{Durable: durable.(*sqlstate.Store)}
	s := New(Config{State: before(b, fast, sql), TTL: 24 * time.Hour, RefreshDuration: 24 * time.Hour, RenewGrace: 10 * time.Second, Now: time.Now, Rand: rand.Reader})

	ids := make([]string, callers)
	for i := range ids {
		sess, _, _, err := s.Start(b.Context(), userID(i), 1, "192.0.2.1", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", nil)
		if err != nil {
			b.Fatal(err)
		}
		ids[i] = sess.ID
	}
	read := func(i int) error {
		_, err := s.Get(b.Context(), userID(i), ids[i])
		return err
	}
	copied(b, sql, callers, read)

	bytes := exampleOf(b, s)
	for i := range callers {
		if err := client.Do(b.Context(), client.B().Set().Key(ids[i]).Value(bytes).Build()).Error(); err != nil {
			b.Fatal(err)
		}
	}
	get := func(i int) error {
		text, err := client.Do(b.Context(), client.B().Get().Key(ids[i]).Build()).ToString()
		if err == nil && len(text) != len(bytes) {
			err = rueidis.Nil
		}
		return err
	}

	sides := [2]func(int) error{read, get}
	var rates [2][]float64
	var share []float64
	for round := 0; b.Loop(); round++ {
		var each [2]float64
		for i := range sides {
			side := (i + round) % 2
			each[side] = perCPUSecond(b, callers, calls, sides[side])
		}
		if sql.reads.Swap(0) > callers*calls/100 { // Redis was too slow for many: this round measures something else
			copied(b, sql, callers, read)
			continue
		}
		for side := range sides {
			rates[side] = append(rates[side], each[side])
		}
		share = append(share, 100*each[0]/each[1])
	}
	if len(share) == 0 {
		b.Fatal("in each round too many reads were in SQL")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(share), "share-%")
	b.ReportMetric(median(rates[0]), "reads/CPU-s")
	b.ReportMetric(median(rates[1]), "GETs/CPU-s")
	b.ReportMetric(float64(len(share)), "rounds")
}

// copied reads until every session has its copy.
func copied(b *testing.B, sql *counting, callers int, read func(int) error) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		before := sql.reads.Load()
		for i := range callers {
			if err := read(i); err != nil {
				b.Fatal(err)
			}
		}
		if sql.reads.Load() == before {
			sql.reads.Store(0)
			return
		}
		if time.Now().After(deadline) {
			b.Fatal("sessions are read in SQL on and on")
		}
	}
}

// perCPUSecond lets all callers call, and returns how many calls this process made for
// a second of its CPU time.
func perCPUSecond(b *testing.B, callers, calls int, call func(caller int) error) float64 {
	var group sync.WaitGroup
	began := cpuTime(b)
	for caller := range callers {
		group.Go(func() {
			for range calls {
				if err := call(caller); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return float64(callers*calls) / (cpuTime(b) - began).Seconds()
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
