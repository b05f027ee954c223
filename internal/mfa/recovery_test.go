package mfa

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/store"
)

// A recovery token gives its user another password once, and with it a login without the factors
// that were lost.
func TestRecovery(t *testing.T) {
	w, a := newWorld(t)
	b := w.replica(limit.Config{})
	root, ada := a.user("root", "admin=all"), a.user("ada")
	a.enrolled(ada)
	a.backupCodes(ada)
	issue := func(keep bool, life time.Duration) Recovery {
		t.Helper()
		rec, err := a.IssueRecovery(t.Context(), w.as(root), "ada", keep, life)
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	before := w.stored(ada)
	first := issue(false, 0)
	if got := first.ExpiresAt.Sub(w.clock.now()); got != RecoveryFor {
		t.Errorf("it is good for %v", got)
	}
	if now := w.stored(ada); now.Epoch != before.Epoch || len(w.rows(ada, "")) != 3 {
		t.Error("a recovery token that nobody has used ends or removes something")
	}
	if o, err := a.Overview(t.Context(), w.as(ada), ada.ID); err != nil || len(o.Factors) != 2 {
		t.Errorf("the overview shows %+v, %v", o, err)
	}
	second := issue(false, 0)
	w.want("one that was replaced", a.Recover(t.Context(), first.Token, secret+"!", home), "invalid_recovery_token")
	w.want("a password that is too short", a.Recover(t.Context(), second.Token, "short", home), "password_too_short")
	owner := strings.Split(second.Token, ".")[1]
	for name, forged := range map[string]string{
		"nothing": "", "no user": strings.Split(second.Token, ".")[0], "another user's": strings.Replace(second.Token, owner, root.ID, 1), "longer": second.Token + "0",
	} {
		w.want(name, b.Recover(t.Context(), forged, secret+"!", home), "invalid_recovery_token")
	}
	token := a.challenged(ada)
	counts := together(100, func(i int) error {
		return []*replica{a, b}[i%2].Recover(t.Context(), second.Token, fmt.Sprintf("%s %d", secret, i), home)
	})
	w.wantOnce("at the same moment", counts, "invalid_recovery_token")
	if now := w.stored(ada); now.SessionEpoch <= before.SessionEpoch || now.PasswordHash == before.PasswordHash || len(w.rows(ada, "")) != 0 {
		t.Errorf("after it: %+v, %d factors", now, len(w.rows(ada, "")))
	}
	w.want("a login of before", errOf(a.complete(token, Answer{Method: TOTP, Code: "123456"})), gone)
	if got := w.events(ada.ID); !slices.Contains(got, "user.recover ok the factors were removed") {
		t.Errorf("the trail says %q", got)
	}

	third := issue(false, time.Minute)
	w.clock.pass(time.Minute)
	w.want("an expired one", a.Recover(t.Context(), third.Token, secret, home), "invalid_recovery_token")
	for _, life := range []time.Duration{-1, time.Minute - 1, MaxRecovery + 1} {
		w.want("for "+life.String(), errOf(a.IssueRecovery(t.Context(), w.as(root), "ada", false, life)), "invalid_request")
	}

	w.want("recovered, without factors", a.Recover(t.Context(), issue(false, MaxRecovery).Token, secret, home), "")
	app := a.enrolled(ada)
	w.want("recovered, with the factors", a.Recover(t.Context(), issue(true, 0).Token, secret, home), "")
	w.want("the factor that has stayed", errOf(a.complete(a.challenged(ada), app.next())), "")
	w.want("the old code, which has stayed spent", errOf(a.complete(a.challenged(ada), app.at(0))), "code_used")
}

// A recovery token is worth no more than its issuer could do when it is redeemed.
func TestRecoveryOfAUserWhoHasChanged(t *testing.T) {
	w, a := newWorld(t)
	root := a.user("root", "admin=all")
	a.user("strong", "log=x")
	for name, c := range map[string]struct {
		change func(u store.User) error
		want   string
	}{
		"promoted": {func(u store.User) error {
			return a.people.AddToGroup(t.Context(), directory.System(), u.ID, "of strong")
		}, "invalid_recovery_token"},
		"with-another-password": {func(u store.User) error {
			return a.people.SetPassword(t.Context(), directory.System(), u.ID, secret+"?")
		}, "invalid_recovery_token"},
		"disabled": {func(u store.User) error { return disable(a, u) }, "invalid_recovery_token"},
		"deleted":  {func(u store.User) error { return a.people.DeleteUser(t.Context(), directory.System(), u.ID) }, "invalid_recovery_token"},
		"nothing":  {func(store.User) error { return nil }, ""},
	} {
		u := a.user(name, "log=r")
		rec, err := a.IssueRecovery(t.Context(), w.as(root), u.ID, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.change(u); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w.want(name, a.Recover(t.Context(), rec.Token, secret+"!", home), c.want)
		if got := w.events(u.ID); c.want != "" && name != "deleted" && !slices.Contains(got, "user.recover denied "+c.want) {
			t.Errorf("%s: the trail says %q", name, got)
		}
	}
}

// A row of the database that was changed to be found by another user's token recovers nobody.
func TestRecoveryByAChangedRow(t *testing.T) {
	w, a := newWorld(t)
	root, ada, eve := a.user("root", "admin=all"), a.user("ada"), a.user("eve")
	rec, err := a.IssueRecovery(t.Context(), w.as(root), "eve", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(rec.Token, eve.ID, ada.ID, 1)
	row := w.rows(eve, kindRecovery)[0]
	for name, change := range map[string]func(*store.Factor){
		"the digest":          func(f *store.Factor) { f.Digest = digest(forged) },
		"the digest and user": func(f *store.Factor) { f.Digest, f.UserID = digest(forged), ada.ID },
	} {
		changed := row
		change(&changed)
		if err := w.store.DeleteFactor(t.Context(), row.ID); err != nil {
			t.Fatal(err)
		}
		if err := w.store.CreateFactor(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		if got := code(a.Recover(t.Context(), forged, secret+"!", home)); got != "invalid_recovery_token" && got != "factor_unreadable" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if now := w.stored(ada); now.PasswordHash == "" || now.SessionEpoch != ada.SessionEpoch {
		t.Error("ada was recovered by it")
	}
}

// Administrators reset the factors of those who are not stronger, and recover others than
// themselves. Each attempt is in the trail.
func TestAdministratorsAndFactors(t *testing.T) {
	w, a := newWorld(t)
	root, helper, plain := a.user("root", "admin=all"), a.user("helper", "admin=users:write"), a.user("plain", "admin=users:read")
	strong, weak := a.user("strong", "log=r"), a.user("weak")
	old, forOthers := w.as(root), w.as(root)
	old.AuthTime = w.clock.now().Add(-freshFor - time.Second)
	forOthers.API = false
	for _, u := range []store.User{strong, weak, root, helper} {
		a.enrolled(u)
	}
	for name, c := range map[string]struct {
		actor directory.Actor
		user  store.User
		want  string
	}{
		"no right to write":  {w.as(plain), weak, "permission_missing"},
		"weaker":             {w.as(helper), strong, "beyond_own_rights"},
		"weaker than root":   {w.as(helper), root, "beyond_own_rights"},
		"an old login":       {old, weak, "reauthentication_required"},
		"another audience":   {forOthers, weak, "wrong_audience"},
		"nobody":             {directory.Actor{}, weak, "wrong_audience"},
		"the user alone":     {w.as(weak), weak, "permission_missing"},
		"a user who is none": {w.as(root), store.User{ID: "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11"}, "user_not_found"},
	} {
		w.want(name+": reset", a.Reset(t.Context(), c.actor, c.user.ID, ""), c.want)
		w.want(name+": recovery", errOf(a.IssueRecovery(t.Context(), c.actor, c.user.ID, false, 0)), c.want)
		if c.want != "user_not_found" {
			for _, action := range []string{"mfa.reset", "user.recovery"} {
				if !slices.Contains(w.events(c.user.ID), action+" denied "+c.want) {
					t.Errorf("%s: the trail says %q", name, w.events(c.user.ID))
				}
			}
			if len(w.rows(c.user, kindTOTP)) != 1 || len(w.rows(c.user, kindRecovery)) != 0 {
				t.Errorf("%s: %d rows", name, len(w.rows(c.user, "")))
			}
		}
	}
	w.want("one's own recovery", errOf(a.IssueRecovery(t.Context(), w.as(root), "root", false, 0)), "own_recovery")
	w.want("another user's factor", a.Reset(t.Context(), w.as(root), "weak", w.rows(strong, kindTOTP)[0].ID), "factor_not_found")
	w.want("reading without the right", errOf(a.Overview(t.Context(), w.as(weak), "strong")), "permission_missing")
	w.want("reading", errOf(a.Overview(t.Context(), w.as(plain), "weak")), "")

	before := w.stored(weak)
	w.want("a helper resets", a.Reset(t.Context(), w.as(helper), "weak", ""), "")
	if now := w.stored(weak); now.SessionEpoch <= before.SessionEpoch || len(w.rows(weak, "")) != 0 {
		t.Error("a reset leaves sessions or factors")
	}
	w.want("a reset of nothing", a.Reset(t.Context(), w.as(helper), "weak", ""), "factor_not_found")
	app := a.enrolled(weak)
	a.backupCodes(weak)
	w.want("the backup codes alone", a.Reset(t.Context(), w.as(helper), "weak", w.rows(weak, kindCodes)[0].ID), "")
	w.want("the app is still there", errOf(a.complete(a.challenged(weak), app.next())), "")
	a.backupCodes(weak)
	rec, err := a.IssueRecovery(t.Context(), w.as(helper), "weak", true, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.want("the app alone", a.Reset(t.Context(), w.as(helper), "weak", w.rows(weak, kindTOTP)[0].ID), "")
	a.enrolled(weak)
	w.want("all", a.Reset(t.Context(), w.as(helper), "weak", ""), "")
	if n := len(w.rows(weak, kindCodes)); n != 0 {
		t.Error("backup codes are left without a factor")
	}
	w.want("a recovery token from before", a.Recover(t.Context(), rec.Token, secret, home), "invalid_recovery_token")
	w.want("root resets all", a.Reset(t.Context(), w.as(root), "strong", ""), "")
}
