// Package fleet has thirty resource servers of three languages follow a cluster of three
// replicas through its load balancer, and measures how soon each refuses what was revoked.
package fleet

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/command"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/sdk/servers"
)

const (
	// each is how many resource servers there are of a language. They share a process, which is
	// stricter than processes of their own: what one does, the others wait for. Each has its
	// verifier and its connections.
	each = 10
	// revocations are those that are measured; atTheKill are those before, during and after the
	// kill.
	revocations = 24
	atTheKill   = 30
	// soon is within what 99 of 100 resource servers refuse a token, from when the administrator
	// begins to revoke it, and attached within what all of them do from when their replica is
	// killed. A busy machine is given slack times what a request takes that has to do nothing.
	soon     = 250 * time.Millisecond
	attached = time.Second
	slack    = 3
)

// program is Watchword.
var program string

func TestMain(m *testing.M) {
	servers.Main(m, func(dir string) { program = command.Build(filepath.Join(dir, "watchword")) })
}

// lenient is the time that is allowed where processes have the race detector.
func lenient(d time.Duration) time.Duration {
	if kit.Soak() {
		return 4 * d
	}
	return d
}

// A replica of the cluster.
type replica struct {
	kit.Client
	process *command.Process
}

// cluster starts three replicas behind HAProxy, which is their public URL.
func cluster(t *testing.T) (replicas []*replica, balancer *kit.Client) {
	t.Helper()
	database, redis, dir := testenv.Postgres(t), testenv.Redis(t), t.TempDir()
	var addresses, peers []string
	for range 3 {
		address := testenv.Address(t)
		addresses, peers = append(addresses, address), append(peers, "http://"+address)
	}
	proxy := testenv.HAProxy(t, addresses...)
	secret := rand.Text() + rand.Text()
	kit.Secret(secret)
	for i, address := range addresses {
		log := &testenv.Log{}
		p := command.Serve(program, dir, address, log,
			"DATABASE_URL="+database, "REDIS_URL="+redis,
			"WATCHWORD_CLUSTER_ENABLED=true", "AUTH_CLUSTER_SECRET="+secret,
			fmt.Sprint("WATCHWORD_CLUSTER_INSTANCE_ID=auth-", i),
			"WATCHWORD_CLUSTER_DISCOVERY=static", "WATCHWORD_CLUSTER_REFRESH_SEC=1",
			"WATCHWORD_CLUSTER_STATIC_PEERS="+strings.Join(peers, ","),
			"WATCHWORD_SERVER_PUBLIC_URL="+proxy.URL, "WATCHWORD_SERVER_TRUSTED_PROXIES=127.0.0.0/8",
			"WATCHWORD_TOKENS_KEY_SET_MAX_AGE=1s", "WATCHWORD_TOKENS_KEY_PUBLISH_AHEAD=1s",
			"WATCHWORD_SESSIONS_MAX_PER_USER=0",
			"ADMIN_GUI_USERNAME=admin", "ADMIN_GUI_PASSWORD="+kit.Password)
		p.Begin(t, p.Cmd.Start)
		t.Cleanup(p.Kill)
		replicas = append(replicas, &replica{kit.Client{T: t, URL: peers[i], Log: log}, p})
	}
	for _, r := range replicas {
		r.process.IsReady(t, http.DefaultClient, r.URL, r.Log.(*testenv.Log))
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	balancer = &kit.Client{T: t, URL: proxy.URL, Log: replicas[0].Log}
	kit.Await(t, "the load balancer to use each replica", func() bool {
		seen := map[string]bool{}
		for range 6 {
			if a := balancer.Do("GET", "/livez", "", nil); a.Status == http.StatusOK {
				seen[a.Header.Get("X-Served-By")] = true
			}
		}
		return len(seen) == len(replicas)
	})
	return replicas, balancer
}

// An administrator's revocation reaches thirty resource servers soon. When a replica is killed
// while tokens are revoked, those that followed it go on at another one, and miss nothing.
func TestFleet(t *testing.T) {
	replicas, balancer := cluster(t)
	var all []*servers.Server
	var mu sync.Mutex
	var starting sync.WaitGroup
	for _, l := range servers.Languages {
		starting.Go(func() {
			p := servers.Start(t, l, servers.Options{}, slices.Repeat([]string{balancer.URL}, each)...)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, p.Servers...)
		})
	}
	admin := balancer.Login("admin").AccessToken
	var grants []httpapi.Grant
	var tokens []string
	for i := range revocations + atTheKill + 3 { // the last three are not revoked
		g := replicas[i%3].Login("admin")
		grants, tokens = append(grants, g), append(tokens, g.AccessToken)
	}
	good := append(tokens[revocations+atTheKill:], admin)
	starting.Wait()
	if want := each * len(servers.Languages); len(all) != want {
		t.Fatalf("%d of %d resource servers have started", len(all), want)
	}
	for _, s := range all {
		kit.Eventually(t, func() error { return want(s, "", append(tokens, admin)...) })
	}

	took := map[servers.Language][]time.Duration{}
	slowest := map[servers.Language][]time.Duration{} // the p99 of each revocation
	var bare, answered []time.Duration
	for i, g := range grants[:revocations] {
		bare = append(bare, share(ask(all, func(s *servers.Server) { s.Get("/any", admin) }), .99))
		what := map[string]any{"token": g.AccessToken}
		if i%2 == 1 {
			what = map[string]any{"session_id": g.SessionID}
		}
		one := refusals(all, g.AccessToken, time.Time{}, func() {
			began := time.Now()
			balancer.Revoke(admin, what)
			answered = append(answered, time.Since(began))
		})
		for l, d := range one {
			took[l], slowest[l] = append(took[l], d...), append(slowest[l], share(d, .99))
		}
	}
	idle := slack * share(bare, .5)
	for _, l := range servers.Languages {
		t.Logf("summary: %s: %d revocations at %d resource servers: refused after %s", l, revocations, each, spread(took[l]))
		// The p99 of the middle revocation is not moved by a few during which the machine did
		// something else.
		if p := share(slowest[l], .5); p > lenient(soon)+idle {
			t.Errorf("%s: p99 is %v, want %v", l, p, lenient(soon)+idle)
		}
	}
	t.Logf("summary: all %d: refused after %s; the revocation is answered after %s, an empty request after %s",
		len(all), spread(together(took)), spread(answered), spread(bare))

	victim := slices.MaxFunc(replicas, func(a, b *replica) int { return int(a.Metric(streams) - b.Metric(streams)) })
	followed := victim.Metric(streams)
	others := slices.DeleteFunc(slices.Clone(replicas), func(r *replica) bool { return r == victim })
	ended := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() { goesOn(all, admin, ended) })
	doomed := tokens[revocations : revocations+atTheKill]
	revoke := func(some []string) {
		for i, token := range some {
			others[i%2].Revoke(admin, map[string]any{"token": token})
		}
	}
	revoke(doomed[:atTheKill/3])
	doomed = doomed[atTheKill/3:]
	killed := time.Now()
	victim.process.Kill()
	var revoking sync.WaitGroup
	cost := together(refusals(all, doomed[0], killed, func() {
		revoke(doomed[:1])
		revoking.Go(func() { revoke(doomed[1:]) }) // while they find another replica
	}))
	revoking.Wait()
	t.Logf("summary: a replica was killed, which %v of %d followed: what was revoked then is refused after %s", followed, len(all), spread(cost))
	if p := share(cost, 1); p > lenient(attached)+idle {
		t.Errorf("the last one took %v, want %v", p, lenient(attached)+idle)
	}
	for _, s := range all {
		if code := s.Refused(doomed[len(doomed)-1]); code != "token_revoked" {
			t.Errorf("%s: the last token: %q", s.Language, code)
		}
	}
	close(ended)
	asking.Wait()
	for i, s := range all {
		if err := want(s, "token_revoked", tokens[:revocations+atTheKill]...); err != nil {
			t.Errorf("resource server %d: %v", i, err)
		}
		if err := want(s, "", good...); err != nil {
			t.Errorf("resource server %d: %v", i, err)
		}
		if n := s.Status().Revocations; n != revocations+atTheKill {
			t.Errorf("resource server %d (%s) knows %d revocations of %d", i, s.Language, n, revocations+atTheKill)
		}
	}
}

