package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
	"github.com/watchword-auth/watchword/verify"
)

// stepUp authenticates the holder of a token once more.
func (f *factored) stepUp(token string, in httpapi.StepUp) kit.Answer {
	f.T.Helper()
	return f.next().Do("POST", "/api/login/step-up", token, in)
}

// assertion is what a passkey answers to the options of a step-up.
func (f *factored) assertion(token string, key *passkeytest.Authenticator) json.RawMessage {
	f.T.Helper()
	get, err := key.Get(f.Want(f.next().Do("POST", "/api/login/step-up/options", token, nil), 200, "").Body)
	if err != nil {
		f.T.Fatal(err)
	}
	return get
}

// backupCodes gives the holder of a token ten of them.
func (f *factored) backupCodes(token string) []string {
	f.T.Helper()
	codes := kit.Decode[httpapi.BackupCodes](f.T, f.Want(f.next().Do("POST", "/api/mfa/backup-codes", token, nil), 200, "")).Codes
	f.Want(f.next().Do("POST", "/api/mfa/backup-codes/confirm", token, httpapi.Code{Code: codes[0]}), 200, "")
	return codes
}

func (f *factored) authTime(token string) int64 {
	f.T.Helper()
	return int64(f.next().Verify(token)["auth_time"].(float64))
}

