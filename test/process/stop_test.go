package process

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/timing"
)

// After a total stop of replicas with keys in memory, the first login waits for caches that may
// hold a key set from before, and for nothing else.
func TestTotalStop(t *testing.T) {
	t.Parallel()
	ids := []string{"auth-0", "auth-1", "auth-2"}
	// Alone on the machine it takes a second. Replicas that wait for caches in full would need 5 s.
	const maxAge, soon = 3 * time.Second, 3500 * time.Millisecond
	killAll := func(_ *testing.T, nodes []*node) {
		for _, n := range nodes {
			n.kill()
		}
	}
	for name, c := range map[string]struct {
		maxAge time.Duration
		ids    []string
		end    func(*testing.T, []*node)
		away   time.Duration // from the end of the last replica to the next start
		rest   time.Duration // for which caches may hold a key set from before then
	}{
		// A shorter stop than the leeway does not count as one.
		"SIGTERM":              {maxAge, ids, stopAll, timing.Leeway + time.Second, 0},
		"kill -9":              {maxAge, ids, killAll, timing.LiveFor + timing.Leeway + time.Second, 0},
		"SIGTERM for a moment": {10 * time.Second, ids[:1], stopAll, timing.Leeway + time.Second, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := append(inCluster(t, []string{"WATCHWORD_TOKENS_KEYS=memory"}), "WATCHWORD_TOKENS_KEY_SET_MAX_AGE="+c.maxAge.String())
			nodes := advertised(prepareAll(t, env, c.ids...))
			beginAll(t, nodes)
			c.end(t, nodes)
			ended := time.Now()
			time.Sleep(c.away) // the stop itself
			nodes = advertised(prepareAll(t, env, c.ids...))
			began := time.Now()
			for _, n := range nodes {
				n.begin()
			}
			waitUntil(t, "the first answer", func() bool {
				return slices.ContainsFunc(nodes, func(n *node) bool { return n.answers("/livez") })
			})
			up := time.Now() // how long a process takes until then is a matter of the machine
			waitUntil(t, "the first login", func() bool { return slices.ContainsFunc(nodes, (*node).logsIn) })
			t.Logf("the first login %v after the start", time.Since(began).Round(time.Millisecond))
			if took := time.Since(up); took > c.rest+soon {
				t.Errorf("nobody could log in for %v, want %v at most\n%s", took, c.rest+soon, nodes[0].log.Tail())
			}
			if least := c.maxAge; c.rest > 0 && time.Since(ended) < least {
				t.Errorf("a login %v after the end, and caches hold a key set for %v", time.Since(ended), least)
			}
			stopAll(t, nodes)
		})
	}
}

// advertised has each replica say where it is reached: whether one that is silent has ended is
// known by asking it.
func advertised(nodes []*node) []*node {
	for _, n := range nodes {
		n.cmd.Env = append(n.cmd.Env, "WATCHWORD_CLUSTER_ADVERTISE_URL="+n.url)
	}
	return nodes
}

func (n *node) logsIn() bool {
	status, _, err := n.call("POST", "/api/login", "", httpapi.LoginRequest{Username: "root", Password: "correct horse"})
	return err == nil && status == http.StatusOK
}
