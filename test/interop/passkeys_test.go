package interop

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/test/browser"
)

// A passkeyCase is one ceremony, for stacks/passkeys.mjs.
type passkeyCase struct {
	Name         string          `json:"name"`
	Options      json.RawMessage `json:"options"`
	Response     json.RawMessage `json:"response"`
	Registration *passkeyCase    `json:"registration,omitempty"` // of the credential that logs in
	Counter      uint32          `json:"counter"`                // before the login
	// What Watchword says of it.
	accepted bool
	ours     passkeyResult
}

// A passkeyResult is what stacks/passkeys.mjs says of one.
type passkeyResult struct {
	Name      string   `json:"name"`
	Accepted  bool     `json:"accepted"`
	Why       string   `json:"why"`
	Different []string `json:"different"` // members of the options that it would write otherwise
	Counter   uint32   `json:"counter"`   // after a login
	Verified  bool     `json:"verified"`  // whether the user was verified, in a login
	Synced    bool     `json:"synced"`
}

// passkeys makes the cases of one client, which create and get stand for.
type passkeys struct {
	t      *testing.T
	party  *passkey.Party
	user   passkey.User
	client string
	create func(json.RawMessage) (json.RawMessage, error)
	get    func(json.RawMessage) (json.RawMessage, error)
	cases  []*passkeyCase
}

func (p *passkeys) register(name string) *passkeyCase {
	p.t.Helper()
	options, ceremony, err := p.party.BeginRegistration(p.user)
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := p.create(options)
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := p.party.FinishRegistration(p.user, ceremony, response)
	one := &passkeyCase{Name: p.client + ": " + name, Options: options, Response: response, accepted: err == nil}
	if err == nil {
		p.user.Credentials = append(p.user.Credentials, c)
		one.ours.Synced = c.Synced()
	}
	p.cases = append(p.cases, one)
	return one
}

// login logs in with the last credential, as a second factor or alone.
func (p *passkeys) login(name string, registration *passkeyCase, alone bool) {
	p.t.Helper()
	u := p.user
	u.Credentials = u.Credentials[len(u.Credentials)-1:]
	begin, finish := func() (json.RawMessage, []byte, error) { return p.party.BeginLogin(u) }, p.party.FinishLogin
	if alone {
		finish = p.party.FinishDiscoverable
		begin = func() (json.RawMessage, []byte, error) {
			options, ceremony, _, err := p.party.BeginDiscoverable()
			return options, ceremony, err
		}
	}
	options, ceremony, err := begin()
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := p.get(options)
	if err != nil {
		p.t.Fatal(err)
	}
	c, proof, err := finish(u, ceremony, response)
	p.cases = append(p.cases, &passkeyCase{
		Name: fmt.Sprintf("%s: %s, alone=%t", p.client, name, alone), Options: options, Response: response, Registration: registration,
		Counter: u.Credentials[0].SignCount(), accepted: err == nil, ours: passkeyResult{Counter: c.SignCount(), Verified: proof.UserVerified, Synced: c.Synced()},
	})
	if err == nil {
		p.user.Credentials[len(p.user.Credentials)-1] = c
	}
}

