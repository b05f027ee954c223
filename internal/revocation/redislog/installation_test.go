package redislog

import (
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// What one installation revokes, and how much of its log it has told, concerns no other one,
// though both have the same users and logs, as after a copy. One without an id keeps the names
// of the versions that had none.
func TestInstallationsApart(t *testing.T) {
	without, c := open(t, testenv.Redis(t))
	here := New(without.server, "here")
	user := line(revoked.User, "u")
	user.Epoch = 10
	here.tell(t, "log", 0, 3, line(revoked.Session, "s"), line(revoked.Key, "k"), user)
	for _, other := range []string{"there", ""} {
		if known := New(here.server, other).ask(t, whole); known.Revoked || known.Log != "" {
			t.Errorf("%q has heard %+v", other, known)
		}
	}
	if known := here.ask(t, whole); !known.Revoked || known.Log != "log" {
		t.Errorf("it has not heard itself: %+v", known)
	}
	without.tell(t, "log", 0, 1, store.Revocation{Kind: "jti", Subject: "j", ExpiresAt: user.ExpiresAt}, line(revoked.Session, "s"))
	names, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	want := []string{
		"revocation_span", "revocation_span:here", "revoked_key:here:k", "revoked_session:here:s", "revoked_session:s",
		"revoked_token:j", "revoked_user:here:u",
	}
	if !slices.Equal(names, want) {
		t.Errorf("the names %q, want %q", names, want)
	}
	if known := here.ask(t, accesstoken.Token{ID: "j"}); !known.Revoked {
		t.Error("a token has no name that all know")
	}
}
