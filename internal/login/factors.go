package login

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// errFactorsChanged: the factors have been changed, but no new session has begun.
var errFactorsChanged = problem.New(problem.Unavailable, "factors_changed", "your second factors have been changed, and all sessions have ended; log in again")

// Each of the following changes what a token's holder authenticates with, ends all their sessions,
// revokes all their tokens, and begins the session that it returns. Every other session of the user
// has ended when it returns, also one that has begun meanwhile with the factors of before.

// ConfirmTOTP is mfa.Service.ConfirmTOTP.
func (s *Service) ConfirmTOTP(ctx context.Context, by *accesstoken.Token, code string, client Client) (Grant, error) {
	return s.changed(ctx, by, client, func(a directory.Actor) (store.User, []string, error) {
		return s.Factors.ConfirmTOTP(ctx, a, by.Epoch, code)
	})
}

// RemoveTOTP is mfa.Service.RemoveTOTP.
func (s *Service) RemoveTOTP(ctx context.Context, by *accesstoken.Token, client Client) (Grant, error) {
	return s.changed(ctx, by, client, func(a directory.Actor) (store.User, []string, error) {
		user, err := s.Factors.RemoveTOTP(ctx, a, by.Epoch)
		return user, nil, err
	})
}

// ConfirmPasskey is mfa.Service.ConfirmPasskey.
func (s *Service) ConfirmPasskey(ctx context.Context, by *accesstoken.Token, name string, response json.RawMessage, client Client) (Grant, error) {
	return s.changed(ctx, by, client, func(a directory.Actor) (store.User, []string, error) {
		return s.Factors.ConfirmPasskey(ctx, a, by.Epoch, name, response)
	})
}

// RemovePasskey is mfa.Service.RemovePasskey.
func (s *Service) RemovePasskey(ctx context.Context, by *accesstoken.Token, id string, client Client) (Grant, error) {
	return s.changed(ctx, by, client, func(a directory.Actor) (store.User, []string, error) {
		user, err := s.Factors.RemovePasskey(ctx, a, by.Epoch, id)
		return user, nil, err
	})
}

func (s *Service) changed(ctx context.Context, by *accesstoken.Token, client Client, change func(directory.Actor) (store.User, []string, error)) (Grant, error) {
	signer, err := s.signer(client)
	if err != nil {
		return Grant{}, err
	}
	user, methods, err := change(actor(by, client))
	if err != nil {
		return Grant{}, err
	}
	// For the API, and authenticated when the token was.
	grant, err := s.enter(ctx, signer, user, entry{audience: s.Issuer, methods: mfa.Methods(by.AMR, methods...), at: by.AuthTime}, client)
	if err != nil {
		return Grant{}, errFactorsChanged.Because(err)
	}
	return grant, nil
}

// byPassword is the method of a StepUp by password.
const byPassword = "password"

// StepUp authenticates the holder of a token once more, by password or by a second factor, in the
// session that they have. A second factor, and a password where the session began with no more,
// make the session fresh; a password in a session of two factors makes one token that says no more
// than that. The Grant has an access token that says so, and no refresh token: the
// session goes on with the one that it has.
//
// A browser's session goes on with another cookie, which the Grant has; the former one is good
// no more (see session.Store.RecogniseCookie). It must be the holder's present one: of several
// step-ups with one cookie one succeeds, and the others are refused as those of a session that
// has ended. A password in a session of two factors makes the session one of a password alone,
// or is refused with ErrPasswordAlone.
func (s *Service) StepUp(ctx context.Context, by *accesstoken.Token, plain string, answer mfa.Answer, client Client) (Grant, error) {
	grant, err := s.stepUp(ctx, by, plain, answer, client)
	s.metrics.count("step_up", err)
	outcome, detail := audit.OK, answer.Method
	if err != nil {
		outcome, detail = audit.Denied, problem.From(err).Code
	}
	s.Audit.RecordOwn(ctx, store.AuditEvent{Actor: by.Subject, Action: "step_up", Target: by.SessionID, Outcome: outcome, Address: client.Address, Detail: detail})
	return grant, err
}

