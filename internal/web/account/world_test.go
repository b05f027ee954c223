package account

import (
	"context"
	"crypto/rand"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/web/page"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	secret   = "correct horse battery"
	freshFor = 10 * time.Minute
	origin   = "http://localhost"
	firefox  = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
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

// A world is a service with these pages.
type world struct {
	t       *testing.T
	clock   *clock
	store   store.Store
	trail   *audit.Trail
	people  *directory.Service
	factors *mfa.Service
	login   *login.Service
	mux     *http.ServeMux
	// meanwhile is called once, after a request's session was recognised; nil: nothing is.
	meanwhile func()
}

// Watch is Recognise.
func (w *world) Watch(ctx context.Context, cookie string) (*login.Browser, error) {
	return w.Recognise(ctx, cookie)
}

// Recognise is that of login.Service, after which something may happen.
func (w *world) Recognise(ctx context.Context, cookie string) (*login.Browser, error) {
	b, err := w.login.Recognise(ctx, cookie)
	if f := w.meanwhile; f != nil {
		w.meanwhile = nil
		f()
	}
	return b, err
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{t: time.Now().Truncate(time.Minute).Add(15 * time.Second)}, store: sqlstore.New(sqldbtest.Open(t)), mux: http.NewServeMux()}
	quiet, now := slog.New(slog.DiscardHandler), w.clock.now
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	view, err := revocation.NewView(revocation.Config{Store: w.store, Poll: time.Second, MaxStaleness: 24 * time.Hour, Now: now, Logger: quiet})
	must(err)
	must(view.Refresh(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); view.Run(ctx) }()
	t.Cleanup(func() { stop(); <-stopped })
	w.trail, err = audit.New(audit.Config{Store: w.store, Now: now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry()})
	must(err)
	hasher, err := password.New(password.Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 2, Queue: 64, Rand: rand.Reader, Now: now})
	must(err)
	box, err := seal.New(make([]byte, seal.KeySize))
	must(err)
	party, err := passkey.New(passkey.Config{ID: "localhost", Name: "Watchword", Origins: []string{origin}})
	must(err)
	records, limits := memstate.New(now), limittest.Unlimited()
	log := &revocation.Log{Store: w.store, View: view, Now: now, Lifetimes: revocation.Lifetimes{Token: time.Hour, Session: 24 * time.Hour}}
	w.people = directory.New(directory.Config{
		Store: w.store, Hasher: hasher, Audit: w.trail, Revocations: log, Limits: limits, FreshFor: freshFor, Now: now, Rand: rand.Reader, Logger: quiet,
	})
	w.factors = mfa.New(mfa.Config{
		Store: w.store, State: records, Box: box, People: w.people, Limits: limits, Audit: w.trail, Party: party, Issuer: "Watchword",
		Now: now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry(),
	})
	w.login = login.New(login.Config{
		People: w.people, Store: w.store, Revocations: log, View: view, Audit: w.trail, Limits: limits, Factors: w.factors,
		Sessions: session.New(session.Config{
			State: records, TTL: 24 * time.Hour, RefreshDuration: 24 * time.Hour, RenewGrace: time.Minute, Now: now, Rand: rand.Reader,
			Logger: quiet, Registerer: prometheus.NewRegistry(),
		}),
		Issuer: "https://issuer.test", Audience: []string{"a"}, TokenDuration: time.Hour,
		Now: now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry(),
	})
	kit, err := page.New(page.Config{Login: w, Now: now, Logger: quiet})
	must(err)
	kit.OnNoSession(func(v *page.Visit) error { return v.JSON(http.StatusUnauthorized, "no session") })
	kit.OnReauthenticate(func(v *page.Visit, _ error) error { return v.JSON(http.StatusUnauthorized, "reauthenticate") })
	Mount(kit, Config{Login: w.login, Factors: w.factors, Directory: w.people, Passkeys: true})
	kit.Mount(w.mux)
	return w
}