// A service that wants a fresh login, or one by a second factor, says so (RFC 9470). The user
// authenticates once more in the session that there is, at whichever replica, and passes with the
// token that comes of it. The session goes on with its refresh token, and the token from before is
// what it was.
func TestASessionIsSteppedUp(t *testing.T) {
	f := newFactored(t, 2, func(c *config.Config) {
		c.Admin.FreshFor = 24 * time.Hour
	})
	f.User("tester")
	secret, g := f.enrolTOTP(f.Login("tester").AccessToken)
	key, g := f.enrolPasskey(g.AccessToken)
	codes := f.backupCodes(g.AccessToken)
	for _, w := range f.all {
		w.Config.MFA.Required.Mode = config.RequiredNever
		w.Restart()
	}
	v, err := verify.New(verify.Config{
		Issuer: f.Config.Tokens.Issuer, KeySetURL: f.all[1].URL + "/api/pkeys", RevocationsURL: f.all[1].URL + "/api/revocations", Now: f.now, MaxStaleness: 48 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	fresh, strong := v.Require(ok, verify.FreshAuth(5*time.Minute)), v.Require(ok, verify.AMR("otp", "hwk"))
	both := v.Require(ok, verify.FreshAuth(5*time.Minute), verify.AMR("otp", "hwk"))
	pass := func(h http.Handler, token, want string) {
		t.Helper()
		kit.Eventually(t, func() error {
			r, rec := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
			r.Header.Set("Authorization", "Bearer "+token)
			h.ServeHTTP(rec, r)
			if got := rec.Header().Get("WWW-Authenticate"); rec.Code == 503 {
				return fmt.Errorf("%d %s", rec.Code, rec.Body)
			} else if (want == "") != (rec.Code == 200) || !strings.Contains(got, want) {
				t.Errorf("answered %d %s, want %q", rec.Code, got, want)
			}
			return nil
		})
	}
	const again = `error="insufficient_user_authentication"`

	for _, c := range []struct {
		method string
		answer func(token string) httpapi.StepUp
		amr    []string
	}{
		{"password", func(string) httpapi.StepUp { return httpapi.StepUp{Password: kit.Password} }, []string{"pwd"}},
		{"totp", func(string) httpapi.StepUp { return httpapi.StepUp{Code: f.code(secret)} }, []string{"mfa", "otp", "pwd"}},
		{"backup_code", func(string) httpapi.StepUp { return httpapi.StepUp{Code: codes[1]} }, []string{"mfa", "otp", "pwd"}},
		{"passkey", func(token string) httpapi.StepUp { return httpapi.StepUp{Credential: f.assertion(token, key)} }, []string{"hwk", "mfa", "pwd", "user"}},
	} {
		f.run(t, c.method, func(t *testing.T) {
			factor := len(c.amr) > 1
			old := f.granted(f.login("tester", ""))
			began := f.authTime(old.AccessToken)
			pass(fresh, old.AccessToken, "")
			pass(strong, old.AccessToken, again)
			f.pass(6 * time.Minute)
			pass(fresh, old.AccessToken, again+`, error_description="reauthentication_required", max_age="300"`)
			pass(both, old.AccessToken, again)

			in := c.answer(old.AccessToken)
			in.Method = c.method
			a := f.Want(f.stepUp(old.AccessToken, in), 200, "")
			g := kit.Decode[httpapi.SteppedUp](t, a)
			if g.SessionID != old.SessionID || g.TokenType != "Bearer" || g.ExpiresIn <= 0 || strings.Contains(string(a.Body), "refresh") {
				t.Errorf("the answer is %s", a.Body)
			}
			acr := map[bool]string{false: "aal1", true: "aal2"}[factor]
			f.wantAuthentication(g.AccessToken, acr, c.amr...)
			pass(fresh, g.AccessToken, "")
			weak := map[bool]string{false: again, true: ""}[factor]
			pass(strong, g.AccessToken, weak)
			pass(both, g.AccessToken, weak)
			f.wantAuthentication(old.AccessToken, "aal1", "pwd")
			if got := f.authTime(old.AccessToken); got != began {
				t.Errorf("the old token's auth_time is %d, and was %d", got, began)
			}
			if got := f.authTime(g.AccessToken); got < began+360 {
				t.Errorf("the new token's auth_time is %d, after one of %d", got, began)
			}
			renewed := f.granted(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: old.RefreshToken}))
			f.wantAuthentication(renewed.AccessToken, acr, c.amr...)
			if got, want := f.authTime(renewed.AccessToken), f.authTime(g.AccessToken); got != want {
				t.Errorf("the auth_time of a renewal is %d, and of the step-up %d", got, want)
			}
			// A password alone is worth no more beside a factor that was presented earlier: its
			// token says so, and the session stays as it is.
			f.pass(2 * time.Second)
			lesser := f.Want(f.stepUp(old.AccessToken, httpapi.StepUp{Method: "password", Password: kit.Password}), 200, "")
			token := kit.Decode[httpapi.SteppedUp](t, lesser).AccessToken
			f.wantAuthentication(token, "aal1", "pwd")
			pass(fresh, token, "")
			pass(both, token, again)
			renewed = f.granted(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: renewed.RefreshToken}))
			f.wantAuthentication(renewed.AccessToken, acr, c.amr...)
			if stays := f.authTime(renewed.AccessToken) == f.authTime(g.AccessToken); stays != factor {
				t.Errorf("after a password the session's auth_time stays: %t", stays)
			}
			// What was presented counts once.
			if factor {
				code := map[string]string{"passkey": "nothing_pending"}[c.method]
				if code == "" {
					f.Want(f.stepUp(g.AccessToken, in), 401, "code_used")
				} else {
					f.Want(f.stepUp(g.AccessToken, in), 409, code)
				}
			}

			f.Want(f.next().Do("POST", "/api/logout", renewed.AccessToken, nil), 204, "")
			in = httpapi.StepUp{Method: "password", Password: kit.Password}
			for _, w := range f.all {
				kit.Eventually(t, func() error {
					a := w.Do("POST", "/api/login/step-up", g.AccessToken, in)
					if a.Status == 200 {
						t.Errorf("a session that has ended is stepped up: %s", a.Body)
					}
					if a.Code() != "token_revoked" {
						return fmt.Errorf("%d %s", a.Status, a.Body)
					}
					return nil
				})
			}
		})
	}
}

