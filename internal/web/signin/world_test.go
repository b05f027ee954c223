package signin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
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
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const (
	secret = "correct horse battery"
	issuer = "https://login.test"
	// fresh is how old an authentication may be for what needs a fresh one.
	fresh = 10 * time.Minute
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

// A logbook is what was logged.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A world is a service with its pages, and a page that needs a session and one that needs a
// fresh one.
type world struct {
	t      *testing.T
	clock  *clock
	log    *logbook
	store  store.Store
	people *directory.Service
	login  *login.Service
	server *httptest.Server
	kit    *page.Kit
	away   atomic.Bool  // the shared state does not answer
	sent   []url.Values // to /account/note
}

// A flaky state does not answer while it is away.
type flaky struct {
	state.Store
	away *atomic.Bool
}

func (f *flaky) Get(ctx context.Context, k state.Key) (state.Record, error) {
	if f.away.Load() {
		return state.Record{}, state.ErrUnavailable
	}
	return f.Store.Get(ctx, k)
}

func (f *flaky) Create(ctx context.Context, k state.Key, value []byte, ttl time.Duration) (int64, error) {
	if f.away.Load() {
		return 0, state.ErrUnavailable
	}
	return f.Store.Create(ctx, k, value, ttl)
}

// A setting changes how a world is made.
type setting struct {
	policy   mfa.Policy
	limits   limit.Config
	remember time.Duration
}

func newWorld(t *testing.T, change func(*setting)) *world {
	t.Helper()
	var set setting
	set.remember = 30 * 24 * time.Hour
	if change != nil {
		change(&set)
	}
	// In the middle of a step of TOTP.
	w := &world{t: t, clock: &clock{t: time.Unix(1_800_000_015, 0)}, log: &logbook{}, store: sqlstore.New(sqldbtest.Open(t))}
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	view, err := revocation.NewView(revocation.Config{Store: w.store, Poll: 100 * time.Millisecond, MaxStaleness: time.Hour, Now: w.clock.now, Logger: logger})
	must(err)
	must(view.Refresh(t.Context()))
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); view.Run(ctx) }()
	t.Cleanup(func() { stop(); <-stopped })
	trail, err := audit.New(audit.Config{Store: w.store, Now: w.clock.now, Rand: rand.Reader, Logger: logger, Registerer: prometheus.NewRegistry()})
	must(err)
	box, err := seal.New(make([]byte, seal.KeySize))
	must(err)
	records := &flaky{Store: memstate.New(w.clock.now), away: &w.away}
	set.limits.Now, set.limits.State = w.clock.now, records
	limits := limittest.New(set.limits)
	hasher, err := password.New(password.Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 2, Queue: 256, Rand: rand.Reader, Now: w.clock.now})
	must(err)
	log := &revocation.Log{Store: w.store, View: view, Now: w.clock.now, Lifetimes: revocation.Lifetimes{Token: time.Hour, Session: 12 * time.Hour}}
	w.people = directory.New(directory.Config{
		Store: w.store, Hasher: hasher, Audit: trail, Revocations: log, Limits: limits, FreshFor: fresh, Now: w.clock.now, Rand: rand.Reader, Logger: logger,
	})
	party, err := passkey.New(passkey.Config{ID: "login.test", Name: "Test", Origins: []string{issuer}})
	must(err)
	factors := mfa.New(mfa.Config{
		Store: w.store, State: records, Box: box, People: w.people, Limits: limits, Audit: trail, Policy: set.policy, Party: party, Issuer: issuer,
		RememberDevice: set.remember, Now: w.clock.now, Rand: rand.Reader, Logger: logger, Registerer: prometheus.NewRegistry(),
	})
	w.login = login.New(login.Config{
		People: w.people, Store: w.store, View: view, Audit: trail, Limits: limits, Factors: factors, Revocations: log,
		Sessions: session.New(session.Config{
			State: records, TTL: 12 * time.Hour, RefreshDuration: time.Hour, RenewGrace: time.Minute, Now: w.clock.now, Rand: rand.Reader, Logger: logger,
		}),
		Issuer: issuer, Audience: []string{"https://api.test"}, TokenDuration: time.Hour, Now: w.clock.now, Rand: rand.Reader, Logger: logger, Registerer: prometheus.NewRegistry(),
	})
	kit, err := page.New(page.Config{Login: w.login, Limits: limits, Now: w.clock.now, Logger: logger, PublicURL: issuer})
	must(err)
	w.kit = kit
	Mount(kit, Config{Login: w.login, Factors: factors, Directory: w.people, RememberDevice: set.remember, Passkeys: true})
	hello := func(v *page.Visit) error {
		v.Writer.Header().Set("Content-Type", "text/plain")
		_, err := io.WriteString(v.Writer, "hello "+v.By.Token.Subject+" at "+v.Request.URL.RequestURI())
		return err
	}
	kit.Get("/account", page.SignedIn, hello)
	kit.Get("/account/note", page.SignedIn, hello)
	kit.Post("/account/note", page.SignedIn, func(v *page.Visit) error {
		w.sent = append(w.sent, v.Form())
		return v.Redirect("/account")
	})
	kit.Get("/account/fresh", page.SignedIn, func(v *page.Visit) error {
		if err := w.people.MayChangeOwn(v.Request.Context(), v.Actor()); err != nil {
			return err
		}
		return hello(v)
	})
	kit.Post("/account/fresh", page.SignedIn, func(v *page.Visit) error {
		if err := w.people.MayChangeOwn(v.Request.Context(), v.Actor()); err != nil {
			return err
		}
		w.sent = append(w.sent, v.Form())
		return v.Redirect("/account")
	})
	kit.Get("/admin", page.SignedIn, hello)
	kit.Post("/admin", page.SignedIn, hello)
	mux := http.NewServeMux()
	kit.Mount(mux)
	w.server = httptest.NewUnstartedServer(mux)
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	return w
}

