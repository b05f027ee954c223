package admin_test

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/store"
)

// note writes an event into the trail.
func (o *bureau) note(e store.AuditEvent) { o.trail.Record(o.t.Context(), e) }

func TestAuditPage(t *testing.T) {
	o := newBureau(t)
	ada := o.user("ada")
	o.user("root", directory.Superuser)
	d := o.desk("root")
	o.note(store.AuditEvent{Actor: ada.ID, Action: "user.update", Target: "a-group", Outcome: audit.OK, Address: "198.51.100.4", Detail: "first thing"})
	o.note(store.AuditEvent{Actor: "gone", Action: "a.new.action", Target: ada.ID, Outcome: audit.Denied, Address: "198.51.100.5", Detail: "permission_missing"})
	const first, second = "first thing", "they lack the right"
	d.get("/admin/audit").says(http.StatusOK, first, second, "User changed", "a.new.action", "Denied", ">ada</a>", "a-group", "from 198.51.100.4")
	past, future := time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04"), time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04")
	for query, want := range map[string][2]bool{
		"actor=ada":                          {true, false},
		"actor=ADA":                          {true, false},
		"actor=" + ada.ID:                    {true, false},
		"target=ada":                         {false, true},
		"target=a-group":                     {true, false},
		"action=user.update":                 {true, false},
		"action=a.new.action":                {false, true},
		"outcome=denied":                     {false, true},
		"address=198.51.100.4":               {true, false},
		"since=" + past + "&actor=ada":       {true, false},
		"until=" + past:                      {false, false},
		"since=" + future:                    {false, false},
		"since=" + past + "&until=" + future: {true, true},
	} {
		a := d.get("/admin/audit?" + query).says(http.StatusOK)
		for i, text := range []string{first, second} {
			if got := strings.Contains(a.read(), text); got != want[i] {
				t.Errorf("%s: %q is there: %t", query, text, got)
			}
		}
	}
	d.get("/admin/audit?until="+past).says(http.StatusOK, "No such event", `value="`+past+`"`)
	d.get("/admin/audit?actor=no-body&action=login").says(http.StatusUnprocessableEntity, "No user has this name", `value="no-body"`, `value="login"`)
	d.get("/admin/audit?since=soon").says(http.StatusUnprocessableEntity, "in UTC")
	d.get("/admin/audit?outcome=maybe").says(http.StatusUnprocessableEntity)
	d.get("/admin/audit?after=%2A").says(http.StatusUnprocessableEntity)

	// Names are shown to who may see users.
	o.user("auditor", directory.AuditRead)
	a := o.desk("auditor")
	a.get("/admin/audit").says(http.StatusOK, ada.ID, ">auditor").saysNot(">ada</a>", "/admin/users/")
	a.get("/admin/audit?actor=auditor").says(http.StatusOK, "Sign-in")
	a.get("/admin/audit?actor=ada").says(http.StatusUnprocessableEntity, "needs the permission users:read")
	a.get("/admin/audit?target=ada").says(http.StatusOK, "No such event")
	a.get("/admin/audit?actor="+ada.ID).says(http.StatusOK, first)
}

func TestAuditIsPaged(t *testing.T) {
	o := newBureau(t)
	o.user("root", directory.Superuser)
	for i := range 27 {
		o.note(store.AuditEvent{Actor: "gone", Action: "group.update", Outcome: audit.OK, Detail: fmt.Sprintf("number %d.", i)})
	}
	d := o.desk("root")
	page := d.get("/admin/audit?actor=&action=group.update").says(http.StatusOK, "number 26.", "number 2.").saysNot("number 1.")
	next := regexp.MustCompile(`/admin/audit\?[^"]*after=[^"]*`).FindString(page.Body.String())
	d.get(strings.ReplaceAll(next, "&amp;", "&")).says(http.StatusOK, "number 1.", "number 0.", "/admin/audit?action=group.update").saysNot("number 2.", `rel="next"`)
}

