package activity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

var errNobody = problem.New(problem.Denied, "not_an_administrator", "no")

// rights are those of everybody, or of nobody.
type rights bool

func (r rights) Administration(context.Context, directory.Actor) (store.User, directory.Rights, error) {
	if !r {
		return store.User{}, directory.Rights{}, errNobody
	}
	return store.User{}, directory.Rights{}, nil
}

// A faulty store fails or hangs as the test says.
type faulty struct {
	state.Store
	down, hangs, afterwards atomic.Bool
	writes, lists           atomic.Int64
	ttl                     atomic.Int64
}

func (f *faulty) fault(ctx context.Context) error {
	if f.hangs.Load() {
		<-ctx.Done()
		return state.ErrUnavailable.Because(ctx.Err())
	}
	if f.down.Load() {
		return state.ErrUnavailable
	}
	return nil
}

func (f *faulty) Get(ctx context.Context, k state.Key) (state.Record, error) {
	if err := f.fault(ctx); err != nil {
		return state.Record{}, err
	}
	return f.Store.Get(ctx, k)
}

func (f *faulty) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	f.lists.Add(1)
	if err := f.fault(ctx); err != nil {
		return nil, err
	}
	return f.Store.List(ctx, kind, owner, after, limit)
}

func (f *faulty) Put(ctx context.Context, k state.Key, value []byte, ttl time.Duration) (int64, error) {
	if err := f.fault(ctx); err != nil {
		return 0, err
	}
	f.writes.Add(1)
	f.ttl.Store(int64(ttl))
	version, err := f.Store.Put(ctx, k, value, ttl)
	if f.afterwards.Load() {
		return 0, state.ErrUnavailable
	}
	return version, err
}

// A replica is one process.
type replica struct {
	*Service
	*metrics
	log  *testenv.Log
	end  context.CancelFunc
	done chan struct{}
}

// boot makes a replica that does not run.
func boot(t testing.TB, s state.Store, id string, now func() time.Time) *replica {
	t.Helper()
	r := &replica{metrics: newMetrics(), log: &testenv.Log{}}
	r.Service = New(Config{
		State: s, Instance: id, Gatherer: r.metrics.Registry, Rights: rights(true), Now: now,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)), Registerer: prometheus.NewRegistry(),
	})
	return r
}

// run makes a replica that runs until stop.
func run(t testing.TB, s state.Store, id string, now func() time.Time) *replica {
	t.Helper()
	r := boot(t, s, id, now)
	ctx, cancel := context.WithCancel(t.Context())
	r.end, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

func (r *replica) stop() { r.end(); <-r.done }

// overview is what it answers.
func (r *replica) overview(t testing.TB, span time.Duration) Overview {
	t.Helper()
	o, err := r.Overview(t.Context(), directory.Actor{}, span)
	if err != nil {
		t.Fatal(err)
	}
	if want := int(span / o.Step); len(o.Total.Points) != want || o.Span != span {
		t.Fatalf("%d points of %v, want %d", len(o.Total.Points), o.Step, want)
	}
	for _, s := range o.Replicas {
		for i := range s.Points {
			if !s.Points[i].At.Equal(o.Total.Points[i].At) {
				t.Fatalf("the points of %s are of other times", s.Instance)
			}
		}
	}
	return o
}

// verifications of a series: of all points that are known.
func verificationsOf(s Series) (n int64) {
	for _, p := range s.Points {
		if !p.Known && p.Verifications != 0 {
			return -1
		}
		n += p.Verifications
	}
	return n
}

// shape writes the known points as "x" and the others as ".".
func picture(s Series) string {
	var b strings.Builder
	for _, p := range s.Points {
		b.WriteByte(map[bool]byte{true: 'x', false: '.'}[p.Known])
	}
	return b.String()
}

func (o Overview) of(t testing.TB, id string) Series {
	t.Helper()
	for _, s := range o.Replicas {
		if s.Instance == id {
			return s
		}
	}
	t.Fatalf("there is nothing of %s among %d replicas", id, len(o.Replicas))
	return Series{}
}

// bubble runs a test with a clock of its own that begins in the middle of a minute.
func bubble(t *testing.T, f func(t *testing.T, s *faulty)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(10*time.Hour + 7*time.Minute + 23*time.Second)
		f(t, &faulty{Store: memstate.New(time.Now)})
	})
}

