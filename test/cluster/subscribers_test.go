package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify"
)

const (
	// soon is within what nearly all resource servers should refuse what was taken
	// back, and attached within what each should follow another replica after its own
	// was killed. With the race detector, where everything is slow, four times that; and
	// a busy machine is given slack times what a request takes that has to do nothing.
	soon     = 250 * time.Millisecond
	attached = time.Second
	slack    = 3
)

func lenient(d time.Duration) time.Duration {
	if raceEnabled {
		return 4 * d
	}
	return d
}

// Many resource servers, a hundred in the long form, follow a cluster through its load
// balancer: what any replica revokes reaches all of them soon, and when a replica is
// killed while tokens are revoked, those that followed it go on at another and miss
// nothing.
func TestManyResourceServersFollowACluster(t *testing.T) {
	if !long {
		t.Parallel()
	}
	first, second, followers := 6, 30, 40
	if long {
		first, second, followers = 20, 60, 100
	}
	w := newWorld(t, plan{replicas: 3, maxAge: time.Second, tokens: 10 * time.Minute, keys: time.Hour})
	w.balanceDirectly()
	w.start(3)
	me := w.tester("test")
	admin := me.at(w.replicas[0])
	all := w.follow(admin, followers)

	var tokens []*issued
	for i := range first + second {
		tokens = append(tokens, me.at(w.replicas[i%3]))
	}
	for i, f := range all {
		for _, token := range tokens {
			f.awaitAccepted(t, fmt.Sprint("resource server ", i), token)
		}
	}

	// Of each revocation the p99, and of those the middle one: it is not moved by a few
	// in which the machine did something else.
	var took, slowest, bare []time.Duration
	for i, token := range tokens[:first] {
		bare = append(bare, share(w.roundTrips(all), .99))
		me.revoke(w.replicas[i%3], admin, token)
		one := refused(t, all, token, time.Now())
		took, slowest = append(took, one...), append(slowest, share(one, .99))
	}
	idle := slack * share(bare, .5)
	t.Logf("%d revocations, %d resource servers, 3 replicas: refused after %s; an empty request takes %s", first, followers, spread(took), spread(bare))
	if p := share(slowest, .5); p > lenient(soon)+idle {
		t.Errorf("p99 is %v, want %v", p, lenient(soon)+idle)
	}

	victim := w.mostFollowed(all)
	others := w.others(victim)
	var revoking sync.WaitGroup
	half := make(chan struct{})
	revoking.Go(func() {
		for i, token := range tokens[first:] {
			if i == second/3 {
				close(half)
			}
			me.revoke(others[i%2], admin, token)
			pause(t.Context(), 30*time.Millisecond)
		}
	})
	<-half
	began := time.Now()
	victim.kill()
	took = w.reattach(all, victim, began)
	revoking.Wait()
	t.Logf("%s was killed, which %d of %d followed: at another replica after %s", victim.name, len(took), followers, spread(took))
	stood := machine.disturbed(t.Context(), event{at: began, until: time.Now()})
	if p := share(took, 1); p > lenient(attached)+idle && !stood {
		t.Errorf("the last one took %v, want %v", p, lenient(attached)+idle)
	}

	for _, token := range tokens {
		refused(t, all, token, time.Now())
	}
	head := me.head(others[0])
	for i, f := range all {
		if missing := f.missing(head); len(missing) > 0 {
			t.Errorf("resource server %d was never told the entries %v of %d", i, missing, head)
		}
		f.awaitAccepted(t, fmt.Sprint("resource server ", i), admin)
	}
}

// awaitAccepted waits until a good token is accepted; it is never called bad.
func (f *follower) awaitAccepted(t *testing.T, name string, token *issued) {
	t.Helper()
	await(t, name+" to accept a good token", func() bool {
		_, err := f.Verify(t.Context(), token.compact)
		if err != nil && !errors.Is(err, verify.ErrStale) && !errors.Is(err, verify.ErrKeysUnavailable) {
			t.Fatalf("%s refuses a good token: %v", name, err)
		}
		return err == nil
	})
}

// roundTrips is what a request that has to do nothing takes, when all resource servers
// make one at once.
func (w *world) roundTrips(all []*follower) []time.Duration {
	took := make([]time.Duration, len(all))
	var asking sync.WaitGroup
	for i, f := range all {
		asking.Go(func() {
			began := time.Now()
			res, err := (&http.Client{Transport: f.Transport, Timeout: patience}).Get(w.balancer.URL + "/livez")
			if err != nil {
				w.t.Error(err)
				return
			}
			res.Body.Close()
			took[i] = time.Since(began)
		})
	}
	asking.Wait()
	return took
}

// balanceDirectly has the load balancer reach the replicas without the links, which
// accept a connection for a replica that is dead.
func (w *world) balanceDirectly() {
	w.t.Helper()
	var addrs []string
	for _, r := range w.replicas {
		addrs = append(addrs, r.addr)
	}
	w.balancer = testenv.HAProxy(w.t, addrs...)
}

// A follower is a resource server, what it has read of the feed, and which replica it
// follows.
type follower struct {
	*verify.Verifier
	*http.Transport

	mu   sync.Mutex
	at   string // as the load balancer names it
	told map[int64]bool
}

