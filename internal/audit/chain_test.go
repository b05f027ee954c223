package audit_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A trailWorld is a database, and replicas that write events into it.
type trailWorld struct {
	t   *testing.T
	db  *sqldb.DB
	box *seal.Box
}

// A replica is a trail with its chain.
type replica struct {
	fixture
	chain *audit.Chain
	// age is how long ago its events are, so that they may be sealed.
	age *atomic.Int64
}

func newTrailWorld(t *testing.T) *trailWorld {
	return &trailWorld{t, sqldbtest.Open(t), newBox(t, 1)}
}

func newBox(t testing.TB, keys ...byte) *seal.Box {
	t.Helper()
	var all [][]byte
	for _, k := range keys {
		all = append(all, bytes.Repeat([]byte{k}, seal.KeySize))
	}
	box, err := seal.New(all[0], all[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func (w *trailWorld) replica() *replica { return w.replicaOver(sqlstore.New(w.db), w.box) }

func (w *trailWorld) replicaOver(s store.Records, box *seal.Box) *replica {
	w.t.Helper()
	r := &replica{age: new(atomic.Int64), fixture: fixture{log: new(bytes.Buffer), registry: prometheus.NewRegistry()}}
	r.age.Store(int64(time.Minute))
	logger := slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.chain, err = audit.NewChain(audit.ChainConfig{Store: s, Box: box, Logger: logger, Registerer: r.registry}); err != nil {
		w.t.Fatal(err)
	}
	if r.Trail, err = audit.New(audit.Config{
		Store: s, Chain: r.chain, Retention: 24 * time.Hour, Now: func() time.Time { return time.Now().Add(-time.Duration(r.age.Load())) },
		Rand: rand.Reader, Logger: logger, Registerer: r.registry,
	}); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// write records n events.
func (r *replica) write(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		r.Record(t.Context(), store.AuditEvent{
			Actor: fmt.Sprint("u", i%7), Action: "user.update", Target: fmt.Sprint("t", i), Outcome: audit.OK, Address: "192.0.2.1", Detail: "ü",
		})
	}
}

func (r *replica) seal(t *testing.T) {
	t.Helper()
	if err := r.chain.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *trailWorld) verify(noted audit.Head) audit.Report {
	w.t.Helper()
	report, err := w.replica().chain.Verify(w.t.Context(), noted)
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

// holds fails the test unless the chain holds and covers a number of events.
func (w *trailWorld) holds(events int) audit.Report {
	w.t.Helper()
	r := w.verify(audit.Head{})
	if r.Found != 0 || r.Events != events {
		w.t.Fatalf("%d events are as they were sealed, want %d; problems %v", r.Events, events, r.Problems)
	}
	return r
}

// foundIn fails the test unless a problem is found whose text has the words.
func foundIn(t *testing.T, r audit.Report, words string) {
	t.Helper()
	if !slices.ContainsFunc(r.Problems, func(p audit.Problem) bool { return strings.Contains(p.Text, words) }) {
		t.Errorf("want a problem with %q, got %+v", words, r)
	}
}

func (w *trailWorld) exec(query string, args ...any) {
	w.t.Helper()
	n, err := w.db.Exec(w.t.Context(), query, args...)
	if err != nil || n == 0 {
		w.t.Fatalf("%s: %d rows, %v", query, n, err)
	}
}

// ids returns the ids of all events, the earliest first.
func (w *trailWorld) ids() []string {
	w.t.Helper()
	ids, err := sqlstore.New(w.db).AuditIDs(w.t.Context(), "", "~", 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

func (w *trailWorld) seals() []store.AuditSeal {
	w.t.Helper()
	seals, err := sqlstore.New(w.db).AuditSeals(w.t.Context(), 0, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	return seals
}

func idAt(at time.Time) string {
	id := uuid.Must(uuid.NewV7())
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id.String()
}

// Replicas take turns, events come between, and the chain holds.
func TestSeals(t *testing.T) {
	w := newTrailWorld(t)
	one, two := w.replica(), w.replica()
	w.holds(0)
	one.write(t, 30)
	if r := w.verify(audit.Head{}); r.Found != 0 || r.Waiting != 30 { // they are a minute old
		t.Errorf("%+v", r)
	}
	one.seal(t)
	first := w.holds(30)
	if first.Newest.Seq != 1 || len(first.Newest.Digest) != 64 || first.Seals != 1 {
		t.Errorf("%+v", first)
	}
	for i := range 5 {
		two.write(t, 3)
		[]*replica{one, two}[i%2].seal(t)
	}
	two.age.Store(0)
	two.write(t, 4)
	one.seal(t) // they are too young
	last := w.holds(45)
	if last.Waiting != 4 || last.Newest.Seq != 6 {
		t.Errorf("%+v", last)
	}
	if r := w.verify(first.Newest); r.Found != 0 {
		t.Errorf("the noted seal: %+v", r)
	}
	if s := one.chain.Status(); s.Newest != last.Newest || !s.Sealing || s.Faults != 0 || s.State() != audit.ChainUnchecked { // not checked
		t.Errorf("%+v", s)
	}
}

// The first seals of a database that an earlier version has filled.
func TestTheFirstSealsOfALongTrail(t *testing.T) {
	w := newTrailWorld(t)
	r := w.replica()
	r.age.Store(int64(100 * time.Hour))
	for range 3 {
		r.write(t, 750)
		r.age.Add(int64(-10 * time.Hour))
	}
	r.seal(t)
	if report := w.holds(2250); report.Seals != 3 {
		t.Errorf("%+v", report)
	}
}

// What somebody may do who can write the database and has not the key.
func TestTamperingIsFound(t *testing.T) {
	// Ten seals of two events each.
	for name, attack := range map[string]struct {
		do   func(w *trailWorld, ids []string)
		want string
	}{
		"delete an event":   {func(w *trailWorld, ids []string) { w.exec("DELETE FROM audit_events WHERE id = ?", ids[7]) }, "deleted"},
		"delete the newest": {func(w *trailWorld, ids []string) { w.exec("DELETE FROM audit_events WHERE id = ?", ids[19]) }, "deleted"},
		"change the time": {func(w *trailWorld, ids []string) {
			w.exec("UPDATE audit_events SET at_time = at_time + 1 WHERE id = ?", ids[3])
		}, "changed"},
		"change the actor": {func(w *trailWorld, ids []string) { w.exec("UPDATE audit_events SET actor = 'u9' WHERE id = ?", ids[3]) }, "changed"},
		"change the action": {func(w *trailWorld, ids []string) {
			w.exec("UPDATE audit_events SET action = 'login' WHERE id = ?", ids[3])
		}, "changed"},
		"change the target": {func(w *trailWorld, ids []string) { w.exec("UPDATE audit_events SET target = '' WHERE id = ?", ids[3]) }, "changed"},
		"change the outcome": {func(w *trailWorld, ids []string) {
			w.exec("UPDATE audit_events SET outcome = 'denied' WHERE id = ?", ids[3])
		}, "changed"},
		"change the address": {func(w *trailWorld, ids []string) {
			w.exec("UPDATE audit_events SET address = '::1' WHERE id = ?", ids[3])
		}, "changed"},
		"change the detail": {func(w *trailWorld, ids []string) { w.exec("UPDATE audit_events SET detail = 'u' WHERE id = ?", ids[3]) }, "changed"},
		"move between fields": {func(w *trailWorld, ids []string) {
			w.exec("UPDATE audit_events SET actor = actor || action, action = '' WHERE id = ?", ids[3])
		}, "changed"},
		"exchange two": {func(w *trailWorld, ids []string) {
			w.exec("UPDATE audit_events SET id = 'x' WHERE id = ?", ids[3])
			w.exec("UPDATE audit_events SET id = ? WHERE id = ?", ids[3], ids[4])
			w.exec("UPDATE audit_events SET id = ? WHERE id = 'x'", ids[4])
		}, "changed"},
		"give it another time and id": {func(w *trailWorld, ids []string) {
			w.exec("UPDATE audit_events SET id = ? WHERE id = ?", idAt(time.Now().Add(-time.Hour)), ids[3])
		}, "deleted"},
		"add an old one": {func(w *trailWorld, _ []string) {
			w.exec("INSERT INTO audit_events SELECT ?, at_time, actor, action, target, outcome, address, detail FROM audit_events LIMIT 1", idAt(time.Now().Add(-time.Hour)))
		}, "in no seal"},
		"add one with a low id": {func(w *trailWorld, _ []string) {
			w.exec("INSERT INTO audit_events SELECT '!', at_time, actor, action, target, outcome, address, detail FROM audit_events LIMIT 1")
		}, "in no seal"},
		"add one with a high id": {func(w *trailWorld, _ []string) {
			w.exec("INSERT INTO audit_events SELECT 'z', at_time, actor, action, target, outcome, address, detail FROM audit_events LIMIT 1")
		}, "to come"},
		"delete all seals": {func(w *trailWorld, ids []string) {
			w.exec("DELETE FROM audit_seals")
			w.exec("UPDATE audit_events SET id = ? WHERE id = ?", idAt(time.Now().Add(-time.Hour)), ids[0])
		}, "because there is none"},
		"delete a seal":          {func(w *trailWorld, _ []string) { w.exec("DELETE FROM audit_seals WHERE seq = 5") }, "seals 5 to 5 are missing"},
		"delete the first seals": {func(w *trailWorld, _ []string) { w.exec("DELETE FROM audit_seals WHERE seq < 4") }, "seals 1 to 3 are missing"},
		"delete a seal's events": {func(w *trailWorld, ids []string) {
			w.exec("DELETE FROM audit_seals WHERE seq = 1")
			w.exec("DELETE FROM audit_events WHERE id <= ?", ids[1])
		}, "seals 1 to 1 are missing"},
		"delete the newest seals": {func(w *trailWorld, _ []string) { w.exec("DELETE FROM audit_seals WHERE seq > 8") }, "was noted and is missing"},
		"cut off the end": {func(w *trailWorld, ids []string) {
			w.exec("DELETE FROM audit_seals WHERE seq > 8")
			w.exec("DELETE FROM audit_events WHERE id > ?", ids[15])
		}, "was noted and is missing"},
		"delete everything": {func(w *trailWorld, ids []string) {
			w.exec("DELETE FROM audit_seals")
			w.exec("DELETE FROM audit_events")
		}, "was noted and is missing"},
		"move a seal": {func(w *trailWorld, _ []string) { w.exec("UPDATE audit_seals SET seq = 11 WHERE seq = 10") }, "content is not that of this seal"},
		"exchange two seals": {func(w *trailWorld, _ []string) {
			w.exec("UPDATE audit_seals SET seq = 99 WHERE seq = 4")
			w.exec("UPDATE audit_seals SET seq = 4 WHERE seq = 5")
			w.exec("UPDATE audit_seals SET seq = 5 WHERE seq = 99")
		}, "content is not that of this seal"},
		"leave an event out of its seal": {func(w *trailWorld, ids []string) {
			s := w.seals()[9]
			w.exec("UPDATE audit_seals SET content = ? WHERE seq = 10", cutEntry(s.Content))
			w.exec("DELETE FROM audit_events WHERE id = ?", ids[19])
		}, "its MAC is wrong"},
		"take another seal's MAC": {func(w *trailWorld, _ []string) {
			w.exec("UPDATE audit_seals SET mac = ? WHERE seq = 9", w.seals()[3].MAC)
		}, "its MAC is wrong"},
		"empty a seal": {func(w *trailWorld, _ []string) {
			w.exec("UPDATE audit_seals SET content = ?, mac = ? WHERE seq = 9", []byte{}, []byte{})
		}, "content is not that of this seal"},
		"forge a seal": {func(w *trailWorld, _ []string) {
			w.exec("INSERT INTO audit_seals SELECT 11, content, mac FROM audit_seals WHERE seq = 10")
		}, "content is not that of this seal"},
		"make a chain of their own": {func(w *trailWorld, ids []string) {
			w.exec("DELETE FROM audit_seals")
			w.exec("DELETE FROM audit_events WHERE id = ?", ids[3])
			other := w.replicaOver(sqlstore.New(w.db), newBox(w.t, 66))
			other.seal(w.t)
		}, "does not have"},
		"have the rest sealed anew": {func(w *trailWorld, ids []string) {
			w.exec("DELETE FROM audit_seals")
			w.exec("DELETE FROM audit_events WHERE id = ?", ids[3])
			r := w.replica() // that starts after it
			r.seal(w.t)
		}, "was noted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTrailWorld(t)
			r := w.replica()
			for range 10 {
				r.write(t, 2)
				r.seal(t)
			}
			noted := w.holds(20).Newest
			attack.do(w, w.ids())
			foundIn(t, w.verify(noted), attack.want)
			// Sealing goes on, by a replica that was there before and by one that starts, and makes
			// nothing good.
			r.write(t, 2)
			r.seal(t)
			if late := w.replica(); true {
				late.write(t, 2)
				late.seal(t)
			}
			r.seal(t)
			if report := w.verify(noted); report.Found == 0 {
				t.Errorf("after the next seals nothing is wrong any more: %+v", report)
			}
		})
	}
}

// cutEntry leaves the last event out of the content of a seal.
func cutEntry(content []byte) []byte {
	const entry = 49
	cut := bytes.Clone(content[:len(content)-entry])
	cut[len(cut)-entry-1]-- // the count
	return cut
}

// A replica that has seen the end of the chain says so when it has been cut off, and what it seals
// then shows it to everybody.
func TestTheEndIsCutOffWhileAReplicaRuns(t *testing.T) {
	for name, noticed := range map[string]func(w *trailWorld){
		"the end": func(w *trailWorld) {
			w.exec("DELETE FROM audit_seals WHERE seq > 3")
			w.exec("DELETE FROM audit_events WHERE id > ?", w.ids()[5])
		},
		"everything":        func(w *trailWorld) { w.exec("DELETE FROM audit_seals"); w.exec("DELETE FROM audit_events") },
		"replaced, as long": func(w *trailWorld) { w.exec("UPDATE audit_seals SET content = ? WHERE seq = 5", []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newTrailWorld(t)
			r := w.replica()
			for range 5 {
				r.write(t, 2)
				r.seal(t)
			}
			noticed(w)
			r.seal(t)
			if s := r.chain.Status(); s.Faults == 0 || s.Newest.Seq != 6 {
				t.Errorf("%+v", s)
			}
			if found := events(t, r.fixture, store.AuditQuery{Action: "audit.broken"}); len(found) == 0 || found[0].Outcome != audit.Failed {
				t.Errorf("events: %v", found)
			}
			if !strings.Contains(r.log.String(), "level=ERROR msg=\"a seal of the audit trail is wrong\"") {
				t.Error(r.log)
			}
			if report := w.verify(audit.Head{}); report.Found == 0 {
				t.Errorf("%+v", report)
			}
			faults := r.chain.Status().Faults
			r.write(t, 1)
			r.seal(t)
			if s := r.chain.Status(); s.Faults != faults || s.Newest.Seq != 7 {
				t.Errorf("it is said again: %+v", s)
			}
		})
	}
}

// A forged row with the highest number that there is does not end the chain: replicas go on after
// their own seals, say once what they found, and so do those that start meanwhile.
func TestForgedNumbers(t *testing.T) {
	forge := func(w *trailWorld, seq int64) {
		w.exec("INSERT INTO audit_seals (seq, content, mac) VALUES (?, ?, ?)", seq, []byte("x"), []byte("y"))
	}
	for _, seq := range []int64{math.MaxInt64, math.MaxInt64 - 1, 1000, 2} {
		w := newTrailWorld(t)
		one, two := w.replica(), w.replica()
		one.write(t, 5)
		one.seal(t)
		two.seal(t)
		forge(w, seq)
		for range 3 {
			one.write(t, 2)
			one.seal(t)
			two.seal(t)
		}
		later := w.replica()
		later.write(t, 2)
		later.seal(t)
		later.seal(t)
		foundIn(t, w.verify(audit.Head{}), fmt.Sprintf("seal %d: ", seq))
		for name, r := range map[string]*replica{"one": one, "two": two, "one that started later": later} {
			if s := r.chain.Status(); s.Newest.Seq > 10 || s.Faults > 2 {
				t.Errorf("%d, %s: %+v", seq, name, s)
			}
		}
		if n := strings.Count(one.log.String(), "a seal of the audit trail is wrong"); n < 1 || n > 2 {
			t.Errorf("%d: it was said %d times", seq, n)
		}
		w.exec("DELETE FROM audit_seals WHERE seq = ?", seq)
		one.write(t, 2)
		one.seal(t)
		if r := w.verify(audit.Head{}); r.Waiting != 0 || r.Events < 15 {
			t.Errorf("%d: what was written meanwhile is not sealed: %+v", seq, r)
		}
	}
	w := newTrailWorld(t)
	forge(w, math.MaxInt64)
	alone := w.replica()
	alone.write(t, 5)
	alone.seal(t)
	alone.seal(t)
	if s := alone.chain.Status(); s.Newest.Seq != 1 {
		t.Errorf("without any other seal: %+v", s)
	}
}

// An event whose transaction committed late is in a later seal; one that comes much later was added.
func TestLateEvents(t *testing.T) {
	w := newTrailWorld(t)
	r := w.replica()
	r.write(t, 5)
	r.seal(t)
	s := sqlstore.New(w.db)
	add := func(age time.Duration) {
		if err := s.AppendAudit(t.Context(), store.AuditEvent{ID: idAt(time.Now().Add(-age)), At: time.Now().Add(-age)}); err != nil {
			t.Fatal(err)
		}
	}
	add(100 * time.Second)
	add(20 * time.Second)
	r.write(t, 2)
	w.replica().seal(t) // which reads what is sealed already
	w.holds(9)
	r.seal(t)
	w.holds(9)
	add(3 * time.Minute)
	r.seal(t)
	foundIn(t, w.verify(audit.Head{}), "in no seal")
}

// faulty is a store in which the writing of a seal fails, before or after it is written.
type faulty struct {
	*sqlstore.Store
	before, after error
}

func (f *faulty) AppendAuditSeal(ctx context.Context, s store.AuditSeal) error {
	if f.before != nil {
		return f.before
	}
	return errors.Join(f.Store.AppendAuditSeal(ctx, s), f.after)
}

func TestFaultsWhileSealing(t *testing.T) {
	lost := errors.New("connection lost")
	for name, f := range map[string]*faulty{"not written": {before: lost}, "written": {after: lost}} {
		t.Run(name, func(t *testing.T) {
			w := newTrailWorld(t)
			f.Store = sqlstore.New(w.db)
			r := w.replicaOver(f, w.box)
			r.write(t, 3)
			if err := r.chain.Seal(t.Context()); !errors.Is(err, lost) {
				t.Fatal(err)
			}
			r.write(t, 3)
			f.before, f.after = nil, nil
			r.seal(t)
			r.seal(t)
			report := w.holds(6)
			if want := map[string]int{"not written": 1, "written": 2}[name]; report.Seals != want {
				t.Errorf("%d seals, want %d", report.Seals, want)
			}
			if s := r.chain.Status(); s.Faults != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Old events go with their seals, and the chain holds at each step of it.
func TestRetentionOfSealedEvents(t *testing.T) {
	w := newTrailWorld(t)
	past := &clocked{Store: sqlstore.New(w.db)}
	old := w.replicaOver(past, w.box)
	for _, age := range []time.Duration{30 * time.Hour, 29 * time.Hour, 23 * time.Hour, time.Hour} {
		past.age = age - time.Minute
		old.age.Store(int64(age))
		old.write(t, 3)
		old.seal(t)
	}
	r := w.replica()
	r.age.Store(0)
	ids := w.ids()
	w.exec("DELETE FROM audit_events WHERE id = ?", ids[0]) // by a version that makes no seals
	foundIn(t, w.verify(audit.Head{}), "deleted")

	stopped := w.replicaOver(&stopping{Store: sqlstore.New(w.db)}, w.box)
	stopped.age.Store(0)
	if err := stopped.Sweep(t.Context()); err == nil {
		t.Fatal("it was not stopped")
	}
	w.holds(11) // what may be missing is there
	w.exec("DELETE FROM audit_events WHERE id = ?", ids[5])
	report := w.holds(10)
	if age := time.Since(report.Swept); age < 23*time.Hour+59*time.Minute || age > 24*time.Hour {
		t.Errorf("swept: %v ago", age)
	}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.holds(6)
	if seals := w.seals(); len(seals) != 4 || seals[0].Seq != 3 {
		t.Errorf("%d seals left", len(seals))
	}
	n := len(w.seals())
	if err := r.Sweep(t.Context()); err != nil || len(w.seals()) != n { // there is nothing to delete
		t.Errorf("%v, %d seals", err, len(w.seals()))
	}
	w.exec("DELETE FROM audit_seals WHERE seq = 3")
	foundIn(t, w.verify(audit.Head{}), "seals 3 to 3 are missing")
	w.exec("DELETE FROM audit_events WHERE id = ?", ids[10])
	foundIn(t, w.verify(audit.Head{}), "event "+ids[10]+" has been deleted")
}

// clocked is a store whose clock is behind.
type clocked struct {
	*sqlstore.Store
	age time.Duration
}

func (c *clocked) LastAuditSeal(ctx context.Context) (store.AuditSeal, time.Time, error) {
	s, now, err := c.Store.LastAuditSeal(ctx)
	return s, now.Add(-c.age), err
}

// stopping is a store in which no event can be deleted.
type stopping struct{ *sqlstore.Store }

func (stopping) DeleteAuditBefore(context.Context, time.Time, int) (int, error) {
	return 0, errors.New("stopped")
}

// Without the key nothing is sealed, and nothing that is sealed is deleted.
func TestNoKey(t *testing.T) {
	w := newTrailWorld(t)
	none := w.replicaOver(sqlstore.New(w.db), nil)
	none.age.Store(int64(48 * time.Hour))
	none.write(t, 3)
	none.seal(t)
	if _, err := none.chain.Verify(t.Context(), audit.Head{}); !errors.Is(err, audit.ErrNoChainKey) || none.chain.Status().Sealing {
		t.Errorf("%v, %+v", err, none.chain.Status())
	}
	w.replica().seal(t)
	none.age.Store(0)
	if err := none.Sweep(t.Context()); err == nil || len(w.ids()) != 3 {
		t.Errorf("%v; %d events left", err, len(w.ids()))
	}
	w.exec("DELETE FROM audit_seals")
	if err := none.Sweep(t.Context()); err != nil || len(w.ids()) != 0 {
		t.Errorf("%v; %d events left", err, len(w.ids()))
	}
}

// The storage key changes: what was right is right, and what was wrong stays wrong.
func TestRekeyingSeals(t *testing.T) {
	w := newTrailWorld(t)
	r := w.replica()
	for range 3 {
		r.write(t, 1)
		r.seal(t)
	}
	w.exec("UPDATE audit_seals SET mac = ? WHERE seq = 2", w.seals()[0].MAC)
	both := newBox(t, 2, 1)
	w.replicaOver(sqlstore.New(w.db), both).seal(t) // an event that seal 2 is wrong
	done, err := audit.Sealed{Store: sqlstore.New(w.db)}.Reseal(t.Context(), both)
	if done != (seal.Resealed{Changed: 2, Current: 1}) || err == nil || !strings.Contains(err.Error(), "seal 2") {
		t.Errorf("%+v, %v", done, err)
	}
	w.box = newBox(t, 2)
	report := w.verify(audit.Head{})
	foundIn(t, report, "seal 2: it was made under a storage key")
	w.exec("UPDATE audit_seals SET mac = ? WHERE seq = 2", w.box.MAC([]byte("x"), "audit_seals"))
	foundIn(t, w.verify(audit.Head{}), "seal 2: it has been changed")
}

var trailDatabases = map[string]func(t testing.TB) string{
	"sqlite":   sqldbtest.SQLite,
	"postgres": testenv.Postgres,
	"mariadb":  testenv.MariaDB,
}

func openAt(t testing.TB, url string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

// Several replicas write, seal and check at once, in transactions that commit late and in another
// order, on each database: each event is in one seal, and the chain always holds.
func TestManySealers(t *testing.T) {
	for name, fresh := range trailDatabases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := fresh(t)
			const replicas, writes = 4, 40
			w := &trailWorld{t, openAt(t, url), newBox(t, 1)}
			var writing, sealing sync.WaitGroup
			var stop atomic.Bool
			for i := range replicas {
				db := openAt(t, url)
				s := sqlstore.New(db)
				r := w.replicaOver(s, w.box)
				random := mathrand.New(mathrand.NewPCG(uint64(i), 1))
				writing.Go(func() {
					for j := range writes {
						r.age.Store(int64(10*time.Second + time.Duration(random.IntN(20_000))*time.Millisecond))
						if random.IntN(3) == 0 {
							r.write(t, 1)
							continue
						}
						hold := time.Duration(random.IntN(4)) * time.Millisecond
						if err := s.Update(t.Context(), func(records store.Records) error {
							defer time.Sleep(hold)
							return r.RecordIn(t.Context(), records, store.AuditEvent{Action: "user.create", Target: fmt.Sprint(i, j), Outcome: audit.OK})
						}); err != nil {
							t.Error(err)
						}
					}
				})
				sealing.Go(func() {
					for !stop.Load() {
						if err := r.chain.Seal(t.Context()); err != nil {
							t.Error(err)
						}
						if report, err := r.chain.Verify(t.Context(), audit.Head{}); err != nil || report.Found > 0 {
							t.Errorf("%v, %+v", err, report)
						}
					}
					if s := r.chain.Status(); s.Faults != 0 {
						t.Errorf("%+v", s)
					}
				})
			}
			writing.Wait()
			stop.Store(true)
			sealing.Wait()
			w.replica().seal(t)
			w.holds(replicas * writes)
			sealed := 0
			for _, s := range w.seals() {
				sealed += audit.EntriesOf(t, s)
			}
			if sealed != replicas*writes {
				t.Errorf("%d events were sealed, and there are %d", sealed, replicas*writes)
			}
			t.Logf("summary: %d replicas made %d seals of %d events", replicas, len(w.seals()), sealed)
		})
	}
}
