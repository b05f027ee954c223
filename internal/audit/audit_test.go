package audit_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// What costs an actor nothing and may be done without end does not fill the store: refusals,
// and what actors do with what is their own. The log has all of it, and the store says how
// many events it lacks. What was done to others is stored, however many there are.
func TestAnActorDoesNotFillTheStore(t *testing.T) {
	clock := now
	f := newTrail(t, newStore(t), func() time.Time { return clock })
	record := func(actor, outcome string, times int, record func(context.Context, store.AuditEvent)) {
		for range times {
			record(t.Context(), store.AuditEvent{Actor: actor, Action: "revoke", Target: "x", Outcome: outcome, Detail: "permission_missing"})
		}
	}
	count := func(actor, outcome string, want int) (newest store.AuditEvent) {
		t.Helper()
		list := events(t, f, store.AuditQuery{Actor: actor, Outcome: outcome, Limit: 200})
		if len(list) != want {
			t.Fatalf("%d events of %s are stored, want %d", len(list), actor, want)
		}
		return list[0]
	}
	record("flooder", audit.Denied, 1000, f.Record)
	record("flooder", audit.OK, 1000, f.RecordOwn)
	count("flooder", audit.Denied, 30)
	count("flooder", audit.OK, 30)
	if lines := strings.Count(f.log.String(), "actor=flooder"); lines != 2000 {
		t.Errorf("the log has %d", lines)
	}
	record("administrator", audit.OK, 150, f.Record)
	count("administrator", audit.OK, 150)
	record("other", audit.Denied, 1, f.Record)
	count("other", audit.Denied, 1)

	read := func() {
		if _, err := f.Page(t.Context(), audit.Query{}); err != nil {
			t.Fatal(err)
		}
	}
	read()
	count("flooder", audit.Denied, 30)
	clock = clock.Add(time.Minute)
	read()
	for _, outcome := range []string{audit.Denied, audit.OK} {
		if e := count("flooder", outcome, 31); e.Detail != "970 times; permission_missing" || e.Target != "x" {
			t.Errorf("%+v", e)
		}
	}
	record("flooder", audit.Denied, 100, f.Record)
	count("flooder", audit.Denied, 31)
	clock = clock.Add(time.Hour)
	record("flooder", audit.Denied, 100, f.Record)
	count("flooder", audit.Denied, 61)
}

// What is recorded soon is stored at once by Run, and before the next page is read.
func TestRecordSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		f := newTrail(t, s, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { f.Run(ctx) })
		synctest.Wait()
		guess := func(times int) {
			for range times {
				f.RecordSoon(store.AuditEvent{Action: "login", Target: "ester", Outcome: audit.Denied, Detail: "invalid_credentials"})
			}
			synctest.Wait()
		}
		guess(1)
		if got := s.details(); !slices.Equal(got, []string{"invalid_credentials"}) || !strings.Contains(f.log.String(), "target=ester") {
			t.Errorf("stored %q, logged %q", got, f.log)
		}
		for range 2 * 30 {
			guess(1)
		}
		if n := len(s.details()); n != 30 {
			t.Errorf("%d events are stored", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := s.details(); len(got) != 31 || got[30] != "31 times; invalid_credentials" {
			t.Errorf("a minute later: %q", got[30:])
		}
		guess(7)
		cancel() // the replica ends
		run.Wait()
		if got := s.details(); len(got) != 32 || got[31] != "7 times; invalid_credentials" {
			t.Errorf("at the end: %q", got[30:])
		}
	})
}

// memory is a store of events in memory.
type memory struct {
	store.Audit
	mu     sync.Mutex
	events []store.AuditEvent
}

func (m *memory) AppendAudit(_ context.Context, e store.AuditEvent) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
	return nil
}

func (m *memory) DeleteAuditBefore(context.Context, time.Time, int) (int, error) { return 0, nil }

func (m *memory) details() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		all = append(all, e.Detail)
	}
	return all
}
