package limit_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/state"
)

var rates = limit.Policy{PerAddress: state.Rate{Burst: 1000, Period: time.Minute}, PerAccount: state.Rate{Burst: 30, Period: 5 * time.Minute}}

func ratesWorld(t *testing.T, n int) *cluster {
	return newCluster(t, n, limit.Config{Rules: limit.Rules{Policies: map[limit.Class]limit.Policy{limit.Login: rates}}})
}

// What is refused for some time costs the state next to nothing meanwhile.
func TestRefusalsAreRemembered(t *testing.T) {
	w := ratesWorld(t, 1)
	w.want("login", w.login(home, "ester"), accepted)
	for i := range 30 {
		w.guess(0, addressOf(i), "ester", false)
	}
	for _, addresses := range []int{1, 200} {
		w.clock.pass(10 * time.Second) // one more is allowed, and another one in 10 s
		for got := try(""); got != tooMany; {
			_, got = w.guess(0, foreign, "ester", false)
		}
		w.state.asked()
		for i := range 5000 {
			if i%1000 == 0 && i > 0 {
				w.clock.pass(time.Second)
			}
			if _, got := w.guess(0, addressOf(1000+i%addresses), "ester", i%2 == 0); got != tooMany {
				t.Fatalf("attempt %d: %s", i, got)
			}
		}
		calls := w.state.asked()
		t.Logf("summary: limits: 5,000 refused attempts at one account in 4 s, from %d addresses: %d statements", addresses, len(calls))
		if most := addresses + 10; len(calls) > most {
			t.Errorf("%d statements from %d addresses: %q", len(calls), addresses, calls[:20])
		}
		if slices.ContainsFunc(calls, func(call string) bool {
			return !strings.HasPrefix(call, "get ") && call != "limit login_address" && call != "limit login_account"
		}) {
			t.Errorf("a refused attempt writes: %q", calls)
		}
	}
	w.want("at home", w.login(home, "ester"), accepted)
}

func TestRefusalsByAddressAreRemembered(t *testing.T) {
	w := ratesWorld(t, 1)
	count := func() error {
		return w.replicas[0].Count(t.Context(), limit.Login, foreign, "")
	}
	for range 1000 {
		if err := count(); err != nil {
			t.Fatal(err)
		}
	}
	w.state.asked()
	for range 5000 {
		if err := count(); !errors.Is(err, limit.ErrTooMany) {
			t.Fatal(err)
		}
	}
	if calls := w.state.asked(); len(calls) > 2 {
		t.Errorf("%d statements: %q", len(calls), calls)
	}
	w.clock.pass(time.Minute / 1000)
	if err := count(); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

// lift does what an administrator's lift does.
func (w *cluster) lift(bucket state.Key) {
	w.t.Helper()
	if err := w.state.Reset(w.t.Context(), bucket); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.state.Put(w.t.Context(), limit.Lifted, nil, limit.LiftKept); err != nil {
		w.t.Fatal(err)
	}
}

// Every replica notices within a second that something was lifted.
func TestALiftIsNoticed(t *testing.T) {
	w := ratesWorld(t, 3)
	bucket := limit.Bucket(limit.Login, "account", limit.Account("ester"), limit.All)
	for range 3 { // the second time there is a record of a lift already
		for i := range 33 {
			w.guess(i%3, foreign, "ester", false)
		}
		for i := range w.replicas {
			if _, got := w.guess(i, foreign, "ester", true); got != tooMany {
				t.Errorf("replica %d before: %s", i, got)
			}
		}
		w.lift(bucket)
		w.clock.pass(time.Second)
		for i := range w.replicas {
			if _, got := w.guess(i, foreign, "ester", true); got != accepted {
				t.Errorf("replica %d a second after: %s", i, got)
			}
		}
	}
}

// A refusal that was on its way when something was lifted is not remembered.
func TestALiftMeetsARefusal(t *testing.T) {
	w := ratesWorld(t, 1)
	for range 30 {
		w.guess(0, foreign, "ester", false)
	}
	for range 31 {
		w.guess(0, foreign, "david", false)
	}
	w.state.Store = &lifting{Store: w.state.Store, when: func() {
		w.lift(limit.Bucket(limit.Login, "account", limit.Account("ester"), limit.All))
		w.clock.pass(time.Second)
		w.guess(0, foreign, "david", false) // is refused, and so looks
	}}
	w.want("while it is lifted", w.try(foreign, "ester"), tooMany)
	w.want("after that", w.try(foreign, "ester"), accepted)
}

// lifting does something once, between a refusal and its answer.
type lifting struct {
	state.Store
	when func()
}

func (s *lifting) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	d, err := s.Store.Limit(ctx, key, rate)
	if when := s.when; when != nil && !d.Allowed {
		s.when = nil
		when()
	}
	return d, err
}

