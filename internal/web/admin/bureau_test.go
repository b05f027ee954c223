package admin_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/web/admin"
	"github.com/watchword-auth/watchword/internal/web/page"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	secret  = "correct horse battery"
	site    = "http://localhost"
	issuer  = "https://issuer.test"
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
)

// A bureau is a service with the pages of administration and the API.
type bureau struct {
	t      *testing.T
	store  store.Store
	trail  *audit.Trail
	people *directory.Service
	login  *login.Service
	limits *limit.Limiter
	keys   *keyring.Ring
	mux    *http.ServeMux
}

func newBureau(t *testing.T) *bureau {
	t.Helper()
	o := &bureau{t: t, store: sqlstore.New(sqldbtest.Open(t)), mux: http.NewServeMux()}
	quiet, records := slog.New(slog.DiscardHandler), memstate.New(time.Now)
	view, err := revocation.NewView(revocation.Config{Store: o.store, Poll: time.Second, MaxStaleness: time.Minute, Now: time.Now, Logger: quiet})
	o.must(err)
	o.must(view.Refresh(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); view.Run(ctx) }()
	t.Cleanup(func() { stop(); <-stopped })
	o.trail, err = audit.New(audit.Config{Store: o.store, Now: time.Now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry()})
	o.must(err)
	hasher, err := password.New(password.Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 2, Queue: 64, Rand: rand.Reader, Now: time.Now})
	o.must(err)
	box, err := seal.New(make([]byte, seal.KeySize))
	o.must(err)
	o.keys, err = keyring.Open(t.Context(), keyring.Config{
		Source: keysource.Memory{Rand: rand.Reader}, Algorithms: []string{accesstoken.EdDSA}, KeyDuration: 24 * time.Hour, TokenDuration: time.Hour, MaxAge: time.Second,
		InstanceID: "a", Store: o.store, Peers: keyring.Alone{}, Now: time.Now, Logger: quiet, Registerer: prometheus.NewRegistry(),
	})
	o.must(err)
	o.limits = limittest.New(limit.Config{
		State: records, Audit: o.trail,
		Rules: limit.Rules{
			Policies: map[limit.Class]limit.Policy{limit.Login: {PerAccount: state.Rate{Burst: 1000, Period: time.Minute}}},
			Lockout:  limit.Lockout{After: 3, AfterAll: 50, Delay: time.Minute, Max: time.Hour},
			Spray:    limit.Spray{After: 4},
		},
	})
	log := &revocation.Log{Store: o.store, View: view, Now: time.Now, Lifetimes: revocation.Lifetimes{Token: time.Hour, Session: 24 * time.Hour}}
	o.people = directory.New(directory.Config{
		Store: o.store, Hasher: hasher, Audit: o.trail, Revocations: log, Limits: o.limits, FreshFor: time.Hour, Now: time.Now, Rand: rand.Reader, Logger: quiet,
	})
	factors := mfa.New(mfa.Config{
		Store: o.store, State: records, Box: box, People: o.people, Limits: o.limits, Audit: o.trail, Issuer: "Watchword",
		Now: time.Now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry(),
	})
	o.login = login.New(login.Config{
		People: o.people, Store: o.store, Revocations: log, View: view, Audit: o.trail, Limits: o.limits, Factors: factors,
		Keys: o.keys, Key: func(kid string) (accesstoken.Key, error) { return o.keys.Public().Find(kid) }, SecretKids: func(string) []string { return nil },
		Sessions: session.New(session.Config{
			State: records, TTL: 24 * time.Hour, RefreshDuration: 24 * time.Hour, RenewGrace: time.Minute, Now: time.Now, Rand: rand.Reader,
			Logger: quiet, Registerer: prometheus.NewRegistry(),
		}),
		Rules:  accesstoken.Rules{Issuer: issuer, Audience: []string{issuer}},
		Issuer: issuer, Audience: []string{issuer}, TokenDuration: time.Hour,
		Now: time.Now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry(),
	})
	kit, err := page.New(page.Config{Login: o.login, Now: time.Now, Logger: quiet})
	o.must(err)
	kit.OnNoSession(func(v *page.Visit) error { return v.JSON(http.StatusUnauthorized, "no session") })
	limits := limit.Administration{Limits: o.limits, Audit: o.trail}
	admin.Mount(kit, admin.Config{
		Login: o.login, Factors: factors, Directory: o.people, Limits: limits, Now: time.Now,
		Bound: admin.Bound{Poll: time.Second, Most: 5 * time.Second},
	})
	kit.Mount(o.mux)
	api := httpkit.NewAPI(o.mux, "test", o.login, httpkit.Proxies{}, httpkit.NewBudget(100, 100, prometheus.NewRegistry(), quiet))
	(&httpapi.Auth{Login: o.login}).Mount(api)
	(&httpapi.Sessions{Login: o.login}).Mount(api)
	(&httpapi.Limits{Limits: limits, Directory: o.people}).Mount(api)
	(&httpapi.Audit{Directory: o.people}).Mount(api)
	return o
}

