package httpkit

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/state"
)

// routeOf returns what serves a route like /api/verify, with a handler that does nothing.
func routeOf(policies map[limit.Class]limit.Policy) http.Handler {
	mux := http.NewServeMux()
	service := &login.Service{Config: login.Config{Limits: limittest.New(limit.Config{Rules: limit.Rules{Policies: policies}})}}
	NewAPI(mux, "test", service, Proxies{}, nil).Handle(
		Route{Path: "/in", ID: "in", Bearer: true, OwnBounds: true, Status: http.StatusOK}, func(http.ResponseWriter, *http.Request) {})
	return mux
}

// What is not counted pays nothing for being counted elsewhere.
func TestAClassThatIsOffCostsNothing(t *testing.T) {
	bare := http.NewServeMux()
	bare.HandleFunc("/in", func(http.ResponseWriter, *http.Request) {})
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/in", nil)
	r.Header.Set("Authorization", "Bearer x")
	w := httptest.NewRecorder()
	allocations := func(h http.Handler) float64 {
		return testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, r) })
	}
	one := limit.Policy{PerAddress: state.Rate{Burst: 1, Period: time.Hour}}
	others := map[limit.Class]limit.Policy{limit.Login: one, limit.Admin: one}
	if off, least := allocations(routeOf(others)), allocations(bare); off != least {
		t.Errorf("%v allocations, %v without a limit at all", off, least)
	}
	r.Header.Del("Authorization") // so that nothing is verified
	if on := allocations(routeOf(map[limit.Class]limit.Policy{limit.API: one})); on == allocations(bare) {
		t.Error("a class that is on costs nothing either, so this test sees nothing")
	}
}

// The headers are Lists of Strings with Integers (RFC 9651), one line each. A rate that is
// counted twice in one request stands there once.
func TestQuotasAsHeaders(t *testing.T) {
	q := quotas{header: http.Header{}}
	for _, c := range []struct {
		one          limit.Quota
		policy, left string
	}{
		{limit.Quota{Policy: "login-address", Limit: 60, Window: time.Minute, Remaining: 59, Reset: time.Second}, `"login-address";q=60;w=60`, `"login-address";r=59;t=1`},
		{limit.Quota{Policy: "login-account", Limit: 3, Window: 100 * time.Millisecond, Remaining: 0, Reset: 1500 * time.Millisecond},
			`"login-address";q=60;w=60, "login-account";q=3;w=1`, `"login-address";r=59;t=1, "login-account";r=0;t=2`},
		{limit.Quota{Policy: "login-address", Limit: 60, Window: time.Minute, Remaining: -1, Reset: -time.Second},
			`"login-address";q=60;w=60, "login-account";q=3;w=1`, `"login-address";r=0;t=0, "login-account";r=0;t=2`},
	} {
		q.add(c.one)
		if got := q.header.Values("RateLimit-Policy"); len(got) != 1 || got[0] != c.policy {
			t.Errorf("RateLimit-Policy: %q, want %s", got, c.policy)
		}
		if got := q.header.Values("RateLimit"); len(got) != 1 || got[0] != c.left {
			t.Errorf("RateLimit: %q, want %s", got, c.left)
		}
	}
}
