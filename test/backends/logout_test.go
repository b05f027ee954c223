package backends

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A flow is logouts on some replicas while all are asked about the tokens, and what
// came of it.
type flow struct {
	t     *testing.T
	bound time.Duration // after a logout's answer, no request that begins later may be accepted

	asking sync.WaitGroup
	mu     sync.Mutex
	at     []*place
	out    []string        // every token whose logout was answered
	last   []time.Duration // of each logout and replica: from the answer until the last request began that was accepted; 0: none
	late   int
}

// A place is where a replica runs, one after the other.
type place struct {
	*replica.World
	url   string // empty: it is starting
	ready time.Time
}

const (
	flowPoll  = 300 * time.Millisecond
	flowBound = 1500 * time.Millisecond
)

// flowConfig has a short bound, and a key that is stored, so that a replica that
// starts need not wait until its own is known.
func flowConfig(cfg *config.Config) {
	cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = flowPoll, flowBound
	kit.StoredKeys(cfg)
}

func newFlow(t *testing.T, replicas ...*replica.World) *flow {
	f := &flow{t: t, bound: flowBound}
	for _, w := range replicas {
		f.joined(w)
	}
	return f
}

// joined has a replica that is ready asked from now on.
func (f *flow) joined(w *replica.World) {
	f.t.Helper()
	f.at = append(f.at, &place{World: w, url: w.URL, ready: time.Now()})
	f.knows(len(f.at) - 1)
}

// restart has another replica take the place of one: it knows nothing but what it
// reads.
func (f *flow) restart(i int) {
	f.t.Helper()
	f.mu.Lock()
	p := f.at[i]
	p.url = ""
	f.mu.Unlock()
	p.World.Restart()
	f.mu.Lock()
	p.url, p.ready = p.URL, time.Now()
	f.mu.Unlock()
	f.knows(i)
}

// knows asks a replica about every token that was ever logged out.
func (f *flow) knows(i int) {
	f.t.Helper()
	w := f.at[i].World
	for _, token := range f.out {
		var a kit.Answer
		w.Await("an answer about a token", func() bool {
			a = w.Do("GET", "/api/verify", token, nil)
			return a.Status != 503
		})
		if a.Status != 401 || a.Code() != "token_revoked" {
			f.t.Errorf("replica %d answers %d %s about a token that was logged out", i, a.Status, a.Code())
		}
	}
}

// place says where a replica is reached, empty while it starts, and since when.
func (f *flow) place(i int) (url string, ready time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at[i].url, f.at[i].ready
}

// logout logs a user in and out at a replica and has every replica asked about the
// token until the bound is over.
func (f *flow) logout(at int) {
	f.t.Helper()
	w := f.at[at]
	var g httpapi.Grant
	w.Await("a login", func() bool {
		a := w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password})
		if a.Status == 200 {
			g = kit.Decode[httpapi.Grant](f.t, a)
		}
		return a.Status == 200
	})
	w.Await("a logout", func() bool { // 503 says to try again
		a := w.Do("POST", "/api/logout", g.AccessToken, nil)
		return a.Status == 204 || a.Code() == "token_revoked"
	})
	answered := time.Now()
	f.out = append(f.out, g.AccessToken)
	for i := range f.at {
		f.asking.Go(func() { f.ask(i, g.AccessToken, answered) })
	}
}