// follow starts the resource servers and waits until each knows its keys and the
// feed.
func (w *world) follow(token *issued, followers int) []*follower {
	w.t.Helper()
	var all []*follower
	for range followers {
		f := &follower{Transport: &http.Transport{}, told: map[int64]bool{}}
		var err error
		if f.Verifier, err = verify.New(verify.Config{
			Issuer: issuer, KeySetURL: w.balancer.URL + "/.well-known/jwks.json", RevocationsURL: w.balancer.URL + "/api/revocations",
			HTTPClient: &http.Client{Transport: f}, Logger: slog.New(slog.DiscardHandler),
		}); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(f.Close)
		all = append(all, f)
	}
	for _, f := range all {
		f.awaitAccepted(w.t, "a resource server", token)
		await(w.t, "a resource server to follow a stream", func() bool { return f.replica() != "" })
	}
	return all
}

// RoundTrip writes down what is answered about revocations.
func (f *follower) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := f.Transport.RoundTrip(r)
	if err != nil || !strings.HasSuffix(r.URL.Path, "/api/revocations") {
		return res, err
	}
	if r.Header.Get("Accept") == "text/event-stream" && res.StatusCode == http.StatusOK {
		f.mu.Lock()
		f.at = res.Header.Get("X-Served-By")
		f.mu.Unlock()
	}
	res.Body = &told{ReadCloser: res.Body, f: f}
	return res, nil
}

// told is an answer of the feed while it is read.
type told struct {
	io.ReadCloser
	f    *follower
	text []byte // what may still be part of an entry
}

var seqs = regexp.MustCompile(`"seq":(\d+)[,}]`)

func (b *told) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.text = append(b.text, p[:n]...)
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	for m := seqs.FindSubmatchIndex(b.text); m != nil; m = seqs.FindSubmatchIndex(b.text) {
		seq, _ := strconv.ParseInt(string(b.text[m[2]:m[3]]), 10, 64)
		b.f.told[seq] = true
		b.text = b.text[m[1]:]
	}
	return n, err
}

func (f *follower) replica() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

// missing are the entries up to the head that it has not read.
func (f *follower) missing(head int64) (list []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for seq := int64(1); seq <= head; seq++ {
		if !f.told[seq] {
			list = append(list, seq)
		}
	}
	return list
}

// mostFollowed is the replica that has the most streams.
func (w *world) mostFollowed(all []*follower) *replica {
	count := map[string]int{}
	for _, f := range all {
		count[f.replica()]++
	}
	return slices.MaxFunc(w.replicas, func(a, b *replica) int { return count[a.name] - count[b.name] })
}

// reattach returns how long after a kill began each resource server that followed
// the replica knew what was true when it was dead.
func (w *world) reattach(all []*follower, dead *replica, began time.Time) []time.Duration {
	killed := time.Now()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for _, f := range all {
		if f.replica() != dead.name {
			continue
		}
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for !f.Status().Confirmed.After(killed) {
				if <-tick.C; time.Since(killed) > patience {
					w.t.Error("a resource server follows nobody after its replica was killed")
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(began))
		})
	}
	wg.Wait()
	return took
}

// revoke revokes a token at a replica.
func (c *client) revoke(at *replica, admin, token *issued) {
	for deadline := time.Now().Add(patience); ; pause(c.w.t.Context(), 100*time.Millisecond) {
		e, answer, _ := c.ask("revoke", at, http.MethodPost, "/api/revocations", admin.compact, map[string]string{"token": token.compact}, nil)
		if e.own503() && time.Now().Before(deadline) {
			continue // the database was too slow
		}
		if e.status != 200 {
			c.w.t.Errorf("%s\n%s", e, answer)
		}
		return
	}
}

// head is the last entry of the log.
func (c *client) head(at *replica) int64 {
	c.w.t.Helper()
	var page struct {
		Head int64 `json:"head"`
	}
	_, answer, _ := c.ask("feed", at, http.MethodGet, "/api/revocations", "", nil, nil)
	if err := json.Unmarshal(answer, &page); err != nil || page.Head == 0 {
		c.w.t.Fatalf("%v in %s", err, answer)
	}
	return page.Head
}

// refused is how long after a moment each resource server refused the token.
func refused(t *testing.T, all []*follower, token *issued, since time.Time) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(all))
	var wg sync.WaitGroup
	for i, f := range all {
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				asked := time.Since(since)
				_, err := f.Verify(t.Context(), token.compact)
				took[i] = time.Since(since)
				if errors.Is(err, verify.ErrRevoked) {
					return
				}
				// A server that has read nothing for too long says so.
				late := err == nil && asked > verify.DefaultMaxStaleness || asked > patience
				if late || err != nil && !errors.Is(err, verify.ErrStale) {
					t.Errorf("resource server %d, %v after a token was revoked: %v", i, asked, err)
					return
				}
				<-tick.C
			}
		})
	}
	wg.Wait()
	return took
}

// share is the duration that a share of all does not exceed.
func share(took []time.Duration, of float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	took = slices.Sorted(slices.Values(took))
	return took[int(of*float64(len(took)-1))].Round(100 * time.Microsecond)
}

func spread(took []time.Duration) string {
	return "p50 " + share(took, .5).String() + ", p99 " + share(took, .99).String() + ", max " + share(took, 1).String()
}
