package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An Operation is a kind of request.
type Operation string

// The operations.
const (
	Login  Operation = "login"
	Renew  Operation = "renew"
	Verify Operation = "verify"
	Revoke Operation = "revoke" // a logout, which revokes all tokens of its session
)

// Operations are all of them, in the order of reports.
var Operations = []Operation{Login, Renew, Verify, Revoke}

// A Mix is how many of all requests an operation has, by weight. What is revoked has to have
// begun: while there is no session that can be ended, a revocation is a login instead, and
// while users have as many sessions as they may, a login is a revocation.
type Mix map[Operation]int

// A User logs in by a password, without a second factor.
type User struct{ Username, Password string }

// A Limit is a rate that the service holds to: N requests at once, and as many more within
// each Window, of a class ("login", "renew", "api") and by account or by address.
type Limit struct {
	Name   string // as in RateLimit-Policy, such as login-account
	N      int
	Window time.Duration
}

// Config is a run.
type Config struct {
	URLs  []string // of replicas, or of what stands before them; asked in turns
	Users []User
	Mix   Mix
	// Rate is requests a second in the open loop; 0: closed loop.
	Rate float64
	// Callers is how many requests are under way at once: all the time in the closed loop,
	// and at most in the open one, where others wait and their latency counts.
	Callers int
	// Sessions is how many begin before the load does.
	Sessions int
	// Warmup is load that is judged and not measured.
	Warmup, Duration time.Duration
	// Timeout is how long an answer may take.
	Timeout time.Duration
	// Bound is how long after its revocation a token may be accepted.
	Bound time.Duration
	// Limits are what the service should hold to, whatever its answers say of limits.
	Limits []Limit
	// ProbeLimits has one user log in more often than allowed, at all URLs at once, after
	// the load.
	ProbeLimits bool
	// Client sends requests; see NewClient.
	Client *http.Client
	// Seed chooses the operations, sessions and users.
	Seed uint64
	// Progress is called about every second; nil: it is not.
	Progress func(Progress)
	Version  string // of the program, for the report
}

// Progress is what a run says of itself while it goes on.
type Progress struct {
	Elapsed, Total time.Duration
	PerSecond      float64 // requests that were answered as wanted in the last interval
	P99            time.Duration
	Failed         int64 // since the beginning: refused, failed, and without an answer
	Violations     int64
}

const (
	// maxSessions is how many sessions of one user live at once, by this package: fewer than
	// sessions.max_per_user, beyond which the service ends the oldest one.
	maxSessions = 50
	// probeRequests bounds the logins of a probe of limits.
	probeRequests = 1000
	// refusedPause is how long a caller of the closed loop waits after a refusal and where
	// nothing answers, so that they do nothing worse than to ask again.
	refusedPause = 10 * time.Millisecond
	// maxIntervals bounds the intervals of a timeline.
	maxIntervals = 120
)

// Run puts load on the service until the time is over or ctx ends. The error means that it
// could not begin; what went wrong meanwhile is in the report.
func Run(ctx context.Context, c Config) (*Report, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	r := &run{Config: c, judge: newJudge(c.Limits), caller: caller{client: c.Client, timeout: c.Timeout}}
	r.caller.judge = r.judge
	r.pool = newPool(c.Users)
	r.watch = newWatch(r)
	if err := r.beginSessions(ctx); err != nil {
		return nil, err
	}
	r.began = time.Now()
	r.from = r.began.Add(c.Warmup)
	r.end = r.from.Add(c.Duration)
	r.measured = newMeasurements(r.from, c.Duration, c.Rate > 0)

	load, stop := context.WithCancel(ctx)
	defer stop()
	var aside sync.WaitGroup
	aside.Go(func() { r.watch.follow(load) })
	aside.Go(func() { r.forge(load) })
	aside.Go(func() { r.tellProgress(load) })
	var callers sync.WaitGroup
	for i := range c.Callers {
		w := &worker{random: rand.New(rand.NewPCG(c.Seed, uint64(i))), url: i}
		callers.Go(func() { r.work(load, w) })
	}
	callers.Wait()
	ended := time.Now()
	stop()
	aside.Wait()
	if c.ProbeLimits && ctx.Err() == nil {
		r.probeLimits(ctx)
	}
	r.watch.finish(ctx)
	r.endSessions(context.WithoutCancel(ctx))
	return r.report(ended, ctx.Err() != nil), nil
}

