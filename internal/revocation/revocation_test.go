package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A replica is a running view over a log.
type replica struct {
	*View
	log     *Log
	logged  *journal
	metrics *prometheus.Registry
}

func start(t *testing.T, m Store, outage Outage) *replica {
	t.Helper()
	r := prepare(t, m, Config{Poll: time.Second, MaxStaleness: 5 * time.Second, OnOutage: outage})
	r.run(t)
	return r
}

// prepare makes a replica that does not run yet.
func prepare(t *testing.T, m Store, cfg Config) *replica {
	t.Helper()
	r := &replica{logged: new(journal), metrics: prometheus.NewRegistry()}
	cfg.Store, cfg.Now, cfg.Registerer = m, time.Now, r.metrics
	cfg.Logger = slog.New(slog.NewTextHandler(r.logged, nil))
	var err error
	if r.View, err = NewView(cfg); err != nil {
		t.Fatal(err)
	}
	r.log = &Log{Store: m, View: r.View, Now: time.Now}
	return r
}

func (r *replica) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (r *replica) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "watchword_revocation_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func (r *replica) expect(t *testing.T, tok *accesstoken.Token, want error) {
	t.Helper()
	if err := r.Check(t.Context(), tok); !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("token %s: %v, want %v", tok.ID, err, want)
	}
}

// pass lets time pass, and whatever is due at its end: a poll falls into the same moment.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func token(id string) *accesstoken.Token {
	return &accesstoken.Token{KeyID: "k", Subject: "u", SessionID: "s", ID: id, IssuedAt: time.Now()}
}

func line(id string) store.Revocation {
	return store.Revocation{Kind: string(revoked.Token), Subject: id, ExpiresAt: time.Now().Add(time.Hour), Reason: "logout"}
}

