package cluster

import (
	crand "crypto/rand"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

const (
	issuer        = "https://auth.example.com"
	adminName     = "root"
	adminPassword = "correct horse battery staple"
)

// A plan says what a world is made of.
type plan struct {
	replicas int // how many places there are
	mariadb  bool
	pair     bool // PostgreSQL has a standby
	redis    bool
	ahead    map[int]time.Duration // clocks
	maxAge   time.Duration
	tokens   time.Duration // how long they live
	keys     time.Duration // how long they sign
	unnamed  bool          // no instance_id anywhere, and replicas that find each other in the database
	env      []string
}

// A world is a cluster and everything around it.
type world struct {
	t        *testing.T
	plan     plan
	dir      string
	database *testenv.Server
	pair     *testenv.PostgresPair // nil: none, or it has failed over
	redis    *testenv.Server       // nil: none
	balancer *testenv.Server
	lines    map[string]*testenv.Link // to the load balancer: of people, of servers
	replicas []*replica
	history  *history
	probe    *http.Client // the test's own, which is no client of the cluster
}

// newWorld prepares everything and starts no replica.
func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	w := &world{t: t, plan: p, dir: t.TempDir(), history: &history{}, probe: newHTTPClient(requestTime)}
	switch {
	case p.mariadb:
		w.database = testenv.StartMariaDB(t)
	case p.pair:
		w.pair = testenv.StartPostgresPair(t)
		w.database = w.pair.Primary
	default:
		w.database = testenv.StartPostgres(t)
	}
	if p.redis {
		w.redis = testenv.StartRedis(t)
	}
	secret := crand.Text() + crand.Text()
	var fronts, seen []string
	for i := range p.replicas {
		r := &replica{world: w, name: fmt.Sprintf("s%d", i), addr: testenv.Address(t), ahead: p.ahead[i]}
		r.url = "http://" + r.addr
		r.database = testenv.NewLink(t, w.database.Addr)
		r.balancer = testenv.NewLink(t, r.addr)
		r.env = append([]string{
			"DATABASE_URL=" + through(t, w.database.URL, r.database.Addr),
			"WATCHWORD_CLUSTER_ENABLED=true", "AUTH_CLUSTER_SECRET=" + secret,
			"WATCHWORD_SERVER_PUBLIC_URL=" + issuer,
			"WATCHWORD_SERVER_DRAIN_DELAY=" + drainDelay().String(),
			"WATCHWORD_SERVER_TRUSTED_PROXIES=127.0.0.0/8",
			// All clients are one user, who logs in again and again, from one machine.
			"WATCHWORD_SESSIONS_MAX_PER_USER=0", "WATCHWORD_SERVER_MAX_REQUESTS_PER_USER=1000",
			"ADMIN_GUI_USERNAME=" + adminName, "ADMIN_GUI_PASSWORD=" + adminPassword,
			"WATCHWORD_TOKENS_KEY_SET_MAX_AGE=" + p.maxAge.String(),
			// The verifiers here keep a key set for no longer than its max-age.
			"WATCHWORD_TOKENS_KEY_PUBLISH_AHEAD=" + p.maxAge.String(),
			"WATCHWORD_TOKENS_TOKEN_DURATION=" + p.tokens.String(),
			"WATCHWORD_TOKENS_KEY_DURATION=" + p.keys.String(),
		}, p.env...)
		if !p.unnamed {
			r.env = append(r.env, "WATCHWORD_CLUSTER_INSTANCE_ID=auth-"+fmt.Sprint(i))
		}
		if p.redis {
			r.redis = testenv.NewLink(t, w.redis.Addr)
			r.env = append(r.env, "REDIS_URL="+through(t, w.redis.URL, r.redis.Addr))
		}
		w.replicas = append(w.replicas, r)
		fronts = append(fronts, r.balancer.Addr)
		seen = append(seen, r.addr)
	}
	for _, r := range w.replicas {
		if p.unnamed { // as little configuration as there can be
			r.env = append(r.env, "WATCHWORD_CLUSTER_ADVERTISE_URL="+r.url)
			continue
		}
		var peers []string
		for _, addr := range seen {
			l := testenv.NewLink(t, addr)
			r.peers = append(r.peers, l)
			peers = append(peers, "http://"+l.Addr)
		}
		r.env = append(r.env, "WATCHWORD_CLUSTER_DISCOVERY=static", "WATCHWORD_CLUSTER_REFRESH_SEC=1",
			"WATCHWORD_CLUSTER_STATIC_PEERS="+strings.Join(peers, ","))
	}
	w.balancer = testenv.HAProxy(t, fronts...)
	w.lines = map[string]*testenv.Link{people: testenv.NewLink(t, w.balancer.Addr), servers: testenv.NewLink(t, w.balancer.Addr)}
	t.Cleanup(func() {
		for _, r := range w.replicas {
			r.kill()
			r.goodLog()
		}
	})
	return w
}

// drainDelay is several times as long as the load balancer needs to notice (0.5 s).
func drainDelay() time.Duration {
	if long {
		return 3 * time.Second
	}
	return 1500 * time.Millisecond
}

// front is the load balancer's URL by way of a line.
func (w *world) front(line string) string { return "http://" + w.lines[line].Addr }

// random are the random numbers of one actor of a test.
func (w *world) random(who string) *rand.Rand {
	name := fnv.New64a()
	_, _ = io.WriteString(name, w.t.Name()+" "+who) // never fails
	return rand.New(rand.NewPCG(uint64(*seed), name.Sum64()))
}

// through is a URL by way of a proxy.
func through(t testing.TB, address, proxy string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = proxy
	return u.String()
}

// start starts the first n replicas together, and waits until the load balancer
// has them all.
func (w *world) start(n int) {
	w.t.Helper()
	for _, r := range w.replicas[:n] {
		r.launch()
	}
	for _, r := range w.replicas[:n] {
		r.awaitReady()
		w.awaitBalanced(r)
	}
}

// awaitBalanced waits until the load balancer sends requests to a replica.
func (w *world) awaitBalanced(r *replica) {
	w.t.Helper()
	await(w.t, "the load balancer to use "+r.name, func() bool {
		resp, err := w.probe.Get(w.balancer.URL + "/livez")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200 && resp.Header.Get("X-Served-By") == r.name
	})
}

// others are all replicas but these.
func (w *world) others(not ...*replica) []*replica {
	var list []*replica
	for _, r := range w.replicas {
		found := false
		for _, n := range not {
			found = found || n == r
		}
		if !found && r.isUp() {
			list = append(list, r)
		}
	}
	return list
}

// logs are the ends of all logs, without what is routine.
func (w *world) logs() string {
	var b strings.Builder
	for _, r := range w.replicas {
		fmt.Fprintf(&b, "--- %s\n", r.name)
		lines := strings.Split(r.log.String(), "\n")
		for _, line := range lines[max(0, len(lines)-60):] {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}
