package passkey

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/problem"
)

const origin = "https://login.example.com"

func party(t testing.TB) *Party {
	t.Helper()
	p, err := New(Config{ID: "example.com", Name: "Example", Origins: []string{origin, "https://example.com:8443"}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func alice(c ...Credential) User {
	return User{ID: "0192f3a0-0000-7000-8000-00000000a11c", Name: "alice", DisplayName: "Alice", Credentials: c}
}

// register registers a credential of the authenticator.
func register(t testing.TB, p *Party, u User, a *passkeytest.Authenticator) Credential {
	t.Helper()
	options, ceremony, err := p.BeginRegistration(u)
	if err != nil {
		t.Fatal(err)
	}
	response, err := a.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.FinishRegistration(u, ceremony, response)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answered begins a login as a second factor, or alone, and returns what the authenticator says.
func answered(t testing.TB, p *Party, u User, alone bool, a *passkeytest.Authenticator) (ceremony []byte, response json.RawMessage) {
	t.Helper()
	var options json.RawMessage
	var err error
	if alone {
		options, ceremony, _, err = p.BeginDiscoverable()
	} else {
		options, ceremony, err = p.BeginLogin(u)
	}
	if err != nil {
		t.Fatal(err)
	}
	response, err = a.Get(options)
	if err != nil {
		t.Fatal(err)
	}
	return ceremony, response
}

// is requires the error to be this one, with its kind, and with a cause that fits into a log.
func is(t testing.TB, err error, want *problem.Error) {
	t.Helper()
	var e *problem.Error
	if !errors.As(err, &e) || e.Code != want.Code || e.Kind != want.Kind || e.Cause == nil || len(e.Error()) > 1000 {
		t.Errorf("got %.2000v, want %s with a short cause", err, want.Code)
	}
}

// Each algorithm that is offered registers and logs in, as a second factor and alone; the
// credential goes through JSON between any two steps, as it does in the database.
func TestCeremonies(t *testing.T) {
	for name, algorithm := range map[string]int{"ES256": passkeytest.ES256, "EdDSA": passkeytest.EdDSA, "RS256": passkeytest.RS256} {
		for _, synced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s synced=%t", name, synced), func(t *testing.T) {
				p := party(t)
				a := &passkeytest.Authenticator{Origin: origin, Algorithm: algorithm, Verifies: true, Synced: synced, Transports: []string{"internal", "hybrid"}}
				c := throughJSON(t, register(t, p, alice(), a))
				if c.Synced() != synced || !c.UserVerified() || c.CloneWarning() || c.SignCount() != 0 || !bytes.Equal(c.ID(), a.Held[0].ID) ||
					!slices.Equal(c.Transports(), []string{"hybrid", "internal"}) {
					t.Errorf("registered as %+v", c)
				}
				for i, alone := range []bool{false, true, false} {
					ceremony, response := answered(t, p, alice(c), alone, a)
					finish := p.FinishLogin
					if alone {
						finish = p.FinishDiscoverable
					}
					next, proof, err := finish(alice(c), ceremony, response)
					if err != nil {
						t.Fatal(err)
					}
					want := uint32(i + 1)
					if synced {
						want = 0
					}
					if !proof.UserVerified || next.SignCount() != want || next.Synced() != synced {
						t.Errorf("login %d: %+v, %+v", i, proof, next)
					}
					c = throughJSON(t, next)
				}
			})
		}
	}
}

func throughJSON(t testing.TB, c Credential) Credential {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var read Credential
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(read, c) {
		t.Errorf("%+v came through JSON as %+v", c, read)
	}
	return read
}

// What a response must say, in a registration and in logins. Each lie is refused by itself.
func TestLies(t *testing.T) {
	type lie struct {
		name   string
		change func(*passkeytest.Answer)
		login  bool // it is one of a login alone
	}
	lies := []lie{
		{"origin of another site", func(a *passkeytest.Answer) { a.ClientData["origin"] = "https://example.org" }, false},
		{"origin of a subdomain that is not listed", func(a *passkeytest.Answer) { a.ClientData["origin"] = "https://shop.example.com" }, false},
		{"origin with the listed one as its beginning", func(a *passkeytest.Answer) { a.ClientData["origin"] = origin + ".example.org" }, false},
		{"origin with another port", func(a *passkeytest.Answer) { a.ClientData["origin"] = origin + ":8443" }, false},
		{"origin over http", func(a *passkeytest.Answer) { a.ClientData["origin"] = "http://login.example.com" }, false},
		{"origin of great length", func(a *passkeytest.Answer) {
			a.ClientData["origin"] = "https://" + strings.Repeat("a", 40_000)
		}, false},
		{"no origin", func(a *passkeytest.Answer) { delete(a.ClientData, "origin") }, false},
		{"frame of another site", func(a *passkeytest.Answer) {
			a.ClientData["crossOrigin"], a.ClientData["topOrigin"] = true, "https://example.org"
		}, false},
		{"frame of another site that is not named", func(a *passkeytest.Answer) { a.ClientData["crossOrigin"] = true }, false},
		{"top origin outside a frame", func(a *passkeytest.Answer) { a.ClientData["topOrigin"] = "https://example.org" }, false},
		{"relying party id of another site", func(a *passkeytest.Answer) { a.RPID = "example.org" }, false},
		{"relying party id of a subdomain", func(a *passkeytest.Answer) { a.RPID = "login.example.com" }, false},
		{"challenge of another ceremony", func(a *passkeytest.Answer) { a.ClientData["challenge"] = strings.Repeat("A", 43) }, false},
		{"challenge cut", func(a *passkeytest.Answer) {
			a.ClientData["challenge"] = a.ClientData["challenge"].(string)[:42]
		}, false},
		{"challenge padded", func(a *passkeytest.Answer) { a.ClientData["challenge"] = a.ClientData["challenge"].(string) + "=" }, false},
		{"no challenge", func(a *passkeytest.Answer) { delete(a.ClientData, "challenge") }, false},
		{"the other kind of ceremony", func(a *passkeytest.Answer) {
			other := map[string]string{"webauthn.get": "webauthn.create", "webauthn.create": "webauthn.get"}
			a.ClientData["type"] = other[a.ClientData["type"].(string)]
		}, false},
		{"payment", func(a *passkeytest.Answer) { a.ClientData["type"] = "payment.get" }, false},
		{"user not present", func(a *passkeytest.Answer) { a.Flags &^= passkeytest.Present }, false},
		{"backed up and not eligible", func(a *passkeytest.Answer) { a.Flags |= passkeytest.BackedUp }, false},
		{"eligible for backup only now", func(a *passkeytest.Answer) { a.Flags |= passkeytest.BackupEligible }, true},
		{"signature of other data", func(a *passkeytest.Answer) {
			sign := a.Signature
			a.Signature = func(data []byte) []byte { return sign(append(data, 0)) }
		}, true},
		{"no signature", func(a *passkeytest.Answer) { a.Signature = func([]byte) []byte { return nil } }, true},
		{"signature cut", func(a *passkeytest.Answer) {
			sign := a.Signature
			a.Signature = func(data []byte) []byte { s := sign(data); return s[:len(s)-1] }
		}, true},
		{"unknown credential", func(a *passkeytest.Answer) { a.ID = bytes.Repeat([]byte{7}, 32) }, true},
		{"another user's handle", func(a *passkeytest.Answer) { a.UserHandle = []byte("mallory") }, true},
	}
	p := party(t)
	for _, l := range lies {
		t.Run(l.name, func(t *testing.T) {
			honest := &passkeytest.Authenticator{Origin: origin, Verifies: true}
			if !l.login {
				options, ceremony, err := p.BeginRegistration(alice())
				if err != nil {
					t.Fatal(err)
				}
				response, err := (&passkeytest.Authenticator{Origin: origin, Verifies: true, Change: l.change}).Create(options)
				if err != nil {
					t.Fatal(err)
				}
				_, err = p.FinishRegistration(alice(), ceremony, response)
				is(t, err, ErrRefused)
			}
			c := register(t, p, alice(), honest)
			honest.Change = l.change
			ceremony, response := answered(t, p, alice(c), false, honest)
			_, _, err := p.FinishLogin(alice(c), ceremony, response)
			is(t, err, ErrRefused)
			ceremony, response = answered(t, p, alice(c), true, honest)
			_, _, err = p.FinishDiscoverable(alice(c), ceremony, response)
			is(t, err, ErrRefused)
		})
	}
}

// What is registered must be usable, cheap, and not said by a format that nobody asked for.
func TestRegistrations(t *testing.T) {
	es256 := func(x, y []byte) []byte {
		return passkeytest.Map(passkeytest.Int(1), passkeytest.Int(2), passkeytest.Int(3), passkeytest.Int(-7), passkeytest.Int(-1), passkeytest.Int(1), passkeytest.Int(-2), passkeytest.Bytes(x), passkeytest.Int(-3), passkeytest.Bytes(y))
	}
	rs256 := func(n, e []byte) []byte {
		return passkeytest.Map(passkeytest.Int(1), passkeytest.Int(3), passkeytest.Int(3), passkeytest.Int(-257), passkeytest.Int(-1), passkeytest.Bytes(n), passkeytest.Int(-2), passkeytest.Bytes(e))
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	statement := func(cbor []byte) func([]byte) []byte { return func([]byte) []byte { return cbor } }
	deep := passkeytest.Map()
	for range 100 {
		deep = passkeytest.Map(passkeytest.Text("a"), deep)
	}
	for name, r := range map[string]struct {
		change func(*passkeytest.Answer)
		want   *problem.Error
	}{
		"nothing of note": {func(*passkeytest.Answer) {}, nil},
		"self attestation": {func(a *passkeytest.Answer) {
			a.Format = "packed"
			a.Statement = func(signed []byte) []byte {
				return passkeytest.Map(passkeytest.Text("alg"), passkeytest.Int(-7), passkeytest.Text("sig"), passkeytest.Bytes(a.Signature(signed)))
			}
		}, nil},
		"self attestation of great length": {func(a *passkeytest.Answer) {
			a.Format = "packed"
			a.Statement = func(signed []byte) []byte {
				return passkeytest.Map(passkeytest.Text("alg"), passkeytest.Int(-7), passkeytest.Text("sig"), passkeytest.Bytes(a.Signature(signed)), passkeytest.Text("more"), passkeytest.Bytes(make([]byte, 30_000)))
			}
		}, nil},
		"self attestation over other data": {func(a *passkeytest.Answer) {
			a.Format = "packed"
			a.Statement = func(signed []byte) []byte {
				return passkeytest.Map(passkeytest.Text("alg"), passkeytest.Int(-7), passkeytest.Text("sig"), passkeytest.Bytes(a.Signature(append(signed, 0))))
			}
		}, ErrRefused},
		"packed without anything":  {func(a *passkeytest.Answer) { a.Format = "packed" }, ErrRefused},
		"format that is not known": {func(a *passkeytest.Answer) { a.Format = "quantum" }, ErrRefused},
		"format with a long name":  {func(a *passkeytest.Answer) { a.Format = strings.Repeat("x", 5000) }, ErrRefused},
		"no format":                {func(a *passkeytest.Answer) { a.Format = "" }, ErrRefused},
		"format of phones":         {func(a *passkeytest.Answer) { a.Format = "android-safetynet" }, ErrRefused},
		"format of TPMs":           {func(a *passkeytest.Answer) { a.Format = "tpm" }, ErrRefused},
		"compound":                 {func(a *passkeytest.Answer) { a.Format, a.Statement = "compound", statement(passkeytest.Array()) }, ErrRefused},
		"none with a statement": {func(a *passkeytest.Answer) {
			a.Statement = statement(passkeytest.Map(passkeytest.Text("a"), passkeytest.Int(1)))
		}, ErrRefused},
		"statement of great depth":   {func(a *passkeytest.Answer) { a.Statement = statement(deep) }, ErrMalformed},
		"statement that is an array": {func(a *passkeytest.Answer) { a.Statement = statement(passkeytest.Array(passkeytest.Int(1))) }, ErrMalformed},
		"statement with a key twice": {func(a *passkeytest.Answer) {
			a.Statement = statement(passkeytest.Map(passkeytest.Text("a"), passkeytest.Int(1), passkeytest.Text("a"), passkeytest.Int(2)))
		}, ErrMalformed},
		"statement of indefinite length": {func(a *passkeytest.Answer) { a.Statement = statement([]byte{0xbf, 0xff}) }, ErrMalformed},
		"bytes behind the key":           {func(a *passkeytest.Answer) { a.Key = append(a.Key, 0) }, ErrMalformed},
		"no key":                         {func(a *passkeytest.Answer) { a.Key = []byte{} }, ErrMalformed},
		"key that is text":               {func(a *passkeytest.Answer) { a.Key = passkeytest.Text("key") }, ErrRefused},
		"point that is not on the curve": {func(a *passkeytest.Answer) { a.Key = es256(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)) }, ErrRefused},
		"short point":                    {func(a *passkeytest.Answer) { a.Key = es256([]byte{1}, []byte{2}) }, ErrRefused},
		"algorithm that was not offered": {func(a *passkeytest.Answer) {
			a.Key = bytes.Replace(a.Key, []byte{0x03, 0x26}, []byte{0x03, 0x38, 0x22}, 1) // ES384
		}, ErrRefused},
		"RSA with 1024 bits":      {func(a *passkeytest.Answer) { a.Key = rs256(small.N.Bytes(), []byte{1, 0, 1}) }, ErrRefused},
		"RSA with 16384 bits":     {func(a *passkeytest.Answer) { a.Key = rs256(bytes.Repeat([]byte{0xff}, 2048), []byte{1, 0, 1}) }, ErrRefused},
		"RSA without an exponent": {func(a *passkeytest.Answer) { a.Key = rs256(bytes.Repeat([]byte{0xff}, 256), nil) }, ErrRefused},
		"id of 1023 bytes":        {func(a *passkeytest.Answer) { a.ID = bytes.Repeat([]byte{7}, 1023) }, nil},
		"id of 1024 bytes":        {func(a *passkeytest.Answer) { a.ID = bytes.Repeat([]byte{7}, 1024) }, ErrMalformed},
		"no id":                   {func(a *passkeytest.Answer) { a.ID = []byte{} }, ErrMalformed},
		"outputs of extensions": {func(a *passkeytest.Answer) {
			a.Extensions = map[string]any{"credProps": map[string]any{"rk": true}, "appid": true, "x": nil}
		}, nil},
		"members of the future": {func(a *passkeytest.Answer) { a.ClientData["other_keys_can_be_added_here"] = []int{1} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := party(t)
			options, ceremony, err := p.BeginRegistration(alice())
			if err != nil {
				t.Fatal(err)
			}
			response, err := (&passkeytest.Authenticator{Origin: origin, Change: r.change, Transports: slices.Repeat([]string{strings.Repeat("t", 100), "usb", "nfc"}, 50)}).Create(options)
			if err != nil {
				t.Fatal(err)
			}
			c, err := p.FinishRegistration(alice(), ceremony, response)
			if r.want != nil {
				is(t, err, r.want)
				// Before the library's parser of the format sees the statement.
				if strings.Contains(name, "format") && !strings.Contains(err.Error(), "none was asked for") {
					t.Errorf("the format was not refused as such: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if text, err := json.Marshal(c); err != nil || len(text) > 4<<10 {
				t.Errorf("the credential takes %d bytes, %v", len(text), err)
			}
			if !slices.Equal(c.Transports(), []string{"nfc", "usb"}) {
				t.Errorf("transports %v", c.Transports())
			}
		})
	}
}

// A response that has been accepted proves nothing in another ceremony, nor does the record of
// another ceremony accept it.
func TestReplay(t *testing.T) {
	p := party(t)
	a := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	c := register(t, p, alice(), a)
	ceremony, response := answered(t, p, alice(c), false, a)
	if _, _, err := p.FinishLogin(alice(c), ceremony, response); err != nil {
		t.Fatal(err)
	}
	later, _ := answered(t, p, alice(c), false, a)
	_, _, err := p.FinishLogin(alice(c), later, response)
	is(t, err, ErrRefused)
	alone, _ := answered(t, p, alice(c), true, a)
	_, _, err = p.FinishDiscoverable(alice(c), alone, response)
	is(t, err, ErrRefused)

	// A login alone, with the record of a second factor and the other way round.
	ceremony, response = answered(t, p, alice(c), false, a)
	_, _, err = p.FinishDiscoverable(alice(c), ceremony, response)
	is(t, err, ErrRefused)
	ceremony, response = answered(t, p, alice(c), true, a)
	_, _, err = p.FinishLogin(alice(c), ceremony, response)
	is(t, err, ErrRefused)
	options, ceremony, err := p.BeginRegistration(alice(c))
	if err != nil {
		t.Fatal(err)
	}
	var o struct {
		PublicKey struct {
			Challenge string `json:"challenge"`
		} `json:"publicKey"`
	}
	if err := json.Unmarshal(options, &o); err != nil {
		t.Fatal(err)
	}
	a.Change = func(answer *passkeytest.Answer) { answer.ClientData["challenge"] = o.PublicKey.Challenge }
	_, response = answered(t, p, alice(c), false, a)
	_, _, err = p.FinishLogin(alice(c), ceremony, response)
	is(t, err, ErrRefused)
	a.Change = nil

	// Another user's record, and another user's credentials.
	mallory := User{ID: "mallory", Name: "mallory", Credentials: []Credential{c}}
	ceremony, response = answered(t, p, alice(c), false, a)
	_, _, err = p.FinishLogin(mallory, ceremony, response)
	is(t, err, ErrRefused)
	ceremony, response = answered(t, p, alice(c), true, a)
	_, _, err = p.FinishDiscoverable(mallory, ceremony, response)
	is(t, err, ErrRefused)
	options, ceremony, err = p.BeginRegistration(alice())
	if err != nil {
		t.Fatal(err)
	}
	response, err = (&passkeytest.Authenticator{Origin: origin}).Create(options)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.FinishRegistration(mallory, ceremony, response)
	is(t, err, ErrRefused)
}

// The credentials at the end of a login count: one that was removed meanwhile does not log in,
// and does not hinder another.
func TestRemoved(t *testing.T) {
	p := party(t)
	a, b := &passkeytest.Authenticator{Origin: origin, Verifies: true}, &passkeytest.Authenticator{Origin: origin, Verifies: true}
	first := register(t, p, alice(), a)
	second := register(t, p, alice(first), b)
	both := alice(first, second)
	ceremony, response := answered(t, p, both, false, a)
	_, _, err := p.FinishLogin(alice(second), ceremony, response)
	is(t, err, ErrRefused)
	ceremony, response = answered(t, p, both, false, b)
	if _, _, err := p.FinishLogin(alice(second), ceremony, response); err != nil {
		t.Error(err)
	}
	ceremony, response = answered(t, p, both, true, a)
	_, _, err = p.FinishDiscoverable(alice(second), ceremony, response)
	is(t, err, ErrRefused)
	_, _, err = p.FinishDiscoverable(alice(), ceremony, response)
	is(t, err, ErrRefused)
	_, _, err = p.BeginLogin(alice())
	is(t, err, ErrRefused)
}

// A counter that does not grow is refused and leaves a warning for good; one that grows after
// that is accepted. An authenticator that does not count always says 0.
func TestCounter(t *testing.T) {
	p := party(t)
	a := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	c := register(t, p, alice(), a)
	for _, step := range []struct {
		counter uint32
		refused bool
	}{{5, false}, {5, true}, {4, true}, {0, true}, {6, false}, {1<<32 - 1, false}, {1<<32 - 1, true}, {0, true}} {
		for _, alone := range []bool{false, true} {
			a.Change = func(answer *passkeytest.Answer) { answer.Counter = step.counter }
			ceremony, response := answered(t, p, alice(c), alone, a)
			finish := p.FinishLogin
			if alone {
				finish = p.FinishDiscoverable
			}
			next, proof, err := finish(alice(c), ceremony, response)
			if step.refused {
				is(t, err, ErrCounter)
				if !next.CloneWarning() || next.SignCount() != c.SignCount() || proof.UserVerified {
					t.Errorf("counter %d after %d: %+v, %+v", step.counter, c.SignCount(), next, proof)
				}
				c = throughJSON(t, next)
			} else {
				if err != nil {
					t.Fatalf("counter %d after %d: %v", step.counter, c.SignCount(), err)
				}
				if next.CloneWarning() != c.CloneWarning() || next.SignCount() != step.counter {
					t.Errorf("counter %d: %+v", step.counter, next)
				}
				if alone {
					c = throughJSON(t, next)
				}
			}
		}
	}
	if !c.CloneWarning() {
		t.Error("the warning is gone")
	}
}

// The user's verification is required of a login alone, and counts only where it was made at
// the registration: who finds a security key without a PIN can set one.
func TestVerification(t *testing.T) {
	p := party(t)
	a := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	c := register(t, p, alice(), a)
	a.Change = func(answer *passkeytest.Answer) { answer.Flags &^= passkeytest.Verified }
	ceremony, response := answered(t, p, alice(c), true, a)
	_, _, err := p.FinishDiscoverable(alice(c), ceremony, response)
	is(t, err, ErrRefused)
	ceremony, response = answered(t, p, alice(c), false, a)
	next, proof, err := p.FinishLogin(alice(c), ceremony, response)
	if err != nil || proof.UserVerified || !next.UserVerified() {
		t.Errorf("%+v, %+v, %v", next, proof, err)
	}

	found := &passkeytest.Authenticator{Origin: origin}
	c = register(t, p, alice(), found)
	if c.UserVerified() {
		t.Error("registered as verified")
	}
	found.Verifies = true // the finder sets a PIN
	for range 2 {         // and tries again
		ceremony, response = answered(t, p, alice(c), false, found)
		c, proof, err = p.FinishLogin(alice(c), ceremony, response)
		if err != nil || proof.UserVerified || c.UserVerified() {
			t.Errorf("%+v, %+v, %v", c, proof, err)
		}
		ceremony, response = answered(t, p, alice(c), true, found)
		_, _, err = p.FinishDiscoverable(alice(c), ceremony, response)
		is(t, err, ErrRefused)
	}
}

// A response that names no user does not log in alone, and needs none as a second factor.
func TestUserHandle(t *testing.T) {
	p := party(t)
	a := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	c := register(t, p, alice(), a)
	a.Change = func(answer *passkeytest.Answer) { answer.UserHandle = nil }
	ceremony, response := answered(t, p, alice(c), true, a)
	_, _, err := p.FinishDiscoverable(alice(c), ceremony, response)
	is(t, err, ErrRefused)
	ceremony, response = answered(t, p, alice(c), false, a)
	if _, _, err := p.FinishLogin(alice(c), ceremony, response); err != nil {
		t.Error(err)
	}
}

// The options are what navigator.credentials and PublicKeyCredential.parse…FromJSON take.
func TestOptions(t *testing.T) {
	p := party(t)
	a := &passkeytest.Authenticator{Origin: origin, Verifies: true, Transports: []string{"internal"}}
	c := register(t, p, alice(), a)
	id := base64.RawURLEncoding.EncodeToString(c.ID())
	handle := base64.RawURLEncoding.EncodeToString([]byte(alice().ID))
	options, _, err := p.BeginRegistration(alice(c))
	if err != nil {
		t.Fatal(err)
	}
	same(t, options, `{"publicKey":{"rp":{"id":"example.com","name":"Example"},"user":{"id":"`+handle+`","name":"alice","displayName":"Alice"},"challenge":"…",
		"pubKeyCredParams":[{"type":"public-key","alg":-8},{"type":"public-key","alg":-7},{"type":"public-key","alg":-257}],"timeout":300000,
		"excludeCredentials":[{"type":"public-key","id":"`+id+`","transports":["internal"]}],
		"authenticatorSelection":{"requireResidentKey":false,"residentKey":"preferred","userVerification":"preferred"},"attestation":"none"}}`)
	if _, err := a.Create(options); !errors.Is(err, passkeytest.ErrNotAllowed) {
		t.Errorf("the authenticator registers twice: %v", err)
	}
	options, ceremony, err := p.BeginLogin(alice(c))
	if err != nil {
		t.Fatal(err)
	}
	same(t, options, `{"publicKey":{"challenge":"…","timeout":300000,"rpId":"example.com","userVerification":"preferred",
		"allowCredentials":[{"type":"public-key","id":"`+id+`","transports":["internal"]}]}}`)
	if bytes.Contains(ceremony, []byte(id)) {
		t.Error("the record holds credentials")
	}
	options, _, challenge, err := p.BeginDiscoverable()
	if err != nil {
		t.Fatal(err)
	}
	same(t, options, `{"publicKey":{"challenge":"…","timeout":300000,"rpId":"example.com","userVerification":"required"}}`)
	if len(challenge) < 32 || !bytes.Contains(options, []byte(base64.RawURLEncoding.EncodeToString(challenge))) {
		t.Errorf("the challenge %x is not that of %s", challenge, options)
	}

	// The record stays small whatever the user has.
	var many []Credential
	for range 20 {
		big := c
		big.c.ID = make([]byte, 1023)
		rand.Read(big.c.ID)
		many = append(many, big)
	}
	for name, begin := range map[string]func(User) (json.RawMessage, []byte, error){"registration": p.BeginRegistration, "login": p.BeginLogin} {
		if _, ceremony, err := begin(alice(many...)); err != nil || len(ceremony) > 1<<10 {
			t.Errorf("%s: the record has %d bytes, %v", name, len(ceremony), err)
		}
	}
	for _, id := range []string{"", strings.Repeat("u", 65)} {
		if _, _, err := p.BeginRegistration(User{ID: id, Name: "x"}); err == nil {
			t.Errorf("a user handle of %d bytes is accepted", len(id))
		}
	}
}

// same requires the options to be these but for the challenge.
func same(t testing.TB, options json.RawMessage, want string) {
	t.Helper()
	var got, expected map[string]map[string]any
	if err := json.Unmarshal(options, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &expected); err != nil {
		t.Fatal(err)
	}
	challenge, _ := got["publicKey"]["challenge"].(string)
	if raw, err := base64.RawURLEncoding.DecodeString(challenge); err != nil || len(raw) < 32 {
		t.Errorf("challenge %q", challenge)
	}
	got["publicKey"]["challenge"] = "…"
	if !reflect.DeepEqual(got, expected) {
		t.Errorf("got  %s\nwant %s", options, want)
	}
}

func TestPeek(t *testing.T) {
	p := party(t)
	a := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	c := register(t, p, alice(), a)
	options, _, challenge, err := p.BeginDiscoverable()
	if err != nil {
		t.Fatal(err)
	}
	response, err := a.Get(options)
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := Peek(response)
	if err != nil || !bytes.Equal(claimed.Challenge, challenge) || !bytes.Equal(claimed.CredentialID, c.ID()) || claimed.UserHandle != alice().ID {
		t.Errorf("%+v, %v", claimed, err)
	}
	a.Change = func(answer *passkeytest.Answer) { answer.ClientData["challenge"] = "!" }
	if response, err = a.Get(options); err != nil {
		t.Fatal(err)
	}
	_, err = Peek(response)
	is(t, err, ErrMalformed)
}

// What is not the JSON of a credential is refused everywhere, mostly as ErrMalformed.
func TestMalformed(t *testing.T) {
	p := party(t)
	a := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	c := register(t, p, alice(), a)
	ceremony, good := answered(t, p, alice(c), false, a)
	alone, _ := answered(t, p, alice(c), true, a)
	options, registration, err := p.BeginRegistration(alice())
	if err != nil {
		t.Fatal(err)
	}
	created, err := a.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(text json.RawMessage, path string, value any) string {
		var all map[string]any
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		at := all
		if inner, ok := strings.CutPrefix(path, "response."); ok {
			at, path = all["response"].(map[string]any), inner
		}
		if at[path] == nil {
			t.Fatalf("there is no %s", path)
		}
		at[path] = value
		out, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	texts := []string{"", "null", "{}", "[]", "true", `"x"`, "{", string(good) + "{}", strings.Repeat("[", 100_000), `{"id":"AA","rawId":"AA","type":"public-key"}`, `{"id":"AA","rawId":"AA","type":"public-key","response":null}`}
	for _, path := range []string{"id", "rawId", "type", "response.clientDataJSON"} {
		for _, value := range []any{nil, "", "*", 7, []any{}, "AA"} {
			texts = append(texts, edit(good, path, value), edit(created, path, value))
		}
	}
	for _, value := range []any{nil, "", "*", 7, []any{}, "AA", strings.Repeat("A", 60_000)} {
		texts = append(texts, edit(good, "response.authenticatorData", value), edit(created, "response.attestationObject", value))
	}
	texts = append(texts, edit(good, "response.signature", 7), edit(good, "response.userHandle", 7), edit(good, "response.clientDataJSON", "bnVsbA"))
	for _, text := range texts {
		_, err := p.FinishRegistration(alice(), registration, json.RawMessage(text))
		malformed(t, text, err)
		_, _, err = p.FinishLogin(alice(c), ceremony, json.RawMessage(text))
		malformed(t, text, err)
		_, _, err = p.FinishDiscoverable(alice(c), alone, json.RawMessage(text))
		malformed(t, text, err)
	}
	// The record is the service's own: what cannot be read is no fault of the client.
	for _, text := range []string{"", "null", "{}", "x", `{"kind":"login"}`} {
		if _, _, err := p.FinishLogin(alice(c), []byte(text), good); err == nil {
			t.Errorf("the record %q is accepted", text)
		}
	}
	for _, text := range []string{"null", "{}", "7", `{"id":"AA"}`} {
		if err := json.Unmarshal([]byte(text), &Credential{}); err == nil {
			t.Errorf("the credential %q is accepted", text)
		}
	}
}

func malformed(t testing.TB, text string, err error) {
	t.Helper()
	var e *problem.Error
	if !errors.As(err, &e) || e.Code != ErrMalformed.Code && e.Code != ErrRefused.Code || len(err.Error()) > 1000 {
		t.Errorf("%.200s: %.1000v", text, err)
	}
}

// Whatever is answered, the answer is one of the package's errors.
func FuzzResponses(f *testing.F) {
	p := party(f)
	a := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	c := register(f, p, alice(), a)
	options, registration, err := p.BeginRegistration(alice())
	if err != nil {
		f.Fatal(err)
	}
	created, err := a.Create(options)
	if err != nil {
		f.Fatal(err)
	}
	login, second := answered(f, p, alice(c), false, a)
	alone, first := answered(f, p, alice(c), true, a)
	// The parts are fuzzed apart, because base64 hides them.
	var parts struct {
		Response map[string]any `json:"response"`
	}
	for _, text := range []json.RawMessage{created, second, first} {
		if err := json.Unmarshal(text, &parts); err != nil {
			f.Fatal(err)
		}
		part := func(name string) []byte {
			text, _ := parts.Response[name].(string)
			raw, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil {
				f.Fatal(err)
			}
			return raw
		}
		f.Add([]byte(text), part("clientDataJSON"), part("attestationObject"), part("authenticatorData"), part("signature"))
	}
	f.Fuzz(func(t *testing.T, text, client, object, data, signature []byte) {
		id := base64.RawURLEncoding.EncodeToString(c.ID())
		built, err := json.Marshal(map[string]any{"id": id, "rawId": id, "type": "public-key", "response": map[string]string{
			"clientDataJSON":    base64.RawURLEncoding.EncodeToString(client),
			"attestationObject": base64.RawURLEncoding.EncodeToString(object),
			"authenticatorData": base64.RawURLEncoding.EncodeToString(data),
			"signature":         base64.RawURLEncoding.EncodeToString(signature),
			"userHandle":        base64.RawURLEncoding.EncodeToString([]byte(alice().ID)),
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, response := range []json.RawMessage{text, built} {
			_, peek := Peek(response)
			_, create := p.FinishRegistration(alice(), registration, response)
			_, _, get := p.FinishLogin(alice(c), login, response)
			_, _, getAlone := p.FinishDiscoverable(alice(c), alone, response)
			for _, err := range []error{peek, create, get, getAlone} {
				var e *problem.Error
				if err != nil && (!errors.As(err, &e) || e.Kind != problem.Invalid && e.Kind != problem.Unauthenticated) {
					t.Errorf("%v", err)
				}
			}
		}
	})
}