func TestRevokeIsKnownWhenItReturns(t *testing.T) {
	m := newMemLog()
	r := start(t, m, Outage{})
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 50 {
				id := fmt.Sprint(g, "-", i)
				if _, err := r.log.Revoke(t.Context(), line(id)); err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				for range 3 {
					if err := r.Check(t.Context(), token(id)); !errors.Is(err, ErrRevoked) {
						t.Errorf("%s was revoked, then: %v", id, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if head, _ := r.Confirmed(); head != 800 || r.metric(t, "entries", "") != 800 || r.metric(t, "head", "") != 800 {
		t.Errorf("the head is %d after 800 lines", head)
	}
	r.expect(t, token("other"), nil)
}

// A view clears what it lists nothing against, while it is fresh: also where the
// operator allows what a stale view does not know.
func TestClears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clears := func(r *replica, tok *accesstoken.Token, want bool) {
			t.Helper()
			if got := r.Clears(tok); got != want {
				t.Errorf("token %s of epoch %d: %v", tok.ID, tok.Epoch, got)
			}
		}
		m := newMemLog()
		r := prepare(t, m, Config{Poll: time.Second, MaxStaleness: 5 * time.Second, OnOutage: Outage{Allow: true}})
		clears(r, token("x"), false) // it has not read the log
		if id := r.LogID(); id != "" {
			t.Errorf("the log is %q", id)
		}
		r.run(t)
		synctest.Wait()
		clears(r, token("x"), true)
		if id := r.LogID(); id != "log-1" {
			t.Errorf("the log is %q", id)
		}
		user := store.Revocation{Kind: string(revoked.User), Subject: "u", Epoch: 5, ExpiresAt: time.Now().Add(time.Hour)}
		if _, err := r.log.Revoke(t.Context(), line("x"), user); err != nil {
			t.Fatal(err)
		}
		later := token("y")
		later.Epoch = 5
		clears(r, token("y"), false)
		clears(r, later, true)
		later.ID = "x"
		clears(r, later, false)

		later.ID = "y"
		m.set(func(m *memLog) { m.down = true })
		pass(5 * time.Second)
		clears(r, later, true)
		pass(2 * time.Second)
		clears(r, later, false)
		r.expect(t, later, nil) // OnOutage

		m.set(func(m *memLog) { m.down = false })
		shared := prepare(t, m, Config{Poll: time.Second, MaxStaleness: 5 * time.Second, Shared: true})
		shared.run(t)
		synctest.Wait()
		clears(shared, later, false)
	})
}

func TestOtherReplicasKnowWithinAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		a, b := start(t, m, Outage{}), start(t, m, Outage{})
		synctest.Wait()
		if _, err := a.log.Revoke(t.Context(), line("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		b.expect(t, token("x"), ErrRevoked)

		a.log.Bell = b.Ring
		if _, err := a.log.Revoke(t.Context(), line("y")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // no time passes
		b.expect(t, token("y"), ErrRevoked)
	})
}

func TestAViewThatIsCutOffStopsTrustingItself(t *testing.T) {
	for _, c := range []struct {
		name   string
		outage Outage
		// want is what a good token is answered at 5 s, 5 s + 1 ns, and 1 min 5 s + 1 ns
		want [3]error
	}{
		{"deny", Outage{}, [3]error{nil, ErrStale, ErrStale}},
		{"allow", Outage{Allow: true}, [3]error{nil, nil, nil}},
		{"allow 1m", Outage{Allow: true, For: time.Minute}, [3]error{nil, nil, ErrStale}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemLog()
				r := start(t, m, c.outage)
				synctest.Wait()
				if _, err := r.log.Revoke(t.Context(), line("bad")); err != nil {
					t.Fatal(err)
				}
				m.set(func(m *memLog) { m.down = true })
				for i, at := range []time.Duration{5 * time.Second, 5*time.Second + 1, time.Minute + 5*time.Second + 1} {
					_, asOf := r.Confirmed()
					time.Sleep(time.Until(asOf.Add(at)))
					r.expect(t, token("good"), c.want[i])
					r.expect(t, token("bad"), ErrRevoked)
				}
				if c.want[2] != nil {
					p := problem.From(r.Check(t.Context(), token("good")))
					if p.Kind != problem.Unavailable || p.RetryAfter != time.Second {
						t.Errorf("a stale view answers %+v", p)
					}
				}
				if n := strings.Count(r.logged.String(), "view of the revocation log is stale"); n != 1 {
					t.Errorf("logged %d times for one outage", n)
				}
				if n := strings.Count(r.logged.String(), "refused from now on"); (n == 1) != (c.outage.For > 0) {
					t.Errorf("logged %d times that the time is up", n)
				}
				allowed, denied := r.metric(t, "stale_answers_total", "allow"), r.metric(t, "stale_answers_total", "deny")
				if (allowed > 0) != c.outage.Allow || (denied > 0) != (c.want[2] != nil) {
					t.Errorf("counted %v allowed, %v denied", allowed, denied)
				}
				if s := r.metric(t, "view_staleness_seconds", ""); s < 65 || s > 66 {
					t.Errorf("staleness is %v s", s)
				}

				m.set(func(m *memLog) { m.down = false })
				time.Sleep(time.Second)
				synctest.Wait()
				r.expect(t, token("good"), nil)
				r.expect(t, token("bad"), ErrRevoked)
			})
		})
	}
}

// An answer is as old as its question: a revocation may have been written while
// it was on its way.
func TestSlowAnswersAreOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		m.set(func(m *memLog) { m.latency = 3 * time.Second })
		r := start(t, m, Outage{})
		began := time.Now()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if _, asOf := r.Confirmed(); !asOf.Equal(began) {
			t.Errorf("confirmed as of %v after it was asked", asOf.Sub(began))
		}
		r.expect(t, token("x"), nil)

		// Slower than the bound: nothing is confirmed, and Run goes on trying.
		m.set(func(m *memLog) { m.latency = 6 * time.Second })
		time.Sleep(20 * time.Second)
		r.expect(t, token("x"), ErrStale)
		m.set(func(m *memLog) { m.latency = 0 })
		time.Sleep(6 * time.Second)
		synctest.Wait()
		r.expect(t, token("x"), nil)
	})
}

func TestAViewThatNeverSawTheLogAcceptsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		for i := range 2*pageSize + 1 {
			m.lines = append(m.lines, store.Revocation{Seq: int64(i + 1), Kind: "jti", Subject: strconv.Itoa(i), ExpiresAt: time.Now().Add(time.Hour)})
		}
		m.head = int64(len(m.lines))
		m.readable = 2 // of three pages
		r := start(t, m, Outage{Allow: true})
		synctest.Wait()
		r.expect(t, token("good"), ErrStale)
		r.expect(t, token("0"), ErrRevoked)
		if _, asOf := r.Confirmed(); !asOf.IsZero() {
			t.Error("a log that was read in part is confirmed")
		}
		if _, err := r.Page("", 0, 10); !errors.Is(err, ErrStale) {
			t.Errorf("a page of it: %v", err)
		}
		if s := r.metric(t, "view_staleness_seconds", ""); s != -1 {
			t.Errorf("staleness is %v", s)
		}
		m.set(func(m *memLog) { m.readable = -1 })
		time.Sleep(time.Second)
		synctest.Wait()
		r.expect(t, token("good"), nil)
		r.expect(t, token(strconv.Itoa(2*pageSize)), ErrRevoked)
	})
}

func TestFailedAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		r := start(t, m, Outage{})
		synctest.Wait()

		m.set(func(m *memLog) { m.afterwards = true })
		if _, err := r.log.Revoke(t.Context(), line("persisted")); !errors.Is(err, ErrNotRecorded) {
			t.Errorf("failed but persisted: %v", err)
		}
		m.set(func(m *memLog) { m.afterwards, m.down = false, true })
		if _, err := r.log.Revoke(t.Context(), line("not persisted")); !errors.Is(err, ErrNotRecorded) {
			t.Errorf("failed and not persisted: %v", err)
		}
		m.set(func(m *memLog) { m.down = false })
		time.Sleep(time.Second)
		synctest.Wait()
		r.expect(t, token("persisted"), ErrRevoked)
		r.expect(t, token("not persisted"), nil)
		for _, id := range []string{"persisted", "not persisted"} { // the client tries again
			if _, err := r.log.Revoke(t.Context(), line(id)); err != nil {
				t.Error(err)
			}
			r.expect(t, token(id), ErrRevoked)
		}
	})
}

func TestSettleDoesNotPretend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		r := start(t, m, Outage{})
		synctest.Wait()
		for range 10 {
			if _, err := r.log.Revoke(t.Context(), line("x")); err != nil {
				t.Fatal(err)
			}
		}
		// The database is replaced. Number 3 of the new log was never read, though
		// this view has read up to 10.
		m.set(func(m *memLog) { m.id, m.head, m.lines, m.readable = "log-2", 2, nil, 0 })
		if seq, err := m.AppendRevocation(t.Context(), line("y")); err != nil || seq != 3 {
			t.Fatal(seq, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		err := r.log.Settle(ctx, 3)
		if p := problem.From(err); !errors.Is(err, ErrUnsettled) || p.Kind != problem.Unavailable {
			t.Errorf("Settle gives %v", err)
		}
		m.set(func(m *memLog) { m.readable = -1 })
		if err := r.log.Settle(t.Context(), 3); err != nil {
			t.Error(err)
		}
		r.expect(t, token("y"), ErrRevoked)
	})
}

func TestAnotherLogBringsNothingBack(t *testing.T) {
	for name, change := range map[string]func(*memLog){
		"replaced":               func(m *memLog) { m.id, m.head, m.lines = "log-2", 0, nil },
		"replaced by a longer":   func(m *memLog) { m.id, m.head, m.lines = "log-2", 50, nil },
		"restored from a backup": func(m *memLog) { m.head, m.lines = 1, m.lines[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemLog()
				r := start(t, m, Outage{})
				synctest.Wait()
				for i := range 5 {
					if _, err := r.log.Revoke(t.Context(), line(strconv.Itoa(i))); err != nil {
						t.Fatal(err)
					}
				}
				page, _ := r.Page("", 0, 100)
				m.set(change)
				seq, err := r.log.Revoke(t.Context(), line("new"))
				if err != nil {
					t.Fatal(err)
				}
				for _, id := range []string{"0", "1", "2", "3", "4", "new"} {
					r.expect(t, token(id), ErrRevoked)
				}
				if head, _ := r.Confirmed(); head != seq {
					t.Errorf("the head is %d, want %d", head, seq)
				}
				if !strings.Contains(r.logged.String(), "restored from a backup") {
					t.Errorf("it was not said aloud: %s", r.logged)
				}
				again, err := r.Page(page.Log, page.Next(), 100)
				if err != nil || !again.Snapshot || again.Entries[len(again.Entries)-1].ID != revoked.Digest(revoked.Token, "new") {
					t.Errorf("a follower of the old log is sent %+v, %v", again, err)
				}
			})
		})
	}
}

