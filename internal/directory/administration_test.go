package directory

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// Whoever is enabled and has any permission is an administrator, and nobody else.
func TestWhoIsAnAdministrator(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	any := func(want bool) {
		t.Helper()
		if got, err := w.AnyAdministrator(ctx); err != nil || got != want {
			t.Errorf("there is an administrator: %v, %v", got, err)
		}
	}
	check := func(u store.User, want string) {
		t.Helper()
		attacks.Add(1)
		got, rights, err := w.Administration(ctx, as(u))
		w.want(err, want)
		if err == nil && (got.ID != u.ID || got.PasswordHash != "" || !rights.Administer()) {
			t.Errorf("%+v, %+v", got, rights)
		}
		if err != nil && (got != store.User{} || rights.Administer() || problem.From(err).Kind != problem.Denied) {
			t.Errorf("%+v, %+v, %v", got, rights, err)
		}
	}
	any(false)
	check(store.User{}, "not_an_administrator")
	check(store.User{ID: "none"}, "not_an_administrator")
	check(w.user("nobody"), "not_an_administrator")
	check(w.user("alike", "administration=all", "log=all", "log=users:read"), "not_an_administrator")
	any(false)

	weakest := w.user("weakest", "admin=limits:read", "log=r")
	check(weakest, "")
	any(true)
	disabled := func(u store.User, disabled bool) {
		t.Helper()
		if _, err := w.UpdateUser(ctx, System(), u.ID, UserPatch{Disabled: &disabled}); err != nil {
			t.Fatal(err)
		}
	}
	disabled(weakest, true)
	check(weakest, "not_an_administrator")
	any(false)
	disabled(weakest, false)
	check(weakest, "")
	any(true)
	for _, step := range []struct{ undo, do func() error }{
		{func() error { return w.RemoveClaim(ctx, System(), "of weakest", "admin=limits:read") },
			func() error { return w.AddClaim(ctx, System(), "of weakest", "admin=limits:read") }},
		{func() error { return w.RemoveFromGroup(ctx, System(), weakest.ID, "of weakest") },
			func() error { return w.AddToGroup(ctx, System(), weakest.ID, "of weakest") }},
		{func() error { return w.DeleteClaim(ctx, System(), "admin=limits:read") }, func() error {
			w.claim("admin", "limits:read")
			return w.AddClaim(ctx, System(), "of weakest", "admin=limits:read")
		}},
		{func() error { return w.DeleteGroup(ctx, System(), "of weakest") }, func() error {
			w.group("of weakest", "admin=limits:read")
			return w.AddToGroup(ctx, System(), weakest.ID, "of weakest")
		}},
		{func() error { return w.DeleteUser(ctx, System(), weakest.ID) }, func() error { weakest = w.user("other", "admin=limits:read"); return nil }},
	} {
		if err := step.undo(); err != nil {
			t.Fatal(err)
		}
		check(weakest, "not_an_administrator")
		any(false)
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		check(weakest, "")
		any(true)
	}
	check(w.superuser("root"), "")

	// A token for a service is none for administration, whoever holds it.
	elsewhere := as(weakest)
	elsewhere.API = false
	_, _, err := w.Administration(ctx, elsewhere)
	w.attack(err, "wrong_audience")
	// To look, no fresh login is needed.
	longAgo := as(weakest)
	longAgo.AuthTime = longAgo.AuthTime.Add(-30 * freshFor)
	_, _, err = w.Administration(ctx, longAgo)
	w.want(err, "")
	u, rights, err := w.Administration(ctx, System())
	if err != nil || u != (store.User{}) || !rights.Superuser() || !rights.Administer() {
		t.Errorf("the system: %+v, %+v, %v", u, rights, err)
	}
}
