package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/test/kit"
)

// list returns what the holder of a token has, by method.
func (f *factored) list(token string) map[string]httpapi.Factor {
	f.T.Helper()
	a := f.Want(f.next().Do("GET", "/api/mfa", token, nil), 200, "")
	if !strings.Contains(string(a.Body), `"factors":[`) {
		f.T.Errorf("no list: %s", a.Body)
	}
	all := map[string]httpapi.Factor{}
	for _, one := range kit.Decode[httpapi.FactorList](f.T, a).Factors {
		all[one.Method] = one
	}
	return all
}

// makeCodes gives the holder of a token new backup codes.
func (f *factored) makeCodes(token string) []string {
	f.T.Helper()
	made := kit.Decode[httpapi.BackupCodes](f.T, f.Want(f.next().Do("POST", "/api/mfa/backup-codes", token, nil), 200, ""))
	a := f.Want(f.next().Do("POST", "/api/mfa/backup-codes/confirm", token, httpapi.Code{Code: made.Codes[0]}), 200, "")
	if left := kit.Decode[httpapi.CodesLeft](f.T, a).Left; left != 10 || len(made.Codes) != 10 {
		f.T.Errorf("%d codes, %d are left", len(made.Codes), left)
	}
	return made.Codes
}

// spend answers a login of a user with a backup code.
func (f *factored) spend(name, code string) kit.Answer {
	f.T.Helper()
	return f.answer(httpapi.MFARequest{MFAToken: f.challenged(name).MFAToken, Method: "backup_code", Code: code})
}

