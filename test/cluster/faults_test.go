package cluster

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Everything goes wrong, one thing after the other, and only the clients of the broken
// part notice. In the short form two clusters share the faults.
func TestFaults(t *testing.T) {
	t.Parallel()
	t.Logf("seed %d", *seed)
	idleBefore, allBefore := idle()
	t.Run("worlds", func(t *testing.T) {
		if long {
			t.Run("everything", func(t *testing.T) { withFaults(t, (*director).toReplicas, (*director).toTheRest) })
			return
		}
		t.Run("replicas", func(t *testing.T) { withFaults(t, (*director).toReplicas) })
		t.Run("network and database", func(t *testing.T) { withFaults(t, (*director).toTheRest) })
	})
	idleAfter, allAfter := idle()
	summarise(t, "the machine was idle for %d %% of the time", 100*(idleAfter-idleBefore)/(allAfter-allBefore))
}

// withFaults makes some kinds of faults in a world of their own.
func withFaults(t *testing.T, kinds ...func(*director) []func()) {
	t.Parallel()
	p := plan{
		replicas: 4, pair: true, redis: true,
		ahead:  map[int]time.Duration{1: 5 * time.Second}, // TestNoInstanceID has one that is behind
		maxAge: 2 * time.Second, tokens: 10 * time.Second, keys: 12 * time.Second,
		// A client that is not answered asks again, at one broken replica after the other.
		env: []string{"WATCHWORD_TOKENS_RENEW_GRACE=" + answerTime.String()},
	}
	clients := 1
	if long {
		p.replicas, p.maxAge, clients = 5, 5*time.Second, 2
	}
	w := newWorld(t, p)
	w.start(3)
	w.clocksDiffer()
	crowd := w.populate(2*clients, 1, clients, clients)
	d := &director{world: w, rand: w.random("director")}
	var acts []func()
	for _, of := range kinds {
		acts = append(acts, of(d)...)
	}
	d.all(acts)
	crowd.end()
	w.history.report(t)
	if t.Failed() {
		t.Log(w.logs())
	}
}

// clocksDiffer makes sure of the fault that lasts all the time: each replica that runs
// has the clock that it was given, as the cluster itself sees it.
func (w *world) clocksDiffer() {
	w.t.Helper()
	me := w.tester("clocks")
	for _, r := range w.others() {
		var seen time.Duration
		await(w.t, "the clock of "+r.name, func() bool {
			_, answer, _ := me.ask("cluster", r, http.MethodGet, "/api/cluster", me.at(r).compact, nil, nil)
			var view struct {
				Instance string
				Replicas []struct {
					Instance string
					ClockMS  int64 `json:"clock_ms"`
				}
			}
			if err := json.Unmarshal(answer, &view); err != nil {
				return false
			}
			for _, one := range view.Replicas {
				if one.Instance == view.Instance {
					seen = time.Duration(one.ClockMS) * time.Millisecond
				}
			}
			return (seen - r.ahead).Abs() < time.Second
		}, func() string { return fmt.Sprintf("it is ahead by %v and should be by %v", seen, r.ahead) })
		w.history.count("clock " + r.ahead.String())
	}
}

// A director makes the faults, in an order that its random numbers decide.
type director struct {
	*world
	rand *rand.Rand
}

// toReplicas are the faults of replicas and of Redis.
func (d *director) toReplicas() []func() {
	acts := []func(){d.killOne, d.terminateOne, d.freezeOne, d.scale, d.loseRedis, d.flushRedis}
	if long {
		acts = append(acts, d.killOne, d.rollAll)
	}
	return acts
}

// toTheRest are the faults of the database and of the network.
func (d *director) toTheRest() []func() {
	acts := []func(){d.restartDatabase, d.failOver, d.isolateOne}
	for _, f := range networkFaults {
		acts = append(acts, func() { d.network(f.name, f.Fault) })
	}
	return acts
}

// all makes faults in an order that the random numbers decide.
func (d *director) all(acts []func()) {
	d.rand.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	for _, act := range acts {
		if d.t.Failed() {
			return
		}
		pause(d.t.Context(), d.between(200, 800))
		act()
	}
}

func (d *director) between(least, most int) time.Duration {
	return time.Duration(least+d.rand.IntN(most-least)) * time.Millisecond
}

// one of the replicas that are up.
func (d *director) one() *replica {
	up := d.others()
	return up[d.rand.IntN(len(up))]
}

func (d *director) note(fault string, about string) {
	d.history.count(fault)
	d.t.Logf("%s %s %s", clock(time.Now()), fault, about)
}