func (c *Config) check() error {
	switch {
	case len(c.URLs) == 0:
		return errors.New("there is no URL to ask")
	case len(c.Users) == 0:
		return errors.New("there is no user to log in")
	case c.Callers < 1 || c.Duration <= 0 || c.Timeout <= 0 || c.Bound <= 0 || c.Warmup < 0 || c.Rate < 0 || c.Sessions < 0:
		return errors.New("callers, duration, timeout and bound have to be more than nothing")
	}
	total := 0
	for op, weight := range c.Mix {
		if !slices.Contains(Operations, op) || weight < 0 {
			return fmt.Errorf("%q with the weight %d is no operation", op, weight)
		}
		total += weight
	}
	if total == 0 {
		return errors.New("the mix has no operation")
	}
	return nil
}

// A run is one run.
type run struct {
	Config
	caller   caller
	judge    *judge
	pool     *pool
	watch    *watch
	measured *measurements

	began, from, end time.Time    // of the load, of what is measured, of both
	next             atomic.Int64 // the next request of the open loop
}

// A worker is one caller.
type worker struct {
	random *rand.Rand
	url    int
}

// work makes requests until the time is over.
func (r *run) work(ctx context.Context, w *worker) {
	for ctx.Err() == nil {
		if r.Rate == 0 {
			now := time.Now()
			if !now.Before(r.end) {
				return
			}
			if o := r.step(ctx, w, r.pick(w.random), now); o.noAnswer || o.refused {
				sleepUntil(ctx, time.Now().Add(refusedPause))
			}
			continue
		}
		due := r.began.Add(time.Duration(float64(r.next.Add(1)-1) / r.Rate * float64(time.Second)))
		if !due.Before(r.end) || !sleepUntil(ctx, due) {
			return
		}
		op := r.pick(w.random)
		// What is so late when all is over is not sent any more. It has waited all the same.
		if now := time.Now(); now.After(r.end.Add(r.Timeout)) {
			r.measured.record(op, due, now, now, outcome{noAnswer: true, failure: "not sent: the service is behind"})
			continue
		}
		r.step(ctx, w, op, due)
	}
}

func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (r *run) pick(random *rand.Rand) Operation {
	total := 0
	for _, op := range Operations {
		total += r.Mix[op]
	}
	n := random.IntN(total)
	for _, op := range Operations {
		if n -= r.Mix[op]; n < 0 {
			return op
		}
	}
	panic("unreachable")
}

// step makes one request. What there is no session for is a login, and a login for which
// there is no room is a revocation.
func (r *run) step(ctx context.Context, w *worker, op Operation, due time.Time) (o outcome) {
	w.url = (w.url + 1) % len(r.URLs)
	url := r.URLs[w.url]
	var s *session
	user, room := -1, false
	if op != Login {
		var alone bool
		if s, alone = r.pool.take(w.random, op != Verify); alone && op == Verify {
			op = Renew // its token is about to expire
		}
	}
	if s == nil {
		op = Login
		if user, room = r.pool.reserve(w.random); !room {
			if s, _ = r.pool.take(w.random, true); s == nil { // all of them are in other hands
				return outcome{refused: true}
			}
			op = Revoke
		}
	}
	sent := time.Now()
	switch op {
	case Login:
		o = r.login(ctx, url, user)
	case Renew:
		o = r.caller.renew(ctx, url, s)
		r.pool.put(s)
	case Verify:
		o = r.caller.verify(ctx, url, s.current(), r.Bound)
	case Revoke:
		o = r.revoke(ctx, url, s)
	}
	if ctx.Err() == nil || !o.noAnswer { // else the end of the run ended it
		r.measured.record(op, due, sent, time.Now(), o)
	}
	return o
}