// What does not fit is refused, spends nothing, and changes nothing of the session.
func TestStepUpsThatAreRefused(t *testing.T) {
	f := newFactored(t, 1, func(c *config.Config) { c.Admin.FreshFor = 24 * time.Hour })
	f.User("ada")
	f.User("bob")
	f.User("plain")
	secret, g := f.enrolTOTP(f.Login("ada").AccessToken)
	key, g := f.enrolPasskey(g.AccessToken)
	codes := f.backupCodes(g.AccessToken)
	bobsKey, bob := f.enrolPasskey(f.Login("bob").AccessToken)
	bobs, bob := f.enrolTOTP(bob.AccessToken)
	plain := f.Login("plain")
	token := g.AccessToken
	f.pass(mfaPause)
	began := f.authTime(token)

	f.Want(f.stepUp(token, httpapi.StepUp{Method: "passkey", Credential: f.assertion(bob.AccessToken, bobsKey)}), 409, "nothing_pending")
	options := f.Want(f.Do("POST", "/api/login/step-up/options", token, nil), 200, "").Body
	bobsKey.Change = nil
	foreign := *bobsKey
	if _, err := foreign.Get(options); err == nil {
		t.Error("a passkey of bob's is asked for")
	}
	var open map[string]map[string]any
	if err := json.Unmarshal(options, &open); err != nil {
		t.Fatal(err)
	}
	delete(open["publicKey"], "allowCredentials") // as a browser does that has been changed
	opened, err := json.Marshal(open)
	if err != nil {
		t.Fatal(err)
	}
	get, err := foreign.Get(opened)
	if err != nil {
		t.Fatal(err)
	}
	f.Want(f.stepUp(token, httpapi.StepUp{Method: "passkey", Credential: get}), 401, "passkey_refused")
	right, err := key.Get(options)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		token  string
		in     any
		status int
		code   string
	}{
		{token, httpapi.StepUp{Method: "password"}, 422, "invalid_request"},
		{token, httpapi.StepUp{Method: "password", Code: codes[1]}, 422, "invalid_request"},
		{token, httpapi.StepUp{Method: "password", Password: "wrong"}, 401, "invalid_credentials"},
		{token, httpapi.StepUp{Method: "totp"}, 422, "malformed_code"},
		{token, httpapi.StepUp{Method: "totp", Password: kit.Password}, 422, "malformed_code"},
		{token, httpapi.StepUp{Method: "totp", Code: codes[1]}, 422, "malformed_code"},
		{token, httpapi.StepUp{Method: "totp", Code: f.wrong(secret)}, 401, "invalid_code"},
		{token, httpapi.StepUp{Method: "backup_code", Code: f.code(secret)}, 422, "malformed_code"},
		{token, httpapi.StepUp{Method: "backup_code", Code: "AAAA-AAAA-AAAA-AAAA"}, 401, "invalid_code"},
		{token, httpapi.StepUp{Method: "passkey"}, 422, "invalid_request"},
		{token, httpapi.StepUp{Method: "passkey", Code: codes[1]}, 422, "invalid_request"},
		{bob.AccessToken, httpapi.StepUp{Method: "backup_code", Code: codes[1]}, 422, "unknown_method"},
		{bob.AccessToken, httpapi.StepUp{Method: "totp", Code: f.code(secret)}, 401, "invalid_code"},
		{plain.AccessToken, httpapi.StepUp{Method: "totp", Code: f.code(secret)}, 422, "unknown_method"},
		{plain.AccessToken, httpapi.StepUp{Method: "passkey", Credential: right}, 409, "nothing_pending"},
		{"", httpapi.StepUp{Method: "password", Password: kit.Password}, 401, "token_missing"},
		{f.challenged("ada").MFAToken, httpapi.StepUp{Method: "password", Password: kit.Password}, 401, "invalid_token"},
	} {
		if a := f.stepUp(c.token, c.in.(httpapi.StepUp)); a.Status != c.status || a.Code() != c.code {
			t.Errorf("%+v is answered %d %s, want %d %s", c.in, a.Status, a.Body, c.status, c.code)
		}
	}
	for _, in := range []any{map[string]any{}, map[string]any{"method": "pwd", "password": kit.Password}, map[string]any{"method": nil}, "[]", "null", ""} {
		if a := f.Do("POST", "/api/login/step-up", token, in); a.Status < 400 || a.Status >= 500 {
			t.Errorf("%v is answered %d %s", in, a.Status, a.Body)
		}
	}
	f.Want(f.Do("POST", "/api/login/step-up/options", plain.AccessToken, nil), 422, "unknown_method")
	renewed := f.granted(f.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}))
	if got := f.authTime(renewed.AccessToken); got != began {
		t.Errorf("after nothing but refusals auth_time is %d, and was %d", got, began)
	}

	// Nothing of it was spent.
	f.Want(f.stepUp(token, httpapi.StepUp{Method: "passkey", Credential: right}), 200, "")
	f.Want(f.stepUp(token, httpapi.StepUp{Method: "backup_code", Code: codes[1]}), 200, "")
	f.Want(f.stepUp(token, httpapi.StepUp{Method: "totp", Code: f.code(secret)}), 200, "")
	f.Want(f.stepUp(bob.AccessToken, httpapi.StepUp{Method: "totp", Code: f.code(bobs)}), 200, "")
	f.Want(f.stepUp(plain.AccessToken, httpapi.StepUp{Method: "password", Password: kit.Password}), 200, "")
}