func (s *Service) stepUp(ctx context.Context, by *accesstoken.Token, plain string, answer mfa.Answer, client Client) (Grant, error) {
	signer, err := s.signer(client)
	if err != nil {
		return Grant{}, err
	}
	user, err := s.userOfSession(ctx, by)
	if err != nil {
		return Grant{}, err
	}
	methods := []string{"pwd"}
	if answer.Method == byPassword {
		err = s.presentPassword(ctx, user, plain, client)
	} else {
		methods, err = s.Factors.StepUp(ctx, user, by.SessionID, answer, client.Address)
	}
	if err != nil {
		return Grant{}, err
	}
	sess, err := s.Sessions.Get(ctx, user.ID, by.SessionID)
	if err == nil && (sess.Ended || sess.Browser != client.Browser) {
		err = session.ErrInvalid
	}
	// A password alone does not make a session fresh that two factors have begun: only the token
	// says so, and that it was a password.
	alone := answer.Method == byPassword && mfa.Class(sess.AMR) == mfa.TwoFactors
	var claims map[string]string
	var cookie string
	switch all := mfa.Methods(by.AMR, methods...); {
	case err != nil:
	case client.Browser && alone: // or the session, of which there is no token
		sess, cookie, err = s.anotherCookie(ctx, by, sess, methods)
		if errors.Is(err, errFactorNeeded) {
			err = ErrPasswordAlone.Because(err)
		}
	case client.Browser:
		sess, cookie, err = s.anotherCookie(ctx, by, sess, all)
	default:
		if !alone {
			sess, err = s.Sessions.Reauthenticated(ctx, user.ID, by.SessionID, s.Now(), all)
		}
		if err == nil {
			user, claims, err = s.entitled(ctx, sess)
		}
	}
	if errors.Is(err, session.ErrInvalid) || errors.Is(err, state.ErrNotFound) {
		return Grant{}, revocation.ErrRevoked
	}
	if err != nil {
		return Grant{}, unavailable(err)
	}
	if client.Browser {
		return s.browserGrant(sess, cookie), nil
	}
	if alone {
		sess.AMR, sess.AuthTime = methods, s.Now()
	}
	return s.grant(ctx, signer, user, claims, sess, s.audienceOf(by))
}

// userOfSession returns the user of a token's session.
func (s *Service) userOfSession(ctx context.Context, by *accesstoken.Token) (store.User, error) {
	user, err := s.Store.User(ctx, by.Subject)
	if errors.Is(err, store.ErrNotFound) || err == nil && (user.Disabled || by.Epoch < user.SessionEpoch) {
		return store.User{}, revocation.ErrRevoked
	}
	if err != nil {
		return store.User{}, unavailable(err)
	}
	return user, nil
}

// presentPassword checks the password of the user of a session.
func (s *Service) presentPassword(ctx context.Context, user store.User, plain string, client Client) error {
	attempt, err := s.Limits.Attempt(ctx, limit.Login, client.Address, limit.Account(user.NameKey))
	if err != nil {
		return err
	}
	found, err := s.People.Authenticate(onBehalfOf(ctx, user.Username, client), attempt, user.Username, plain)
	if err != nil {
		return err
	}
	if found.ID != user.ID || found.SessionEpoch != user.SessionEpoch {
		return revocation.ErrRevoked
	}
	return attempt.Succeeded(ctx)
}

// audienceOf returns the audience that gives a token like this one.
func (s *Service) audienceOf(t *accesstoken.Token) string {
	if len(t.Audience) == 1 {
		return t.Audience[0]
	}
	return ""
}

// StepUpOptions is mfa.Service.StepUpOptions for the holder of a token.
func (s *Service) StepUpOptions(ctx context.Context, by *accesstoken.Token) (json.RawMessage, error) {
	user, err := s.userOfSession(ctx, by)
	if err != nil {
		return nil, err
	}
	return s.Factors.StepUpOptions(ctx, user, by.SessionID)
}
