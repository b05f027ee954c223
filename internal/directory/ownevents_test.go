package directory

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/store"
)

// ownEvents returns the actions of all pages.
func (w *world) ownEvents(actor Actor, q audit.Query) (actions []string) {
	w.t.Helper()
	for pages := 0; ; pages++ {
		l, err := w.OwnEvents(w.t.Context(), actor, q)
		if err != nil || pages > 1000 || q.Limit > 0 && len(l.Items) > q.Limit {
			w.t.Fatalf("page %d: %d events, %v", pages, len(l.Items), err)
		}
		for _, e := range l.Items {
			actions = append(actions, e.Action)
		}
		if q.After = l.Next; q.After == "" {
			return actions
		}
	}
}

// A user sees what they did and what was done to them, each event once and the newest first, and
// of others no more than that.
func TestOwnEvents(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	ada, bob := w.user("ada"), w.user("bob")
	began := w.ownEvents(as(ada), audit.Query{})
	if !slices.Equal(began, []string{"user.create"}) {
		t.Fatalf("%q", began)
	}
	var want []string
	for i := range 40 {
		e := store.AuditEvent{Action: fmt.Sprint("event", i), Outcome: audit.OK, Address: "198.51.100.7", Detail: "between us"}
		switch i % 5 {
		case 0:
			e.Actor = ada.ID
		case 1:
			e.Target = ada.ID // nobody knows who: a refused login
		case 2:
			e.Actor, e.Target = ada.ID, ada.ID
		case 3:
			e.Actor, e.Target = bob.ID, ada.ID
		case 4:
			e.Actor, e.Target = bob.ID, bob.ID
		}
		w.Audit.(*audit.Trail).Record(ctx, e)
		if i%5 != 4 {
			want = append(want, e.Action)
		}
	}
	want = append([]string{"user.create"}, want...)
	slices.Reverse(want)
	for _, limit := range []int{0, 1, 2, 3, 7, 31, 32, 33, audit.MaxPage} {
		if got := w.ownEvents(as(ada), audit.Query{Limit: limit, Actor: bob.ID, Target: bob.ID}); !slices.Equal(got, want) {
			t.Errorf("%d a page: %q, want %q", limit, got, want)
		}
		if got := w.ownEvents(as(ada), audit.Query{Limit: limit, Action: "event13"}); !slices.Equal(got, []string{"event13"}) {
			t.Errorf("%d a page: %q", limit, got)
		}
	}
	l, err := w.OwnEvents(ctx, as(ada), audit.Query{Limit: audit.MaxPage})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l.Items {
		attacks.Add(1)
		if e.Actor != ada.ID && e.Target != ada.ID {
			t.Errorf("somebody else's: %+v", e)
		}
		if others := e.Actor == bob.ID; others != (e.Address == "" && e.Detail == "") && e.Action != "user.create" {
			t.Errorf("what others did shows more, or what one did less: %+v", e)
		}
	}
	_, err = w.OwnEvents(ctx, as(ada), audit.Query{Limit: -1})
	w.want(err, "invalid_limit")
	_, err = w.OwnEvents(ctx, as(ada), audit.Query{Limit: audit.MaxPage + 1})
	w.want(err, "invalid_limit")
	for _, actor := range []Actor{{}, {API: true}, {ID: ada.ID}, {ID: "none", API: true}} {
		l, err := w.OwnEvents(ctx, actor, audit.Query{})
		w.attack(err, map[bool]string{true: "permission_missing", false: "wrong_audience"}[actor.API])
		if len(l.Items) > 0 {
			t.Errorf("%+v sees %d events", actor, len(l.Items))
		}
	}
	if _, err := w.UpdateUser(ctx, System(), ada.ID, UserPatch{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	_, err = w.OwnEvents(ctx, as(ada), audit.Query{})
	w.attack(err, "permission_missing")
}

// What one did in the thousands does not hide what was done to one, where a query looks through
// it.
func TestOwnEventsOfABusyOne(t *testing.T) {
	w := newWorld(t)
	ada := w.user("ada")
	at := time.Now().Add(-time.Hour)
	err := w.Store.Update(t.Context(), func(r store.Records) error {
		for i := range store.AuditScan + 100 {
			id := fmt.Sprintf("%08x-0000-7000-8000-%012x", i, i)
			e := store.AuditEvent{ID: id, At: at, Actor: ada.ID, Action: "login", Outcome: audit.OK}
			if i == 7 {
				e.Action = "rare"
			}
			if i == 5 {
				e.Actor, e.Target, e.Action = "", ada.ID, "rare"
			}
			if err := r.AppendAudit(t.Context(), e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.ownEvents(as(ada), audit.Query{Action: "rare"}); !slices.Equal(got, []string{"rare", "rare"}) {
		t.Errorf("%q", got)
	}
}

func TestExportEvents(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	reader := w.user("reader", "admin=audit:read")
	const many = 2*audit.MaxPage + 50
	for i := range many {
		w.Audit.(*audit.Trail).Record(ctx, store.AuditEvent{Actor: reader.ID, Action: "thing", Target: fmt.Sprint(i), Outcome: audit.OK, Address: fmt.Sprint("192.0.2.", i%2), Detail: `=HYPERLINK("//x","a, b") ü`})
	}
	var file bytes.Buffer
	if err := w.ExportEvents(ctx, as(reader), &file, audit.CSV, audit.Query{Action: "thing", Limit: 1}); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(bytes.NewReader(file.Bytes())).ReadAll()
	if err != nil || len(lines) != many+1 || strings.Join(lines[0], " ") != "id at actor action target outcome address detail" {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, line := range lines[1:] {
		if line[4] != fmt.Sprint(many-1-i) || line[7] != `'=HYPERLINK("//x","a, b") ü` || line[2] != reader.ID {
			t.Fatalf("line %d: %q", i, line)
		}
	}
	file.Reset()
	if err := w.ExportEvents(ctx, as(reader), &file, audit.JSONLines, audit.Query{Action: "thing", Address: "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for d := json.NewDecoder(&file); d.More(); n++ {
		var e map[string]string
		if err := d.Decode(&e); err != nil || e["address"] != "192.0.2.1" || e["detail"] != `=HYPERLINK("//x","a, b") ü` || len(e) != 8 {
			t.Fatalf("%v, %v", e, err)
		}
		if at, err := time.Parse(time.RFC3339, e["at"]); err != nil || time.Since(at) > time.Minute {
			t.Fatal(e["at"], err)
		}
	}
	if n != many/2 {
		t.Errorf("%d events", n)
	}
	exports, err := w.Store.AuditEvents(ctx, store.AuditQuery{Action: "audit.export", Outcome: audit.OK, Limit: 10})
	if err != nil || len(exports.Events) != 2 || exports.Events[0].Actor != reader.ID || exports.Events[0].Detail != "jsonl" {
		t.Errorf("the trail: %+v, %v", exports, err)
	}

	w.want(w.ExportEvents(ctx, as(reader), &file, "xml", audit.Query{}), "invalid_form")
	w.want(w.ExportEvents(ctx, as(reader), &file, audit.CSV, audit.Query{Address: "localhost"}), "invalid_address")
	if err := w.ExportEvents(ctx, as(reader), fullFile{}, audit.JSONLines, audit.Query{}); !errors.Is(err, errFull) {
		t.Errorf("a file that cannot be written: %v", err)
	}
	file.Reset()
	w.attack(w.ExportEvents(ctx, as(w.user("users", "admin=users:write")), &file, audit.CSV, audit.Query{}), "permission_missing")
	if file.Len() > 0 {
		t.Errorf("written: %s", file.String())
	}
	// The right ends while the file is written.
	taking := &afterWrite{do: func() {
		if err := w.RemoveClaim(ctx, System(), "of reader", "admin=audit:read"); err != nil {
			t.Error(err)
		}
	}}
	w.attack(w.ExportEvents(ctx, as(reader), taking, audit.JSONLines, audit.Query{Action: "thing"}), "permission_missing")
	if got := strings.Count(taking.String(), "\n"); got == 0 || got > audit.MaxPage {
		t.Errorf("%d events were written", got)
	}
	denied, err := w.Store.AuditEvents(ctx, store.AuditQuery{Action: "audit.export", Outcome: audit.Denied, Limit: 10})
	if err != nil || len(denied.Events) != 1 {
		t.Errorf("the trail: %+v, %v", denied, err)
	}
}

// fullFile is a file that cannot be written.
type fullFile struct{}

var errFull = errors.New("disk full")

func (fullFile) Write([]byte) (int, error) { return 0, errFull }

// afterWrite is a file that does something after it was written first.
type afterWrite struct {
	bytes.Buffer
	do func()
}

func (a *afterWrite) Write(p []byte) (int, error) {
	if a.do != nil {
		a.do()
		a.do = nil
	}
	return a.Buffer.Write(p)
}
