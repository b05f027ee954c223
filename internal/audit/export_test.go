package audit_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// An address is found however it is spelled, and what is none is said to be so.
func TestPagesByAddress(t *testing.T) {
	f := newTrail(t, newStore(t), func() time.Time { return now })
	for _, address := range []string{"192.0.2.1", "192.0.2.10", "2001:db8::1", ""} {
		f.Record(t.Context(), store.AuditEvent{Action: "at " + address, Outcome: audit.OK, Address: address})
	}
	for spelled, want := range map[string][]string{
		"192.0.2.1":            {"at 192.0.2.1"},
		"::ffff:192.0.2.1":     {"at 192.0.2.1"},
		"2001:DB8:0:0:0:0:0:1": {"at 2001:db8::1"},
		"2001:db8::1%eth0":     {"at 2001:db8::1"},
		"192.0.2.2":            nil,
		"":                     {"at ", "at 2001:db8::1", "at 192.0.2.10", "at 192.0.2.1"},
	} {
		for _, limit := range []int{1, 0} {
			if got := read(t, f, audit.Query{Address: spelled, Limit: limit}); !slices.Equal(got, want) {
				t.Errorf("%q: %q, want %q", spelled, got, want)
			}
		}
	}
	for _, wrong := range []string{"192.0.2", "192.0.2.0/24", "localhost", "%", "192.0.2.1 ", "' OR ''='", "\x00"} {
		if _, err := f.Page(t.Context(), audit.Query{Address: wrong}); problem.From(err).Code != "invalid_address" {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestWriter(t *testing.T) {
	e := store.AuditEvent{ID: "e1", At: now, Actor: "u1", Action: "login", Target: "+1", Outcome: audit.OK, Address: "2001:db8::1", Detail: "<a>, \"b\" ü"}
	for form, want := range map[audit.Form]string{
		audit.CSV: "id,at,actor,action,target,outcome,address,detail\n" +
			"e1," + now.Format("2006-01-02T15:04:05.000Z") + `,u1,login,'+1,ok,2001:db8::1,"<a>, ""b"" ü"` + "\n",
		audit.JSONLines: `{"id":"e1","at":"` + now.Format("2006-01-02T15:04:05.000Z") + `","actor":"u1","action":"login","target":"+1","outcome":"ok","address":"2001:db8::1","detail":"<a>, \"b\" ü"}` + "\n",
	} {
		var file bytes.Buffer
		w, err := audit.NewWriter(&file, form)
		if err == nil {
			err = w.Write([]store.AuditEvent{e})
		}
		if err != nil || file.String() != want {
			t.Errorf("%s: %s, %v; want %s", form, file.String(), err, want)
		}
	}
	var file bytes.Buffer
	w, err := audit.NewWriter(&file, audit.CSV)
	if err == nil {
		err = w.Write(nil)
	}
	if err != nil || file.String() != "id,at,actor,action,target,outcome,address,detail\n" {
		t.Errorf("no event: %q, %v", file.String(), err)
	}
	if _, err := audit.NewWriter(&file, "xml"); problem.From(err).Code != "invalid_form" {
		t.Error(err)
	}
}
