package verify_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

func ExampleFreshAuth() {
	transfer := verify.All(verify.Claim("pay", "own"), verify.FreshAuth(5*time.Minute), verify.AMR("otp", "hwk"))
	fmt.Println(transfer)
	// Output: pay=own and auth_time within 5m0s and (amr=otp or amr=hwk)
}

func ExampleACR() {
	fmt.Println(verify.ACR("aal2"))
	fmt.Println(verify.ACR())
	// Output:
	// acr=aal2
	// nobody may
}

// What a token says of an authentication, what is required, and the answer: 200, 401 if the
// user has to authenticate again, 403 if that would not help.
func TestRequiredAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const leeway = 10 * time.Second
		f := newFront(t)
		v := start(t, f, func(c *verify.Config) { c.Leeway = leeway })
		settle()
		now := time.Now().Truncate(time.Second).Add(time.Second)
		time.Sleep(time.Until(now)) // at a whole second, since auth_time counts them
		by := func(ago time.Duration, acr string, amr ...string) verifytest.Authentication {
			return verifytest.Authentication{At: now.Add(-ago), AMR: amr, ACR: acr}
		}
		never := verifytest.Authentication{}
		fresh, otp, ship := verify.FreshAuth(5*time.Minute), verify.AMR("otp", "hwk"), verify.Claim("ship", "acc")
		const maxAge = `, max_age="300"`
		for _, c := range []struct {
			after      verifytest.Authentication
			required   []verify.Condition
			status     int
			parameters string // of the challenge
		}{
			{by(0, ""), []verify.Condition{fresh}, 200, ""},
			{by(5*time.Minute, ""), []verify.Condition{fresh}, 200, ""},
			{by(5*time.Minute+leeway, ""), []verify.Condition{fresh}, 200, ""},
			{by(5*time.Minute+leeway+time.Second, ""), []verify.Condition{fresh}, 401, maxAge},
			{by(-leeway, ""), []verify.Condition{fresh}, 200, ""},
			{by(-leeway-time.Second, ""), []verify.Condition{fresh}, 401, maxAge},
			{by(-1000*time.Hour, ""), []verify.Condition{fresh}, 401, maxAge},
			{by(365*24*time.Hour, ""), []verify.Condition{fresh}, 401, maxAge},
			{never, []verify.Condition{fresh}, 401, maxAge},
			{never, []verify.Condition{verify.FreshAuth(math.MaxInt64)}, 401, `, max_age="9223372036"`},
			{by(1000*time.Hour, ""), []verify.Condition{verify.FreshAuth(math.MaxInt64)}, 200, ""},
			{verifytest.Authentication{At: time.Unix(253402300799, 0)}, []verify.Condition{fresh}, 401, maxAge}, // in the year 9999
			{verifytest.Authentication{At: time.Unix(0, 0)}, []verify.Condition{fresh}, 401, maxAge},
			{by(0, ""), []verify.Condition{verify.FreshAuth(0)}, 403, ""},
			{by(0, ""), []verify.Condition{verify.FreshAuth(-time.Hour)}, 403, ""},
			{by(time.Hour, ""), []verify.Condition{verify.FreshAuth(time.Millisecond)}, 401, `, max_age="1"`},
			{by(time.Hour, ""), []verify.Condition{verify.FreshAuth(90*time.Second + 999*time.Millisecond)}, 401, `, max_age="90"`},
			{by(time.Hour, ""), []verify.Condition{fresh, verify.FreshAuth(time.Minute), verify.FreshAuth(time.Hour)}, 401, `, max_age="60"`},

			{by(0, "", "pwd", "otp"), []verify.Condition{otp}, 200, ""},
			{by(0, "", "hwk"), []verify.Condition{otp}, 200, ""},
			{by(0, "", "pwd"), []verify.Condition{otp}, 401, ""},
			{by(0, "", "OTP", "otp,hwk", "otp hwk", "ot", "otpx"), []verify.Condition{otp}, 401, ""},
			{never, []verify.Condition{otp}, 401, ""},
			{by(0, "", "pwd"), []verify.Condition{verify.AMR()}, 403, ""},
			{never, []verify.Condition{verify.AMR("")}, 403, ""},

			{by(0, "aal2"), []verify.Condition{verify.ACR("aal2", "aal3")}, 200, ""},
			{by(0, "aal1"), []verify.Condition{verify.ACR("aal2", "aal3")}, 401, `, acr_values="aal2 aal3"`},
			{by(0, "aal"), []verify.Condition{verify.ACR("aal2")}, 401, `, acr_values="aal2"`},
			{never, []verify.Condition{verify.ACR("aal2")}, 401, `, acr_values="aal2"`},
			{never, []verify.Condition{verify.ACR(`a"b`, "a b", "a\r\nX-Evil: 1", `a\b`, "é", "ok")}, 401, `, acr_values="ok"`},
			{never, []verify.Condition{verify.ACR(`a"b`)}, 401, ""},
			{never, []verify.Condition{verify.ACR()}, 403, ""},
			{never, []verify.Condition{verify.ACR("")}, 403, ""},
			{by(0, "a"), []verify.Condition{verify.ACR("a", "b"), verify.ACR("b", "c")}, 401, `, acr_values="b"`},

			// The challenge says all that the route wants, so that one authentication does.
			{by(time.Hour, "aal2", "pwd", "otp"), []verify.Condition{fresh, otp, verify.ACR("aal2")}, 401, maxAge + `, acr_values="aal2"`},
			{by(time.Hour, "aal2", "pwd", "otp"), []verify.Condition{verify.All(fresh, otp, verify.ACR("aal2"))}, 401, maxAge + `, acr_values="aal2"`},
			// A user who lacks a claim does not authenticate in vain.
			{by(time.Hour, ""), []verify.Condition{fresh, ship}, 403, ""},
			{by(time.Hour, ""), []verify.Condition{ship, fresh}, 403, ""},
			{by(time.Hour, ""), []verify.Condition{verify.All(fresh, ship)}, 403, ""},
			{by(0, ""), []verify.Condition{verify.All(fresh, ship)}, 403, ""},
			{by(time.Hour, ""), []verify.Condition{fresh, verify.AMR()}, 403, ""},
			{by(time.Hour, ""), []verify.Condition{fresh, verify.Requirement{}}, 403, ""},
			// Of several ways, the one that is open.
			{by(time.Hour, ""), []verify.Condition{verify.Any(ship, fresh)}, 401, maxAge},
			{by(0, ""), []verify.Condition{verify.Any(ship, fresh)}, 200, ""},
			{by(0, "", "otp"), []verify.Condition{verify.Any(verify.FreshAuth(-1), otp)}, 200, ""},
			{by(time.Hour, ""), []verify.Condition{verify.Any(verify.All(ship, verify.FreshAuth(time.Second)), fresh, otp)}, 401, maxAge},
			{by(time.Hour, ""), []verify.Condition{verify.Any(ship, verify.AMR())}, 403, ""},
			{by(time.Hour, ""), []verify.Condition{verify.All(verify.Any(ship, otp), fresh)}, 401, maxAge},
		} {
			token := f.issuer.TokenAfter(c.after, "u", nil)
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			v.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), c.required...).ServeHTTP(w, r)
			challenge, code, want := "", "", error(nil)
			switch c.status {
			case 401:
				code, want = "reauthentication_required", verify.ErrReauthenticate
				challenge = `Bearer realm="` + f.issuer.URL + `", error="insufficient_user_authentication", error_description="reauthentication_required"` + c.parameters
			case 403:
				code, want = "forbidden", verify.ErrForbidden
				challenge = `Bearer realm="` + f.issuer.URL + `", error="insufficient_scope", error_description="forbidden"`
			}
			if w.Code != c.status || w.Header().Get("WWW-Authenticate") != challenge {
				t.Errorf("%+v, required %v: %d, %q, want %d, %q", c.after, c.required, w.Code, w.Header().Get("WWW-Authenticate"), c.status, challenge)
			}
			var p struct{ Code string }
			if err := json.Unmarshal(w.Body.Bytes(), &p); c.status != 200 && (err != nil || p.Code != code) {
				t.Errorf("%+v, required %v: problem %s, %v", c.after, c.required, w.Body, err)
			}
			if _, err := v.Verify(t.Context(), token, c.required...); want == nil && err != nil || !errors.Is(err, want) {
				t.Errorf("%+v, required %v: Verify gives %v", c.after, c.required, err)
			}
		}
	})
}

