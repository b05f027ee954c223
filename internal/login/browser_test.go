package login

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// desktop is a browser at home.
var desktop = Client{Address: "192.0.2.1", UserAgent: "Firefox", Browser: true}

// noKeys is a replica without a key to sign with.
type noKeys struct{ Keys }

var errNoKey = problem.New(problem.Unavailable, "no_key", "no key")

func (noKeys) Signer() (*token.Signer, error) { return nil, errNoKey }
func (noKeys) Voucher() keyring.Voucher       { return nil }

// newBrowserService makes a service that signs nothing.
func newBrowserService(t *testing.T) (*Service, *people) {
	t.Helper()
	s, p := newService(t)
	s.Keys = noKeys{s.Keys}
	s.Sessions.Logger, s.Sessions.Revoked = slog.New(slog.DiscardHandler), s.View.SessionRevoked
	return s, p
}

// cookieOf returns the cookie of a grant, which has nothing else that opens something.
func cookieOf(t *testing.T, g Grant, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if g.Cookie == "" || g.SessionID == "" || g.AccessToken != "" || g.RefreshToken != "" || g.ExpiresIn <= 59*time.Minute || g.ExpiresIn > time.Hour {
		t.Fatalf("the grant of a browser is %+v", g)
	}
	return g.Cookie
}

// browserOf signs a user in and returns the cookie.
func browserOf(t *testing.T, s *Service, name string) string {
	t.Helper()
	step, err := s.Begin(t.Context(), Credential{name, "right", ""}, "", desktop)
	return cookieOf(t, step.Grant, err)
}

// recognised returns the holder of a cookie.
func recognised(t *testing.T, s *Service, cookie string) *Browser {
	t.Helper()
	b, err := s.Recognise(t.Context(), cookie)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A browser is signed in on a replica that cannot sign, with claims that are too long for a token.
// Its session is one of the user's, and its holder may do what the holder of a token for the API
// may.
func TestABrowserSignsIn(t *testing.T) {
	s, p := newBrowserService(t)
	p.claims = map[string]string{"much": strings.Repeat("x", accesstoken.DefaultMaxLength)}
	if _, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", home); !errors.Is(err, errNoKey) {
		t.Fatalf("an app: %v", err)
	}
	if _, err := s.Begin(t.Context(), Credential{"ada", "wrong", ""}, "", desktop); !errors.Is(err, directory.ErrInvalidCredentials) {
		t.Errorf("a wrong password: %v", err)
	}
	began := time.Now()
	cookie := browserOf(t, s, "ada")
	b := recognised(t, s, cookie)
	got := *b.Token
	want := accesstoken.Token{
		Issuer: "i", Subject: adaID, Audience: []string{"i"}, ID: b.Session.CookieID, SessionID: b.Session.ID, Epoch: got.Epoch,
		IssuedAt: b.Session.CreatedAt, ExpiresAt: b.Session.ExpiresAt, AuthTime: b.Session.AuthTime, AMR: []string{"pwd"}, ACR: mfa.OneFactor,
	}
	if user, err := s.Store.User(t.Context(), adaID); err != nil || got.Epoch != user.Epoch || got.AuthTime.Before(began.Add(-time.Second)) {
		t.Errorf("the epoch is %d of %+v, %v, authenticated at %v", got.Epoch, user, err, got.AuthTime)
	}
	if got.Claim("much") != "" || got.ID == "" || !slices.Equal(got.Audience, want.Audience) || !slices.Equal(got.AMR, want.AMR) {
		t.Errorf("the holder is %+v", got)
	}
	got.Audience, got.AMR, want.Audience, want.AMR = nil, nil, nil, nil
	if got.Issuer != want.Issuer || got.Subject != want.Subject || got.SessionID != want.SessionID || got.ACR != want.ACR || !got.ExpiresAt.Equal(want.ExpiresAt) {
		t.Errorf("the holder is %+v, want %+v", got, want)
	}
	if !directory.Holder(b.Token, "").API {
		t.Error("the API is not for them")
	}
	if list, _, err := s.ListSessions(t.Context(), b.Token, "", "", 10, desktop); err != nil || len(list) != 1 || list[0].UserAgent != "Firefox" || !list[0].Browser {
		t.Errorf("the sessions are %+v, %v", list, err)
	}
	events, err := s.Audit.Events(t.Context(), store.AuditQuery{Actor: adaID, Action: "login", Limit: 10})
	if err != nil || len(events) != 1 || events[0].Target != b.Session.ID || events[0].Detail != "pwd" || events[0].Address != desktop.Address {
		t.Errorf("the events are %+v, %v", events, err)
	}
	for range 2 { // a browser's session is one of those that are bounded
		browserOf(t, s, "ada")
	}
	s.Sessions.MaxPerUser = 2
	last := browserOf(t, s, "ada")
	if _, err := s.Recognise(t.Context(), cookie); !errors.Is(err, ErrNoBrowser) {
		t.Errorf("the oldest of too many: %v", err)
	}
	recognised(t, s, last)
	if n := sessionsOf(t, s, adaID); n != 2 {
		t.Errorf("there are %d sessions", n)
	}
}