// A failover loses the last entries, and others are written in their place before any replica
// has read the log. Every replica, one that starts later, and every reader of their feeds
// learn of the new entries and keep the old ones.
func TestALogThatForkedIsReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		replicas := []*replica{start(t, m, Outage{}), start(t, m, Outage{})}
		synctest.Wait()
		for i := range 5 {
			if _, err := replicas[0].log.Revoke(t.Context(), line(strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
		}
		pass(2 * time.Second)
		followed, err := replicas[1].Page("", 0, 100)
		if err != nil || followed.Next() != 5 {
			t.Fatalf("%+v, %v", followed, err)
		}
		m.set(func(m *memLog) { m.head, m.lines = 3, m.lines[:3] })
		for _, id := range []string{"new 4", "new 5", "new 6"} {
			if _, err := m.AppendRevocation(t.Context(), line(id)); err != nil {
				t.Fatal(err)
			}
		}
		late := start(t, m, Outage{})
		pass(2 * time.Second)
		for _, r := range replicas {
			for _, id := range []string{"0", "1", "2", "3", "4", "new 4", "new 5", "new 6"} {
				r.expect(t, token(id), ErrRevoked)
			}
			r.expect(t, token("good"), nil)
		}
		for _, r := range append(replicas, late) {
			page, err := r.Page(followed.Log, followed.Next(), 100)
			if err != nil || !page.Snapshot || page.Head != 6 || page.Entries[len(page.Entries)-1].Seq != 6 {
				t.Errorf("a follower of the log as it was is sent %+v, %v", page, err)
			}
		}
		if m.id != "log-1 renewed" {
			t.Errorf("the log is %q: each replica renewed it, or none", m.id)
		}
		if !strings.Contains(replicas[0].logged.String(), "failover") && !strings.Contains(replicas[1].logged.String(), "failover") {
			t.Error("no replica has logged it")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if m.id != "log-1 renewed" {
			t.Errorf("the log is %q an hour later", m.id)
		}
	})
}

// While a replica reads another log it serves no page of it: the reader would take a part of
// the log for the whole.
func TestALogThatIsReadAnewIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		r := start(t, m, Outage{})
		synctest.Wait()
		for i := range 3 {
			if _, err := r.log.Revoke(t.Context(), line(strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
		}
		m.set(func(m *memLog) { m.id, m.readable = "log-2", 1 }) // it learns of it, and no more
		pass(2 * time.Second)
		for _, log := range []string{"", "log-1", "log-2"} {
			if p, err := r.Page(log, 0, 10); !errors.Is(err, ErrStale) {
				t.Errorf("a reader of the log %q gets %+v, %v", log, p, err)
			}
		}
		r.expect(t, token("1"), ErrRevoked)
		m.set(func(m *memLog) { m.readable = -1 })
		pass(2 * time.Second)
		if p, err := r.Page("log-1", 3, 10); err != nil || p.Log != "log-2" || !p.Snapshot || len(p.Entries) != 3 {
			t.Errorf("and then %+v, %v", p, err)
		}
	})
}

// An answer of the database that comes late has fewer entries than a peer has answered
// meanwhile. No entry is lost, and the log is not taken for another one.
func TestALateAnswerIsNoFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		r, _, peers := island(t, m)
		if _, err := r.log.Revoke(t.Context(), line("0")); err != nil {
			t.Fatal(err)
		}
		other := start(t, m, Outage{})
		peers.are(nil, other)
		m.set(func(m *memLog) { m.latency = 4 * time.Second }) // found, and under way
		time.Sleep(1500 * time.Millisecond)
		m.set(func(m *memLog) { m.latency = 0 })
		if _, err := m.AppendRevocation(t.Context(), line("1")); err != nil {
			t.Fatal(err)
		}
		other.Ring()
		pass(10 * time.Second)
		r.expect(t, token("1"), ErrRevoked)
		if m.id != "log-1" {
			t.Error("the log was renewed")
		}
	})
}

// The line up to which a replica had read has expired while it was cut off.
func TestALineThatExpiredIsNoFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		r, way, _ := island(t, m)
		if _, err := r.log.Revoke(t.Context(), line("short")); err != nil {
			t.Fatal(err)
		}
		way.away.Store(true)
		long := line("long")
		long.ExpiresAt = time.Now().Add(24 * time.Hour)
		for range 2 {
			if _, err := m.AppendRevocation(t.Context(), long); err != nil {
				t.Fatal(err)
			}
		}
		other := start(t, m, Outage{})
		time.Sleep(2 * time.Hour)
		if lines, _, _ := m.RevocationsAfter(t.Context(), 0, 10); len(lines) != 2 {
			t.Fatalf("left are %+v", lines)
		}
		way.away.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r.expect(t, token("long"), ErrRevoked)
		r.expect(t, token("good"), nil)
		other.expect(t, token("good"), nil)
		if m.id != "log-1" {
			t.Error("the log was renewed")
		}
	})
}

