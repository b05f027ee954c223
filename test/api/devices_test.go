package api

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/test/kit"
)

func remembering(d time.Duration) func(*config.Config) {
	return func(c *config.Config) { c.MFA.RememberDevice = d }
}

// remembered logs a user in by a factor, and returns the device_token.
func (f *factored) remembered(name, secret string) (string, httpapi.Grant) {
	f.T.Helper()
	a := f.answer(httpapi.MFARequest{MFAToken: f.challenged(name).MFAToken, Method: "totp", Code: f.code(secret), RememberDevice: true})
	g := f.granted(a)
	return g.DeviceToken, g
}

// A device that is remembered needs no second factor, at whichever replica, and the token says
// so. It is the device of one user, and stands for nothing else.
func TestADeviceIsRemembered(t *testing.T) {
	f := newFactored(t, 2, func(c *config.Config) {
		remembering(100 * time.Minute)(c)
		c.MFA.Required.Mode = config.RequiredAlways
		c.Limits.Lockout = config.Default().Limits.Lockout // so that addresses are known
	})
	f.User("ada")
	f.User("bob")
	enrolled := func(name string) string {
		c := f.challenged(name)
		e := kit.Decode[httpapi.Enrolment](t, f.Want(f.next().Do("POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: c.MFAToken, Method: "totp"}), 200, ""))
		if g := f.granted(f.answer(httpapi.MFARequest{MFAToken: c.MFAToken, Method: "totp", Code: f.code(e.Secret)})); g.DeviceToken != "" {
			t.Error("a device is remembered that nobody has asked for")
		}
		return e.Secret
	}
	ada, bob := enrolled("ada"), enrolled("bob")
	f.challenged("ada") // from an address from which she has just logged in
	device, _ := f.remembered("ada", ada)
	bobs, _ := f.remembered("bob", bob)
	if device == "" || bobs == "" || device == bobs {
		t.Fatalf("the devices are %q and %q", device, bobs)
	}
	for range 4 {
		g := f.granted(f.login("ada", device))
		f.wantAuthentication(g.AccessToken, "aal1", "pwd")
		if g.DeviceToken != "" {
			t.Error("the token of a device is given anew")
		}
		// Under always, too: she has a factor.
		next := f.granted(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}))
		f.wantAuthentication(next.AccessToken, "aal1", "pwd")
	}
	for _, other := range []string{bobs, device + "x", "x", device[:len(device)-1], bobs[:44] + device[44:], device[:44] + bobs[44:]} {
		f.Want(f.login("ada", other), 401, "mfa_required")
	}
	f.Want(f.login("bob", device), 401, "mfa_required")
	f.Want(f.next().Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "ada", Password: "wrong", DeviceToken: device}), 401, "invalid_credentials")
	f.Want(f.answer(httpapi.MFARequest{MFAToken: device, Method: "totp", Code: f.code(ada)}), 401, "invalid_mfa_token")
	f.Want(f.next().Do("GET", "/api/verify", device, nil), 401, "invalid_token")
	f.Want(f.login("ada", f.challenged("ada").MFAToken), 401, "mfa_required")

	f.pass(90*time.Minute - 10*mfatest.Step)
	g := f.granted(f.login("ada", device))
	f.pass(10*time.Minute + 10*mfatest.Step)
	f.Want(f.login("ada", device), 401, "mfa_required")
	f.granted(f.next().Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken})) // a session that has begun goes on
}

// Whatever ends the sessions of a user, since something may be in wrong hands, ends what devices
// are remembered; and so does a shorter time in the configuration.
func TestWhatEndsRememberedDevices(t *testing.T) {
	f := newFactored(t, 1, remembering(48*time.Hour))
	const next = "another password"
	admin := func() string { return f.superuser() }
	for name, end := range map[string]func(name, secret string, g httpapi.Grant) (password string, enrolled bool){
		"own-password": func(_, _ string, g httpapi.Grant) (string, bool) {
			f.granted(f.Do("PUT", "/api/me/password", g.AccessToken, httpapi.PasswordChange{CurrentPassword: kit.Password, NewPassword: next}))
			return next, true
		},
		"given-password": func(name, _ string, _ httpapi.Grant) (string, bool) {
			f.Want(f.Do("PATCH", "/api/users/"+name, admin(), map[string]any{"password": next}), 200, "")
			return next, true
		},
		"passkey": func(_, _ string, g httpapi.Grant) (string, bool) {
			f.enrolPasskey(g.AccessToken)
			return kit.Password, true
		},
		"totp-anew": func(_, _ string, g httpapi.Grant) (string, bool) {
			g = f.granted(f.Do("DELETE", "/api/mfa/totp", g.AccessToken, nil))
			f.enrolTOTP(g.AccessToken)
			return kit.Password, true
		},
		"reset": func(name, _ string, _ httpapi.Grant) (string, bool) {
			f.Want(f.Do("DELETE", "/api/users/"+name+"/factors", admin(), nil), 204, "")
			return kit.Password, false
		},
		"recovery": func(name, _ string, _ httpapi.Grant) (string, bool) {
			r := kit.Decode[httpapi.Recovery](t, f.Want(f.Do("POST", "/api/users/"+name+"/recovery", admin(), httpapi.NewRecovery{KeepFactors: true}), 201, ""))
			f.Want(f.Do("POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: r.RecoveryToken, NewPassword: next}), 204, "")
			return next, true
		},
		"revocation": func(name, _ string, _ httpapi.Grant) (string, bool) {
			f.Revoke(admin(), map[string]any{"user": name})
			return kit.Password, true
		},
		"everywhere": func(name, _ string, g httpapi.Grant) (string, bool) {
			f.Revoke(g.AccessToken, map[string]any{"user": name})
			return kit.Password, true
		},
		"disabled": func(name, _ string, _ httpapi.Grant) (string, bool) {
			for _, disabled := range []bool{true, false} {
				f.Want(f.Do("PATCH", "/api/users/"+name, admin(), map[string]any{"disabled": disabled}), 200, "")
			}
			return kit.Password, true
		},
	} {
		f.run(t, name, func(t *testing.T) {
			f.User(name)
			secret, _ := f.enrolTOTP(f.Login(name).AccessToken)
			device, g := f.remembered(name, secret)
			f.granted(f.login(name, device))
			password, enrolled := end(name, secret, g)
			if !enrolled {
				f.enrolTOTP(f.LoginWith(name, password).AccessToken)
			}
			f.Want(f.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: name, Password: password, DeviceToken: device}), 401, "mfa_required")
		})
	}

	f.User("tester")
	secret, _ := f.enrolTOTP(f.Login("tester").AccessToken)
	device, g := f.remembered("tester", secret)
	f.Want(f.Do("POST", "/api/logout", g.AccessToken, nil), 204, "")
	f.granted(f.login("tester", device)) // the device stays
	f.pass(2 * time.Hour)
	f.granted(f.login("tester", device))
	f.Config.MFA.RememberDevice = time.Hour
	f.Restart()
	f.Want(f.login("tester", device), 401, "mfa_required")
	device, _ = f.remembered("tester", secret)
	f.granted(f.login("tester", device))
	f.Config.MFA.RememberDevice = 0
	f.Restart()
	f.Want(f.login("tester", device), 401, "mfa_required")
	if device, _ := f.remembered("tester", secret); device != "" {
		t.Error("a device is remembered, and none may be")
	}
}
