package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// limits are those of a replica, with rates that no test uses up.
func limits(s state.Store, now func() time.Time) *limit.Limiter {
	rate := state.Rate{Burst: 100_000, Period: time.Hour}
	return limittest.New(limit.Config{
		State: s, Now: now,
		Rules: limit.Rules{
			Policies: map[limit.Class]limit.Policy{limit.Login: {PerAddress: rate, PerAccount: rate}},
			Lockout:  limit.Lockout{After: 5, AfterAll: 10_000, Delay: time.Hour, Max: time.Hour},
			Spray:    limit.Spray{After: 10_000, Total: rate},
		},
	})
}

// guess presents a password as login does.
func (w *world) guess(address, username, plain string) (store.User, error) {
	ctx := w.t.Context()
	attempt, err := w.Limits.Attempt(ctx, limit.Login, address, limit.Account(username))
	if err != nil {
		return store.User{}, err
	}
	u, err := w.Service.Authenticate(ctx, attempt, username, plain)
	if err == nil {
		err = attempt.Succeeded(ctx)
	}
	return u, err
}

// lock has an account locked for an address.
func (w *world) lock(address, username string) {
	w.t.Helper()
	for range 5 {
		if _, err := w.guess(address, username, "wrong password"); !errors.Is(err, ErrInvalidCredentials) {
			w.t.Fatal(err)
		}
	}
}

// refusedUsers makes users and names whose logins are refused. Each is presented with a
// password and from an address of its own.
func (w *world) refusedUsers() map[string]struct{ name, plain string } {
	w.t.Helper()
	w.user("known")
	w.user("locked")
	if _, err := w.CreateUser(w.t.Context(), System(), NewUser{Username: "disabled", Password: secret, Disabled: true}); err != nil {
		w.t.Fatal(err)
	}
	return map[string]struct{ name, plain string }{
		"wrong": {"known", "wrong password"}, "unknown": {"unknown", secret}, "no name": {"two words", secret}, "disabled": {"disabled", secret},
		"locked, wrong": {"locked", "wrong password"}, "locked, right": {"locked", secret}, "locked, unknown": {"unknown too", secret},
	}
}

// recording notes what is asked of a state. A write is one, whichever it is.
type recording struct {
	state.Store
	calls []string
}

func (s *recording) Get(ctx context.Context, key state.Key) (state.Record, error) {
	s.calls = append(s.calls, "get")
	return s.Store.Get(ctx, key)
}

func (s *recording) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	s.calls = append(s.calls, "write")
	return s.Store.Put(ctx, key, value, ttl)
}

func (s *recording) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	s.calls = append(s.calls, "write")
	return s.Store.Create(ctx, key, value, ttl)
}

func (s *recording) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	s.calls = append(s.calls, "write")
	return s.Store.Swap(ctx, key, version, value, ttl)
}

func (s *recording) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	s.calls = append(s.calls, "limit")
	return s.Store.Limit(ctx, key, rate)
}

// hashes counts the hashes that are computed.
type hashes struct {
	Hasher
	n int
}

func (h *hashes) Verify(ctx context.Context, prepared, hash string) (bool, error) {
	h.n++
	return h.Hasher.Verify(ctx, prepared, hash)
}

// Why a login is refused shows neither in the answer nor in what it costs: one hash, and the
// same statements.
func TestRefusalsCostTheSame(t *testing.T) {
	w := newWorld(t)
	users := w.refusedUsers()
	counting := &hashes{Hasher: w.Hasher}
	w.Hasher = counting
	calls := &recording{Store: memstate.New(time.Now)}
	w.Limits = limits(calls, time.Now)
	for _, from := range []string{"a stranger", "an address that is known"} {
		var want []string
		for _, why := range []string{"wrong", "unknown", "no name", "disabled", "locked, wrong", "locked, right", "locked, unknown"} {
			u := users[why]
			address := "192.0.2.1"
			if from != "a stranger" {
				address = "192.0.2.2"
				known := fmt.Appendf(nil, `{"known":%d}`, time.Now().Add(time.Hour).Unix())
				for _, owner := range []string{limit.Account(u.name), "addresses"} {
					if _, err := calls.Put(t.Context(), state.Key{Kind: "attempts", Owner: owner, ID: limit.Block(address)}, known, time.Hour); err != nil {
						t.Fatal(err)
					}
				}
			}
			if strings.HasPrefix(why, "locked") {
				w.lock(address, u.name)
			}
			calls.calls, counting.n = nil, 0
			_, err := w.guess(address, u.name, u.plain)
			if err == nil || err.Error() != ErrInvalidCredentials.Error() {
				t.Errorf("%s, %s: %v", from, why, err)
			}
			if want == nil {
				want = calls.calls
				t.Logf("%s: %q", from, want)
			}
			if !slices.Equal(calls.calls, want) || counting.n != 1 {
				t.Errorf("%s, %s: %d hashes, %q", from, why, counting.n, calls.calls)
			}
		}
	}
}