func TestAuditExport(t *testing.T) {
	o := newBureau(t)
	o.user("root", directory.Superuser)
	for i := range audit.MaxPage + 5 {
		o.note(store.AuditEvent{Actor: "gone", Action: "group.update", Outcome: audit.OK, Detail: fmt.Sprintf("=%d, \"x\"\n", i)})
	}
	d := o.desk("root")
	export := func(form, query string) seen {
		t.Helper()
		a := d.get("/admin/audit/export?form=" + form + "&" + query).says(http.StatusOK)
		if h := a.Header(); !regexp.MustCompile(`^attachment; filename="watchword-audit-\d{8}T\d{6}Z\.`+form+`"$`).MatchString(h.Get("Content-Disposition")) ||
			h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", form, h)
		}
		return a
	}
	rows, err := csv.NewReader(export("csv", "action=group.update").Body).ReadAll()
	if err != nil || len(rows) != audit.MaxPage+6 || rows[0][0] != "id" {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	lines := bufio.NewScanner(export("jsonl", "action=group.update").Body)
	n := 0
	for ; lines.Scan(); n++ {
		var e struct{ Action string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action != "group.update" {
			t.Fatalf("line %d: %s, %v", n, lines.Text(), err)
		}
	}
	if n != audit.MaxPage+5 {
		t.Errorf("%d lines", n)
	}
	if a := export("jsonl", "action=nothing"); a.Body.Len() != 0 {
		t.Errorf("no events: %s", a.Body)
	}
	d.get("/admin/audit?action=audit.export").says(http.StatusOK, "Audit trail exported", "as CSV", "as JSON Lines")
	for _, wrong := range []string{"form=xml", "", "form=csv&since=soon", "form=csv&actor=no-body"} {
		if a := d.get("/admin/audit/export?" + wrong).says(http.StatusUnprocessableEntity); a.Header().Get("Content-Disposition") != "" {
			t.Errorf("%q is a file", wrong)
		}
	}
	o.user("reader", directory.UsersRead)
	o.desk("reader").get("/admin/audit/export?form=csv").says(http.StatusForbidden)
}

// A gone client is one that takes so much and no more.
type goneClient struct {
	*httptest.ResponseRecorder
	left int
}

func (g *goneClient) Write(b []byte) (int, error) {
	if g.left -= len(b); g.left < 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return g.ResponseRecorder.Write(b)
}

// TestBrokenExport: a part of the trail never looks like the whole.
func TestBrokenExport(t *testing.T) {
	o := newBureau(t)
	o.user("root", directory.Superuser)
	for range 2 * audit.MaxPage {
		o.note(store.AuditEvent{Actor: "gone", Action: "group.update", Outcome: audit.OK, Detail: strings.Repeat("x", 400)})
	}
	d := o.desk("root")
	w := &goneClient{httptest.NewRecorder(), 20000}
	r := httptest.NewRequest(http.MethodGet, site+"/admin/audit/export?form=csv", nil)
	r.AddCookie(&http.Cookie{Name: "watchword", Value: d.cookie})
	defer func() {
		if thrown := recover(); thrown != http.ErrAbortHandler {
			t.Errorf("the answer ended as if it were whole: %v", thrown)
		}
		if strings.Contains(w.Body.String(), "<html") {
			t.Error("a page stands in the file")
		}
	}()
	o.mux.ServeHTTP(w, r)
}

// TestActionsAreKnown looks for actions in the source that the page has no words for.
func TestActionsAreKnown(t *testing.T) {
	o := newBureau(t)
	o.user("root", directory.Superuser)
	page := o.desk("root").get("/admin/audit").Body.String()
	known := 0
	pattern := regexp.MustCompile(`(?:Action: *|action :?= *|s\.change\(ctx, (?:actor|System\(\)), [A-Za-z]+, |endEvent\(by, )"([a-z_]+(?:\.[a-z_]+)?)"`)
	for _, dir := range []string{"login", "directory", "mfa", "limit", "operator", "cluster", "keyring", "app"} {
		files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range pattern.FindAllStringSubmatch(string(b), -1) {
				if known++; !strings.Contains(page, `<option value="`+m[1]+`">`) {
					t.Errorf("%s: the action %q has no words", file, m[1])
				}
			}
		}
	}
	if known < 20 {
		t.Errorf("%d actions were found", known)
	}
}