// login begins a session of a user for whom the pool has reserved room.
func (r *run) login(ctx context.Context, url string, user int) outcome {
	s, o := r.caller.login(ctx, url, user, r.Users[user])
	if s == nil {
		r.release(user, o)
		return o
	}
	r.pool.put(s)
	return o
}

// revoke ends a session that was taken from the pool.
func (r *run) revoke(ctx context.Context, url string, s *session) outcome {
	o := r.caller.logout(ctx, url, s)
	r.release(s.user, o)
	if s.revokedAt() != (time.Time{}) {
		r.watch.revoked(s)
	}
	return o
}

// release gives the room of a session back, unless it may live: the service ends the oldest
// session of a user who has too many, and that one would be thought to live.
func (r *run) release(user int, o outcome) {
	if !o.unsure {
		r.pool.release(user)
	}
}

// beginSessions begins the sessions that there are before the load. One is enough to begin.
func (r *run) beginSessions(ctx context.Context) error {
	// The first one alone, so that what is wrong with all is said once and at once.
	n := max(1, min(r.Sessions, maxSessions*len(r.Users)))
	var last outcome
	var begun, next atomic.Int64
	var mu sync.Mutex
	begin := func() bool {
		i := int(next.Add(1)) - 1
		if i >= n || ctx.Err() != nil {
			return false
		}
		user := i % len(r.Users)
		if !r.pool.reserveFor(user) {
			return true
		}
		o := r.login(ctx, r.URLs[i%len(r.URLs)], user)
		mu.Lock()
		defer mu.Unlock()
		if o.failure == "" {
			begun.Add(1)
		} else {
			last = o
		}
		return !o.refused // others would be refused as well
	}
	begin()
	if begun.Load() == 0 {
		return fmt.Errorf("no session could begin at %s: %s%s", r.URLs[0], last.failure, r.judge.firstExample())
	}
	var beginning sync.WaitGroup
	for range min(8, r.Callers) {
		beginning.Go(func() {
			for begin() {
			}
		})
	}
	beginning.Wait()
	return ctx.Err()
}

// endSessions logs out what is left, without judging it: the load is over.
func (r *run) endSessions(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*r.Timeout)
	defer cancel()
	random, mu := rand.New(rand.NewPCG(r.Seed, 2<<32)), sync.Mutex{}
	var ending sync.WaitGroup
	for i := range min(8, r.Callers) {
		ending.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				s, _ := r.pool.take(random, true)
				mu.Unlock()
				if s == nil {
					return
				}
				r.caller.end(ctx, r.URLs[i%len(r.URLs)], s)
			}
		})
	}
	ending.Wait()
}

// forge asks every second about a good token whose signature was changed.
func (r *run) forge(ctx context.Context) {
	random := rand.New(rand.NewPCG(r.Seed, 1<<32))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		if s, alone := r.pool.take(random, false); s != nil {
			r.caller.forged(ctx, r.URLs[n%len(r.URLs)], s.current())
			if alone {
				r.pool.put(s)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *run) tellProgress(ctx context.Context) {
	if r.Progress == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := r.began
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p := r.measured.since(now.Sub(last))
			p.Elapsed, p.Total = now.Sub(r.began), r.Warmup+r.Duration
			p.Violations = r.judge.total()
			last = now
			r.Progress(p)
		}
	}
}

// probeLimits has the first user log in more often than an account may, at all URLs at once.
// The judge counts, as always.
func (r *run) probeLimits(ctx context.Context) {
	most := r.judge.limitOf("login-account")
	if most == 0 {
		r.judge.note(WrongAnswer, "the probe of limits: answers to logins name no limit for an account (login-account in RateLimit-Policy)")
		return
	}
	n := min(most+20, probeRequests)
	var next atomic.Int64
	var probing sync.WaitGroup
	for range max(8, len(r.URLs)) {
		probing.Go(func() {
			for i := next.Add(1); i <= int64(n) && ctx.Err() == nil; i = next.Add(1) {
				url := r.URLs[int(i)%len(r.URLs)]
				if s, _ := r.caller.login(ctx, url, 0, r.Users[0]); s != nil {
					r.caller.end(context.WithoutCancel(ctx), url, s)
				}
			}
		})
	}
	probing.Wait()
}
