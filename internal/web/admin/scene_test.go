package admin

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/activity"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	shared "github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/web/page"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A scene is the pages over real services, with an administrator.
type scene struct {
	t       *testing.T
	server  *httptest.Server
	URL     string
	face    *Config
	parts   *operator.Parts
	login   *login.Service
	keys    *keyring.Ring
	state   *countingState
	viewer  *fakeViewer
	started time.Time
	later   time.Duration // by how much the clock of activity has gone on
	acts    map[string]*actor
	cookie  string
}

// A countingState counts what is asked of the shared state.
type countingState struct {
	shared.Store
	lists atomic.Int64
}

func (c *countingState) List(ctx context.Context, kind, owner, after string, limit int) ([]shared.Record, error) {
	c.lists.Add(1)
	return c.Store.List(ctx, kind, owner, after, limit)
}

// A fakeViewer is a cluster as a test wants it; nil: this replica is alone.
type fakeViewer struct{ view *cluster.View }

func (f *fakeViewer) View(ctx context.Context) (cluster.View, error) {
	if f.view == nil {
		return (&cluster.Alone{}).View(ctx)
	}
	return *f.view, nil
}

func must[T any](t *testing.T) func(T, error) T {
	return func(x T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	quiet, registry := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	cfg := config.Default()
	kit.Cheap(cfg)
	kit.Unlimited(cfg)
	cfg.Tokens.Issuer = "https://auth.example.com"
	cfg.Complete()
	db := sqlstore.New(sqldbtest.Open(t))
	view := must[*revocation.View](t)(revocation.NewView(revocation.Config{Store: db, Poll: time.Second, MaxStaleness: time.Minute, Now: time.Now, Logger: quiet}))
	if err := view.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); view.Run(ctx) }()
	t.Cleanup(func() { stop(); <-stopped })
	s := &scene{t: t, started: time.Now(), acts: map[string]*actor{}, state: &countingState{Store: memstate.New(time.Now)}, viewer: &fakeViewer{}}
	s.parts = must[*operator.Parts](t)(operator.Assemble(operator.Assembly{
		Config: cfg, Store: db, View: view, State: s.state, Replicas: func() int { return 1 }, Now: time.Now, Logger: quiet, Registerer: registry,
	}))
	s.keys = must[*keyring.Ring](t)(keyring.Open(t.Context(), keyring.Config{
		Source: keysource.Memory{Rand: rand.Reader}, Algorithms: []string{accesstoken.EdDSA}, KeyDuration: time.Hour, TokenDuration: time.Minute, MaxAge: time.Second,
		InstanceID: "auth-0", Store: db, Peers: keyring.Alone{}, Now: time.Now, Logger: quiet, Registerer: prometheus.NewRegistry(),
	}))
	s.login = login.New(login.Config{
		People: s.parts.Directory, Store: db, Keys: s.keys, Key: func(kid string) (accesstoken.Key, error) { return s.keys.Public().Find(kid) }, View: view, Audit: s.parts.Audit,
		Limits: s.parts.Limits, Factors: s.parts.Factors, Revocations: s.parts.Revocations, SecretKids: func(string) []string { return nil },
		Sessions: session.New(session.Config{State: s.state, TTL: time.Hour, RefreshDuration: time.Hour, RenewGrace: time.Minute, Now: time.Now, Rand: rand.Reader}),
		Rules:    operator.Rules(cfg), Issuer: cfg.Tokens.Issuer, Audience: cfg.Tokens.Audience, TokenDuration: time.Minute,
		Now: time.Now, Rand: rand.Reader, Logger: quiet, Registerer: registry,
	})
	k := must[*page.Kit](t)(page.New(page.Config{Login: s.login, Now: s.now, Logger: quiet, Version: "1.2.3"}))
	s.face = &Config{
		Login: s.login, Factors: s.parts.Factors, Directory: s.parts.Directory, Limits: s.parts.LimitAdministration(),
		Cluster: cluster.Admin{Cluster: s.viewer, Rights: s.parts.Directory, Own: &cluster.Own{Local: s.keys, Store: db, Now: time.Now}},
		Activity: activity.New(activity.Config{
			State: s.state, Instance: "auth-0", Gatherer: registry, Rights: s.parts.Directory, Now: s.now, Logger: quiet, Registerer: registry,
		}),
		Checks: func(context.Context) []Check {
			return []Check{{Name: "database", OK: true, Latency: 1200 * time.Microsecond}, {Name: "redis", OK: true, Latency: 300 * time.Microsecond}}
		},
		Doctor: &fakeDoctor{rights: s.parts.Directory},
		Ready:  func() error { return nil }, Instance: "auth-0", Version: "1.2.3", Now: s.now,
	}
	mounted := *s.face
	mounted.Checks = func(ctx context.Context) []Check { return s.face.Checks(ctx) }
	mounted.Ready = func() error { return s.face.Ready() }
	Mount(k, mounted)
	mux := http.NewServeMux()
	k.Mount(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.server, s.URL = server, server.URL
	s.cookie = s.signIn("ester", "admin=all")
	return s
}

// A fakeDoctor found by itself, and finds, what the test says. Who may see it is as in a replica.
type fakeDoctor struct {
	rights     cluster.Rights
	own, whole *Examination
	asked      int
}

func (d *fakeDoctor) Own(ctx context.Context, by *accesstoken.Token, address string) (*Examination, error) {
	if err := d.rights.MayReadKeys(ctx, by, address); err != nil {
		return nil, err
	}
	return d.own, nil
}

