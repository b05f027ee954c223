package redisstate

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
)

// BenchmarkLimitStep compares an event that is counted, and one that is refused, with a GET and
// a SET of as many bytes by the client alone, one caller, in rounds that take turns. The figures
// are medians: the time of a call by the clock, and the processor time that this process
// and Redis spent on it, on which a busy machine falls less.
func BenchmarkLimitStep(b *testing.B) {
	const calls = 250
	s, c := duelists(b)
	keys, names := benchKeys("step")
	counted, refused := state.Rate{Burst: state.MaxBurst, Period: time.Hour}, state.Rate{Burst: 1, Period: state.MaxPeriod}
	value := format(time.Now().UnixMicro())
	ways := []struct {
		name string
		call func(ctx context.Context, caller int) error
	}{
		{"get", func(ctx context.Context, caller int) error {
			return c.Do(ctx, c.B().Get().Key(names[caller][0]).Build()).Error()
		}},
		{"set", func(ctx context.Context, caller int) error {
			return c.Do(ctx, c.B().Set().Key(names[caller][0]).Value(value).PxMilliseconds(time.Hour.Milliseconds()).Build()).Error()
		}},
		{"counted", func(ctx context.Context, caller int) error {
			_, err := s.Limit(ctx, keys[caller], counted)
			return err
		}},
		{"refused", func(ctx context.Context, caller int) error {
			key := keys[caller]
			key.Kind = "refused"
			_, err := s.Limit(ctx, key, refused)
			return err
		}},
	}
	for caller := range benchCallers {
		for _, way := range ways[1:] { // so that each name exists
			if err := way.call(b.Context(), caller); err != nil {
				b.Fatal(err)
			}
		}
	}
	wall, cpu := make([][]float64, len(ways)), make([][]float64, len(ways)) // µs of a call
	for round := 0; b.Loop(); round++ {
		for i := range ways {
			i = (i + round) % len(ways)
			waits, used := make([]time.Duration, calls), spent(b, c)
			for n := range waits {
				begin := time.Now()
				if err := ways[i].call(b.Context(), n%benchCallers); err != nil {
					b.Fatal(err)
				}
				waits[n] = time.Since(begin)
			}
			cpu[i] = append(cpu[i], float64((spent(b, c)-used).Microseconds())/calls)
			wall[i] = append(wall[i], float64(quantile(waits, 0.5).Nanoseconds())/1000)
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, way := range ways {
		for unit, list := range map[string][][]float64{"": wall, "-cpu": cpu} {
			b.ReportMetric(quantile(list[i], 0.5), way.name+unit+"-µs")
			if i > 0 {
				b.ReportMetric(quantile(list[i], 0.5)/quantile(list[0], 0.5), way.name+unit+"-×")
			}
		}
	}
}

// spent is the processor time of this process and of Redis.
func spent(tb testing.TB, c rueidis.Client) time.Duration {
	tb.Helper()
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		tb.Fatal(err)
	}
	info, err := c.Do(tb.Context(), c.B().Info().Section("cpu").Build()).ToString()
	if err != nil {
		tb.Fatal(err)
	}
	sum := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	for line := range strings.Lines(info) {
		for _, of := range []string{"used_cpu_sys:", "used_cpu_user:"} {
			if text, is := strings.CutPrefix(line, of); is {
				var seconds float64
				if _, err := fmt.Sscan(text, &seconds); err != nil {
					tb.Fatal(err)
				}
				sum += time.Duration(seconds * float64(time.Second))
			}
		}
	}
	return sum
}
