package mfa

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// The kinds of records in the state. Each kind of secret has its own, so that none is good for
// another purpose.
const (
	kindToken          = "mfa_token"                // a login that waits for its second step
	kindPendingTOTP    = "mfa_pending_secret"       // a secret that is not confirmed yet
	kindPendingCodes   = "mfa_pending_backup_codes" // the hashes of codes that are not confirmed yet
	kindPendingPasskey = "mfa_pending_passkey"      // the ceremony of a passkey that is to be enrolled
	kindPasskeyLogin   = "passkey_login"            // the ceremony of a login by passkey alone
	kindStepUp         = "passkey_step_up"          // the ceremony of a session's further authentication
	kindDevice         = "mfa_device"               // a device that needs no second factor for some time
)

// pending is the ID of the records of which a user has at most one.
const pending = "pending"

// A Challenge asks a user who has presented the right password for more.
type Challenge struct {
	Token   string   // the mfa_token; secret
	Methods []string // by which the user may answer
	// Enrol are the methods of which the user has to enrol one to log in. Then Methods is
	// empty.
	Enrol     []string
	ExpiresIn time.Duration
}

// waiting is a login that waits for its second step.
type waiting struct {
	// SessionEpoch is the user's when the password was checked. Whatever has ended the
	// user's sessions since has ended this login, too.
	SessionEpoch int64 `json:"session_epoch"`
	// Until is when it ends, however often its record is written anew meanwhile.
	Until    time.Time `json:"until"`
	Audience string    `json:"audience,omitempty"`
	Wrong    int       `json:"wrong,omitempty"` // codes
	Enrol    bool      `json:"enrol,omitempty"`
	Ceremony []byte    `json:"ceremony,omitempty"` // of a passkey; a later one replaces it
}

// A login is one that waits, as it was read.
type login struct {
	waiting
	key     state.Key
	version int64
	user    store.User // as of now
}

// Begin returns what a user has still to present who has presented the right password; nil:
// nothing. The device is the device_token that the client has, if it has one; remembered reports
// that nothing more is asked for because of it. The audience is given back by Complete.
func (s *Service) Begin(ctx context.Context, user store.User, audience, device string) (c *Challenge, remembered bool, err error) {
	if s.Policy.Never {
		return nil, false, nil
	}
	f, err := s.factorsOf(ctx, s.Store, user.ID)
	if err != nil {
		return nil, false, unavailable(err)
	}
	c = &Challenge{Methods: []string{}, Enrol: []string{}, ExpiresIn: TokenFor}
	if f.enrolled() {
		if remembered, err = s.remembers(ctx, user, device); err != nil || remembered {
			return nil, remembered, err
		}
		if c.Methods = s.methods(f); len(c.Methods) == 0 {
			return nil, false, errNoPasskeys
		}
	} else {
		if must, err := s.must(ctx, user.ID); err != nil || !must {
			return nil, false, unavailable(err)
		}
		if s.Box == nil {
			return nil, false, errNoStorageKey
		}
		c.Enrol = append(c.Enrol, TOTP)
		if s.Party != nil {
			c.Enrol = append(c.Enrol, Passkey)
		}
		c.ExpiresIn = PendingFor
	}
	value, err := json.Marshal(waiting{SessionEpoch: user.SessionEpoch, Until: s.Now().Add(c.ExpiresIn), Audience: audience, Enrol: len(c.Enrol) > 0})
	if err != nil {
		return nil, false, err
	}
	if c.Token, err = s.newToken(user.ID); err != nil {
		return nil, false, err
	}
	if _, err := s.State.Create(ctx, state.Key{Kind: kindToken, Owner: user.ID, ID: digest(c.Token)}, value, c.ExpiresIn); err != nil {
		return nil, false, unavailable(err)
	}
	return c, false, nil
}

// begun returns the login that waits for an answer with the token, or ErrInvalidToken. It
// spends nothing.
func (s *Service) begun(ctx context.Context, token string) (*login, error) {
	owner := ownerOf(token)
	if owner == "" {
		return nil, ErrInvalidToken
	}
	l := &login{key: state.Key{Kind: kindToken, Owner: owner, ID: digest(token)}}
	if err := s.reread(ctx, l); err != nil {
		return nil, err
	}
	var err error
	l.user, err = s.Store.User(ctx, owner)
	if errors.Is(err, store.ErrNotFound) || err == nil && (l.user.Disabled || l.user.SessionEpoch != l.SessionEpoch) {
		return nil, ErrInvalidToken
	}
	return l, unavailable(err)
}

// reread reads the login's record.
func (s *Service) reread(ctx context.Context, l *login) error {
	rec, err := s.State.Get(ctx, l.key)
	l.version = rec.Version
	l.waiting, err = s.decode(rec, err)
	return err
}

