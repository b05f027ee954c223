package verify_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

func ExampleClaim() {
	fmt.Println(verify.Claim("ship", "acc"))
	fmt.Println(verify.Claim("log", "r,w"))
	// Output:
	// ship=acc
	// log=r,w
}

func ExampleAny() {
	fmt.Println(verify.Any(verify.Claim("ship", "acc"), verify.Claim("admin", "all")))
	fmt.Println(verify.Any())
	// Output:
	// ship=acc or admin=all
	// nobody may
}

func ExampleAll() {
	captain := verify.All(
		verify.Claim("ship", "acc"),
		verify.Any(verify.Claim("log", "w"), verify.Claim("admin", "all")),
	)
	fmt.Println(captain)
	fmt.Println(verify.All())
	// Output:
	// ship=acc and (log=w or admin=all)
	// any valid token
}

func ExampleThat() {
	fmt.Println(verify.That("a human being", func(t *accesstoken.Token) bool { return t.SessionID != "" }))
	// Output: a human being
}

func ExampleVerifier_Require() {
	verifier, err := verify.New(verify.Config{Issuer: "https://auth.example.com"})
	if err != nil {
		panic(err)
	}
	defer verifier.Close()
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := verify.FromContext(r.Context())
		fmt.Fprintln(w, "hello", token.Claim("preferred_username"))
	})
	mux := http.NewServeMux()
	mux.Handle("GET /hello", verifier.Require(hello))
	mux.Handle("GET /log", verifier.Require(hello, verify.Claim("log", "r"), verify.FailOpen))
	mux.Handle("POST /pay", verifier.Require(hello, verify.Claim("pay", "own"), verify.MaxStaleness(3*time.Second)))
}

