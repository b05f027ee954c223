package login

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A token says by what its user has authenticated, and when. A renewal is no authentication, a
// step-up and a changed password are, and neither takes away what was said before.
func TestWhatATokenSaysOfTheAuthentication(t *testing.T) {
	s, p := newService(t)
	s.Rules.Audience = []string{"a", "i"}
	var ahead time.Duration
	s.Now = func() time.Time { return time.Now().Add(ahead) }
	s.Sessions.Now = s.Now
	check := func(name string, g Grant, err error, amr, acr string, age time.Duration) *accesstoken.Token {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tok, err := s.Verify(t.Context(), g.AccessToken)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := s.Now().Sub(tok.AuthTime); got < age-time.Second || got > age+3*time.Second {
			t.Errorf("%s: the authentication is %v ago, want %v", name, got, age)
		}
		if !slices.Equal(tok.AMR, strings.Fields(amr)) || tok.Claim("acr") != acr {
			t.Errorf("%s: amr %q, acr %q, want %q and %q", name, tok.AMR, tok.Claim("acr"), amr, acr)
		}
		return tok
	}
	step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "i", home)
	check("a password alone", step.Grant, err, "pwd", "aal1", 0)

	ahead += 20 * time.Second
	renewed, err := s.Renew(t.Context(), step.Grant.RefreshToken, "", home)
	tok := check("renewed", renewed, err, "pwd", "aal1", 20*time.Second)

	grant, err := s.StepUp(t.Context(), tok, "right", mfa.Answer{Method: byPassword}, home)
	tok = check("a password once more", grant, err, "pwd", "aal1", 0)
	if grant.RefreshToken != "" || tok.SessionID != renewed.SessionID {
		t.Error("a step-up begins another session")
	}

	ahead += 20 * time.Second
	app := enrolled(t, s, p, "ada")
	step, err = s.Begin(t.Context(), Credential{"ada", "right", ""}, "i", home)
	if err != nil {
		t.Fatal(err)
	}
	grant, _, err = s.Complete(t.Context(), step.Challenge.Token, app.next(), home)
	check("a password and a code", grant, err, "mfa otp pwd", "aal2", 0)

	ahead += 20 * time.Second
	renewed, err = s.Renew(t.Context(), grant.RefreshToken, "a", home)
	tok = check("renewed for another audience", renewed, err, "mfa otp pwd", "aal2", 20*time.Second)
	grant, err = s.StepUp(t.Context(), tok, "", app.next(), home)
	if tok = check("a code once more", grant, err, "mfa otp pwd", "aal2", 0); !slices.Equal(tok.Audience, []string{"a"}) {
		t.Errorf("a step-up changes the audience to %v", tok.Audience)
	}

	ahead += 20 * time.Second
	renewed, err = s.Renew(t.Context(), renewed.RefreshToken, "i", home)
	tok = check("renewed after the step-up", renewed, err, "mfa otp pwd", "aal2", 20*time.Second)
	grant, err = s.ChangePassword(t.Context(), tok, "right", "another password", home)
	tok = check("a changed password", grant, err, "mfa otp pwd", "aal2", 0)

	ahead += 20 * time.Second
	grant, err = s.RemoveTOTP(t.Context(), tok, home)
	check("the factor removed", grant, err, "mfa otp pwd", "aal2", 20*time.Second)

	step, err = s.Begin(t.Context(), Credential{"ada", "right", ""}, "i", home)
	if err != nil || step.Challenge != nil {
		t.Fatalf("without a factor: %+v, %v", step, err)
	}
	tok = check("a password alone, again", step.Grant, err, "pwd", "aal1", 0)
	begun, err := s.Factors.BeginTOTP(t.Context(), actor(tok, home))
	if err != nil {
		t.Fatal(err)
	}
	app.secret = begun.Secret
	ahead += 20 * time.Second
	grant, err = s.ConfirmTOTP(t.Context(), tok, app.next().Code, home)
	check("a factor enrolled", grant, err, "mfa otp pwd", "aal2", 20*time.Second)
}