// dead fails unless the tokens of a grant are revoked and its session has ended.
func (f *factored) dead(g httpapi.Grant) {
	f.T.Helper()
	f.Want(f.next().Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
	_, a := f.next().Renew(g.RefreshToken)
	f.Want(a, 401, "invalid_refresh_token")
}

// An authenticator app and backup codes from their enrolment to their removal. Nothing that is
// secret stands in the log or in the audit trail.
func TestLifeOfAnAuthenticatorApp(t *testing.T) {
	f := newFactored(t, 1, nil)
	f.User("tester")
	secrets := []string{}
	before := f.Login("tester")
	if got := f.list(before.AccessToken); len(got) != 0 {
		t.Errorf("a new user has %v", got)
	}
	f.Want(f.Do("POST", "/api/mfa/backup-codes", before.AccessToken, nil), 409, "no_factor")
	f.Want(f.Do("DELETE", "/api/mfa/totp", before.AccessToken, nil), 404, "factor_not_found")
	f.Want(f.Do("POST", "/api/mfa/totp/confirm", before.AccessToken, httpapi.Code{Code: "000000"}), 409, "nothing_pending")

	a := f.Want(f.Do("POST", "/api/mfa/totp", before.AccessToken, nil), 200, "")
	e := kit.Decode[httpapi.Enrolment](t, a)
	uri, err := url.Parse(e.URI)
	if err != nil || uri.Scheme != "otpauth" || uri.Host != "totp" || uri.Query().Get("secret") != e.Secret || !strings.HasSuffix(uri.Path, ":tester") {
		t.Errorf("%s, %v", e.URI, err)
	}
	if !strings.HasPrefix(e.QR, "<svg ") && !strings.HasPrefix(e.QR, "<?xml ") || e.ExpiresIn != 600 || e.PublicKey != nil || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%+v, %v", e, a.Header)
	}
	secrets = append(secrets, e.Secret)
	f.Want(f.Do("POST", "/api/mfa/totp/confirm", before.AccessToken, httpapi.Code{Code: f.wrong(e.Secret)}), 401, "invalid_code")
	f.Want(f.Do("GET", "/api/verify", before.AccessToken, nil), 200, "")
	g := f.granted(f.Do("POST", "/api/mfa/totp/confirm", before.AccessToken, httpapi.Code{Code: f.code(e.Secret)}))
	f.dead(before)
	f.wantAuthentication(g.AccessToken, "aal2", "mfa", "otp", "pwd")
	g, a = f.Renew(g.RefreshToken)
	f.Want(a, 200, "")
	f.Want(f.Do("POST", "/api/mfa/totp", g.AccessToken, nil), 409, "already_enrolled")

	// A login. No list is null.
	a = f.Want(f.login("tester", ""), 401, "mfa_required")
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(a.Body, &raw); err != nil || string(raw["methods"]) != `["totp"]` || string(raw["enrol"]) != "[]" || string(raw["expires_in"]) != "300" {
		t.Errorf("%s, %v", a.Body, err)
	}
	if a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("WWW-Authenticate") == "" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", a.Header)
	}
	waits := kit.Decode[httpapi.LoginRefusal](t, a).MFAToken
	code := f.code(e.Secret)
	a = f.answer(httpapi.MFARequest{MFAToken: waits, Method: "totp", Code: code})
	after := f.granted(a)
	if strings.Contains(string(a.Body), "device_token") || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v %s", a.Header, a.Body)
	}
	f.wantAuthentication(after.AccessToken, "aal2", "mfa", "otp", "pwd")
	f.Want(f.answer(httpapi.MFARequest{MFAToken: waits, Method: "totp", Code: code}), 401, "invalid_mfa_token")
	f.Want(f.answer(httpapi.MFARequest{MFAToken: f.challenged("tester").MFAToken, Method: "totp", Code: code}), 401, "code_used")
	secrets = append(secrets, waits, after.RefreshToken, g.RefreshToken)

	// Backup codes end no session. The old ones are good until there are new ones.
	codes := f.makeCodes(after.AccessToken)
	f.Want(f.Do("POST", "/api/mfa/backup-codes/confirm", after.AccessToken, httpapi.Code{Code: codes[0]}), 409, "nothing_pending")
	f.Want(f.Do("GET", "/api/verify", g.AccessToken, nil), 200, "")
	if got := f.challenged("tester").Methods; !slices.Equal(got, []string{"totp", "backup_code"}) {
		t.Errorf("the methods are %q", got)
	}
	for i, one := range codes[:8] {
		if got := f.list(after.AccessToken)["backup_code"]; got.Left == nil || *got.Left != 10-i || got.Warning != "" {
			t.Errorf("after %d codes: %+v", i, got)
		}
		got := f.granted(f.spend("tester", one))
		if left := 9 - i; got.BackupCodesLeft == nil || *got.BackupCodesLeft != left || (got.Warning == "few_left") != (left <= 2) {
			t.Errorf("the answer to code %d: %+v", i, got)
		}
		f.Want(f.spend("tester", one), 401, "code_used")
	}
	if got := f.list(after.AccessToken)["backup_code"]; *got.Left != 2 || got.Warning != "few_left" {
		t.Errorf("with two codes: %+v", got)
	}
	next := kit.Decode[httpapi.BackupCodes](t, f.Want(f.Do("POST", "/api/mfa/backup-codes", after.AccessToken, nil), 200, "")).Codes
	f.Want(f.spend("tester", next[0]), 401, "invalid_code")
	f.granted(f.spend("tester", codes[8]))
	f.Want(f.Do("POST", "/api/mfa/backup-codes/confirm", after.AccessToken, httpapi.Code{Code: codes[9]}), 401, "invalid_code")
	f.Want(f.Do("POST", "/api/mfa/backup-codes/confirm", after.AccessToken, httpapi.Code{Code: next[9]}), 200, "")
	f.Want(f.spend("tester", codes[9]), 401, "invalid_code")
	f.granted(f.spend("tester", next[9]))
	f.Want(f.Do("DELETE", "/api/mfa/backup-codes", after.AccessToken, nil), 204, "")
	f.Want(f.Do("DELETE", "/api/mfa/backup-codes", after.AccessToken, nil), 404, "factor_not_found")
	secrets = append(append(secrets, codes...), next...)

	// Backup codes go with the app.
	f.makeCodes(after.AccessToken)
	end := f.granted(f.Do("DELETE", "/api/mfa/totp", after.AccessToken, nil))
	f.dead(after)
	if got := f.list(end.AccessToken); len(got) != 0 {
		t.Errorf("after the removal: %v", got)
	}
	f.Login("tester")

	events, err := json.Marshal(f.Trail(f.Login("admin").AccessToken, url.Values{"limit": {"200"}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"mfa.enrol", "mfa.remove", "mfa.backup_code"} {
		if !strings.Contains(string(events), `"`+action+`"`) {
			t.Errorf("the audit trail has no %s", action)
		}
	}
	for _, one := range secrets {
		for _, form := range []string{one, strings.ReplaceAll(one, "-", "")} {
			if strings.Contains(f.Log.String(), form) || strings.Contains(string(events), form) {
				t.Errorf("the log or the audit trail has %s", one)
			}
		}
	}
}

// Administrators see the factors of users and remove them, but not those of somebody stronger.
func TestAdministratorsRemoveFactors(t *testing.T) {
	f := newFactored(t, 1, nil)
	helper := f.User("helper", "admin=users:read", "admin=users:write")
	f.User("strong", "admin=users:read", "admin=users:write", "log=r")
	tester := f.User("tester")
	secret, g := f.enrolTOTP(f.Login("tester").AccessToken)
	codes := f.makeCodes(g.AccessToken)
	_, strong := f.enrolTOTP(f.Login("strong").AccessToken)
	help := f.Login("helper").AccessToken

	for _, ref := range []string{"tester", tester} {
		got := kit.Decode[httpapi.FactorList](t, f.Want(f.Do("GET", "/api/users/"+ref+"/factors", help, nil), 200, ""))
		if len(got.Factors) != 2 || got.Required {
			t.Errorf("%+v", got)
		}
	}
	f.Want(f.Do("GET", "/api/users/nobody/factors", help, nil), 404, "user_not_found")
	f.Want(f.Do("GET", "/api/users/helper/factors", g.AccessToken, nil), 403, "permission_missing")
	for _, one := range []struct{ method, path string }{{"DELETE", "/factors"}, {"DELETE", "/factors/x"}, {"POST", "/recovery"}} {
		body := any(nil)
		if one.method == "POST" {
			body = httpapi.NewRecovery{}
		}
		f.Want(f.Do(one.method, "/api/users/strong"+one.path, help, body), 403, "beyond_own_rights")
		f.Want(f.Do(one.method, "/api/users/helper"+one.path, g.AccessToken, body), 403, "permission_missing")
		f.Want(f.Do(one.method, "/api/users/nobody"+one.path, help, body), 404, "user_not_found")
	}
	f.Want(f.Do("GET", "/api/verify", strong.AccessToken, nil), 200, "")

	// One that another user has is not one of this user.
	other := f.list(strong.AccessToken)["totp"].ID
	f.Want(f.Do("DELETE", "/api/users/tester/factors/"+other, help, nil), 404, "factor_not_found")
	f.Want(f.Do("GET", "/api/verify", g.AccessToken, nil), 200, "")

	f.Want(f.Do("DELETE", "/api/users/tester/factors/"+f.list(g.AccessToken)["backup_code"].ID, help, nil), 204, "")
	f.dead(g)
	f.Want(f.spend("tester", codes[0]), 422, "unknown_method")
	g = f.withTOTP("tester", secret)
	f.Want(f.Do("DELETE", "/api/users/tester/factors", help, nil), 204, "")
	f.dead(g)
	f.Login("tester")
	f.Want(f.Do("DELETE", "/api/users/tester/factors", help, nil), 404, "factor_not_found")

	// What is one's own is removed by DELETE /api/mfa, and a recovery token is for others.
	f.Want(f.Do("POST", "/api/users/"+helper+"/recovery", help, httpapi.NewRecovery{}), 403, "own_recovery")
}

// A recovery token sets a new password and removes the factors, once.
func TestRecovery(t *testing.T) {
	f := newFactored(t, 1, nil)
	f.User("tester")
	secret, g := f.enrolTOTP(f.Login("tester").AccessToken)
	issue := func(in httpapi.NewRecovery) httpapi.Recovery {
		t.Helper()
		return kit.Decode[httpapi.Recovery](t, f.Want(f.Do("POST", "/api/users/tester/recovery", f.Login("admin").AccessToken, in), 201, ""))
	}
	redeem := func(token, password string) kit.Answer {
		t.Helper()
		return f.next().Do("POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: token, NewPassword: password})
	}
	for _, in := range []string{`{"expires_in":59}`, `{"expires_in":604801}`, `{"expires_in":-1}`, `{"expires_in":"60"}`, `{"keep_factors":1}`, `{"for":1}`} {
		f.Want(f.Do("POST", "/api/users/tester/recovery", f.Login("admin").AccessToken, in), 422, "invalid_request")
	}
	first := issue(httpapi.NewRecovery{})
	if got := first.ExpiresAt.Sub(f.now()); got < 59*time.Minute || got > time.Hour {
		t.Errorf("it is good for %v", got)
	}
	second := issue(httpapi.NewRecovery{KeepFactors: true, ExpiresIn: 60})
	for _, bad := range []string{first.RecoveryToken, second.RecoveryToken + "x", second.RecoveryToken[1:], strings.ToUpper(second.RecoveryToken), f.challenged("tester").MFAToken, g.RefreshToken, "x", "\x00", strings.Repeat("x", 10<<10)} {
		f.Want(redeem(bad, "another long password"), 401, "invalid_recovery_token")
	}
	f.Want(redeem(second.RecoveryToken, "short"), 422, "password_too_short")
	f.Want(redeem(second.RecoveryToken, ""), 422, "invalid_request")
	f.Want(f.Do("GET", "/api/verify", g.AccessToken, nil), 200, "")

	f.Want(redeem(second.RecoveryToken, "another long password"), 204, "")
	f.dead(g)
	f.Want(redeem(second.RecoveryToken, "another long password"), 401, "invalid_recovery_token")
	f.Want(f.login("tester", ""), 401, "invalid_credentials")
	a := f.Want(f.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: "another long password"}), 401, "mfa_required")
	g = f.granted(f.answer(httpapi.MFARequest{MFAToken: kit.Decode[httpapi.LoginRefusal](t, a).MFAToken, Method: "totp", Code: f.code(secret)}))

	late := issue(httpapi.NewRecovery{ExpiresIn: 60})
	f.pass(time.Minute)
	f.Want(redeem(late.RecoveryToken, kit.Password), 401, "invalid_recovery_token")
	f.Want(redeem(issue(httpapi.NewRecovery{}).RecoveryToken, kit.Password), 204, "")
	f.dead(g)
	f.Login("tester") // without the app
	for _, one := range []string{first.RecoveryToken, second.RecoveryToken, late.RecoveryToken} {
		if strings.Contains(f.Log.String(), one) {
			t.Errorf("the log has %s", one)
		}
	}
}

