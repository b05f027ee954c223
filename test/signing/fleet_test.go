package signing

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
	"github.com/watchword-auth/watchword/verify"
)

// users are how many log in.
const users = 8

// A member is a replica of a fleet, and its way to the database.
type member struct {
	*replica.World
	name string
	link *testenv.Link

	reloaded *config.Config // of the next start; nil: Config, which the replica reads as long as it runs

	requests sync.RWMutex // held for reading while a request is under way, for writing while the replica changes
	up       bool         // guarded by requests
}

// ready reports whether a balancer would send traffic to the replica. The caller holds requests.
func (m *member) ready() bool { return m.up && m.node().Ready() == nil }

func (m *member) node() *app.Node { return m.Replica.(*app.Node) }

// An issued token must be accepted until it expires.
type issued struct {
	text, kid string
	expires   time.Time
}

// A fleet is three replicas on one database behind a balancer, clients that log in, renew and
// verify all the time, and a resource server.
type fleet struct {
	t        *testing.T
	members  []*member
	front    *httptest.Server
	resource *verify.Verifier

	mu     sync.Mutex
	tokens []issued
	wrong  []string // what was refused, or failed, and why

	verified, refused, failed, renewed atomic.Int64

	stop context.CancelFunc
	load sync.WaitGroup
}

// settings are those of each replica.
func settings(cfg *config.Config) {
	cfg.Tokens.KeySetMaxAge, cfg.Tokens.KeyPublishAhead = time.Second, 1500*time.Millisecond
	cfg.Tokens.TokenDuration, cfg.Tokens.KeyDuration = time.Minute, time.Hour
	cfg.Revocation.Poll = 200 * time.Millisecond
	cfg.Sessions.MaxPerUser = 1_000_000
	cfg.Server.MaxRequestsPerUser = 1000
	cfg.Database.MaxConnections = 6
}

// newFleet starts three replicas with the settings, and the load. The secrets are those of the
// resource server.
func newFleet(t *testing.T, change func(*config.Config), secrets ...string) *fleet {
	t.Helper()
	f := &fleet{t: t}
	database := testenv.Postgres(t)
	for i := range 3 {
		m := &member{name: fmt.Sprintf("auth-%d", i)}
		url := database
		m.link, url = replica.Link(t, database)
		m.World = replica.JoinWith(t, url, replica.Options{Quiet: true, Early: true}, func(cfg *config.Config) {
			settings(cfg)
			cfg.Cluster.InstanceID = m.name
			change(cfg)
		})
		m.up = true
		f.members = append(f.members, m)
	}
	for _, m := range f.members { // which wait for each other at the same time
		m.IsReady()
	}
	for i := range users {
		f.members[0].User(fmt.Sprint("user", i))
	}
	f.front = httptest.NewServer(http.HandlerFunc(f.balance))
	t.Cleanup(f.front.Close)
	issuer := f.members[0].Config.Tokens.Issuer
	var err error
	f.resource, err = verify.New(verify.Config{
		Issuer: issuer, Audience: f.members[0].Config.Tokens.Audience, Secrets: secrets, MaxStaleness: time.Minute,
		KeySetURL: f.front.URL + "/api/pkeys", RevocationsURL: f.front.URL + "/api/revocations",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.resource.Close)
	f.settle()
	f.again()
	t.Cleanup(func() { f.stop(); f.load.Wait() })
	return f
}

// again begins the load, and counts from zero.
func (f *fleet) again() {
	f.verified.Store(0)
	f.renewed.Store(0)
	ctx, stop := context.WithCancel(f.t.Context())
	f.stop = stop
	for i := range 2 {
		f.load.Go(func() { f.client(ctx, i) })
	}
	f.load.Go(func() { f.present(ctx) })
}

// settle waits until the resource server has its first key set and all revocations.
func (f *fleet) settle() {
	f.t.Helper()
	var token string
	f.with(func(m *member) { token = m.Login("user0").AccessToken })
	kit.Eventually(f.t, func() error {
		_, err := f.resource.Verify(f.t.Context(), token)
		return err
	})
}

// balance sends a request to a ready replica.
func (f *fleet) balance(w http.ResponseWriter, r *http.Request) {
	streams := strings.HasPrefix(r.URL.Path, "/api/revocations")
	for _, i := range rand.Perm(len(f.members)) {
		m := f.members[i]
		m.requests.RLock()
		ready := m.ready()
		handler := m.Handler
		if streams {
			m.requests.RUnlock() // it lasts for long; Drain ends it
		}
		if ready {
			handler.ServeHTTP(w, r)
		}
		if !streams {
			m.requests.RUnlock()
		}
		if ready {
			return
		}
	}
	http.Error(w, "no replica is ready", http.StatusServiceUnavailable)
}

// with calls a function with a ready replica, if there is one.
func (f *fleet) with(do func(m *member)) {
	for _, i := range rand.Perm(len(f.members)) {
		m := f.members[i]
		m.requests.RLock()
		ready := m.ready()
		if ready {
			do(m)
		}
		m.requests.RUnlock()
		if ready {
			return
		}
	}
}

// client logs in and renews at random replicas until ctx ends.
func (f *fleet) client(ctx context.Context, n int) {
	tick := time.NewTicker(80 * time.Millisecond)
	defer tick.Stop()
	refresh := ""
	for i := n; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.with(func(m *member) {
			var a kit.Answer
			if refresh == "" || i%4 == 0 {
				a = m.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: fmt.Sprint("user", i%users), Password: kit.Password})
			} else {
				_, a = m.Renew(refresh)
				f.renewed.Add(1)
			}
			refresh = ""
			if a.Status != 200 {
				f.note(&f.failed, "%s: a login or renewal answers %d %s", m.name, a.Status, a.Body)
				return
			}
			g := kit.Decode[httpapi.Grant](f.t, a)
			refresh = g.RefreshToken
			f.take(g)
		})
	}
}

