package mfa

import (
	"errors"
	"testing"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
)

// eachFault runs a step again and again, with another operation of the backends failing each
// time: one that has happened all the same, and one that has not. prepare makes what the step
// needs anew. After it, settle is called with the step's error, and has healthy backends.
func eachFault(t *testing.T, r *replica, prepare func() (step func() error, settle func(what string, err error))) {
	t.Helper()
	for happens, name := range map[bool]string{true: "failed but persisted", false: "failed and not persisted"} {
		for n := 0; ; n++ {
			step, settle := prepare()
			heal := r.faults.at(n, happens)
			err := step()
			if !heal() {
				if n < 2 {
					t.Errorf("there were only %d operations", n)
				}
				r.w.want("without a fault", err, "")
				settle("without a fault", err)
				break
			}
			if p := problem.From(err); err != nil && p.Kind != problem.Unavailable {
				t.Errorf("%s, operation %d: %v", name, n, err)
			}
			settle(name, err)
		}
	}
}

// A second step that a backend has failed is repeated with the same code as long as the mfa_token
// lives, and in no case is a code of use to two logins.
func TestFaultsOfALogin(t *testing.T) {
	w, a := newWorld(t)
	ada := a.user("ada")
	app := a.enrolled(ada)
	codes, repeated := a.backupCodes(ada), 0
	for name, next := range map[string]func() Answer{
		TOTP: app.next,
		BackupCode: func() Answer {
			if len(codes) == 0 {
				codes = a.backupCodes(ada)
			}
			one := codes[0]
			codes = codes[1:]
			return one
		},
	} {
		eachFault(t, a, func() (func() error, func(string, error)) {
			code, token, done := next(), a.challenged(ada), 0
			complete := func() error {
				_, err := a.complete(token, code)
				if err == nil {
					done++
				}
				return err
			}
			return complete, func(what string, err error) {
				_, gets := w.state.Get(t.Context(), state.Key{Kind: kindToken, Owner: ada.ID, ID: digest(token)})
				lives := !errors.Is(gets, state.ErrNotFound)
				if lives && err == nil {
					t.Errorf("%s, %s: the mfa_token lives", name, what)
				}
				if lives {
					repeated++
					w.want(name+", "+what+": the same call again", complete(), "")
				} else {
					w.want(name+", "+what+": the same call again", complete(), gone)
				}
				w.want(name+", "+what+": the same call after that", complete(), gone)
				w.want(name+", "+what+": the code in another login", errOf(a.complete(a.challenged(ada), code)), "code_used")
				if done > 1 {
					t.Errorf("%s, %s: %d logins", name, what, done)
				}
			}
		})
	}
	if repeated < 20 {
		t.Errorf("only %d calls could be repeated", repeated)
	}
}

// A wrong code whose count a backend has failed is not answered, and counted once at most too often.
func TestFaultsOfAWrongCode(t *testing.T) {
	w, a := newWorld(t)
	ada := a.user("ada")
	app := a.enrolled(ada)
	for _, happens := range []bool{true, false} {
		token, wrong, answered := a.challenged(ada), app.wrong(1)[0], 0
		for range 20 {
			swaps := 0
			a.faults.set(func(op string) (bool, bool) {
				if op == "swap" {
					swaps++
				}
				return op == "swap" && swaps == 1, happens
			})
			_, failed := a.complete(token, wrong)
			a.faults.set(nil)
			if code(failed) == "invalid_code" {
				t.Error("a code is answered as wrong that is not counted")
			}
			if _, err := a.complete(token, wrong); code(err) == "invalid_code" {
				answered++
			}
		}
		if answered > MaxWrong || answered < 2 {
			t.Errorf("%d are answered as wrong", answered)
		}
		w.want("the right code then", errOf(a.complete(token, app.next())), gone)
	}
}

