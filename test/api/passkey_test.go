package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/test/kit"
)

// got is an assertion that an authenticator makes for options, with what change does to it.
func (f *factored) got(key *passkeytest.Authenticator, options json.RawMessage, change func(*passkeytest.Answer)) json.RawMessage {
	f.T.Helper()
	key.Change = change
	defer func() { key.Change = nil }()
	made, err := key.Get(options)
	if err != nil {
		f.T.Fatal(err)
	}
	return made
}

// options gets the options of a ceremony.
func (f *factored) options(path, token string, body any) json.RawMessage {
	f.T.Helper()
	return f.Want(f.next().Do("POST", path, token, body), 200, "").Body
}

// alone logs in by a passkey alone, with what change does to the assertion.
func (f *factored) alone(key *passkeytest.Authenticator, change func(*passkeytest.Answer)) kit.Answer {
	f.T.Helper()
	made := f.got(key, f.options("/api/login/passkey/options", "", nil), change)
	return f.next().Do("POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: made})
}

// Passkeys from their enrolment to their removal: several, with names, as a second factor and alone.
func TestLifeOfPasskeys(t *testing.T) {
	f := newFactored(t, 1, func(c *config.Config) { c.Tokens.Audience = []string{"https://auth.example.com"} })
	f.User("tester")
	before := f.Login("tester")
	key, g := f.enrolPasskey(before.AccessToken)
	f.dead(before)
	phone := &passkeytest.Authenticator{Origin: "https://auth.example.com", Verifies: true, Synced: true, Transports: []string{"hybrid", "internal"}}
	made, err := phone.Create(f.options("/api/mfa/passkeys", g.AccessToken, nil))
	if err != nil {
		t.Fatal(err)
	}
	g = f.granted(f.Do("POST", "/api/mfa/passkeys/confirm", g.AccessToken, httpapi.NewPasskey{Name: " My phone ", Credential: made}))
	if _, err := key.Create(f.options("/api/mfa/passkeys", g.AccessToken, nil)); err == nil {
		t.Error("an authenticator that has a passkey makes another one")
	}

	list := kit.Decode[httpapi.FactorList](t, f.Want(f.Do("GET", "/api/mfa", g.AccessToken, nil), 200, "")).Factors
	if len(list) != 2 || list[0].Name != "Passkey 1" || list[1].Name != "My phone" || *list[0].Synced || !*list[1].Synced ||
		!slices.Equal(list[1].Transports, phone.Transports) || !list[0].LastUsedAt.IsZero() {
		t.Fatalf("%+v", list)
	}
	challenge := f.challenged("tester")
	if !slices.Equal(challenge.Methods, []string{"passkey"}) {
		t.Errorf("the methods are %q", challenge.Methods)
	}
	answer := httpapi.MFARequest{MFAToken: challenge.MFAToken, Method: "passkey"}
	answer.Credential = f.got(key, f.options("/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: challenge.MFAToken}), nil)
	second := f.granted(f.answer(answer))
	f.wantAuthentication(second.AccessToken, "aal2", "hwk", "mfa", "pwd", "user")
	f.Want(f.answer(answer), 401, "invalid_mfa_token")
	f.wantAuthentication(f.granted(f.alone(phone, nil)).AccessToken, "aal2", "mfa", "swk", "user")
	list = kit.Decode[httpapi.FactorList](t, f.Want(f.Do("GET", "/api/mfa", g.AccessToken, nil), 200, "")).Factors
	if list[0].LastUsedAt.IsZero() || list[1].LastUsedAt.IsZero() {
		t.Errorf("they were never used: %+v", list)
	}

	one := "/api/mfa/passkeys/" + list[1].ID
	for _, name := range []string{"", "  ", strings.Repeat("x", 65), "a\x00b", "a\nb", "\u202eevil"} {
		f.Want(f.Do("PATCH", one, g.AccessToken, httpapi.PasskeyName{Name: name}), 422, "invalid_request")
	}
	f.Want(f.Do("PATCH", "/api/mfa/passkeys/none", g.AccessToken, httpapi.PasskeyName{Name: "x"}), 404, "factor_not_found")
	f.Want(f.Do("PATCH", one, g.AccessToken, httpapi.PasskeyName{Name: "電話 📱"}), 204, "")
	if got := f.list(g.AccessToken)["passkey"].Name; got != "電話 📱" {
		t.Errorf("the name is %q", got)
	}
	f.Want(f.Do("GET", "/api/verify", second.AccessToken, nil), 200, "") // a name revokes nothing

	f.Want(f.Do("DELETE", "/api/mfa/passkeys/none", g.AccessToken, nil), 404, "factor_not_found")
	end := f.granted(f.Do("DELETE", one, g.AccessToken, nil))
	f.dead(g)
	f.Want(f.Do("DELETE", one, end.AccessToken, nil), 404, "factor_not_found")
	f.Want(f.alone(phone, nil), 401, "passkey_refused")
	f.granted(f.alone(key, nil))
	end = f.granted(f.Do("DELETE", "/api/mfa/passkeys/"+list[0].ID, end.AccessToken, nil))
	f.wantAuthentication(f.Login("tester").AccessToken, "aal1", "pwd")
	if got := f.list(end.AccessToken); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// A passkey that is refused is refused with one code and spends nothing: the right one is accepted
// after each, also in the same login.
func TestPasskeysThatAreRefused(t *testing.T) {
	f := newFactored(t, 1, nil)
	f.User("tester")
	f.User("other")
	key, g := f.enrolPasskey(f.Login("tester").AccessToken)
	stranger, _ := f.enrolPasskey(f.Login("other").AccessToken)
	id, handle := key.Held[0].ID, key.Held[0].UserHandle

	wrong := map[string]func(*passkeytest.Answer){
		"another origin":       func(a *passkeytest.Answer) { a.ClientData["origin"] = "https://auth.example.com.evil.example" },
		"another port":         func(a *passkeytest.Answer) { a.ClientData["origin"] = "https://auth.example.com:8443" },
		"http":                 func(a *passkeytest.Answer) { a.ClientData["origin"] = "http://auth.example.com" },
		"no origin":            func(a *passkeytest.Answer) { delete(a.ClientData, "origin") },
		"another RP ID":        func(a *passkeytest.Answer) { a.RPID = "example.com" },
		"another type":         func(a *passkeytest.Answer) { a.ClientData["type"] = "webauthn.create" },
		"another challenge":    func(a *passkeytest.Answer) { a.ClientData["challenge"] = strings.Repeat("A", 43) },
		"nobody present":       func(a *passkeytest.Answer) { a.Flags &^= passkeytest.Present },
		"another signature":    func(a *passkeytest.Answer) { a.Signature = stranger.Held[0].Sign },
		"no signature":         func(a *passkeytest.Answer) { a.Signature = func([]byte) []byte { return nil } },
		"another user's key":   func(a *passkeytest.Answer) { a.ID, a.Signature = stranger.Held[0].ID, stranger.Held[0].Sign },
		"an unknown key":       func(a *passkeytest.Answer) { a.ID = []byte("nobody has this credential id!!!") },
		"another user":         func(a *passkeytest.Answer) { a.UserHandle = stranger.Held[0].UserHandle },
		"a user who is no one": func(a *passkeytest.Answer) { a.UserHandle = []byte("01a22875-0000-7000-8000-000000000000") },
	}
	waits := f.challenged("tester").MFAToken
	for name, change := range wrong {
		options := f.options("/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: waits})
		a := f.answer(httpapi.MFARequest{MFAToken: waits, Method: "passkey", Credential: f.got(key, options, change)})
		if a.Status != 401 || a.Code() != "passkey_refused" {
			t.Errorf("a second factor with %s: %d %s", name, a.Status, a.Body)
		}
		if a := f.alone(key, change); a.Status != 401 || a.Code() != "passkey_refused" {
			t.Errorf("a login with %s: %d %s", name, a.Status, a.Body)
		}
	}
	// Alone, a passkey must have verified its user, and say who that is.
	for name, change := range map[string]func(*passkeytest.Answer){
		"nobody verified": func(a *passkeytest.Answer) { a.Flags &^= passkeytest.Verified }, "no user": func(a *passkeytest.Answer) { a.UserHandle = nil },
	} {
		if a := f.alone(key, change); a.Status != 401 || a.Code() != "passkey_refused" {
			t.Errorf("a login with %s: %d %s", name, a.Status, a.Body)
		}
	}
	// What is no credential. The one of a login is not the one of a registration.
	for _, bad := range []string{`{}`, `[]`, `"x"`, `1`, `{"id":"x"}`, `{"id":"AA","rawId":"AA","type":"public-key","response":{}}`, `{"response":{"clientDataJSON":"e30"}}`} {
		for path, body := range map[string]string{"/api/login/mfa": `{"mfa_token":"` + waits + `","method":"passkey","credential":` + bad + `}`, "/api/login/passkey": `{"credential":` + bad + `}`} {
			if a := f.Do("POST", path, "", body); a.Status != 422 || a.Code() != "malformed_passkey" {
				t.Errorf("%s with %s: %d %s", path, bad, a.Status, a.Body)
			}
		}
	}
	f.Want(f.Do("POST", "/api/login/passkey", "", `{}`), 422, "invalid_request")
	f.Want(f.Do("POST", "/api/login/passkey", "", `{"credential":{},"username":"tester"}`), 422, "invalid_request")

	// The same login, and the same authenticator.
	options := f.options("/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: waits})
	made := f.got(key, options, nil)
	f.granted(f.answer(httpapi.MFARequest{MFAToken: waits, Method: "passkey", Credential: made}))

	// One that was used is refused wherever it is shown again, and an assertion of one ceremony in
	// another one.
	other := f.challenged("tester").MFAToken
	f.Want(f.answer(httpapi.MFARequest{MFAToken: other, Method: "passkey", Credential: made}), 409, "nothing_pending")
	late := f.got(key, f.options("/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: other}), nil)
	f.Want(f.answer(httpapi.MFARequest{MFAToken: other, Method: "passkey", Credential: made}), 401, "passkey_refused")
	f.Want(f.Do("POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: late}), 401, "passkey_refused")
	f.granted(f.answer(httpapi.MFARequest{MFAToken: other, Method: "passkey", Credential: late}))
	made = f.got(key, f.options("/api/login/passkey/options", "", nil), nil)
	f.granted(f.Do("POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: made}))
	f.Want(f.Do("POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: made}), 401, "passkey_refused")

	// A counter that goes back leaves a warning, and the passkey goes on when it grows.
	f.Want(f.alone(key, func(a *passkeytest.Answer) { a.Counter = 1 }), 401, "passkey_counter")
	if got := f.list(g.AccessToken)["passkey"].Warning; got != "counter_went_back" {
		t.Errorf("the warning is %q", got)
	}
	f.granted(f.alone(key, nil))

	// Enrolments.
	fresh := browser()
	confirm := func(change func(*passkeytest.Answer)) kit.Answer {
		t.Helper()
		fresh.Change = change
		made, err := fresh.Create(f.options("/api/mfa/passkeys", g.AccessToken, nil))
		if err != nil {
			t.Fatal(err)
		}
		fresh.Held = nil
		return f.Do("POST", "/api/mfa/passkeys/confirm", g.AccessToken, httpapi.NewPasskey{Credential: made})
	}
	for name, change := range map[string]func(*passkeytest.Answer){
		"another origin": wrong["another origin"], "another RP ID": wrong["another RP ID"], "another challenge": wrong["another challenge"],
		"the type of a login":     func(a *passkeytest.Answer) { a.ClientData["type"] = "webauthn.get" },
		"an unknown attestation":  func(a *passkeytest.Answer) { a.Format = "home-made" },
		"an attestation of a TPM": func(a *passkeytest.Answer) { a.Format = "tpm" },
		"no key":                  func(a *passkeytest.Answer) { a.Key = passkeytest.Map() },
	} {
		if a := confirm(change); a.Status != 401 && a.Status != 422 || a.Code() != "passkey_refused" && a.Code() != "malformed_passkey" {
			t.Errorf("an enrolment with %s: %d %s", name, a.Status, a.Body)
		}
	}
	// Somebody else's credential, whose id is taken.
	if a := confirm(func(a *passkeytest.Answer) { a.ID = stranger.Held[0].ID }); a.Status != 409 || a.Code() != "already_enrolled" {
		t.Errorf("another user's id: %d %s", a.Status, a.Body)
	}
	f.granted(f.alone(stranger, nil))
	f.Want(f.Do("GET", "/api/verify", g.AccessToken, nil), 200, "")
	if got := f.list(g.AccessToken); len(got) != 1 || string(id) != string(key.Held[0].ID) || string(handle) != string(key.Held[0].UserHandle) {
		t.Errorf("%v", got)
	}
	fresh.Change = nil
	made, err := fresh.Create(f.options("/api/mfa/passkeys", g.AccessToken, nil))
	if err != nil {
		t.Fatal(err)
	}
	again := f.granted(f.Do("POST", "/api/mfa/passkeys/confirm", g.AccessToken, httpapi.NewPasskey{Credential: made}))
	f.Want(f.Do("POST", "/api/mfa/passkeys/confirm", again.AccessToken, httpapi.NewPasskey{Credential: made}), 409, "nothing_pending")
	f.granted(f.alone(fresh, nil))
	f.granted(f.alone(key, nil))
}

// A login by passkey alone says nothing about users: whoever the response names, and whether they
// exist and have passkeys, it is answered alike.
func TestAPasskeyLoginTellsNothingOfUsers(t *testing.T) {
	f := newFactored(t, 1, nil)
	plain := f.User("plain")
	f.User("tester")
	disabled := f.User("disabled")
	key, _ := f.enrolPasskey(f.Login("tester").AccessToken)
	off, _ := f.enrolPasskey(f.Login("disabled").AccessToken)
	f.Want(f.Do("PATCH", "/api/users/"+disabled, f.Login("admin").AccessToken, map[string]any{"disabled": true}), 200, "")
	seen := map[string]string{}
	for name, change := range map[string]func(*passkeytest.Answer){
		"nobody":                         func(a *passkeytest.Answer) { a.UserHandle = []byte("01a22875-0000-7000-8000-000000000000") },
		"a user without passkeys":        func(a *passkeytest.Answer) { a.UserHandle = []byte(plain) },
		"a known user, an unknown key":   func(a *passkeytest.Answer) { a.ID = []byte("nobody has this credential id!!!") },
		"a known key, a wrong signature": func(a *passkeytest.Answer) { a.Signature = off.Held[0].Sign },
		"no id of a user":                func(a *passkeytest.Answer) { a.UserHandle = []byte("\x00/'") },
	} {
		a := f.alone(key, change)
		seen[fmt.Sprint(a.Status, " ", string(a.Body))] = name
	}
	a := f.alone(off, nil)
	seen[fmt.Sprint(a.Status, " ", string(a.Body))] = "a disabled user"
	if len(seen) != 1 || a.Code() != "passkey_refused" {
		t.Errorf("%v", seen)
	}
	if first, second := f.options("/api/login/passkey/options", "", nil), f.options("/api/login/passkey/options", "", map[string]any{}); strings.Contains(string(first), "allowCredentials") || len(first) != len(second) {
		t.Errorf("%s, %s", first, second)
	}
	f.granted(f.alone(key, nil))
}

// Where browsers make no passkeys for the service's name, each of their routes says so, and all
// else goes on.
func TestWithoutPasskeys(t *testing.T) {
	f := newFactored(t, 1, func(c *config.Config) { c.Server.PublicURL = "https://192.0.2.1" })
	f.User("tester")
	token := f.Login("tester").AccessToken
	f.Want(f.Do("POST", "/api/login/passkey/options", "", nil), 409, "passkeys_off")
	f.Want(f.Do("POST", "/api/login/passkey", "", `{"credential":{}}`), 409, "passkeys_off")
	f.Want(f.Do("POST", "/api/mfa/passkeys", token, nil), 409, "passkeys_off")
	f.Want(f.Do("POST", "/api/mfa/passkeys/confirm", token, `{"credential":{}}`), 409, "passkeys_off")
	f.Want(f.Do("POST", "/api/login/step-up/options", token, nil), 422, "unknown_method")
	secret, _ := f.enrolTOTP(token)
	f.withTOTP("tester", secret)
}