func (d *director) killOne() { d.kill(d.one()) }

func (d *director) kill(r *replica) {
	d.note("kill -9", r.name)
	end := d.history.begin(killed, r.name)
	r.kill()
	r.start()
	end()
	d.awaitBalanced(r)
}

func (d *director) terminateOne() { d.terminate(d.one()) }

func (d *director) terminate(r *replica) {
	d.note("SIGTERM", r.name)
	end := d.history.begin(terminated, r.name)
	r.stop()
	r.start()
	end()
	d.awaitBalanced(r)
}

func (d *director) rollAll() {
	d.note("rolling restart", "")
	for _, r := range d.others() {
		d.terminate(r)
	}
}

// freezeOne stops a replica for longer than the others count it as alive (7 s).
func (d *director) freezeOne() {
	r, how := d.one(), 9*time.Second
	if long {
		how = 20 * time.Second
	}
	d.note("SIGSTOP for "+how.String(), r.name)
	end := d.history.begin(frozen, r.name)
	r.freeze(how)
	r.awaitReady()
	end()
	d.awaitBalanced(r)
}

// scale goes from three to all places, to two, and back to three.
func (d *director) scale() {
	d.note(fmt.Sprintf("scale 3→%d→2", len(d.replicas)), "")
	for _, r := range d.replicas[3:] {
		end := d.history.begin(terminated, r.name)
		r.launch()
		defer end()
	}
	for _, r := range d.replicas[3:] {
		r.awaitReady()
		d.awaitBalanced(r)
	}
	pause(d.t.Context(), time.Second)
	gone := d.others()
	d.rand.Shuffle(len(gone), func(i, j int) { gone[i], gone[j] = gone[j], gone[i] })
	for _, r := range gone[:len(gone)-2] {
		end := d.history.begin(terminated, r.name)
		defer end()
		r.stop()
	}
	pause(d.t.Context(), 2*time.Second)
	for _, r := range d.replicas {
		switch running := r.isUp(); {
		case running && len(d.others()) > 3:
			r.stop()
		case !running && len(d.others()) < 3:
			r.start()
			d.awaitBalanced(r)
		}
	}
}

func (d *director) loseRedis() {
	d.note("Redis killed", "")
	d.redis.Stop()
	pause(d.t.Context(), d.between(1000, 3000))
	d.redis.Start(d.t)
}

func (d *director) flushRedis() {
	d.note("Redis flushed", "")
	testenv.FlushRedis(d.t, d.redis)
}

func (d *director) restartDatabase() {
	d.note("database restarted", "")
	end := d.history.begin(database, "")
	d.database.Stop()
	pause(d.t.Context(), d.between(500, 2000))
	d.database.Start(d.t)
	d.awaitRecovery()
	end()
}

// awaitRecovery waits until all replicas have found the database again. One that is only ready may still
// rest on what it read before, and would be stale too soon in the next fault.
func (d *director) awaitRecovery() {
	d.t.Helper()
	from := time.Now()
	for _, r := range d.others() {
		r.awaitReady()
		d.awaitBalanced(r)
		await(d.t, r.name+" to confirm the revocations", func() bool {
			var page revoked.Page
			res, err := d.probe.Get(r.url + "/api/revocations?after=0&limit=1")
			if err != nil {
				return false
			}
			defer res.Body.Close()
			return json.NewDecoder(res.Body).Decode(&page) == nil && page.Log != "" &&
				time.Duration(page.Age)*time.Millisecond < time.Since(from)
		})
	}
}

// failOver has the standby take the place of the primary, which is gone for good.
func (d *director) failOver() {
	d.pair.AwaitSync(d.t) // else nobody would promote it
	d.note("database failed over", "")
	end := d.history.begin(database, "")
	d.pair.Primary.Stop()
	pause(d.t.Context(), d.between(500, 2000))
	d.pair.Promote(d.t)
	for _, r := range d.replicas {
		r.database.Lead(d.pair.Standby.Addr)
	}
	d.database, d.pair = d.pair.Standby, nil
	d.awaitRecovery()
	end()
}

var networkFaults = []struct {
	name string
	testenv.Fault
}{
	{"cut", testenv.Fault{Cut: true}},
	{"delayed", testenv.Fault{Delay: 2500 * time.Millisecond}}, // at most
	{"requests lost", testenv.Fault{HoldUp: true}},
	{"answers lost", testenv.Fault{HoldDown: true}},
}