// An enrolment that a backend has failed is there or not there, and can be repeated if it is not.
func TestFaultsOfAnEnrolment(t *testing.T) {
	w, a := newWorld(t)
	n := 0
	eachFault(t, a, func() (func() error, func(string, error)) {
		n++
		u := a.user("u" + string(rune('a'+n)))
		e, err := a.BeginTOTP(t.Context(), w.as(u))
		if err != nil {
			t.Fatal(err)
		}
		app, epoch := &app{w, e.Secret}, w.epoch(u)
		code := app.at(0)
		confirm := func() error { return errOf3(a.ConfirmTOTP(t.Context(), w.as(u), epoch, code.Code)) }
		return confirm, func(what string, err error) {
			there := len(w.rows(u, kindTOTP)) == 1
			if err == nil && !there {
				t.Errorf("%s: it is not there", what)
			}
			if there {
				w.want(what+": again", confirm(), "already_enrolled")
			} else {
				w.want(what+": again", confirm(), "")
			}
			w.want(what+": the code of the confirmation", errOf(a.complete(a.challenged(u), code)), "code_used")
		}
	})

	ada := a.user("ada")
	a.enrolled(ada)
	eachFault(t, a, func() (func() error, func(string, error)) {
		pended, err := a.BeginBackupCodes(t.Context(), w.as(ada))
		if err != nil {
			t.Fatal(err)
		}
		there := func() int64 { // how often they were replaced
			for _, f := range w.rows(ada, kindCodes) {
				return f.Version
			}
			return 0
		}
		before := there()
		confirm := func() error {
			return errOf(a.ConfirmBackupCodes(t.Context(), w.as(ada), w.epoch(ada), pended[0]))
		}
		return confirm, func(what string, err error) {
			if now := there(); now == before {
				w.want(what+": again", confirm(), "")
			} else if confirm() == nil {
				t.Errorf("%s: confirmed twice", what)
			}
			if got := code(confirm()); got != "already_enrolled" && got != "nothing_pending" {
				t.Errorf("%s: confirmed once more: %s", what, got)
			}
			for _, c := range answers(pended)[:2] {
				w.want(what+": a code", errOf(a.complete(a.challenged(ada), c)), "")
				w.want(what+": the same code", errOf(a.complete(a.challenged(ada), c)), "code_used")
			}
		}
	})
}

// A login that was to be finished by an enrolment, and that a backend has failed, is finished by the
// same call as long as it lives, or begun anew; the factor is there once at most.
func TestFaultsOfAnEnrolmentAtLogin(t *testing.T) {
	w, a := newWorld(t)
	a.Policy.Always = true
	n := 0
	eachFault(t, a, func() (func() error, func(string, error)) {
		n++
		u := a.user("u" + string(rune('a'+n)))
		token := a.challenged(u)
		e, err := a.EnrolTOTP(t.Context(), token, home)
		if err != nil {
			t.Fatal(err)
		}
		app := &app{w, e.Secret}
		code := app.at(0)
		complete := func() error { return errOf(a.complete(token, code)) }
		return complete, func(what string, err error) {
			if err == nil {
				w.want(what+": again", complete(), gone)
			} else if _, err := a.begun(t.Context(), token); err == nil {
				w.want(what+": again", complete(), "")
			}
			c, err := a.begin(u, home, "", "")
			switch rows := len(w.rows(u, kindTOTP)); {
			case err != nil || rows > 1:
				t.Errorf("%s: %d factors, %v", what, rows, err)
			case rows == 1:
				w.want(what+": its code", errOf(a.complete(c.Token, code)), "code_used")
			case len(c.Enrol) != 1:
				t.Errorf("%s: %+v", what, c)
			}
		}
	})
}

// A recovery that a backend has failed has happened wholly or not at all.
func TestFaultsOfARecovery(t *testing.T) {
	w, a := newWorld(t)
	root, ada := a.user("root", "admin=all"), a.user("ada")
	eachFault(t, a, func() (func() error, func(string, error)) {
		a.enrolled(ada)
		rec, err := a.IssueRecovery(t.Context(), w.as(root), ada.ID, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := w.stored(ada)
		recover := func() error { return a.Recover(t.Context(), rec.Token, secret, home) }
		return recover, func(what string, err error) {
			now, rows := w.stored(ada), len(w.rows(ada, ""))
			done := now.PasswordHash != before.PasswordHash
			if done != (now.SessionEpoch > before.SessionEpoch) || done != (rows == 0) || err == nil && !done {
				t.Errorf("%s: %v; the password is new: %v; %d rows", what, err, done, rows)
			}
			if !done {
				w.want(what+": again", recover(), "")
			}
			w.want(what+": once more", recover(), "invalid_recovery_token")
		}
	})
}

// A step-up that a backend has failed spends its code, or does not: it is never of use twice.
func TestFaultsOfAStepUp(t *testing.T) {
	w, a := newWorld(t)
	ada := a.user("ada")
	app := a.enrolled(ada)
	eachFault(t, a, func() (func() error, func(string, error)) {
		code, done := app.next(), 0
		stepUp := func() error {
			_, err := a.StepUp(t.Context(), w.stored(ada), "s", code, home)
			if err == nil {
				done++
			}
			return err
		}
		return stepUp, func(what string, err error) {
			if again := stepUp(); err == nil || again != nil {
				w.want(what+": again", again, "code_used")
			}
			w.want(what+": once more", stepUp(), "code_used")
			w.want(what+": at a login", errOf(a.complete(a.challenged(ada), code)), "code_used")
			if done > 1 {
				t.Errorf("%s: %d step-ups", what, done)
			}
		}
	})
}
