package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// perHour is a rate of which nothing comes back while a test runs.
func perHour(n int) config.Rate { return config.Rate{Count: n, Per: time.Hour} }

// wantRates fails unless an answer says in which rates the request was counted, and what is
// left of them.
func wantRates(t *testing.T, a kit.Answer, policy, left string) {
	t.Helper()
	if got := a.Header["Ratelimit-Policy"]; len(got) != 1 || got[0] != policy {
		t.Errorf("%d: RateLimit-Policy: %q, want %s", a.Status, got, policy)
	}
	if got := a.Header["Ratelimit"]; len(got) != 1 || got[0] != left {
		t.Errorf("%d: RateLimit: %q, want %s", a.Status, got, left)
	}
}

// Every answer of a route that is counted says in which rates it was, and what is left:
// success, failure and refusal.
func TestAnswersSayWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := replica.NewWith(t, replica.Options{Quiet: true}, func(c *config.Config) {
			c.Limits.Login = config.Limit{PerAddress: config.Rate{Count: 60, Per: time.Minute}, PerAccount: config.Rate{Count: 3, Per: 30 * time.Minute}}
			c.Limits.Renew = config.Limit{PerAddress: config.Rate{Count: 4, Per: 40 * time.Second}, PerAccount: config.Rate{Count: 4, Per: time.Minute}}
		})
		try := func(username, password string) kit.Answer {
			return w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: username, Password: password})
		}
		const login = `"login-address";q=60;w=60, "login-account";q=3;w=1800`
		a := w.Want(try("admin", kit.Password), 200, "")
		wantRates(t, a, login, `"login-address";r=59;t=1, "login-account";r=2;t=600`)
		grant := kit.Decode[httpapi.Grant](t, a)
		wantRates(t, w.Want(try("nobody", "wrong"), 401, "invalid_credentials"), login, `"login-address";r=58;t=2, "login-account";r=2;t=600`)
		time.Sleep(300 * time.Millisecond)
		wantRates(t, w.Want(try("Nobody", "wrong"), 401, "invalid_credentials"), login, `"login-address";r=57;t=3, "login-account";r=1;t=1200`)
		w.Want(try("nobody", "wrong"), 401, "invalid_credentials")
		a = w.Want(try("nobody", "wrong"), 429, "too_many_attempts")
		wantRates(t, a, login, `"login-address";r=55;t=5, "login-account";r=0;t=600`)
		if got := a.Header.Get("Retry-After"); got != "600" {
			t.Errorf("Retry-After: %s", got)
		}
		// The refusal is remembered, and nothing else is counted.
		time.Sleep(100 * time.Second)
		wantRates(t, w.Want(try("nobody", "wrong"), 429, "too_many_attempts"), `"login-account";q=3;w=1800`, `"login-account";r=0;t=500`)

		renew := func(token string) kit.Answer {
			return w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: token})
		}
		a = w.Want(renew(grant.RefreshToken), 200, "")
		wantRates(t, a, `"renew-address";q=4;w=40, "renew-account";q=4;w=60`, `"renew-address";r=3;t=10, "renew-account";r=3;t=15`)
		grant = kit.Decode[httpapi.Grant](t, a)
		const address = `"renew-address";q=4;w=40`
		wantRates(t, w.Want(renew("none"), 401, "invalid_refresh_token"), address, `"renew-address";r=2;t=20`)
		wantRates(t, w.Want(w.Do("POST", "/api/logout", "", httpapi.LogoutRequest{RefreshToken: "none"}), 401, "invalid_refresh_token"), address, `"renew-address";r=1;t=30`)
		wantRates(t, w.Want(renew("none"), 401, "invalid_refresh_token"), address, `"renew-address";r=0;t=10`)
		wantRates(t, w.Want(renew("none"), 429, "too_many_attempts"), address, `"renew-address";r=0;t=10`)

		// The present password, at an address from which the user has logged in.
		change := httpapi.PasswordChange{CurrentPassword: "wrong password", NewPassword: "another password"}
		a = w.Want(w.Do("PUT", "/api/me/password", grant.AccessToken, change), 401, "invalid_credentials")
		wantRates(t, a, login, `"login-address";r=59;t=1, "login-account";r=2;t=600`)

		// What is not counted says nothing.
		for _, a := range []kit.Answer{w.Do("GET", "/api/verify", grant.AccessToken, nil), w.Do("GET", "/api/users", grant.AccessToken, nil), w.Do("GET", "/api/pkeys", "", nil)} {
			if w.Want(a, 200, ""); len(a.Header["Ratelimit"])+len(a.Header["Ratelimit-Policy"]) > 0 {
				t.Errorf("%v", a.Header)
			}
		}
	})
}