// What ends a session in whatever way ends it for its cookie on each replica, and nothing else does.
func TestTheCookieOfASessionThatHasEnded(t *testing.T) {
	for name, end := range map[string]func(*Service, *people, *Browser) error{
		"a sign-out by another request": func(s *Service, _ *people, b *Browser) error {
			return s.logout(t.Context(), sessionOf(b.Token), desktop)
		},
		"its end by the user": func(s *Service, _ *people, b *Browser) error {
			return s.EndSession(t.Context(), b.Token, b.Session.ID, desktop)
		},
		"the end of all others": func(s *Service, _ *people, b *Browser) error {
			other, err := s.Recognise(t.Context(), browserOf(t, s, "ada"))
			if err != nil {
				return err
			}
			return s.EndOtherSessions(t.Context(), other.Token, desktop)
		},
		"a revocation by the user": func(s *Service, _ *people, b *Browser) error {
			_, err := s.Revoke(t.Context(), b.Token, Target{SessionID: b.Session.ID}, desktop)
			return err
		},
		"a revocation of all": func(s *Service, _ *people, b *Browser) error {
			_, err := s.Revoke(t.Context(), b.Token, Target{User: adaID}, desktop)
			return err
		},
		"a revocation of what was issued before": func(s *Service, _ *people, b *Browser) error {
			s.Now = func() time.Time { return time.Now().Add(time.Minute) }
			_, err := s.Revoke(t.Context(), b.Token, Target{User: adaID, IssuedBefore: time.Now().Add(5 * time.Second)}, desktop)
			return err
		},
		"a revocation by its id alone": func(s *Service, _ *people, b *Browser) error {
			_, err := s.append(t.Context(), s.entry(revoked.Session, b.Session.ID, adaID, "session_ended"))
			return err
		},
		"the first half of a revocation of what was issued before": func(s *Service, _ *people, b *Browser) error {
			entry := s.entry(revoked.User, adaID, adaID, "user_revoked")
			entry.IssuedBefore = time.Now().Add(5 * time.Second)
			_, err := s.append(t.Context(), entry)
			s.Now = func() time.Time { return time.Now().Add(time.Minute) }
			return err
		},
		"the end of all, of which the log says nothing any more": func(s *Service, _ *people, _ *Browser) error {
			_, err := s.Store.NextEpoch(t.Context(), adaID, true)
			return err
		},
		"another state": func(s *Service, _ *people, b *Browser) error {
			return s.Sessions.End(t.Context(), adaID, b.Session.ID)
		},
		"a disabled user": func(_ *Service, p *people, _ *Browser) error {
			u := p.users["ada"]
			u.Disabled = true
			p.users["ada"] = u
			return nil
		},
		"a deleted user": func(_ *Service, p *people, _ *Browser) error { delete(p.users, "ada"); return nil },
		"a second factor that is required by now": func(s *Service, _ *people, _ *Browser) error {
			s.Factors.Policy.Always = true
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := newBrowserService(t)
			cookie, bobs := browserOf(t, s, "ada"), browserOf(t, s, "bob")
			b := recognised(t, s, cookie)
			if err := end(s, p, b); err != nil {
				t.Fatal(err)
			}
			for _, replica := range []*Service{s, another(s)} {
				if got, err := replica.Recognise(t.Context(), cookie); !errors.Is(err, ErrNoBrowser) || got != nil {
					t.Errorf("%+v, %v", got, err)
				}
			}
			if _, err := s.StepUp(t.Context(), b.Token, "right", mfa.Answer{Method: byPassword}, desktop); err == nil {
				t.Error("it has another cookie")
			}
			if !s.Factors.Policy.Always {
				recognised(t, s, bobs)
			}
		})
	}
}

