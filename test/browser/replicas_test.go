package browser

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A site is a page and two replicas on one PostgreSQL, all at one origin of a load balancer,
// which gives each request to the other replica than the one before.
type site struct {
	*Browser
	kit.Client // asks the load balancer from outside of the browser
	origin     string
	first      *replica.World
	kill       func() // the second replica
	killed     bool
	last       string // the replica that answered last
}

func newSite(t *testing.T, change func(*config.Config)) *site {
	t.Helper()
	var urls []string
	var listeners []net.Listener
	for range 2 {
		url, l := replica.Listen(t)
		urls, listeners = append(urls, strings.TrimPrefix(url, "http://")), append(listeners, l)
	}
	// No checks: until a replica is killed, both have their turns.
	balancer := testenv.StartProxy(t, map[string]string{"haproxy.cfg": `global
  maxconn 500
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 20s
  option redispatch 1
  retries 2
  http-reuse never
frontend front
  bind LISTEN
  http-after-response set-header X-Served-By %s
  use_backend replicas if { path_beg /api/ }
  default_backend page
backend page
  server page 127.0.0.1:` + blankPage(t) + `
backend replicas
  balance roundrobin
  option forwardfor
  server first ` + urls[0] + `
  server second ` + urls[1] + `
`}, "haproxy", "-db", "-f", "DIR/haproxy.cfg")
	_, port, err := net.SplitHostPort(balancer.Addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Browser: New(t), Client: kit.Client{T: t, URL: balancer.URL}, origin: "http://localhost:" + port}
	database := testenv.Postgres(t)
	for i, l := range listeners {
		w := replica.Join(t, database, func(c *config.Config) {
			kit.StoredKeys(c)
			c.MFA.Passkeys.RPID, c.MFA.Passkeys.Origins = "localhost", []string{s.origin}
			if change != nil {
				change(c)
			}
		})
		stop := replica.Serve(t, l, w.Server.Config.Handler)
		if i == 0 {
			s.first, s.Log = w, w.Log
		}
		s.kill = func() { s.killed = true; stop() }
	}
	s.Open(s.origin)
	return s
}

// turn fails unless a request was answered by the other replica than the one before.
func (s *site) turn(a kit.Answer) kit.Answer {
	s.T.Helper()
	by := a.Header.Get("X-Served-By")
	if alone := s.killed && by == "first"; !alone && (by == s.last || by != "first" && by != "second") {
		s.T.Errorf("%q answered after %q", by, s.last)
	}
	s.last = by
	return a
}

// fetch is a request of the page.
func (s *site) fetch(method, path, token string, body any) kit.Answer {
	s.T.Helper()
	got, err := s.Run(`const headers = {};
		if (x.body !== null) headers['Content-Type'] = 'application/json';
		if (x.token) headers.Authorization = 'Bearer ' + x.token;
		const a = await fetch(x.path, {method: x.method, headers, body: x.body === null ? undefined : JSON.stringify(x.body)});
		return {status: a.status, by: a.headers.get('X-Served-By'), text: await a.text()}`,
		map[string]any{"method": method, "path": path, "token": token, "body": body})
	if err != nil {
		s.T.Fatal(err)
	}
	var a struct {
		Status   int
		By, Text string
	}
	if err := json.Unmarshal(got, &a); err != nil {
		s.T.Fatal(err)
	}
	return s.turn(kit.Answer{Status: a.Status, Header: http.Header{"X-Served-By": {a.By}}, Body: []byte(a.Text)})
}

// relay is a request of somebody else than the page, with what a browser has made.
func (s *site) relay(method, path, token string, body any) kit.Answer {
	s.T.Helper()
	return s.turn(s.Do(method, path, token, body))
}

func (s *site) granted(a kit.Answer) httpapi.Grant {
	s.T.Helper()
	return kit.Decode[httpapi.Grant](s.T, s.Want(a, 200, ""))
}

// options are what an answer gives for the browser.
func (s *site) options(a kit.Answer) json.RawMessage {
	s.T.Helper()
	return s.Want(a, 200, "").Body
}

