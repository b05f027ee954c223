package login

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/problem"
)

// A user who has spent a budget is told when there is more. A superuser has no budget, and
// nobody spends another's.
func TestBudgets(t *testing.T) {
	s, p := newService(t)
	now := time.Now()
	s.Now = func() time.Time { return now }
	spend := func(user string) error {
		return s.within(t.Context(), &s.begun, errLoginsTooFast, user)
	}
	for range sessionRate.Burst {
		if err := spend(adaID); err != nil {
			t.Fatal(err)
		}
	}
	if got := problem.From(spend(adaID)); got.Code != "logging_in_too_fast" || got.RetryAfter != time.Second {
		t.Errorf("beyond the budget: %+v", got)
	}
	if err := spend(bobID); err != nil {
		t.Errorf("another user: %v", err)
	}
	now = now.Add(time.Second)
	if err := spend(adaID); err != nil {
		t.Errorf("a second later: %v", err)
	}
	p.claims = map[string]string{directory.Admin: "users:read," + directory.Superuser}
	for range 3 {
		if err := spend(adaID); err != nil {
			t.Errorf("a superuser: %v", err)
		}
	}
}

func TestTheMemoryOfABudgetIsBounded(t *testing.T) {
	b := budget{rate: sessionRate}
	now := time.Now()
	for i := range 3 * maxArrivals {
		if wait := b.spend(fmt.Sprint(i), now); wait != 0 {
			t.Fatal(wait)
		}
		if i%maxArrivals == maxArrivals-1 {
			now = now.Add(time.Minute)
		}
	}
	if len(b.arrivals) > maxArrivals {
		t.Errorf("%d users are remembered", len(b.arrivals))
	}
}