// user makes a user of this name.
func (w *world) user(name string) store.User {
	w.t.Helper()
	u, err := w.people.CreateUser(w.t.Context(), directory.System(), directory.NewUser{Username: name, Password: secret})
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// An app is a user's authenticator app.
type app struct {
	w      *world
	secret string
}

// enrol has a user have an app.
func (w *world) enrol(u store.User) *app {
	w.t.Helper()
	actor := directory.Authenticated(u.ID, "", w.clock.now())
	e, err := w.login.Factors.BeginTOTP(w.t.Context(), actor)
	if err != nil {
		w.t.Fatal(err)
	}
	a := &app{w, e.Secret}
	now, err := w.store.User(w.t.Context(), u.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := w.login.Factors.ConfirmTOTP(w.t.Context(), actor, now.SessionEpoch, a.next()); err != nil {
		w.t.Fatal(err)
	}
	return a
}

// next waits for the next code.
func (a *app) next() string {
	a.w.clock.pass(mfatest.Step)
	return mfatest.Code(a.w.t, a.secret, a.w.clock.now())
}

// A browser has cookies, follows no redirects by itself, and knows the page that it shows.
type browser struct {
	w      *world
	client *http.Client
	jar    *cookiejar.Jar
	header http.Header // that it sends besides

	Status   int
	Location string
	Header   http.Header
	Body     string
}

func (w *world) browser() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	c := w.server.Client()
	return &browser{w: w, jar: jar, header: http.Header{}, client: &http.Client{
		Transport: c.Transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (b *browser) send(method, path, kind, body string) *browser {
	b.w.t.Helper()
	r, err := http.NewRequestWithContext(b.w.t.Context(), method, b.w.server.URL+path, strings.NewReader(body))
	if err != nil {
		b.w.t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for name, values := range b.header {
		r.Header[name] = values
	}
	res, err := b.client.Do(r)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.Status, b.Location, b.Header, b.Body = res.StatusCode, res.Header.Get("Location"), res.Header, string(text)
	return b
}

func (b *browser) get(path string) *browser {
	b.w.t.Helper()
	return b.send(http.MethodGet, path, "", "")
}

// has has the browser send these cookies and no others.
func (b *browser) has(cookies string) {
	b.client.Jar = nil
	b.header.Set("Cookie", cookies)
}

// follow follows the redirects of the last answer.
func (b *browser) follow() *browser {
	b.w.t.Helper()
	for range 8 {
		if b.Location == "" {
			return b
		}
		b.get(b.Location)
	}
	b.w.t.Fatalf("the redirects never end: %s", b.Location)
	return b
}

// post sends fields, given as pairs.
func (b *browser) post(path string, fields ...string) *browser {
	b.w.t.Helper()
	return b.send(http.MethodPost, path, "application/x-www-form-urlencoded", values(fields...).Encode())
}

func (b *browser) json(path, body string) *browser {
	b.w.t.Helper()
	return b.send(http.MethodPost, path, "application/json", body)
}

func values(fields ...string) url.Values {
	form := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return form
}

var (
	forms  = regexp.MustCompile(`(?s)<form method="post" action="([^"]*)".*?</form>`)
	inputs = regexp.MustCompile(`<input[^>]*>`)
	name   = regexp.MustCompile(` name="([^"]*)"`)
	value  = regexp.MustCompile(` value="([^"]*)"`)
)

// fill sends the form of the page that goes to this path, with these fields changed.
func (b *browser) fill(path string, fields ...string) *browser {
	b.w.t.Helper()
	return b.post(path, b.filled(path, fields...)...)
}

// filled returns the fields of a form of the page.
func (b *browser) filled(path string, fields ...string) []string {
	b.w.t.Helper()
	for _, f := range forms.FindAllStringSubmatch(b.Body, -1) {
		if html.UnescapeString(f[1]) != path {
			continue
		}
		form := url.Values{}
		for _, in := range inputs.FindAllString(f[0], -1) {
			n, v := name.FindStringSubmatch(in), value.FindStringSubmatch(in)
			if n == nil || strings.Contains(in, `type="checkbox"`) {
				continue
			}
			if v == nil {
				v = []string{"", ""}
			}
			form.Add(html.UnescapeString(n[1]), html.UnescapeString(v[1]))
		}
		for i := 0; i+1 < len(fields); i += 2 {
			form.Set(fields[i], fields[i+1])
		}
		var all []string
		for n, vs := range form {
			for _, v := range vs {
				all = append(all, n, v)
			}
		}
		return all
	}
	b.w.t.Fatalf("no form goes to %s:\n%d %s\n%s", path, b.Status, b.Location, b.Body)
	return nil
}

// wants fails unless the answer has this status and all these texts.
func (b *browser) wants(status int, texts ...string) *browser {
	b.w.t.Helper()
	if b.Status != status {
		b.w.t.Fatalf("status %d (to %q), not %d:\n%s", b.Status, b.Location, status, b.Body)
	}
	for _, text := range texts {
		if !strings.Contains(b.Body, text) {
			b.w.t.Fatalf("the answer has no %q:\n%s", text, b.Body)
		}
	}
	return b
}

// goes fails unless the answer leads to a path.
func (b *browser) goes(path string) *browser {
	b.w.t.Helper()
	if b.Status != http.StatusSeeOther || b.Location != path {
		b.w.t.Fatalf("status %d to %q, not 303 to %q:\n%s", b.Status, b.Location, path, b.Body)
	}
	return b
}

// cookie returns the value of one of the browser's cookies.
func (b *browser) cookie(c page.Cookie) string {
	u, err := url.Parse(b.w.server.URL)
	if err != nil {
		b.w.t.Fatal(err)
	}
	for _, one := range b.jar.Cookies(u) {
		if one.Name == "__Host-"+string(c) {
			return one.Value
		}
	}
	return ""
}

// signIn signs in by password.
func (b *browser) signIn(name string) *browser {
	b.w.t.Helper()
	return b.get("/signin?switch=1").fill("/signin", "username", name, "password", secret)
}

// waitingOfCookie returns the sign-in that waits in a browser.
func waitingOfCookie(t *testing.T, b *browser) *waiting {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(b.cookie(page.SignInCookie), pending))
	waits := &waiting{}
	if err != nil || json.Unmarshal(text, waits) != nil {
		t.Fatalf("%q, %v", text, err)
	}
	return waits
}

// cookieOf returns the cookie of a sign-in that waits.
func cookieOf(t *testing.T, waits *waiting) string {
	t.Helper()
	text, err := json.Marshal(waits)
	if err != nil {
		t.Fatal(err)
	}
	return pending + base64.RawURLEncoding.EncodeToString(text)
}
