package directory

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

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
		_, err = w.AuditChain(ctx, as(store.User{ID: id}))
		w.want(err, want)
		var file bytes.Buffer
		w.want(w.FollowEvents(ctx, as(store.User{ID: id}), &file, audit.JSONLines, time.Time{}, false), want)
		if may != (file.Len() > 0) {
			t.Errorf("%q: a file of %d bytes", id, file.Len())
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

// Whoever loses the right while they follow the trail gets nothing more. The export is in the trail.
func TestFollowingEndsWithTheRight(t *testing.T) {
	w := newWorld(t)
	reader := w.user("reader", "admin=audit:read")
	file := &tap{after: func() {
		if err := w.RemoveClaim(t.Context(), System(), "of reader", "admin=audit:read"); err != nil {
			t.Error(err)
		}
		// One that was committed late, which is told about at the next look.
		at := time.Now().Add(-30 * time.Second)
		id := fmt.Sprintf("%08x-%04x-7000-8000-000000000000", at.UnixMilli()>>16, at.UnixMilli()&0xffff)
		if err := w.Store.AppendAudit(t.Context(), store.AuditEvent{ID: id, At: at, Action: "late", Outcome: audit.OK}); err != nil {
			t.Error(err)
		}
	}}
	// In the past, so that it is told about at once.
	if err := w.Store.AppendAudit(t.Context(), store.AuditEvent{ID: "00000000-0000-7000-8000-000000000000", Action: "early", Outcome: audit.OK}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w.want(w.FollowEvents(ctx, as(reader), file, audit.JSONLines, time.Time{}, true), "permission_missing")
	if text := file.b.String(); !strings.Contains(text, "early") || strings.Contains(text, "late") {
		t.Errorf("%s", text)
	}
	list, err := w.AuditEvents(t.Context(), System(), audit.Query{Action: "audit.export"})
	if err != nil || len(list.Items) != 1 || list.Items[0].Detail != "jsonl; followed" || list.Items[0].Actor != reader.ID {
		t.Errorf("%+v, %v", list, err)
	}
}

// tap is a file that calls after once something has been written.
type tap struct {
	b     bytes.Buffer
	after func()
}

func (t *tap) Write(p []byte) (int, error) {
	if t.after != nil {
		t.after()
		t.after = nil
	}
	return t.b.Write(p)
}
