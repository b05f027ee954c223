package mfa

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/store"
)

// A modelLogin is a login in its second step as docs/mfa.md describes it.
type modelLogin struct {
	token    string
	until    time.Time
	epoch    int64 // the user's session epoch when it began
	answered int   // wrong codes that were answered as wrong
	counted  int   // wrong codes that may have been counted
	done     bool  // it has succeeded
	unsure   bool  // it may have been ended by a call that failed
}

// A model is one user at two replicas over one database and state, whose backends fail now and
// then, and what it may do then.
type model struct {
	w        *world
	replicas []*replica
	user     store.User
	app      *app // nil: none, as far as is known
	logins   []*modelLogin
	// presented is the highest step that may have been spent, and accepted the highest that was,
	// of the present secret.
	presented, accepted int64
	codes               []Answer        // backup codes
	spent               map[string]bool // of them
}

func (m *model) step() int64 { return stepAt(m.w.clock.now()) }

// live reports whether nothing has ended a login.
func (m *model) live(l *modelLogin) bool {
	return !l.done && m.w.clock.now().Before(l.until) && l.epoch == m.w.stored(m.user).SessionEpoch
}

// faulty calls f at a replica. Now and then one of its operations fails.
func (m *model) faulty(t *rapid.T, f func(r *replica) error) (faulted bool, err error) {
	r := m.replicas[rapid.IntRange(0, 1).Draw(t, "replica")]
	if rapid.IntRange(0, 2).Draw(t, "fault") > 0 {
		return false, f(r)
	}
	heal := r.faults.at(rapid.IntRange(0, 9).Draw(t, "operation"), rapid.Bool().Draw(t, "it happens"))
	err = f(r)
	return heal(), err
}

// answer presents a code at one of the logins, and reports whether that surely waited and was asked.
func (m *model) answer(t *rapid.T, code Answer) (l *modelLogin, asked bool, err error) {
	l = m.logins[rapid.IntRange(0, len(m.logins)-1).Draw(t, "login")]
	was := m.live(l)
	faulted, err := m.faulty(t, func(r *replica) error { return errOf(r.complete(l.token, code)) })
	if err == nil && (!was || l.answered >= MaxWrong) {
		t.Fatalf("a login that has ended is completed: %+v", l)
	}
	l.done = l.done || err == nil
	return l, was && !l.unsure && !faulted && l.counted < MaxWrong, err
}

// right presents a code that is right at one of the logins. fresh: it cannot have been spent.
func (m *model) right(t *rapid.T, code Answer, fresh bool) error {
	l, answers, err := m.answer(t, code)
	if fresh && answers && err != nil {
		t.Fatalf("a fresh code at a login that waits: %v", err)
	}
	l.unsure = l.unsure || err != nil
	return err
}

