package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A factored is replicas of one service on one clock, which a test sets ahead.
type factored struct {
	*replica.World                  // the first
	all            []*replica.World // the first, too
	ahead          atomic.Int64
	turn           int
}

// newFactored starts one replica on SQLite, or several on one PostgreSQL.
func newFactored(t *testing.T, replicas int, change func(*config.Config)) *factored {
	t.Helper()
	f := &factored{}
	o := replica.Options{Now: f.now}
	configure := func(c *config.Config) {
		c.Revocation.MaxStaleness = 48 * time.Hour // longer than a test sets the clock ahead
		kit.StoredKeys(c)
		if change != nil {
			change(c)
		}
	}
	if replicas == 1 {
		f.all = append(f.all, replica.NewWith(t, o, func(c *config.Config) { configure(c); c.Tokens.Keys = config.Default().Tokens.Keys }))
	} else {
		database := testenv.Postgres(t)
		for range replicas {
			f.all = append(f.all, replica.JoinWith(t, database, o, configure))
		}
	}
	f.World = f.all[0]
	f.Parts() // which last as long as the test, also if a part of it asks for them first
	return f
}

// run runs a part of a test.
func (f *factored) run(t *testing.T, name string, part func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		for _, w := range f.all {
			defer func(before testing.TB) { w.T = before }(w.T)
			w.T = t
		}
		part(t)
	})
}

func (f *factored) now() time.Time       { return time.Now().Add(time.Duration(f.ahead.Load())) }
func (f *factored) pass(d time.Duration) { f.ahead.Add(int64(d)) }

// next returns the replicas one after the other.
func (f *factored) next() *replica.World {
	f.turn++
	return f.all[f.turn%len(f.all)]
}

// require sets the policy, as a restart of each replica does.
func (f *factored) require(policy string) {
	f.T.Helper()
	for _, w := range f.all {
		if err := w.Config.MFA.Required.UnmarshalText([]byte(policy)); err != nil {
			f.T.Fatal(err)
		}
		w.Restart()
	}
}

// code returns a code of a secret that was not used before, since time passes first.
func (f *factored) code(secret string) string {
	f.pass(mfatest.Step)
	return mfatest.Code(f.T, secret, f.now())
}

// wrong returns a code that is not one of a secret.
func (f *factored) wrong(secret string) string {
	var near []string
	for step := -2; step <= 2; step++ {
		near = append(near, mfatest.Code(f.T, secret, f.now().Add(time.Duration(step)*mfatest.Step)))
	}
	for i := 0; ; i++ {
		if code := fmt.Sprintf("%06d", i); !slices.Contains(near, code) {
			return code
		}
	}
}

// browser is an authenticator that verifies its user, at a page of the service.
func browser() *passkeytest.Authenticator {
	return &passkeytest.Authenticator{Origin: "https://auth.example.com", Verifies: true}
}

// login presents the usual password, and a device_token unless it is "".
func (f *factored) login(name, device string) kit.Answer {
	f.T.Helper()
	return f.next().Do("POST", "/api/login", "", httpapi.LoginRequest{Username: name, Password: kit.Password, DeviceToken: device})
}

// challenged is login for a user who is asked for more.
func (f *factored) challenged(name string) httpapi.LoginRefusal {
	f.T.Helper()
	return kit.Decode[httpapi.LoginRefusal](f.T, f.Want(f.login(name, ""), 401, "mfa_required"))
}

// answer finishes a login.
func (f *factored) answer(in httpapi.MFARequest) kit.Answer {
	f.T.Helper()
	return f.next().Do("POST", "/api/login/mfa", "", in)
}

// granted decodes a grant.
func (f *factored) granted(a kit.Answer) httpapi.Grant {
	f.T.Helper()
	return kit.Decode[httpapi.Grant](f.T, f.Want(a, 200, ""))
}

// withTOTP logs a user in who has an authenticator app.
func (f *factored) withTOTP(name, secret string) httpapi.Grant {
	f.T.Helper()
	return f.granted(f.answer(httpapi.MFARequest{MFAToken: f.challenged(name).MFAToken, Method: "totp", Code: f.code(secret)}))
}

// enrolTOTP gives the holder of a token an authenticator app.
func (f *factored) enrolTOTP(token string) (secret string, g httpapi.Grant) {
	f.T.Helper()
	e := kit.Decode[httpapi.Enrolment](f.T, f.Want(f.next().Do("POST", "/api/mfa/totp", token, nil), 200, ""))
	return e.Secret, f.granted(f.next().Do("POST", "/api/mfa/totp/confirm", token, httpapi.Code{Code: f.code(e.Secret)}))
}