// mfaPause is long enough to tell one auth_time from another.
const mfaPause = 2 * time.Minute

// A between is a state in which something happens between two steps of what changes a session.
type between struct {
	state.Store
	before, after func() // each once, around the next change of a session; nil: nothing
}

func (b *between) Swap(ctx context.Context, k state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if k.Kind != session.Kind {
		return b.Store.Swap(ctx, k, version, value, ttl)
	}
	before, after := b.before, b.after
	b.before, b.after = nil, nil
	if before != nil {
		before()
	}
	version, err := b.Store.Swap(ctx, k, version, value, ttl)
	if after != nil {
		after()
	}
	return version, err
}

// A logout at the same moment as a step-up wins: nothing of the session is good afterwards.
func TestALogoutInTheMidstOfAStepUp(t *testing.T) {
	b := &between{Store: memstate.New(time.Now)}
	w := replica.NewWith(t, replica.Options{State: b}, nil)
	w.User("tester")
	for name, when := range map[string]*func(){"before": &b.before, "after": &b.after} {
		g := w.Login("tester")
		called := false
		*when = func() {
			called = true
			w.Want(w.Do("POST", "/api/logout", g.AccessToken, nil), 204, "")
		}
		w.Want(w.Do("POST", "/api/login/step-up", g.AccessToken, httpapi.StepUp{Method: "password", Password: kit.Password}), 401, "token_revoked")
		if !called {
			t.Errorf("%s: there was no logout", name)
		}
		w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
	}
}

