package mfa

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// The audit trail's names of what users change about their factors.
const (
	enrol  = "mfa.enrol"
	remove = "mfa.remove"
)

// A TOTPEnrolment is what an authenticator app needs.
type TOTPEnrolment struct {
	Secret    string // in base32
	URI       string // otpauth://
	QR        string // the URI as an SVG document
	ExpiresIn time.Duration
}

// own returns the actor as a user with what they have, if the actor may change it now.
func (s *Service) own(ctx context.Context, actor directory.Actor) (store.User, factors, error) {
	if err := s.People.MayChangeOwn(ctx, actor); err != nil {
		return store.User{}, factors{}, err
	}
	user, err := s.Store.User(ctx, actor.ID)
	if err != nil {
		return store.User{}, factors{}, unavailable(err)
	}
	f, err := s.factorsOf(ctx, s.Store, actor.ID)
	return user, f, unavailable(err)
}

// BeginTOTP makes a secret for the actor, which ConfirmTOTP enrols, on whichever replica. Another
// call makes another one, and the one before is good for nothing.
func (s *Service) BeginTOTP(ctx context.Context, actor directory.Actor) (TOTPEnrolment, error) {
	user, f, err := s.own(ctx, actor)
	if err != nil {
		return TOTPEnrolment{}, err
	}
	if f.totp != nil {
		return TOTPEnrolment{}, errAlreadyEnrolled
	}
	return s.pendTOTP(ctx, user, pending)
}

// pendTOTP makes a secret that waits for its confirmation.
func (s *Service) pendTOTP(ctx context.Context, user store.User, id string) (TOTPEnrolment, error) {
	secret, err := newSecret(s.Rand)
	if err != nil {
		return TOTPEnrolment{}, err
	}
	if err := s.pend(ctx, kindPendingTOTP, user.ID, id, secret); err != nil {
		return TOTPEnrolment{}, err
	}
	return s.totpEnrolment(user, secret, PendingFor)
}

// totpEnrolment shows a secret that waits for its confirmation for so long.
func (s *Service) totpEnrolment(user store.User, secret []byte, expiresIn time.Duration) (e TOTPEnrolment, err error) {
	e = TOTPEnrolment{Secret: secretText(secret), URI: otpauthURI(s.Issuer, user.Username, secret), ExpiresIn: expiresIn}
	e.QR, err = qrSVG(e.URI)
	return e, err
}

// PendingTOTP returns once more what the last BeginTOTP of the actor has returned, while it waits
// for its confirmation. It needs what BeginTOTP needs.
func (s *Service) PendingTOTP(ctx context.Context, actor directory.Actor) (TOTPEnrolment, error) {
	user, f, err := s.own(ctx, actor)
	if err != nil {
		return TOTPEnrolment{}, err
	}
	if f.totp != nil {
		return TOTPEnrolment{}, errAlreadyEnrolled
	}
	secret, rec, err := s.pended(ctx, kindPendingTOTP, user.ID, pending)
	if err != nil {
		return TOTPEnrolment{}, err
	}
	return s.totpEnrolment(user, secret, max(rec.Expires.Sub(s.Now()), 0))
}

// pend keeps what waits for its confirmation, sealed.
func (s *Service) pend(ctx context.Context, kind, owner, id string, plain []byte) error {
	if s.Box == nil {
		return errNoStorageKey
	}
	_, err := s.State.Put(ctx, state.Key{Kind: kind, Owner: owner, ID: id}, s.Box.Seal(plain, kind+"/"+owner+"/"+id), PendingFor)
	return unavailable(err)
}

// pended returns what waits for its confirmation, with the record that has it, or
// errNothingPending.
func (s *Service) pended(ctx context.Context, kind, owner, id string) ([]byte, state.Record, error) {
	if s.Box == nil {
		return nil, state.Record{}, errNoStorageKey
	}
	rec, err := s.State.Get(ctx, state.Key{Kind: kind, Owner: owner, ID: id})
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnreadable) {
		return nil, rec, errNothingPending.Because(err)
	}
	if err != nil {
		return nil, rec, unavailable(err)
	}
	plain, err := s.Box.Open(rec.Value, kind+"/"+owner+"/"+id)
	if err != nil {
		return nil, rec, errNothingPending.Because(err)
	}
	return plain, rec, nil
}