// A user whose rights change has their tokens revoked, and the session goes on: the holder of its
// cookie has the user's present epoch.
func TestABrowserGoesOnAfterAChangeOfRights(t *testing.T) {
	s, _ := newBrowserService(t)
	cookie := browserOf(t, s, "ada")
	before := recognised(t, s, cookie)
	entry := s.entry(revoked.User, adaID, "", "claims_changed")
	var err error
	if entry.Epoch, err = s.Store.NextEpoch(t.Context(), adaID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.append(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	if err := s.View.Check(t.Context(), before.Token); !errors.Is(err, revocation.ErrRevoked) {
		t.Fatalf("of before: %v", err)
	}
	b := recognised(t, s, cookie)
	if b.Token.Epoch != entry.Epoch {
		t.Errorf("the epoch is %d, want %d", b.Token.Epoch, entry.Epoch)
	}
	if err := s.View.Check(t.Context(), b.Token); err != nil {
		t.Errorf("the holder: %v", err)
	}
	grant, err := s.StepUp(t.Context(), b.Token, "right", mfa.Answer{Method: byPassword}, desktop)
	b = recognised(t, s, cookieOf(t, grant, err))
	grant, err = s.ChangePassword(t.Context(), b.Token, "right", "another password", desktop)
	recognised(t, s, cookieOf(t, grant, err))
}

// Without knowing what was revoked nobody is recognised, unless the operator allows it; what is
// known to be revoked is refused.
func TestRecogniseFailsClosed(t *testing.T) {
	s, _ := newBrowserService(t)
	cookie, ended := browserOf(t, s, "ada"), browserOf(t, s, "ada")
	if err := s.SignOut(t.Context(), ended, desktop); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	view := func(allow bool) *revocation.View {
		v, err := revocation.NewView(revocation.Config{
			Store: s.Store, Poll: time.Second, MaxStaleness: time.Minute, OnOutage: revocation.Outage{Allow: allow, For: time.Hour},
			Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	never := view(true)
	closed, open := view(false), view(true)
	for _, v := range []*revocation.View{closed, open} {
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		view *revocation.View
		age  time.Duration
		want error
	}{
		"fresh":                              {closed, 0, nil},
		"stale":                              {closed, 2 * time.Minute, revocation.ErrStale},
		"stale, and allowed":                 {open, 2 * time.Minute, nil},
		"stale for longer than it may be":    {open, 2 * time.Hour, revocation.ErrStale},
		"the log was never read":             {never, 0, revocation.ErrStale},
		"the log was never read, much later": {never, time.Hour, revocation.ErrStale},
	} {
		then := now
		s.View, now = c.view, now.Add(c.age)
		_, err := s.Recognise(t.Context(), cookie)
		if !errors.Is(err, c.want) || c.want != nil && problem.From(err).Kind != problem.Unavailable {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, err := s.Recognise(t.Context(), ended); !errors.Is(err, ErrNoBrowser) {
			t.Errorf("%s, of a session that has ended: %v", name, err)
		}
		now = then
	}
	s.View = closed
	away := &away{Store: s.Sessions.State}
	s.Sessions.State = away
	away.down = true
	if _, err := s.Recognise(t.Context(), cookie); problem.From(err).Kind != problem.Unavailable {
		t.Errorf("without the state: %v", err)
	}
	if err := s.SignOut(t.Context(), cookie, desktop); problem.From(err).Kind != problem.Unavailable {
		t.Errorf("a sign-out without the state: %v", err)
	}
	away.down = false
	s.People = noPeople{s.People}
	if _, err := s.Recognise(t.Context(), cookie); problem.From(err).Kind != problem.Unavailable {
		t.Errorf("without the directory: %v", err)
	}
}

// away is a state that cannot be reached while it is down, or takes no writes.
type away struct {
	state.Store
	down, readOnly bool
}

func (a *away) Get(ctx context.Context, k state.Key) (state.Record, error) {
	if a.down {
		return state.Record{}, state.ErrUnavailable
	}
	return a.Store.Get(ctx, k)
}

func (a *away) Swap(ctx context.Context, k state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if a.readOnly {
		return 0, state.ErrUnavailable
	}
	return a.Store.Swap(ctx, k, version, value, ttl)
}

// noPeople is a directory that does not answer.
type noPeople struct{ People }

func (noPeople) Subject(context.Context, string) (store.User, map[string]string, error) {
	return store.User{}, nil, state.ErrUnavailable
}

// Whoever is recognised uses their session. That it cannot be noted is no reason to refuse them.
func TestUseOfABrowsersSession(t *testing.T) {
	s, _ := newBrowserService(t)
	var ahead time.Duration
	s.Sessions.Now = func() time.Time { return time.Now().Add(ahead) }
	cookie := browserOf(t, s, "ada")
	began := recognised(t, s, cookie).Session
	ahead = 20 * time.Minute
	held := &away{Store: s.Sessions.State, readOnly: true}
	s.Sessions.State = held
	if got := recognised(t, s, cookie).Session; !got.RenewedAt.Equal(began.RenewedAt) {
		t.Errorf("it is %+v", got)
	}
	held.readOnly = false
	recognised(t, s, cookie)
	got := recognised(t, s, cookie).Session
	if age := got.RenewedAt.Sub(began.RenewedAt); age < ahead || !got.ExpiresAt.Equal(began.ExpiresAt) {
		t.Errorf("it is %+v", got)
	}
}

// A cookie is good where cookies are, and a refresh token where refresh tokens are.
func TestCookiesAreNoTokens(t *testing.T) {
	s, _ := newService(t)
	s.Rules.Audience = []string{"a", "i"}
	cookie := browserOf(t, s, "ada")
	step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "i", home)
	if err != nil {
		t.Fatal(err)
	}
	if step.Grant.Cookie != "" || step.Grant.RefreshToken == "" {
		t.Fatalf("an app gets %+v", step.Grant)
	}
	if _, err := s.Renew(t.Context(), cookie, "", home); !errors.Is(err, session.ErrInvalid) {
		t.Errorf("a cookie renews: %v", err)
	}
	if _, err := s.Verify(t.Context(), cookie); !errors.Is(err, ErrInvalidToken) {
		t.Errorf("a cookie is a token: %v", err)
	}
	for _, p := range []Proof{{RefreshToken: cookie}, {AccessToken: cookie}} {
		if err := s.Logout(t.Context(), p, home); problem.From(err).Kind != problem.Unauthenticated {
			t.Errorf("a cookie logs out: %v", err)
		}
	}
	for _, one := range []string{step.Grant.RefreshToken, step.Grant.AccessToken, step.Grant.SessionID, "", "wwb_"} {
		if _, err := s.Recognise(t.Context(), one); !errors.Is(err, ErrNoBrowser) {
			t.Errorf("recognised: %v", err)
		}
		if err := s.SignOut(t.Context(), one, desktop); !errors.Is(err, ErrNoBrowser) {
			t.Errorf("signed out: %v", err)
		}
	}
	b := recognised(t, s, cookie)
	// Of two factors, so that a password alone would give an app one token.
	if _, cookie, err = s.Sessions.ReauthenticatedBrowser(t.Context(), adaID, b.Session.ID, b.Session.CookieID, time.Now(), []string{"mfa", "otp", "pwd"}); err != nil {
		t.Fatal(err)
	}
	b = recognised(t, s, cookie)
	tok, err := s.Verify(t.Context(), step.Grant.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	// Neither turns into the other by a step-up.
	for name, f := range map[string]func() (Grant, error){
		"an app as a browser": func() (Grant, error) {
			return s.StepUp(t.Context(), tok, "right", mfa.Answer{Method: byPassword}, desktop)
		},
		"a browser as an app": func() (Grant, error) {
			return s.StepUp(t.Context(), b.Token, "right", mfa.Answer{Method: byPassword}, home)
		},
	} {
		if g, err := f(); !errors.Is(err, revocation.ErrRevoked) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
	recognised(t, s, cookie)
	if _, err := s.Renew(t.Context(), step.Grant.RefreshToken, "", home); err != nil {
		t.Error(err)
	}
}

// A step-up gives a session another cookie, on every replica. The former one is good for nothing
// but to sign out.
func TestAStepUpOfABrowser(t *testing.T) {
	s, p := newBrowserService(t)
	var ahead time.Duration
	s.Now = func() time.Time { return time.Now().Add(ahead) }
	s.Sessions.Now = s.Now
	other := another(s)
	password := mfa.Answer{Method: byPassword}
	check := func(name string, former *Browser, g Grant, err error, amr string) *Browser {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, err := other.Recognise(t.Context(), g.Cookie)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b.Token.SessionID != former.Token.SessionID || b.Token.ID == former.Token.ID || strings.Join(b.Token.AMR, " ") != amr ||
			b.Token.ACR != mfa.Class(b.Token.AMR) || s.Now().Sub(b.Token.AuthTime) > 5*time.Second {
			t.Errorf("%s: it is %+v", name, b.Token)
		}
		return b
	}
	first := browserOf(t, s, "ada")
	b := recognised(t, s, first)
	if _, err := s.StepUp(t.Context(), b.Token, "wrong", password, desktop); !errors.Is(err, directory.ErrInvalidCredentials) {
		t.Errorf("a wrong password: %v", err)
	}
	recognised(t, s, first)
	ahead += 20 * time.Second
	grant, err := s.StepUp(t.Context(), b.Token, "right", password, desktop)
	check("a password once more", b, grant, err, "pwd")
	if _, err := other.Recognise(t.Context(), first); !errors.Is(err, ErrNoBrowser) {
		t.Errorf("the former cookie: %v", err)
	}
	if _, err := other.StepUp(t.Context(), b.Token, "right", password, desktop); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("another step-up with the former cookie: %v", err)
	}
	events, err := s.Audit.Events(t.Context(), store.AuditQuery{Actor: adaID, Action: "step_up", Outcome: audit.OK, Limit: 10})
	if err != nil || len(events) != 1 || events[0].Target != b.Session.ID {
		t.Errorf("the events are %+v, %v", events, err)
	}

	app := enrolled(t, s, p, "ada")
	step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", desktop)
	if err != nil || step.Challenge == nil {
		t.Fatalf("%+v, %v", step, err)
	}
	grant, _, err = s.Complete(t.Context(), step.Challenge.Token, app.next(), desktop)
	b = recognised(t, s, cookieOf(t, grant, err))
	if b.Token.ACR != mfa.TwoFactors {
		t.Errorf("a password and a code: %+v", b.Token)
	}
	ahead += 20 * time.Second
	grant, err = s.StepUp(t.Context(), b.Token, "", app.next(), desktop)
	b = check("a code once more", b, grant, err, "mfa otp pwd")

	// A password alone is refused where it does not suffice, and the session goes on.
	s.Factors.Policy.Always = true
	if _, err := s.StepUp(t.Context(), b.Token, "right", password, desktop); !errors.Is(err, ErrPasswordAlone) {
		t.Errorf("a password alone: %v", err)
	}
	recognised(t, s, grant.Cookie)
	s.Factors.Policy.Always = false
	ahead += 20 * time.Second
	grant, err = s.StepUp(t.Context(), b.Token, "right", password, desktop)
	b = check("a password alone, where it suffices", b, grant, err, "pwd")
	grant, err = s.StepUp(t.Context(), b.Token, "", app.next(), desktop)
	b = check("a code after that", b, grant, err, "mfa otp pwd")

	// A change of factors begins another session, which goes by when the user authenticated.
	began := b
	grant, err = s.RemoveTOTP(t.Context(), b.Token, desktop)
	b = recognised(t, s, cookieOf(t, grant, err))
	if b.Session.ID == began.Session.ID || !b.Token.AuthTime.Equal(began.Token.AuthTime) {
		t.Errorf("after the removal of a factor: %+v", b.Token)
	}
	enrolment, err := s.Factors.BeginTOTP(t.Context(), actor(b.Token, desktop))
	if err != nil {
		t.Fatal(err)
	}
	app.secret = enrolment.Secret
	grant, err = s.ConfirmTOTP(t.Context(), b.Token, app.next().Code, desktop)
	if b = recognised(t, s, cookieOf(t, grant, err)); b.Token.ACR != mfa.TwoFactors {
		t.Errorf("a factor enrolled: %+v", b.Token)
	}
}

// A browser enrols a passkey, signs in and steps up by it alone, and removes it.
func TestABrowserWithAPasskey(t *testing.T) {
	s, _ := newBrowserService(t)
	const origin = "https://login.example.com"
	party, err := passkey.New(passkey.Config{ID: "example.com", Name: "Example", Origins: []string{origin}})
	if err != nil {
		t.Fatal(err)
	}
	s.Factors.Party = party
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	response := func(answer func(json.RawMessage) (json.RawMessage, error), options json.RawMessage, err error) json.RawMessage {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		r, err := answer(options)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	b := recognised(t, s, browserOf(t, s, "ada"))
	options, err := s.Factors.BeginPasskey(t.Context(), actor(b.Token, desktop))
	grant, err := s.ConfirmPasskey(t.Context(), b.Token, "", response(key.Create, options, err), desktop)
	recognised(t, s, cookieOf(t, grant, err))

	options, err = s.Factors.PasskeyLoginOptions(t.Context(), desktop.Address)
	grant, err = s.PasskeyLogin(t.Context(), response(key.Get, options, err), "", desktop)
	b = recognised(t, s, cookieOf(t, grant, err))
	if b.Token.ACR != mfa.TwoFactors || slices.Contains(b.Token.AMR, "pwd") {
		t.Errorf("by a passkey alone: %+v", b.Token)
	}
	options, err = s.StepUpOptions(t.Context(), b.Token)
	grant, err = s.StepUp(t.Context(), b.Token, "", mfa.Answer{Method: mfa.Passkey, Credential: response(key.Get, options, err)}, desktop)
	b = recognised(t, s, cookieOf(t, grant, err))
	factors, err := s.Store.FactorsOfUser(t.Context(), adaID)
	if err != nil || len(factors) != 1 {
		t.Fatalf("the factors are %+v, %v", factors, err)
	}
	grant, err = s.RemovePasskey(t.Context(), b.Token, factors[0].ID, desktop)
	recognised(t, s, cookieOf(t, grant, err))
}

// Of many step-ups with one cookie at once one gives another cookie.
func TestStepUpsOfABrowserAtOnce(t *testing.T) {
	s, _ := newBrowserService(t)
	replicas := []*Service{s, another(s)}
	b := recognised(t, s, browserOf(t, s, "ada"))
	cookies := make(chan string, 10)
	var work sync.WaitGroup
	for i := range cap(cookies) {
		work.Go(func() {
			g, err := replicas[i%2].StepUp(t.Context(), b.Token, "right", mfa.Answer{Method: byPassword}, desktop)
			if err != nil && !errors.Is(err, revocation.ErrRevoked) {
				t.Error(err)
			}
			if err == nil {
				cookies <- g.Cookie
			}
		})
	}
	work.Wait()
	close(cookies)
	if n := len(cookies); n != 1 {
		t.Fatalf("%d have another cookie", n)
	}
	recognised(t, s, <-cookies)
}

// Signing out twice is no error, nor with the former cookie, nor where a request could not finish
// it. The cookie is good no more afterwards, also if the record returns.
func TestSignOut(t *testing.T) {
	s, _ := newBrowserService(t)
	out := func(cookie string) error { return s.SignOut(t.Context(), cookie, desktop) }
	gone := func(name string, b *Browser, cookies ...string) {
		t.Helper()
		for _, cookie := range cookies {
			if _, err := s.Recognise(t.Context(), cookie); !errors.Is(err, ErrNoBrowser) {
				t.Errorf("%s: recognised: %v", name, err)
			}
		}
		if !s.View.SessionRevoked(b.Session.ID) {
			t.Errorf("%s: the log does not have it", name)
		}
	}
	cookie := browserOf(t, s, "ada")
	other := browserOf(t, s, "ada")
	b := recognised(t, s, cookie)
	record, err := s.Sessions.State.Get(t.Context(), state.Key{Kind: session.Kind, Owner: adaID, ID: b.Session.ID})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := out(cookie); err != nil {
			t.Fatal(err)
		}
		gone("signed out", b, cookie)
	}
	events, err := s.Audit.Events(t.Context(), store.AuditQuery{Actor: adaID, Action: "logout", Limit: 10})
	if err != nil || len(events) != 1 || events[0].Target != b.Session.ID {
		t.Errorf("the events are %+v, %v", events, err)
	}
	if _, err := s.Sessions.State.Put(t.Context(), record.Key, record.Value, time.Hour); err != nil {
		t.Fatal(err)
	}
	gone("the record has returned", b, cookie)
	if err := out(cookie); err != nil {
		t.Errorf("the record has returned: %v", err)
	}

	first := browserOf(t, s, "ada")
	b = recognised(t, s, first)
	grant, err := s.StepUp(t.Context(), b.Token, "right", mfa.Answer{Method: byPassword}, desktop)
	second := cookieOf(t, grant, err)
	if err := out(first); err != nil {
		t.Errorf("with the former cookie: %v", err)
	}
	gone("with the former cookie", b, first, second)

	cookie = browserOf(t, s, "ada")
	b = recognised(t, s, cookie)
	if err := s.Sessions.Stop(t.Context(), adaID, b.Session.ID); err != nil {
		t.Fatal(err)
	}
	if err := out(cookie); err != nil {
		t.Errorf("of a session that was stopped: %v", err)
	}
	gone("of a session that was stopped", b, cookie)
	recognised(t, s, other)

	// Where records may return, only the log can say that a session without one is over.
	s.SessionsReturn = true
	if err := out(cookie); err != nil {
		t.Errorf("of one in the log: %v", err)
	}
	if err := s.Sessions.End(t.Context(), adaID, recognised(t, s, other).Session.ID); err != nil {
		t.Fatal(err)
	}
	if err := out(other); !errors.Is(err, ErrNoBrowser) {
		t.Errorf("of one of which nothing is known: %v", err)
	}
	s.SessionsReturn = false
	if err := out(other); err != nil {
		t.Errorf("of one that is over: %v", err)
	}
}

// A guess of a sign-out counts against its address, before it is looked at.
func TestGuessesOfSignOut(t *testing.T) {
	s, _ := newBrowserService(t)
	cookie := browserOf(t, s, "ada")
	limited(s, limittest.New(limit.Config{Rules: limit.Rules{Policies: map[limit.Class]limit.Policy{limit.API: {PerAddress: state.Rate{Burst: 5, Period: time.Hour}}}}}))
	for range 5 {
		if err := s.SignOut(t.Context(), "wwb_guess", foreign); !errors.Is(err, ErrNoBrowser) {
			t.Error(err)
		}
	}
	if err := s.SignOut(t.Context(), cookie, foreign); !errors.Is(err, limit.ErrTooMany) {
		t.Errorf("from an address that has guessed: %v", err)
	}
	if err := s.SignOut(t.Context(), cookie, desktop); err != nil {
		t.Errorf("from another address: %v", err)
	}
}

// A page that keeps itself up to date does not use the session.
func TestWatching(t *testing.T) {
	s, _ := newBrowserService(t)
	now := time.Now()
	s.Now = func() time.Time { return now }
	s.Sessions.Now = s.Now
	cookie := browserOf(t, s, "ada")
	began := recognised(t, s, cookie).Session
	now = now.Add(10 * time.Minute)
	if b, err := s.Watch(t.Context(), cookie); err != nil || !b.Session.RenewedAt.Equal(began.RenewedAt) {
		t.Errorf("got %+v, %v", b, err)
	}
	if got := recognised(t, s, cookie).Session; !got.RenewedAt.Equal(began.RenewedAt) {
		t.Errorf("watching was noted as a use at %v", got.RenewedAt)
	}
	if got := recognised(t, s, cookie).Session; !got.RenewedAt.Equal(now) {
		t.Errorf("a use was noted at %v, not at %v", got.RenewedAt, now)
	}
	if _, err := s.Watch(t.Context(), "wwb_guess"); !errors.Is(err, ErrNoBrowser) {
		t.Errorf("a guess: %v", err)
	}
}

// Two replicas recognise a session, note its use and step up, until one of them signs out. Nobody
// is refused otherwise than as somebody whose session has ended. When it has been answered, no
// cookie that the session ever had is recognised, and none is given any more.
func TestASignOutBesideTheRest(t *testing.T) {
	s, _ := newBrowserService(t)
	var ahead time.Duration
	s.Now = func() time.Time { return time.Now().Add(ahead) }
	s.Sessions.Now = s.Now
	replicas := []*Service{s, another(s)}
	for round := range 8 {
		cookie := browserOf(t, s, "ada")
		b := recognised(t, s, cookie)
		ahead += 6 * time.Minute // its use is to be noted
		var mu sync.Mutex
		cookies := []string{cookie}
		present := func() string { mu.Lock(); defer mu.Unlock(); return cookies[len(cookies)-1] }
		begin := make(chan struct{})
		var work sync.WaitGroup
		for i, replica := range replicas {
			work.Go(func() {
				<-begin
				for range 5 {
					if _, err := replica.Recognise(t.Context(), present()); err != nil && !errors.Is(err, ErrNoBrowser) {
						t.Error(err)
					}
				}
			})
			work.Go(func() {
				<-begin
				holder, err := replica.Recognise(t.Context(), present())
				for range 3 {
					if err != nil {
						break
					}
					var grant Grant
					if grant, err = replica.StepUp(t.Context(), holder.Token, "right", mfa.Answer{Method: byPassword}, desktop); err != nil {
						break
					}
					mu.Lock()
					cookies = append(cookies, grant.Cookie)
					mu.Unlock()
					holder, err = replica.Recognise(t.Context(), grant.Cookie)
				}
				if err != nil && problem.From(err).Kind != problem.Unauthenticated {
					t.Errorf("replica %d: %v", i, err)
				}
			})
		}
		work.Go(func() {
			<-begin
			time.Sleep(time.Duration(round) * time.Millisecond)
			if round%2 == 0 {
				if err := s.SignOut(t.Context(), present(), desktop); err != nil && !errors.Is(err, ErrNoBrowser) {
					t.Error(err)
				}
			}
			if err := s.EndSession(t.Context(), b.Token, b.Session.ID, desktop); err != nil && !errors.Is(err, errNoSession) {
				t.Error(err)
			}
		})
		close(begin)
		work.Wait()
		for _, one := range cookies {
			for i, replica := range replicas {
				if _, err := replica.Recognise(t.Context(), one); !errors.Is(err, ErrNoBrowser) {
					t.Fatalf("round %d: after the end replica %d recognises a cookie: %v", round, i, err)
				}
			}
		}
		if _, err := s.Sessions.Get(t.Context(), adaID, b.Session.ID); !errors.Is(err, state.ErrNotFound) {
			t.Fatalf("round %d: the session is there: %v", round, err)
		}
	}
}

// The use case is counted by how it ended.
func TestRecognitionsAreCounted(t *testing.T) {
	s, _ := newBrowserService(t)
	recognised(t, s, browserOf(t, s, "ada"))
	_, _ = s.Recognise(t.Context(), "wwb_")
	families, err := s.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "watchword_requests_total" && labels["use"] == "recognise" {
				got[labels["outcome"]] = m.GetCounter().GetValue()
			}
		}
	}
	if len(got) != 2 || got["ok"] != 1 || got["session_ended"] != 1 {
		t.Errorf("counted are %v", got)
	}
}
