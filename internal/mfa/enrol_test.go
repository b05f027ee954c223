package mfa

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// A secret is confirmed at any replica, once, within its time, and only the last one.
func TestEnrolTOTP(t *testing.T) {
	w, a := newWorld(t)
	b := w.replica(limit.Config{})
	ada := a.user("ada")
	confirm := func(r *replica, code string) error {
		_, _, err := r.ConfirmTOTP(t.Context(), w.as(ada), w.epoch(ada), code)
		return err
	}
	begin := func() *app {
		t.Helper()
		e, err := a.BeginTOTP(t.Context(), w.as(ada))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(e.URI, e.Secret) || !strings.HasPrefix(e.QR, "<svg") || e.ExpiresIn != PendingFor {
			t.Errorf("%+v", e)
		}
		w.clock.pass(time.Minute)
		later, err := b.PendingTOTP(t.Context(), w.as(ada))
		w.want("once more", err, "")
		if e.ExpiresIn -= time.Minute; later != e {
			t.Errorf("once more: %+v, want %+v", later, e)
		}
		return &app{w, e.Secret}
	}
	w.want("nothing to show", errOf(a.PendingTOTP(t.Context(), w.as(ada))), "nothing_pending")
	w.want("nothing begun", confirm(a, "123456"), "nothing_pending")
	first := begin()
	w.clock.pass(PendingFor)
	w.want("too late", confirm(a, first.at(0).Code), "nothing_pending")
	w.want("too late to be shown", errOf(b.PendingTOTP(t.Context(), w.as(ada))), "nothing_pending")
	first, second := begin(), begin()
	w.want("the first of two secrets", confirm(b, first.at(0).Code), "invalid_code")
	w.want("malformed", confirm(b, "1234567"), "malformed_code")
	if c, err := a.begin(ada, home, "", ""); c != nil || err != nil {
		t.Errorf("a secret that is not confirmed is asked for: %+v, %v", c, err)
	}
	w.want("the code as it is typed", confirm(b, " "+second.at(0).Code[:3]+"\u00a0"+second.at(0).Code[3:]), "")
	w.want("confirmed again", confirm(a, second.at(0).Code), "already_enrolled")
	w.want("begun again", errOf(a.BeginTOTP(t.Context(), w.as(ada))), "already_enrolled")
	w.want("shown again", errOf(a.PendingTOTP(t.Context(), w.as(ada))), "already_enrolled")
	w.want("the code that confirmed it", errOf(b.complete(a.challenged(ada), second.at(0))), "code_used")
	w.want("the next one", errOf(b.complete(a.challenged(ada), second.next())), "")
	w.want("removed", errOf(b.RemoveTOTP(t.Context(), w.as(ada), w.epoch(ada))), "")
	w.want("removed again", errOf(a.RemoveTOTP(t.Context(), w.as(ada), w.epoch(ada))), "factor_not_found")
	if c, err := a.begin(ada, home, "", ""); c != nil || err != nil {
		t.Errorf("a removed factor is asked for: %+v, %v", c, err)
	}

	begin()
	third := begin()
	tokenEpoch := w.epoch(ada)
	counts := together(20, func(i int) error {
		_, _, err := []*replica{a, b}[i%2].ConfirmTOTP(t.Context(), w.as(ada), tokenEpoch, third.at(0).Code)
		return err
	})
	w.wantOnce("confirmed at the same moment", counts, "already_enrolled", "token_revoked", "nothing_pending")
}

// Enrolling and removing ends every session and token of before; backup codes end none.
func TestWhatAChangeEnds(t *testing.T) {
	w, a := newWorld(t)
	ada := a.user("ada")
	before := w.stored(ada)
	app := a.enrolled(ada)
	enrolled := w.stored(ada)
	if enrolled.SessionEpoch <= before.SessionEpoch || enrolled.Epoch <= before.Epoch {
		t.Error("enrolling ends no sessions")
	}
	a.backupCodes(ada)
	if with := w.stored(ada); with.SessionEpoch != enrolled.SessionEpoch || with.Epoch != enrolled.Epoch {
		t.Error("backup codes end sessions")
	}
	for name, err := range map[string]error{
		"confirm":      errOf(a.ConfirmBackupCodes(t.Context(), w.as(ada), before.Epoch, "0123456789abcdef")),
		"remove codes": a.RemoveBackupCodes(t.Context(), w.as(ada), before.Epoch),
		"remove":       errOf(a.RemoveTOTP(t.Context(), w.as(ada), before.Epoch)),
		"rename":       a.RenamePasskey(t.Context(), w.as(ada), before.Epoch, "x", "y"),
	} {
		if code(err) != "token_revoked" && code(err) != "nothing_pending" {
			t.Errorf("%s with a token of before: %v", name, err)
		}
	}
	user, err := a.RemoveTOTP(t.Context(), w.as(ada), enrolled.Epoch)
	if now := w.stored(ada); err != nil || now.SessionEpoch <= enrolled.SessionEpoch || user.SessionEpoch != now.SessionEpoch || user.Epoch != now.Epoch || user.PasswordHash != "" {
		t.Errorf("removing leaves the epochs %d and %d, and says %d and %d, %v", now.SessionEpoch, now.Epoch, user.SessionEpoch, user.Epoch, err)
	}
	w.want("a code of a removed factor", errOf(a.StepUp(t.Context(), w.stored(ada), "s", app.next(), home)), "unknown_method")
	if n := len(w.rows(ada, "")); n != 0 {
		t.Errorf("%d rows are left: backup codes go with the last factor", n)
	}
}

