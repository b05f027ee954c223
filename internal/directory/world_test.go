package directory

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
)

const (
	secret       = "correct horse battery"
	maxTokenLife = 31 * time.Minute
	freshFor     = 10 * time.Minute
)

// hasher makes a Hasher.
func hasher(t testing.TB, c password.Config) *password.Hasher {
	t.Helper()
	c.Rand = rand.Reader
	h, err := password.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// attacks counts what tests try for somebody who may not do it.
var attacks atomic.Int64

func TestMain(m *testing.M) {
	status := m.Run()
	if n := attacks.Load(); status == 0 && n > 0 {
		fmt.Printf("summary: %d attempts to gain rights, or to be taken for another, none of use\n", n)
	}
	os.Exit(status)
}

// A world is a Service with everything real around it.
type world struct {
	*Service
	t    testing.TB
	url  string // of the database
	logs *logbook

	mu    sync.Mutex
	ended []string // users for whom OnEnded was called
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return replica(t, sqldbtest.SQLite(t))
}

// onEach runs a test of simultaneous changes on SQLite, where writers take turns, and on
// PostgreSQL, where transactions run beside each other.
func onEach(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) { test(t, newWorld(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, replica(t, testenv.Postgres(t))) })
}

// rounds is how often a test tries what only sometimes meets: so many times, or ten
// times as many in a long run.
func rounds(n int) int {
	if os.Getenv("WATCHWORD_SOAK") != "" {
		return 10 * n
	}
	return n
}

// replica makes one more service, with connections of its own, over a database.
func replica(t testing.TB, url string) *world {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, MaxConnections: 4, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, url: url, logs: &logbook{}}
	records := sqlstore.New(db)
	logger := slog.New(slog.NewTextHandler(w.logs, nil))
	trail, err := audit.New(audit.Config{Store: records, Now: time.Now, Rand: rand.Reader, Logger: logger, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	view, err := revocation.NewView(revocation.Config{Store: records, Poll: time.Second, MaxStaleness: 5 * time.Second, Now: time.Now, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { view.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w.Service = New(Config{
		Store: records, State: sqlstate.New(db, time.Now), Hasher: hasher(t, password.Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 2, Queue: 64}), Audit: trail,
		Revocations: &revocation.Log{Store: records, View: view, Now: time.Now, Lifetimes: revocation.Lifetimes{Token: maxTokenLife}},
		Limits:      limittest.Unlimited(), OnEnded: w.onEnded, FreshFor: freshFor,
		Now: time.Now, Rand: rand.Reader, Logger: logger,
	})
	return w
}

// Authenticate is Service.Authenticate with an attempt that nothing refuses.
func (w *world) Authenticate(ctx context.Context, username, plain string) (store.User, error) {
	return w.Service.Authenticate(ctx, limittest.Attempt(ctx), username, plain)
}

// later sets the clock of the service and of its log.
func (w *world) later(now time.Time) {
	w.Now = func() time.Time { return now }
	w.Revocations.(*revocation.Log).Now = w.Now
}

func (w *world) onEnded(_ context.Context, userID string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, userID)
	return nil
}

// claim makes a claim called short=value.
func (w *world) claim(short, value string) string {
	w.t.Helper()
	c, err := w.CreateClaim(w.t.Context(), System(), NewClaim{Name: short + "=" + value, ShortName: short, Value: value})
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Name
}

// group makes a group that gives these claims, each short=value.
func (w *world) group(name string, claims ...string) store.Group {
	w.t.Helper()
	for _, c := range claims {
		if _, err := w.Claim(w.t.Context(), System(), c); errors.Is(err, ErrClaimNotFound) {
			short, value, _ := strings.Cut(c, "=")
			w.claim(short, value)
		}
	}
	g, err := w.CreateGroup(w.t.Context(), System(), NewGroup{Name: name, Claims: claims})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// user makes a user who holds these claims, through a group "of NAME".
func (w *world) user(name string, claims ...string) store.User {
	w.t.Helper()
	n := NewUser{Username: name, Password: secret}
	if len(claims) > 0 {
		n.Groups = []string{w.group("of "+name, claims...).ID}
	}
	u, err := w.CreateUser(w.t.Context(), System(), n)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *world) superuser(name string) store.User {
	w.t.Helper()
	u, err := w.CreateUser(w.t.Context(), System(), NewUser{Username: name, Password: secret, Administrator: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// as makes an actor of the user, who has just logged in for this API.
func as(u store.User) Actor {
	return Actor{ID: u.ID, Address: "192.0.2.1", API: true, AuthTime: time.Now()}
}

// claimsOf returns the user's claims as short=values, in order.
func (w *world) claimsOf(u store.User) string {
	w.t.Helper()
	claims, err := w.ClaimsOf(w.t.Context(), u.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for name, values := range claims {
		all = append(all, name+"="+values)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// stored returns the user as the store has it, or an empty one.
func (w *world) stored(u store.User) store.User {
	w.t.Helper()
	s, err := w.Store.User(w.t.Context(), u.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		w.t.Fatal(err)
	}
	return s
}

// revocations returns the entries of the log, oldest first.
func (w *world) revocations() []store.Revocation {
	w.t.Helper()
	rs, _, err := w.Store.RevocationsAfter(w.t.Context(), 0, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	return rs
}

// events returns the audit events about a target, newest first.
func (w *world) events(target string) []store.AuditEvent {
	w.t.Helper()
	page, err := w.Store.AuditEvents(w.t.Context(), store.AuditQuery{Target: target, Limit: 100})
	if err != nil {
		w.t.Fatal(err)
	}
	return page.Events
}

func (w *world) want(err error, want string) {
	w.t.Helper()
	if code(err) != want {
		w.t.Errorf("%v, want %q", err, want)
	}
}

// attack is want for what somebody tries who may not do it.
func (w *world) attack(err error, want string) {
	w.t.Helper()
	attacks.Add(1)
	w.want(err, want)
}

// A logbook keeps what was logged.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
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

// unwritable is a trail that cannot be written.
type unwritable struct{ Auditor }

func (unwritable) RecordIn(context.Context, store.Records, store.AuditEvent) error {
	return errors.New("disk full")
}

// code returns the code of a problem, or the text of any other error.
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
