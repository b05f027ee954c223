package mfa

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/store"
)

// The kinds of rows of factors.
const (
	kindTOTP     = "totp"
	kindCodes    = "backup_codes"
	kindPasskey  = "passkey"
	kindRecovery = "recovery"
)

// A row is a factor of the store with its content.
type row[T any] struct {
	store.Factor
	Content T
}

type totpContent struct {
	Secret []byte `json:"secret"`
	// Step is the last one that was accepted; no code of it or of an earlier one is accepted
	// again. SpentBy is the digest of the mfa_token with which it was presented.
	Step    int64     `json:"step"`
	SpentBy string    `json:"spent_by,omitempty"`
	UsedAt  time.Time `json:"used_at,omitzero"`
}

type codesContent struct {
	Codes []oneCode `json:"codes"`
}

type oneCode struct {
	Hash    []byte    `json:"hash"`
	Spent   bool      `json:"spent,omitempty"`
	SpentBy string    `json:"spent_by,omitempty"`
	UsedAt  time.Time `json:"used_at,omitzero"`
}

func (c codesContent) left() int {
	n := 0
	for _, one := range c.Codes {
		if !one.Spent {
			n++
		}
	}
	return n
}

type passkeyContent struct {
	Name       string             `json:"name"`
	Credential passkey.Credential `json:"credential"`
	Cloned     bool               `json:"cloned,omitempty"` // a counter came that had not grown
	SpentBy    string             `json:"spent_by,omitempty"`
	UsedAt     time.Time          `json:"used_at,omitzero"`
}

type recoveryContent struct {
	Expires     time.Time `json:"expires"`
	KeepFactors bool      `json:"keep_factors,omitempty"`
	// A digest of the user's rights, and the session epoch, when it was issued.
	Rights       []byte `json:"rights"`
	SessionEpoch int64  `json:"session_epoch"`
}

// factors are what one user has.
type factors struct {
	totp     *row[totpContent]
	codes    *row[codesContent]
	passkeys []row[passkeyContent]
}

// enrolled reports whether there is a factor other than backup codes.
func (f factors) enrolled() bool { return f.totp != nil || len(f.passkeys) > 0 }

// methods are those by which the user may answer.
func (s *Service) methods(f factors) []string {
	methods := []string{}
	if f.totp != nil {
		methods = append(methods, TOTP)
	}
	if len(f.passkeys) > 0 && s.Party != nil {
		methods = append(methods, Passkey)
	}
	if f.codes != nil && f.codes.Content.left() > 0 {
		methods = append(methods, BackupCode)
	}
	return methods
}

// spentBy returns the digest of the mfa_token with which a passkey was presented last.
func (f factors) spentBy(id []byte) string {
	for _, one := range f.passkeys {
		if bytes.Equal(one.Content.Credential.ID(), id) {
			return one.Content.SpentBy
		}
	}
	return ""
}

func (f factors) credentials() []passkey.Credential {
	all := make([]passkey.Credential, len(f.passkeys))
	for i, one := range f.passkeys {
		all[i] = one.Content.Credential
	}
	return all
}

// factorsOf returns what a user has. A row that cannot be read is an error, because it may be
// the factor that the user must present.
func (s *Service) factorsOf(ctx context.Context, r store.Records, userID string) (factors, error) {
	rows, err := r.FactorsOfUser(ctx, userID)
	if err != nil {
		return factors{}, err
	}
	var f factors
	for _, one := range rows {
		switch one.Kind {
		case kindTOTP:
			f.totp, err = opened[totpContent](s, one)
		case kindCodes:
			f.codes, err = opened[codesContent](s, one)
		case kindPasskey:
			var p *row[passkeyContent]
			if p, err = opened[passkeyContent](s, one); err == nil {
				f.passkeys = append(f.passkeys, *p)
			}
		case kindRecovery: // is none that a login asks for
		default:
			err = errUnreadable.Because(fmt.Errorf("mfa: a factor of the kind %q", one.Kind))
		}
		if err != nil {
			return factors{}, err
		}
	}
	return f, nil
}

// opened returns a row with its content.
func opened[T any](s *Service, f store.Factor) (*row[T], error) {
	if s.Box == nil {
		return nil, errNoStorageKey
	}
	plain, err := s.Box.Open(f.Data, place(f))
	r := &row[T]{Factor: f}
	if err == nil {
		err = json.Unmarshal(plain, &r.Content)
	}
	if err != nil {
		s.Logger.Error("a second factor in the database cannot be read; the user cannot log in with it until an administrator removes it", "user", f.UserID, "factor", f.ID, "kind", f.Kind, "err", err)
		return nil, errUnreadable.Because(err)
	}
	return r, nil
}

// sealed returns a row's factor with its content as Data.
func sealed[T any](s *Service, r row[T]) (store.Factor, error) {
	if s.Box == nil {
		return store.Factor{}, errNoStorageKey
	}
	plain, err := json.Marshal(r.Content)
	if err != nil {
		return store.Factor{}, fmt.Errorf("mfa: encode: %w", err)
	}
	r.Data = s.Box.Seal(plain, place(r.Factor))
	return r.Factor, nil
}

// create writes a new row of a user. It returns taken if there is one with the digest.
func create[T any](ctx context.Context, s *Service, r store.Records, userID, kind, digest string, content T, taken error) error {
	id, err := uuid.NewV7FromReader(s.Rand)
	if err != nil {
		return fmt.Errorf("mfa: id: %w", err)
	}
	f, err := sealed(s, row[T]{store.Factor{ID: id.String(), UserID: userID, Kind: kind, Digest: digest, CreatedAt: s.Now().Truncate(time.Microsecond)}, content})
	if err != nil {
		return err
	}
	if err := r.CreateFactor(ctx, f); errors.Is(err, store.ErrConflict) {
		return taken
	} else if err != nil {
		return err
	}
	return nil
}

// update replaces the content of a row that was read in the same transaction.
func update[T any](ctx context.Context, s *Service, r store.Records, one row[T]) error {
	f, err := sealed(s, one)
	if err != nil {
		return err
	}
	return r.UpdateFactor(ctx, f)
}