// Each backup code is accepted once, at whichever replica; new ones take the place of the old ones
// when one of them has been typed, and not before.
func TestBackupCodes(t *testing.T) {
	w, a := newWorld(t)
	b := w.replica(limit.Config{})
	ada := a.user("ada")
	w.want("without a factor", errOf(a.BeginBackupCodes(t.Context(), w.as(ada))), "no_factor")
	app := a.enrolled(ada)
	left := func() int {
		t.Helper()
		o, err := b.Overview(t.Context(), w.as(ada), ada.ID)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(o.Factors, func(f Info) bool { return f.Method == BackupCode })
		return o.Factors[i].Left
	}
	answer := func(r *replica, code Answer) error { return errOf(r.complete(r.challenged(ada), code)) }
	old := a.backupCodes(ada)
	if len(old) != 10 || left() != 10 {
		t.Errorf("%d codes, %d left", len(old), left())
	}
	for i, c := range old[:8] {
		c.Code = strings.ToUpper(strings.ReplaceAll(c.Code, "-", " "))
		w.want("a code", answer([]*replica{a, b}[i%2], c), "")
		w.want("the same one", answer([]*replica{b, a}[i%2], old[i]), "code_used")
	}
	if left() != FewCodes {
		t.Errorf("%d are left", left())
	}

	pended, err := a.BeginBackupCodes(t.Context(), w.as(ada))
	if err != nil {
		t.Fatal(err)
	}
	replaced, err := a.BeginBackupCodes(t.Context(), w.as(ada))
	if err != nil {
		t.Fatal(err)
	}
	confirm := func(r *replica, code string) error {
		return errOf(r.ConfirmBackupCodes(t.Context(), w.as(ada), w.epoch(ada), code))
	}
	w.want("an old one", confirm(b, old[9].Code), "invalid_code")
	w.want("one that was replaced before it was confirmed", confirm(b, pended[0]), "invalid_code")
	w.want("malformed", confirm(b, "123456"), "malformed_code")
	w.want("an old code while new ones wait", answer(a, old[8]), "")
	w.want("a new one that waits", answer(a, answers(replaced)[0]), "invalid_code")
	counts := together(20, func(i int) error { return confirm([]*replica{a, b}[i%2], replaced[i%10]) })
	w.wantOnce("confirmed at the same moment", counts, "already_enrolled", "nothing_pending")
	w.want("confirmed again", confirm(a, replaced[0]), "nothing_pending")
	w.want("an old code after that", answer(b, old[9]), "invalid_code")
	w.want("a new one", answer(b, answers(replaced)[9]), "")
	if left() != 9 {
		t.Errorf("%d are left", left())
	}

	w.want("removed", a.RemoveBackupCodes(t.Context(), w.as(ada), w.epoch(ada)), "")
	w.want("a removed one", answer(b, answers(replaced)[1]), "unknown_method")
	w.want("removed again", b.RemoveBackupCodes(t.Context(), w.as(ada), w.epoch(ada)), "factor_not_found")
	w.want("the app", answer(b, app.next()), "")

	// New ones are for those who still have a factor.
	if pended, err = a.BeginBackupCodes(t.Context(), w.as(ada)); err != nil {
		t.Fatal(err)
	}
	w.want("the factor removed", errOf(a.RemoveTOTP(t.Context(), w.as(ada), w.epoch(ada))), "")
	w.want("codes without one", confirm(a, pended[0]), "no_factor")
}

