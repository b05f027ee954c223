package poll

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A logBuffer is a log that a test reads while the loop runs.
type logBuffer = testenv.Log

// run calls test with a loop that calls do, and with the times at which it called it.
func run(t *testing.T, change func(*Loop), do func(call int) error, test func(bell Bell, calls func() []time.Duration, log *logBuffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var calls []time.Duration
		var log logBuffer
		l := Loop{
			Do: func(context.Context) error {
				calls = append(calls, time.Since(began))
				return do(len(calls))
			},
			Every: time.Second, Bell: NewBell(), Logger: slog.New(slog.NewTextHandler(&log, nil)), Failing: "it fails", Working: "it works again",
		}
		if change != nil {
			change(&l)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Run(ctx)
		}()
		test(l.Bell, func() []time.Duration { synctest.Wait(); return calls }, &log)
		cancel()
		<-done
	})
}

func nothing(int) error { return nil }

// A call begins at once, and then as often as the loop says, however long each takes.
func TestEvery(t *testing.T) {
	for _, took := range []time.Duration{0, 700 * time.Millisecond} {
		run(t, nil, func(int) error { time.Sleep(took); return nil }, func(_ Bell, calls func() []time.Duration, _ *logBuffer) {
			time.Sleep(3*time.Second + 1)
			if got, want := calls(), []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second}; !slices.Equal(got, want) {
				t.Errorf("calls that take %v begin at %v", took, got)
			}
		})
	}
}

// What is due sooner is done sooner, and what is due later does not delay the poll.
func TestDue(t *testing.T) {
	dues := []time.Duration{300 * time.Millisecond, time.Hour, 0}
	run(t, func(l *Loop) {
		l.Due = func() (due time.Duration) { due, dues = dues[0], append(dues[1:], time.Hour); return due }
	}, nothing, func(_ Bell, calls func() []time.Duration, _ *logBuffer) {
		time.Sleep(2 * time.Second)
		if got, want := calls(), []time.Duration{0, 300 * time.Millisecond, 1300 * time.Millisecond, 1300 * time.Millisecond}; !slices.Equal(got, want) {
			t.Errorf("calls begin at %v", got)
		}
	})
}

// A ring is heard at once, also one during a call; several are one.
func TestBell(t *testing.T) {
	run(t, nil, func(call int) error {
		if call == 2 {
			time.Sleep(200 * time.Millisecond)
		}
		return nil
	}, func(bell Bell, calls func() []time.Duration, _ *logBuffer) {
		time.Sleep(100 * time.Millisecond)
		bell.Ring()
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		for range 3 {
			bell.Ring() // while it is being called
		}
		time.Sleep(200 * time.Millisecond)
		if got, want := calls(), []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond}; !slices.Equal(got, want) {
			t.Errorf("calls begin at %v", got)
		}
	})
}

// A failure is logged once, and once more that it is over. The end is no failure.
func TestLog(t *testing.T) {
	fails := map[int]bool{2: true, 3: true, 4: true, 6: true}
	run(t, nil, func(call int) error {
		if fails[call] {
			return errors.New("away")
		}
		return nil
	}, func(_ Bell, _ func() []time.Duration, log *logBuffer) {
		for call, want := range [][2]int{{0, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 1}, {2, 1}, {2, 2}} {
			synctest.Wait()
			if got := log.String(); strings.Count(got, `level=ERROR msg="it fails" err=away`) != want[0] || strings.Count(got, `level=INFO msg="it works again"`) != want[1] {
				t.Errorf("after call %d the log is %s", call+1, got)
			}
			time.Sleep(time.Second)
		}
	})
}

// The loop ends with its context, also while it calls the function, and says nothing.
func TestEnd(t *testing.T) {
	for name, do := range map[string]func(ctx context.Context) error{
		"waiting": func(context.Context) error { return nil },
		"calling": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				l := Loop{Do: do, Every: time.Second, Bell: NewBell(), Logger: slog.New(slog.NewTextHandler(&log, nil)), Failing: "it fails", Working: "it works again"}
				ctx, cancel := context.WithCancel(t.Context())
				ended := false
				go func() { l.Run(ctx); ended = true }()
				synctest.Wait()
				cancel()
				synctest.Wait()
				if got := log.String(); !ended || got != "" {
					t.Errorf("it has ended: %v, and the log is %s", ended, got)
				}
			})
		})
	}
}