// user makes a user who holds these values of the claim admin.
func (w *world) user(name string, permissions ...string) store.User {
	w.t.Helper()
	n := directory.NewUser{Username: name, Password: secret}
	for _, p := range permissions {
		c, err := w.people.CreateClaim(w.t.Context(), directory.System(), directory.NewClaim{Name: p, ShortName: directory.Admin, Value: p})
		if err != nil {
			w.t.Fatal(err)
		}
		g, err := w.people.CreateGroup(w.t.Context(), directory.System(), directory.NewGroup{Name: "of " + name, Claims: []string{c.ID}})
		if err != nil {
			w.t.Fatal(err)
		}
		n.Groups = append(n.Groups, g.ID)
	}
	u, err := w.people.CreateUser(w.t.Context(), directory.System(), n)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// superuser is a token of one, whom it makes.
func (w *world) superuser() *accesstoken.Token {
	w.t.Helper()
	if u, err := w.people.User(w.t.Context(), directory.System(), "super"); err == nil {
		return w.token(u)
	}
	return w.token(w.user("super", directory.Superuser))
}

func (w *world) token(u store.User) *accesstoken.Token {
	return &accesstoken.Token{Issuer: "i", Audience: []string{"i"}, Subject: u.ID, Epoch: u.Epoch, AuthTime: w.clock.now()}
}

// A browser keeps cookies.
type browser struct {
	w       *world
	agent   string
	lang    string
	cookies map[string]string
	// change may change a request before it is sent.
	change func(*http.Request)
}

// signIn signs a user in who has no second factor.
func (w *world) signIn(name, password string) *browser {
	w.t.Helper()
	return w.signInFrom(name, password, firefox)
}

func (w *world) signInFrom(name, password, agent string) *browser {
	w.t.Helper()
	step, err := w.login.Begin(w.t.Context(), login.Credential{Username: name, Password: password}, "", login.Client{Address: "192.0.2.7", UserAgent: agent, Browser: true})
	if err != nil || step.Challenge != nil {
		w.t.Fatalf("sign-in of %s: %+v, %v", name, step, err)
	}
	return &browser{w: w, agent: agent, lang: "en", cookies: map[string]string{"watchword": step.Grant.Cookie}}
}

// An answer is what a browser gets.
type answer struct {
	t    *testing.T
	what string
	*httptest.ResponseRecorder
}

func (b *browser) send(r *http.Request) answer {
	b.w.t.Helper()
	r.Header.Set("User-Agent", b.agent)
	r.Header.Set("Accept-Language", b.lang)
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	if b.change != nil {
		b.change(r)
	}
	rec := httptest.NewRecorder()
	b.w.mux.ServeHTTP(rec, r)
	for _, c := range rec.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return answer{b.w.t, r.Method + " " + r.URL.String(), rec}
}

func (b *browser) get(path string) answer {
	b.w.t.Helper()
	return b.send(httptest.NewRequest(http.MethodGet, origin+path, nil))
}

// post sends a form of these names and values.
func (b *browser) post(path string, fields ...string) answer {
	b.w.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, origin+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.send(r)
}

// live reports whether the browser's session is one that goes on.
func (b *browser) live() bool {
	b.w.t.Helper()
	return b.get("/account").Code == http.StatusOK
}

// clone is a second window with the same cookies, as they are now.
func (b *browser) clone() *browser {
	c := *b
	c.cookies = map[string]string{}
	for name, value := range b.cookies {
		c.cookies[name] = value
	}
	return &c
}

// says checks the status of an answer, and that a person reads these texts in it.
func (a answer) says(status int, texts ...string) answer {
	a.t.Helper()
	if a.Code != status {
		a.t.Errorf("%s: status %d, want %d: %s", a.what, a.Code, status, a.Body)
	}
	body := html.UnescapeString(a.Body.String())
	for _, text := range texts {
		if !strings.Contains(body, text) {
			a.t.Errorf("%s does not say %q: %s", a.what, text, body)
		}
	}
	return a
}

func (a answer) saysNot(texts ...string) answer {
	a.t.Helper()
	for _, text := range texts {
		if strings.Contains(a.Body.String(), text) {
			a.t.Errorf("%s says %q", a.what, text)
		}
	}
	return a
}

// leads checks that the answer leads to a path.
func (a answer) leads(path string) {
	a.t.Helper()
	if a.Code != http.StatusSeeOther || a.Header().Get("Location") != path {
		a.t.Errorf("%s: status %d, to %q, want %q: %s", a.what, a.Code, a.Header().Get("Location"), path, a.Body)
	}
}

// find returns what the first group of a pattern matches.
func (a answer) find(pattern string) string {
	a.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(html.UnescapeString(a.Body.String()))
	if m == nil {
		a.t.Fatalf("%s has no %q: %s", a.what, pattern, a.Body)
	}
	return m[1]
}

// enrol has a user set up an app by the pages, and returns its secret.
func (b *browser) enrol() string {
	b.w.t.Helper()
	b.post(totpPath).leads(totpPath)
	key := b.get(totpPath).says(http.StatusOK).find(`secret=([A-Z2-7]+)`)
	b.post(totpPath, "step", "confirm", "code", b.code(key)).leads(factorsPath)
	return key
}

func (b *browser) code(key string) string {
	b.w.t.Helper()
	return mfatest.Code(b.w.t, key, b.w.clock.now())
}

// wrong is a code that is none of the key's.
func (b *browser) wrong(key string) string {
	for _, code := range []string{"000000", "111111", "222222", "333333"} {
		ok := true
		for d := -2; d <= 2; d++ {
			ok = ok && mfatest.Code(b.w.t, key, b.w.clock.now().Add(time.Duration(d)*mfatest.Step)) != code
		}
		if ok {
			return code
		}
	}
	panic("four codes at once")
}

// overview is what a user has of second factors.
func (w *world) overview(u store.User) mfa.Overview {
	w.t.Helper()
	o, err := w.factors.Overview(w.t.Context(), directory.System(), u.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// remembered begins a session of a user on a device that needed no second factor, and returns its
// cookie.
func (w *world) remembered(u store.User) string {
	w.t.Helper()
	now, err := w.store.User(w.t.Context(), u.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	_, cookie, _, err := w.login.Sessions.StartBrowser(w.t.Context(), now.ID, now.Epoch, "192.0.2.7", firefox, func(s *session.Session) error {
		s.AMR, s.AuthTime, s.Remembered = []string{"pwd"}, s.CreatedAt, true
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return cookie
}
