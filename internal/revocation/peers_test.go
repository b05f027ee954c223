package revocation

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// views are the other replicas; what they say can be changed on its way.
type views struct {
	mu     sync.Mutex
	list   []*replica
	change func(*revoked.Page)
	hung   bool // they do not answer
}

// are sets the list of peers, and how their pages are changed.
func (v *views) are(change func(*revoked.Page), list ...*replica) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list, v.change = list, change
}

func (v *views) Revocations(ctx context.Context, log string, after int64, take func(revoked.Page)) {
	if v.hung {
		<-ctx.Done()
	}
	v.mu.Lock()
	list, change := v.list, v.change
	v.mu.Unlock()
	for _, r := range list {
		if p, err := r.Page(log, after, 10); err == nil {
			if change != nil {
				change(&p)
			}
			take(p)
		}
	}
}

// A cut is a log that one replica alone cannot reach.
type cut struct {
	*memLog
	away atomic.Bool
}

func (c *cut) RevocationsAfter(ctx context.Context, after int64, limit int) ([]store.Revocation, store.LogHead, error) {
	if c.away.Load() {
		return nil, store.LogHead{}, errDown
	}
	return c.memLog.RevocationsAfter(ctx, after, limit)
}

// island is a replica that can be cut off, and what it knows of its peers.
func island(t *testing.T, log *memLog) (*replica, *cut, *views) {
	r, way, peers := prepared(t, log)
	r.run(t)
	synctest.Wait()
	return r, way, peers
}

// prepared is an island that does not run yet.
func prepared(t *testing.T, log *memLog) (*replica, *cut, *views) {
	way, peers := &cut{memLog: log}, &views{}
	r := prepare(t, way, Config{Poll: time.Second, MaxStaleness: 5 * time.Second})
	r.Follow(peers)
	return r, way, peers
}

func TestAViewThatIsCutOffFollowsItsPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		one := start(t, log, Outage{})
		r, way, peers := island(t, log)
		peers.are(nil, one)
		way.away.Store(true)
		pass(time.Minute)
		r.expect(t, token("a"), nil)
		for i := range 35 { // more than a page
			if _, err := one.log.Revoke(t.Context(), line(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		pass(3 * time.Second)
		for i := range 35 {
			r.expect(t, token(fmt.Sprint(i)), ErrRevoked)
		}
		r.expect(t, token("a"), nil)

		// What is older than a duration can be is old.
		peers.are(func(p *revoked.Page) { p.Age = 9223372036855 }, one)
		time.Sleep(5*time.Second + time.Millisecond)
		r.expect(t, token("a"), ErrStale)
		peers.are(nil, one)
		pass(3 * time.Second)
		r.expect(t, token("a"), nil)

		// The log can be read again where the peer's page ended.
		way.away.Store(false)
		if _, err := r.log.Revoke(t.Context(), line("b")); err != nil {
			t.Fatal(err)
		}
		r.expect(t, token("b"), ErrRevoked)
		if head, _ := r.Confirmed(); head != 36 {
			t.Errorf("the head is %d", head)
		}

		// Without peers it stops trusting itself.
		way.away.Store(true)
		peers.are(nil)
		time.Sleep(5*time.Second + time.Millisecond)
		r.expect(t, token("a"), ErrStale)
	})
}

// Replicas that are all cut off do not keep each other fresh.
func TestACircleOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		var rs []*replica
		var ways []*cut
		var all []*views
		for range 3 {
			r, way, peers := island(t, log)
			rs, ways, all = append(rs, r), append(ways, way), append(all, peers)
		}
		for i := range rs {
			all[i].are(nil, rs...)
			ways[i].away.Store(true)
		}
		pass(4 * time.Second)
		rs[0].expect(t, token("a"), nil)
		pass(2 * time.Second)
		for _, r := range rs {
			r.expect(t, token("a"), ErrStale)
		}
		// One that is back is enough for all.
		ways[1].away.Store(false)
		pass(4 * time.Second)
		for _, r := range rs {
			r.expect(t, token("a"), nil)
		}
	})
}

// What does not continue the log that was read confirms nothing.
func TestPagesThatDoNotFit(t *testing.T) {
	for name, change := range map[string]func(*revoked.Page){
		"of another log":       func(p *revoked.Page) { p.Log = "log-2" },
		"of the log's start":   func(p *revoked.Page) { p.Snapshot = true },
		"of the future":        func(p *revoked.Page) { p.Age = -1 },
		"behind what was read": func(p *revoked.Page) { p.Head-- },
		"old":                  func(p *revoked.Page) { p.Age += 7000 },
		"unfinished":           func(p *revoked.Page) { p.More = true },
		"of a later version":   func(p *revoked.Page) { p.Version = revoked.Version + 1 },
		"of an unknown kind": func(p *revoked.Page) {
			p.Entries = []revoked.Entry{{Seq: p.Head + 1, Kind: "x", ExpiresAt: time.Now().Add(time.Hour).Unix()}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newMemLog()
				one := start(t, log, Outage{})
				r, way, peers := island(t, log)
				if _, err := r.log.Revoke(t.Context(), line("a")); err != nil {
					t.Fatal(err)
				}
				pass(2 * time.Second)
				peers.are(change, one)
				way.away.Store(true)
				pass(6 * time.Second)
				r.expect(t, token("b"), ErrStale)
				peers.are(nil, one)
				pass(2 * time.Second)
				r.expect(t, token("b"), nil)
			})
		})
	}
}

// A peer that never read the log is no peer, and a view that never read it does not
// begin with a peer's.
func TestAViewThatNeverReadTheLogFollowsNoPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		one := start(t, log, Outage{})
		synctest.Wait()
		way, peers := &cut{memLog: log}, &views{list: []*replica{one}}
		way.away.Store(true)
		r := prepare(t, way, Config{Poll: time.Second, MaxStaleness: 5 * time.Second})
		r.Follow(peers)
		r.run(t)
		pass(10 * time.Second)
		r.expect(t, token("a"), ErrStale)
	})
}
