package login

import (
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Whatever claims a superuser is given, there is a token by which they can administer.
func TestASuperusersTokenFits(t *testing.T) {
	s, p := newService(t)
	much := strings.Repeat("x", accesstoken.DefaultMaxLength)
	for admin, fits := range map[string]bool{"all": true, "users:read,all": true, "users:write": false, "": false, "allx": false} {
		p.claims = map[string]string{"much": much, directory.Admin: admin}
		step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
		if !fits {
			if problem.From(err).Code != "claims_too_large" {
				t.Errorf("%q: %v", admin, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", admin, err)
			continue
		}
		tok, err := s.Verify(t.Context(), step.Grant.AccessToken)
		if err != nil || tok.Claim(directory.Admin) != admin || tok.Claim("much") != "" || tok.Subject != adaID {
			t.Errorf("%q: %+v, %v", admin, tok, err)
		}
		if _, err := s.Renew(t.Context(), step.Grant.RefreshToken, "", Client{}); err != nil {
			t.Errorf("%q, renewed: %v", admin, err)
		}
	}
}

// A token with an e-mail address says whether it was verified; one without says nothing.
func TestEmailVerifiedInTheToken(t *testing.T) {
	s, p := newService(t)
	s.UserInfo.Email = "mail"
	for _, c := range []struct {
		email    string
		verified bool
		want     any
	}{{"", false, nil}, {"ada@example.org", false, false}, {"ada@example.org", true, true}} {
		ada := p.users["ada"]
		ada.Email, ada.EmailVerified = c.email, c.verified
		p.users["ada"] = ada
		if got := signedIn(t, s, "ada").Claims()["email_verified"]; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	s.UserInfo.Email = ""
	if got, ok := signedIn(t, s, "ada").Claims()["email_verified"]; ok {
		t.Errorf("without an address: %v", got)
	}
}
