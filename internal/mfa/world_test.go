package mfa

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

const (
	secret   = "correct horse battery"
	home     = "192.0.2.1"
	foreign  = "203.0.113.9"
	freshFor = 10 * time.Minute
)

// A clock goes only when a test says so.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// A world is what the replicas of a test share: a database, a state, a clock, counters.
type world struct {
	t     testing.TB
	clock *clock
	store store.Store
	state state.Store
	trail *audit.Trail
	box   *seal.Box
	log   *logbook
}

// A replica is a Service with a directory and limits of its own over a world, and with faults
// where a test wants them.
type replica struct {
	*Service
	w      *world
	people *directory.Service
	faults *faults
}

// newWorld makes a world with one replica.
func newWorld(t testing.TB) (*world, *replica) {
	t.Helper()
	// In the middle of a step, so that clocks that differ by seconds are in the same one.
	w := &world{t: t, clock: &clock{t: time.Unix(1_800_000_015, 0)}, store: sqlstore.New(sqldbtest.Open(t)), log: &logbook{}}
	w.state = memstate.New(w.clock.now)
	var err error
	if w.box, err = seal.New(make([]byte, seal.KeySize)); err != nil {
		t.Fatal(err)
	}
	w.trail, err = audit.New(audit.Config{
		Store: w.store, Now: w.clock.now, Rand: rand.Reader, Logger: w.log.logger(), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, w.replica(limit.Config{})
}

// replica makes one more replica, with limits.
func (w *world) replica(limits limit.Config) *replica {
	w.t.Helper()
	r := &replica{w: w, faults: &faults{}}
	records, values := faultyStore{w.store, r.faults}, faultyState{w.state, r.faults}
	limits.Now, limits.State = w.clock.now, values
	limiter := limittest.New(limits)
	hasher, err := password.New(password.Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 2, Queue: 256, Rand: rand.Reader, Now: w.clock.now})
	if err != nil {
		w.t.Fatal(err)
	}
	log := appendOnly{&revocation.Log{Store: w.store, Now: w.clock.now, Lifetimes: revocation.Lifetimes{Token: time.Hour}}}
	r.people = directory.New(directory.Config{
		Store: records, Hasher: hasher, Audit: w.trail, Revocations: log, Limits: limiter, FreshFor: freshFor,
		Now: w.clock.now, Rand: rand.Reader, Logger: w.log.logger(),
	})
	r.Service = New(Config{
		Store: records, State: values, Box: w.box, People: r.people, Limits: limiter, Audit: w.trail, Issuer: "example.org",
		Now: w.clock.now, Rand: rand.Reader, Logger: w.log.logger(), Registerer: prometheus.NewRegistry(),
	})
	return r
}

// locking has five failures lock an account for an hour.
var locking = limit.Config{Rules: limit.Rules{Lockout: limit.Lockout{After: 5, AfterAll: 50, Delay: time.Hour, Max: time.Hour}}}

type appendOnly struct{ *revocation.Log }

func (appendOnly) Settle(context.Context, int64) error { return nil }

// user makes a user who holds these claims, each short=value.
func (r *replica) user(name string, claims ...string) store.User {
	r.w.t.Helper()
	n := directory.NewUser{Username: name, Password: secret}
	for _, c := range claims {
		short, value, _ := strings.Cut(c, "=")
		if _, err := r.people.CreateClaim(r.w.t.Context(), directory.System(), directory.NewClaim{Name: c, ShortName: short, Value: value}); err != nil && code(err) != "claim_name_taken" {
			r.w.t.Fatal(err)
		}
	}
	if len(claims) > 0 {
		g, err := r.people.CreateGroup(r.w.t.Context(), directory.System(), directory.NewGroup{Name: "of " + name, Claims: claims})
		if err != nil {
			r.w.t.Fatal(err)
		}
		n.Groups = []string{g.ID}
	}
	u, err := r.people.CreateUser(r.w.t.Context(), directory.System(), n)
	if err != nil {
		r.w.t.Fatal(err)
	}
	return u
}

// stored returns a user as of now.
func (w *world) stored(u store.User) store.User {
	w.t.Helper()
	now, err := w.store.User(w.t.Context(), u.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return now
}

// as makes an actor of a user who has just logged in for this API.
func (w *world) as(u store.User) directory.Actor {
	return directory.Actor{ID: u.ID, Address: home, API: true, AuthTime: w.clock.now()}
}

// epoch is that of a token that the user has now.
func (w *world) epoch(u store.User) int64 { return w.stored(u).Epoch }

// begin presents a password and returns what it leads to.
func (r *replica) begin(u store.User, address, audience, device string) (*Challenge, error) {
	ctx := r.w.t.Context()
	attempt, err := r.Limits.Attempt(ctx, limit.Login, address, limit.Account(u.NameKey))
	if err != nil {
		return nil, err
	}
	user, err := r.people.Authenticate(ctx, attempt, u.Username, secret)
	if err != nil {
		return nil, err
	}
	c, _, err := r.Begin(ctx, user, audience, device)
	return c, err
}

// challenged is begin for a user who is challenged, and returns the mfa_token.
func (r *replica) challenged(u store.User) string {
	r.w.t.Helper()
	c, err := r.begin(u, home, "", "")
	if err != nil || c == nil {
		r.w.t.Fatalf("%+v, %v", c, err)
	}
	return c.Token
}

// complete answers a challenge from home.
func (r *replica) complete(token string, a Answer) (Done, error) {
	return r.Complete(r.w.t.Context(), token, a, home)
}

// An app is a user's authenticator app.
type app struct {
	w      *world
	secret string
}

// at returns the code of the step that lies so many steps ahead of now.
func (a *app) at(steps int) Answer {
	return Answer{Method: TOTP, Code: mfatest.Code(a.w.t, a.secret, a.w.clock.now().Add(time.Duration(steps)*mfatest.Step))}
}

// next waits for the next step and returns its code.
func (a *app) next() Answer {
	a.w.clock.pass(mfatest.Step)
	return a.at(0)
}

// wrong returns codes that are none of the app's.
func (a *app) wrong(n int) []Answer {
	var all []Answer
	for i := 0; len(all) < n; i++ {
		one := Answer{Method: TOTP, Code: fmt.Sprintf("%06d", i)}
		if !slices.ContainsFunc([]int{-2, -1, 0, 1, 2}, func(d int) bool { return a.at(d).Code == one.Code }) {
			all = append(all, one)
		}
	}
	return all
}

// enrolled has a user enrol an app. The step of now is spent.
func (r *replica) enrolled(u store.User) *app {
	r.w.t.Helper()
	e, err := r.BeginTOTP(r.w.t.Context(), r.w.as(u))
	if err != nil {
		r.w.t.Fatal(err)
	}
	a := &app{r.w, e.Secret}
	if _, _, err := r.ConfirmTOTP(r.w.t.Context(), r.w.as(u), r.w.epoch(u), a.at(0).Code); err != nil {
		r.w.t.Fatal(err)
	}
	return a
}

// backupCodes gives a user ten of them.
func (r *replica) backupCodes(u store.User) []Answer {
	r.w.t.Helper()
	codes, err := r.BeginBackupCodes(r.w.t.Context(), r.w.as(u))
	if err != nil {
		r.w.t.Fatal(err)
	}
	if n, err := r.ConfirmBackupCodes(r.w.t.Context(), r.w.as(u), r.w.epoch(u), codes[0]); err != nil || n != len(codes) {
		r.w.t.Fatalf("%d codes, %v", n, err)
	}
	return answers(codes)
}

func answers(codes []string) []Answer {
	all := make([]Answer, len(codes))
	for i, c := range codes {
		all[i] = Answer{Method: BackupCode, Code: c}
	}
	return all
}

// want checks the code of an error.
func (w *world) want(what string, err error, want string) {
	w.t.Helper()
	if got := code(err); got != want {
		w.t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// code returns the code of a problem, "" of nil, or the text of any other error.
func code(err error) string {
	var p *problem.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &p):
		return p.Code
	}
	return err.Error()
}

// together calls f so many times at once, and returns how often each code came of it.
func together(n int, f func(i int) error) map[string]int {
	var mu sync.Mutex
	counts := map[string]int{}
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			err := f(i)
			mu.Lock()
			defer mu.Unlock()
			counts[code(err)]++
		})
	}
	close(start)
	all.Wait()
	return counts
}