// A page of a named origin may read what is left.
func TestPagesReadWhatIsLeft(t *testing.T) {
	w := replica.New(t, func(c *config.Config) {
		c.Server.CORSOrigins = []string{page}
		c.Limits.Login.PerAccount = perHour(1)
	})
	for _, status := range []int{401, 429} {
		a := from(w, page, "POST", "/api/login", "", httpapi.LoginRequest{Username: "nobody", Password: "wrong"})
		exposed := strings.Split(a.Header.Get("Access-Control-Expose-Headers"), ", ")
		for _, name := range []string{"RateLimit", "RateLimit-Policy", "Retry-After"} {
			if !strings.Contains(","+strings.Join(exposed, ",")+",", ","+name+",") {
				t.Errorf("%d: a page reads %q and not %s", a.Status, exposed, name)
			}
		}
		if a.Status != status || a.Header.Get("RateLimit") == "" || a.Header.Get("RateLimit-Policy") == "" {
			t.Errorf("%d %v, want %d", a.Status, a.Header, status)
		}
	}
}

// Requests with an access token are counted in two classes, of which one refuses nothing when
// the other one does, by address whatever the token is, and for an account by its good tokens
// alone: a forged one, or one that was revoked, spends nothing of the user's.
func TestRequestsWithATokenAreCounted(t *testing.T) {
	const rate = 20
	w := replica.New(t, func(c *config.Config) {
		c.Limits.API = config.Limit{PerAccount: perHour(rate)}
		c.Limits.Admin = config.Limit{PerAccount: perHour(3)}
	})
	kit.AddUser(t, w.Parts().Directory, "tester")
	verify := func(token string) kit.Answer { return w.Do("GET", "/api/verify", token, nil) }
	admin, victim, other := w.Login("admin").AccessToken, w.Login("tester").AccessToken, w.Login("tester").AccessToken
	header, rest, _ := strings.Cut(victim, ".")
	payload, _, _ := strings.Cut(rest, ".")
	_, signature, _ := strings.Cut(admin[strings.Index(admin, ".")+1:], ".")
	for range rate {
		a := w.Want(verify(header+"."+payload+"."+signature), 401, "invalid_token")
		if len(a.Header["Ratelimit"]) > 0 {
			t.Errorf("a forged token was counted: %v", a.Header)
		}
	}
	w.Want(w.Do("POST", "/api/logout", other, nil), 204, "") // this one is good, and counts
	for range rate {
		w.Want(verify(other), 401, "token_revoked")
	}
	for i := range rate - 1 {
		a := w.Want(verify(victim), 200, "")
		if i == 0 {
			wantRates(t, a, `"api-account";q=20;w=3600`, `"api-account";r=18;t=360`)
		}
	}
	if a := w.Want(verify(victim), 429, "too_many_attempts"); a.Header.Get("Retry-After") != "180" || a.Header.Get("X-Auth-Subject") != "" {
		t.Errorf("%v", a.Header)
	}
	w.Want(w.Do("GET", "/api/sessions", victim, nil), 429, "too_many_attempts")
	// The other class goes on.
	w.Want(w.Do("GET", "/api/users", victim, nil), 403, "permission_missing")

	for _, path := range []string{"/api/users", "/api/cluster", "/api/audit"} {
		w.Do("GET", path, admin, nil)
	}
	w.Want(w.Do("DELETE", "/api/users/tester/sessions", admin, nil), 429, "too_many_attempts")
	w.Want(w.Do("POST", "/api/revocations", admin, map[string]any{"user": "tester"}), 429, "too_many_attempts")
	w.Want(verify(admin), 200, "")
	w.Want(w.Do("GET", "/api/sessions", victim, nil), 429, "too_many_attempts") // so nothing was ended
}

// By address, tokens that are good for nothing count, too, and a request without one does not.
func TestTokensAreCountedByAddress(t *testing.T) {
	w := replica.New(t, func(c *config.Config) { c.Limits.API.PerAddress = perHour(3) })
	grant := w.Login("admin")
	for range 5 {
		w.Want(w.Do("GET", "/api/verify", "", nil), 401, "token_missing")
	}
	wantRates(t, w.Want(w.Do("GET", "/api/verify", "garbage", nil), 401, "invalid_token"), `"api-address";q=3;w=3600`, `"api-address";r=2;t=1200`)
	w.Want(w.Do("POST", "/api/logout", "garbage", nil), 401, "invalid_token")
	w.Want(w.Do("HEAD", "/api/verify", grant.AccessToken, nil), 200, "")
	w.Want(w.Do("GET", "/api/verify", grant.AccessToken, nil), 429, "too_many_attempts")
	w.Want(w.Do("POST", "/auth/logout", grant.AccessToken, nil), 429, "too_many_attempts")
	// A refresh token is of another class.
	w.Want(w.Do("POST", "/api/logout", "", httpapi.LogoutRequest{RefreshToken: grant.RefreshToken}), 204, "")
	// Another address is another one.
	r := httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), "GET", "/api/verify", nil)
	r.Header = http.Header{"Authorization": {"Bearer garbage"}}
	rec := httptest.NewRecorder()
	w.Replica.Handler().ServeHTTP(rec, r)
	if rec.Code != 401 {
		t.Errorf("from another address: %d", rec.Code)
	}
}
