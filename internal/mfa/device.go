package mfa

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// device is the record of a device that needs no second factor for some time. Whatever ends the
// user's sessions, as a changed password or factor does, ends it too.
type device struct {
	SessionEpoch int64     `json:"session_epoch"`
	Since        time.Time `json:"since"` // so that it ends earlier if RememberDevice has become less
}

// remember makes a device_token.
func (s *Service) remember(ctx context.Context, user store.User) (string, error) {
	token, err := s.newToken(user.ID)
	if err != nil {
		return "", err
	}
	value, err := json.Marshal(device{user.SessionEpoch, s.Now()})
	if err != nil {
		return "", err
	}
	_, err = s.State.Create(ctx, state.Key{Kind: kindDevice, Owner: user.ID, ID: digest(token)}, value, s.RememberDevice)
	return token, unavailable(err)
}

// remembers reports whether a device_token is the user's and still good.
func (s *Service) remembers(ctx context.Context, user store.User, token string) (bool, error) {
	if s.RememberDevice == 0 || ownerOf(token) != user.ID {
		return false, nil
	}
	rec, err := s.State.Get(ctx, state.Key{Kind: kindDevice, Owner: user.ID, ID: digest(token)})
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnreadable) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	var d device
	return json.Unmarshal(rec.Value, &d) == nil && d.SessionEpoch == user.SessionEpoch && s.Now().Sub(d.Since) < s.RememberDevice, nil
}