// A replica whose clock is wrong neither restores what others have revoked nor
// revokes for too short a time.
func TestAWrongClockBringsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		right := start(t, m, Outage{})
		synctest.Wait()
		if _, err := right.log.Revoke(t.Context(), line("early")); err != nil {
			t.Fatal(err)
		}
		if _, err := right.log.Revoke(t.Context(), line("head")); err != nil {
			t.Fatal(err)
		}
		ahead := prepare(t, m, Config{Poll: time.Second, MaxStaleness: 5 * time.Second})
		ahead.cfg.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
		if n, err := ahead.Sweep(t.Context()); n != 0 || err != nil {
			t.Errorf("before it knows the database's clock it sweeps %d lines, %v", n, err)
		}
		ahead.run(t)
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		if len(m.lines) != 2 {
			t.Errorf("of 2 lines %d are left", len(m.lines))
		}
		ahead.expect(t, token("early"), ErrRevoked)

		past := func() time.Time { return time.Now().Add(-2 * time.Hour) }
		behind := prepare(t, m, Config{Poll: time.Second, MaxStaleness: 5 * time.Second})
		behind.cfg.Now = past
		behind.run(t)
		alone := &Log{Store: m, Now: past, Lifetimes: Lifetimes{Token: 30 * time.Minute}} // as on a command line
		running := &Log{Store: m, View: behind.View, Now: past, Lifetimes: Lifetimes{Token: 30 * time.Minute}}
		synctest.Wait()
		for id, l := range map[string]*Log{"alone": alone, "running": running} {
			rev := line(id)
			rev.ExpiresAt = time.Time{}
			if _, err := l.append(t.Context(), m, rev); err != nil {
				t.Fatal(err)
			}
			last := m.lines[len(m.lines)-1]
			if left := time.Until(last.ExpiresAt); left < 30*time.Minute-time.Second || left > 31*time.Minute {
				t.Errorf("%s: the line is kept for %v", id, left)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // the database's clock is the wrong one
		m := newMemLog()
		m.ahead = 2 * time.Hour
		right := start(t, m, Outage{})
		for _, id := range []string{"early", "head"} {
			if _, err := right.log.Revoke(t.Context(), line(id)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		right.expect(t, token("early"), ErrRevoked)
		if len(m.lines) != 2 {
			t.Errorf("of 2 lines %d are left", len(m.lines))
		}
	})
}

func TestTheExpiredIsSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		r := start(t, m, Outage{})
		synctest.Wait()
		short, long := line("short"), line("long")
		short.ExpiresAt = time.Now().Add(time.Minute)
		for _, l := range []store.Revocation{short, long} {
			if _, err := r.log.Revoke(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(timing.ClockSkew) // expired for the clock skew but a minute
		synctest.Wait()
		r.expect(t, token("short"), ErrRevoked)
		time.Sleep(2*time.Minute + time.Second)
		synctest.Wait()
		if n := r.list.Len(); n != 1 || len(m.lines) != 1 {
			t.Errorf("%d entries in memory, %d in the log, want 1 and 1", n, len(m.lines))
		}
		r.expect(t, token("long"), ErrRevoked)

		for range 2*sweepBatch + 5 {
			m.lines = append(m.lines, short)
		}
		if n, err := r.Sweep(t.Context()); n != 2*sweepBatch+5 || err != nil {
			t.Errorf("swept %d, %v", n, err)
		}
	})
}

// The revocation of a signing secret is kept for ten years, in memory and in the log, and a
// replica that starts at the end of them reads it.
func TestTenYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		cfg := Config{Poll: time.Second, MaxStaleness: 5 * time.Second}
		r := prepare(t, m, cfg)
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		end := time.Now().AddDate(10, 0, 0)
		for _, until := range []time.Time{end, time.Now().Add(time.Hour)} {
			l := store.Revocation{Kind: string(revoked.Key), Subject: "k", ExpiresAt: until, CreatedAt: time.Now()}
			if _, err := m.AppendRevocation(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(end))
		if _, err := r.Sweep(t.Context()); err != nil || !r.KeyRevoked("k") {
			t.Errorf("ten years later it is revoked: %v, %v", r.KeyRevoked("k"), err)
		}
		var until time.Time // the latest
		cfg.OnKey = func(_ revoked.ID, end time.Time) { until = slices.MaxFunc([]time.Time{until, end}, time.Time.Compare) }
		other := prepare(t, m, cfg)
		if err := other.Refresh(t.Context()); err != nil || !other.KeyRevoked("k") || until.Before(end) {
			t.Errorf("a replica that starts: revoked is %v until %v, %v", other.KeyRevoked("k"), until, err)
		}
		time.Sleep(timing.ClockSkew + 2*time.Second)
		if _, err := r.Sweep(t.Context()); err != nil || r.KeyRevoked("k") || len(m.lines) != 1 { // the last entry of a log is always kept
			t.Errorf("after its end, the log has %d entries, %v", len(m.lines), err)
		}
	})
}