// The same at two replicas, in whatever order.
func TestALogoutBesideAStepUp(t *testing.T) {
	f := newFactored(t, 2, func(c *config.Config) { c.MFA.Required.Mode = config.RequiredNever })
	f.User("tester")
	secret, _ := f.enrolTOTP(f.Login("tester").AccessToken)
	outcomes := map[string]int{}
	for range 20 {
		g := f.granted(f.login("tester", ""))
		in := httpapi.StepUp{Method: "totp", Code: f.code(secret)}
		at, other := f.next(), f.next()
		var stepped kit.Answer
		var both sync.WaitGroup
		both.Go(func() { stepped = at.Do("POST", "/api/login/step-up", g.AccessToken, in) })
		both.Go(func() { other.Want(other.Do("POST", "/api/logout", g.AccessToken, nil), 204, "") })
		both.Wait()
		since := time.Now()
		outcomes[fmt.Sprint(stepped.Status, " ", stepped.Code())]++
		if stepped.Status == 200 {
			for _, w := range f.all {
				w.Refuses(kit.Decode[httpapi.SteppedUp](t, stepped).AccessToken, "token_revoked", since, kit.Promised)
			}
		} else if stepped.Code() != "token_revoked" {
			t.Errorf("the step-up is answered %d %s", stepped.Status, stepped.Body)
		}
		f.Want(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
	}
	t.Logf("step-ups: %v", outcomes)
}

// Whoever changes by what they authenticate must have done so a moment ago: a token that was
// taken from them does not do. A step-up is enough, by the password or by a factor.
func TestChangesOfFactorsNeedAFreshLogin(t *testing.T) {
	f := newFactored(t, 1, func(c *config.Config) { c.Admin.FreshFor = time.Minute })
	f.User("tester")
	secret, g := f.enrolTOTP(f.Login("tester").AccessToken)
	key, g := f.enrolPasskey(g.AccessToken)
	codes := f.backupCodes(g.AccessToken)
	list := kit.Decode[httpapi.FactorList](t, f.Want(f.Do("GET", "/api/mfa", g.AccessToken, nil), 200, ""))
	passkeyID := list.Factors[slices.IndexFunc(list.Factors, func(one httpapi.Factor) bool { return one.Method == "passkey" })].ID
	pending := f.Want(f.Do("POST", "/api/mfa/passkeys", g.AccessToken, nil), 200, "")
	made, err := browser().Create(pending.Body)
	if err != nil {
		t.Fatal(err)
	}
	f.pass(2 * time.Minute)
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"POST", "/api/mfa/totp", nil},
		{"POST", "/api/mfa/totp/confirm", httpapi.Code{Code: "123456"}},
		{"DELETE", "/api/mfa/totp", nil},
		{"POST", "/api/mfa/backup-codes", nil},
		{"POST", "/api/mfa/backup-codes/confirm", httpapi.Code{Code: codes[0]}},
		{"DELETE", "/api/mfa/backup-codes", nil},
		{"POST", "/api/mfa/passkeys", nil},
		{"POST", "/api/mfa/passkeys/confirm", httpapi.NewPasskey{Credential: made}},
		{"PATCH", "/api/mfa/passkeys/" + passkeyID, httpapi.PasskeyName{Name: "another"}},
		{"DELETE", "/api/mfa/passkeys/" + passkeyID, nil},
	} {
		if a := f.Do(c.method, c.path, g.AccessToken, c.body); a.Status != 401 || a.Code() != "reauthentication_required" {
			t.Errorf("%s %s is answered %d %s", c.method, c.path, a.Status, a.Body)
		}
	}
	f.Want(f.Do("GET", "/api/mfa", g.AccessToken, nil), 200, "")
	f.Want(f.Do("PUT", "/api/me/password", g.AccessToken, httpapi.PasswordChange{CurrentPassword: "wrong", NewPassword: "another password"}), 401, "invalid_credentials")
	after := kit.Decode[httpapi.FactorList](t, f.Want(f.Do("GET", "/api/mfa", g.AccessToken, nil), 200, ""))
	if len(after.Factors) != len(list.Factors) {
		t.Errorf("the factors were %+v, and are %+v", list.Factors, after.Factors)
	}

	for _, in := range []func(token string) httpapi.StepUp{
		func(string) httpapi.StepUp { return httpapi.StepUp{Method: "password", Password: kit.Password} },
		func(string) httpapi.StepUp { return httpapi.StepUp{Method: "totp", Code: f.code(secret)} },
		func(string) httpapi.StepUp { return httpapi.StepUp{Method: "backup_code", Code: codes[1]} },
		func(token string) httpapi.StepUp {
			return httpapi.StepUp{Method: "passkey", Credential: f.assertion(token, key)}
		},
	} {
		f.Want(f.Do("PATCH", "/api/mfa/passkeys/"+passkeyID, g.AccessToken, httpapi.PasskeyName{Name: "another"}), 401, "reauthentication_required")
		stepped := kit.Decode[httpapi.SteppedUp](t, f.Want(f.stepUp(g.AccessToken, in(g.AccessToken)), 200, "")).AccessToken
		f.Want(f.Do("PATCH", "/api/mfa/passkeys/"+passkeyID, stepped, httpapi.PasskeyName{Name: "another"}), 204, "")
		f.pass(2 * time.Minute)
	}

	// Administration takes a step-up for a fresh login, too.
	admin := f.Login("admin").AccessToken
	user := map[string]any{"username": "another", "password": kit.Password}
	f.pass(2 * time.Minute)
	f.Want(f.Do("POST", "/api/users", admin, user), 401, "reauthentication_required")
	stepped := kit.Decode[httpapi.SteppedUp](t, f.Want(f.stepUp(admin, httpapi.StepUp{Method: "password", Password: kit.Password}), 200, "")).AccessToken
	f.Want(f.Do("POST", "/api/users", admin, user), 401, "reauthentication_required")
	f.Want(f.Do("POST", "/api/users", stepped, user), 201, "")
}

