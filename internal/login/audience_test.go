package login

import (
	"errors"
	"slices"
	"testing"
)

// An audience that is not issued costs neither a password nor a challenge. One that is lasts from
// the password on, whichever replica checks the second factor.
func TestAudienceOfALoginInSteps(t *testing.T) {
	s, p := newService(t)
	s.Rules.Audience = []string{"a", "i"}
	app := enrolled(t, s, p, "ada")
	challenges := func() int {
		t.Helper()
		list, err := s.Factors.State.List(t.Context(), "mfa_token", adaID, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	for _, password := range []string{"right", "wrong"} {
		if _, err := s.Begin(t.Context(), Credential{"ada", password, ""}, "other", Client{}); !errors.Is(err, errAudience) {
			t.Errorf("a login for another audience with a %s password: %v", password, err)
		}
	}
	if n := challenges(); n != 0 {
		t.Errorf("there are %d challenges for another audience", n)
	}
	for asked, want := range map[string]string{"": "a", "a": "a", "i": "i"} {
		step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, asked, Client{})
		if err != nil || step.Challenge == nil || challenges() != 1 {
			t.Fatalf("%+v, %v", step, err)
		}
		grant, _, err := another(s).Complete(t.Context(), step.Challenge.Token, app.next(), Client{})
		if err != nil {
			t.Fatal(err)
		}
		renewed, err := s.Renew(t.Context(), grant.RefreshToken, "", Client{})
		if err != nil {
			t.Fatal(err)
		}
		for _, compact := range []string{grant.AccessToken, renewed.AccessToken} {
			if got, err := s.Verify(t.Context(), compact); err != nil || !slices.Equal(got.Audience, []string{want}) {
				t.Errorf("asked for %q: %+v, %v", asked, got, err)
			}
		}
	}
}