// Codes are accepted as people write them. A code that cannot be one is refused before anything is
// counted, and after each refusal the right answer still works.
func TestCodesThatPeopleType(t *testing.T) {
	f := newFactored(t, 1, nil)
	f.User("tester")
	secret, g := f.enrolTOTP(f.Login("tester").AccessToken)
	codes := f.makeCodes(g.AccessToken)
	wide := func(s string) string {
		return strings.Map(func(c rune) rune {
			if c > ' ' && c < 0x7f {
				return c - '!' + '！'
			}
			return c
		}, s)
	}
	for name, form := range map[string]func(string) string{
		"spaces": func(c string) string { return " " + c[:3] + " \t" + c[3:] + "\n" }, "a hyphen": func(c string) string { return c[:3] + "-" + c[3:] },
		"a no-break space": func(c string) string { return c[:3] + "\u00a0" + c[3:] }, "full width": wide,
		"Devanagari": func(c string) string {
			return strings.Map(func(d rune) rune { return d - '0' + '०' }, c)
		},
	} {
		waits := f.challenged("tester").MFAToken
		if a := f.answer(httpapi.MFARequest{MFAToken: waits, Method: "totp", Code: form(f.code(secret))}); a.Status != 200 {
			t.Errorf("with %s: %d %s", name, a.Status, a.Body)
		}
	}
	for i, form := range []func(string) string{
		strings.ToUpper, wide, func(c string) string { return strings.ReplaceAll(c, "-", "") },
		func(c string) string { return strings.ReplaceAll(c, "-", " — ") }, func(c string) string { return strings.NewReplacer("0", "O", "1", "l").Replace(c) },
	} {
		if a := f.spend("tester", form(codes[i])); a.Status != 200 {
			t.Errorf("%q: %d %s", form(codes[i]), a.Status, a.Body)
		}
	}

	// One login takes all of these, which are more than MaxWrong, and then the right code.
	waits := f.challenged("tester").MFAToken
	body := func(method string, code any) map[string]any {
		return map[string]any{"mfa_token": waits, "method": method, "code": code}
	}
	tried := 0
	for _, one := range []struct {
		body   any
		status int
		code   string
	}{
		{body("totp", "12345"), 422, "malformed_code"}, {body("totp", "1234567"), 422, "malformed_code"}, {body("totp", ""), 422, "malformed_code"},
		{body("totp", "   "), 422, "malformed_code"}, {body("totp", "12345a"), 422, "malformed_code"}, {body("totp", "-123456e1"), 422, "malformed_code"},
		{body("totp", "12\x0034\x0056"), 422, "malformed_code"}, {body("totp", "१२३४५²"), 422, "malformed_code"}, {body("totp", "0x1234"), 422, "malformed_code"},
		{body("totp", codes[9]), 422, "malformed_code"}, {body("backup_code", "123456"), 422, "malformed_code"}, {body("backup_code", ""), 422, "malformed_code"},
		{body("backup_code", codes[9]+"0"), 422, "malformed_code"}, {body("backup_code", "uuuu-uuuu-uuuu-uuuu"), 422, "malformed_code"},
		{body("totp", strings.Repeat("1", 60<<10)), 422, "malformed_code"}, {body("totp", strings.Repeat(" ", 60<<10)+"123456"), 422, "malformed_code"},
		{body("totp", strings.Repeat("1", 10<<20)), 413, "body_too_large"}, {body("totp", 123456), 422, "invalid_request"},
		{body("totp", nil), 422, "malformed_code"}, {body("totp", []string{"123456"}), 422, "invalid_request"}, {body("totp", map[string]any{}), 422, "invalid_request"},
		{body("TOTP", "123456"), 422, "unknown_method"}, {body("otp", "123456"), 422, "unknown_method"}, {body("password", kit.Password), 422, "unknown_method"},
		{body("recovery", "123456"), 422, "unknown_method"}, {body("", "123456"), 422, "invalid_request"}, {body("totp\x00", "123456"), 422, "unknown_method"},
		{map[string]any{"mfa_token": waits, "code": "123456"}, 422, "invalid_request"}, {map[string]any{"mfa_token": waits, "method": "totp"}, 422, "malformed_code"},
		{map[string]any{"method": "totp", "code": "123456"}, 422, "invalid_request"},
		{map[string]any{"mfa_token": waits, "method": "totp", "code": "123456", "credential": map[string]any{}}, 422, "invalid_request"},
		{map[string]any{"mfa_token": waits, "method": "totp", "code": "123456", "remember": true}, 422, "invalid_request"},
		{map[string]any{"mfa_token": waits, "method": "totp", "Code": "123456"}, 422, "invalid_request"},
		{map[string]any{"mfa_token": waits, "method": "passkey"}, 422, "invalid_request"}, {map[string]any{"mfa_token": waits, "method": "passkey", "credential": "x"}, 409, "nothing_pending"},
		{map[string]any{"mfa_token": waits, "method": "passkey", "credential": nil}, 409, "nothing_pending"},
		{"", 400, "malformed_json"}, {"[]", 422, "invalid_request"}, {`{"mfa_token":"` + waits + `","mfa_token":"x"}`, 400, "malformed_json"}, {`{"code":"\ud800"}`, 400, "malformed_json"},
	} {
		a := f.Do("POST", "/api/login/mfa", "", one.body)
		if tried++; a.Status != one.status || a.Code() != one.code {
			t.Errorf("%.120v: %d %s, want %d %s", one.body, a.Status, a.Body, one.status, one.code)
		}
	}
	f.Want(f.Do("POST", "/api/login/mfa/enrol", "", map[string]any{"mfa_token": waits, "method": "totp"}), 422, "unknown_method")
	f.Want(f.Do("POST", "/api/login/mfa/enrol", "", map[string]any{"mfa_token": waits, "method": "sms"}), 422, "unknown_method")
	f.Want(f.Do("POST", "/api/login/mfa/options", "", map[string]any{"mfa_token": waits}), 422, "unknown_method")
	r := f.Request("POST", "/api/login/mfa", "", body("totp", f.code(secret)))
	r.Header.Set("Content-Type", "text/plain") // as POST /api/login takes it
	f.Want(f.Send(r), 200, "")
	t.Logf("summary: %d malformed answers to one login, then the right one, which is accepted", tried)
}