func (o *bureau) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// user makes a user who holds these values of the claim admin.
func (o *bureau) user(name string, permissions ...string) store.User {
	o.t.Helper()
	ctx, system := o.t.Context(), directory.System()
	n := directory.NewUser{Username: name, Password: secret}
	for _, p := range permissions {
		c, err := o.people.CreateClaim(ctx, system, directory.NewClaim{Name: name + " " + p, ShortName: directory.Admin, Value: p})
		o.must(err)
		g, err := o.people.CreateGroup(ctx, system, directory.NewGroup{Name: name + " " + p, Claims: []string{c.ID}})
		o.must(err)
		n.Groups = append(n.Groups, g.ID)
	}
	u, err := o.people.CreateUser(ctx, system, n)
	o.must(err)
	return u
}

// begin signs a user in, as a browser or as an app.
func (o *bureau) begin(name string, browser bool, address, agent string) login.Grant {
	o.t.Helper()
	step, err := o.login.Begin(o.t.Context(), login.Credential{Username: name, Password: secret}, "", login.Client{Address: address, UserAgent: agent, Browser: browser})
	o.must(err)
	return step.Grant
}

// fail has an attempt at an account fail.
func (o *bureau) fail(name, address string) {
	o.t.Helper()
	if _, err := o.login.Begin(o.t.Context(), login.Credential{Username: name, Password: "wrong"}, "", login.Client{Address: address}); err == nil {
		o.t.Fatal("a wrong password was right")
	}
}

// A desk is the browser of somebody who is signed in.
type desk struct {
	o      *bureau
	cookie string
	htmx   bool
}

func (o *bureau) desk(name string) *desk {
	o.t.Helper()
	return &desk{o: o, cookie: o.begin(name, true, "192.0.2.7", firefox).Cookie}
}

// A seen is what a browser or a program gets.
type seen struct {
	t    *testing.T
	what string
	*httptest.ResponseRecorder
}

func (d *desk) send(r *http.Request) seen {
	d.o.t.Helper()
	r.AddCookie(&http.Cookie{Name: "watchword", Value: d.cookie})
	r.Header.Set("User-Agent", firefox)
	if d.htmx {
		r.Header.Set("HX-Request", "true")
	}
	rec := httptest.NewRecorder()
	d.o.mux.ServeHTTP(rec, r)
	return seen{d.o.t, r.Method + " " + r.URL.String(), rec}
}

func (d *desk) get(path string) seen {
	d.o.t.Helper()
	return d.send(httptest.NewRequest(http.MethodGet, site+path, nil))
}

// post sends a form of these names and values.
func (d *desk) post(path string, fields ...string) seen {
	d.o.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, site+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return d.send(r)
}

// call calls the API with an access token.
func (o *bureau) call(token, method, path string, body any) seen {
	o.t.Helper()
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		o.must(err)
		sent = strings.NewReader(string(b))
	}
	r := httptest.NewRequest(method, site+path, sent)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	o.mux.ServeHTTP(rec, r)
	return seen{o.t, method + " " + path, rec}
}

// read is what a browser reads, with one space where there are several.
func (r seen) read() string {
	return strings.Join(strings.Fields(html.UnescapeString(r.Body.String())), " ")
}

// says checks the status of a seen, and that a person reads these texts in it.
func (r seen) says(status int, texts ...string) seen {
	r.t.Helper()
	if r.Code != status {
		r.t.Errorf("%s: status %d, want %d: %s", r.what, r.Code, status, r.Body)
	}
	body := r.read()
	for _, text := range texts {
		if !strings.Contains(body, text) {
			r.t.Errorf("%s does not say %q: %s", r.what, text, body)
		}
	}
	return r
}

func (r seen) saysNot(texts ...string) seen {
	r.t.Helper()
	body := r.read()
	for _, text := range texts {
		if strings.Contains(body, text) {
			r.t.Errorf("%s says %q: %s", r.what, text, body)
		}
	}
	return r
}

// leads checks that the seen leads to a path.
func (r seen) leads(path string) seen {
	r.t.Helper()
	if r.Code != http.StatusSeeOther || r.Header().Get("Location") != path {
		r.t.Errorf("%s: status %d, to %q, want %q: %s", r.what, r.Code, r.Header().Get("Location"), path, r.Body)
	}
	return r
}

// then opens the page to which a seen leads, with the message that it is to show.
func (d *desk) then(r seen) seen {
	d.o.t.Helper()
	next := httptest.NewRequest(http.MethodGet, site+r.Header().Get("Location"), nil)
	for _, c := range r.Result().Cookies() {
		if c.MaxAge > 0 {
			next.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
	return d.send(next)
}

// head is the header of a token.
func head(t *testing.T, token string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