// Each replica knows what went on at all of them, a moment after it happened.
func TestAllReplicasSeeAll(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		a, b := run(t, s, "a", time.Now), run(t, s, "b.example", time.Now)
		for range 30 { // 15 minutes
			a.verified(2)
			b.verified(3)
			b.seconds.WithLabelValues("GET /api/verify").Observe(.003)
			time.Sleep(30 * time.Second)
		}
		time.Sleep(Every + lag)
		for _, asked := range []*replica{a, b} {
			for _, span := range Spans()[2:] {
				o := asked.overview(t, span)
				if got := [3]int64{verificationsOf(o.of(t, "a")), verificationsOf(o.of(t, "b.example")), verificationsOf(o.Total)}; got != [3]int64{60, 90, 150} {
					t.Errorf("%v: %v verifications at a, b and in total", span, got)
				}
				var took Distribution
				for _, p := range o.Total.Points {
					took.Add(p.Latency)
				}
				if took.Count() != 30 || took.Quantile(1) != 5*time.Millisecond {
					t.Errorf("%v: latency %+v", span, took)
				}
				if age := o.AsOf.Sub(o.Total.Seen); age < 0 || age > Every+time.Second {
					t.Errorf("%v: the records are %v old", span, age)
				}
			}
		}
		// What goes on now: ten seconds each, and nothing is missing among them.
		o := a.overview(t, 5*time.Minute)
		if got := picture(o.Total); got != strings.Repeat("x", 30) || verificationsOf(o.Total) < 45 || o.Step != Every {
			t.Errorf("the last 5 minutes are %s, with %d verifications", got, verificationsOf(o.Total))
		}
		if now := time.Now(); now.Sub(o.Total.Points[29].At) > 2*Every+lag {
			t.Errorf("at %v the newest point is of %v", now, o.Total.Points[29].At)
		}
	})
}

// A picture of now moves, and its newest point is never missing.
func TestTheNewestPointIsThere(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		a := run(t, s, "a", time.Now)
		time.Sleep(6 * time.Minute)
		moved := map[time.Time]bool{}
		for range 200 {
			for _, span := range Spans() {
				o := a.overview(t, span)
				newest := o.Total.Points[len(o.Total.Points)-1]
				if !newest.Known {
					t.Fatalf("at %v the newest point of %v is not known", o.AsOf, newest.At)
				}
				if over := !newest.At.Add(o.Step).After(o.AsOf.Add(-lag)); over == newest.Partial {
					t.Fatalf("at %v the point of %v (%v) says of itself that it is partial: %v", o.AsOf, newest.At, o.Step, newest.Partial)
				}
				if span == 5*time.Minute {
					moved[newest.At] = true
				}
			}
			time.Sleep(711 * time.Millisecond)
		}
		if len(moved) < 14 {
			t.Errorf("in 142 s the picture moved %d times", len(moved))
		}
	})
}

// While a replica is down nothing is known of it, which is not zero, and others are.
func TestAReplicaThatIsDownIsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		time.Sleep(37 * time.Second) // to the beginning of a minute
		a, b := run(t, s, "a", time.Now), run(t, s, "b", time.Now)
		a.verified(10)
		time.Sleep(5 * time.Minute)
		a.stop()
		time.Sleep(4 * time.Minute)
		a = run(t, s, "a", time.Now)
		a.verified(5) // counted from zero by the new process
		time.Sleep(3 * time.Minute)
		o := b.overview(t, 15*time.Minute)
		if got, want := picture(o.of(t, "a")), ".."+"xxxxxx"+"..."+"xxxx"; got != want {
			t.Errorf("a is %s, want %s", got, want)
		}
		if got := picture(o.Total); strings.Trim(got, ".") != strings.Repeat("x", 13) {
			t.Errorf("the total is %s", got)
		}
		if got := verificationsOf(o.of(t, "a")); got != 15 {
			t.Errorf("%d verifications", got)
		}
		b.stop()
		time.Sleep(3 * time.Hour)
		if o := a.overview(t, 15*time.Minute); len(o.Replicas) != 1 || o.Unreadable != 0 {
			t.Errorf("a replica of which nothing is known is shown: %+v", o.Replicas)
		}
		if got := verificationsOf(a.overview(t, 24*time.Hour).of(t, "a")); got != 15 {
			t.Errorf("%d verifications after three hours", got)
		}
	})
}

// A replica that ends has written all, and one that is killed all but its last ten seconds.
func TestStopAndKill(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		a := run(t, s, "a", time.Now)
		time.Sleep(time.Minute + time.Second)
		a.verified(7)
		a.stop()
		b := run(t, s, "b", time.Now)
		if got := verificationsOf(b.overview(t, time.Hour).of(t, "a")); got != 7 {
			t.Errorf("after its end %d of 7", got)
		}
		killed := boot(t, s, "k", time.Now)
		for n := range 100 {
			killed.verified(1)
			if n%10 == 9 {
				if err := killed.keep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		killed.verified(5) // lost: it is not asked any more
		again := run(t, s, "k", time.Now)
		again.verified(1000)
		time.Sleep(Every + time.Second)
		if got := verificationsOf(b.overview(t, time.Hour).of(t, "k")); got != 1100 {
			t.Errorf("after it was killed and restarted: %d", got)
		}
	})
}