// However many are refused, no more refusals are remembered than there is room for; the others
// are refused by the state.
func TestRefusalsHaveABound(t *testing.T) {
	w := newCluster(t, 1, limit.Config{Rules: limit.Rules{Policies: map[limit.Class]limit.Policy{limit.API: {PerAddress: state.Rate{Burst: 1, Period: 2 * time.Hour}}}}})
	count := func(i int) error { return w.replicas[0].Count(t.Context(), limit.API, addressOf(i), "") }
	w.replicas[0].Remember(limit.MaxRefusals-10, time.Hour)
	for i := range 100 {
		if count(i) != nil || !errors.Is(count(i), limit.ErrTooMany) {
			t.Fatalf("address %d", i)
		}
	}
	if n := w.replicas[0].Remembered(); n != limit.MaxRefusals {
		t.Errorf("%d refusals are remembered", n)
	}
	if err := count(50); !errors.Is(err, limit.ErrTooMany) {
		t.Errorf("one that found no room: %v", err)
	}
	w.clock.pass(3 * time.Hour)
	for range 2 {
		_ = count(1 << 20)
	}
	if n := w.replicas[0].Remembered(); n != 1 {
		t.Errorf("%d refusals are remembered when all others have ended", n)
	}
}

// What is off, and what has no account or address, is not counted.
func TestWhatIsNotCounted(t *testing.T) {
	w := ratesWorld(t, 1)
	for range 100 {
		if err := errors.Join(
			w.replicas[0].Count(t.Context(), limit.Renew, foreign, limit.UserAccount("1")),
			w.replicas[0].Count(t.Context(), limit.Login, "", ""),
		); err != nil {
			t.Fatal(err)
		}
	}
	if calls := w.state.asked(); len(calls) != 0 {
		t.Errorf("%d statements", len(calls))
	}
	// An address of one class uses up nothing of another.
	for range 1000 {
		if err := w.replicas[0].Count(t.Context(), limit.Login, foreign, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// The client is given what is left of each rate.
func TestReporting(t *testing.T) {
	w := ratesWorld(t, 1)
	var quotas []limit.Quota
	ctx := limit.Reporting(t.Context(), func(q limit.Quota) { quotas = append(quotas, q) })
	attempt := func() error {
		quotas = nil
		_, err := w.replicas[0].Attempt(ctx, limit.Login, foreign, limit.Account("ester"))
		return err
	}
	if err := attempt(); err != nil {
		t.Fatal(err)
	}
	if want := []limit.Quota{
		{Policy: "login-address", Limit: 1000, Window: time.Minute, Remaining: 999, Reset: 60 * time.Millisecond},
		{Policy: "login-account", Limit: 30, Window: 5 * time.Minute, Remaining: 29, Reset: 10 * time.Second},
	}; !slices.Equal(quotas, want) {
		t.Errorf("%+v", quotas)
	}
	for range 29 {
		_ = attempt()
	}
	for range 2 { // by the state, and from memory
		if err := attempt(); !errors.Is(err, limit.ErrTooMany) {
			t.Fatal(err)
		}
		if last := quotas[len(quotas)-1]; last != (limit.Quota{Policy: "login-account", Limit: 30, Window: 5 * time.Minute, Reset: 10 * time.Second}) {
			t.Errorf("%+v", quotas)
		}
	}
}
