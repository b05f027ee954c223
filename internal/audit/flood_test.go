package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// However many actors are refused, a replica remembers a bounded number of them, and
// stores a bounded number of their refusals.
func TestManyActorsShareABudget(t *testing.T) {
	f := flood{actors: map[string]*refusals{}}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	refuse := func(actor string) bool {
		_, stored := f.admit(store.AuditEvent{Actor: actor, Outcome: Denied, At: now})
		return stored
	}
	stored := 0
	for i := range 3 * floodActors {
		if refuse(fmt.Sprint("u", i)) {
			stored++
		}
	}
	if most := floodActors + floodRate.Burst; stored > most || stored < floodActors || len(f.actors) > floodActors+1 {
		t.Errorf("%d refusals are stored, want %d at most; %d actors are remembered", stored, most, len(f.actors))
	}
	for range floodRate.Burst - 1 {
		if !refuse("u0") {
			t.Fatal("an actor that was there before pays for the others")
		}
	}
	if refuse("u0") {
		t.Error("an actor has more than one budget")
	}
	now = now.Add(time.Minute) // all are idle
	for range floodRate.Burst {
		if !refuse("new") {
			t.Fatal("an actor finds no room, though the others are idle")
		}
	}
	if len(f.actors) != 1 {
		t.Errorf("%d actors are remembered", len(f.actors))
	}
}
