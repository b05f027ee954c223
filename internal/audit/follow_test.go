package audit_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// Whoever follows the trail gets each event once, the earliest first, and also one that was
// committed late.
func TestFollow(t *testing.T) {
	w := newTrailWorld(t)
	r := w.replica()
	r.age.Store(int64(10 * time.Minute))
	r.write(t, 450) // several pages
	s := sqlstore.New(w.db)
	var got []string
	done := func(events []store.AuditEvent) error {
		for _, e := range events {
			got = append(got, e.ID)
		}
		return nil
	}
	r.age.Store(0)
	if err := r.Follow(t.Context(), time.Time{}, false, done); err != nil || !slices.Equal(got, w.ids()) {
		t.Errorf("%d of %d events, in order: %v; %v", len(got), len(w.ids()), slices.IsSorted(got), err)
	}
	got = nil
	middle := w.ids()[0]
	if err := r.Follow(t.Context(), time.Now().Add(-time.Minute), false, done); err != nil || len(got) != 0 {
		t.Errorf("since later: %d events, %v", len(got), err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	late := idAt(time.Now().Add(-20 * time.Second))
	err := r.Follow(ctx, time.Time{}, true, func(events []store.AuditEvent) error {
		_ = done(events)
		if len(got) == 450 {
			if err := s.AppendAudit(ctx, store.AuditEvent{ID: late, At: time.Now()}); err != nil {
				t.Error(err)
			}
		}
		if len(got) > 450 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(got) != 451 || got[450] != late || got[0] != middle {
		t.Errorf("%d events, %v", len(got), err)
	}
	full := errors.New("disk full")
	if err := r.Follow(t.Context(), time.Time{}, true, func([]store.AuditEvent) error { return full }); !errors.Is(err, full) {
		t.Error(err)
	}
}

// No text of an event ends its line, its field, or begins another one.
func TestSyslog(t *testing.T) {
	at := time.Date(2026, 11, 30, 1, 2, 3, 4e6, time.FixedZone("", 3600))
	for name, tt := range map[string]struct {
		event store.AuditEvent
		want  string
	}{
		"usual": {
			store.AuditEvent{ID: "i", At: at, Actor: "u1", Action: "login", Target: "s1", Outcome: audit.OK, Address: "192.0.2.1", Detail: "pwd"},
			`<110>1 2026-11-30T00:02:03.004Z - watchword - login [watchword@32473 id="i" action="login" outcome="ok" actor="u1" target="s1" address="192.0.2.1" detail="pwd"] ` + "\uFEFFlogin: ok, pwd\n",
		},
		"denied": {store.AuditEvent{ID: "i", At: at, Action: "login", Outcome: audit.Denied}, `<109>1 2026-11-30T00:02:03.004Z - watchword - login [watchword@32473 id="i" action="login" outcome="denied"] ` + "\uFEFFlogin: denied\n"},
		"failed": {store.AuditEvent{ID: "i", At: at, Action: "login", Outcome: audit.Failed}, `<108>1 2026-11-30T00:02:03.004Z - watchword - login [watchword@32473 id="i" action="login" outcome="failed"] ` + "\uFEFFlogin: failed\n"},
		"hostile": {
			store.AuditEvent{ID: `"]\`, At: at, Action: "a b\n\x00é" + strings.Repeat("x", 40), Outcome: "\r\n<0>1 ", Detail: "für \xff\u2028\u202e\"] x"},
			`<108>1 2026-11-30T00:02:03.004Z - watchword - a_b___` + strings.Repeat("x", 26) + ` [watchword@32473 id="\"\]\\" action="a b��é` + strings.Repeat("x", 40) +
				`" outcome="��<0>1 " detail="für ���\"\] x"] ` + "\uFEFFa b��é" + strings.Repeat("x", 40) + ": ��<0>1 , für ���\"] x\n",
		},
		"empty": {store.AuditEvent{At: at}, "<108>1 2026-11-30T00:02:03.004Z - watchword - - [watchword@32473] \uFEFF: \n"},
	} {
		var b bytes.Buffer
		w, err := audit.NewWriter(&b, audit.Syslog)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write([]store.AuditEvent{tt.event}); err != nil || b.String() != tt.want {
			t.Errorf("%s:\n got %q\nwant %q, %v", name, b.String(), tt.want, err)
		}
	}
}

// What a replica does by itself: it seals every ten seconds what there is, and rarely if there is
// nothing; it checks the whole trail soon after its start and every day; it says hourly what the
// newest seal is.
func TestRunSealsAndChecks(t *testing.T) {
	sqldbtest.SQLite(t) // the migrations run outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		w := newTrailWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		start := func() *replica {
			r := w.replicaOver(&bubbleStore{sqlstore.New(w.db)}, w.box)
			r.age.Store(0)
			run.Go(func() { r.Run(ctx) })
			return r
		}
		after := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		r := start()
		after(3 * time.Second)
		both := []*replica{r, start()}
		defer run.Wait()
		defer cancel()
		after(11 * time.Second)
		if n := len(w.seals()); n != 1 {
			t.Fatalf("%d seals of an empty trail", n)
		}
		for range 60 {
			r.write(t, 1)
			after(time.Second)
		}
		if n := len(w.seals()); n < 6 || n > 8 {
			t.Fatalf("%d seals of a minute: two replicas make no more than one", n)
		}
		after(2 * time.Minute)
		for _, r := range both {
			if s := r.chain.Status(); s.State() != audit.ChainHolds || s.Checked.Events < 30 {
				t.Errorf("%+v", s)
			}
		}
		after(time.Hour)
		if n := len(w.seals()); n < 12 || n > 15 {
			t.Errorf("%d seals after an hour without events", n)
		}
		if head := r.chain.Status().Newest; !strings.Contains(r.log.String(), "msg=\"the audit trail is sealed\" seal=") || len(head.Digest) != 64 {
			t.Errorf("%+v; log: %s", head, r.log)
		}
		w.exec("DELETE FROM audit_events WHERE action = 'user.update'")
		starts := start()
		after(3 * time.Minute)
		wants := []*replica{starts}
		if os.Getenv("WATCHWORD_SOAK") != "" { // a day is 17,000 passes
			after(25 * time.Hour)
			wants = append(wants, r)
		}
		for _, r := range wants {
			if s := r.chain.Status(); s.State() != audit.ChainBroken || s.Checked.Found != 60 || s.Faults != 0 {
				t.Errorf("%+v", s)
			}
		}
		if found := events(t, r.fixture, store.AuditQuery{Action: "audit.broken"}); len(found) == 0 || !strings.Contains(found[0].Detail, "60 problems; the first: event ") {
			t.Errorf("%v", found)
		}
	})
}

// bubbleStore is a store whose clock is that of the test.
type bubbleStore struct{ *sqlstore.Store }

func (s *bubbleStore) LastAuditSeal(ctx context.Context) (store.AuditSeal, time.Time, error) {
	last, _, err := s.Store.LastAuditSeal(ctx)
	return last, time.Now(), err
}