// Ten codes, each presented ten times at the same moment at two replicas: each is accepted once.
func TestAllBackupCodesAtTheSameMoment(t *testing.T) {
	w, a := newWorld(t)
	replicas := []*replica{a, w.replica(limit.Config{})}
	ada := a.user("ada")
	a.enrolled(ada)
	codes := a.backupCodes(ada)
	tokens := make([]string, 100)
	for i := range tokens {
		tokens[i] = a.challenged(ada)
	}
	counts := together(100, func(i int) error {
		_, err := replicas[i%2].complete(tokens[i], codes[i/10])
		return err
	})
	if counts[""] != 10 || counts["code_used"] != 90 {
		t.Errorf("%v", counts)
	}
	if left := slices.ContainsFunc(w.events(ada.ID), func(e string) bool { return e == "mfa.backup_code ok 0 left" }); !left {
		t.Errorf("the trail says %q", w.events(ada.ID))
	}
}

// Nobody changes factors by a token that is for another service, of a login that is long ago, or
// of a user who is gone.
func TestWhoMayChangeTheirOwn(t *testing.T) {
	w, a := newWorld(t)
	ada := a.user("ada")
	a.enrolled(ada)
	a.backupCodes(ada)
	old, forOthers, nobody := w.as(ada), w.as(ada), directory.Actor{}
	old.AuthTime = w.clock.now().Add(-freshFor - time.Second)
	forOthers.API = false
	disabled := a.user("dis")
	if err := disable(a, disabled); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		actor directory.Actor
		want  string
	}{
		"an old login":         {old, "reauthentication_required"},
		"another audience":     {forOthers, "wrong_audience"},
		"nobody":               {nobody, "wrong_audience"},
		"a disabled user":      {w.as(disabled), "permission_missing"},
		"a user who is no one": {w.as(store.User{ID: "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11"}), "permission_missing"},
	} {
		const epoch = 1 << 40
		for what, err := range map[string]error{
			"begin": errOf(a.BeginTOTP(t.Context(), c.actor)), "pending": errOf(a.PendingTOTP(t.Context(), c.actor)), "confirm": errOf3(a.ConfirmTOTP(t.Context(), c.actor, epoch, "123456")),
			"remove": errOf(a.RemoveTOTP(t.Context(), c.actor, epoch)), "codes": errOf(a.BeginBackupCodes(t.Context(), c.actor)),
			"confirm codes": errOf(a.ConfirmBackupCodes(t.Context(), c.actor, epoch, "0123456789abcdef")),
			"remove codes":  a.RemoveBackupCodes(t.Context(), c.actor, epoch), "passkey": errOf(a.BeginPasskey(t.Context(), c.actor)),
			"confirm passkey": errOf3(a.ConfirmPasskey(t.Context(), c.actor, epoch, "", []byte("{}"))),
			"rename":          a.RenamePasskey(t.Context(), c.actor, epoch, "x", "y"), "remove passkey": errOf(a.RemovePasskey(t.Context(), c.actor, epoch, "x")),
		} {
			w.want(name+": "+what, err, c.want)
		}
	}
	if got := w.events(ada.ID); !slices.Contains(got, "mfa.remove denied reauthentication_required") || !slices.Contains(got, "mfa.remove denied wrong_audience") ||
		!slices.Contains(got, "mfa.enrol ok totp") || !slices.Contains(got, "mfa.enrol ok backup codes") {
		t.Errorf("the trail says %q", got)
	}
	if n := len(w.rows(ada, "")); n != 2 {
		t.Errorf("%d factors are left", n)
	}
}

