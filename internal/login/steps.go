package login

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/trace"
)

// A Credential is what a user presents first. Device is the device_token that the client has;
// empty: none.
type Credential struct{ Username, Password, Device string }

// A Step is what Begin has led to: a Grant, or a Challenge if that is not nil.
type Step struct {
	Grant     Grant
	Challenge *mfa.Challenge
}

// Begin checks a credential. A user without a second factor is logged in. The audience is
// the one that the session's access tokens are for; empty: the default.
func (s *Service) Begin(ctx context.Context, c Credential, audience string, client Client) (Step, error) {
	ctx, t := trace.Start(ctx, "log in")
	step, err := s.begin(ctx, c, audience, client)
	t.End(err)
	if err == nil && step.Challenge != nil {
		s.metrics.countAs("login", "challenge")
	} else {
		s.metrics.count("login", err)
	}
	return step, err
}

func (s *Service) begin(ctx context.Context, c Credential, audience string, client Client) (Step, error) {
	if _, err := s.audience(audience); err != nil {
		return Step{}, err
	}
	// The key comes first: a password costs 24 ms and a session a write.
	signer, err := s.signer(client)
	if err != nil {
		return Step{}, err
	}
	attempt, err := s.Limits.Attempt(ctx, limit.Login, client.Address, limit.Account(c.Username))
	if err != nil {
		s.refused(ctx, store.User{}, err, client)
		return Step{}, err
	}
	user, err := s.People.Authenticate(onBehalfOf(ctx, c.Username, client), attempt, c.Username, c.Password)
	if err != nil {
		s.refused(ctx, user, err, client)
		return Step{}, err
	}
	challenge, remembered, err := s.Factors.Begin(ctx, user, audience, c.Device)
	if err != nil || challenge != nil {
		return Step{Challenge: challenge}, err
	}
	if err := attempt.Succeeded(ctx); err != nil {
		return Step{}, err
	}
	grant, err := s.enter(ctx, signer, user, entry{audience: audience, methods: []string{"pwd"}, remembered: remembered}, client)
	return Step{Grant: grant}, err
}

// Complete finishes a login that Begin has answered with a challenge.
func (s *Service) Complete(ctx context.Context, token string, answer mfa.Answer, client Client) (Grant, mfa.Done, error) {
	ctx, t := trace.Start(ctx, "finish a login")
	grant, done, err := s.complete(ctx, token, answer, client)
	t.End(err)
	s.metrics.count("login_complete", err)
	return grant, done, err
}

func (s *Service) complete(ctx context.Context, token string, answer mfa.Answer, client Client) (Grant, mfa.Done, error) {
	signer, err := s.signer(client)
	if err != nil {
		return Grant{}, mfa.Done{}, err
	}
	done, err := s.Factors.Complete(ctx, token, answer, client.Address)
	if err != nil {
		s.refused(ctx, done.User, err, client)
		return Grant{}, mfa.Done{}, err
	}
	grant, err := s.enter(ctx, signer, done.User, entry{audience: done.Audience, methods: done.Methods}, client)
	return grant, done, err
}

// PasskeyLogin logs a user in by passkey alone, with what a browser has returned for
// mfa.Service.PasskeyLoginOptions. The audience is as in Begin.
func (s *Service) PasskeyLogin(ctx context.Context, response json.RawMessage, audience string, client Client) (Grant, error) {
	ctx, t := trace.Start(ctx, "log in by passkey")
	grant, err := s.passkeyLogin(ctx, response, audience, client)
	t.End(err)
	s.metrics.count("login_passkey", err)
	return grant, err
}

func (s *Service) passkeyLogin(ctx context.Context, response json.RawMessage, audience string, client Client) (Grant, error) {
	if _, err := s.audience(audience); err != nil {
		return Grant{}, err
	}
	signer, err := s.signer(client)
	if err != nil {
		return Grant{}, err
	}
	done, err := s.Factors.PasskeyLogin(ctx, response, client.Address)
	if err != nil {
		s.refused(ctx, store.User{}, err, client)
		return Grant{}, err
	}
	return s.enter(ctx, signer, done.User, entry{audience: audience, methods: done.Methods}, client)
}

// An entry is how a session begins.
type entry struct {
	audience string
	methods  []string  // amr
	at       time.Time // of the authentication; zero: now
	// remembered: the device was, and no second factor was asked for.
	remembered bool
}

// enter begins a session for a user who has presented all that is needed. The access token
// is signed before the session is written, so that no session begins for claims that are
// too long for a token. A browser's session is for this service's own API.
func (s *Service) enter(ctx context.Context, signer *token.Signer, user store.User, e entry, client Client) (Grant, error) {
	if client.Browser {
		e.audience = s.Issuer
	}
	if err := s.within(ctx, &s.begun, errLoginsTooFast, user.ID); err != nil {
		return Grant{}, err
	}
	user, err := s.atFloor(ctx, user)
	if err != nil {
		return Grant{}, err
	}
	claims, err := s.People.ClaimsOf(ctx, user.ID)
	if err != nil {
		return Grant{}, unavailable(err)
	}
	if !s.Factors.Suffices(e.methods, e.remembered, claims) { // as after a claim that was given meanwhile
		return Grant{}, errFactorNeeded
	}
	var grant Grant
	sess, secret, err := s.start(ctx, user, client, func(sess *session.Session) error {
		sess.Audience, sess.AMR, sess.AuthTime, sess.Remembered = e.audience, e.methods, e.at, e.remembered
		if e.at.IsZero() {
			sess.AuthTime = sess.CreatedAt
		}
		if client.Browser {
			return nil
		}
		if grant, err = s.grant(ctx, signer, user, claims, *sess, e.audience); err != nil {
			return problem.From(err)
		}
		return nil
	})
	if err != nil {
		return Grant{}, err
	}
	if client.Browser {
		grant = s.browserGrant(sess, secret)
	} else {
		grant.RefreshToken = secret
	}
	s.Audit.RecordOwn(ctx, store.AuditEvent{Actor: user.ID, Action: "login", Target: sess.ID, Outcome: audit.OK, Address: client.Address, Detail: strings.Join(e.methods, " ")})
	return grant, nil
}

// start begins a session, and returns it with its refresh token or cookie. Sessions beyond the user's bound are stopped and their tokens
// revoked, also if the client hangs up meanwhile.
func (s *Service) start(ctx context.Context, user store.User, client Client, issue func(*session.Session) error) (session.Session, string, error) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	begin := s.Sessions.Start
	if client.Browser {
		begin = s.Sessions.StartBrowser
	}
	starting, t := trace.Start(ctx, "begin a session")
	sess, secret, ended, err := begin(starting, user.ID, user.Epoch, client.Address, client.UserAgent, issue)
	t.End(err)
	if err != nil {
		return session.Session{}, "", unavailable(err)
	}
	if len(ended) == 0 {
		return sess, secret, nil
	}
	if _, err := s.revokeStopped(ctx, "max_per_user", ended); err != nil {
		s.Sessions.Undo(ctx, user.ID, sess.ID)
		return session.Session{}, "", err
	}
	return sess, secret, nil
}
