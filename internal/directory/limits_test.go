package directory

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/store"
)

// Limits are seen and lifted by those who hold the permission, and of a user only by those who
// hold all rights of the user.
func TestWhoMaySeeAndLiftLimits(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	root, plain := w.superuser("root"), w.user("plain", "log=r")
	reader, writer := w.user("reader", "admin=limits:read", "log=r"), w.user("writer", "admin=limits:write", "log=r")
	other := w.user("other", "admin=users:write", "admin=audit:read", "limits=write", "log=r")
	for _, one := range []struct {
		actor     store.User
		see, lift string // the code
	}{
		{root, "", ""}, {writer, "", ""}, {reader, "", "permission_missing"},
		{other, "permission_missing", "permission_missing"}, {plain, "permission_missing", "permission_missing"},
	} {
		r := w.LimitRights(as(one.actor))
		w.want(r.MaySeeLimits(ctx), one.see)
		w.want(r.MayLiftLimits(ctx), one.lift)
		w.want(second(r.MaySeeLimitsOf(ctx, plain.ID)), one.see)
		w.want(second(r.MayLiftLimitsOf(ctx, "PLAIN")), one.lift)
		beyond := func(code string) string {
			if code == "" && one.actor.ID != root.ID {
				return "beyond_own_rights"
			}
			return code
		}
		w.want(second(r.MaySeeLimitsOf(ctx, "root")), beyond(one.see))
		w.want(second(r.MayLiftLimitsOf(ctx, root.ID)), beyond(one.lift))
		if id, address := r.Actor(); id != one.actor.ID || address != as(one.actor).Address {
			t.Errorf("the trail would have %q, %q", id, address)
		}
	}
	r := w.LimitRights(as(writer))
	if u, err := r.MayLiftLimitsOf(ctx, "plain"); err != nil || u.ID != plain.ID || u.NameKey != "plain" || u.PasswordHash != "" {
		t.Errorf("%+v, %v", u, err)
	}
	w.want(second(r.MayLiftLimitsOf(ctx, "gone")), "user_not_found")
	// A stale token still sees.
	late := as(writer)
	late.AuthTime = late.AuthTime.Add(-freshFor - 1e9)
	w.want(w.LimitRights(late).MaySeeLimits(ctx), "")
	w.want(w.LimitRights(late).MayLiftLimits(ctx), "reauthentication_required")
	w.want(w.LimitRights(System()).MayLiftLimits(ctx), "")
	w.want(w.LimitRights(Actor{}).MaySeeLimits(ctx), "wrong_audience")
}
