package login

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/store"
)

// checked is a factor that counts what it checks.
type checked struct {
	factor
	times int
}

func (f *checked) Check(ctx context.Context, attempt *limit.Attempt, challenge string, answer Answer, client Client) (store.User, error) {
	f.times++
	return f.factor.Check(ctx, attempt, challenge, answer, client)
}

// Each step of a login knows the audience, and an audience that is not issued costs neither a
// password nor an answer to a challenge.
func TestAudienceOfALoginInSteps(t *testing.T) {
	s, _ := newService(t)
	s.Rules.Audience = []string{"a", "i"}
	f := &checked{}
	s.Factor = f
	if _, err := s.Begin(t.Context(), Credential{"ada", "wrong"}, "other", Client{}); !errors.Is(err, errAudience) {
		t.Errorf("a login for another audience: %v", err)
	}
	step, err := s.Begin(t.Context(), Credential{"ada", "right"}, "i", Client{})
	if err != nil || step.Challenge == nil {
		t.Fatalf("%+v, %v", step, err)
	}
	if _, err := s.Complete(t.Context(), step.Challenge.ID, Answer{"totp", "123456"}, "other", Client{}); !errors.Is(err, errAudience) || f.times != 0 {
		t.Errorf("completed for another audience: %v, with %d answers checked", err, f.times)
	}
	for asked, want := range map[string]string{"": "a", "a": "a", "i": "i"} {
		grant, err := s.Complete(t.Context(), step.Challenge.ID, Answer{"totp", "123456"}, asked, Client{})
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
