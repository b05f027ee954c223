package api

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
	"github.com/watchword-auth/watchword/verify"
)

// The server, on each kind of route, and a resource server read the same token in the same
// header, or none.
func TestOneReaderOfAuthorization(t *testing.T) {
	w := replica.New(t, nil)
	token := w.Login("admin").AccessToken
	v, err := verify.New(verify.Config{
		Issuer: w.Config.Tokens.Issuer, KeySetURL: w.URL + "/.well-known/jwks.json", RevocationsURL: w.URL + "/api/revocations",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	service := v.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ask := func(h http.Handler, path string, headers []string) int {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
		r.Header["Authorization"] = headers
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Code
	}
	kit.Await(t, "the verifier knows the revocations", func() bool {
		return ask(service, "/", []string{"Bearer " + token}) != http.StatusServiceUnavailable
	}, w.Log.Tail)
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{[]string{"Bearer " + token}, 200}, {[]string{"bearer " + token}, 200}, {[]string{"BEARER " + token}, 200},
		{[]string{"Bearer  " + token}, 200}, {[]string{"Bearer       " + token}, 200}, {[]string{" Bearer " + token + " \t"}, 200},
		{[]string{"Bearer\t" + token}, 401}, {[]string{"Bearer \t" + token}, 401}, {[]string{"Bearer" + token}, 401}, {[]string{token}, 401},
		{[]string{"Bearer " + token + " x"}, 401}, {[]string{"Bearer " + token + ","}, 401}, {[]string{"Bearer " + token + "="}, 401},
		{[]string{"Bearer " + token + ", Bearer " + token}, 401}, {[]string{"Bearer \"" + token + "\""}, 401}, {[]string{"Bearer \u00a0" + token}, 401},
		{[]string{"Token " + token}, 401}, {[]string{"Bearer"}, 401}, {[]string{""}, 401}, {nil, 401},
		{[]string{"Bearer " + token, "Bearer " + token}, 400}, {[]string{"", "Bearer " + token}, 400},
	} {
		for name, got := range map[string]int{
			"/api/verify": ask(w.Replica.Handler(), "/api/verify", c.headers), "/api/sessions": ask(w.Replica.Handler(), "/api/sessions", c.headers),
			"/api/users": ask(w.Replica.Handler(), "/api/users", c.headers), "a resource server": ask(service, "/", c.headers),
		} {
			if got != c.status {
				t.Errorf("%q at %s: %d, want %d", c.headers, name, got, c.status)
			}
		}
	}
}
