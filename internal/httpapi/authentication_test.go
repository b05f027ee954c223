package httpapi

import (
	"crypto/rand"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A proxy learns when and how the user authenticated. The headers are there, empty, where the
// token does not say so: otherwise a client's own would come through a proxy that copies them.
func TestForwardAuthSaysHowTheUserAuthenticated(t *testing.T) {
	key, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := token.NewSigner("k", accesstoken.ES256, key)
	if err != nil {
		t.Fatal(err)
	}
	set, err := accesstoken.NewKeySet(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1800000000, 0)
	for name, c := range map[string]struct {
		change        func(*token.Access)
		time, methods string
	}{
		"nothing is said":  {func(*token.Access) {}, "", ""},
		"two factors":      {func(c *token.Access) { c.AuthTime, c.AMR, c.ACR = now, []string{"mfa", "otp", "pwd"}, "aal2" }, "1800000000", "mfa otp pwd"},
		"a former version": {func(c *token.Access) { c.AuthTime = now.Add(-time.Hour) }, "1799996400", ""},
		"no plain text":    {func(c *token.Access) { c.AMR = []string{"a\r\nX-Auth-Subject: root", "é"} }, "", "a%0D%0AX-Auth-Subject:%20root%20%C3%A9"},
	} {
		access := token.Access{
			Issuer: "https://auth.example", Subject: "u", Audience: []string{"a"}, ClientID: token.FirstParty, ID: "j",
			IssuedAt: now, ExpiresAt: now.Add(time.Hour),
		}
		c.change(&access)
		compact, err := signer.Sign(access)
		if err != nil {
			t.Fatal(err)
		}
		rules := accesstoken.Rules{Issuer: access.Issuer, Audience: access.Audience}
		checked, err := rules.Check(compact, now, set.Find)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		(&Auth{}).setIdentity(h, checked)
		if got := h["X-Auth-Time"]; len(got) != 1 || got[0] != c.time {
			t.Errorf("%s: X-Auth-Time %q, want %q", name, got, c.time)
		}
		if got := h["X-Auth-Methods"]; len(got) != 1 || got[0] != c.methods {
			t.Errorf("%s: X-Auth-Methods %q, want %q", name, got, c.methods)
		}
		want := []string{"Email", "Expires", "Methods", "Name", "Session", "Subject", "Time", "Username"}
		for i := range want {
			want[i] = "X-Auth-" + want[i]
		}
		if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, want) {
			t.Errorf("%s: the headers are %q", name, got)
		}
	}
}