// The error says what has to be done, for a server that is not net/http.
func TestReauthenticationInAnError(t *testing.T) {
	issuer := verifytest.New(t)
	v, err := verify.New(issuer.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	_, err = v.Verify(t.Context(), issuer.Token("u", nil), verify.FreshAuth(time.Minute), verify.ACR("aal2"), verify.AMR("otp"))
	var again *verify.Reauthentication
	if !errors.As(err, &again) || again.MaxAge != time.Minute || !slices.Equal(again.ACRValues, []string{"aal2"}) {
		t.Errorf("%+v, %v", again, err)
	}
	const detail = "the user has to authenticate again, or by another method: auth_time within 1m0s and acr=aal2 and amr=otp"
	if e := (&accesstoken.Error{}); !errors.As(err, &e) || e.Detail != detail {
		t.Errorf("%v", err)
	}
}

// An authentication grows old, also in a token that the Verifier remembers.
func TestAnAuthenticationGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		token := f.issuer.TokenAfter(verifytest.Authentication{At: time.Now()}, "u", nil)
		fresh := verify.FreshAuth(5 * time.Minute)
		for range 5 {
			if _, err := v.Verify(t.Context(), token, fresh); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute - 200*time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if _, err := v.Verify(t.Context(), token, fresh); !errors.Is(err, verify.ErrReauthenticate) {
			t.Errorf("after five minutes: %v", err)
		}
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("the token itself: %v", err)
		}
	})
}

// The clock of a resource server runs behind. A token that the issuer has dated back for such
// a clock is fresh there at once; one whose auth_time lies further ahead is not.
func TestFreshAuthOnAClockThatRunsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		behind := 4 * time.Second
		v := start(t, f, func(c *verify.Config) { c.Now = func() time.Time { return time.Now().Add(-behind) } })
		settle()
		now := time.Now().Unix()
		issued := func(authTime, notBefore int64) string {
			return f.issuer.Sign("u", map[string]any{"auth_time": authTime, "nbf": notBefore, "iat": notBefore, "iat_exact": now})
		}
		for _, c := range []struct {
			authTime, notBefore int64
			want                error
		}{
			{now, now - 5, nil},
			{now + 2, now - 5, verify.ErrReauthenticate},
			{now + 3600, now - 5, verify.ErrReauthenticate},
			{now + 3600, 1, verify.ErrReauthenticate}, // it allows for a clock that is 50 years behind
			{now + 3600, now, accesstoken.ErrNotYetValid},
		} {
			_, err := v.Verify(t.Context(), issued(c.authTime, c.notBefore), verify.FreshAuth(time.Minute))
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("auth_time %d, nbf %d, now %d: %v, want %v", c.authTime, c.notBefore, now, err, c.want)
			}
		}
		_, err := v.Verify(t.Context(), f.issuer.Sign("u", map[string]any{"auth_time": now}), verify.FreshAuth(time.Minute))
		if !errors.Is(err, verify.ErrReauthenticate) {
			t.Errorf("without nbf: %v", err)
		}
	})
}
