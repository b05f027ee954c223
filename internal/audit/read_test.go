package audit_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// read returns the actions of the events of all pages.
func read(t *testing.T, f fixture, q audit.Query) (actions []string) {
	t.Helper()
	for {
		page, err := f.Page(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			actions = append(actions, e.Action)
		}
		if q.After = page.Next; q.After == "" {
			return actions
		}
	}
}

func TestPagesByTime(t *testing.T) {
	clock := now
	f := newTrail(t, newStore(t), func() time.Time { return clock })
	moments := []time.Time{now, now.Add(999 * time.Microsecond), now.Add(time.Millisecond), now.Add(time.Second), now.Add(time.Hour)}
	for i, m := range moments {
		clock = m
		f.Record(t.Context(), store.AuditEvent{Action: fmt.Sprint(i), Actor: fmt.Sprint("u", i%2), Target: "t", Outcome: audit.OK})
	}
	clock = now.Add(time.Minute) // the clock of this replica, or of another one, goes behind
	f.Record(t.Context(), store.AuditEvent{Action: "late", Actor: "u0", Target: "t", Outcome: audit.OK})
	for _, c := range []struct {
		q    audit.Query
		want []string
	}{
		{audit.Query{}, []string{"4", "late", "3", "2", "1", "0"}},
		{audit.Query{Since: now}, []string{"4", "late", "3", "2", "1", "0"}},
		{audit.Query{Since: now.Add(time.Millisecond)}, []string{"4", "late", "3", "2"}},
		{audit.Query{Since: now.Add(1999 * time.Microsecond)}, []string{"4", "late", "3", "2"}},
		{audit.Query{Since: now.Add(2 * time.Millisecond)}, []string{"4", "late", "3"}},
		{audit.Query{Until: now}, nil},
		{audit.Query{Until: now.Add(time.Millisecond)}, []string{"1", "0"}},
		{audit.Query{Until: now.Add(time.Second)}, []string{"2", "1", "0"}},
		{audit.Query{Since: now.Add(time.Millisecond), Until: now.Add(time.Hour)}, []string{"late", "3", "2"}},
		{audit.Query{Since: now.Add(time.Millisecond), Until: now.Add(time.Hour), Actor: "u0"}, []string{"late", "2"}},
		{audit.Query{Since: now.Add(time.Millisecond), Until: now.Add(time.Hour), Target: "t", Action: "3", Outcome: audit.OK}, []string{"3"}},
		{audit.Query{Since: time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), Until: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}, []string{"4", "late", "3", "2", "1", "0"}},
		{audit.Query{Until: time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)}, nil},
		{audit.Query{Since: now.Add(2 * time.Hour)}, nil},
		{audit.Query{Since: now.In(time.FixedZone("", 3600)), Until: now.Add(time.Millisecond).In(time.FixedZone("", -3600))}, []string{"1", "0"}},
	} {
		for _, limit := range []int{0, 1, 2, audit.MaxPage} {
			c.q.Limit = limit
			if got := read(t, f, c.q); !slices.Equal(got, c.want) {
				t.Errorf("%+v: %v, want %v", c.q, got, c.want)
			}
		}
	}
}

// A page that begins later than a query ends has nothing that is later than the query.
func TestPageAfterTheEnd(t *testing.T) {
	clock := now
	f := newTrail(t, newStore(t), func() time.Time { return clock })
	for i := range 3 {
		f.Record(t.Context(), store.AuditEvent{Action: fmt.Sprint(i)})
		clock = clock.Add(time.Second)
	}
	newest := events(t, f, store.AuditQuery{})[0].ID
	if got := read(t, f, audit.Query{Until: now.Add(time.Second), After: newest}); !slices.Equal(got, []string{"0"}) {
		t.Errorf("%v", got)
	}
}

func TestPagesAreBounded(t *testing.T) {
	f := newTrail(t, newStore(t), at(now))
	for i := range audit.MaxPage + 10 {
		f.Record(t.Context(), store.AuditEvent{Action: fmt.Sprint("a", i)})
	}
	for limit, want := range map[int]int{0: audit.DefaultPage, 7: 7, audit.MaxPage: audit.MaxPage} {
		page, err := f.Page(t.Context(), audit.Query{Limit: limit})
		if err != nil || len(page.Events) != want || page.Events[0].Action != "a209" || page.Next == "" {
			t.Errorf("limit %d: %d events, next %q, %v", limit, len(page.Events), page.Next, err)
		}
	}
	if n := len(read(t, f, audit.Query{Limit: 100})); n != audit.MaxPage+10 {
		t.Errorf("%d events on all pages", n)
	}
}

