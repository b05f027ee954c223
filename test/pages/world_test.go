package pages

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/browser"
	"github.com/watchword-auth/watchword/test/kit"
)

// A World is two replicas, what they stand on, and the load balancer before them.
type World struct {
	Origin   string // of the pages: http://localhost:PORT
	Database *testenv.Server
	Redis    *testenv.Server
	Replicas [2]*Replica

	balancer *testenv.Server
	admin    string // an access token of the administrator; see client
}

// The administrator whom ADMIN_GUI_USERNAME and ADMIN_GUI_PASSWORD name.
const (
	AdminName     = "admin"
	AdminPassword = kit.Password
)

// A Replica is a place for a replica, which keeps its address.
type Replica struct {
	Name   string // as X-Served-By says it
	Log    testenv.Log
	config *config.Config
	addr   string
	node   *app.Node // nil: it does not run
	server *http.Server
}

// start starts the replica, and waits until it is ready.
func (r *Replica) start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
	defer cancel()
	logger := slog.New(slog.NewJSONHandler(&r.Log, nil))
	node, err := app.New(ctx, app.Options{Config: r.config, Version: "test", Logger: logger})
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	listener, err := net.Listen("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	r.node, r.server = node, &http.Server{Handler: node.Handler()}
	go r.server.Serve(listener)
	if err := node.WaitReady(ctx); err != nil {
		t.Fatalf("%s: %v\n%s", r.Name, err, r.Log.Tail())
	}
}

// kill ends the replica in the middle of everything: it closes its connections, and answers
// nothing more.
func (r *Replica) kill() {
	if r.node == nil {
		return
	}
	_ = r.server.Close()
	_ = r.node.Close()
	r.node = nil
}

// A session is the test process as the owner of what its tests share.
type session struct {
	testing.TB // nil: what is not below is not asked of it
	mu         sync.Mutex
	cleanups   []func()
}