// wantOnce checks that exactly one call has succeeded, and that the others got one of these codes.
func (w *world) wantOnce(what string, counts map[string]int, codes ...string) {
	w.t.Helper()
	w.wantAtMost(what, counts, codes...)
	if counts[""] != 1 {
		w.t.Errorf("%s: %d succeed: %v", what, counts[""], counts)
	}
}

// wantAtMost checks that no more than one call has succeeded.
func (w *world) wantAtMost(what string, counts map[string]int, codes ...string) {
	w.t.Helper()
	if counts[""] > 1 {
		w.t.Errorf("%s: %d succeed: %v", what, counts[""], counts)
	}
	for got := range counts {
		if got != "" && !slices.Contains(codes, got) {
			w.t.Errorf("%s: %d get %q", what, counts[got], got)
		}
	}
}

// events returns the audit events about a target, oldest first, each as "action outcome detail".
func (w *world) events(target string) []string {
	w.t.Helper()
	page, err := w.store.AuditEvents(w.t.Context(), store.AuditQuery{Target: target, Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for _, e := range slices.Backward(page.Events) {
		all = append(all, e.Action+" "+e.Outcome+" "+e.Detail)
	}
	return all
}

// rows returns the rows of a user's factors of a kind.
func (w *world) rows(u store.User, kind string) []store.Factor {
	w.t.Helper()
	rows, err := w.store.FactorsOfUser(w.t.Context(), u.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.DeleteFunc(rows, func(f store.Factor) bool { return kind != "" && f.Kind != kind })
}

// A logbook keeps what was logged.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// faults decide which operations of a replica's backends fail.
type faults struct {
	mu sync.Mutex
	// choose says of the next operation whether it fails, and whether it has happened all the
	// same; nil: none fails.
	choose func(op string) (fails, happens bool)
}

func (f *faults) set(choose func(op string) (fails, happens bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.choose = choose
}

// at has the operation number n fail, counted from zero. The returned function heals and reports
// whether there was such an operation.
func (f *faults) at(n int, happens bool) (heal func() bool) {
	i := 0
	f.set(func(string) (bool, bool) { i++; return i == n+1, happens })
	return func() bool {
		f.set(nil)
		return i > n
	}
}

func (f *faults) next(op string) (fails, happens bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.choose == nil {
		return false, true
	}
	return f.choose(op)
}

// with runs an operation, unless it fails and does not happen.
func with[T any](f *faults, op string, failure error, run func() (T, error)) (T, error) {
	var none T
	fails, happens := f.next(op)
	if !fails {
		return run()
	}
	if happens {
		if _, err := run(); err != nil {
			return none, err
		}
	}
	return none, failure
}

type faultyState struct {
	state.Store
	f *faults
}

func (s faultyState) Get(ctx context.Context, key state.Key) (state.Record, error) {
	return with(s.f, "get", state.ErrUnavailable, func() (state.Record, error) { return s.Store.Get(ctx, key) })
}

func (s faultyState) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	return with(s.f, "put", state.ErrUnavailable, func() (int64, error) { return s.Store.Put(ctx, key, value, ttl) })
}

func (s faultyState) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	return with(s.f, "create", state.ErrUnavailable, func() (int64, error) { return s.Store.Create(ctx, key, value, ttl) })
}

func (s faultyState) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	return with(s.f, "swap", state.ErrUnavailable, func() (int64, error) { return s.Store.Swap(ctx, key, version, value, ttl) })
}

func (s faultyState) Take(ctx context.Context, key state.Key) (state.Record, error) {
	return with(s.f, "take", state.ErrUnavailable, func() (state.Record, error) { return s.Store.Take(ctx, key) })
}

func (s faultyState) Delete(ctx context.Context, key state.Key) error {
	_, err := with(s.f, "delete", state.ErrUnavailable, func() (struct{}, error) { return struct{}{}, s.Store.Delete(ctx, key) })
	return err
}

type faultyStore struct {
	store.Store
	f *faults
}

func (s faultyStore) User(ctx context.Context, id string) (store.User, error) {
	return with(s.f, "user", store.ErrBusy, func() (store.User, error) { return s.Store.User(ctx, id) })
}

func (s faultyStore) FactorsOfUser(ctx context.Context, userID string) ([]store.Factor, error) {
	return with(s.f, "factors", store.ErrBusy, func() ([]store.Factor, error) { return s.Store.FactorsOfUser(ctx, userID) })
}

func (s faultyStore) FactorByDigest(ctx context.Context, kind, digest string) (store.Factor, error) {
	return with(s.f, "factor", store.ErrBusy, func() (store.Factor, error) { return s.Store.FactorByDigest(ctx, kind, digest) })
}

func (s faultyStore) Update(ctx context.Context, f func(store.Records) error) error {
	_, err := with(s.f, "update", store.ErrBusy, func() (struct{}, error) { return struct{}{}, s.Store.Update(ctx, f) })
	return err
}
