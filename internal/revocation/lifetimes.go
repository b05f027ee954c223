package revocation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// Lifetimes are how long what can be revoked lives at most.
type Lifetimes struct {
	Token   time.Duration // an access token's, leeway included
	Session time.Duration // a session's
}

// settingLongest is the name of the setting with the longest lifetimes that any replica
// was ever configured to give: a token's and a session's.
const settingLongest = "longest_lives"

// setting is the part of store.Settings that is needed here.
type setting interface {
	Setting(ctx context.Context, name string) (string, error)
}

// Promise notes in the store how long what this process issues may live, unless something
// longer was noted before. A replica calls it before it issues anything. From then on
// every replica keeps the entries of the log for as long, also one that is configured to
// issue for a shorter time.
//
// A note is never deleted. At worst, entries of the log are kept for longer than they are
// needed.
func Promise(ctx context.Context, s store.Store, lifetimes Lifetimes) error {
	err := s.Update(ctx, func(r store.Records) error {
		known, err := noted(ctx, r)
		if err != nil {
			return err
		}
		longest := known.or(lifetimes)
		if longest == known {
			return nil
		}
		return r.PutSetting(ctx, settingLongest, longest.Token.String()+" "+longest.Session.String())
	})
	if err != nil {
		return fmt.Errorf("revocation: longest lifetimes: %w", err)
	}
	return nil
}

// Longest returns the longest lifetimes that any replica gives or ever gave. In a
// transaction they stay the longest until it ends.
func (l *Log) Longest(ctx context.Context, s setting) (Lifetimes, error) {
	known, err := noted(ctx, s)
	if err != nil {
		return Lifetimes{}, ErrNotRecorded.Because(err)
	}
	return known.or(l.Lifetimes), nil
}

// or returns the longer of each.
func (l Lifetimes) or(other Lifetimes) Lifetimes {
	return Lifetimes{Token: max(l.Token, other.Token), Session: max(l.Session, other.Session)}
}

// noted reads the setting. It returns zero if nothing was noted.
func noted(ctx context.Context, s setting) (longest Lifetimes, err error) {
	text, err := s.Setting(ctx, settingLongest)
	if errors.Is(err, store.ErrNotFound) {
		return Lifetimes{}, nil
	}
	if err != nil {
		return Lifetimes{}, err
	}
	token, session, _ := strings.Cut(text, " ")
	var wrong error
	longest.Token, err = time.ParseDuration(token)
	longest.Session, wrong = time.ParseDuration(session)
	if err = errors.Join(err, wrong); err != nil {
		return Lifetimes{}, fmt.Errorf("the setting %s is %q: %w", settingLongest, text, err)
	}
	return longest, nil
}
