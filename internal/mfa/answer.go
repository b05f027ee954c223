package mfa

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// An Answer is what a user presents by a method.
type Answer struct {
	Method     string
	Code       string          // of TOTP, or a backup code
	Credential json.RawMessage // of a passkey: what navigator.credentials returned
	// RememberDevice asks for a device_token.
	RememberDevice bool
}

// normal checks the form of an answer, and brings the code into its normal form. What a credential
// must look like depends on the ceremony, which checks that.
func (a *Answer) normal() (err error) {
	switch a.Method {
	case TOTP:
		a.Code, err = digits(a.Code)
	case BackupCode:
		a.Code, err = backupCode(a.Code)
	case Passkey:
		if len(a.Credential) == 0 {
			return errNoCredential
		}
	default:
		err = ErrUnknownMethod
	}
	return err
}

// Done is a login that nothing more is asked for.
type Done struct {
	User     store.User
	Audience string   // as it was given to Begin
	Methods  []string // amr
	Device   string   // the device_token; empty: the device is not remembered
	// CodesLeft is how many backup codes are left after one was spent; nil: none was.
	CodesLeft *int
}

// counting is begun for a request from an address, which counts whatever token it has.
func (s *Service) counting(ctx context.Context, token, address string) (*login, error) {
	if err := s.Limits.Count(ctx, limit.MFA, address, ""); err != nil {
		return nil, err
	}
	return s.begun(ctx, token)
}

// Complete finishes a login that waits, with the answer to its Challenge. Of several calls with
// one token at most one succeeds, at whichever replicas. After ErrInvalidCode it may be called
// again, up to MaxWrong times.
//
// A code is spent with its first use. After an error of a backend the same call may be made
// again: its code is still accepted with the same token, unless the login had ended already.
func (s *Service) Complete(ctx context.Context, token string, a Answer, address string) (done Done, err error) {
	defer func() { s.counted(a.Method, err) }()
	if err := a.normal(); err != nil {
		return Done{}, err
	}
	l, err := s.begun(ctx, token)
	if errors.Is(err, ErrInvalidToken) {
		if err := s.Limits.Count(ctx, limit.MFA, address, ""); err != nil {
			return Done{}, err
		}
	}
	if err != nil {
		return Done{}, err
	}
	attempt, err := s.Limits.Attempt(ctx, limit.MFA, address, limit.Account(l.user.NameKey))
	if err != nil {
		return Done{}, err
	}
	done = Done{User: l.user, Audience: l.Audience}
	if l.Enrol {
		done.User, done.Methods, err = s.enrolling(ctx, attempt, l, a, address)
	} else {
		done.Methods, done.CodesLeft, err = s.answered(ctx, attempt, l, a)
	}
	if errors.Is(err, ErrInvalidCode) {
		err = s.wrong(ctx, l)
	}
	if err != nil {
		return Done{User: store.User{ID: l.user.ID}}, err
	}
	if err := attempt.Succeeded(ctx); err != nil {
		return Done{}, err
	}
	if a.RememberDevice && s.RememberDevice > 0 {
		done.Device, err = s.remember(ctx, done.User)
	}
	return done, err
}

// answered checks the answer to a login's challenge, spends it, and ends the login. It returns the
// methods, and after a backup code how many are left.
func (s *Service) answered(ctx context.Context, attempt *limit.Attempt, l *login, a Answer) (methods []string, left *int, err error) {
	if a.Method == Passkey && l.Ceremony == nil {
		return nil, nil, errNothingPending
	}
	f, err := s.factorsOf(ctx, s.Store, l.user.ID)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	p, err := s.present(ctx, attempt, f, l.user, a, l.Ceremony, l.key.ID)
	if err != nil {
		return nil, nil, err
	}
	if err := p.spend(ctx); err != nil {
		return nil, nil, unavailable(err)
	}
	return Methods([]string{"pwd"}, p.methods...), p.left, s.take(ctx, l)
}

// A proof is an answer that is right. It counts only after spend has returned nil, which refuses
// one that was spent before.
type proof struct {
	methods []string
	left    *int // backup codes, after spend; nil: it was none
	spend   func(ctx context.Context) error
}