// decode returns the login of a record as it was read, or ErrInvalidToken if that has ended.
func (s *Service) decode(rec state.Record, err error) (w waiting, _ error) {
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnreadable) {
		return w, ErrInvalidToken.Because(err)
	}
	if err != nil {
		return w, unavailable(err)
	}
	if err := json.Unmarshal(rec.Value, &w); err != nil || w.Wrong >= MaxWrong || !s.Now().Before(w.Until) {
		return w, ErrInvalidToken.Because(err)
	}
	return w, nil
}

// change replaces the login's record by what f makes of it. It returns ErrInvalidToken if the
// login has ended meanwhile.
func (s *Service) change(ctx context.Context, l *login, f func(*waiting)) error {
	for {
		next := l.waiting
		f(&next)
		value, err := json.Marshal(next)
		if err != nil {
			return err
		}
		version, err := s.State.Swap(ctx, l.key, l.version, value, max(l.Until.Sub(s.Now()), time.Second))
		if err == nil {
			l.waiting, l.version = next, version
			return nil
		}
		if !errors.Is(err, state.ErrChanged) {
			return unavailable(err)
		}
		if err := s.reread(ctx, l); err != nil {
			return err
		}
	}
}

// wrong counts a wrong code. It returns ErrInvalidCode, or ErrInvalidToken if the login has
// ended, as after MaxWrong of them. The answer to a code is believed only after this, or after
// the login's record was taken: of many codes at the same moment no more are of use than one
// after the other.
func (s *Service) wrong(ctx context.Context, l *login) error {
	if err := s.change(ctx, l, func(w *waiting) { w.Wrong++ }); err != nil {
		return err
	}
	return ErrInvalidCode
}

// take ends a login that was answered rightly. Of several callers one succeeds; the others get
// ErrInvalidToken.
func (s *Service) take(ctx context.Context, l *login) error {
	_, err := s.decode(s.State.Take(ctx, l.key))
	return err
}

// PasskeyOptions begins the ceremony by which a login that waits is answered with a passkey, and
// returns the options for navigator.credentials.get.
func (s *Service) PasskeyOptions(ctx context.Context, token, address string) (json.RawMessage, error) {
	l, err := s.counting(ctx, token, address)
	if err != nil {
		return nil, err
	}
	f, err := s.factorsOf(ctx, s.Store, l.user.ID)
	if err != nil {
		return nil, unavailable(err)
	}
	if len(f.passkeys) == 0 || s.Party == nil {
		return nil, ErrUnknownMethod
	}
	options, ceremony, err := s.Party.BeginLogin(s.person(l.user, f))
	if err != nil {
		return nil, err
	}
	return options, s.change(ctx, l, func(w *waiting) { w.Ceremony = ceremony })
}

// EnrolTOTP begins to enrol TOTP in the course of a login.
func (s *Service) EnrolTOTP(ctx context.Context, token, address string) (TOTPEnrolment, error) {
	l, err := s.counting(ctx, token, address)
	if err != nil {
		return TOTPEnrolment{}, err
	}
	if !l.Enrol {
		return TOTPEnrolment{}, ErrUnknownMethod
	}
	return s.pendTOTP(ctx, l.user, l.key.ID)
}

// EnrollingTOTP returns once more what EnrolTOTP has begun last with the token.
func (s *Service) EnrollingTOTP(ctx context.Context, token, address string) (TOTPEnrolment, error) {
	l, err := s.counting(ctx, token, address)
	if err != nil {
		return TOTPEnrolment{}, err
	}
	if !l.Enrol {
		return TOTPEnrolment{}, ErrUnknownMethod
	}
	secret, rec, err := s.pended(ctx, kindPendingTOTP, l.user.ID, l.key.ID)
	if err != nil {
		return TOTPEnrolment{}, err
	}
	return s.totpEnrolment(l.user, secret, max(rec.Expires.Sub(s.Now()), 0).Truncate(time.Second))
}

// EnrolPasskey begins to enrol a passkey in the course of a login, and returns the options for
// navigator.credentials.create.
func (s *Service) EnrolPasskey(ctx context.Context, token, address string) (json.RawMessage, error) {
	l, err := s.counting(ctx, token, address)
	if err != nil {
		return nil, err
	}
	if !l.Enrol || s.Party == nil {
		return nil, ErrUnknownMethod
	}
	options, ceremony, err := s.Party.BeginRegistration(s.person(l.user, factors{}))
	if err != nil {
		return nil, err
	}
	return options, s.change(ctx, l, func(w *waiting) { w.Ceremony = ceremony })
}
