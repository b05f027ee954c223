package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// However many actors there are, a replica remembers a bounded number of them, and stores a
// bounded number of their events.
func TestManyActorsShareABudget(t *testing.T) {
	f := newFlood()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	refuse := func(actor string) bool {
		return f.admit(store.AuditEvent{Actor: actor, Action: "revoke", Outcome: Denied}, now)
	}
	stored := 0
	for i := range 3 * floodKinds {
		if refuse(fmt.Sprint("u", i)) {
			stored++
		}
	}
	if most := floodKinds + likeRate.Burst; stored > most || stored < floodKinds || len(f.kinds) > floodKinds+1 || len(f.actors) > floodKinds+1 {
		t.Errorf("%d refusals are stored, want %d at most; %d kinds of %d actors are remembered", stored, most, len(f.kinds), len(f.actors))
	}
	for range likeRate.Burst - 1 {
		if !refuse("u0") {
			t.Fatal("an actor that was there before pays for the others")
		}
	}
	if refuse("u0") {
		t.Error("an actor has more than one budget")
	}
	now = now.Add(time.Hour) // all are idle
	left := 3*floodKinds - stored + 1
	var counted int
	for _, e := range f.due(now, false) {
		var n int
		switch {
		case e.Actor == "u0":
			counted++ // its one event
		case e.Action == "audit.left_out" && e.Actor == "":
			_, _ = fmt.Sscanf(e.Detail, "%d times", &n)
			counted += n
		default:
			t.Errorf("%+v", e)
		}
	}
	if counted != left {
		t.Errorf("%d events are counted, want %d", counted, left)
	}
	now = now.Add(time.Hour)
	for range likeRate.Burst {
		if !refuse("new") {
			t.Fatal("an actor finds no room, though the others are idle")
		}
	}
	if len(f.kinds) != 1 {
		t.Errorf("%d kinds are remembered", len(f.kinds))
	}
}

// An actor who is refused in many ways has one budget for all of them.
func TestAnActorHasOneBudget(t *testing.T) {
	f := newFlood()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stored := 0
	for minute := range 60 {
		for action := range 20 {
			for range 100 {
				if f.admit(store.AuditEvent{Actor: "ester", Action: fmt.Sprint(action), Outcome: Denied}, now) {
					stored++
				}
			}
		}
		stored += len(f.due(now, false))
		if minute == 0 && stored != actorRate.Burst {
			t.Errorf("%d events at once, want %d", stored, actorRate.Burst)
		}
		now = now.Add(time.Minute)
	}
	if most := 2 * actorRate.Burst; stored > most {
		t.Errorf("%d events in an hour, want %d at most", stored, most)
	}
}

// Guesses at ten thousand accounts leave ten events a minute, and the account that is guessed
// at most is among them.
func TestStrangersShareABudget(t *testing.T) {
	f := newFlood()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stored := 0
	for minute := range 30 {
		for i := range floodKinds - 1 {
			f.count(store.AuditEvent{Action: "login", Target: fmt.Sprint("u", i), Outcome: Denied}, now)
		}
		for range 100 {
			f.count(store.AuditEvent{Action: "login", Target: "ester", Outcome: Denied}, now)
		}
		events := f.due(now, false)
		if len(events) == 0 || events[0].Target != "ester" || events[0].Detail != "100 times; " {
			t.Fatalf("minute %d: %d events, the first is %+v", minute, len(events), events[0])
		}
		stored += len(events)
		now = now.Add(time.Minute)
	}
	if most := strangerRate.Burst + 30*10; stored > most {
		t.Errorf("%d events in half an hour, want %d at most", stored, most)
	}
}