// ConfirmTOTP enrols the secret of BeginTOTP, if the code is one of it, and spends the code. It ends
// the actor's sessions and returns the actor as a user afterwards, and by what the user has
// authenticated. epoch is that of the actor's token. The secret is known to the actor, so that
// wrong codes need not be counted.
func (s *Service) ConfirmTOTP(ctx context.Context, actor directory.Actor, epoch int64, code string) (store.User, []string, error) {
	code, err := digits(code)
	if err != nil {
		return store.User{}, nil, err
	}
	_, f, err := s.own(ctx, actor)
	if err != nil {
		return store.User{}, nil, err
	}
	if f.totp != nil {
		return store.User{}, nil, errAlreadyEnrolled
	}
	secret, _, err := s.pended(ctx, kindPendingTOTP, actor.ID, pending)
	if err != nil {
		return store.User{}, nil, err
	}
	step, ok := matchTOTP(secret, code, s.Now())
	if !ok {
		return store.User{}, nil, ErrInvalidCode
	}
	user, err := s.People.ChangeOwnFactors(ctx, actor, epoch, enrol, true, s.addTOTP(ctx, secret, step))
	if err == nil {
		s.forget(ctx, kindPendingTOTP, actor.ID, pending)
	}
	return user, []string{"otp"}, err
}

// addTOTP enrols a secret of which a step is spent.
func (s *Service) addTOTP(ctx context.Context, secret []byte, step int64) directory.FactorChange {
	return func(r store.Records, u store.User) (string, error) {
		return "totp", create(ctx, s, r, u.ID, kindTOTP, u.ID, totpContent{Secret: secret, Step: step, UsedAt: s.Now()}, errAlreadyEnrolled)
	}
}

// RemoveTOTP removes the actor's TOTP, ends the actor's sessions, and returns the actor as a user
// afterwards.
func (s *Service) RemoveTOTP(ctx context.Context, actor directory.Actor, epoch int64) (store.User, error) {
	return s.People.ChangeOwnFactors(ctx, actor, epoch, remove, true, s.removal(ctx, "totp", func(f store.Factor) bool { return f.Kind == kindTOTP }))
}

// removal removes the factors that f chooses. Backup codes go with the last factor
// that they stand in for. It returns errNotEnrolled if there are none.
func (s *Service) removal(ctx context.Context, detail string, f func(store.Factor) bool) directory.FactorChange {
	return func(r store.Records, u store.User) (string, error) {
		rows, err := r.FactorsOfUser(ctx, u.ID)
		if err != nil {
			return "", err
		}
		goes := slices.DeleteFunc(slices.Clone(rows), func(one store.Factor) bool { return one.Kind == kindRecovery || !f(one) })
		if len(goes) == 0 {
			return "", errNotEnrolled
		}
		stays := slices.DeleteFunc(rows, func(f store.Factor) bool {
			return slices.ContainsFunc(goes, func(g store.Factor) bool { return g.ID == f.ID })
		})
		if !slices.ContainsFunc(stays, func(f store.Factor) bool { return f.Kind == kindTOTP || f.Kind == kindPasskey }) {
			for _, f := range stays {
				if f.Kind == kindCodes {
					goes = append(goes, f)
				}
			}
		}
		for _, f := range goes {
			if err := r.DeleteFactor(ctx, f.ID); err != nil {
				return "", err
			}
		}
		return detail, nil
	}
}