// enrolPasskey gives the holder of a token a passkey.
func (f *factored) enrolPasskey(token string) (*passkeytest.Authenticator, httpapi.Grant) {
	f.T.Helper()
	key := browser()
	options := f.Want(f.next().Do("POST", "/api/mfa/passkeys", token, nil), 200, "")
	made, err := key.Create(options.Body)
	if err != nil {
		f.T.Fatal(err)
	}
	return key, f.granted(f.next().Do("POST", "/api/mfa/passkeys/confirm", token, httpapi.NewPasskey{Credential: made}))
}

// wantAuthentication fails unless a token says so.
func (f *factored) wantAuthentication(token, acr string, amr ...string) {
	f.T.Helper()
	got := struct {
		AMR []string `json:"amr"`
		ACR string   `json:"acr"`
	}{}
	if err := json.Unmarshal(f.Want(f.next().Do("GET", "/api/verify", token, nil), 200, "").Body, &got); err != nil {
		f.T.Fatal(err)
	}
	if got.ACR != acr || !slices.Equal(got.AMR, amr) {
		f.T.Errorf("the token says amr %v and acr %s, want %v and %s", got.AMR, got.ACR, amr, acr)
	}
}

// Under never a password is enough, also for users who have factors. Their passkeys log them in
// all the same, and what they have counts again when the policy does.
func TestNoFactorIsAskedFor(t *testing.T) {
	f := newFactored(t, 1, nil)
	f.User("tester")
	secret, g := f.enrolTOTP(f.Login("tester").AccessToken)
	f.wantAuthentication(g.AccessToken, "aal2", "mfa", "otp", "pwd")
	key, g := f.enrolPasskey(g.AccessToken)
	f.wantAuthentication(g.AccessToken, "aal2", "hwk", "mfa", "otp", "pwd", "user")
	if c := f.challenged("tester"); !slices.Equal(c.Methods, []string{"totp", "passkey"}) || len(c.Enrol) > 0 || c.ExpiresIn != 300 {
		t.Errorf("under when-enrolled: %+v", c)
	}

	f.require("never")
	f.wantAuthentication(f.granted(f.login("tester", "")).AccessToken, "aal1", "pwd")
	get, err := key.Get(f.Want(f.Do("POST", "/api/login/passkey/options", "", nil), 200, "").Body)
	if err != nil {
		t.Fatal(err)
	}
	g = f.granted(f.Do("POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: get}))
	f.wantAuthentication(g.AccessToken, "aal2", "hwk", "mfa", "user")

	f.require("when-enrolled")
	f.wantAuthentication(f.withTOTP("tester", secret).AccessToken, "aal2", "mfa", "otp", "pwd")
}

// A user who must have a factor and has none can enrol one to log in, and do nothing else: no
// route takes the mfa_token as anything else.
func TestWhoMustEnrolCanDoNothingElse(t *testing.T) {
	f := newFactored(t, 1, func(c *config.Config) { c.MFA.Required.Mode = config.RequiredAlways })
	id := f.User("tester", "admin=users:read")
	c := f.challenged("tester")
	if !slices.Equal(c.Enrol, []string{"totp", "passkey"}) || len(c.Methods) > 0 || c.ExpiresIn != 600 {
		t.Errorf("the challenge is %+v", c)
	}
	// A token that nobody was given: what is answered to the real one must be the same.
	forged := strings.Repeat("A", strings.Index(c.MFAToken, ".")) + "." + id
	own := []string{"/api/login/mfa", "/api/login/mfa/options", "/api/login/mfa/enrol"}
	tried := 0
	for _, o := range operations(f.World) {
		path := strings.NewReplacer("{id}", id, "{group}", id, "{claim}", id, "{factor}", id, "{kind}", "accounts", "{name}", "tester").Replace(o.path)
		answers := func(token string) (all []kit.Answer, sent []string) {
			try := func(bearer string, body any) {
				all, sent = append(all, f.Do(o.method, path, bearer, body)), append(sent, fmt.Sprintf("%s %s with Bearer %.8s and %v", o.method, path, bearer, body))
			}
			if len(o.members) == 0 {
				try(token, nil)
			}
			for _, here := range o.members {
				body := map[string]any{}
				for _, member := range o.members {
					if v, ok := known[member]; ok {
						body[member] = v
					}
				}
				body[here] = token
				if !slices.Contains(own, o.path) || here != "mfa_token" {
					try("", body)
				}
				try(token, body)
			}
			return all, sent
		}
		if slices.Contains(own, o.path) {
			o.members = slices.DeleteFunc(o.members, func(m string) bool { return m == "mfa_token" })
		}
		wants, _ := answers(forged)
		got, sent := answers(c.MFAToken)
		for i, a := range got {
			if tried++; a.Status != wants[i].Status || a.Code() != wants[i].Code() || strings.Contains(string(a.Body), `"access_token":`) && o.path != "/openapi.json" {
				t.Errorf("%s is answered %d %.300s\nand without a login %d %s", sent[i], a.Status, a.Body, wants[i].Status, wants[i].Code())
			}
			if o.secured && a.Status < 300 {
				t.Errorf("%s is answered %d", sent[i], a.Status)
			}
		}
	}
	if tried < 100 {
		t.Errorf("%d requests only", tried)
	}
	logins, err := f.Parts().Audit.Events(t.Context(), store.AuditQuery{Action: "login", Outcome: audit.OK, Limit: 10})
	if err != nil || len(logins) != 0 {
		t.Errorf("the audit trail has %+v, %v", logins, err)
	}

	// What is no enrolment does not finish the login.
	f.Want(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "backup_code", Code: "AAAA-AAAA-AAAA-AAAA"}), 422, "unknown_method")
	f.Want(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: "000000"}), 409, "nothing_pending")
	f.Want(f.Do("POST", "/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: c.MFAToken}), 422, "unknown_method")

	// The enrolment does, once, and the user may do then what the user may do.
	e := kit.Decode[httpapi.Enrolment](t, f.Want(f.Do("POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: c.MFAToken, Method: "totp"}), 200, ""))
	f.Want(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: f.wrong(e.Secret)}), 401, "invalid_code")
	g := f.granted(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: f.code(e.Secret)}))
	f.wantAuthentication(g.AccessToken, "aal2", "mfa", "otp", "pwd")
	f.Want(f.Do("GET", "/api/users", g.AccessToken, nil), 200, "")
	f.Want(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: f.code(e.Secret)}), 401, "invalid_mfa_token")
	f.withTOTP("tester", e.Secret)
}

