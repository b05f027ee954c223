package login

import (
	"cmp"
	"context"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
)

// ErrNoChallenge: there is no login that such a challenge would complete.
var ErrNoChallenge = problem.New(problem.Unauthenticated, "invalid_challenge", "this login has ended or was never begun; log in again")

// A Credential is what a user presents first.
type Credential struct{ Username, Password string }

// A Challenge asks for a second factor.
type Challenge struct {
	ID      string   // for Complete; secret
	Methods []string // by which the user may answer
}

// An Answer is the answer to a Challenge.
type Answer struct{ Method, Code string }

// A Step is what Begin has led to: a Grant, or a Challenge if that is not nil.
type Step struct {
	Grant     Grant
	Challenge *Challenge
}

// A Factor decides who needs a second factor, and checks it.
type Factor interface {
	// Challenge returns what the user has still to answer; nil: nothing.
	Challenge(ctx context.Context, user store.User, client Client) (*Challenge, error)
	// Begun returns the user whose login a challenge would complete, or ErrNoChallenge. It
	// spends nothing.
	Begun(ctx context.Context, challenge string) (store.User, error)
	// Check spends a challenge with its answer and returns the user whose login it
	// completes, as the user was when the login began. A wrong answer is an error with
	// the reason for the client. Check says of the attempt whether the answer was right,
	// before anything else depends on it; an answer that is not accepted is refused as a
	// wrong one.
	Check(ctx context.Context, attempt *limit.Attempt, challenge string, answer Answer, client Client) (store.User, error)
}

// Begin checks a credential. A user without a second factor is logged in. The audience is
// the one that the session's access tokens are for; empty: the default.
func (s *Service) Begin(ctx context.Context, c Credential, audience string, client Client) (Step, error) {
	step, err := s.begin(ctx, c, audience, client)
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
	signer, err := s.Keys.Signer()
	if err != nil {
		return Step{}, err
	}
	attempt, err := s.Limits.Attempt(ctx, limit.Login, client.Address, limit.Account(c.Username))
	if err != nil {
		s.refused(store.User{}, err, client)
		return Step{}, err
	}
	user, err := s.People.Authenticate(onBehalfOf(ctx, c.Username, client), attempt, c.Username, c.Password)
	if err != nil {
		s.refused(user, err, client)
		return Step{}, err
	}
	if s.Factor != nil {
		challenge, err := s.Factor.Challenge(ctx, user, client)
		if err != nil || challenge != nil {
			return Step{Challenge: challenge}, err
		}
	}
	if err := attempt.Succeeded(ctx); err != nil {
		return Step{}, err
	}
	grant, err := s.enter(ctx, signer, user, audience, client)
	return Step{Grant: grant}, err
}

// Complete finishes a login that Begin has answered with a challenge. The audience is said
// again, as in Begin.
func (s *Service) Complete(ctx context.Context, challenge string, answer Answer, audience string, client Client) (Grant, error) {
	grant, err := s.complete(ctx, challenge, answer, audience, client)
	s.metrics.count("login_complete", err)
	return grant, err
}

func (s *Service) complete(ctx context.Context, challenge string, answer Answer, audience string, client Client) (Grant, error) {
	if s.Factor == nil {
		return Grant{}, ErrNoChallenge
	}
	if _, err := s.audience(audience); err != nil {
		return Grant{}, err
	}
	signer, err := s.Keys.Signer()
	if err != nil {
		return Grant{}, err
	}
	user, err := s.Factor.Begun(ctx, challenge)
	if err != nil {
		return Grant{}, cmp.Or(s.Limits.Count(ctx, limit.MFA, client.Address, ""), err)
	}
	attempt, err := s.Limits.Attempt(ctx, limit.MFA, client.Address, limit.Account(user.NameKey))
	if err != nil {
		return Grant{}, err
	}
	if user, err = s.Factor.Check(ctx, attempt, challenge, answer, client); err != nil {
		return Grant{}, err
	}
	if err := attempt.Succeeded(ctx); err != nil {
		return Grant{}, err
	}
	return s.enter(ctx, signer, user, audience, client)
}

// enter begins a session for a user who has presented all that is needed. The access token
// is signed before the session is written, so that no session begins for claims that are
// too long for a token.
func (s *Service) enter(ctx context.Context, signer *token.Signer, user store.User, audience string, client Client) (Grant, error) {
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
	var grant Grant
	sess, refresh, err := s.start(ctx, user, client, func(sess *session.Session) error {
		sess.Audience = audience
		if grant, err = s.grant(signer, user, claims, *sess, audience); err != nil {
			return problem.From(err)
		}
		return nil
	})
	if err != nil {
		return Grant{}, err
	}
	grant.RefreshToken = refresh
	s.Audit.RecordOwn(ctx, store.AuditEvent{Actor: user.ID, Action: "login", Target: sess.ID, Outcome: audit.OK, Address: client.Address})
	return grant, nil
}

// start begins a session. Sessions beyond the user's bound are stopped and their tokens
// revoked, also if the client hangs up meanwhile.
func (s *Service) start(ctx context.Context, user store.User, client Client, issue func(*session.Session) error) (session.Session, string, error) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	sess, refresh, ended, err := s.Sessions.Start(ctx, user.ID, user.Epoch, client.Address, client.UserAgent, issue)
	if err != nil {
		return session.Session{}, "", unavailable(err)
	}
	if len(ended) == 0 {
		return sess, refresh, nil
	}
	if _, err := s.revokeStopped(ctx, "max_per_user", ended); err != nil {
		s.Sessions.Undo(ctx, user.ID, sess.ID)
		return session.Session{}, "", err
	}
	return sess, refresh, nil
}