// BeginBackupCodes makes ten codes for the actor, which ConfirmBackupCodes puts in the place of
// those before. They are shown this once.
func (s *Service) BeginBackupCodes(ctx context.Context, actor directory.Actor) ([]string, error) {
	_, f, err := s.own(ctx, actor)
	if err != nil {
		return nil, err
	}
	if !f.enrolled() {
		return nil, errNoFactor
	}
	codes, err := newBackupCodes(s.Rand)
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(codes))
	for i, one := range codes {
		normal, err := backupCode(one)
		if err != nil {
			return nil, err
		}
		hashes[i] = hashBackupCode(normal)
	}
	plain, err := json.Marshal(hashes)
	if err != nil {
		return nil, err
	}
	return codes, s.pend(ctx, kindPendingCodes, actor.ID, pending, plain)
}

// ConfirmBackupCodes makes the codes of BeginBackupCodes the actor's, if code is one of them: then
// they have been kept. It is not spent by that. It returns how many there are.
func (s *Service) ConfirmBackupCodes(ctx context.Context, actor directory.Actor, epoch int64, code string) (int, error) {
	code, err := backupCode(code)
	if err != nil {
		return 0, err
	}
	if err := s.People.MayChangeOwn(ctx, actor); err != nil {
		return 0, err
	}
	plain, _, err := s.pended(ctx, kindPendingCodes, actor.ID, pending)
	if err != nil {
		return 0, err
	}
	var hashes [][]byte
	if err := json.Unmarshal(plain, &hashes); err != nil {
		return 0, errNothingPending.Because(err)
	}
	if matchBackupCode(hashes, code) < 0 {
		return 0, ErrInvalidCode
	}
	content := codesContent{}
	for _, hash := range hashes {
		content.Codes = append(content.Codes, oneCode{Hash: hash})
	}
	_, err = s.People.ChangeOwnFactors(ctx, actor, epoch, enrol, false, func(r store.Records, u store.User) (string, error) {
		return "backup codes", s.putCodes(ctx, r, u.ID, content)
	})
	if err != nil {
		return 0, err
	}
	s.forget(ctx, kindPendingCodes, actor.ID, pending)
	return len(hashes), nil
}

// putCodes puts new codes in the place of those before. The same ones are there already after
// a call whose answer was lost.
func (s *Service) putCodes(ctx context.Context, r store.Records, userID string, content codesContent) error {
	f, err := s.factorsOf(ctx, r, userID)
	switch {
	case err != nil:
		return err
	case !f.enrolled():
		return errNoFactor
	case f.codes == nil:
		return create(ctx, s, r, userID, kindCodes, userID, content, errAlreadyEnrolled)
	case bytes.Equal(f.codes.Content.Codes[0].Hash, content.Codes[0].Hash):
		return errAlreadyEnrolled // by another call, and some may be spent
	}
	f.codes.Content = content
	return update(ctx, s, r, *f.codes)
}

// RemoveBackupCodes removes the actor's backup codes.
func (s *Service) RemoveBackupCodes(ctx context.Context, actor directory.Actor, epoch int64) error {
	_, err := s.People.ChangeOwnFactors(ctx, actor, epoch, remove, false, s.removal(ctx, "backup codes", func(f store.Factor) bool { return f.Kind == kindCodes }))
	return err
}

// BeginPasskey begins the ceremony that enrols a passkey of the actor, and returns the options for
// navigator.credentials.create. Another call begins another one in its place.
func (s *Service) BeginPasskey(ctx context.Context, actor directory.Actor) (json.RawMessage, error) {
	user, f, err := s.own(ctx, actor)
	if err != nil {
		return nil, err
	}
	switch {
	case s.Party == nil:
		return nil, errNoPasskeys
	case len(f.passkeys) >= MaxPasskeys:
		return nil, errTooManyPasskeys
	}
	options, ceremony, err := s.Party.BeginRegistration(s.person(user, f))
	if err != nil {
		return nil, err
	}
	return options, s.pend(ctx, kindPendingPasskey, user.ID, pending, ceremony)
}