func (d *fakeDoctor) Examine(ctx context.Context, by *accesstoken.Token, address string) (*Examination, error) {
	if err := d.rights.MayReadKeys(ctx, by, address); err != nil {
		return nil, err
	}
	d.asked++
	return d.whole, nil
}

func (s *scene) now() time.Time { return time.Now().Add(s.later) }

// signIn makes a user with claims, and returns the cookie of their session.
func (s *scene) signIn(name string, claims ...string) string {
	s.t.Helper()
	kit.AddUser(s.t, s.parts.Directory, name, claims...)
	step := must[login.Step](s.t)(s.login.Begin(s.t.Context(), login.Credential{Username: name, Password: kit.Password}, "", login.Client{Address: "192.0.2.1", Browser: true}))
	return step.Grant.Cookie
}

// token returns an access token of a user who is there.
func (s *scene) token(name string) login.Grant {
	s.t.Helper()
	return must[login.Step](s.t)(s.login.Begin(s.t.Context(), login.Credential{Username: name, Password: kit.Password}, "", login.Client{Address: "192.0.2.1"})).Grant
}

// An answer is what a browser got.
type answer struct {
	status int
	body   string
	header http.Header
}

// get opens a page as the one who has the cookie; headers are pairs.
func (s *scene) get(path string, headers ...string) answer {
	return s.send("GET", path, nil, headers...)
}

func (s *scene) send(method, path string, form url.Values, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if s.cookie != "" {
		r.AddCookie(&http.Cookie{Name: "watchword", Value: s.cookie})
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	a, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer a.Body.Close()
	return answer{a.StatusCode, string(must[[]byte](s.t)(io.ReadAll(a.Body))), a.Header}
}

// has fails the test unless an answer has the status and all texts.
func (a answer) has(t *testing.T, status int, texts ...string) {
	t.Helper()
	if a.status != status {
		_, main, _ := strings.Cut(a.body, "<main")
		t.Errorf("status %d, want %d\n%.1000s", a.status, status, main)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("there is no %q", text)
		}
	}
}

// lacks fails the test if an answer has one of the texts.
func (a answer) lacks(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.body, text) {
			t.Errorf("there is %q", text)
		}
	}
}

// An actor is a replica as its metrics show it.
type actor struct {
	s                          *scene
	service                    *activity.Service
	uses, ended, revoked, http *prometheus.CounterVec
	begun, limits, lockouts    *prometheus.CounterVec
	latency, propagation       *prometheus.HistogramVec
}

// replica returns a replica of this name, which has written a first sample.
func (s *scene) replica(instance string) *actor {
	s.t.Helper()
	if a := s.acts[instance]; a != nil {
		return a
	}
	registry := prometheus.NewRegistry()
	counter := func(name string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
		registry.MustRegister(c)
		return c
	}
	histogram := func(name string, labels ...string) *prometheus.HistogramVec {
		var bounds []float64
		for _, b := range activity.Bounds {
			bounds = append(bounds, b.Seconds())
		}
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Buckets: bounds}, labels)
		registry.MustRegister(h)
		return h
	}
	a := &actor{
		s: s, uses: counter("watchword_requests_total", "use", "outcome"), begun: counter("watchword_sessions_begun_total"),
		ended: counter("watchword_sessions_ended_together_total"), revoked: counter("watchword_revocations_total", "kind", "reason"),
		limits: counter("watchword_limit_refusals_total"), lockouts: counter("watchword_limit_lockouts_total"), http: counter("watchword_http_requests_total", "route", "status"),
		latency: histogram("watchword_http_request_duration_seconds", "route"), propagation: histogram("watchword_revocation_known_seconds"),
	}
	a.service = activity.New(activity.Config{
		State: s.state, Instance: instance, Gatherer: registry, Rights: s.parts.Directory, Now: s.now, Logger: slog.New(slog.DiscardHandler), Registerer: registry,
	})
	s.acts[instance] = a
	a.write()
	return a
}

// write writes what has happened since the last time.
func (a *actor) write() {
	ended, end := context.WithCancel(a.s.t.Context())
	end()
	a.service.Run(ended)
}

// pass lets time pass, in which all replicas write but those that are named.
func (s *scene) pass(d time.Duration, but ...string) {
	for ; d > 0; d -= activity.Every {
		s.later += activity.Every
	replicas:
		for name, a := range s.acts {
			for _, one := range but {
				if one == name {
					continue replicas
				}
			}
			a.write()
		}
	}
}

// signs counts sign-ins.
func (a *actor) signs(good, refused float64) {
	a.uses.WithLabelValues("login", "ok").Add(good)
	a.uses.WithLabelValues("login", "invalid_credentials").Add(refused)
	a.begun.WithLabelValues().Add(good)
}

// answers counts requests that took so long.
func (a *actor) answers(n, failed int, took time.Duration) {
	a.http.WithLabelValues("POST /api/login", "200").Add(float64(n - failed))
	a.http.WithLabelValues("POST /api/login", "503").Add(float64(failed))
	for range n {
		a.latency.WithLabelValues("POST /api/login").Observe(took.Seconds())
	}
}

// revokes counts entries of the log, known after so long.
func (a *actor) revokes(n int, after time.Duration) {
	a.revoked.WithLabelValues("sid", "logout").Add(float64(n))
	for range n {
		a.propagation.WithLabelValues().Observe(after.Seconds())
	}
}