// made is what the browser makes of options.
func (s *site) made(credential json.RawMessage, err error) json.RawMessage {
	s.T.Helper()
	if err != nil {
		s.T.Fatal(err)
	}
	return credential
}

// enrol gives the holder of a token a passkey.
func (s *site) enrol(token, name string) httpapi.Grant {
	s.T.Helper()
	credential := s.made(s.Create(s.options(s.fetch("POST", "/api/mfa/passkeys", token, nil))))
	return s.granted(s.fetch("POST", "/api/mfa/passkeys/confirm", token, httpapi.NewPasskey{Name: name, Credential: credential}))
}

// challenged logs a user in by password, who is asked for more.
func (s *site) challenged(name string) httpapi.LoginRefusal {
	s.T.Helper()
	return kit.Decode[httpapi.LoginRefusal](s.T, s.Want(s.fetch("POST", "/api/login", "", httpapi.LoginRequest{Username: name, Password: kit.Password}), 401, "mfa_required"))
}

// second begins a login of a user whose second factor is a passkey, and returns the answer by
// that.
func (s *site) second(name string) httpapi.MFARequest {
	s.T.Helper()
	c := s.challenged(name)
	options := s.options(s.fetch("POST", "/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: c.MFAToken}))
	return httpapi.MFARequest{MFAToken: c.MFAToken, Method: "passkey", Credential: s.made(s.Get(options))}
}

func (s *site) finish(in httpapi.MFARequest) kit.Answer {
	s.T.Helper()
	return s.fetch("POST", "/api/login/mfa", "", in)
}

// alone begins a login by passkey alone.
func (s *site) alone() httpapi.PasskeyLogin {
	s.T.Helper()
	return httpapi.PasskeyLogin{Credential: s.made(s.Get(s.options(s.fetch("POST", "/api/login/passkey/options", "", nil))))}
}

func (s *site) finishAlone(in httpapi.PasskeyLogin) kit.Answer {
	s.T.Helper()
	return s.fetch("POST", "/api/login/passkey", "", in)
}

// stepUp authenticates the holder of a token once more by a passkey.
func (s *site) stepUp(token string) httpapi.SteppedUp {
	s.T.Helper()
	credential := s.made(s.Get(s.options(s.fetch("POST", "/api/login/step-up/options", token, nil))))
	a := s.fetch("POST", "/api/login/step-up", token, httpapi.StepUp{Method: "passkey", Credential: credential})
	return kit.Decode[httpapi.SteppedUp](s.T, s.Want(a, 200, ""))
}

// says fails unless a token says how its user has authenticated.
func (s *site) says(token, acr string, amr ...string) {
	s.T.Helper()
	got := kit.Decode[struct {
		AMR []string `json:"amr"`
		ACR string   `json:"acr"`
	}](s.T, s.Want(s.fetch("GET", "/api/verify", token, nil), 200, ""))
	if got.ACR != acr || !slices.Equal(got.AMR, amr) {
		s.T.Errorf("the token says amr %v and acr %s, want %v and %s", got.AMR, got.ACR, amr, acr)
	}
}

// passkeys are the user's, without what is different each time.
func (s *site) passkeys(token string) (ids, all []string) {
	s.T.Helper()
	for _, f := range kit.Decode[httpapi.FactorList](s.T, s.Want(s.fetch("GET", "/api/mfa", token, nil), 200, "")).Factors {
		ids, all = append(ids, f.ID), append(all, fmt.Sprintf("%s %q synced=%t %v %s", f.Method, f.Name, *f.Synced, f.Transports, f.Warning))
	}
	return ids, all
}

// has fails unless the passkeys of the user are these.
func (s *site) has(token string, want ...string) (ids []string) {
	s.T.Helper()
	ids, got := s.passkeys(token)
	if !slices.Equal(got, want) {
		s.T.Errorf("the user has %q, want %q", got, want)
	}
	return ids
}

// What a user does with passkeys in a real browser works although each request meets another
// replica than the one before it.
func TestPasskeysOverReplicas(t *testing.T) {
	s := newSite(t, nil)
	s.first.User("alice")
	laptop := s.AddAuthenticator(Options{})
	g := s.granted(s.fetch("POST", "/api/login", "", httpapi.LoginRequest{Username: "alice", Password: kit.Password}))
	s.says(g.AccessToken, "aal1", "pwd")
	g = s.enrol(g.AccessToken, "Laptop")
	s.says(g.AccessToken, "aal2", "hwk", "mfa", "pwd", "user")
	s.has(g.AccessToken, `passkey "Laptop" synced=false [internal] `)

	if c := s.challenged("alice"); !slices.Equal(c.Methods, []string{"passkey"}) || len(c.Enrol) > 0 {
		t.Errorf("asked for %+v", c)
	}
	s.says(s.granted(s.finish(s.second("alice"))).AccessToken, "aal2", "hwk", "mfa", "pwd", "user")
	alone := s.granted(s.finishAlone(s.alone()))
	s.says(alone.AccessToken, "aal2", "hwk", "mfa", "user")
	up := s.stepUp(alone.AccessToken)
	s.says(up.AccessToken, "aal2", "hwk", "mfa", "user")
	if up.SessionID != alone.SessionID {
		t.Errorf("stepped up in session %s, and logged in to %s", up.SessionID, alone.SessionID)
	}

	// A second one, which is synced. The laptop is excluded, and makes no other.
	_, err := s.Create(s.options(s.fetch("POST", "/api/mfa/passkeys", up.AccessToken, nil)))
	if e, ok := err.(*Exception); !ok || e.Name != "InvalidStateError" {
		t.Errorf("the authenticator made another passkey: %v", err)
	}
	held := laptop.Credentials()
	laptop.Remove()
	cloud := s.AddAuthenticator(Options{Synced: true})
	g = s.enrol(up.AccessToken, "")
	s.says(g.AccessToken, "aal2", "hwk", "mfa", "swk", "user")
	s.says(s.granted(s.finish(s.second("alice"))).AccessToken, "aal2", "mfa", "pwd", "swk", "user")
	s.says(s.granted(s.finishAlone(s.alone())).AccessToken, "aal2", "mfa", "swk", "user")

	ids := s.has(g.AccessToken, `passkey "Laptop" synced=false [internal] `, `passkey "Passkey 2" synced=true [internal] `)
	s.Want(s.fetch("PATCH", "/api/mfa/passkeys/"+ids[1], g.AccessToken, httpapi.PasskeyName{Name: "Cloud"}), 204, "")
	s.has(g.AccessToken, `passkey "Laptop" synced=false [internal] `, `passkey "Cloud" synced=true [internal] `)

	// What was removed logs in no more; what is left does.
	g = s.granted(s.fetch("DELETE", "/api/mfa/passkeys/"+ids[1], g.AccessToken, nil))
	s.has(g.AccessToken, `passkey "Laptop" synced=false [internal] `)
	s.Want(s.finishAlone(s.alone()), 401, "passkey_refused")
	begun := s.challenged("alice")
	_, err = s.Get(s.options(s.fetch("POST", "/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: begun.MFAToken})))
	if e, ok := err.(*Exception); !ok || e.Name != "NotAllowedError" {
		t.Errorf("the removed passkey was asked for: %v", err)
	}
	cloud.Remove()
	s.AddAuthenticator(Options{}).Put(held[0])
	s.granted(s.finish(s.second("alice")))
	g = s.granted(s.fetch("DELETE", "/api/mfa/passkeys/"+ids[0], g.AccessToken, nil))
	s.has(g.AccessToken)
	s.says(s.granted(s.fetch("POST", "/api/login", "", httpapi.LoginRequest{Username: "alice", Password: kit.Password})).AccessToken, "aal1", "pwd")
}

// A user who must have a second factor enrols a passkey in the course of the login. When the
// replica that has begun a ceremony dies, the other one finishes it.
func TestEnrolmentAndADeadReplica(t *testing.T) {
	s := newSite(t, func(c *config.Config) { c.MFA.Required.Mode = config.RequiredAlways })
	s.first.User("alice")
	s.first.User("bob")
	s.AddAuthenticator(Options{})
	enrol := func(name string) (begun func() httpapi.MFARequest) {
		c := s.challenged(name)
		if !slices.Equal(c.Enrol, []string{"totp", "passkey"}) || len(c.Methods) > 0 {
			t.Errorf("asked for %+v", c)
		}
		options := s.options(s.fetch("POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: c.MFAToken, Method: "passkey"}))
		return func() httpapi.MFARequest {
			return httpapi.MFARequest{MFAToken: c.MFAToken, Method: "passkey", Credential: s.made(s.Create(options))}
		}
	}
	in := enrol("alice")()
	alice := s.granted(s.finish(in))
	s.says(alice.AccessToken, "aal2", "hwk", "mfa", "pwd", "user")
	s.Want(s.finish(in), 401, "invalid_mfa_token")
	s.says(s.granted(s.finish(s.second("alice"))).AccessToken, "aal2", "hwk", "mfa", "pwd", "user")

	// One ceremony of each kind; each replica has begun some of them.
	bob := enrol("bob")
	second, alone := s.second("alice"), s.alone()
	stepUp := s.options(s.fetch("POST", "/api/login/step-up/options", alice.AccessToken, nil))
	mine := s.options(s.fetch("POST", "/api/mfa/passkeys", alice.AccessToken, nil))
	s.kill()
	s.granted(s.finish(bob()))
	s.granted(s.finish(second))
	s.granted(s.finishAlone(alone))
	credential := s.made(s.Get(stepUp))
	s.Want(s.fetch("POST", "/api/login/step-up", alice.AccessToken, httpapi.StepUp{Method: "passkey", Credential: credential}), 200, "")
	s.AddAuthenticator(Options{Transport: "usb"})
	credential = s.made(s.Create(mine))
	g := s.granted(s.fetch("POST", "/api/mfa/passkeys/confirm", alice.AccessToken, httpapi.NewPasskey{Credential: credential}))
	s.has(g.AccessToken, `passkey "Passkey 1" synced=false [internal] `, `passkey "Passkey 2" synced=false [usb] `)
}

// What a thief, a phishing page or an impatient user does with passkeys is refused, at whichever
// replica.
func TestRefusalsOverReplicas(t *testing.T) {
	s := newSite(t, nil)
	s.first.User("alice")
	device := s.AddAuthenticator(Options{})
	g := s.enrol(s.granted(s.fetch("POST", "/api/login", "", httpapi.LoginRequest{Username: "alice", Password: kit.Password})).AccessToken, "Laptop")
	fine, warned := `passkey "Laptop" synced=false [internal] `, `passkey "Laptop" synced=false [internal] counter_went_back`

	// One assertion twice: after one answer, and at the same moment.
	again := func(method string, path string, first kit.Answer, in any, code string) {
		t.Helper()
		s.Want(first, 200, "")
		for range 2 {
			s.Want(s.fetch(method, path, "", in), 401, code)
		}
	}
	second := s.second("alice")
	again("POST", "/api/login/mfa", s.finish(second), second, "invalid_mfa_token")
	alone := s.alone()
	again("POST", "/api/login/passkey", s.finishAlone(alone), alone, "passkey_refused")
	s.atOnce("/api/login/mfa", "", s.second("alice"), 401)
	s.atOnce("/api/login/passkey", "", s.alone(), 401)
	up := s.made(s.Get(s.options(s.fetch("POST", "/api/login/step-up/options", g.AccessToken, nil))))
	s.atOnce("/api/login/step-up", g.AccessToken, httpapi.StepUp{Method: "passkey", Credential: up}, 401, 409) // nothing_pending
	s.has(g.AccessToken, fine)                                                                                 // none of it is a copy's

	// An assertion is for its own ceremony alone.
	other := s.second("alice")
	other.MFAToken = s.challenged("alice").MFAToken
	s.options(s.fetch("POST", "/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: other.MFAToken}))
	s.Want(s.finish(other), 401, "passkey_refused")
	s.Want(s.finishAlone(httpapi.PasskeyLogin{Credential: s.second("alice").Credential}), 401, "passkey_refused")

	// The user is not verified. A browser that asks for that makes nothing; one that a thief has
	// changed makes what logs nobody in by itself, and is a second factor all the same.
	device.SetVerified(false)
	discouraged := func(options json.RawMessage) json.RawMessage {
		return []byte(strings.NewReplacer(`"required"`, `"discouraged"`, `"preferred"`, `"discouraged"`).Replace(string(options)))
	}
	options := s.options(s.fetch("POST", "/api/login/passkey/options", "", nil))
	if _, err := s.Get(options); err == nil {
		t.Error("the browser has not verified the user")
	}
	s.Want(s.finishAlone(httpapi.PasskeyLogin{Credential: s.made(s.Get(discouraged(options)))}), 401, "passkey_refused")
	c := s.challenged("alice")
	options = s.options(s.fetch("POST", "/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: c.MFAToken}))
	touched := s.made(s.Get(discouraged(options)))
	s.says(s.granted(s.finish(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "passkey", Credential: touched})).AccessToken, "aal2", "hwk", "mfa", "pwd", "user")
	device.SetVerified(true)

	// A page at another port, which may use the relying party id, and passes on what it gets.
	s.Open("http://localhost:" + blankPage(t))
	phished := s.options(s.relay("POST", "/api/login/passkey/options", "", nil))
	s.Want(s.relay("POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: s.made(s.Get(phished))}), 401, "passkey_refused")
	c = kit.Decode[httpapi.LoginRefusal](t, s.Want(s.relay("POST", "/api/login", "", httpapi.LoginRequest{Username: "alice", Password: kit.Password}), 401, "mfa_required"))
	phished = s.options(s.relay("POST", "/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: c.MFAToken}))
	s.Want(s.relay("POST", "/api/login/mfa", "", httpapi.MFARequest{MFAToken: c.MFAToken, Method: "passkey", Credential: s.made(s.Get(phished))}), 401, "passkey_refused")
	s.Open(s.origin)
	s.has(g.AccessToken, fine)

	// A copy, whose counter has not come as far. The warning stays when the device itself logs in.
	id := device.Credentials()[0].ID
	for _, finish := range []func() kit.Answer{
		func() kit.Answer { return s.finish(s.second("alice")) },
		func() kit.Answer { return s.finishAlone(s.alone()) },
	} {
		device.SetCounter(id, 1)
		s.Want(finish(), 401, "passkey_counter")
		s.has(g.AccessToken, warned)
	}
	device.SetCounter(id, 1000)
	s.Want(s.finish(s.second("alice")), 200, "")
	s.has(g.AccessToken, warned)
}

// atOnce posts the same twenty times at once, ten times to each replica. One is answered 200, the
// others as refusals.
func (s *site) atOnce(path, token string, body any, refusals ...int) {
	s.T.Helper()
	const posts = 20
	answers := make([]kit.Answer, posts)
	errs := make([]error, posts)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range posts {
		r := s.Request("POST", path, token, body)
		all.Go(func() {
			<-begin
			answers[i], errs[i] = s.Try(r)
		})
	}
	close(begin)
	all.Wait()
	accepted, statuses, servers := 0, make(map[int]int), make(map[string]int)
	for i, a := range answers {
		if errs[i] != nil {
			s.T.Fatal(errs[i])
		}
		if a.Status == 200 {
			accepted++
		} else if !slices.Contains(refusals, a.Status) {
			s.T.Errorf("%s at once: %d %s", path, a.Status, a.Body)
		}
		statuses[a.Status]++
		servers[a.Header.Get("X-Served-By")]++
	}
	if accepted != 1 || servers["first"] != posts/2 || servers["second"] != posts/2 {
		s.T.Errorf("%s at once: by status %v, by replica %v", path, statuses, servers)
	}
}