func (f *fleet) take(g httpapi.Grant) {
	var claims struct {
		Expires int64 `json:"exp"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(g.AccessToken, ".")[1])
	if err = errors.Join(err, json.Unmarshal(payload, &claims)); err != nil {
		f.note(&f.failed, "a token without an end: %v", err)
		return
	}
	token := issued{g.AccessToken, kit.KeyID(f.t, g.AccessToken), time.Unix(claims.Expires, 0)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens = append(f.tokens, token)
}

// note counts what went wrong.
func (f *fleet) note(n *atomic.Int64, format string, args ...any) {
	n.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.wrong) < 20 {
		f.wrong = append(f.wrong, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
	}
}

// present presents tokens, most of them young ones, at random replicas and the resource server
// until ctx ends.
func (f *fleet) present(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		alive := f.alive()
		if len(alive) == 0 {
			continue
		}
		token := alive[rand.IntN(len(alive))]
		if young := alive[max(0, len(alive)-10):]; rand.IntN(2) == 0 {
			token = young[rand.IntN(len(young))]
		}
		f.with(func(m *member) { f.verify(m, token) })
		f.verifyOutside(token)
	}
}

// alive are the tokens that have not expired.
func (f *fleet) alive() []issued {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.tokens = slices.DeleteFunc(f.tokens, func(i issued) bool { return !now.Before(i.expires) })
	return slices.Clone(f.tokens)
}

// verify presents a token at a ready replica. The caller holds its requests.
func (f *fleet) verify(m *member, token issued) {
	a := m.Do("GET", "/api/verify", token.text, nil)
	if a.Status == 200 {
		f.verified.Add(1)
	} else if time.Now().Before(token.expires) {
		f.note(&f.refused, "%s: a token of %s is answered %d %s", m.name, token.kid, a.Status, a.Body)
	}
}

func (f *fleet) verifyOutside(token issued) {
	if _, err := f.resource.Verify(f.t.Context(), token.text); err == nil {
		f.verified.Add(1)
	} else if time.Now().Before(token.expires) {
		f.note(&f.refused, "the resource server: a token of %s: %v", token.kid, err)
	}
}

// some is how many tokens are presented everywhere after each step, besides those that are
// presented all the time.
const some = 100

// all presents tokens that have not expired at every ready replica and the resource server: the
// youngest ones, and some of the others.
func (f *fleet) all(step string) {
	f.t.Helper()
	alive := f.alive()
	if young := len(alive) - some/2; young > some/2 {
		others := alive[:young]
		rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		alive = alive[young-some/2:]
	}
	for _, m := range f.members {
		m.requests.RLock()
		if m.ready() {
			for _, token := range alive {
				f.verify(m, token)
			}
		}
		m.requests.RUnlock()
	}
	for _, token := range alive {
		f.verifyOutside(token)
	}
	if f.refused.Load()+f.failed.Load() > 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.t.Fatalf("after %s: %d tokens verified, %d refused, %d logins and renewals failed:\n%s",
			step, f.verified.Load(), f.refused.Load(), f.failed.Load(), strings.Join(f.wrong, "\n"))
	}
}

// report ends the load, and prints the counts.
func (f *fleet) report(what string) {
	f.t.Helper()
	f.stop()
	f.load.Wait()
	f.all("the last request")
	if f.renewed.Load() < 2 || f.verified.Load() < 100 {
		f.t.Errorf("there was hardly any load: %d renewals, %d tokens verified", f.renewed.Load(), f.verified.Load())
	}
	fmt.Printf("signing: %s over 3 replicas: %d tokens verified, %d refused\n", what, f.verified.Load(), f.refused.Load())
}

// restart ends a replica and starts it again with other settings.
func (f *fleet) restart(i int, change func(*config.Config)) {
	f.t.Helper()
	f.begin(i, change)
	f.members[i].IsReady()
	f.all("the restart of " + f.members[i].name)
}

// begin is restart that does not wait until the replica is ready.
func (f *fleet) begin(i int, change func(*config.Config)) {
	f.t.Helper()
	m := f.members[i]
	m.requests.Lock()
	defer m.requests.Unlock()
	if m.up {
		m.Stop()
	}
	m.change(change)
	m.Begin()
	m.up = true
}

// change gives the replica other settings.
func (m *member) change(change func(*config.Config)) {
	m.T.Helper()
	if m.reloaded != nil {
		*m.Config, m.reloaded = *m.reloaded, nil
	}
	change(m.Config)
	m.Config.Complete()
	if err := m.Config.Validate(); err != nil {
		m.T.Fatal(err)
	}
}

// kill ends a replica without a word to the others.
func (f *fleet) kill(i int) {
	m := f.members[i]
	m.requests.Lock()
	defer m.requests.Unlock()
	m.link.Set(testenv.Fault{Cut: true})
	m.Replica.Drain()
	_ = m.Replica.Close() // the database cannot be reached
	m.up = false
	m.link.Set(testenv.Fault{})
}

// reload gives a running replica other secrets, as when files have changed.
func (f *fleet) reload(i int, change func(*config.Config)) {
	f.t.Helper()
	m := f.members[i]
	next := *m.Config
	if m.reloaded != nil {
		next = *m.reloaded
	}
	change(&next)
	if err := next.Validate(); err != nil {
		f.t.Fatal(err)
	}
	m.node().Reload(&next)
	m.reloaded = &next
	f.all("new files of " + m.name)
}

// signs waits until every replica signs with a key that is as it should be.
func (f *fleet) signs(what string, is func(kid string) bool) {
	f.t.Helper()
	kit.Eventually(f.t, func() error {
		for _, m := range f.members {
			if kid := kit.KeyID(f.t, m.Login("user0").AccessToken); !is(kid) {
				return fmt.Errorf("%s signs with %s, want %s", m.name, kid, what)
			}
		}
		return nil
	})
	f.all("signing with " + what)
}

// expired waits until the last token of a key has expired.
func (f *fleet) expired(is func(kid string) bool) {
	f.t.Helper()
	kit.Await(f.t, "the end of the last token of a former key", func() bool {
		return !slices.ContainsFunc(f.alive(), func(i issued) bool { return is(i.kid) })
	})
}

// notReady waits until a replica says why it takes no traffic.
func (m *member) notReady(reason string) {
	m.T.Helper()
	kit.Eventually(m.T, func() error {
		a := m.Do("GET", "/readyz", "", nil)
		if a.Status != 503 || !strings.Contains(string(a.Body), reason) {
			return fmt.Errorf("%s: %d %s, want %q", m.name, a.Status, a.Body, reason)
		}
		if a.Header.Get("Retry-After") == "" {
			return errors.New("no Retry-After")
		}
		return nil
	})
}