// Who needs a factor follows from the policy, and from the claims of now.
func TestPolicy(t *testing.T) {
	w, a := newWorld(t)
	none, admin, reader := a.user("none"), a.user("admin", "admin=all", "log=r"), a.user("reader", "log=w")
	with := a.user("with")
	a.enrolled(with)
	claims := func(all ...directory.Right) Policy { return Policy{Claims: all} }
	for _, c := range []struct {
		name   string
		policy Policy
		asked  []store.User // for a factor
		enrol  []store.User // one
	}{
		{"never", Policy{Never: true}, nil, nil},
		{"when enrolled", Policy{}, []store.User{with}, nil},
		{"always", Policy{Always: true}, []store.User{with}, []store.User{none, admin, reader}},
		{"a claim", claims(directory.Right{ShortName: "log"}), []store.User{with}, []store.User{admin, reader}},
		{"a claim's value", claims(directory.Right{ShortName: "log", Value: "r"}), []store.User{with}, []store.User{admin}},
		{"one of two", claims(directory.Right{ShortName: "log", Value: "w"}, directory.Right{ShortName: "admin", Value: "all"}), []store.User{with}, []store.User{admin, reader}},
		{"a value that nobody has", claims(directory.Right{ShortName: "log", Value: "al"}), []store.User{with}, nil},
		{"a claim that nobody has", claims(directory.Right{ShortName: "lo"}), []store.User{with}, nil},
	} {
		a.Policy = c.policy
		for _, u := range []store.User{none, admin, reader, with} {
			challenge, err := a.begin(u, home, "", "")
			if err != nil {
				t.Fatal(err)
			}
			has := func(list []store.User) bool {
				return slices.ContainsFunc(list, func(v store.User) bool { return u.ID == v.ID })
			}
			var asked, enrol bool
			if challenge != nil {
				asked, enrol = len(challenge.Methods) > 0, len(challenge.Enrol) > 0
			}
			if asked != has(c.asked) || enrol != has(c.enrol) {
				t.Errorf("%s: %s gets %+v", c.name, u.Username, challenge)
			}
			o, err := a.Overview(t.Context(), w.as(u), u.ID)
			if must := has(c.enrol) || u.ID == with.ID && c.policy.Always; err != nil || o.Required != must {
				t.Errorf("%s: the overview of %s says %+v, %v", c.name, u.Username, o, err)
			}
		}
	}
}