// from is a request from an address.
func (f *factored) from(w *replica.World, address, path, token string, body any) kit.Answer {
	f.T.Helper()
	r := w.Request("POST", path, token, body)
	r.Header.Set("X-Forwarded-For", address)
	return w.Send(r)
}

// limited bounds attempts as the default does, in part.
func limited(lockout, rate bool) func(*config.Config) {
	return func(c *config.Config) {
		c.Server.TrustedProxies = []string{"127.0.0.0/8"}
		if lockout {
			c.Limits.Lockout = config.Default().Limits.Lockout
		}
		if rate {
			c.Limits.MFA.PerAccount = config.Rate{Count: 10, Per: 5 * time.Minute}
		}
	}
}

const (
	home  = "198.51.100.7"
	thief = "203.0.113.9"
)

// Five wrong answers from an address make those from there wait, whatever the method, at a login
// and at a step-up: the right one is refused as a wrong one is. Beginning anew gains nothing. The
// user at home is not hindered.
func TestLockoutHoldsForSecondFactors(t *testing.T) {
	f := newFactored(t, 2, limited(true, false))
	const wrongCode = "AAAA-AAAA-AAAA-AAAA"
	stepping := func(in httpapi.StepUp) func(w *replica.World, token string) kit.Answer {
		return func(w *replica.World, token string) kit.Answer {
			return f.from(w, thief, "/api/login/step-up", token, in)
		}
	}
	for _, c := range []struct {
		name  string
		wrong func(name, secret string) func(w *replica.World, token string) kit.Answer
		right func(name, secret string, codes []string) func(w *replica.World, token string) kit.Answer
		code  string
	}{
		{"step-up-totp", func(_, secret string) func(*replica.World, string) kit.Answer {
			return stepping(httpapi.StepUp{Method: "totp", Code: f.wrong(secret)})
		}, func(_, secret string, _ []string) func(*replica.World, string) kit.Answer {
			return stepping(httpapi.StepUp{Method: "totp", Code: f.code(secret)})
		}, "invalid_code"},
		{"step-up-backup-code", func(string, string) func(*replica.World, string) kit.Answer {
			return stepping(httpapi.StepUp{Method: "backup_code", Code: wrongCode})
		}, func(_, _ string, codes []string) func(*replica.World, string) kit.Answer {
			return stepping(httpapi.StepUp{Method: "backup_code", Code: codes[1]})
		}, "invalid_code"},
		{"step-up-password", func(string, string) func(*replica.World, string) kit.Answer {
			return stepping(httpapi.StepUp{Method: "password", Password: "wrong"})
		}, func(string, string, []string) func(*replica.World, string) kit.Answer {
			return stepping(httpapi.StepUp{Method: "password", Password: kit.Password})
		}, "invalid_credentials"},
		{"login", func(name, secret string) func(*replica.World, string) kit.Answer {
			return func(w *replica.World, _ string) kit.Answer {
				begun := f.from(w, thief, "/api/login", "", httpapi.LoginRequest{Username: name, Password: kit.Password})
				c := kit.Decode[httpapi.LoginRefusal](t, f.Want(begun, 401, "mfa_required"))
				return f.from(w, thief, "/api/login/mfa", "", httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: f.wrong(secret)})
			}
		}, func(name, secret string, _ []string) func(*replica.World, string) kit.Answer {
			// Of a login that has begun elsewhere: at this address the password waits, too.
			begun := f.from(f.World, home, "/api/login", "", httpapi.LoginRequest{Username: name, Password: kit.Password})
			c := kit.Decode[httpapi.LoginRefusal](t, f.Want(begun, 401, "mfa_required"))
			return func(w *replica.World, _ string) kit.Answer {
				return f.from(w, thief, "/api/login/mfa", "", httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: f.code(secret)})
			}
		}, "invalid_code"},
	} {
		f.run(t, c.name, func(t *testing.T) {
			f.User(c.name)
			secret, g := f.enrolTOTP(f.granted(f.from(f.World, home, "/api/login", "", httpapi.LoginRequest{Username: c.name, Password: kit.Password})).AccessToken)
			codes := f.backupCodes(g.AccessToken)
			for range 5 {
				f.Want(c.wrong(c.name, secret)(f.next(), g.AccessToken), 401, c.code)
			}
			before := f.now()
			right := c.right(c.name, secret, codes)
			if waited := f.now().Sub(before); waited > 25*time.Second {
				f.pass(-waited) // so that the wait is not over; the code is one of the next step
			}
			f.Want(right(f.next(), g.AccessToken), 401, c.code)
			f.Want(f.from(f.next(), thief, "/api/login", "", httpapi.LoginRequest{Username: c.name, Password: kit.Password}), 401, "invalid_credentials")
			f.Want(f.from(f.next(), home, "/api/login/step-up", g.AccessToken, httpapi.StepUp{Method: "password", Password: kit.Password}), 200, "")
			f.pass(16 * time.Minute)
			f.Want(f.from(f.next(), thief, "/api/login/step-up", g.AccessToken, httpapi.StepUp{Method: "totp", Code: f.code(secret)}), 200, "")
		})
	}
}