// ConfirmPasskey enrols the passkey that a browser has made for BeginPasskey. It ends the actor's
// sessions, and returns the actor as a user afterwards and the methods that this adds to amr. epoch
// is that of the actor's token. Of several calls for one ceremony at most one succeeds.
func (s *Service) ConfirmPasskey(ctx context.Context, actor directory.Actor, epoch int64, name string, response json.RawMessage) (store.User, []string, error) {
	if len(response) == 0 {
		return store.User{}, nil, errNoCredential
	}
	name, err := passkeyName(name)
	if err != nil {
		return store.User{}, nil, err
	}
	user, f, err := s.own(ctx, actor)
	if err != nil {
		return store.User{}, nil, err
	}
	if s.Party == nil {
		return store.User{}, nil, errNoPasskeys
	}
	ceremony, rec, err := s.pended(ctx, kindPendingPasskey, actor.ID, pending)
	if err != nil {
		return store.User{}, nil, err
	}
	credential, err := s.Party.FinishRegistration(s.person(user, f), ceremony, response)
	if err != nil {
		return store.User{}, nil, err
	}
	if err := s.takeCeremony(ctx, rec); err != nil {
		return store.User{}, nil, err
	}
	user, err = s.People.ChangeOwnFactors(ctx, actor, epoch, enrol, true, s.addPasskey(ctx, name, credential))
	return user, passkeyMethods(credential, passkey.Proof{}), err
}

// addPasskey enrols a passkey; an empty name gives it one.
func (s *Service) addPasskey(ctx context.Context, name string, c passkey.Credential) directory.FactorChange {
	return func(r store.Records, u store.User) (string, error) {
		rows, err := r.FactorsOfUser(ctx, u.ID)
		if err != nil {
			return "", err
		}
		n := 0
		for _, one := range rows {
			if one.Kind == kindPasskey {
				n++
			}
		}
		if n >= MaxPasskeys {
			return "", errTooManyPasskeys
		}
		given := name
		if given == "" {
			given = fmt.Sprintf("Passkey %d", n+1)
		}
		return "passkey", create(ctx, s, r, u.ID, kindPasskey, credentialDigest(c.ID()), passkeyContent{Name: given, Credential: c}, errAlreadyEnrolled)
	}
}

// RenamePasskey gives a passkey of the actor another name.
func (s *Service) RenamePasskey(ctx context.Context, actor directory.Actor, epoch int64, id, name string) error {
	name, err := passkeyName(name)
	if err != nil {
		return err
	}
	if name == "" {
		return errName
	}
	_, err = s.People.ChangeOwnFactors(ctx, actor, epoch, "mfa.rename", false, func(r store.Records, u store.User) (string, error) {
		rows, err := r.FactorsOfUser(ctx, u.ID)
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(rows, func(f store.Factor) bool { return f.Kind == kindPasskey && f.ID == id })
		if i < 0 {
			return "", errNotEnrolled
		}
		one, err := opened[passkeyContent](s, rows[i])
		if err != nil {
			return "", err
		}
		one.Content.Name = name
		return "passkey", update(ctx, s, r, *one)
	})
	return err
}

// RemovePasskey removes a passkey of the actor, ends the actor's sessions, and returns the actor as
// a user afterwards.
func (s *Service) RemovePasskey(ctx context.Context, actor directory.Actor, epoch int64, id string) (store.User, error) {
	return s.People.ChangeOwnFactors(ctx, actor, epoch, remove, true,
		s.removal(ctx, "passkey", func(f store.Factor) bool { return f.Kind == kindPasskey && f.ID == id }))
}

var errName = problem.New(problem.Invalid, "invalid_request", "a passkey's name has 1 to %d characters, and none that cannot be printed", maxName)

// maxName bounds the name of a passkey, in characters.
const maxName = 64

func passkeyName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return "", errName
	}
	return name, nil
}

// person is a user as passkeys know them.
func (s *Service) person(u store.User, f factors) passkey.User {
	display := strings.TrimSpace(u.FirstName + " " + u.LastName)
	if display == "" {
		display = u.Username
	}
	return passkey.User{ID: u.ID, Name: u.Username, DisplayName: display, Credentials: f.credentials()}
}

// credentialDigest is the digest of a passkey's row.
func credentialDigest(id []byte) string {
	sum := sha256.Sum256(id)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func leftText(left int) string { return fmt.Sprintf("%d left", left) }
