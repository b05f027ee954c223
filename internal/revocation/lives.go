package revocation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// Lives are the longest lives that something which can be taken back is given.
type Lives struct {
	Token   time.Duration // an access token's, leeway included
	Session time.Duration // a session's
}

// settingLives holds the longest lives that any replica ever gave: a token's and a
// session's.
const settingLives = "longest_lives"

// setting is the part of store.Settings that is needed here.
type setting interface {
	Setting(ctx context.Context, name string) (string, error)
}

// Promise notes in the store how long what this process issues may live, unless
// something longer was noted before. A node calls it before it issues anything:
// from then on every replica, also one that is configured to issue for a shorter
// time, keeps what it takes back for as long.
//
// What was noted is never forgotten. It costs no more than lines of the log that
// are kept for longer than they need to be.
func Promise(ctx context.Context, s store.Store, lives Lives) error {
	err := s.Update(ctx, func(r store.Records) error {
		known, err := noted(ctx, r)
		if err != nil {
			return err
		}
		longest := known.or(lives)
		if longest == known {
			return nil
		}
		return r.PutSetting(ctx, settingLives, longest.Token.String()+" "+longest.Session.String())
	})
	if err != nil {
		return fmt.Errorf("revocation: longest lives: %w", err)
	}
	return nil
}

// Longest returns the longest lives that any replica gives or ever gave. In a
// transaction they stay the longest until it ends.
func (l *Log) Longest(ctx context.Context, s setting) (Lives, error) {
	known, err := noted(ctx, s)
	if err != nil {
		return Lives{}, ErrNotRecorded.Because(err)
	}
	return known.or(l.Lives), nil
}

// or takes the longer of each.
func (l Lives) or(other Lives) Lives {
	return Lives{Token: max(l.Token, other.Token), Session: max(l.Session, other.Session)}
}

// noted reads the setting; zero if nothing was noted.
func noted(ctx context.Context, s setting) (lives Lives, err error) {
	text, err := s.Setting(ctx, settingLives)
	if errors.Is(err, store.ErrNotFound) {
		return Lives{}, nil
	}
	if err != nil {
		return Lives{}, err
	}
	token, session, _ := strings.Cut(text, " ")
	var wrong error
	lives.Token, err = time.ParseDuration(token)
	lives.Session, wrong = time.ParseDuration(session)
	if err = errors.Join(err, wrong); err != nil {
		return Lives{}, fmt.Errorf("the setting %s is %q: %w", settingLives, text, err)
	}
	return lives, nil
}
