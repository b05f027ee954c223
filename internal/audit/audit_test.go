package audit_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newStore(t *testing.T) store.Store {
	t.Helper()
	return sqlstore.New(sqldbtest.Open(t))
}

type fixture struct {
	*audit.Trail
	log      *bytes.Buffer
	registry *prometheus.Registry
}

func newTrail(t *testing.T, s store.Audit, clock func() time.Time) fixture {
	t.Helper()
	f := fixture{log: new(bytes.Buffer), registry: prometheus.NewRegistry()}
	var err error
	f.Trail, err = audit.New(audit.Config{Store: s, Retention: 24 * time.Hour, Now: clock, Rand: rand.Reader,
		Logger: slog.New(slog.NewTextHandler(f.log, nil)), Registerer: f.registry})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f fixture) failures(t *testing.T) float64 {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "watchword_audit_write_failures_total" {
		t.Fatalf("metrics %v, %v", families, err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func events(t *testing.T, f fixture, q store.AuditQuery) []store.AuditEvent {
	t.Helper()
	list, err := f.Events(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRecordIsInTheLogAndInTheStore(t *testing.T) {
	f := newTrail(t, newStore(t), at(now))
	f.Record(t.Context(), store.AuditEvent{Actor: "u1", Action: "login", Target: "s1", Outcome: audit.OK, Address: "192.0.2.1", Detail: "password"})
	got := events(t, f, store.AuditQuery{})
	if len(got) != 1 {
		t.Fatalf("%d events", len(got))
	}
	e := got[0]
	if len(e.ID) != 36 || e.ID[14] != '7' || !e.At.Equal(now) || e.Actor != "u1" || e.Action != "login" ||
		e.Target != "s1" || e.Outcome != "ok" || e.Address != "192.0.2.1" || e.Detail != "password" {
		t.Errorf("stored %+v", e)
	}
	for _, want := range []string{"level=INFO", "action=login", "actor=u1", "target=s1", "outcome=ok", "address=192.0.2.1", "detail=password"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, f.log)
		}
	}
}

// The event of a client that hangs up is in the trail.
func TestRecordOutlivesItsRequest(t *testing.T) {
	f := newTrail(t, newStore(t), at(now))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Record(ctx, store.AuditEvent{Action: "login", Outcome: audit.Denied})
	if n := len(events(t, f, store.AuditQuery{})); n != 1 {
		t.Errorf("%d events", n)
	}
}

type broken struct{ store.Audit }

func (broken) AppendAudit(context.Context, store.AuditEvent) error { return errors.New("disk full") }

func TestWhatTheStoreDoesNotTakeIsNotLostSilently(t *testing.T) {
	f := newTrail(t, broken{}, at(now))
	f.Record(t.Context(), store.AuditEvent{Action: "login", Actor: "u1"})
	log := f.log.String()
	if !strings.Contains(log, "action=login outcome=\"\" actor=u1") || !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "disk full") {
		t.Errorf("log: %s", log)
	}
	if n := f.failures(t); n != 1 {
		t.Errorf("%v failures counted", n)
	}
}

func TestRecordInSharesTheTransaction(t *testing.T) {
	s := newStore(t)
	f := newTrail(t, s, at(now))
	undo := errors.New("undo")
	for _, result := range []error{undo, nil} {
		err := s.Update(t.Context(), func(r store.Records) error {
			if err := f.RecordIn(t.Context(), r, store.AuditEvent{Action: "user.create"}); err != nil {
				return err
			}
			return result
		})
		if !errors.Is(err, result) {
			t.Fatal(err)
		}
		want := 1
		if result != nil {
			want = 0
		}
		if got := events(t, f, store.AuditQuery{}); len(got) != want {
			t.Errorf("%d events after %v", len(got), result)
		}
	}
	if f.log.Len() != 0 {
		t.Errorf("a transaction that may yet be undone is in the log: %s", f.log)
	}
	f.Log(t.Context(), store.AuditEvent{Action: "user.create"})
	if !strings.Contains(f.log.String(), "action=user.create") || len(events(t, f, store.AuditQuery{})) != 1 {
		t.Errorf("log: %s", f.log)
	}
}

func TestClientsCannotForgeLines(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"line break":     {"a\nlevel=INFO msg=audit action=login", "a\uFFFDlevel=INFO msg=audit action=login"},
		"carriage":       {"a\rb", "a\uFFFDb"},
		"escape":         {"\x1b[2Ja", "\uFFFD[2Ja"},
		"null":           {"a\x00b", "a\uFFFDb"},
		"C1":             {"a\u0085b", "a\uFFFDb"},
		"line separator": {"a\u2028b", "a\uFFFDb"},
		"right to left":  {"a\u202Eb", "a\uFFFDb"},
		"not UTF-8":      {"a\xffb", "a\uFFFDb"},
		"letters":        {"Ünïcode 日本 <b>", "Ünïcode 日本 <b>"},
	} {
		f := newTrail(t, newStore(t), at(now))
		f.Record(t.Context(), store.AuditEvent{Actor: c.in, Action: c.in, Target: c.in, Outcome: c.in, Address: c.in, Detail: c.in})
		e := events(t, f, store.AuditQuery{})[0]
		for _, got := range []string{e.Actor, e.Action, e.Target, e.Outcome, e.Address, e.Detail} {
			if got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
		if n := strings.Count(f.log.String(), "\n"); n != 1 {
			t.Errorf("%s: %d lines in the log", name, n)
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	f := newTrail(t, newStore(t), at(now))
	long := strings.Repeat("ü", 10_000)
	f.Record(t.Context(), store.AuditEvent{Actor: long, Action: long, Detail: long})
	e := events(t, f, store.AuditQuery{})[0]
	if utf8.RuneCountInString(e.Action) != 64 || utf8.RuneCountInString(e.Detail) != 500 || !utf8.ValidString(e.Actor) || len(e.Actor) > 255 {
		t.Errorf("%d, %d, %d", len(e.Action), len(e.Detail), len(e.Actor))
	}
	if f.failures(t) != 0 {
		t.Error("a long text cost the event")
	}
}

func TestEventsAreBoundedAndNewestFirst(t *testing.T) {
	f := newTrail(t, newStore(t), at(now))
	for i := range 210 {
		f.Record(t.Context(), store.AuditEvent{Action: fmt.Sprint("a", i)})
	}
	for limit, want := range map[int]int{-1: 50, 0: 50, 7: 7, 1000: 200} {
		got := events(t, f, store.AuditQuery{Limit: limit})
		if len(got) != want || got[0].Action != "a209" {
			t.Errorf("limit %d: %d events from %s on", limit, len(got), got[0].Action)
		}
	}
	page := events(t, f, store.AuditQuery{Limit: 3})
	if next := events(t, f, store.AuditQuery{Limit: 3, Before: page[2].ID}); next[0].Action != "a206" {
		t.Errorf("the next page begins with %s", next[0].Action)
	}
}

func TestSweepDeletesWhatIsOldAndNothingElse(t *testing.T) {
	s := newStore(t)
	clock := now
	f := newTrail(t, s, func() time.Time { return clock })
	if err := s.Update(t.Context(), func(r store.Records) error {
		for range 1005 { // more than a batch
			if err := f.RecordIn(t.Context(), r, store.AuditEvent{Action: "old"}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	clock = now.Add(time.Microsecond)
	f.Record(t.Context(), store.AuditEvent{Action: "young"})
	clock = clock.Add(24 * time.Hour)
	if err := f.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := events(t, f, store.AuditQuery{Limit: 200}); len(got) != 1 || got[0].Action != "young" {
		t.Errorf("%d events are left", len(got))
	}
}

func TestRunSweepsAndEnds(t *testing.T) {
	s := newStore(t)
	clock := at(now)
	f := newTrail(t, s, clock)
	f.Record(t.Context(), store.AuditEvent{Action: "old"})
	f = newTrail(t, s, at(now.Add(25*time.Hour)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	for len(events(t, f, store.AuditQuery{})) > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Error("nothing was swept")
	}
	cancel()
	<-done
}

// Many refusals of an actor are in the log and not in the store. What is not refused, and
// what other actors do, is stored.
func TestRefusalsDoNotFillTheStore(t *testing.T) {
	clock := now
	f := newTrail(t, newStore(t), func() time.Time { return clock })
	record := func(actor, outcome string, times int) {
		for range times {
			f.Record(t.Context(), store.AuditEvent{Actor: actor, Action: "revoke", Target: "x", Outcome: outcome, Detail: "permission_missing"})
		}
	}
	count := func(actor string, want int) (newest store.AuditEvent) {
		t.Helper()
		list := events(t, f, store.AuditQuery{Actor: actor, Limit: 200})
		if len(list) != want {
			t.Fatalf("%d events of %s are stored, want %d", len(list), actor, want)
		}
		return list[0]
	}
	record("flooder", audit.Denied, 1000)
	record("flooder", audit.Failed, 1000)
	count("flooder", 30)
	if lines := strings.Count(f.log.String(), "actor=flooder"); lines != 2000 {
		t.Errorf("the log has %d", lines)
	}
	record("flooder", audit.OK, 5)
	count("flooder", 35)
	record("other", audit.Denied, 1)
	count("other", 1)
	clock = clock.Add(time.Second)
	record("flooder", audit.Denied, 100)
	if e := count("flooder", 36); e.Detail != "1970 refusals before were left out; permission_missing" {
		t.Errorf("it says %q", e.Detail)
	}
	clock = clock.Add(time.Minute)
	record("flooder", audit.Denied, 100)
	count("flooder", 66)
}
