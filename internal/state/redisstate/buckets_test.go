package redisstate_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A bucket is kept for as long as it is not empty, and no longer.
func TestBucketsExpire(t *testing.T) {
	t.Parallel()
	s := open(t, testenv.StartRedis(t).URL)
	c := client(t, s)
	for i, rate := range []state.Rate{
		{Burst: 1, Period: time.Microsecond}, {Burst: 3, Period: 10 * time.Millisecond}, {Burst: 1, Period: time.Minute},
		{Burst: 60, Period: time.Minute}, {Burst: 5, Period: 15 * time.Minute}, {Burst: 1, Period: state.MaxPeriod}, {Burst: state.MaxBurst, Period: time.Hour},
	} {
		for range 4 { // some are refused, which keeps no bucket longer
			key := state.Key{Kind: "login", Owner: "o", ID: fmt.Sprint(i)}
			d, err := s.Limit(t.Context(), key, rate)
			if err != nil {
				t.Fatal(err)
			}
			left, err := strconv.Atoi(do(t, c, "EVAL", "return tostring(redis.call('PTTL', KEYS[1]))", "1", "rate:{o}:login:"+key.ID))
			most := (d.ResetAfter + time.Millisecond - 1).Milliseconds() + 1 // PTTL goes by a clock that Redis reads once in a while
			if err != nil || int64(left) > most || left == -1 || left == -2 && d.ResetAfter > 10*time.Second {
				t.Errorf("%+v: it is kept for %d ms, %v, and empty in %v", rate, left, err, d.ResetAfter)
			}
		}
	}
}

// Buckets that nobody uses any longer go away, and those in use stay. With WATCHWORD_SOAK
// there are a million, and the test says what they cost: docs/storage.md has the figures.
func TestAbandonedBuckets(t *testing.T) {
	many, life := 5_000, 2*time.Second
	if os.Getenv("WATCHWORD_SOAK") != "" {
		many, life = 1_000_000, 10*time.Minute
	}
	s := open(t, testenv.StartRedis(t).URL)
	c := client(t, s)
	memory := func() (n int) {
		t.Helper()
		for line := range strings.Lines(do(t, c, "INFO", "memory")) {
			if text, is := strings.CutPrefix(line, "used_memory:"); is {
				n, _ = strconv.Atoi(strings.TrimSpace(text))
			}
		}
		return n
	}
	const callers = 64
	limit := func(id string, rate state.Rate) {
		d, err := s.Limit(t.Context(), state.Key{Kind: "login", Owner: id, ID: "address"}, rate)
		if err != nil || !d.Allowed {
			t.Error(d, err)
		}
	}
	limit("live", state.Rate{Burst: 1, Period: time.Hour})
	empty, begin := memory(), time.Now()
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for i := caller; i < many && !t.Failed(); i += callers {
				limit(fmt.Sprintf("%026d", i), state.Rate{Burst: 1, Period: life})
			}
		})
	}
	group.Wait()
	made, full := time.Since(begin), memory()
	if many > 5_000 { // as if the time had passed
		do(t, c, "EVAL", "for _, key in ipairs(redis.call('KEYS', 'rate:{0*')) do redis.call('PEXPIRE', key, 1) end return ''", "0")
		begin = time.Now()
	}
	for deadline := time.Now().Add(5 * time.Minute); do(t, c, "EVAL", "return tostring(redis.call('DBSIZE'))", "0") != "1"; pause(t, 10*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("some are left")
		}
	}
	gone := time.Since(begin)
	if do(t, c, "GET", "rate:{live}:login:address") == "" {
		t.Error("a live bucket is gone")
	}
	t.Logf("summary: %d buckets on redis: %d bytes each, made in %v, gone in %v", many, (full-empty)/many, made.Round(time.Second), gone.Round(time.Millisecond))
}