// The rate of an account counts what is presented at all its logins and in all its sessions, from
// all addresses that are not its user's, and at all replicas.
func TestTheRateOfAnAccountCountsAllFactors(t *testing.T) {
	f := newFactored(t, 2, limited(false, true))
	f.User("tester")
	f.User("other")
	begin := func(w *replica.World, address, name string) kit.Answer {
		return f.from(w, address, "/api/login", "", httpapi.LoginRequest{Username: name, Password: kit.Password})
	}
	secret, g := f.enrolTOTP(f.granted(begin(f.World, home, "tester")).AccessToken)
	others, other := f.enrolTOTP(f.granted(begin(f.World, home, "other")).AccessToken)
	f.backupCodes(g.AccessToken)
	answer := func(w *replica.World, address, code string) kit.Answer {
		c := kit.Decode[httpapi.LoginRefusal](t, f.Want(begin(w, address, "tester"), 401, "mfa_required"))
		return f.from(w, address, "/api/login/mfa", "", httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: code})
	}
	second := f.granted(answer(f.World, home, f.code(secret))) // from where she logs in, which counts for itself
	present := func(i int) kit.Answer {
		w, address := f.next(), []string{thief, "203.0.113.10", "2001:db8::1"}[i%3]
		switch i % 4 {
		case 0, 1:
			return answer(w, address, f.wrong(secret))
		case 2:
			return f.from(w, address, "/api/login/step-up", g.AccessToken, httpapi.StepUp{Method: "totp", Code: f.wrong(secret)})
		}
		return f.from(w, address, "/api/login/step-up", second.AccessToken, httpapi.StepUp{Method: "backup_code", Code: "AAAA-AAAA-AAAA-AAAA"})
	}
	for i := range 10 {
		f.Want(present(i), 401, "invalid_code")
	}
	for i := range 4 {
		a := f.Want(present(10+i), 429, "too_many_attempts")
		if wait, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || wait < 1 || wait > 30 {
			t.Errorf("Retry-After: %s", a.Header.Get("Retry-After"))
		}
	}
	// Other users are not hindered, nor is this one at home.
	f.Want(f.from(f.next(), thief, "/api/login/step-up", other.AccessToken, httpapi.StepUp{Method: "totp", Code: f.wrong(others)}), 401, "invalid_code")
	f.granted(answer(f.next(), home, f.code(secret)))
}