// Who must enrol at login can do that and nothing else, and is logged in by it.
func TestEnrolAtLogin(t *testing.T) {
	w, a := newWorld(t)
	b := w.replica(limit.Config{})
	a.Policy.Always, b.Policy.Always = true, true
	ada := a.user("ada")
	begin := func() string {
		t.Helper()
		c, err := a.begin(ada, home, "here", "")
		if err != nil || c == nil || !slices.Equal(c.Enrol, []string{TOTP}) || len(c.Methods) != 0 || c.ExpiresIn != PendingFor {
			t.Fatalf("%+v, %v", c, err)
		}
		return c.Token
	}
	token := begin()
	w.want("a code before anything is enrolled", errOf(a.complete(token, Answer{Method: TOTP, Code: "123456"})), "nothing_pending")
	w.want("a backup code", errOf(a.complete(token, Answer{Method: BackupCode, Code: "0123456789abcdef"})), "unknown_method")
	w.want("the options of a passkey", errOf(a.PasskeyOptions(t.Context(), token, home)), "unknown_method")
	w.want("a passkey where there are none", errOf(a.EnrolPasskey(t.Context(), token, home)), "unknown_method")
	e, err := b.EnrolTOTP(t.Context(), token, home)
	if err != nil {
		t.Fatal(err)
	}
	app := &app{w, e.Secret}

	// The secret is of this login alone.
	w.want("in another login", errOf(a.complete(begin(), app.at(0))), "nothing_pending")
	w.want("confirmed by a token", errOf3(a.ConfirmTOTP(t.Context(), w.as(ada), w.epoch(ada), app.at(0).Code)), "nothing_pending")
	for _, wrong := range app.wrong(4) {
		w.want("a wrong code", errOf(a.complete(token, wrong)), "invalid_code")
	}
	before := w.stored(ada)
	code := app.at(0)
	tokens := []string{token, begin()}
	if _, err := a.EnrolTOTP(t.Context(), tokens[1], home); err != nil {
		t.Fatal(err)
	}
	var done Done
	counts := together(20, func(i int) error {
		d, err := []*replica{a, b}[i%2].complete(token, code)
		if err == nil {
			done = d
		}
		return err
	})
	w.wantOnce("finished at the same moment", counts, gone, "nothing_pending")
	now := w.stored(ada)
	if done.Audience != "here" || !slices.Equal(done.Methods, []string{"mfa", "otp", "pwd"}) || done.User.SessionEpoch != now.SessionEpoch || now.SessionEpoch <= before.SessionEpoch {
		t.Errorf("%+v", done)
	}
	w.want("the other login that began before", errOf(a.complete(tokens[1], app.next())), gone)
	if _, err := w.state.Get(t.Context(), state.Key{Kind: kindPendingTOTP, Owner: ada.ID, ID: digest(token)}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the secret still waits: %v", err)
	}
	c, err := a.begin(ada, home, "", "")
	if err != nil || !slices.Equal(c.Methods, []string{TOTP}) || len(c.Enrol) != 0 {
		t.Fatalf("after that: %+v, %v", c, err)
	}
	w.want("the code that finished it", errOf(a.complete(c.Token, code)), "code_used")
	w.want("the next one", errOf(a.complete(c.Token, app.next())), "")

	bob := a.user("bob")
	c, err = a.begin(bob, home, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if e, err = a.EnrolTOTP(t.Context(), c.Token, home); err != nil {
		t.Fatal(err)
	}
	app.secret = e.Secret
	for _, wrong := range app.wrong(5) {
		w.want("a wrong code", errOf(a.complete(c.Token, wrong)), "invalid_code")
	}
	w.want("the right code after five wrong ones", errOf(a.complete(c.Token, app.at(0))), gone)
	w.want("begun again with it", errOf(a.EnrolTOTP(t.Context(), c.Token, home)), gone)
}

// A remembered device needs no second factor for its time, where the policy has one.
func TestDevices(t *testing.T) {
	w, a := newWorld(t)
	ada, bob := a.user("ada"), a.user("bob")
	app, bobs := a.enrolled(ada), a.enrolled(bob)
	device := func(r *replica, u store.User, code Answer) string {
		t.Helper()
		code.RememberDevice = true
		done, err := r.complete(r.challenged(u), code)
		if err != nil {
			t.Fatal(err)
		}
		return done.Device
	}
	asked := func(what string, r *replica, u store.User, device string, want bool) {
		t.Helper()
		c, err := r.begin(u, home, "", device)
		if err != nil || (c != nil) != want {
			t.Errorf("%s: %+v, %v", what, c, err)
		}
	}
	if got := device(a, ada, app.next()); got != "" {
		t.Errorf("by default a device is remembered: %q", got)
	}
	b := w.replica(limit.Config{})
	b.RememberDevice = time.Hour
	if done, err := b.complete(b.challenged(ada), app.next()); err != nil || done.Device != "" {
		t.Errorf("nobody has asked for it: %+v, %v", done, err)
	}
	bobsDevice, known := device(b, bob, bobs.next()), device(b, ada, app.next())
	asked("its own", b, ada, known, false)
	asked("another's", b, ada, bobsDevice, true)
	asked("another's, renamed", b, ada, strings.Split(bobsDevice, ".")[0]+"."+ada.ID, true)
	asked("where the policy has none", a, ada, known, true)
	b.Policy.Always = true
	asked("always", b, ada, known, false)
	carl := b.user("carl")
	asked("who has no factor", b, carl, known, true)
	w.clock.pass(time.Hour - time.Second)
	asked("before its end", b, ada, known, false)
	w.clock.pass(time.Second)
	asked("at its end", b, ada, known, true)

	known = device(b, ada, app.next())
	if _, err := w.store.NextEpoch(t.Context(), ada.ID, false); err != nil {
		t.Fatal(err)
	}
	asked("after tokens were revoked", b, ada, known, false)
	if _, err := w.store.NextEpoch(t.Context(), ada.ID, true); err != nil {
		t.Fatal(err)
	}
	asked("after the sessions have ended", b, ada, known, true)
}

// What is counted of second factors has names that are known beforehand.
func TestMetricNames(t *testing.T) {
	_, a := newWorld(t)
	for i := range 100 {
		_, _ = a.complete(fmt.Sprint(i), Answer{Method: fmt.Sprint(i)})
	}
	series := make(chan prometheus.Metric, 1000)
	a.checks.Collect(series)
	if len(series) != len([]string{TOTP, BackupCode, Passkey, "unknown"}) {
		t.Errorf("%d series", len(series))
	}
}

// What was begun in the course of a login is shown again as it is, to who has the token alone.
func TestEnrollingTOTP(t *testing.T) {
	w, r := newWorld(t)
	r.Policy.Always = true
	user := r.user("ada")
	c, _, err := r.Begin(t.Context(), user, "", "")
	if err != nil || c == nil {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := r.EnrollingTOTP(t.Context(), c.Token, home); code(err) != "nothing_pending" {
		t.Errorf("before it was begun: %v", err)
	}
	begun, err := r.EnrolTOTP(t.Context(), c.Token, home)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.pass(time.Minute)
	again, err := w.replica(limit.Config{}).EnrollingTOTP(t.Context(), c.Token, home)
	if begun.ExpiresIn -= time.Minute; err != nil || again != begun {
		t.Errorf("%+v, not %+v, %v", again, begun, err)
	}
	if _, err := r.EnrollingTOTP(t.Context(), "x"+c.Token[1:], home); !errors.Is(err, ErrInvalidToken) {
		t.Errorf("with another token: %v", err)
	}
	w.clock.pass(PendingFor)
	if _, err := r.EnrollingTOTP(t.Context(), c.Token, home); !errors.Is(err, ErrInvalidToken) {
		t.Errorf("later: %v", err)
	}
}
