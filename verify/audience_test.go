package verify_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// A token that is for the issuer's own API, or for another service, is refused by a service
// that knows its own names, so that it cannot be used there. One name in common is enough.
func TestTokensForOthersAreRefused(t *testing.T) {
	issuer := verifytest.New(t)
	const second = "https://second.example"
	cfg := issuer.Config()
	cfg.Audience = append(cfg.Audience, second)
	v, err := verify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	cfg.Audience[0] = "https://other.example" // the Verifier has its own
	service := v.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, one := range []struct {
		audience any
		want     int
	}{
		{verifytest.Audience, 200},
		{[]string{issuer.URL, verifytest.Audience}, 200},
		{issuer.URL, 401},
		{"https://other.example", 401},
		{[]string{issuer.URL, "https://other.example"}, 401},
		{[]string{"https://other.example", second, issuer.URL}, 200},
		{second, 200},
		{[]string{second, verifytest.Audience}, 200},
		{second + "/", 401},
		{"https://SECOND.example", 401},
		{verifytest.Audience + " " + second, 401},
		{verifytest.Audience + "," + second, 401},
		{[]string{}, 401},
	} {
		token := issuer.Sign("ada", map[string]any{"aud": one.audience})
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // 503 until the feed was read
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			rec := httptest.NewRecorder()
			service.ServeHTTP(rec, r)
			if rec.Code == 503 && time.Now().Before(deadline) {
				continue
			}
			if rec.Code != one.want {
				t.Errorf("aud %v: %d, want %d", one.audience, rec.Code, one.want)
			}
			break
		}
	}
}
