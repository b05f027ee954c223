package login

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
)

var (
	home    = Client{Address: "192.0.2.1"}
	foreign = Client{Address: "203.0.113.9"}
)

// locking has five failures lock an account for an hour.
func locking() *limit.Limiter {
	return limittest.New(limit.Config{Rules: limit.Rules{Lockout: limit.Lockout{After: 5, AfterAll: 50, Delay: time.Hour, Max: time.Hour}, Spray: limit.Spray{After: 50}}})
}

// Codes are guessed no faster by somebody who knows the password: it alone resets nothing, and
// the failures of both steps are counted together.
func TestSecondFactorsLock(t *testing.T) {
	s, p := newService(t)
	app := enrolled(t, s, p, "ada")
	limited(s, locking())
	begin := func(client Client, password string) (token string, err error) {
		step, err := s.Begin(t.Context(), Credential{"ada", password, ""}, "", client)
		if err == nil && step.Challenge == nil {
			t.Fatal("there is no challenge")
		}
		if err == nil {
			token = step.Challenge.Token
		}
		return token, err
	}
	complete := func(client Client, token string, answer mfa.Answer) error {
		_, _, err := s.Complete(t.Context(), token, answer, client)
		return err
	}
	token, err := begin(home, "right")
	if err := errors.Join(err, complete(home, token, app.next())); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if token, err = begin(foreign, "right"); err != nil {
			t.Fatal(err)
		}
		if err := complete(foreign, token, app.wrong()); !errors.Is(err, mfa.ErrInvalidCode) {
			t.Fatal(err)
		}
	}
	if _, err := begin(foreign, "wrong"); !errors.Is(err, directory.ErrInvalidCredentials) {
		t.Fatal(err)
	}
	code := app.next()
	if err := complete(foreign, token, code); !errors.Is(err, mfa.ErrInvalidCode) {
		t.Errorf("the right code after five failures: %v", err)
	}
	if _, err := begin(foreign, "right"); !errors.Is(err, directory.ErrInvalidCredentials) {
		t.Errorf("the right password after five failures: %v", err)
	}
	token, err = begin(home, "right")
	if err := errors.Join(err, complete(home, token, code)); err != nil {
		t.Errorf("at home, with the code that was refused: %v", err)
	}
	if n := sessionsOf(t, s, adaID); n != 2 {
		t.Errorf("there are %d sessions", n)
	}
}

// limited has every credential counted by a Limiter.
func limited(s *Service, l *limit.Limiter) { s.Limits, s.Factors.Limits = l, l }

// A user who logs in at many places at once is no guesser.
func TestManyLoginsAtOnce(t *testing.T) {
	s, _ := newService(t)
	s.Limits = locking()
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if _, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", home); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// Every credential counts in the rate of its class, also one that is right.
func TestEveryCredentialCounts(t *testing.T) {
	rate := state.Rate{Burst: 10, Period: time.Hour}
	for class, by := range map[limit.Class]limit.Policy{limit.Login: {PerAddress: rate}, limit.MFA: {PerAddress: rate}, limit.Renew: {PerAddress: rate}} {
		for _, perAccount := range []bool{false, true} {
			if perAccount {
				by = limit.Policy{PerAccount: rate}
			}
			for _, right := range []bool{true, false} {
				if class == limit.Renew && perAccount && !right { // it is nobody's
					continue
				}
				s, p := newService(t)
				limited(s, limittest.New(limit.Config{Rules: limit.Rules{Policies: map[limit.Class]limit.Policy{class: by}}}))
				// From now on the address has a bucket of its own for the account.
				step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", home)
				if err != nil {
					t.Fatal(err)
				}
				var a *app
				if class == limit.MFA {
					a = enrolled(t, s, p, "ada")
				}
				refresh := step.Grant.RefreshToken
				present := map[limit.Class]func() error{
					limit.Login: func() error {
						_, err := s.Begin(t.Context(), Credential{"ada", map[bool]string{true: "right", false: "wrong"}[right], ""}, "", home)
						return err
					},
					limit.MFA: func() error {
						token, answer := "another", a.next()
						if right || perAccount {
							step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", home)
							if err != nil {
								t.Fatal(err)
							}
							token = step.Challenge.Token
						}
						if !right {
							answer = a.wrong()
						}
						_, _, err := s.Complete(t.Context(), token, answer, home)
						return err
					},
					limit.Renew: func() error {
						token := refresh
						if !right {
							token = "forged"
						}
						g, err := s.Renew(t.Context(), token, "", home)
						if err == nil {
							refresh = g.RefreshToken
						}
						return err
					},
				}[class]
				passed := 0
				for range 20 {
					err := present()
					if errors.Is(err, limit.ErrTooMany) {
						if problem.From(err).RetryAfter <= 0 {
							t.Errorf("%s: it does not say when to come again", class)
						}
						continue
					}
					if right != (err == nil) {
						t.Errorf("%s, right %v: %v", class, right, err)
					}
					passed++
				}
				if want := map[bool]int{true: 9, false: 10}[class == limit.Login && !perAccount]; passed != want { // that login counts
					t.Errorf("%s, per account %v, right %v: %d pass, and not %d", class, perAccount, right, passed, want)
				}
			}
		}
	}
}

// When the counters cannot be written after the check, nobody is logged in.
func TestNoLoginWithoutCounters(t *testing.T) {
	s, _ := newService(t)
	var n atomic.Int32
	for fails := range 3 {
		n.Store(int32(fails))
		limited(s, limittest.New(limit.Config{State: &running{Store: limittest.New(limit.Config{}).State, left: &n}, Rules: limit.Rules{Lockout: limit.Lockout{After: 5, AfterAll: 50, Delay: time.Hour, Max: time.Hour}}}))
		if _, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", home); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("when write %d fails: %v", fails+1, err)
		}
	}
	if n := sessionsOf(t, s, adaID); n != 0 {
		t.Errorf("there are %d sessions", n)
	}
}

// running is a state that runs out: it takes so many writes and no more.
type running struct {
	state.Store
	left *atomic.Int32
}

func (s *running) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if s.left.Add(-1) < 0 {
		return 0, state.ErrUnavailable
	}
	return s.Store.Create(ctx, key, value, ttl)
}

func (s *running) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if s.left.Add(-1) < 0 {
		return 0, state.ErrUnavailable
	}
	return s.Store.Swap(ctx, key, version, value, ttl)
}
