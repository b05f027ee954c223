package browser

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/problem"
)

// world is a page at localhost, a service whose passkeys it uses, and a user.
type world struct {
	*Browser
	t      *testing.T
	port   string
	party  *passkey.Party
	user   passkey.User
	origin string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	port := blankPage(t)
	origin := "http://localhost:" + port
	party, err := passkey.New(passkey.Config{ID: "localhost", Name: "Watchword", Origins: []string{origin}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{New(t), t, port, party, passkey.User{ID: "0192f3a0-0000-7000-8000-00000000a11c", Name: "alice", DisplayName: "Alice"}, origin}
	w.Open(origin)
	return w
}

// blankPage serves a page, and returns the port.
func blankPage(t *testing.T) string {
	t.Helper()
	return serve(t, httptest.NewServer)
}

func serve(t *testing.T, start func(http.Handler) *httptest.Server) (port string) {
	t.Helper()
	server := start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>passkeys</title>")
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (w *world) register() passkey.Credential {
	w.t.Helper()
	options, ceremony, err := w.party.BeginRegistration(w.user)
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := w.Create(options)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.party.FinishRegistration(w.user, ceremony, response)
	if err != nil {
		w.t.Fatalf("%v of %s", err, response)
	}
	w.user.Credentials = append(w.user.Credentials, c)
	return c
}

// second logs in with a passkey as the second factor.
func (w *world) second() (passkey.Credential, passkey.Proof, error) {
	w.t.Helper()
	options, ceremony, err := w.party.BeginLogin(w.user)
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := w.Get(options)
	if err != nil {
		return passkey.Credential{}, passkey.Proof{}, err
	}
	return w.keep(w.party.FinishLogin(w.user, ceremony, response))
}

// alone logs in with a passkey alone.
func (w *world) alone() (passkey.Credential, passkey.Proof, error) {
	w.t.Helper()
	options, ceremony, challenge, err := w.party.BeginDiscoverable()
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := w.Get(options)
	if err != nil {
		return passkey.Credential{}, passkey.Proof{}, err
	}
	claimed, err := passkey.Peek(response)
	if err != nil || string(claimed.Challenge) != string(challenge) || claimed.UserHandle != w.user.ID {
		w.t.Errorf("the response claims %+v, %v", claimed, err)
	}
	return w.keep(w.party.FinishDiscoverable(w.user, ceremony, response))
}

// keep keeps the credential as a database would.
func (w *world) keep(c passkey.Credential, proof passkey.Proof, err error) (passkey.Credential, passkey.Proof, error) {
	if err == nil {
		text, err := json.Marshal(c)
		if err != nil {
			w.t.Fatal(err)
		}
		i := slices.IndexFunc(w.user.Credentials, func(k passkey.Credential) bool { return string(k.ID()) == string(c.ID()) })
		if err := json.Unmarshal(text, &w.user.Credentials[i]); err != nil {
			w.t.Fatal(err)
		}
	}
	return c, proof, err
}

func (w *world) refused(err error, want *problem.Error) {
	w.t.Helper()
	if !errors.Is(err, want) {
		w.t.Errorf("got %v, want %s", err, want.Code)
	}
}

func (w *world) thrown(err error, name string) {
	w.t.Helper()
	var e *Exception
	if !errors.As(err, &e) || e.Name != name {
		w.t.Errorf("got %v, want a %s", err, name)
	}
}

// A passkey registers, is a second factor, and logs in alone, in a real browser. The service
// sees its counter go back and its origin change, and the browser itself refuses what is not
// for this page.
func TestPasskey(t *testing.T) {
	w := newWorld(t)
	device := w.AddAuthenticator(Options{})
	c := w.register()
	if c.Synced() || !c.UserVerified() || !slices.Equal(c.Transports(), []string{"internal"}) {
		t.Errorf("registered as %+v", c)
	}
	if held := device.Credentials(); len(held) != 1 || string(held[0].ID) != string(c.ID()) || !held[0].Resident || string(held[0].UserHandle) != w.user.ID {
		t.Errorf("the authenticator holds %+v", held)
	}
	first, proof, err := w.second()
	if err != nil || !proof.UserVerified || first.SignCount() <= c.SignCount() {
		t.Errorf("%+v, %+v, %v", first, proof, err)
	}
	next, proof, err := w.alone()
	if err != nil || !proof.UserVerified || next.SignCount() <= first.SignCount() {
		t.Errorf("%+v, %+v, %v", next, proof, err)
	}

	// The same authenticator does not register twice.
	options, _, err := w.party.BeginRegistration(w.user)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Create(options)
	w.thrown(err, "InvalidStateError")

	// A counter that goes back.
	device.SetCounter(c.ID(), 0)
	warned, _, err := w.second()
	w.refused(err, passkey.ErrCounter)
	if !warned.CloneWarning() {
		t.Error("there is no warning")
	}
	device.SetCounter(c.ID(), 50)
	if _, _, err := w.second(); err != nil {
		t.Error(err)
	}

	// The user's verification fails: the browser does not log in alone.
	device.SetVerified(false)
	_, _, err = w.alone()
	w.thrown(err, "NotAllowedError")
	device.SetVerified(true)

	// Another origin that may use the relying party id and is not listed; those that may not.
	w.Open("http://localhost:" + blankPage(t))
	_, _, err = w.alone()
	w.refused(err, passkey.ErrRefused)
	_, _, err = w.second()
	w.refused(err, passkey.ErrRefused)
	for _, host := range []string{"other.localhost", "127.0.0.1"} {
		w.Open("http://" + host + ":" + w.port)
		_, _, err = w.alone()
		w.thrown(err, "SecurityError")
	}
	w.Open(w.origin)

	// What the service has forgotten, and what the authenticator has.
	known := w.user.Credentials
	w.user.Credentials = nil
	_, _, err = w.alone()
	w.refused(err, passkey.ErrRefused)
	w.user.Credentials = known
	if _, _, err := w.alone(); err != nil {
		t.Error(err)
	}
	device.RemoveCredential(c.ID())
	_, _, err = w.second()
	w.thrown(err, "NotAllowedError")
}

// Synced passkeys count nothing, security keys without a PIN are second factors and no more,
// and so are those from before CTAP 2.
func TestAuthenticators(t *testing.T) {
	w := newWorld(t)
	synced := w.AddAuthenticator(Options{Synced: true})
	c := w.register()
	if !c.Synced() {
		t.Errorf("registered as %+v", c)
	}
	if _, _, err := w.alone(); err != nil {
		t.Error(err)
	}
	synced.Remove()
	for name, o := range map[string]Options{"no PIN": {Transport: "usb", NotResident: true, NotVerified: true}, "U2F": {Transport: "usb", U2F: true, NotResident: true, NotVerified: true}} {
		w.user.Credentials = nil
		key := w.AddAuthenticator(o)
		if c := w.register(); c.Synced() || c.UserVerified() {
			t.Errorf("%s: registered as %+v", name, c)
		}
		if _, proof, err := w.second(); err != nil || proof.UserVerified {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
		_, _, err := w.alone()
		w.thrown(err, "NotAllowedError")
		key.Remove()
	}
}

// A passkey of a domain works on the hosts below it, and the service accepts those that it
// lists.
func TestSubdomains(t *testing.T) {
	port := serve(t, httptest.NewTLSServer)
	origin := "https://login.example.test:" + port
	party, err := passkey.New(passkey.Config{ID: "example.test", Name: "Watchword", Origins: []string{origin, "https://example.test:" + port}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{New(t), t, port, party, passkey.User{ID: "0192f3a0-0000-7000-8000-00000000a11c", Name: "alice", DisplayName: "Alice"}, origin}
	w.Open(origin)
	w.AddAuthenticator(Options{})
	w.register()
	for _, host := range []string{"login.example.test", "example.test"} {
		w.Open("https://" + host + ":" + port)
		if _, _, err := w.alone(); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	w.Open("https://shop.example.test:" + port)
	_, _, err = w.alone()
	w.refused(err, passkey.ErrRefused)
	w.Open("https://login.other.test:" + port)
	_, _, err = w.alone()
	w.thrown(err, "SecurityError")
}