func (s *session) Helper()                  {}
func (s *session) Context() context.Context { return context.Background() }
func (s *session) Fatal(args ...any)        { panic(fmt.Sprintln(args...)) }
func (s *session) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func (s *session) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *session) TempDir() string {
	dir, err := os.MkdirTemp("", "watchword-pages-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *session) end() {
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
}

var all session

// shared is the world of all tests. Whoever has the claim factor must have a second factor.
var shared = sync.OnceValue(func() *World {
	return start(&all, func(cfg *config.Config) {
		cfg.MFA.Required = config.Required{Mode: config.RequiredClaims, Claims: []config.ClaimPattern{{Name: "factor"}}}
		cfg.MFA.RememberDevice = 24 * time.Hour
	})
})

func TestMain(m *testing.M) {
	code := m.Run()
	all.end()
	os.Exit(code)
}

// world returns the world, with both replicas ready.
func world(t *testing.T) *World {
	t.Helper()
	return shared()
}

// start starts a world; it ends with the test. A function may change the configuration of its
// replicas.
func start(t testing.TB, change func(*config.Config)) *World {
	t.Helper()
	w := &World{Database: testenv.StartPostgres(t), Redis: testenv.StartRedis(t)}
	for i, name := range []string{"auth-0", "auth-1"} {
		w.Replicas[i] = &Replica{Name: name, addr: testenv.Address(t)}
	}
	w.balancer = testenv.StartProxy(t, map[string]string{"haproxy.cfg": w.balancerConfig(t)}, "haproxy", "-db", "-f", "DIR/haproxy.cfg")
	_, port, err := net.SplitHostPort(w.balancer.Addr)
	if err != nil {
		t.Fatal(err)
	}
	w.Origin = "http://localhost:" + port
	for _, r := range w.Replicas {
		cfg := kit.ClusterConfig(t, w.Database.URL)
		kit.StoredKeys(cfg)
		cfg.Redis.URL = w.Redis.URL
		cfg.Cluster.InstanceID = r.Name
		cfg.Cluster.AdvertiseURL = "http://" + r.addr
		cfg.Server.PublicURL, cfg.Server.TrustedProxies = w.Origin, []string{"127.0.0.1"}
		cfg.Admin.Username, cfg.Admin.Password = AdminName, AdminPassword
		cfg.MFA.Passkeys.RPID, cfg.MFA.Passkeys.Origins = "localhost", []string{w.Origin}
		if change != nil {
			change(cfg)
		}
		cfg.Complete()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		r.config = cfg
		r.start(t)
		t.Cleanup(r.kill)
	}
	w.awaitTurns(t, "auth-0", "auth-1")
	return w
}

// balancerConfig is the one that examples/balancer shows, for two replicas. Answers say besides
// which of them they are of.
func (w *World) balancerConfig(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("../../examples/balancer/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^\tserver auth-2 .*\n`).ReplaceAllString(string(b), "")
	text = strings.NewReplacer("bind 127.0.0.1:8000", "bind LISTEN\n\thttp-after-response set-header X-Served-By %s",
		"127.0.0.1:8081", w.Replicas[0].addr, "127.0.0.1:8082", w.Replicas[1].addr).Replace(text)
	if strings.Count(text, "X-Served-By") != 1 || strings.Contains(text, "127.0.0.1:80") {
		t.Fatalf("the example is another one:\n%s", text)
	}
	return text
}

// awaitTurns waits until the load balancer gives requests to these replicas in turn, and to no
// others.
func (w *World) awaitTurns(t testing.TB, names ...string) {
	t.Helper()
	client := w.client(t)
	kit.Eventually(t, func() error {
		seen := make(map[string]bool)
		for range 4 {
			a, err := client.Try(client.Request("GET", "/readyz", "", nil))
			if err != nil || a.Status != 200 {
				return fmt.Errorf("%d %s %w", a.Status, a.Body, err)
			}
			seen[a.Header.Get("X-Served-By")] = true
		}
		for _, name := range names {
			if !seen[name] {
				return fmt.Errorf("%s has no turn: %v", name, seen)
			}
		}
		if len(seen) != len(names) {
			return fmt.Errorf("others have turns: %v", seen)
		}
		return nil
	})
}

// client asks the API through the load balancer, from outside of the browser.
func (w *World) client(t testing.TB) *kit.Client {
	return &kit.Client{T: t, URL: w.balancer.URL, Log: &w.Replicas[0].Log}
}

// ServedBy is the replica that answered with the page.
func (w *World) ServedBy(t *testing.T, b *browser.Browser) *Replica {
	t.Helper()
	i := slices.IndexFunc(w.Replicas[:], func(r *Replica) bool { return r.Name == b.Header("X-Served-By") })
	if i < 0 {
		t.Fatalf("no replica answered: %q\n%s", b.Header("X-Served-By"), b.Describe())
	}
	return w.Replicas[i]
}

// Kill kills a replica, which is started again at the end of the test. A request that the load
// balancer gives to it at first goes to the other one.
func (w *World) Kill(t *testing.T, r *Replica) {
	t.Helper()
	t.Cleanup(func() {
		// The context of the test has ended.
		r.start(&all)
		w.awaitTurns(&all, "auth-0", "auth-1")
	})
	r.kill()
}

// WithoutDatabase does something while PostgreSQL is gone, from when the replicas have noticed.
// It returns when they are ready again.
func (w *World) WithoutDatabase(t *testing.T, f func()) {
	t.Helper()
	w.Database.Stop()
	defer func() {
		w.Database.Start(t)
		w.awaitTurns(t, "auth-0", "auth-1")
	}()
	client := w.client(t)
	for _, r := range w.Replicas {
		client.URL = "http://" + r.addr
		kit.Eventually(t, func() error {
			if a, err := client.Try(client.Request("GET", "/readyz", "", nil)); err == nil && a.Status == 200 {
				return fmt.Errorf("%s is ready without its database", r.Name)
			}
			return nil
		})
	}
	f()
}

// WithoutRedis does something while Redis is gone. It comes back empty.
func (w *World) WithoutRedis(t *testing.T, f func()) {
	t.Helper()
	w.Redis.Stop()
	defer w.Redis.Start(t)
	f()
}

// Admin is an access token of the administrator.
func (w *World) Admin(t *testing.T) string {
	t.Helper()
	client := w.client(t)
	if w.admin != "" {
		if a := client.Do("GET", "/api/verify", w.admin, nil); a.Status == 200 {
			return w.admin
		}
	}
	w.admin = client.LoginWith(AdminName, AdminPassword).AccessToken
	return w.admin
}

// API asks the JSON API as the administrator, and fails the test unless the answer has the
// status.
func (w *World) API(t *testing.T, method, path string, body any, status int) kit.Answer {
	t.Helper()
	client := w.client(t)
	a := client.Do(method, path, w.Admin(t), body)
	if a.Status != status {
		t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Body)
	}
	return a
}

// A User is one of a test's own.
type User struct {
	ID, Name, Email, Password string
}

// User makes a user whose name begins with a word, and who has claims, each written "short=value",
// by a group of their own.
func (w *World) User(t *testing.T, word string, claims ...string) User {
	t.Helper()
	name := word + "-" + strings.ToLower(rand.Text()[:8])
	var ids []string
	for _, c := range claims {
		short, value, _ := strings.Cut(c, "=")
		ids = append(ids, w.Claim(t, name+" "+short+" "+value, short, value).ID)
	}
	u := User{Name: name, Email: name + "@example.com", Password: kit.Password}
	body := httpapi.NewUser{Username: u.Name, Password: u.Password, Email: u.Email, FirstName: "Travis", LastName: "Ester"}
	if len(claims) > 0 {
		body.Groups = []string{w.Group(t, "of "+name, ids...).ID}
	}
	u.ID = kit.Decode[httpapi.User](t, w.API(t, "POST", "/api/users", body, http.StatusCreated)).ID
	return u
}

// Administrator makes a user with permissions of administration, such as directory.UsersRead.
func (w *World) Administrator(t *testing.T, word string, permissions ...string) User {
	t.Helper()
	var claims []string
	for _, p := range permissions {
		claims = append(claims, "admin="+p)
	}
	return w.User(t, word, claims...)
}

// Group makes a group that gives claims, by their ids.
func (w *World) Group(t *testing.T, name string, claims ...string) httpapi.Group {
	t.Helper()
	return kit.Decode[httpapi.Group](t, w.API(t, "POST", "/api/groups", httpapi.NewGroup{Name: name, Claims: claims}, http.StatusCreated))
}

// Claim makes a claim.
func (w *World) Claim(t *testing.T, name, short, value string) httpapi.Claim {
	t.Helper()
	return kit.Decode[httpapi.Claim](t, w.API(t, "POST", "/api/claims", httpapi.NewClaim{Name: name, ShortName: short, Value: value}, http.StatusCreated))
}

// The world is what its tests need: requests go to the replicas in turn, one may be killed
// between two, and the database may go.
func TestWorld(t *testing.T) {
	w := world(t)
	u := w.Administrator(t, "reader", "users:read")
	client := w.client(t)
	g := client.LoginWith(u.Name, u.Password)
	if got := client.Verify(g.AccessToken)["admin"]; got != "users:read" {
		t.Errorf("the user's rights are %v", got)
	}
	b := browser.New(t)
	page := w.Origin + "/.well-known/jwks.json"
	b.Open(page)
	first := w.ServedBy(t, b)
	b.Open(page + "?again")
	second := w.ServedBy(t, b)
	if first == second {
		t.Errorf("%s answered twice", first.Name)
	}
	if !browser.Eval[bool](b, "isSecureContext") {
		t.Error("the browser has no passkeys here")
	}

	w.Kill(t, second)
	for range 3 {
		b.Open(page)
		if got := w.ServedBy(t, b); got != first || b.Status() != 200 {
			t.Errorf("%s answered %d", got.Name, b.Status())
		}
	}
	client.Verify(g.AccessToken)
}

func TestWorldWithoutDatabase(t *testing.T) {
	w := world(t)
	u := w.User(t, "alice")
	client := w.client(t)
	login := func() int {
		return client.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: u.Name, Password: u.Password}).Status
	}
	w.WithoutDatabase(t, func() {
		if got := login(); got != 503 {
			t.Errorf("a login without a database: %d", got)
		}
	})
	if got := login(); got != 200 {
		t.Errorf("a login with the database: %d", got)
	}
	w.WithoutRedis(t, func() {
		if got := login(); got != 200 {
			t.Errorf("a login without Redis: %d", got)
		}
	})
}
