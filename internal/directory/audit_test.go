package directory

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/store"
)

// Only an enabled user who holds audit:read, or everything, reads the trail.
func TestWhoReadsTheAuditTrail(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	may := map[string]bool{}
	for name, claims := range map[string][]string{
		"reader": {"admin=audit:read"}, "superuser": {"admin=all"}, "nobody": nil,
		"others": {"admin=users:write", "admin=keys:write", "admin=revoke", "admin=sessions:write"},
		"alike":  {"audit=read", "audit=all", "log=audit:read", "administration=audit:read"},
	} {
		may[w.user(name, claims...).ID] = name == "reader" || name == "superuser"
	}
	may[""], may["none"] = false, false
	for id, may := range may {
		want := "permission_missing"
		if may {
			want = ""
		}
		list, err := w.AuditEvents(ctx, as(store.User{ID: id}), audit.Query{Limit: 3})
		w.want(err, want)
		if got := len(list.Items) == 3 && list.Next != ""; got != may {
			t.Errorf("%q: %d events, next %q", id, len(list.Items), list.Next)
		}
		// An actor without the right does not learn what is wrong with a query.
		if _, err := w.AuditEvents(ctx, as(store.User{ID: id}), audit.Query{Limit: -1}); !may {
			w.want(err, want)
		}
	}
	if list, err := w.AuditEvents(ctx, System(), audit.Query{}); err != nil || len(list.Items) == 0 {
		t.Errorf("the operator sees %d events, %v", len(list.Items), err)
	}

	reader, err := w.User(ctx, System(), "reader")
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.AuditEvents(ctx, as(reader), audit.Query{})
	w.want(err, "")
	disabled := true
	if _, err := w.UpdateUser(ctx, System(), reader.ID, UserPatch{Disabled: &disabled}); err != nil {
		t.Fatal(err)
	}
	_, err = w.AuditEvents(ctx, as(reader), audit.Query{})
	w.want(err, "permission_missing")
	disabled = false
	if _, err := w.UpdateUser(ctx, System(), reader.ID, UserPatch{Disabled: &disabled}); err != nil {
		t.Fatal(err)
	}
	_, err = w.AuditEvents(ctx, as(reader), audit.Query{})
	w.want(err, "")
	if err := w.RemoveClaim(ctx, System(), "of reader", "admin=audit:read"); err != nil {
		t.Fatal(err)
	}
	_, err = w.AuditEvents(ctx, as(reader), audit.Query{})
	w.want(err, "permission_missing")
}
