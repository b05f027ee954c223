package admin_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/store"
)

// TestMarkupStaysText puts markup wherever somebody else decides what a page shows, and looks whether any of
// it is more than text there.
func TestMarkupStaysText(t *testing.T) {
	const evil = `"'><img src=x onerror=alert(1)><script>alert(2)</script>`
	o := newBureau(t)
	ada := o.user("ada")
	o.user("root", directory.Superuser)
	o.begin("ada", true, evil, evil)
	one := o.begin("ada", false, evil, evil)
	o.note(store.AuditEvent{Actor: evil, Action: evil, Target: evil, Outcome: audit.Failed, Address: evil, Detail: evil})
	o.note(store.AuditEvent{Actor: ada.ID, Action: "login", Target: evil, Outcome: audit.OK, Address: evil, Detail: evil})
	d := o.desk("root")
	clean := func(a seen) {
		t.Helper()
		if a.Code == http.StatusSeeOther {
			a = d.then(a)
		}
		body := a.Body.String()
		for _, bad := range []string{"<img src=x", "<script>alert", `"'>`} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: status %d: %q is markup: %s", a.what, a.Code, bad, body)
			}
		}
		for _, m := range regexp.MustCompile(`(?i)(?:href|action|hx-get)="([^"]*)"`).FindAllStringSubmatch(body, -1) {
			if to := html.UnescapeString(m[1]); !strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "#") || strings.HasPrefix(to, "//") {
				t.Errorf("%s leads to %q", a.what, to)
			}
		}
	}
	// What is shown of others. It is there, as text.
	for path, text := range map[string]string{
		"/admin/sessions":          `"'><img src=x`,
		"/admin/sessions?user=ada": `"'><img src=x`,
		"/admin/sessions/end?" + url.Values{"user": {ada.ID}, "id": {one.SessionID}}.Encode(): `"'><img src=x`,
		"/admin/audit":  evil,
		"/admin/limits": "",
	} {
		a := d.get(path)
		clean(a)
		if text != "" {
			a.says(http.StatusOK, text)
		}
	}
	// What was typed or stands in a link.
	q := url.QueryEscape(evil)
	for _, path := range []string{
		"/admin/sessions?user=" + q, "/admin/sessions?after=" + q, "/admin/sessions?user=ada&after=" + q, "/admin/sessions/end?user=ada&id=" + q,
		"/admin/sessions/end-all?user=" + q, "/admin/revocations?before=" + q, "/admin/revocations/session?session_id=" + q,
		"/admin/revocations/user?user=" + q, "/admin/revocations/user?user=ada&issued_before=" + q, "/admin/revocations/key?reason=" + q + "&kid=" + q,
		"/admin/limits?after=" + q, "/admin/limits/account?user=" + q, "/admin/limits/account/lift?user=" + q, "/admin/limits/address?address=" + q,
		"/admin/limits/address/lift?address=" + q, "/admin/audit?actor=" + q, "/admin/audit?target=" + q, "/admin/audit?action=" + q, "/admin/audit?outcome=" + q,
		"/admin/audit?address=" + q, "/admin/audit?since=" + q, "/admin/audit?until=" + q, "/admin/audit?after=" + q, "/admin/audit/export?form=" + q,
		"/admin/sessions?user=javascript:alert(1)", "/admin/audit?action=javascript:alert(1)",
	} {
		clean(d.get(path))
	}
	for _, post := range [][]string{
		{"/admin/sessions/end", "user", evil, "id", evil}, {"/admin/sessions/end-all", "user", evil}, {"/admin/revocations/token", "token", evil},
		{"/admin/revocations/session", "session_id", evil}, {"/admin/revocations/user", "user", evil, "issued_before", evil},
		{"/admin/revocations/key", "kid", evil, "reason", evil}, {"/admin/limits/account/lift", "user", evil}, {"/admin/limits/address/lift", "address", evil},
	} {
		clean(d.post(post[0], post[1:]...))
	}
	// A flash message says what was revoked.
	clean(d.post("/admin/revocations/session", "session_id", one.SessionID))
	clean(d.get("/admin/audit?action=revoke"))
	clean(d.get("/admin/revocations"))
}