// The passkey that a user enrols to log in is one of theirs then.
func TestAPasskeyIsEnrolledAtTheLogin(t *testing.T) {
	f := newFactored(t, 2, func(c *config.Config) { c.MFA.Required.Mode = config.RequiredAlways })
	f.User("tester")
	c := f.challenged("tester")
	options := f.Want(f.next().Do("POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: c.MFAToken, Method: "passkey"}), 200, "")
	key := browser()
	made, err := key.Create(options.Body)
	if err != nil {
		t.Fatal(err)
	}
	g := f.granted(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "passkey", Credential: made}))
	f.wantAuthentication(g.AccessToken, "aal2", "hwk", "mfa", "pwd", "user")
	c = f.challenged("tester")
	if !slices.Equal(c.Methods, []string{"passkey"}) {
		t.Errorf("the next login is asked %+v", c)
	}
	get, err := key.Get(f.Want(f.next().Do("POST", "/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: c.MFAToken}), 200, "").Body)
	if err != nil {
		t.Fatal(err)
	}
	g = f.granted(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "passkey", Credential: get}))
	f.wantAuthentication(g.AccessToken, "aal2", "hwk", "mfa", "pwd", "user")
}

// The first administrator enrols at the first login, where everybody must.
func TestTheFirstAdministratorEnrols(t *testing.T) {
	f := newFactored(t, 1, func(c *config.Config) { c.MFA.Required.Mode = config.RequiredAlways })
	f.Want(f.Do("POST", "/api/users", f.superuser(), map[string]any{"username": "another", "password": kit.Password}), 201, "")
}

// An operation of /openapi.json.
type operation struct {
	method, path string
	secured      bool
	members      []string // of its body
}

func operations(w *replica.World) (list []operation) {
	w.T.Helper()
	type schema struct {
		Ref        string `json:"$ref"`
		Properties map[string]any
	}
	doc := kit.Decode[struct {
		Paths map[string]map[string]struct {
			Security    []map[string][]string
			RequestBody struct {
				Content map[string]struct{ Schema schema }
			}
		}
		Components struct{ Schemas map[string]schema }
	}](w.T, w.Want(w.Do("GET", "/openapi.json", "", nil), 200, ""))
	for path, item := range doc.Paths {
		for method, op := range item {
			s := op.RequestBody.Content["application/json"].Schema
			if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
				s = doc.Components.Schemas[name]
			}
			members := slices.DeleteFunc(slices.Sorted(maps.Keys(s.Properties)), func(m string) bool { return strings.HasPrefix(m, "$") })
			list = append(list, operation{strings.ToUpper(method), path, len(op.Security) > 0, members})
		}
	}
	return list
}

// known is what a client knows who has the password.
var known = map[string]any{
	"username": "tester", "password": kit.Password, "current_password": kit.Password, "new_password": "another password", "method": "totp", "code": "000000",
}