// isolateOne cuts one replica off from everything but its clients and the load
// balancer, until the others sign with keys that it cannot know: they wait for it for
// 7 s, for as long as it may take it to ask them (6 s), and for max-age. It may say
// that it does not know, and not that their tokens are bad.
func (d *director) isolateOne() {
	r := d.one()
	d.note("cut off from all but clients", r.name)
	end := d.history.begin(cutOff, r.name)
	from := time.Now()
	r.network(testenv.Fault{HoldUp: true, HoldDown: true})
	d.command(d.others(r)[0], "keys", "rotate")
	await(d.t, r.name+" to be asked about keys that it cannot know", func() bool {
		pause(d.t.Context(), 200*time.Millisecond)
		return d.history.presented(r.name, from, d.keySet(r))
	}, d.history.recent)
	r.network(testenv.Fault{})
	pause(d.t.Context(), poll)
	r.awaitReady()
	end()
	d.awaitBalanced(r)
}

// keySet is what a replica answers.
func (d *director) keySet(r *replica) *accesstoken.KeySet {
	e, answer, _ := d.tester("director").ask("keys", r, http.MethodGet, "/api/pkeys", "", nil, nil)
	set, err := accesstoken.ParseKeySet(answer)
	if err != nil {
		d.t.Fatalf("%s: %v", e, err)
	}
	return set
}

// A part of the network.
type part struct {
	name  string
	links []*testenv.Link
	long  time.Duration // for how long it is broken
	hurts kind          // empty: none
	where string        // the part that is hurt
	r     *replica      // nil: none stands at it
}

// network makes a fault between each two kinds of parts. A replica that is cut off from Redis
// or from peers alone answers all the same.
func (d *director) network(name string, f testenv.Fault) {
	up := d.others()
	d.rand.Shuffle(len(up), func(i, j int) { up[i], up[j] = up[j], up[i] })
	a, b, c := up[0], up[1], up[2]
	if !long { // all parts at once; isolateOne has the database and the peers broken together
		d.broken(name, f,
			part{"the database and " + a.name, []*testenv.Link{a.database}, d.between(2000, 4000), cutOff, a.name, a},
			part{"Redis and peers and " + b.name, append(b.betweenPeers(), b.redis), d.between(1000, 3000), "", "", b},
			part{"the load balancer and " + c.name, []*testenv.Link{c.balancer}, d.between(1000, 3000), unreachable, c.name, c},
			part{people + " and the load balancer", []*testenv.Link{d.lines[people]}, d.between(1000, 2000), offline, people, nil},
			part{servers + " and the load balancer", []*testenv.Link{d.lines[servers]}, d.between(1000, 3000), offline, servers, nil})
		return
	}
	d.broken(name, f,
		part{"the database and " + a.name, []*testenv.Link{a.database}, d.between(2000, 6000), cutOff, a.name, a},
		part{"Redis and " + b.name, []*testenv.Link{b.redis}, d.between(1000, 3000), "", "", b})
	d.broken(name, f,
		part{"the database and its peers and " + b.name, append(b.betweenPeers(), b.database), d.between(3000, 6000), cutOff, b.name, b},
		part{servers + " and the load balancer", []*testenv.Link{d.lines[servers]}, d.between(2000, 4000), offline, servers, nil})
	d.broken(name, f,
		part{"peers and " + a.name, a.betweenPeers(), d.between(1000, 3000), "", "", a},
		part{"the load balancer and " + c.name, []*testenv.Link{c.balancer}, d.between(1000, 3000), unreachable, c.name, c},
		part{people + " and the load balancer", []*testenv.Link{d.lines[people]}, d.between(1000, 3000), offline, people, nil})
}

// broken makes a fault in some parts at once.
func (d *director) broken(name string, f testenv.Fault, parts ...part) {
	if f.Delay > 0 {
		f.Delay -= d.between(0, 1500)
	}
	var broken sync.WaitGroup
	var ends []func()
	for _, p := range parts {
		d.note("network "+name, "between "+p.name)
		if p.hurts != "" {
			ends = append(ends, d.history.begin(p.hurts, p.where))
		}
		for _, l := range p.links {
			l.Set(f)
		}
		broken.Go(func() {
			pause(d.t.Context(), p.long)
			for _, l := range p.links {
				l.Set(testenv.Fault{})
			}
		})
	}
	broken.Wait()
	pause(d.t.Context(), poll) // what it knows grows older until then
	for _, p := range parts {
		if p.r != nil {
			p.r.awaitReady()
			d.awaitBalanced(p.r)
		}
	}
	for _, end := range ends {
		end()
	}
}
