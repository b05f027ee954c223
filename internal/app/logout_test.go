package app

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A flow is logouts on some replicas while others are asked about the tokens, and
// what came of it.
type flow struct {
	t        *testing.T
	bound    time.Duration // after a logout's answer, no request that begins later may be accepted
	replicas []*world

	asking sync.WaitGroup
	mu     sync.Mutex
	urls   []string        // of the replicas
	last   []time.Duration // of each logout and replica: from the answer until the last request began that was accepted; 0: none
	late   int
}

const (
	flowPoll  = 500 * time.Millisecond
	flowBound = 2 * time.Second
)

// flowConfig has a short bound.
func flowConfig(cfg *config.Config) {
	cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = flowPoll, flowBound
}

func newFlow(t *testing.T, replicas ...*world) *flow {
	f := &flow{t: t, bound: flowBound, replicas: replicas, urls: make([]string, len(replicas))}
	for i := range replicas {
		f.moved(i)
	}
	return f
}

// moved notes the address of a replica, which changes when it starts again.
func (f *flow) moved(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.urls[i] = f.replicas[i].http.URL
}

func (f *flow) url(i int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.urls[i]
}

// logout logs somebody in and out at a replica and has every replica asked about the
// token until the bound is well over. between is called after the answer.
func (f *flow) logout(at int, between func()) {
	f.t.Helper()
	w := f.replicas[at]
	var g httpapi.Grant
	w.await("somebody logs in", func() bool {
		a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
		if a.status == 200 {
			g = decode[httpapi.Grant](f.t, a)
		}
		return a.status == 200
	})
	w.await("somebody logs out", func() bool { // 503 says to try again
		a := w.do("POST", "/api/logout", g.AccessToken, nil)
		return a.status == 204 || a.code() == "token_revoked"
	})
	answered := time.Now()
	for i := range f.replicas {
		f.asking.Go(func() { f.ask(i, g.AccessToken, answered) })
	}
	if between != nil {
		between()
	}
}

// ask asks a replica about a token until the bound is well over, and notes when it
// last accepted it.
func (f *flow) ask(i int, token string, answered time.Time) {
	accepted, wait := time.Duration(0), 2*time.Millisecond
	for began := time.Now(); began.Sub(answered) < f.bound*3/2; began = time.Now() {
		status, err := verifyAt(f.t.Context(), f.url(i), token)
		switch {
		case err != nil: // it is starting again
		case status == http.StatusOK:
			accepted, wait = began.Sub(answered), 2*time.Millisecond
		default:
			wait = 50 * time.Millisecond
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
}

func verifyAt(ctx context.Context, url, token string) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/verify", nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err // it is starting again
	}
	return answer.StatusCode, answer.Body.Close()
}

// report waits for the questions under way and prints what was measured.
func (f *flow) report(name string) {
	f.t.Helper()
	f.asking.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.last)
	at := func(share float64) time.Duration {
		return f.last[int(share*float64(len(f.last)-1))].Round(time.Millisecond)
	}
	f.t.Logf("%-28s %3d logouts × %d replicas: last accepted p50 %v, p99 %v, max %v after the answer; %d late",
		name, len(f.last)/len(f.replicas), len(f.replicas), at(.5), at(.99), at(1), f.late)
	f.last, f.late = nil, 0
}

// A logout on one replica is refused by all within the bound, whatever breaks.
func TestLogoutOverReplicas(t *testing.T) {
	for name, tt := range map[string]struct {
		database func(testing.TB, ...string) *testenv.Server
		redis    bool
	}{
		"postgres":           {testenv.StartPostgres, false},
		"postgres and redis": {testenv.StartPostgres, true},
		"mariadb":            {testenv.StartMariaDB, false},
	} {
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
			way, throughIt := linkTo(t, database.URL)
			a := join(t, database.URL, shared)
			b := joinAt(t, database.URL, func() time.Time { return time.Now().Add(5 * time.Second) }, shared)
			c := join(t, throughIt, shared)
			f := newFlow(t, a, b, c)
			const others, rounds = 2, 4 // the last replica is the one that suffers

			f.run("all is well, a clock 5 s off", rounds, others+1, nil, nil)
			f.run("a replica starts again", 2, others, nil, func() { c.restart(); f.moved(2) })
			f.run("cut off from the database", rounds, others, func() { way.Set(testenv.Fault{Cut: true}) }, nil)
			way.Set(testenv.Fault{})
			f.run("no answer of the database", rounds, others, func() { way.Set(testenv.Fault{HoldUp: true, HoldDown: true}) }, nil)
			way.Set(testenv.Fault{})
			f.run("the database starts again", 2, others, nil, func() { database.Stop(); database.Start(t) })
			if redis != nil {
				f.run("redis is flushed", rounds, others+1, func() { flush(t, redis.URL) }, func() { flush(t, redis.URL) })
				f.run("redis is killed", rounds, others+1, redis.Stop, nil)
				redis.Start(t)
			}
			f.recovered()
		})
	}
}

// The primary dies and the standby takes over; no logout is forgotten.
func TestLogoutOverFailover(t *testing.T) {
	t.Parallel()
	pair := testenv.StartPostgresPair(t)
	f := newFlow(t, join(t, pair.URL, flowConfig), join(t, pair.URL, flowConfig))
	f.run("all is well", 2, 2, nil, nil)
	once := sync.OnceFunc(func() { pair.Primary.Stop(); pair.Promote(t) })
	f.run("the database fails over", 4, 2, nil, once)
}

// run has logouts at some of the replicas in turn, with a fault before the first and
// one after each answer.
func (f *flow) run(name string, rounds, at int, before, after func()) {
	f.t.Helper()
	f.recovered()
	if before != nil {
		before()
	}
	for n := range rounds {
		f.logout(n%at, after)
	}
	f.report(name)
}

// recovered waits until every replica accepts a good token of each, so that what is
// refused is refused for its logout.
func (f *flow) recovered() {
	f.t.Helper()
	for _, w := range f.replicas {
		w.await("tokens are accepted", func() bool {
			a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
			if a.status != 200 {
				return false
			}
			token := decode[httpapi.Grant](f.t, a).AccessToken
			for j := range f.replicas {
				if status, _ := verifyAt(f.t.Context(), f.url(j), token); status != 200 {
					return false
				}
			}
			return true
		})
	}
}

// joinAt starts a replica with a clock of its own.
func joinAt(t *testing.T, database string, now func() time.Time, change func(*config.Config)) *world {
	t.Helper()
	cfg := clusterConfig(t, database)
	change(cfg)
	cfg.Complete()
	w := &world{t: t, cfg: cfg, now: now, log: &logBuffer{}}
	w.start()
	t.Cleanup(w.stop)
	return w
}