// What is no mfa_token of this login, or not of a login any more, is refused alike everywhere, and
// spends nothing of the user's.
func TestTokensOfLoginsThatAreNone(t *testing.T) {
	f := newFactored(t, 1, func(c *config.Config) { c.MFA.RememberDevice = time.Hour })
	f.User("tester")
	f.User("other")
	secret, g := f.enrolTOTP(f.Login("tester").AccessToken)
	otherSecret, _ := f.enrolTOTP(f.Login("other").AccessToken)
	good := f.challenged("tester").MFAToken
	device := f.granted(f.answer(httpapi.MFARequest{MFAToken: f.challenged("tester").MFAToken, Method: "totp", Code: f.code(secret), RememberDevice: true})).DeviceToken
	recovery := kit.Decode[httpapi.Recovery](t, f.Do("POST", "/api/users/tester/recovery", f.Login("admin").AccessToken, httpapi.NewRecovery{})).RecoveryToken
	if device == "" || recovery == "" {
		t.Fatalf("%q, %q", device, recovery)
	}
	mine, user, _ := strings.Cut(good, ".")
	theirs, stranger, _ := strings.Cut(f.challenged("other").MFAToken, ".")
	bad := []string{
		device, recovery, g.RefreshToken, g.AccessToken, g.SessionID, user, "." + user, mine, mine + ".", theirs + "." + user, mine + "." + stranger,
		good + "x", good[1:], good[:len(good)-1], good + ".", " " + good, good + "\n", strings.ToUpper(user) + good, mine + "./" + user, mine + "." + user + "/x", mine + "." + user + "\x00",
		mine + ".../" + user, "x", "\x00", "/", "%", "null", strings.Repeat("A", 43) + "." + user, strings.Repeat("A", 43) + ".nobody", strings.Repeat("x", 10<<10), mine + "." + strings.Repeat("x", 10<<10),
	}
	for _, token := range bad {
		for path, body := range map[string]map[string]any{
			"/api/login/mfa": {"method": "totp", "code": mfatest.Code(t, secret, f.now())}, "/api/login/mfa/options": {}, "/api/login/mfa/enrol": {"method": "totp"},
		} {
			body["mfa_token"] = token
			if a := f.Do("POST", path, "", body); a.Status != 401 || a.Code() != "invalid_mfa_token" {
				t.Errorf("%s with %.80q: %d %s", path, token, a.Status, a.Body)
			}
		}
	}
	// An mfa_token is nothing else either.
	f.Want(f.Do("GET", "/api/verify", good, nil), 401, "invalid_token")
	_, a := f.Renew(good)
	f.Want(a, 401, "invalid_refresh_token")
	f.challenged("tester")
	if got := f.login("tester", good); got.Code() != "mfa_required" {
		t.Errorf("an mfa_token as device_token: %d %s", got.Status, got.Body)
	}
	f.Want(f.Do("POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: good, NewPassword: "another long password"}), 401, "invalid_recovery_token")
	// The code of another user is none.
	f.Want(f.answer(httpapi.MFARequest{MFAToken: good, Method: "totp", Code: f.code(otherSecret)}), 401, "invalid_code")
	f.granted(f.answer(httpapi.MFARequest{MFAToken: good, Method: "totp", Code: f.code(secret)}))
	if strings.Contains(f.Log.String(), device) || strings.Contains(f.Log.String(), recovery) || strings.Contains(f.Log.String(), mine) {
		t.Error("the log has a token")
	}

	// Time, five wrong codes, another password, and the administrator end a login.
	good = f.challenged("tester").MFAToken
	f.pass(5 * time.Minute)
	f.Want(f.answer(httpapi.MFARequest{MFAToken: good, Method: "totp", Code: f.code(secret)}), 401, "invalid_mfa_token")
	good = f.challenged("tester").MFAToken
	for range 5 {
		f.Want(f.answer(httpapi.MFARequest{MFAToken: good, Method: "totp", Code: f.wrong(secret)}), 401, "invalid_code")
	}
	f.Want(f.answer(httpapi.MFARequest{MFAToken: good, Method: "totp", Code: f.code(secret)}), 401, "invalid_mfa_token")
	for _, end := range []func() kit.Answer{
		func() kit.Answer {
			return f.Do("DELETE", "/api/users/tester/sessions", f.Login("admin").AccessToken, nil)
		},
		func() kit.Answer {
			return f.Do("PATCH", "/api/users/tester", f.Login("admin").AccessToken, map[string]any{"password": kit.Password})
		},
	} {
		good = f.challenged("tester").MFAToken
		if a := end(); a.Status/100 != 2 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		f.Want(f.answer(httpapi.MFARequest{MFAToken: good, Method: "totp", Code: f.code(secret)}), 401, "invalid_mfa_token")
	}
	f.withTOTP("tester", secret)
}

// Of two enrolments at once the later one counts, and of two confirmations one does.
func TestTwoEnrolmentsAtOnce(t *testing.T) {
	f := newFactored(t, 1, nil)
	f.User("tester")
	token := f.Login("tester").AccessToken
	begin := func() string {
		t.Helper()
		return kit.Decode[httpapi.Enrolment](t, f.Want(f.Do("POST", "/api/mfa/totp", token, nil), 200, "")).Secret
	}
	confirm := func(token, code string) kit.Answer {
		return f.Do("POST", "/api/mfa/totp/confirm", token, httpapi.Code{Code: code})
	}
	first, second := begin(), begin()
	f.Want(confirm(token, f.code(first)), 401, "invalid_code")
	code := f.code(second)
	var mu sync.Mutex
	var all sync.WaitGroup
	var grants []httpapi.Grant
	answers := map[string]int{}
	for range 10 {
		all.Go(func() {
			a := confirm(token, code)
			mu.Lock()
			defer mu.Unlock()
			answers[fmt.Sprint(a.Status, " ", a.Code())]++
			if a.Status == 200 {
				grants = append(grants, kit.Decode[httpapi.Grant](t, a))
			}
		})
	}
	all.Wait()
	for kind := range answers {
		if kind != "200 " && kind[:3] != "401" && kind[:3] != "409" {
			t.Errorf("%s", kind)
		}
	}
	if len(grants) != 1 {
		t.Fatalf("%v", answers)
	}
	t.Logf("summary: ten confirmations of one enrolment: %v", answers)
	f.Want(confirm(token, code), 401, "token_revoked")
	f.Want(confirm(grants[0].AccessToken, code), 409, "already_enrolled")
	f.withTOTP("tester", second)

	// So it is with backup codes.
	token = grants[0].AccessToken
	old := kit.Decode[httpapi.BackupCodes](t, f.Want(f.Do("POST", "/api/mfa/backup-codes", token, nil), 200, "")).Codes
	codes := f.makeCodes(token)
	f.Want(f.spend("tester", old[1]), 401, "invalid_code")
	f.granted(f.spend("tester", codes[1]))
	f.Want(f.Do("POST", "/api/mfa/backup-codes/confirm", token, httpapi.Code{Code: codes[0]}), 409, "nothing_pending")
	if got := f.list(token)["backup_code"]; *got.Left != 9 {
		t.Errorf("%d are left", *got.Left)
	}
	// An enrolment that takes too long is none.
	f.Want(f.Do("POST", "/api/mfa/backup-codes", token, nil), 200, "")
	f.pass(10 * time.Minute)
	token = f.withTOTP("tester", second).AccessToken
	f.Want(f.Do("POST", "/api/mfa/backup-codes/confirm", token, httpapi.Code{Code: codes[0]}), 409, "nothing_pending")
	f.granted(f.spend("tester", codes[2]))
}
