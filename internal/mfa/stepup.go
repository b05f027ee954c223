package mfa

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// StepUp checks what the user of a session presents once more, and returns the methods.
func (s *Service) StepUp(ctx context.Context, user store.User, sessionID string, a Answer, address string) (methods []string, err error) {
	defer func() { s.counted(a.Method, err) }()
	if err := a.normal(); err != nil {
		return nil, err
	}
	f, err := s.factorsOf(ctx, s.Store, user.ID)
	if err != nil {
		return nil, unavailable(err)
	}
	key := state.Key{Kind: kindStepUp, Owner: user.ID, ID: sessionID}
	var ceremony state.Record
	if a.Method == Passkey {
		ceremony, err = s.State.Get(ctx, key)
		if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnreadable) {
			return nil, errNothingPending
		}
		if err != nil {
			return nil, unavailable(err)
		}
	}
	attempt, err := s.Limits.Attempt(ctx, limit.MFA, address, limit.Account(user.NameKey))
	if err != nil {
		return nil, err
	}
	p, err := s.present(ctx, attempt, f, user, a, ceremony.Value, "")
	if err != nil {
		return nil, err
	}
	if a.Method == Passkey {
		if err := s.takeCeremony(ctx, ceremony); err != nil {
			return nil, err
		}
	}
	if err := p.spend(ctx); err != nil {
		return nil, unavailable(err)
	}
	return p.methods, attempt.Succeeded(ctx)
}

// takeCeremony ends a ceremony that was answered, as it was read. Of several callers one
// succeeds. Those who find another one begun in its place end that, too.
func (s *Service) takeCeremony(ctx context.Context, read state.Record) error {
	taken, err := s.State.Take(ctx, read.Key)
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnreadable) || err == nil && taken.Version != read.Version {
		return passkey.ErrRefused.Because(err)
	}
	return unavailable(err)
}

// StepUpOptions begins the ceremony by which the user of a session authenticates once more with
// a passkey.
func (s *Service) StepUpOptions(ctx context.Context, user store.User, sessionID string) (json.RawMessage, error) {
	f, err := s.factorsOf(ctx, s.Store, user.ID)
	if err != nil {
		return nil, unavailable(err)
	}
	if len(f.passkeys) == 0 || s.Party == nil {
		return nil, ErrUnknownMethod
	}
	options, ceremony, err := s.Party.BeginLogin(s.person(user, f))
	if err != nil {
		return nil, err
	}
	_, err = s.State.Put(ctx, state.Key{Kind: kindStepUp, Owner: user.ID, ID: sessionID}, ceremony, TokenFor)
	return options, unavailable(err)
}

// PasskeyLoginOptions begins the ceremony of a login by passkey alone, by whatever user.
func (s *Service) PasskeyLoginOptions(ctx context.Context, address string) (json.RawMessage, error) {
	if s.Party == nil {
		return nil, errNoPasskeys
	}
	if err := s.Limits.Count(ctx, limit.Ceremony, address, ""); err != nil {
		return nil, err
	}
	options, ceremony, challenge, err := s.Party.BeginDiscoverable()
	if err != nil {
		return nil, err
	}
	_, err = s.State.Create(ctx, passkeyLogin(challenge), ceremony, TokenFor)
	return options, unavailable(err)
}

func passkeyLogin(challenge []byte) state.Key {
	id := digest(string(challenge))
	return state.Key{Kind: kindPasskeyLogin, Owner: id, ID: id}
}

// PasskeyLogin checks what a browser has returned for PasskeyLoginOptions, and returns its user.
// No password is asked for: the passkey has verified the user.
func (s *Service) PasskeyLogin(ctx context.Context, response json.RawMessage, address string) (done Done, err error) {
	defer func() { s.counted(Passkey, err) }()
	if s.Party == nil {
		return Done{}, errNoPasskeys
	}
	a := Answer{Method: Passkey, Credential: response}
	if err := a.normal(); err != nil {
		return Done{}, err
	}
	if err := s.Limits.Count(ctx, limit.MFA, address, ""); err != nil {
		return Done{}, err
	}
	claimed, err := passkey.Peek(response)
	if err != nil {
		return Done{}, err
	}
	key := passkeyLogin(claimed.Challenge)
	ceremony, err := s.State.Get(ctx, key)
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnreadable) {
		return Done{}, passkey.ErrRefused.Because(err)
	}
	if err != nil {
		return Done{}, unavailable(err)
	}
	user, err := s.Store.User(ctx, claimed.UserHandle)
	if errors.Is(err, store.ErrNotFound) || err == nil && user.Disabled {
		return Done{}, passkey.ErrRefused
	}
	if err != nil {
		return Done{}, unavailable(err)
	}
	f, err := s.factorsOf(ctx, s.Store, user.ID)
	if err != nil {
		return Done{}, unavailable(err)
	}
	credential, proven, err := s.Party.FinishDiscoverable(s.person(user, f), ceremony.Value, response)
	if err == nil || errors.Is(err, passkey.ErrCounter) {
		// With a counter that has not grown, too: a response that comes twice at the same moment
		// is not a copy's. The first has raised the counter, and ended the ceremony before that.
		if err := s.takeCeremony(ctx, ceremony); err != nil {
			return Done{}, err
		}
	}
	if err != nil {
		return Done{}, s.notedCounter(ctx, user, response, err)
	}
	if err := s.spendPasskey(ctx, user, credential, ""); err != nil {
		return Done{}, unavailable(err)
	}
	return Done{User: user, Methods: Methods(passkeyMethods(credential, proven))}, nil
}
