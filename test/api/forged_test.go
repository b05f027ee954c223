package api

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// tryFrom presents a wrong password in a request of a connection, with headers.
func tryFrom(w *replica.World, peer, username string, h http.Header) kit.Answer {
	w.T.Helper()
	body := fmt.Sprintf(`{"username":%q,"password":"a wrong password"}`, username)
	r := httptest.NewRequestWithContext(w.T.Context(), "POST", "/api/login", strings.NewReader(body))
	r.RemoteAddr = peer
	for name, values := range h {
		r.Header[name] = values
	}
	rec := httptest.NewRecorder()
	w.Replica.Handler().ServeHTTP(rec, r)
	return kit.Answer{Status: rec.Code, Header: rec.Header(), Body: rec.Body.Bytes()}
}

// A client that forges where it comes from neither escapes the limit of its address, nor uses
// up that of the address that it names: without a proxy, and behind one that is trusted.
func TestAForgedAddressChangesNothing(t *testing.T) {
	const rate, victim, proxy = 10, "203.0.113.7", "10.0.0.1"
	forgeries := []http.Header{}
	for _, said := range []string{
		victim, victim + ":443", "::ffff:" + victim, `"` + victim + `"`, "10.0.0.2", "10.0.0.2, " + victim, victim + ", 10.0.0.2, 10.0.0.3", "127.0.0.1", "::1",
		"unknown", "_hidden", "_SEVKISEK", "", " , ", "\x7f", strings.Repeat(victim+", ", 49) + victim, strings.Repeat("10.0.0.2, ", 49) + victim, `"`, `\"`, "[" + victim,
	} {
		forgeries = append(forgeries, http.Header{"X-Forwarded-For": {said}}, http.Header{"X-Forwarded-For": {victim, said}},
			http.Header{"Forwarded": {"for=" + said}}, http.Header{"Forwarded": {`for="` + said + `";by=10.0.0.1`, "for=" + victim}},
			http.Header{"X-Real-Ip": {said}, "True-Client-Ip": {said}, "Cf-Connecting-Ip": {said}, "X-Client-Ip": {said}, "X-Cluster-Client-Ip": {said}})
	}
	for name, c := range map[string]struct {
		header config.ForwardedHeader
		send   func(w *replica.World, from string, h http.Header) kit.Answer
	}{
		"without a proxy": {config.ForwardedAuto, func(w *replica.World, from string, h http.Header) kit.Answer {
			return tryFrom(w, from+":4711", "nobody", h)
		}},
		// Each adds what it knows at the right end: in a line of its own, or in the last one.
		"behind a proxy that adds a line": {config.ForwardedFor, func(w *replica.World, from string, h http.Header) kit.Answer {
			h = h.Clone()
			h.Add("X-Forwarded-For", from)
			return tryFrom(w, proxy+":4711", "nobody", h)
		}},
		"behind a proxy that adds to the line": {config.ForwardedFor, func(w *replica.World, from string, h http.Header) kit.Answer {
			h = h.Clone()
			h.Set("X-Forwarded-For", strings.Join(append(h["X-Forwarded-For"], from), ", "))
			return tryFrom(w, proxy+":4711", "nobody", h)
		}},
		"behind one that writes Forwarded": {config.Forwarded, func(w *replica.World, from string, h http.Header) kit.Answer {
			h = h.Clone()
			h.Add("Forwarded", "for="+from)
			return tryFrom(w, proxy+":4711", "nobody", h)
		}},
		"behind two": {config.ForwardedFor, func(w *replica.World, from string, h http.Header) kit.Answer {
			h = h.Clone()
			h.Set("X-Forwarded-For", strings.Join(append(h["X-Forwarded-For"], from, "10.0.0.9"), ", "))
			return tryFrom(w, proxy+":4711", "nobody", h)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := replica.New(t, func(cfg *config.Config) {
				cfg.Limits.Login.PerAddress = perHour(rate)
				cfg.Server.TrustedProxies, cfg.Server.ForwardedHeader = []string{"10.0.0.0/8"}, c.header
			})
			for i, h := range forgeries {
				status, code := 401, "invalid_credentials"
				if i >= rate {
					status, code = 429, "too_many_attempts"
				}
				if a := c.send(w, "198.51.100.7", h); a.Status != status || a.Code() != code {
					t.Errorf("attempt %d, %v: %d %s", i, h, a.Status, a.Body)
				}
			}
			a := w.Want(c.send(w, victim, http.Header{}), 401, "invalid_credentials")
			wantRates(t, a, `"login-address";q=10;w=3600`, `"login-address";r=9;t=360`)
		})
	}
}

// An operator whose load balancer is not among the trusted proxies finds in the log why logins
// are refused, once. Behind a trusted one, and where nothing is said of another address, there
// is no such entry.
func TestALoadBalancerThatIsRefused(t *testing.T) {
	w := replica.New(t, func(cfg *config.Config) {
		cfg.Limits.Login.PerAddress, cfg.Limits.Login.PerAccount = perHour(3), perHour(2)
		cfg.Server.TrustedProxies = []string{"10.0.0.0/8"}
	})
	const entry = "if the address is that of your load balancer, add it to server.trusted_proxies"
	refuse := func(peer, username string, h http.Header) { // an empty name: another one each time
		t.Helper()
		var a kit.Answer
		for i := range 10 {
			a = tryFrom(w, peer, cmp.Or(username, fmt.Sprint("nobody", i)), h)
		}
		w.Want(a, 429, "too_many_attempts")
	}
	via := http.Header{"X-Forwarded-For": {"198.51.100.1"}}
	refuse("198.51.100.7:1", "", nil)
	refuse("10.0.0.1:1", "", via)
	refuse("198.51.100.8:1", "one", via) // for the account
	if log := w.Log.String(); strings.Contains(log, entry) {
		t.Errorf("logged: %s", log)
	}
	refuse("127.0.0.1:1", "", via)
	refuse("198.51.100.9:1", "", http.Header{"Forwarded": {"for=198.51.100.1"}})
	if n := strings.Count(w.Log.String(), entry); n != 1 || !strings.Contains(w.Log.String(), `"address":"127.0.0.1"`) {
		t.Errorf("logged %d times: %s", n, w.Log)
	}
}
