package sqlstate_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// The statements decide as state.Rate.Decide does, whatever the rate, also when the rate
// changes and when the clock goes back.
func TestLimitIsDecide(t *testing.T) {
	db := connect(t, sqldb.Config{URL: sqldbtest.SQLite(t)})
	var now int64
	s := sqlstate.New(db, func() time.Time { return time.UnixMicro(now) })
	buckets := 0
	rapid.Check(t, func(rt *rapid.T) {
		buckets++
		key := state.Key{Kind: "test", Owner: "o", ID: fmt.Sprint(buckets)}
		now = 1_800_000_000_000_000
		var arrival int64
		for i := range rapid.IntRange(1, 20).Draw(rt, "events") {
			rate := state.Rate{
				Burst:  rapid.IntRange(1, 5).Draw(rt, "burst"),
				Period: time.Duration(rapid.SampledFrom([]int64{1, 10, 1e3, 1e6 + 1}).Draw(rt, "period")) * time.Microsecond,
			}
			now += rapid.Int64Range(-rate.Interval()/2, rate.Interval()).Draw(rt, "pause")
			var want state.Decision
			arrival, want = rate.Decide(arrival, now)
			if got, err := s.Limit(t.Context(), key, rate); err != nil || got != want {
				rt.Fatalf("event %d: %+v, %v, want %+v", i, got, err, want)
			}
		}
	})
}

// On the servers, the clock is theirs, so that it is compared by the half hour.
func TestLimitIsDecideOnServers(t *testing.T) {
	for name, url := range map[string]string{
		"sqlite": "sqlite:" + filepath.Join(t.TempDir(), "w.db"), "postgres": testenv.Postgres(t), "mariadb": testenv.MariaDB(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, db := open(t, url), connect(t, sqldb.Config{URL: url})
			half := (30 * time.Minute).Microseconds()
			begin := time.Now().UnixMicro()
			for i, rate := range []state.Rate{
				{Burst: 3, Period: 3 * time.Hour}, {Burst: 1, Period: time.Hour}, {Burst: 7, Period: 20 * time.Hour},
				{Burst: 1, Period: time.Microsecond}, {Burst: state.MaxBurst, Period: time.Second}, {Burst: 1, Period: state.MaxPeriod},
			} {
				for j, arrival := range []int64{
					0, -1, math.MinInt64 / 2, begin - 9*half, begin - half, begin + half, begin + 3*half, begin + 5*half,
					begin + 7*half, begin + 100*half, math.MaxInt64,
				} {
					id := fmt.Sprint(i, "-", j)
					if _, err := db.Exec(t.Context(), "INSERT INTO state_rates (kind, owner, id, tat, expires_at) VALUES ('test', 'o', ?, ?, ?)", id, arrival, arrival); err != nil {
						t.Fatal(err)
					}
					got, err := s.Limit(t.Context(), state.Key{Kind: "test", Owner: "o", ID: id}, rate)
					now := time.Now().UnixMicro()
					after, want := rate.Decide(arrival, now)
					off := func(a, b int64) bool { return max(a-b, b-a) > now-begin+time.Second.Microseconds() }
					if err != nil || got.Allowed != want.Allowed || rate.Interval() > half/2 && got.Remaining != want.Remaining ||
						off(got.ResetAfter.Microseconds(), want.ResetAfter.Microseconds()) || off(got.RetryAfter.Microseconds(), want.RetryAfter.Microseconds()) ||
						got.RetryAfter < 0 || got.Remaining < 0 || got.Remaining > rate.Burst {
						t.Errorf("%+v, ahead by %v: %+v, %v, want %+v", rate, time.Duration(arrival-now)*time.Microsecond, got, err, want)
					}
					var tat, expires int64
					if err := db.QueryRow(t.Context(), "SELECT tat, expires_at FROM state_rates WHERE kind = 'test' AND owner = 'o' AND id = ?", id).Scan(&tat, &expires); err != nil {
						t.Fatal(err)
					}
					if off(tat, after) || off(tat, expires) {
						t.Errorf("%+v, ahead by %v: empty in %v, and expires in %v, want %v", rate, time.Duration(arrival-now)*time.Microsecond,
							time.Duration(tat-now)*time.Microsecond, time.Duration(expires-now)*time.Microsecond, time.Duration(after-now)*time.Microsecond)
					}
				}
			}
		})
	}
}