// The language of claims as a table: what a token holds, what is required, and
// whether it may pass.
func TestRequirements(t *testing.T) {
	ship, log := verify.Claim("ship", "acc"), verify.Claim("log", "w")
	yes := verify.That("yes", func(*accesstoken.Token) bool { return true })
	issuer := verifytest.New(t)
	v, err := verify.New(issuer.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, c := range []struct {
		claims   map[string]string
		required verify.Requirement
		text     string
		want     bool
	}{
		{map[string]string{"ship": "acc"}, ship, "ship=acc", true},
		{map[string]string{"ship": "bill,acc,dock"}, ship, "ship=acc", true},
		{map[string]string{"ship": "account"}, ship, "ship=acc", false},
		{map[string]string{"ship": "ac"}, ship, "ship=acc", false},
		{map[string]string{"ship": "ACC"}, ship, "ship=acc", false},
		{map[string]string{"ship": " acc"}, ship, "ship=acc", false},
		{map[string]string{"ship": ""}, ship, "ship=acc", false},
		{map[string]string{"Ship": "acc"}, ship, "ship=acc", false},
		{nil, ship, "ship=acc", false},

		{map[string]string{"log": "r,w"}, verify.Claim("log", "r,w"), "log=r,w", true},
		{map[string]string{"log": "w,x,r"}, verify.Claim("log", "r,w"), "log=r,w", true},
		{map[string]string{"log": "r"}, verify.Claim("log", "r,w"), "log=r,w", false},
		{map[string]string{"log": "r,"}, verify.Claim("log", "r,"), "log=r,", false},
		{map[string]string{"log": ""}, verify.Claim("log", ""), "log=", false},

		{map[string]string{"log": "w"}, verify.Any(ship, log), "ship=acc or log=w", true},
		{map[string]string{"log": "r"}, verify.Any(ship, log), "ship=acc or log=w", false},
		{map[string]string{"log": "w"}, verify.All(ship, log), "ship=acc and log=w", false},
		{map[string]string{"log": "w", "ship": "acc"}, verify.All(ship, log), "ship=acc and log=w", true},
		{map[string]string{"log": "w"}, verify.Any(), "nobody may", false},
		{nil, verify.All(), "any valid token", true},
		{nil, yes, "yes", true},
		{nil, verify.Requirement{}, "nobody may", false},
		{nil, verify.That("broken", nil), "nobody may", false},
		{nil, verify.Any(verify.Requirement{}, yes), "nobody may or yes", true},

		{map[string]string{"log": "w"}, verify.All(yes, verify.Any(ship, log)), "yes and (ship=acc or log=w)", true},
		{map[string]string{"log": "w"}, verify.Any(verify.All(yes, ship), verify.All(yes, log)), "(yes and ship=acc) or (yes and log=w)", true},
		{map[string]string{"log": "w"}, verify.Any(verify.Any(ship, yes), log), "ship=acc or yes or log=w", true},
		{map[string]string{"log": "w"}, verify.All(yes, verify.All(verify.Any(ship, log))), "yes and (ship=acc or log=w)", true},
	} {
		_, err := v.Verify(t.Context(), issuer.Token("u", c.claims), c.required)
		if got := err == nil; got != c.want || c.required.String() != c.text {
			t.Errorf("%v, required %q (want %q): %v", c.claims, c.required, c.text, err)
		}
	}
	// What is changed afterwards is not what is required.
	parts := []verify.Requirement{ship}
	both := verify.All(parts...)
	parts[0] = yes
	expectForbidden(t, v, issuer.Token("u", nil), "the token does not give the right to this request: ship=acc", both)
	// All that are given must be met.
	expectForbidden(t, v, issuer.Token("u", nil), "the token does not give the right to this request: ship=acc", yes, ship, yes)
}

func expectForbidden(t *testing.T, v *verify.Verifier, token, detail string, conditions ...verify.Condition) {
	t.Helper()
	_, err := v.Verify(t.Context(), token, conditions...)
	if e, ok := err.(*accesstoken.Error); !ok || !e.Is(verify.ErrForbidden) || e.Detail != detail {
		t.Errorf("Verify gives %v, want %q", err, detail)
	}
}

// Routes differ in what they do while it is not known what was revoked.
func TestStalenessOfARoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		good, bad := f.issuer.Token("u", nil), f.issuer.Sign("u", map[string]any{"jti": "bad"})
		never := newFront(t)
		never.onlyFeed(fail)
		blind := start(t, never, nil)
		f.issuer.Revoke(revoked.Token, "bad")
		settle()
		ask := func(v *verify.Verifier, token string, want error, conditions ...verify.Condition) {
			t.Helper()
			if _, err := v.Verify(t.Context(), token, conditions...); err != want {
				t.Errorf("%v: Verify gives %v, want %v", conditions, err, want)
			}
		}
		all := []verify.Condition{verify.FailOpen, verify.FailClosed, verify.MaxStaleness(time.Hour), verify.MaxStaleness(4 * time.Second)}
		for _, c := range all {
			ask(v, good, nil, c)
			ask(v, bad, verify.ErrRevoked, c)
		}
		f.cut(fail)
		time.Sleep(5 * time.Second)
		ask(v, good, nil)
		ask(v, good, verify.ErrStale, verify.MaxStaleness(4*time.Second))
		ask(v, good, nil, verify.MaxStaleness(4*time.Second), verify.FailOpen)
		time.Sleep(time.Minute)
		ask(v, good, verify.ErrStale)
		ask(v, good, verify.ErrStale, verify.FailClosed)
		ask(v, good, verify.ErrStale, verify.FailOpen, verify.FailClosed) // the last one counts
		ask(v, good, nil, verify.FailOpen)
		ask(v, good, nil, verify.MaxStaleness(2*time.Minute))
		time.Sleep(time.Minute)
		ask(v, good, verify.ErrStale, verify.MaxStaleness(2*time.Minute))
		ask(v, good, nil, verify.FailOpen)
		for _, c := range all {
			ask(v, bad, verify.ErrRevoked, c)
		}
		ask(blind, never.issuer.Token("u", nil), verify.ErrStale, verify.FailOpen)
	})
}

// A server without tokens.audience names itself as the audience.
func TestTheAudienceIsByDefaultTheIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, func(c *verify.Config) { c.Audience = nil })
		expect(t, v, f.issuer.Token("u", nil), accesstoken.ErrAudience)
		expect(t, v, f.issuer.Sign("u", map[string]any{"aud": "https://auth.example"}), nil)
	})
}