// The ceremonies of passkeys are judged by another project's server too: it would write the
// same options, and says the same as Watchword of each response, of an authenticator in
// software and of a real browser, honest or not.
func TestPasskeys(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	origin := "http://localhost:" + port
	party, err := passkey.New(passkey.Config{ID: "localhost", Name: "Watchword", Origins: []string{origin}})
	if err != nil {
		t.Fatal(err)
	}
	user := passkey.User{ID: "0192f3a0-0000-7000-8000-00000000a11c", Name: "alice", DisplayName: "Alice"}
	var cases []*passkeyCase

	for name, algorithm := range map[string]int{"ES256": passkeytest.ES256, "EdDSA": passkeytest.EdDSA, "RS256": passkeytest.RS256} {
		for _, synced := range []bool{false, true} {
			a := &passkeytest.Authenticator{Origin: origin, Algorithm: algorithm, Verifies: true, Synced: synced, Transports: []string{"internal"}}
			p := &passkeys{t: t, party: party, user: user, client: fmt.Sprintf("%s, synced=%t", name, synced), create: a.Create, get: a.Get}
			registration := p.register("registration")
			p.login("login", registration, false)
			p.login("login", registration, true)
			cases = append(cases, p.cases...)
		}
	}

	// Lies on which both must agree. The first registration is an honest one, for the logins.
	for name, change := range map[string]func(*passkeytest.Answer){
		"origin":       func(a *passkeytest.Answer) { a.ClientData["origin"] = "https://example.org" },
		"port":         func(a *passkeytest.Answer) { a.ClientData["origin"] = "http://localhost:1" },
		"relying":      func(a *passkeytest.Answer) { a.RPID = "example.org" },
		"challenge":    func(a *passkeytest.Answer) { a.ClientData["challenge"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" },
		"type":         func(a *passkeytest.Answer) { a.ClientData["type"] = "payment.get" },
		"not present":  func(a *passkeytest.Answer) { a.Flags &^= passkeytest.Present },
		"backed up":    func(a *passkeytest.Answer) { a.Flags |= passkeytest.BackedUp },
		"not verified": func(a *passkeytest.Answer) { a.Flags &^= passkeytest.Verified },
		"format":       func(a *passkeytest.Answer) { a.Format = "quantum" },
		"statement": func(a *passkeytest.Answer) {
			a.Statement = func([]byte) []byte { return passkeytest.Map(passkeytest.Text("a"), passkeytest.Int(1)) }
		},
		"signature": func(a *passkeytest.Answer) {
			a.Signature = func([]byte) []byte { return make([]byte, 70) }
		},
		"counter":    func(a *passkeytest.Answer) { a.Counter = 0 },
		"top origin": func(a *passkeytest.Answer) { a.ClientData["topOrigin"] = "https://example.org" },
	} {
		a := &passkeytest.Authenticator{Origin: origin, Verifies: true, Transports: []string{"internal"}}
		p := &passkeys{t: t, party: party, user: user, client: "lie, " + name, create: a.Create, get: a.Get}
		if name != "top origin" { // which the other server reads in logins alone
			a.Change = change
			p.register("registration")
			a.Change, p.user = nil, user
		}
		registration := p.register("honest registration")
		p.login("honest login", registration, false)
		a.Change = change
		p.login("login", registration, false)
		p.login("login", registration, true)
		cases = append(cases, p.cases...)
	}

	b := browser.New(t)
	b.Open(origin)
	for _, o := range []browser.Options{{}, {Synced: true}} {
		device := b.AddAuthenticator(o)
		p := &passkeys{t: t, party: party, user: user, client: fmt.Sprintf("Chromium, synced=%t", o.Synced), create: b.Create, get: b.Get}
		registration := p.register("registration")
		p.login("login", registration, false)
		p.login("login", registration, true)
		cases = append(cases, p.cases...)
		device.Remove()
	}

	results := judgePasskeys(t, origin, cases)
	accepted := 0
	for i, c := range cases {
		r := results[i]
		if r.Name != c.Name || r.Accepted != c.accepted {
			t.Errorf("%s: accepted %t by Watchword, and %t by the other server: %s", c.Name, c.accepted, r.Accepted, r.Why)
			continue
		}
		if !r.Accepted {
			continue
		}
		accepted++
		if len(r.Different) != 0 || r.Counter != c.ours.Counter || r.Verified != c.ours.Verified || r.Synced != c.ours.Synced {
			t.Errorf("%s: Watchword says %+v, the other server %+v", c.Name, c.ours, r)
		}
	}
	if accepted < 40 || len(cases)-accepted < 25 {
		t.Errorf("only %d of %d ceremonies were accepted", accepted, len(cases))
	}
	t.Logf("%d ceremonies: both accept %d, and refuse %d", len(cases), accepted, len(cases)-accepted)
}

func judgePasskeys(t *testing.T, origin string, cases []*passkeyCase) (results []passkeyResult) {
	t.Helper()
	input, err := json.Marshal(map[string]any{"origin": origin, "rpID": "localhost", "cases": cases})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cases.json")
	if err := os.WriteFile(file, input, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "stacks/passkeys.mjs", file)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &results); err != nil || len(results) != len(cases) {
		t.Fatalf("%d results for %d cases, %v", len(results), len(cases), err)
	}
	return results
}
