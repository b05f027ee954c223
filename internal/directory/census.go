package directory

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/store"
)

const (
	// censusSetting is the setting with the last census.
	censusSetting = "password_census"
	// censusEvery is how often the hashes are counted, however they came, which takes a second for a
	// million users, and censusRead how often a replica reads what was counted.
	censusEvery = time.Hour
	censusRead  = 10 * time.Minute
)

// A census is the setting.
type census struct {
	At time.Time `json:"at"`
	password.Census
}

// CountHashes counts how the passwords of all users are hashed, for all replicas, and returns how many
// hashes are another system's. It is called after an import.
func (s *Service) CountHashes(ctx context.Context) (foreign int64, err error) {
	last, err := s.lastCensus(ctx)
	if err != nil {
		return 0, fault(err)
	}
	c, err := s.count(ctx, last)
	return c.Users(), fault(err)
}

// count takes a census and writes it. The key stays.
func (s *Service) count(ctx context.Context, last census) (census, error) {
	found, err := s.Store.PasswordHashes(ctx)
	if err != nil {
		return census{}, err
	}
	next := census{s.Now(), password.Census{Key: last.Key, Foreign: map[string]int64{}}}
	for begins, users := range found {
		if kind := password.Kind(begins); kind != "" {
			next.Foreign[kind] += users
		} else if strings.HasPrefix(begins, "$argon2id") {
			next.Own += users
		}
	}
	if len(next.Key) == 0 {
		next.Key = make([]byte, 32)
		if _, err := io.ReadFull(s.Rand, next.Key); err != nil {
			return census{}, err
		}
	}
	text, err := json.Marshal(next)
	if err != nil {
		return census{}, err
	}
	if err := s.Store.PutSetting(ctx, censusSetting, string(text)); err != nil {
		return census{}, err
	}
	s.Hasher.Pretend(next.Census)
	return next, nil
}

// lastCensus returns the last census, or none.
func (s *Service) lastCensus(ctx context.Context) (last census, err error) {
	text, err := s.Store.Setting(ctx, censusSetting)
	if errors.Is(err, store.ErrNotFound) {
		return census{}, nil
	}
	if err != nil {
		return census{}, err
	}
	if json.Unmarshal([]byte(text), &last) != nil {
		return census{}, nil // not this version's; the next one is
	}
	return last, nil
}

// followCensus takes over the last census, or a new one if that is due.
func (s *Service) followCensus(ctx context.Context) error {
	last, err := s.lastCensus(ctx)
	if err != nil {
		return err
	}
	if s.Now().Sub(last.At) >= censusEvery {
		_, err := s.count(ctx, last)
		return err
	}
	s.Hasher.Pretend(last.Census)
	return nil
}

// FollowCensus makes the hashes of names that nobody has cost what those of users cost
// (password.Census), until ctx ends. It does not matter which replica counts.
func (s *Service) FollowCensus(ctx context.Context) {
	for {
		if err := s.followCensus(ctx); err != nil && ctx.Err() == nil {
			s.Logger.WarnContext(ctx, "it is not known how many passwords are still hashed as another system did it; the next attempt follows", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(censusRead):
		}
	}
}