// The same, measured over a real database.
func TestALockedAccountTakesTheSameTime(t *testing.T) {
	url := testenv.Postgres(t)
	w := replica(t, url)
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, MaxConnections: 4, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	w.Limits = limits(sqlstate.New(db, time.Now), time.Now)
	w.Hasher = hasher(t, password.Config{Memory: 1 << 10, Iterations: 8, Parallelism: 1, Workers: 1})
	users := w.refusedUsers()
	w.lock("192.0.2.1", "locked")
	w.lock("192.0.2.1", "unknown too")
	kinds := []string{"wrong", "unknown", "no name", "disabled", "locked, wrong", "locked, right", "locked, unknown"}
	// The fastest of each, as in TestRefusalsTakeTheSameTime.
	fastest := map[string]time.Duration{}
	differs := func(kind string) bool {
		return fastest[kind] < fastest["wrong"]/2 || fastest[kind] > fastest["wrong"]*2
	}
	for round := 0; round < 5 || round < 100 && slices.ContainsFunc(kinds, differs); round++ {
		for _, kind := range kinds {
			address := "192.0.2.1"
			if !strings.HasPrefix(kind, "locked") { // not from one address, since they would be locked, too
				address = fmt.Sprintf("10.1.%d.%d", round/200, round%200)
			}
			start := time.Now()
			if _, err := w.guess(address, users[kind].name, users[kind].plain); !errors.Is(err, ErrInvalidCredentials) {
				t.Fatalf("%s: %v", kind, err)
			}
			if took := time.Since(start); round == 0 || took < fastest[kind] {
				fastest[kind] = took
			}
		}
	}
	for _, kind := range kinds {
		t.Logf("summary: lockout: a refused login over PostgreSQL, %s: %v", kind, fastest[kind])
		if differs(kind) {
			t.Errorf("%s: %v, a wrong password: %v", kind, fastest[kind], fastest["wrong"])
		}
	}
}

// The right password among simultaneous guesses is not given away by the hash that is made of
// it at today's cost, nor by anything else, once the account is locked.
func TestALockedAccountIsNotHashedAnew(t *testing.T) {
	w := newWorld(t)
	ester := w.user("ester")
	w.Limits = limits(memstate.New(time.Now), time.Now)
	w.lock("192.0.2.1", "ester")
	before := w.stored(ester)
	w.Hasher = hasher(t, password.Config{Memory: 128, Iterations: 1, Parallelism: 1})
	if _, err := w.guess("192.0.2.1", "ESTER", secret); !errors.Is(err, ErrInvalidCredentials) {
		t.Error(err)
	}
	if w.stored(ester) != before {
		t.Error("the right password of a locked account has changed something")
	}
	if _, err := w.guess("192.0.2.2", "ester", secret); err != nil || w.stored(ester) == before {
		t.Errorf("from another address: %v", err)
	}
}

// What is refused because too many come at once is not counted, for no password.
func TestAFullQueueCountsNothing(t *testing.T) {
	w := newWorld(t)
	w.user("ester")
	w.Limits = limits(memstate.New(time.Now), time.Now)
	real := w.Hasher
	w.Hasher = full{real}
	for i := range 20 {
		_, err := w.guess("192.0.2.1", "ester", []string{secret, "wrong password"}[i%2])
		w.want(err, "login_busy")
	}
	w.Hasher = real
	if _, err := w.guess("192.0.2.1", "ester", secret); err != nil {
		t.Error(err)
	}
}

// The present password that is asked for to change it is guessed no faster than at a login.
func TestChangingThePasswordCounts(t *testing.T) {
	w := newWorld(t)
	ester := w.user("ester")
	w.Limits = limits(memstate.New(time.Now), time.Now)
	actor := as(ester)
	change := func(current string) error {
		_, err := w.ChangeOwnPassword(t.Context(), actor, w.stored(ester).Epoch, current, "another password")
		return err
	}
	for range 5 {
		w.want(change("wrong password"), "invalid_credentials")
	}
	w.want(change(secret), "invalid_credentials")
	if _, err := w.guess("192.0.2.1", "ester", secret); !errors.Is(err, ErrInvalidCredentials) {
		t.Errorf("a login from there: %v", err)
	}
	if _, err := w.guess("192.0.2.2", "ester", secret); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	actor.Address = "192.0.2.2"
	if err := change(secret); err != nil {
		t.Errorf("the change from elsewhere: %v", err)
	}
}

// When the state of the counters fails, neither is said: right or wrong.
func TestAuthenticateWithoutTheState(t *testing.T) {
	w := newWorld(t)
	w.user("ester")
	for _, plain := range []string{secret, "wrong password"} {
		gone := &fading{Store: memstate.New(time.Now)}
		w.Limits = limits(gone, time.Now)
		attempt, err := w.Limits.Attempt(t.Context(), limit.Login, "192.0.2.1", limit.Account("ester"))
		if err != nil {
			t.Fatal(err)
		}
		gone.gone = true
		_, err = w.Service.Authenticate(t.Context(), attempt, "ester", plain)
		w.want(err, "state_unavailable")
	}
}

// fading is a state that does not answer any more.
type fading struct {
	state.Store
	gone bool
}

func (s *fading) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if s.gone {
		return state.Record{}, state.ErrUnavailable
	}
	return s.Store.Get(ctx, key)
}
