package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
	"github.com/watchword-auth/watchword/verify"
)

// handlerTransport answers without a network, and the feed in pages alone.
type handlerTransport struct{ h http.Handler }

func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Accept")
	rec := httptest.NewRecorder()
	t.h.ServeHTTP(rec, r)
	return rec.Result(), nil
}

// A verifier whose clock is behind finds no time of a fresh token in its future. What is
// promised of the token's life, of the login and of issued_before counts from the moment of
// issue, at the replica and at a resource server.
func TestIssueIsDatedBackAndRevocationIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := replica.NewWith(t, replica.Options{Quiet: true}, nil)
		user := w.User("tester")
		admin := w.Login("admin").AccessToken
		time.Sleep(time.Minute + 300*time.Millisecond) // not at the beginning of a second
		issued := time.Now()
		first := w.Login("tester")
		time.Sleep(3 * time.Second)
		renewed := kit.Decode[httpapi.Grant](t, w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: first.RefreshToken}), 200, ""))
		other := w.Login("tester")
		for name, one := range map[string]struct {
			grant        httpapi.Grant
			issued, auth time.Time
		}{
			"a login": {first, issued, issued}, "a renewal": {renewed, issued.Add(3 * time.Second), issued},
			"another login": {other, issued.Add(3 * time.Second), issued.Add(3 * time.Second)},
		} {
			claims := w.Verify(one.grant.AccessToken)
			at := func(name string) int64 { f, _ := claims[name].(float64); return int64(f) }
			now := one.issued.Unix()
			if at("iat") > now-5 || at("nbf") > now-5 || at("iat_exact") != now || at("auth_time") != one.auth.Unix() {
				t.Errorf("%s at %d: %v", name, now, claims)
			}
			if at("exp") != now+1800 || one.grant.ExpiresIn != 1800 {
				t.Errorf("%s at %d expires in %d s: %v", name, now, one.grant.ExpiresIn, claims)
			}
		}

		v, err := verify.New(verify.Config{
			Issuer: w.Config.Tokens.Issuer, KeySetURL: "http://replica/api/pkeys", RevocationsURL: "http://replica/api/revocations",
			HTTPClient: &http.Client{Transport: handlerTransport{w.Replica.Handler()}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		good := func(when string, token string, want bool) {
			t.Helper()
			time.Sleep(3 * time.Second) // the feed is read
			if got := w.Do("GET", "/api/verify", token, nil).Status == http.StatusOK; got != want {
				t.Errorf("revoked before %s: good at the replica: %v", when, got)
			}
			if _, err := v.Verify(t.Context(), token); (err == nil) != want {
				t.Errorf("revoked before %s: good at a resource server: %v", when, err)
			}
		}
		second := issued.Truncate(time.Second)
		revoke := func(before time.Time) {
			t.Helper()
			w.Want(w.Do("POST", "/api/revocations", admin, map[string]any{"user": user, "issued_before": before}), 200, "")
		}
		good("anything", first.AccessToken, true)
		revoke(second)
		good("the second of issue", first.AccessToken, true)
		good("the second of issue", renewed.AccessToken, true)
		revoke(second.Add(time.Second))
		good("the next second", first.AccessToken, false)
		good("the next second", renewed.AccessToken, false) // of the same session
		good("the next second", other.AccessToken, true)
		revoke(second.Add(3 * time.Second))
		good("the second of the other login", other.AccessToken, true)
		revoke(second.Add(4 * time.Second))
		good("the second after the other login", other.AccessToken, false)
	})
}