func (m *model) actions() map[string]func(*rapid.T) {
	w := m.w
	return map[string]func(*rapid.T){
		"time passes": func(t *rapid.T) { w.clock.pass(time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second) },
		"begin": func(t *rapid.T) {
			var c *Challenge
			_, err := m.faulty(t, func(r *replica) (err error) { c, err = r.begin(m.user, home, "", ""); return err })
			if err != nil {
				return
			}
			if (c != nil) != (len(w.rows(m.user, kindTOTP)) > 0) {
				t.Fatalf("a login begins with %+v", c)
			}
			if c != nil {
				m.logins = append(m.logins, &modelLogin{token: c.Token, until: w.clock.now().Add(TokenFor), epoch: w.stored(m.user).SessionEpoch})
			}
		},
		"a code": func(t *rapid.T) {
			if m.app == nil || len(m.logins) == 0 {
				t.Skip()
			}
			d := rapid.IntRange(-1, 1).Draw(t, "step")
			step := m.step() + int64(d)
			fresh, times := step > m.presented, rapid.IntRange(1, 2).Draw(t, "times")
			for range times {
				if m.right(t, m.app.at(d), fresh) == nil {
					if step <= m.accepted {
						t.Fatalf("step %d is accepted after %d", step, m.accepted)
					}
					m.accepted = step
				}
				fresh = false
				m.presented = max(m.presented, step)
			}
		},
		"a wrong code": func(t *rapid.T) {
			if m.app == nil || len(m.logins) == 0 {
				t.Skip()
			}
			l, _, err := m.answer(t, m.app.wrong(1)[0])
			l.counted++
			switch {
			case err == nil:
				t.Fatal("a wrong code is accepted")
			case code(err) == "invalid_code":
				if l.answered++; l.answered > MaxWrong {
					t.Fatalf("%d wrong codes are answered", l.answered)
				}
			}
		},
		"a backup code": func(t *rapid.T) {
			if len(m.codes) == 0 || len(m.logins) == 0 {
				t.Skip()
			}
			one := m.codes[rapid.IntRange(0, len(m.codes)-1).Draw(t, "backup code")]
			spent, tried := m.spent[one.Code]
			err := m.right(t, one, !tried)
			if err == nil && spent {
				t.Fatal("a backup code is accepted twice")
			}
			m.spent[one.Code] = spent || err == nil
		},
		"new backup codes": func(t *rapid.T) {
			var fresh []string
			if _, err := m.faulty(t, func(r *replica) (err error) { fresh, err = r.BeginBackupCodes(w.t.Context(), w.as(m.user)); return err }); err != nil {
				return
			}
			for { // until there is an answer
				faulted, err := m.faulty(t, func(r *replica) error {
					return errOf(r.ConfirmBackupCodes(w.t.Context(), w.as(m.user), w.epoch(m.user), fresh[0]))
				})
				if got := code(err); err == nil || got == "already_enrolled" {
					m.codes, m.spent = answers(fresh), map[string]bool{}
				} else if faulted {
					continue
				} else if got != "no_factor" {
					t.Fatalf("backup codes: %v", err)
				}
				return
			}
		},
		"a step-up": func(t *rapid.T) {
			if m.app == nil {
				t.Skip()
			}
			step := m.step()
			_, err := m.faulty(t, func(r *replica) error {
				return errOf(r.StepUp(w.t.Context(), w.stored(m.user), "s", m.app.at(0), home))
			})
			if err == nil && step <= m.accepted {
				t.Fatalf("step %d is accepted after %d", step, m.accepted)
			}
			if err == nil {
				m.accepted = step
			}
			m.presented = max(m.presented, step)
		},
		"enrol": func(t *rapid.T) {
			e, err := m.replicas[0].BeginTOTP(w.t.Context(), w.as(m.user))
			if err != nil {
				return
			}
			next, epoch := &app{w, e.Secret}, w.epoch(m.user)
			_, _ = m.faulty(t, func(r *replica) error {
				return errOf3(r.ConfirmTOTP(w.t.Context(), w.as(m.user), epoch, next.at(0).Code))
			})
			if len(w.rows(m.user, kindTOTP)) > 0 {
				m.app, m.presented, m.accepted = next, m.step(), m.step()
			}
		},
		"remove": func(t *rapid.T) {
			_, _ = m.faulty(t, func(r *replica) error { return errOf(r.RemoveTOTP(w.t.Context(), w.as(m.user), w.epoch(m.user))) })
			if len(w.rows(m.user, "")) == 0 {
				m.app, m.codes = nil, nil
			}
		},
		"log out everywhere": func(t *rapid.T) {
			if _, err := w.store.NextEpoch(w.t.Context(), m.user.ID, true); err != nil {
				t.Fatal(err)
			}
		},
		"": func(t *rapid.T) {
			if rows := w.rows(m.user, ""); (m.app == nil) != (len(rows) == 0) || len(rows) > 2 {
				t.Fatalf("there are %d factors, and an app: %v", len(rows), m.app != nil)
			}
		},
	}
}

// Whatever a user does at two replicas, in whatever order, and whatever fails meanwhile: no step and
// no code is accepted twice, no step after a later one, no login without a factor where there is
// one, and each fresh code at a login that waits.
//
// Twenty lives are what a test may take; by hand some hundred:
// go test ./internal/mfa -run Model -rapid.checks=500
func TestModel(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = flag.Set("rapid.checks", "20")
		t.Cleanup(func() { _ = flag.Set("rapid.checks", f.DefValue) })
	}
	w, a := newWorld(t)
	replicas, n := []*replica{a, w.replica(limit.Config{})}, 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := &model{w: w, replicas: replicas, user: a.user(fmt.Sprintf("user%d", n)), spent: map[string]bool{}}
		t.Repeat(m.actions())
	})
}