// present checks an answer and says of the attempt whether it was right. by names the login that
// it is for; empty: none. A passkey cannot be guessed, so that a refused one is no failure.
func (s *Service) present(ctx context.Context, attempt *limit.Attempt, f factors, user store.User, a Answer, ceremony []byte, by string) (p proof, err error) {
	var right bool
	switch {
	case a.Method == TOTP && f.totp != nil:
		var step int64
		step, right = matchTOTP(f.totp.Content.Secret, a.Code, s.Now())
		p = proof{methods: []string{"otp"}, spend: func(ctx context.Context) error { return s.spendStep(ctx, user.ID, f.totp.ID, step, by) }}
	case a.Method == BackupCode && f.codes != nil:
		hash := hashBackupCode(a.Code)
		right = matchBackupCode(f.codes.Content.hashes(), a.Code) >= 0
		p = proof{methods: []string{"otp"}, left: new(int)}
		p.spend = func(ctx context.Context) (err error) {
			*p.left, err = s.spendCode(ctx, user, f.codes.ID, hash, by)
			return err
		}
	case a.Method == Passkey && len(f.passkeys) > 0 && s.Party != nil:
		if ceremony == nil {
			return proof{}, errNothingPending
		}
		credential, proven, err := s.Party.FinishLogin(s.person(user, f), ceremony, a.Credential)
		if errors.Is(err, passkey.ErrCounter) && by != "" && f.spentBy(credential.ID()) == by {
			err = nil // the same call once more
		}
		if err != nil {
			return proof{}, s.notedCounter(ctx, user, a.Credential, err)
		}
		right = true
		p = proof{methods: passkeyMethods(credential, proven), spend: func(ctx context.Context) error { return s.spendPasskey(ctx, user, credential, by) }}
	default:
		return proof{}, ErrUnknownMethod
	}
	accepted, err := attempt.Checked(ctx, right, user.ID)
	if err != nil {
		return proof{}, err
	}
	if !accepted {
		return proof{}, ErrInvalidCode
	}
	return p, nil
}

// passkeyMethods is the amr of an assertion.
func passkeyMethods(c passkey.Credential, p passkey.Proof) []string {
	methods := []string{"hwk", "user"}
	if c.Synced() {
		methods[0] = "swk"
	}
	if p.UserVerified {
		methods = append(methods, "mfa") // what the user has, and what they know or are
	}
	return methods
}

// enrolling finishes a login by the enrolment of the user's first factor.
func (s *Service) enrolling(ctx context.Context, attempt *limit.Attempt, l *login, a Answer, address string) (store.User, []string, error) {
	var add directory.FactorChange
	var methods []string
	right := true
	switch {
	case a.Method == TOTP:
		secret, _, err := s.pended(ctx, kindPendingTOTP, l.user.ID, l.key.ID)
		if err != nil {
			return store.User{}, nil, err
		}
		var step int64
		step, right = matchTOTP(secret, a.Code, s.Now())
		add, methods = s.addTOTP(ctx, secret, step), []string{"otp"}
	case a.Method == Passkey && s.Party != nil && l.Ceremony != nil:
		credential, err := s.Party.FinishRegistration(s.person(l.user, factors{}), l.Ceremony, a.Credential)
		if err != nil {
			return store.User{}, nil, err
		}
		add, methods = s.addPasskey(ctx, "", credential), passkeyMethods(credential, passkey.Proof{})
	case a.Method == Passkey && s.Party != nil:
		return store.User{}, nil, errNothingPending
	default:
		return store.User{}, nil, ErrUnknownMethod
	}
	accepted, err := attempt.Checked(ctx, right, l.user.ID)
	if err != nil {
		return store.User{}, nil, err
	}
	if !accepted {
		return store.User{}, nil, ErrInvalidCode
	}
	if err := s.take(ctx, l); err != nil {
		return store.User{}, nil, err
	}
	user, err := s.People.ChangeOwnFactors(ctx, directory.Authenticated(l.user.ID, address, s.Now()), l.SessionEpoch, "mfa.enrol", true, add)
	if err == nil {
		s.forget(ctx, kindPendingTOTP, l.user.ID, l.key.ID)
	}
	return user, Methods([]string{"pwd"}, methods...), err
}

// forget deletes a record that is of no use any more. It expires by itself if that fails.
func (s *Service) forget(ctx context.Context, kind, owner, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.State.Delete(ctx, state.Key{Kind: kind, Owner: owner, ID: id}); err != nil {
		s.Logger.DebugContext(ctx, "a finished enrolment could not be deleted; it expires by itself", "user", owner, "err", err)
	}
}
