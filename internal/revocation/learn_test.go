package revocation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Whatever becomes of the log in the database, a replica that starts refuses what a live one has
// read, and so does one that starts after that and reaches it alone.
func TestAStartingViewLearnsFromItsPeers(t *testing.T) {
	for name, damage := range map[string]func(m *memLog, before []store.Revocation){
		"nothing": func(*memLog, []store.Revocation) {},
		"an entry is deleted": func(m *memLog, _ []store.Revocation) {
			m.lines = slices.Delete(m.lines, 3, 4)
		},
		"all entries are deleted": func(m *memLog, _ []store.Revocation) { m.lines = nil },
		"an entry names something else": func(m *memLog, _ []store.Revocation) {
			m.lines = slices.Clone(m.lines)
			m.lines[3].Subject = "somebody else"
		},
		"an entry has expired": func(m *memLog, _ []store.Revocation) {
			m.lines = slices.Clone(m.lines)
			m.lines[3].ExpiresAt = time.Unix(1, 0)
		},
		"the log is as before": func(m *memLog, before []store.Revocation) {
			m.lines, m.head = before, int64(len(before))
		},
		"it is another log": func(m *memLog, _ []store.Revocation) { m.lines, m.head, m.id = nil, 0, "log-2" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newMemLog()
				one := start(t, log, Outage{})
				var before []store.Revocation
				for i := range 35 { // more than a page
					if i == 3 {
						before = slices.Clone(log.lines)
					}
					if _, err := one.log.Revoke(t.Context(), line(fmt.Sprint(i))); err != nil {
						t.Fatal(err)
					}
				}
				last := one
				for range 3 {
					log.set(func(m *memLog) { damage(m, before) })
					next, _, peers := prepared(t, log)
					peers.are(nil, last)
					next.Learn(t.Context())
					next.run(t)
					pass(3 * time.Second)
					for i := range 35 {
						next.expect(t, token(fmt.Sprint(i)), ErrRevoked)
					}
					next.expect(t, token("good"), nil)
					if back := strings.Contains(name, "before") || strings.Contains(name, "another"); back && !strings.Contains(one.logged.String()+next.logged.String(), "revocation log") {
						t.Errorf("nobody is told: %s", next.logged)
					}
					pass(3 * time.Second) // the first one reads the log, too
					last = next
				}
			})
		})
	}
}

// Peers that say nothing hold a start up for a while, and no longer.
func TestLearningEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		r, _, peers := prepared(t, log)
		peers.hung = true
		began := time.Now()
		r.Learn(t.Context())
		if took := time.Since(began); took != learnTimeout {
			t.Errorf("it took %v", took)
		}
		if !strings.Contains(r.logged.String(), "have not said in time") {
			t.Error("nobody is told")
		}
		r.run(t)
		synctest.Wait()
		r.expect(t, token("a"), nil)
	})
}

// Of a page in a later version of the feed nothing is learned, because this replica does not know
// what it says.
func TestNothingIsLearnedOfALaterVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		one := start(t, log, Outage{})
		if _, err := one.log.Revoke(t.Context(), line("a")); err != nil {
			t.Fatal(err)
		}
		r, _, peers := prepared(t, log)
		peers.are(func(p *revoked.Page) { p.Version = revoked.Version + 1 }, one)
		r.Learn(t.Context())
		if n := r.list.Len(); n != 0 || !strings.Contains(r.logged.String(), "this is version 2 of the feed") {
			t.Errorf("%d entries, %s", n, r.logged)
		}
		peers.are(nil, one)
		r.Learn(t.Context())
		if n := r.list.Len(); n != 1 {
			t.Errorf("%d entries of version 1", n)
		}
		r.run(t)
		synctest.Wait()
	})
}
