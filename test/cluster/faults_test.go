package cluster

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// Everything goes wrong, one thing after the other, and nobody notices but who was
// on the broken part.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := *seed
	if s == 0 {
		s = time.Now().UnixNano()
	}
	t.Logf("seed %d", s)
	w := newWorld(t, plan{
		replicas: 5, redis: true,
		ahead:  map[int]time.Duration{1: 5 * time.Second},
		maxAge: 5 * time.Second, tokens: 10 * time.Second, keys: 12 * time.Second,
	})
	w.start(3)
	crowd := w.populate(4, 1, 2, 2)
	d := &director{world: w, rand: rand.New(rand.NewPCG(uint64(s), 0))}
	d.everything()
	crowd.end()
	w.history.report(t)
	if t.Failed() {
		t.Log(w.logs())
	}
}

// A director makes the faults, in an order that its random numbers decide.
type director struct {
	*world
	rand *rand.Rand
}

func (d *director) everything() {
	acts := []func(){
		func() { d.killOne() }, func() { d.killOne() },
		func() { d.terminateOne() }, func() { d.terminateOne() },
		d.rollAll,
		func() { d.freezeOne(20 * time.Second) },
		d.scale,
		d.loseRedis, d.flushRedis, d.restartDatabase,
		d.network,
	}
	d.rand.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	for _, act := range acts {
		if d.t.Failed() {
			return
		}
		pause(d.t.Context(), d.between(200, 1500))
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

func (d *director) freezeOne(how time.Duration) {
	r := d.one()
	d.note("SIGSTOP for 20s", r.name)
	end := d.history.begin(frozen, r.name)
	r.freeze(how)
	r.awaitReady()
	end()
	d.awaitBalanced(r)
}

// scale goes from three to five, to two, and back to three.
func (d *director) scale() {
	d.note("scale 3→5→2", "")
	for _, r := range d.replicas[3:] {
		end := d.history.begin(terminated, r.name)
		r.launch()
		defer end()
	}
	for _, r := range d.replicas[3:] {
		r.awaitReady()
		d.awaitBalanced(r)
	}
	pause(d.t.Context(), 2*time.Second)
	gone := d.others()
	d.rand.Shuffle(len(gone), func(i, j int) { gone[i], gone[j] = gone[j], gone[i] })
	for _, r := range gone[:3] {
		end := d.history.begin(terminated, r.name)
		defer end()
		r.stop()
	}
	pause(d.t.Context(), 5*time.Second)
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
	for _, r := range d.others() {
		r.awaitReady()
		d.awaitBalanced(r)
	}
	end()
}

// network makes each fault between each two kinds of parts.
func (d *director) network() {
	faults := []struct {
		name string
		testenv.Fault
	}{
		{"cut", testenv.Fault{Cut: true}},
		{"delayed", testenv.Fault{Delay: 50 * time.Millisecond}},
		{"requests lost", testenv.Fault{HoldUp: true}},
		{"answers lost", testenv.Fault{HoldDown: true}},
	}
	for _, f := range faults {
		hurts := f.Delay == 0
		r := d.one()
		d.note("network "+f.name, "between "+r.name+" and database")
		end := func() {}
		if hurts {
			end = d.history.begin(cutOff, r.name)
		}
		r.database.Set(f.Fault)
		pause(d.t.Context(), d.between(2000, 8000))
		r.database.Set(testenv.Fault{})
		r.awaitReady()
		end()

		r = d.one()
		d.note("network "+f.name, "between "+r.name+" and Redis")
		r.redis.Set(f.Fault)
		pause(d.t.Context(), d.between(1000, 3000))
		r.redis.Set(testenv.Fault{})

		r = d.one()
		d.note("network "+f.name, "between "+r.name+" and its peers")
		for _, p := range r.peers {
			p.Set(f.Fault)
		}
		pause(d.t.Context(), d.between(1000, 3000))
		for _, p := range r.peers {
			p.Set(testenv.Fault{})
		}

		r = d.one()
		d.note("network "+f.name, "between load balancer and "+r.name)
		end = func() {}
		if hurts {
			end = d.history.begin(unreachable, r.name)
		}
		r.balancer.Set(f.Fault)
		pause(d.t.Context(), d.between(1000, 4000))
		r.balancer.Set(testenv.Fault{})
		d.awaitBalanced(r)
		end()
	}
}