// A session that began before its user had to have a second factor is renewed no more, and gets no
// other in its place. Nothing is spent: it goes on when the user need not have one any more, or
// has presented one in it.
func TestSessionsFromBeforeThePolicy(t *testing.T) {
	f := newFactored(t, 1, nil)
	f.User("tester")
	f.User("other")
	first, second, other := f.Login("tester"), f.Login("tester"), f.Login("other")
	renewed := func(g httpapi.Grant) httpapi.Grant {
		t.Helper()
		next, a := f.Renew(g.RefreshToken)
		f.Want(a, 200, "")
		return next
	}
	refused := func(g httpapi.Grant) {
		t.Helper()
		f.Want(f.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "second_factor_required")
	}
	first = renewed(first)

	f.require("always")
	for _, g := range []httpapi.Grant{first, second, other} {
		refused(g)
		f.Verify(g.AccessToken)
	}
	f.Want(f.Do("POST", "/api/login/step-up", first.AccessToken, httpapi.StepUp{Method: "password", Password: kit.Password}), 401, "second_factor_required")
	f.Want(f.Do("PUT", "/api/me/password", other.AccessToken, httpapi.PasswordChange{CurrentPassword: kit.Password, NewPassword: "another password"}), 503, "password_changed")
	list := f.Want(f.Do("GET", "/api/users/other/sessions", f.superuser(), nil), 200, "")
	if n := len(kit.Decode[httpapi.SessionList](t, list).Sessions); n != 0 {
		t.Errorf("after another password there are %d sessions", n)
	}

	f.require("when-enrolled")
	first = renewed(first)
	f.require("always")
	refused(first)
	secret, g := f.enrolTOTP(first.AccessToken)
	f.wantAuthentication(g.AccessToken, "aal2", "mfa", "otp", "pwd")
	f.wantAuthentication(renewed(g).AccessToken, "aal2", "mfa", "otp", "pwd")
	f.wantAuthentication(renewed(f.withTOTP("tester", secret)).AccessToken, "aal2", "mfa", "otp", "pwd")
	f.Want(f.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: second.RefreshToken}), 401, "invalid_refresh_token")

	// The session of a user who has a factor, from the time when nobody was asked for one.
	f.require("never")
	g = f.granted(f.login("tester", ""))
	f.require("always")
	refused(g)
	f.granted(f.Do("POST", "/api/login/step-up", g.AccessToken, httpapi.StepUp{Method: "totp", Code: f.code(secret)}))
	f.wantAuthentication(renewed(g).AccessToken, "aal2", "mfa", "otp", "pwd")
}

// Who must have a factor follows from the claims that a user has at each moment.
func TestClaimsSayWhoMustHaveAFactor(t *testing.T) {
	f := newFactored(t, 2, func(c *config.Config) {
		if err := c.MFA.Required.UnmarshalText([]byte("claims:[boss, log=w]")); err != nil {
			t.Fatal(err)
		}
	})
	f.User("chief", "boss=of all")
	f.User("writer", "log=r", "log=w", "log=x")
	f.User("reader", "log=r", "log=ww", "bos=s", "Boss=1")
	for _, name := range []string{"chief", "writer"} {
		if c := f.challenged(name); len(c.Enrol) == 0 {
			t.Errorf("%s is asked %+v", name, c)
		}
	}
	g := f.granted(f.login("reader", ""))

	// A claim is given: the session ends with its access token, unless the claim is taken away.
	admin := f.superuser()
	give := func() {
		t.Helper()
		f.Want(f.next().Do("POST", "/api/users/reader/groups", admin, httpapi.GroupRef{Group: "of chief"}), 204, "")
	}
	take := func() {
		t.Helper()
		f.Want(f.next().Do("DELETE", "/api/users/reader/groups/of%20chief", admin, nil), 204, "")
	}
	begun := f.granted(f.login("reader", ""))
	give()
	f.Want(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "second_factor_required")
	c := f.challenged("reader")
	take()
	f.granted(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}))
	f.granted(f.login("reader", ""))

	// A login that was asked to enrol does so also if the claim is gone meanwhile; then the user
	// has a factor, and is asked for it.
	e := kit.Decode[httpapi.Enrolment](t, f.Want(f.next().Do("POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: c.MFAToken, Method: "totp"}), 200, ""))
	g = f.granted(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: f.code(e.Secret)}))
	f.Want(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: begun.RefreshToken}), 401, "invalid_refresh_token")
	give()
	f.granted(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}))
	f.withTOTP("reader", e.Secret)
}

// superuser logs the administrator in, who has no factor.
func (f *factored) superuser() string {
	f.T.Helper()
	if f.Config.MFA.Required.Mode != config.RequiredAlways {
		return f.granted(f.login("admin", "")).AccessToken
	}
	c := f.challenged("admin")
	e := kit.Decode[httpapi.Enrolment](f.T, f.Want(f.next().Do("POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: c.MFAToken, Method: "totp"}), 200, ""))
	return f.granted(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: f.code(e.Secret)})).AccessToken
}
