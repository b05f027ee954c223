package session_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sys/unix"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// BenchmarkRecognise measures how much CPU time of this process recognising a session
// by its copy takes, beside a GET of as many bytes by the client library alone: with
// one caller and with 64 at once, in turns, on the same Redis. "ratio" is the median
// of the rounds' own, and "ratio-time" the same by the clock.
func BenchmarkRecognise(b *testing.B) {
	benchmarkRecognise(b, func(r *replica) (session.Session, func() error) {
		s, _ := r.start(b)
		return s, func() error { return r.recognise(b.Context(), s) }
	})
}

// BenchmarkRecogniseCookie is BenchmarkRecognise for a browser's session by its cookie.
func BenchmarkRecogniseCookie(b *testing.B) {
	benchmarkRecognise(b, func(r *replica) (session.Session, func() error) {
		s, cookie := r.startBrowser(b)
		return s, func() error { _, err := r.RecogniseCookie(b.Context(), cookie, r.may); return err }
	})
}

func benchmarkRecognise(b *testing.B, start func(*replica) (session.Session, func() error)) {
	redis := testenv.Redis(b)
	r := newReplica(b, testenv.Postgres(b), redis, time.Minute)
	options, err := redisstate.ClientOption(redis)
	if err != nil {
		b.Fatal(err)
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for _, mode := range []struct {
		name           string
		callers, calls int
	}{{"one caller", 1, 4000}, {"64 callers", 64, 200}} {
		b.Run(mode.name, func(b *testing.B) {
			subjects, names := make([]func() error, mode.callers), make([]string, mode.callers)
			for i := range subjects {
				var s session.Session
				s, subjects[i] = start(r)
				names[i] = "copy:session:{" + s.UserID + "}:" + s.ID
			}
			recognise := func(i int) error { return subjects[i]() }
			get := func(i int) error {
				return client.Do(b.Context(), client.B().Get().Key(names[i]).Build()).Error()
			}
			sides := [2]func(int) error{recognise, get}
			var costs [2][]float64
			var ratios, slower []float64
			for round := 0; b.Loop(); round++ {
				for i := range subjects { // a copy lives for a minute
					if err := recognise(i); err != nil {
						b.Fatal(err)
					}
				}
				if err := r.tier.Close(); err != nil {
					b.Fatal(err)
				}
				read := r.reads.gets.Load()
				var each, took [2]float64
				for i := range sides {
					side, began := (i+round)%2, time.Now()
					each[side] = cpuTimeOf(b, mode.callers, mode.calls, sides[side]) * 1e6
					took[side] = time.Since(began).Seconds()
				}
				if r.reads.gets.Load() > read {
					continue // it ended in the middle
				}
				for side := range sides {
					costs[side] = append(costs[side], each[side])
				}
				ratios, slower = append(ratios, each[0]/each[1]), append(slower, took[0]/took[1])
			}
			if len(ratios) == 0 {
				b.Fatal("in each round sessions were read in the database")
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(slower), "ratio-time")
			b.ReportMetric(median(costs[0]), "µs/recognise")
			b.ReportMetric(median(costs[1]), "µs/GET")
			b.ReportMetric(float64(len(ratios)), "rounds")
		})
	}
}

// BenchmarkRenew measures what a renewal takes with tiered beside one with SQL alone,
// of this process's CPU time and by the clock: one caller, in turns, on the same
// PostgreSQL. "share" is SQL's time in that of tiered, the median of the rounds' own.
func BenchmarkRenew(b *testing.B) {
	const renewals = 200
	withCopies := newReplica(b, testenv.Postgres(b), testenv.Redis(b), time.Minute)
	config := withCopies.Config
	config.RenewGrace = 0 // one session renews as often as it likes
	withCopies.Store = session.New(config)
	config.State = withCopies.reads.Store
	alone := session.New(config)
	_, first := withCopies.start(b)
	_, second := withCopies.start(b)
	tokens := [2]string{first, second}
	may := func(context.Context, session.Session) error { return nil }
	sides := [2]*session.Store{withCopies.Store, alone}
	var took, cpu [2][]float64
	var share, cpuShare []float64
	for round := 0; b.Loop(); round++ {
		var each, eachCPU [2]float64
		for i := range sides {
			side := (i + round) % 2
			began, used := time.Now(), cpuTime(b)
			for range renewals {
				var err error
				if _, tokens[side], err = sides[side].Renew(b.Context(), tokens[side], may); err != nil {
					b.Fatal(err)
				}
			}
			each[side] = time.Since(began).Seconds() / renewals
			if err := withCopies.tier.Close(); err != nil { // the copies that are under way cost time, too
				b.Fatal(err)
			}
			eachCPU[side] = (cpuTime(b) - used).Seconds() / renewals
		}
		for side := range sides {
			took[side], cpu[side] = append(took[side], each[side]*1e6), append(cpu[side], eachCPU[side]*1e6)
		}
		share, cpuShare = append(share, each[1]/each[0]), append(cpuShare, eachCPU[1]/eachCPU[0])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(share), "share")
	b.ReportMetric(median(cpuShare), "share-CPU")
	b.ReportMetric(median(took[0]), "µs/tiered")
	b.ReportMetric(median(took[1]), "µs/sql")
	b.ReportMetric(median(cpu[0]), "µs-CPU/tiered")
	b.ReportMetric(median(cpu[1]), "µs-CPU/sql")
	b.ReportMetric(float64(len(share)), "rounds")
}

// cpuTimeOf lets all callers call, and returns how many seconds of this process's CPU
// time a call took.
func cpuTimeOf(b *testing.B, callers, calls int, call func(caller int) error) float64 {
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
	return (cpuTime(b) - began).Seconds() / float64(callers*calls)
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