// What could not be written, or has been written although the answer was lost, counts once. An
// outage is logged once, whatever it lasts, and the same of a replica that starts in it.
func TestOutages(t *testing.T) {
	for _, afterwards := range []bool{false, true} {
		bubble(t, func(t *testing.T, s *faulty) {
			old := run(t, s, "late", time.Now)
			old.verified(100)
			time.Sleep(time.Minute)
			old.stop()
			a := run(t, s, "a", time.Now)
			time.Sleep(time.Minute)
			s.down.Store(!afterwards)
			s.afterwards.Store(afterwards)
			late := run(t, s, "late", time.Now)
			for range 100 {
				a.verified(1)
				late.verified(1)
				time.Sleep(7 * time.Second)
			}
			if !afterwards {
				if _, err := a.Overview(t.Context(), directory.Actor{}, time.Hour); !errors.Is(err, state.ErrUnavailable) {
					t.Errorf("during the outage: %v", err)
				}
			}
			s.down.Store(false)
			s.afterwards.Store(false)
			time.Sleep(2 * Every)
			o := a.overview(t, time.Hour)
			if got := verificationsOf(o.of(t, "a")); got != 100 {
				t.Errorf("a: %d of 100", got)
			}
			if got := verificationsOf(o.of(t, "late")); got != 200 {
				t.Errorf("late: %d of 200", got)
			}
			for _, r := range []*replica{a, late} {
				if got := strings.Count(r.log.String(), "\n"); got != 2 {
					t.Errorf("%d entries in the log:\n%s", got, r.log)
				}
			}
		})
	}
}

// A state that hangs delays the end of a replica by no more than the time-out.
func TestTheEndIsPrompt(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		for _, hangs := range []bool{false, true} {
			s.hangs.Store(hangs)
			a := run(t, s, "a", time.Now)
			time.Sleep(33 * time.Second)
			asked := time.Now()
			a.stop()
			if took := time.Since(asked); took > timeout || !hangs && took > 0 {
				t.Errorf("with a state that hangs (%v) it took %v", hangs, took)
			}
		}
		before := s.writes.Load()
		time.Sleep(time.Hour)
		if s.writes.Load() != before {
			t.Error("it writes after its end")
		}
	})
}

// A replica writes one record every ten seconds, however much happens, and reads nothing.
func TestWrites(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		a := run(t, s, "a", time.Now)
		time.Sleep(time.Second)
		if got := time.Duration(s.ttl.Load()); got != youngLife {
			t.Errorf("a new replica's record lives for %v", got)
		}
		for range 10_000 {
			a.verified(1)
			time.Sleep(time.Hour / 10_000)
		}
		if got := s.writes.Load(); got < 360 || got > 362 {
			t.Errorf("%d writes in an hour", got)
		}
		if got := time.Duration(s.ttl.Load()); got != life {
			t.Errorf("its record lives for %v", got)
		}
		before := s.lists.Load()
		a.overview(t, time.Hour)
		if got := s.lists.Load() - before; before != 0 || got != 1 {
			t.Errorf("%d lists before an overview, %d for it", before, got)
		}
	})
}

// Clocks that differ by hours, or are set forward and back, cost points and nothing else.
func TestWrongClocks(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		var off atomic.Int64
		wrong := func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
		a, b := run(t, s, "a", time.Now), run(t, s, "b", wrong)
		for _, d := range []time.Duration{0, time.Hour, -time.Hour, 1000 * time.Hour, -9 * time.Hour, 24 * 365 * 200 * time.Hour, 0} {
			off.Store(int64(d))
			for range 10 {
				a.verified(1)
				b.verified(1)
				time.Sleep(time.Minute)
			}
			for _, span := range Spans() {
				a.overview(t, span)
				b.overview(t, span)
			}
		}
		o := a.overview(t, 15*time.Minute)
		if got := verificationsOf(o.of(t, "b")); got < 9 || got > 11 {
			t.Errorf("%d verifications at a replica whose clock is right again", got)
		}
		if got := verificationsOf(a.overview(t, 3*time.Hour).of(t, "a")); got != 70 {
			t.Errorf("%d verifications at the other one", got)
		}
	})
}