// streams are the readers that follow the feed at a replica.
const streams = "watchword_feed_subscribers"

// want asks a resource server whether it has that code for each token.
func want(s *servers.Server, code string, tokens ...string) error {
	for i, got := range s.Codes(tokens...) {
		if got != code {
			return fmt.Errorf("%s: token %d: %q, want %q", s.Language, i, got, code)
		}
	}
	return nil
}

// goesOn fails the test unless all accept a good token until the end, one after the other.
func goesOn(all []*servers.Server, token string, end <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-end:
			return
		case <-time.After(10 * time.Millisecond):
		}
		s := all[i%len(all)]
		if a := s.Get("/any", token); a.Status != http.StatusOK {
			s.T.Errorf("%s: a good token: %d %s\n%s", s.Language, a.Status, a.Body, s.Log.Tail())
			return
		}
	}
}

// ask does something with all at once, and returns what it took with each.
func ask(all []*servers.Server, f func(*servers.Server)) []time.Duration {
	took := make([]time.Duration, len(all))
	var asking sync.WaitGroup
	for i, s := range all {
		asking.Go(func() {
			began := time.Now()
			f(s)
			took[i] = time.Since(began)
		})
	}
	asking.Wait()
	return took
}

// refusals revokes a token, and returns how long after a moment each resource server refused it.
// All of them wait for that already, each in its own process. The moment is when revoke is called,
// if it is zero.
func refusals(all []*servers.Server, token string, since time.Time, revoke func()) map[servers.Language][]time.Duration {
	refused := make([]time.Time, len(all))
	var asking sync.WaitGroup
	for i, s := range all {
		asking.Go(func() {
			if code := s.Refused(token); code != "token_revoked" {
				s.T.Errorf("%s: a revoked token: %q", s.Language, code)
			}
			refused[i] = time.Now()
		})
	}
	if since.IsZero() {
		since = time.Now()
	}
	revoke()
	asking.Wait()
	took := map[servers.Language][]time.Duration{}
	for i, s := range all {
		took[s.Language] = append(took[s.Language], refused[i].Sub(since))
	}
	return took
}

func together(took map[servers.Language][]time.Duration) (all []time.Duration) {
	for _, some := range took {
		all = append(all, some...)
	}
	return all
}

// share is the duration that a share of all does not exceed.
func share(took []time.Duration, of float64) time.Duration {
	took = slices.Sorted(slices.Values(took))
	return took[int(of*float64(len(took)-1))].Round(100 * time.Microsecond)
}

func spread(took []time.Duration) string {
	return fmt.Sprintf("p50 %v, p99 %v, max %v", share(took, .5), share(took, .99), share(took, 1))
}