// A query that is none is refused, and not answered with other events than it means.
func TestQueriesThatAreRefused(t *testing.T) {
	f := newTrail(t, newStore(t), at(now))
	f.Record(t.Context(), store.AuditEvent{Action: "login", Outcome: audit.OK})
	id := events(t, f, store.AuditQuery{})[0].ID
	for _, c := range []struct {
		q    audit.Query
		code string
	}{
		{audit.Query{Limit: -1}, "invalid_limit"},
		{audit.Query{Limit: audit.MaxPage + 1}, "invalid_limit"},
		{audit.Query{Outcome: "OK"}, "invalid_outcome"},
		{audit.Query{Outcome: "' OR '1'='1"}, "invalid_outcome"},
		{audit.Query{After: "x"}, "invalid_cursor"},
		{audit.Query{After: "~"}, "invalid_cursor"},
		{audit.Query{After: strings.ToUpper(id)}, "invalid_cursor"},
		{audit.Query{After: "urn:uuid:" + id}, "invalid_cursor"},
		{audit.Query{After: id + "\x00"}, "invalid_cursor"},
		{audit.Query{Since: now, Until: now}, "invalid_time_range"},
		{audit.Query{Since: now, Until: now.Add(999 * time.Microsecond)}, "invalid_time_range"},
		{audit.Query{Since: now, Until: now.Add(-time.Hour)}, "invalid_time_range"},
	} {
		if page, err := f.Page(t.Context(), c.q); problem.From(err).Code != c.code || len(page.Events) > 0 {
			t.Errorf("%+v: %v, want %s", c.q, err, c.code)
		}
	}
	if _, err := f.Page(t.Context(), audit.Query{After: id}); err != nil {
		t.Error(err)
	}
}

// The ids are UUIDv7 of the events' own times, and in the order of the events, however
// many fall into one moment and wherever the clock goes.
func TestIDsAreInTheOrderOfEvents(t *testing.T) {
	clock := now
	f := newTrail(t, newStore(t), func() time.Time { return clock })
	record := func(n int) {
		for i := range n {
			f.Record(t.Context(), store.AuditEvent{Action: fmt.Sprint(i)})
		}
	}
	record(100)
	clock = now.Add(250 * time.Nanosecond) // ids have no such moments between them
	record(1)
	clock = now.Add(-time.Hour)
	record(2)
	clock = now.Add(time.Hour)
	record(1)
	list := events(t, f, store.AuditQuery{Limit: 200})
	var order []string
	for _, e := range list {
		id, err := uuid.Parse(e.ID)
		if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Fatalf("the id %s is no UUIDv7: %v", e.ID, err)
		}
		if sec, nsec := id.Time().UnixTime(); time.Unix(sec, nsec).UnixMilli() != e.At.UnixMilli() {
			t.Errorf("the id %s says %v, the event %v", e.ID, time.Unix(sec, nsec).UTC(), e.At)
		}
		order = append(order, e.Action)
	}
	want := []string{"0", "0"}
	for i := 99; i >= 0; i-- {
		want = append(want, fmt.Sprint(i))
	}
	want = append(want, "1", "0")
	if !slices.Equal(order, want) {
		t.Errorf("the order is %v", order)
	}
}

// Replicas do not see each other's ids: at one and the same time it is chance that
// keeps them apart, and without it nothing is stored.
func TestIDsNeedRandomness(t *testing.T) {
	s := newStore(t)
	a, b := newTrail(t, s, at(now)), newTrail(t, s, at(now))
	a.Record(t.Context(), store.AuditEvent{Action: "a"})
	b.Record(t.Context(), store.AuditEvent{Action: "b"})
	if n := len(read(t, a, audit.Query{})); n != 2 {
		t.Errorf("%d events of two replicas", n)
	}
	log := new(bytes.Buffer)
	trail, err := audit.New(audit.Config{Store: s, Now: at(now), Rand: io.LimitReader(rand.Reader, 7),
		Logger: slog.New(slog.NewTextHandler(log, nil)), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	trail.Record(t.Context(), store.AuditEvent{Action: "c"})
	if n := len(read(t, a, audit.Query{})); n != 2 || !strings.Contains(log.String(), "no event id") {
		t.Errorf("%d events; %s", n, log)
	}
}