func TestWhatCannotBeRevoked(t *testing.T) {
	r := start(t, newMemLog(), Outage{})
	for name, l := range map[string]store.Revocation{
		"nothing":           {},
		"unknown kind":      {Kind: "tenant", Subject: "x", ExpiresAt: time.Now()},
		"nobody":            {Kind: "jti", ExpiresAt: time.Now()},
		"for no time":       {Kind: "jti", Subject: "x", ExpiresAt: time.Unix(0, 0)},
		"a user of nothing": {Kind: "user", Subject: "x", ExpiresAt: time.Now()},
	} {
		if _, err := r.log.Revoke(t.Context(), l); err == nil {
			t.Errorf("%s was revoked", name)
		}
	}
}

// A newer replica may revoke what this one does not understand.
func TestAnUnknownKindIsNotIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemLog()
		r := start(t, m, Outage{})
		synctest.Wait()
		l := line("x")
		l.Kind = "tenant"
		if _, err := m.AppendRevocation(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		pass(7 * time.Second)
		r.expect(t, token("good"), ErrStale)
	})
}

func TestTimesAreRoundedUp(t *testing.T) {
	at := time.Unix(1700000000, 1000)
	e := entryOf(store.Revocation{Kind: "user", Subject: "u", IssuedBefore: at, ExpiresAt: at})
	if e.IssuedBefore != 1700000001 || e.ExpiresAt != 1700000001 {
		t.Errorf("times are %d and %d", e.IssuedBefore, e.ExpiresAt)
	}
	if e := entryOf(store.Revocation{Kind: "jti", ExpiresAt: at.Truncate(time.Second)}); e.IssuedBefore != 0 || e.ExpiresAt != 1700000000 {
		t.Errorf("times are %d and %d", e.IssuedBefore, e.ExpiresAt)
	}
}

func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newMemLog(), Outage{})
		synctest.Wait()
		for i := range 5 {
			if _, err := r.log.Revoke(t.Context(), line(strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(250 * time.Millisecond)
		for _, c := range []struct {
			log          string
			after, limit int64
			first, last  int64 // 0: none
			more, snap   bool
			next         int64
		}{
			{"", 0, 10, 1, 5, false, false, 5},
			{"log-1", 2, 10, 3, 5, false, false, 5},
			{"log-1", 2, 2, 3, 4, true, false, 4},
			{"log-1", 3, 2, 4, 5, false, false, 5},
			{"log-1", 5, 2, 0, 0, false, false, 5},
			{"log-1", 6, 2, 1, 2, true, true, 2},
			{"log-0", 3, 2, 1, 2, true, true, 2},
		} {
			p, err := r.Page(c.log, c.after, int(c.limit))
			if err != nil {
				t.Fatal(err)
			}
			var first, last int64
			if n := len(p.Entries); n > 0 {
				first, last = p.Entries[0].Seq, p.Entries[n-1].Seq
			}
			if first != c.first || last != c.last || p.More != c.more || p.Snapshot != c.snap || p.Next() != c.next {
				t.Errorf("page of %q after %d, limit %d: %+v", c.log, c.after, c.limit, p)
			}
			if p.Log != "log-1" || p.Head != 5 || p.Age != 250 || time.Since(p.AsOf) != 250*time.Millisecond {
				t.Errorf("page is of %s, head %d as of %v, age %d", p.Log, p.Head, p.AsOf, p.Age)
			}
		}
	})
}

func TestConfigThatCannotWork(t *testing.T) {
	if _, err := NewView(Config{Poll: 5 * time.Second, MaxStaleness: 5 * time.Second}); err == nil {
		t.Error("a view that is stale between two polls was made")
	}
}