// A step-up is refused as a login is, counts as one, and brings back no session that has ended.
func TestStepUpIsRefused(t *testing.T) {
	s, p := newService(t)
	app := enrolled(t, s, p, "ada")
	grantOf := func() Grant {
		t.Helper()
		step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", home)
		if err != nil {
			t.Fatal(err)
		}
		grant, _, err := s.Complete(t.Context(), step.Challenge.Token, app.next(), home)
		if err != nil {
			t.Fatal(err)
		}
		return grant
	}
	holder := func(g Grant) *accesstoken.Token {
		t.Helper()
		tok, err := s.Verify(t.Context(), g.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	stepUp := func(tok *accesstoken.Token, plain string, answer mfa.Answer, client Client) error {
		_, err := s.StepUp(t.Context(), tok, plain, answer, client)
		return err
	}
	password := mfa.Answer{Method: byPassword}
	tok := holder(grantOf())
	used := mfa.Answer{Method: mfa.TOTP, Code: mfatest.Code(t, app.secret, app.now())}
	for name, c := range map[string]struct {
		plain  string
		answer mfa.Answer
		want   error
	}{
		"a wrong password": {"wrong", password, directory.ErrInvalidCredentials},
		"no password":      {"", password, directory.ErrInvalidCredentials},
		"a wrong code":     {"", app.wrong(), mfa.ErrInvalidCode},
		"a used code":      {"", used, mfa.ErrCodeUsed},
		"no method":        {"right", mfa.Answer{}, mfa.ErrUnknownMethod},
		"another factor":   {"", mfa.Answer{Method: mfa.BackupCode, Code: "0123456789abcdef"}, mfa.ErrUnknownMethod},
	} {
		if err := stepUp(tok, c.plain, c.answer, home); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}

	limited(s, locking())
	for range 5 {
		if err := stepUp(tok, "", app.wrong(), foreign); !errors.Is(err, mfa.ErrInvalidCode) {
			t.Fatal(err)
		}
	}
	if err := stepUp(tok, "right", password, foreign); !errors.Is(err, directory.ErrInvalidCredentials) {
		t.Errorf("the right password after five wrong codes: %v", err)
	}

	for name, end := range map[string]func(tok *accesstoken.Token) error{
		"a logout":         func(tok *accesstoken.Token) error { return s.logout(t.Context(), sessionOf(tok), home) },
		"a removed record": func(tok *accesstoken.Token) error { return s.Sessions.End(t.Context(), adaID, tok.SessionID) },
		"the end of all": func(*accesstoken.Token) error {
			_, err := s.Store.NextEpoch(t.Context(), adaID, true)
			return err
		},
	} {
		tok := holder(grantOf())
		if err := end(tok); err != nil {
			t.Fatal(err)
		}
		if err := stepUp(tok, "right", password, home); !errors.Is(err, revocation.ErrRevoked) {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

// A code that was wrong, or used before, is in the trail as a login that was refused.
func TestRefusedCodesAreInTheTrail(t *testing.T) {
	s, p := newService(t)
	apps := map[string]*app{"ada": enrolled(t, s, p, "ada"), "bob": enrolled(t, s, p, "bob")}
	for name, answer := range map[string]mfa.Answer{
		"ada": apps["ada"].wrong(), "bob": {Method: mfa.TOTP, Code: mfatest.Code(t, apps["bob"].secret, apps["bob"].now())},
	} {
		s.Factors.Now = apps[name].now
		step, err := s.Begin(t.Context(), Credential{name, "right", ""}, "", home)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Complete(t.Context(), step.Challenge.Token, answer, home); err == nil {
			t.Errorf("%s is logged in", name)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	s.Audit.Run(ctx) // writes what is still to be written
	for id, want := range map[string]string{adaID: "invalid_code", bobID: "code_used"} {
		events, err := s.Audit.Events(t.Context(), store.AuditQuery{Target: id, Action: "login", Limit: 10})
		if err != nil || len(events) != 1 || events[0].Outcome != audit.Denied || events[0].Detail != want {
			t.Errorf("%s: %+v, %v", want, events, err)
		}
	}
}
