package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// A server that starts tries again after whatever may be better a little later.
func TestAway(t *testing.T) {
	for err, want := range map[error]bool{
		nil:                                   false,
		fmt.Errorf("keys: %w", sqldb.ErrBusy): true,
		fmt.Errorf("commit: timeout: %w", context.DeadlineExceeded): true,
		errors.New("the password is wrong"):                         false,
		fmt.Errorf("open: %w", keysource.ErrKeeperAway):             true,
	} {
		if got := away(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// A lateStore is a real store of which one call fails as if the database were busy:
// with persisted, the call has been done all the same.
type lateStore struct {
	store.Store
	store.Registry

	mu        sync.Mutex
	calls     map[string]int // by method
	method    string         // fails at its call number at; empty: none does
	at        int
	persisted bool
	failed    bool
}

// fails counts a call and reports whether it is the one that fails.
func (s *lateStore) fails(method string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[method]++
	hit := method == s.method && s.calls[method] == s.at
	s.failed = s.failed || hit
	return hit
}

var errLate = fmt.Errorf("%w: too late", store.ErrBusy)

// late does one call, unless it fails.
func late[T any](s *lateStore, method string, call func() (T, error)) (T, error) {
	var none T
	if !s.fails(method) {
		return call()
	}
	if s.persisted {
		_, _ = call() // the caller does not learn what became of it
	}
	return none, errLate
}

func (s *lateStore) Update(ctx context.Context, f func(r store.Records) error) error {
	_, err := late(s, "Update", func() (struct{}, error) { return struct{}{}, s.Store.Update(ctx, f) })
	return err
}

func (s *lateStore) Setting(ctx context.Context, name string) (string, error) {
	return late(s, "Setting", func() (string, error) { return s.Store.Setting(ctx, name) })
}

func (s *lateStore) Keys(ctx context.Context) ([]store.Key, error) {
	return late(s, "Keys", func() ([]store.Key, error) { return s.Store.Keys(ctx) })
}

func (s *lateStore) Users(ctx context.Context, p store.Page) ([]store.User, error) {
	return late(s, "Users", func() ([]store.User, error) { return s.Store.Users(ctx, p) })
}

func (s *lateStore) AnyoneHolds(ctx context.Context, shortName, value string) (bool, error) {
	return late(s, "AnyoneHolds", func() (bool, error) { return s.Store.AnyoneHolds(ctx, shortName, value) })
}

func (s *lateStore) RegistryVersion(ctx context.Context) (int64, error) {
	return late(s, "RegistryVersion", func() (int64, error) { return s.Registry.RegistryVersion(ctx) })
}

func (s *lateStore) Registered(ctx context.Context) (store.Registered, error) {
	return late(s, "Registered", func() (store.Registered, error) { return s.Registry.Registered(ctx) })
}

func (s *lateStore) EnterRegistry(ctx context.Context, r store.Replica, within time.Duration) (store.Replica, error) {
	return late(s, "EnterRegistry", func() (store.Replica, error) { return s.Registry.EnterRegistry(ctx, r, within) })
}

func (s *lateStore) Beat(ctx context.Context, r store.Replica, news bool) error {
	_, err := late(s, "Beat", func() (struct{}, error) { return struct{}{}, s.Registry.Beat(ctx, r, news) })
	return err
}

// A replica starts though any one call to the store is answered too late, whether or not
// it was done: it waits at the step at which that happened, and makes nothing twice.
func TestEachStepOfAStartMayBeLate(t *testing.T) {
	steps := map[string]bool{}
	begin := func(method string, at int, persisted bool) (calls map[string]int) {
		name := fmt.Sprintf("%s %d, persisted %v", method, at, persisted)
		synctest.Test(t, func(t *testing.T) {
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: sqldbtest.SQLite(t)})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			real := sqlstore.New(db)
			s := &lateStore{Store: real, Registry: real, method: method, at: at, persisted: persisted}
			cfg := testConfig(t)
			cfg.Cluster.Enabled, cfg.Cluster.Secret, cfg.State.Backend = true, rand.Text()+rand.Text(), "memory"
			cfg.Revocation.Poll, cfg.Tokens.KeySetMaxAge = time.Second, time.Second // else most of the work were polling
			cfg.Complete()
			log := &logBuffer{}
			n, err := New(t.Context(), Options{Config: cfg, Logger: slog.New(slog.NewTextHandler(log, nil)), Store: s})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer n.Close()
			synctest.Wait() // what runs beside has called what it calls at first
			s.mu.Lock()
			calls = maps.Clone(s.calls)
			if method != "" && !s.failed {
				t.Errorf("%s: was not called", name)
			}
			s.mu.Unlock()
			for _, step := range regexp.MustCompile(`cannot start yet.* step="([^"]*)"`).FindAllStringSubmatch(log.String(), -1) {
				steps[step[1]] = true
			}
			if err := n.WaitReady(t.Context()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			answer := httptest.NewRecorder()
			n.Handler().ServeHTTP(answer, httptest.NewRequest("POST", "/api/login", strings.NewReader(`{"username":"admin","password":"`+password+`"}`)))
			if answer.Code != 200 {
				t.Errorf("%s: the login answers %d %s", name, answer.Code, answer.Body)
			}
			users, err := real.Users(t.Context(), store.Page{Limit: 10})
			if err != nil || len(users) != 1 {
				t.Errorf("%s: %d users, %v", name, len(users), err)
			}
			all, err := real.Registered(t.Context())
			if err != nil || len(all.Replicas) != 1 {
				t.Errorf("%s: %d replicas, %v", name, len(all.Replicas), err)
			}
		})
		return calls
	}
	sqldbtest.SQLite(t) // whose schema is made outside of any bubble
	calls := begin("", 0, false)
	t.Logf("a start calls the store so often: %v", calls)
	for method, n := range calls {
		for at := range n {
			begin(method, at+1, false)
			if slices.Contains([]string{"Update", "EnterRegistry", "Beat"}, method) { // the others write nothing
				begin(method, at+1, true)
			}
		}
	}
	want := []string{"join the cluster", "make the first users", "note the longest lifetimes", "open the signing keys"}
	if got := slices.Sorted(maps.Keys(steps)); !slices.Equal(got, want) {
		t.Errorf("the steps that waited are %q, want %q; calls: %v", got, want, calls)
	}
}

// A backend that stays away ends the start with the reason, after one deadline for all
// steps; what waiting does not mend ends it at once.
func TestAStartGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		start := newStartup(slog.New(slog.DiscardHandler))
		for range 3 {
			first := true
			if err := start.await(t.Context(), "a step", func(context.Context) error {
				if first {
					first = false
					return errLate
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := start.await(t.Context(), "the next", func(context.Context) error { return errLate }); !errors.Is(err, errLate) {
			t.Errorf("it ends with %v", err)
		}
		if took := time.Since(begun); took < startPatience || took > startPatience+2*startAgain {
			t.Errorf("it gave up after %v", took)
		}
		wrong, calls := errors.New("the password is wrong"), 0
		if err := newStartup(slog.New(slog.DiscardHandler)).await(t.Context(), "a step", func(context.Context) error {
			calls++
			return wrong
		}); !errors.Is(err, wrong) || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
}

// A page of a named origin is shown that the replica starts, so that it tries again.
func TestPagesAreShownThatAReplicaStarts(t *testing.T) {
	const page = "https://app.example.com"
	for _, c := range []struct {
		method, origin string
		status         int
		want           string
	}{
		{"POST", page, 503, page}, {"OPTIONS", page, 204, page}, {"POST", "https://other.example", 503, ""}, {"OPTIONS", "https://other.example", 503, ""},
	} {
		r := httptest.NewRequest(c.method, "/api/renew", nil)
		r.Header.Set("Origin", c.origin)
		r.Header.Set("Access-Control-Request-Method", "POST")
		w := httptest.NewRecorder()
		startingHandler([]string{page}).ServeHTTP(w, r)
		if got := w.Header().Get("Access-Control-Allow-Origin"); w.Code != c.status || got != c.want {
			t.Errorf("%s from %s: %d, allowed for %q", c.method, c.origin, w.Code, got)
		}
	}
}