// ask asks a replica about a token until the bound is over, counted from the logout's
// answer and, if it starts again, from when it is ready. It notes when the token was
// last accepted.
func (f *flow) ask(i int, token string, answered time.Time) {
	accepted, answers, wait := time.Duration(0), 0, 2*time.Millisecond
	for {
		began := time.Now()
		url, ready := f.place(i)
		if asked := answers > 0 || began.Sub(answered) > kit.Patience; asked && url != "" && began.Sub(answered) > f.bound*5/4 && began.Sub(ready) > f.bound*5/4 {
			break
		}
		if url != "" {
			status, err := verifyAt(f.t.Context(), url, token)
			if err == nil { // else it has just been stopped
				answers++
			}
			wait = 50 * time.Millisecond
			if status == http.StatusOK {
				accepted, wait = began.Sub(answered), 2*time.Millisecond
			}
		}
		select {
		case <-time.After(wait):
		case <-f.t.Context().Done():
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = append(f.last, accepted)
	if accepted > f.bound {
		f.late++
		f.t.Errorf("replica %d accepted a token %v after its logout was answered", i, accepted)
	}
	if answers == 0 {
		f.t.Errorf("replica %d answered no question about a token", i)
	}
}

func verifyAt(ctx context.Context, url, token string) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/verify", nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}

// report waits for the questions under way and prints what was measured.
func (f *flow) report(name string, logouts int) {
	f.t.Helper()
	f.asking.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.last)
	at := func(share float64) time.Duration {
		return f.last[int(share*float64(len(f.last)-1))].Round(time.Millisecond)
	}
	f.t.Logf("%-28s %3d logouts × %d replicas: last accepted p50 %v, p99 %v, max %v after the answer; %d late",
		name, logouts, len(f.at), at(.5), at(.99), at(1), f.late)
	f.last, f.late = nil, 0
}

// A logout on one replica is refused by all within the bound, whatever breaks; and by
// a replica that starts after it.
func TestLogoutOverReplicas(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		database func(testing.TB, ...string) *testenv.Server
		redis    bool
	}{
		"postgres":           {testenv.StartPostgres, false},
		"postgres and redis": {testenv.StartPostgres, true},
		"mariadb":            {testenv.StartMariaDB, false},
	} {
		if name != "postgres and redis" && !kit.Soak() {
			// A bell without Redis: TestBells. The log on MariaDB: the suite of package
			// store, and the rotations of test/cluster, which log out all the while.
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := tt.database(t)
			var redis *testenv.Server
			shared := func(cfg *config.Config) {
				flowConfig(cfg)
				if redis != nil {
					cfg.Redis.URL = redis.URL
				}
			}
			if tt.redis {
				redis = testenv.StartRedis(t)
			}
			way, throughIt := replica.Link(t, database.URL)
			f := newFlow(t,
				replica.Join(t, database.URL, shared),
				replica.JoinWith(t, database.URL, replica.Options{Now: off(clockOff)}, shared),
				replica.JoinWith(t, throughIt, replica.Options{Now: off(-clockOff)}, shared))
			rounds := 2
			if kit.Soak() {
				rounds = 6
			}
			const starter, last, others, all = 1, 2, 2, 3 // the last one suffers

			onceMore := func() { // at the end of each fault only when there is time
				if kit.Soak() {
					f.restart(starter)
				}
			}

			f.run("clocks off, a replica starts", rounds, all, nil, nil, func() { f.restart(last) })
			if redis != nil || kit.Soak() {
				f.run("cut off from the database", rounds, others, func() { way.Set(testenv.Fault{Cut: true}) }, nil, onceMore)
				way.Set(testenv.Fault{})
			}
			if redis == nil || kit.Soak() {
				f.run("no answer of the database", rounds, others, func() { way.Set(testenv.Fault{HoldUp: true, HoldDown: true}) }, nil, onceMore)
				way.Set(testenv.Fault{})
			}
			f.run("the database starts again", rounds, others, nil, func() { database.Stop(); database.Start(t) }, func() { f.restart(starter) })
			if redis != nil {
				flushed := func() { kit.Flush(t, redis.URL) }
				f.run("redis is flushed", rounds, all, flushed, flushed, onceMore)
				f.run("redis is killed", rounds, all, redis.Stop, nil, func() { f.asking.Wait(); redis.Start(t); f.restart(starter) })
			}
			f.recovered()
		})
	}
}

// clockOff is less than replicas forgive each other: two of them differ by twice that.
const clockOff = operator.Leeway - time.Second

// off is a clock that is off.
func off(by time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(by) }
}

// The primary dies while people log in and out, and the standby takes over. No logout is
// forgotten, also by a replica that has never seen the primary; every session goes on.
func TestLogoutOverFailover(t *testing.T) {
	t.Parallel()
	pair := testenv.StartPostgresPair(t)
	w := replica.Join(t, pair.URL, flowConfig)
	f := newFlow(t, w, replica.Join(t, pair.URL, flowConfig))
	kept := w.Login("admin")
	people := comeAndGo(w, 4)
	defer people.leave()
	people.await(t, 20)
	before := 0
	once := sync.OnceFunc(func() {
		pair.Primary.Stop()
		w.Await("the replica knows", func() bool { return w.Do("GET", "/health", "", nil).Status == 503 })
		pair.Promote(t)
		before = people.ended()
	})
	f.run("the database fails over", 4, 2, nil, once, func() {
		f.asking.Wait()
		people.await(t, 20)
		for _, g := range people.leave() {
			f.out = append(f.out, g.AccessToken)
		}
		f.joined(replica.Join(t, pair.URL, flowConfig))
	})
	f.recovered()
	ended := people.leave()
	for _, g := range ended {
		w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
	}
	for _, p := range f.at {
		p.Accepts(kept.AccessToken)
	}
	w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: kept.RefreshToken}), 200, "")
	t.Logf("%d logouts of people, %d of them before", len(ended), before)
}

// run has logouts at some of the replicas in turn, with a fault before the first and
// one after each answer. Then a replica is begun anew, so that not only those are
// asked that have heard of each logout.
func (f *flow) run(name string, rounds, at int, before, after, anew func()) {
	f.t.Helper()
	f.recovered()
	if before != nil {
		before()
	}
	for n := range rounds {
		f.logout(n % at)
		if after != nil {
			after()
		}
	}
	anew()
	f.report(name, rounds)
}

// recovered waits until every replica accepts a good token of each, so that what is
// refused is refused for its logout, and asks each about all that were logged out.
func (f *flow) recovered() {
	f.t.Helper()
	for _, w := range f.at {
		w.Await("tokens are accepted", func() bool {
			a := w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password})
			if a.Status != 200 {
				return false
			}
			token := kit.Decode[httpapi.Grant](f.t, a).AccessToken
			for _, p := range f.at {
				if status, _ := verifyAt(f.t.Context(), p.url, token); status != 200 {
					return false
				}
			}
			return true
		})
	}
	for i := range f.at {
		f.knows(i)
	}
}
