package doctor

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// people may see what is wrong if their id is "reader".
type people struct{}

var errDenied = errors.New("denied")

func (people) MayReadKeys(_ context.Context, by *accesstoken.Token, _ string) error {
	if by.Subject != "reader" {
		return errDenied
	}
	return nil
}

// A watched is a Watch of one check, which finds what the test says.
type watched struct {
	*Watch
	log    testenv.Log
	reach  atomic.Int64
	runs   atomic.Int64
	status atomic.Value // the Status of the next run
}

func newWatched(t *testing.T, severity Severity) *watched {
	t.Helper()
	w := &watched{}
	w.status.Store(OK)
	check := Check{ID: "one", Title: "One holds", Severity: severity, Run: func(ctx context.Context, _ *Deployment) ([]Finding, error) {
		w.runs.Add(1)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch w.status.Load() {
		case Failed:
			return []Finding{{"auth-1", "a fault", "mend it"}, {"auth-2", "a fault", "mend it"}}, nil
		case Unknown:
			return nil, errors.New("it is away")
		}
		return nil, nil
	}}
	var err error
	w.Watch, err = NewWatch(WatchConfig{
		Open: func(_ context.Context, reach Reach) *Deployment {
			w.reach.Store(int64(reach))
			return &Deployment{Reach: reach}
		},
		Checks: []Check{check}, Rights: people{}, Now: time.Now, Logger: slog.New(slog.NewTextHandler(&w.log, nil)), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A replica looks by itself, says once what begins to be wrong and once that it no longer is, and
// asks nobody.
func TestWatchLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched(t, Warning)
		ctx, stop := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() { w.Run(ctx) })
		time.Sleep(watchAfter - time.Second)
		if w.Last() != nil || w.runs.Load() != 0 {
			t.Error("it looks while the replica starts")
		}
		time.Sleep(watchAfter + 5*time.Second)
		synctest.Wait()
		if r := w.Last(); r == nil || r.Counts() != (Counts{}) || r.Reach != Own || w.reach.Load() != int64(Own) {
			t.Fatalf("%+v", r)
		}
		for _, round := range []struct {
			status Status
			logged string // of this round alone
			counts Counts
		}{
			{Failed, "a check of the deployment found something", Counts{Warnings: 1}},
			{Failed, "", Counts{Warnings: 1}},
			{Unknown, "", Counts{Warnings: 1, Unknown: 1}},
			{Failed, "", Counts{Warnings: 1}},
			{OK, "finds nothing any more", Counts{}},
			{OK, "", Counts{}},
			{Failed, "a check of the deployment found something", Counts{Warnings: 1}},
		} {
			before := len(w.log.String())
			w.status.Store(round.status)
			runs := w.runs.Load()
			time.Sleep(watchEvery + watchEvery/5)
			synctest.Wait()
			if w.runs.Load() == runs {
				t.Fatal("it does not look again")
			}
			logged := w.log.String()[before:]
			if (round.logged == "") != (logged == "") || !strings.Contains(logged, round.logged) {
				t.Errorf("%s: logged %q, want %q", round.status, logged, round.logged)
			}
			if round.status == Failed && round.logged != "" && (strings.Count(logged, "\n") != 1 || !strings.Contains(logged, `level=WARN`) || !strings.Contains(logged, `mend="mend it"`)) {
				t.Errorf("logged %q", logged)
			}
			if got := w.Last().Counts(); got != round.counts {
				t.Errorf("%s: counted %+v", round.status, got)
			}
			for _, status := range []Status{OK, Failed, Unknown, Skipped} {
				want := 0.0
				if status == round.status {
					want = 1
				}
				var metric dto.Metric
				if err := w.gauge.WithLabelValues(string(status), "warning").Write(&metric); err != nil {
					t.Fatal(err)
				}
				if got := metric.GetGauge().GetValue(); got != want {
					t.Errorf("%s: the metric of %s is %v", round.status, status, got)
				}
			}
		}
		stop()
		ended.Wait()
	})
}

// People who may see it are told what all checks find, from one look for all who ask at once, and no
// more often than every ten seconds.
func TestWatchExamines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched(t, Error)
		reader, other := &accesstoken.Token{Subject: "reader"}, &accesstoken.Token{Subject: "other"}
		if r, err := w.Examine(t.Context(), other, ""); !errors.Is(err, errDenied) || r != nil {
			t.Errorf("somebody else: %v, %v", r, err)
		}
		if r, err := w.Own(t.Context(), other, ""); !errors.Is(err, errDenied) || r != nil {
			t.Errorf("somebody else: %v, %v", r, err)
		}
		if w.runs.Load() != 0 {
			t.Error("somebody else had the checks run")
		}
		w.status.Store(Failed)
		ask := func() {
			t.Helper()
			r, err := w.Examine(t.Context(), reader, "")
			if err != nil || r.Counts() != (Counts{Errors: 1}) || r.Reach != All || w.reach.Load() != int64(All) {
				t.Errorf("%+v, %v", r, err)
			}
		}
		var all sync.WaitGroup
		gone, cancel := context.WithCancel(t.Context())
		all.Go(func() { _, _ = w.Examine(gone, reader, "") })
		synctest.Wait() // it has begun, and the others wait for it
		for range 20 {
			all.Go(ask)
		}
		synctest.Wait()
		cancel() // the others want to know none the less
		all.Wait()
		time.Sleep(examineEvery - 2*time.Second)
		ask()
		if n := w.runs.Load(); n != 1 {
			t.Errorf("the checks ran %d times", n)
		}
		time.Sleep(3 * time.Second)
		ask()
		if n := w.runs.Load(); n != 2 {
			t.Errorf("the checks ran %d times", n)
		}
		if r, err := w.Own(t.Context(), reader, ""); err != nil || r != nil {
			t.Errorf("what the replica found by itself: %v, %v", r, err)
		}
	})
}