// Records that are none are left out and counted; the others are shown.
func TestForeignRecords(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		a := run(t, s, "a", time.Now)
		a.verified(3)
		time.Sleep(time.Minute)
		own, err := s.Store.Get(t.Context(), key("a"))
		if err != nil {
			t.Fatal(err)
		}
		for id, value := range map[string][]byte{
			key("torn").ID:     own.Value[:len(own.Value)/2],
			key("text").ID:     []byte("hello"),
			key("none").ID:     nil,
			key("next").ID:     append([]byte{version + 1}, own.Value[1:]...),
			key("<b>").ID:      own.Value,
			"not-base-64-url_": own.Value,
		} {
			if _, err := s.Store.Put(t.Context(), state.Key{Kind: kind, Owner: owner, ID: id}, value, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		o := a.overview(t, time.Hour)
		if o.Unreadable != 6 || len(o.Replicas) != 1 || verificationsOf(o.of(t, "a")) != 3 || verificationsOf(o.Total) != 3 {
			t.Errorf("%d records are unreadable, %d replicas", o.Unreadable, len(o.Replicas))
		}
		// A replica whose own record is torn begins anew, and says so once.
		torn := run(t, s, "torn", time.Now)
		torn.verified(4)
		time.Sleep(time.Minute)
		if o := a.overview(t, time.Hour); o.Unreadable != 5 || verificationsOf(o.of(t, "torn")) != 4 {
			t.Errorf("after its restart %+v", o.of(t, "torn"))
		}
		if got := strings.Count(torn.log.String(), "\n"); got != 1 {
			t.Errorf("the log has %s", torn.log)
		}
	})
}

// However many records somebody writes, a page reads no more than it may.
func TestManyRecords(t *testing.T) {
	s := &faulty{Store: memstate.New(time.Now)}
	a := boot(t, s, "a", time.Now)
	if err := a.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	value := mustEncode(t, full(func() uint32 { return maxFigure }))
	for n := range 10_000 {
		if _, err := s.Put(t.Context(), key(fmt.Sprintf("%05d", n)), value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	o := a.overview(t, 48*time.Hour)
	if !o.More || len(o.Replicas) > MaxReplicas || s.lists.Load() != 1 {
		t.Errorf("%d replicas, more: %v, %d lists", len(o.Replicas), o.More, s.lists.Load())
	}
	for _, p := range o.Total.Points {
		if p.Verifications < 0 || p.Verifications > MaxReplicas*maxFigure {
			t.Fatalf("a total of %d", p.Verifications)
		}
	}
	t.Logf("%v for %d of 10000 records", time.Since(began), MaxReplicas)
}

// Who administrates nothing sees nothing, and nothing is read for them.
func TestRights(t *testing.T) {
	s := &faulty{Store: memstate.New(time.Now)}
	a := boot(t, s, "a", time.Now)
	a.Rights = rights(false)
	if _, err := a.Overview(t.Context(), directory.Actor{}, time.Hour); !errors.Is(err, errNobody) || s.lists.Load() != 0 {
		t.Errorf("%v, after %d lists", err, s.lists.Load())
	}
	a.Rights = rights(true)
	for _, span := range []time.Duration{0, -time.Hour, time.Minute, 2 * time.Hour, 1 << 62} {
		if _, err := a.Overview(t.Context(), directory.Actor{}, span); !errors.Is(err, errUnknownSpan) {
			t.Errorf("%v: %v", span, err)
		}
	}
}

// A gatherer that fails in part gives the rest.
type partly struct{ prometheus.Gatherer }

func (p partly) Gather() ([]*dto.MetricFamily, error) {
	families, err := p.Gatherer.Gather()
	return families, errors.Join(err, errors.New("one collector has failed"))
}

func TestACollectorFails(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		r := boot(t, s, "a", time.Now)
		r.Gatherer = partly{r.metrics}
		r.verified(9)
		if err := r.keep(t.Context()); err == nil {
			t.Error("nobody learns of it")
		}
		time.Sleep(lag + Every/2)
		if got := verificationsOf(r.overview(t, time.Hour).of(t, "a")); got != 9 {
			t.Errorf("%d of 9", got)
		}
	})
}

// Many replicas count, write and read at the same time.
func TestConcurrently(t *testing.T) {
	bubble(t, func(t *testing.T, s *faulty) {
		var all []*replica
		for n := range 8 {
			all = append(all, run(t, s, fmt.Sprint("r", n), time.Now))
		}
		var wg sync.WaitGroup
		for _, r := range all {
			for range 3 {
				wg.Go(func() {
					for range 100 {
						r.verified(1)
						if _, err := r.Overview(t.Context(), directory.Actor{}, time.Hour); err != nil {
							t.Error(err)
						}
						time.Sleep(time.Second)
					}
				})
			}
		}
		wg.Wait()
		time.Sleep(Every)
		if got := verificationsOf(all[0].overview(t, time.Hour).Total); got != 8*300 {
			t.Errorf("%d of %d", got, 8*300)
		}
	})
}
