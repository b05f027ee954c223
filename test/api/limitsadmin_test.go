package api

import (
	"net/url"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// An administrator sees who waits after failures, and lifts it; the user then logs in.
func TestAdministratorsSeeAndLiftLimits(t *testing.T) {
	w := replica.New(t, func(cfg *config.Config) {
		cfg.Server.TrustedProxies, cfg.Server.ForwardedHeader = []string{"127.0.0.0/8"}, config.ForwardedFor
		cfg.Limits.Lockout.After, cfg.Limits.Spray = 3, config.Spray{After: 5}
	})
	tester, strong := w.User("tester"), w.User("strong", "admin=all")
	reader, lifter := w.User("reader", "admin=limits:read"), w.User("lifter", "admin=limits:write")
	login := func(address, username, password string) kit.Answer {
		t.Helper()
		r := w.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: username, Password: password})
		r.Header.Set("X-Forwarded-For", address)
		return w.Send(r)
	}
	const attacker = "2001:db8::bad"
	for _, name := range []string{"tester", "tester", "tester", "strong", "strong"} {
		w.Want(login(attacker, name, "a wrong password"), 401, "invalid_credentials")
	}
	w.Want(login(attacker, "tester", kit.Password), 429, "too_many_attempts") // five failures
	see, lift := w.Login("reader").AccessToken, w.Login("lifter").AccessToken

	list := kit.Decode[httpapi.LimitList](t, w.Want(w.Do("GET", "/api/limits", see, nil), 200, ""))
	if len(list.Accounts) != 1 || list.Accounts[0].ID != tester || list.Accounts[0].Username != "tester" || list.Accounts[0].Failures.Failures != 3 ||
		len(list.Addresses) != 1 || list.Addresses[0].Address != "2001:db8::/64" || list.Addresses[0].WaitsUntil.IsZero() {
		t.Fatalf("%+v", list)
	}
	account := kit.Decode[httpapi.LimitedAccount](t, w.Want(w.Do("GET", "/api/limits/accounts/TESTER", see, nil), 200, ""))
	if !account.Locked || account.ID != tester || len(account.Addresses) != 1 || account.Addresses[0].Known {
		t.Errorf("%+v", account)
	}
	// Who may not. A user with more rights is out of reach, also to look at.
	w.Want(w.Do("GET", "/api/limits", w.Login("tester").AccessToken, nil), 403, "permission_missing")
	w.Want(w.Do("DELETE", "/api/limits/accounts/"+tester, see, nil), 403, "permission_missing")
	w.Want(w.Do("DELETE", "/api/limits/addresses/"+attacker, see, nil), 403, "permission_missing")
	w.Want(w.Do("GET", "/api/limits/accounts/strong", see, nil), 403, "beyond_own_rights")
	w.Want(w.Do("DELETE", "/api/limits/accounts/"+strong, lift, nil), 403, "beyond_own_rights")
	w.Want(w.Do("DELETE", "/api/limits/accounts/nobody", lift, nil), 404, "user_not_found")
	w.Want(w.Do("GET", "/api/limits/addresses/nonsense", see, nil), 422, "invalid_address")

	for _, spelling := range []string{"2001:db8::/64", "2001:0DB8:0:0::9", "[2001:db8::1]"} {
		path := "/api/limits/addresses/" + url.PathEscape(spelling)
		got := kit.Decode[httpapi.LimitedAddress](t, w.Want(w.Do("GET", path, see, nil), 200, ""))
		if got.Address != list.Addresses[0].Address || got.Failures.Failures != 5 {
			t.Errorf("%s: %+v", path, got)
		}
	}
	w.Want(w.Do("DELETE", "/api/limits/addresses/2001%3Adb8%3A%3A%2F64", lift, nil), 204, "")
	w.Want(w.Do("DELETE", "/api/limits/accounts/tester", lift, nil), 204, "")
	w.Want(w.Do("DELETE", "/api/limits/accounts/tester", lift, nil), 204, "")
	list = kit.Decode[httpapi.LimitList](t, w.Want(w.Do("GET", "/api/limits", see, nil), 200, ""))
	if len(list.Accounts)+len(list.Addresses)+list.Unnamed != 0 {
		t.Errorf("after the lifts: %+v", list)
	}
	// Within a second the replica forgets what it remembers to be refused.
	kit.Await(t, "a login from the address", func() bool { return login(attacker, "tester", kit.Password).Status == 200 })

	root := w.Login("admin").AccessToken
	for target, outcomes := range map[string][]string{tester: {"ok", "ok", "denied"}, strong: {"denied"}, "2001:db8::/64": {"ok", "denied"}} {
		events := w.Trail(root, url.Values{"action": {"limit.lift"}, "target": {target}})
		if len(events) != len(outcomes) {
			t.Errorf("of %s the trail has %+v", target, events)
			continue
		}
		for i, e := range events {
			by := map[string]string{"ok": lifter, "denied": reader}[e.Outcome]
			if target == strong {
				by = lifter
			}
			if e.Outcome != outcomes[i] || e.Actor != by || e.Address != "127.0.0.1" {
				t.Errorf("of %s the trail has %+v", target, e)
			}
		}
	}
}
