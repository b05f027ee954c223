package mfa

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/store"
)

func (c codesContent) hashes() [][]byte {
	all := make([][]byte, len(c.Codes))
	for i, one := range c.Codes {
		all[i] = one.Hash
	}
	return all
}

// found returns the row of a factor, read in a transaction, or ErrInvalidCode if it is gone.
func found[T any](ctx context.Context, s *Service, r store.Records, userID, id string) (*row[T], error) {
	rows, err := r.FactorsOfUser(ctx, userID)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(rows, func(f store.Factor) bool { return f.ID == id })
	if i < 0 {
		return nil, ErrInvalidCode
	}
	return opened[T](s, rows[i])
}

// spendStep spends a step of TOTP and all before it. It returns ErrCodeUsed if that was done,
// but by the same login.
func (s *Service) spendStep(ctx context.Context, userID, id string, step int64, by string) error {
	return s.Store.Update(ctx, func(r store.Records) error {
		one, err := found[totpContent](ctx, s, r, userID, id)
		if err != nil {
			return err
		}
		c := &one.Content
		if c.Step == step && by != "" && c.SpentBy == by {
			return nil
		}
		if c.Step >= step {
			return ErrCodeUsed
		}
		c.Step, c.SpentBy, c.UsedAt = step, by, s.Now()
		return update(ctx, s, r, *one)
	})
}

// spendCode spends a backup code, and returns how many are left. It returns ErrCodeUsed if that was
// done, but by the same login.
func (s *Service) spendCode(ctx context.Context, user store.User, id string, hash []byte, by string) (left int, err error) {
	spent := false
	err = s.Store.Update(ctx, func(r store.Records) error {
		one, err := found[codesContent](ctx, s, r, user.ID, id)
		if err != nil {
			return err
		}
		codes := one.Content.Codes
		left = one.Content.left()
		i := slices.IndexFunc(codes, func(c oneCode) bool { return bytes.Equal(c.Hash, hash) })
		switch spent = false; {
		case i < 0: // the codes have been replaced since
			return ErrInvalidCode
		case codes[i].Spent && by != "" && codes[i].SpentBy == by:
			return nil
		case codes[i].Spent:
			return ErrCodeUsed
		}
		codes[i].Spent, codes[i].SpentBy, codes[i].UsedAt = true, by, s.Now()
		left, spent = left-1, true
		return update(ctx, s, r, *one)
	})
	if err == nil && spent {
		s.Audit.RecordOwn(ctx, store.AuditEvent{Actor: user.ID, Action: "mfa.backup_code", Target: user.ID, Outcome: audit.OK, Detail: leftText(left)})
	}
	return left, err
}

// spendPasskey keeps what an assertion says of its passkey.
func (s *Service) spendPasskey(ctx context.Context, user store.User, credential passkey.Credential, by string) error {
	return s.Store.Update(ctx, func(r store.Records) error {
		f, err := r.FactorByDigest(ctx, kindPasskey, credentialDigest(credential.ID()))
		if errors.Is(err, store.ErrNotFound) || err == nil && f.UserID != user.ID {
			return passkey.ErrRefused
		}
		if err != nil {
			return err
		}
		one, err := opened[passkeyContent](s, f)
		if err != nil {
			return err
		}
		c := &one.Content
		before, now := c.Credential.SignCount(), credential.SignCount()
		switch {
		case by != "" && c.SpentBy == by:
			return nil
		case now <= before && (now > 0 || before > 0): // another assertion has come first
			return passkey.ErrCounter
		}
		c.Credential, c.SpentBy, c.UsedAt = credential, by, s.Now()
		return update(ctx, s, r, *one)
	})
}

// notedCounter keeps a warning with a passkey whose counter has not grown.
func (s *Service) notedCounter(ctx context.Context, user store.User, response json.RawMessage, err error) error {
	if !errors.Is(err, passkey.ErrCounter) {
		return err
	}
	claimed, peeked := passkey.Peek(response)
	if peeked != nil {
		return err
	}
	noted := false
	failed := s.Store.Update(ctx, func(r store.Records) error {
		noted = false
		f, err := r.FactorByDigest(ctx, kindPasskey, credentialDigest(claimed.CredentialID))
		if err != nil || f.UserID != user.ID {
			return err
		}
		one, err := opened[passkeyContent](s, f)
		if err != nil || one.Content.Cloned {
			return err
		}
		one.Content.Cloned, noted = true, true
		return update(ctx, s, r, *one)
	})
	if failed != nil {
		return unavailable(failed)
	}
	if noted {
		s.Logger.WarnContext(ctx, "the counter of a passkey has not grown, so that there may be a copy of it; its user should remove it", "user", user.ID)
		s.Audit.RecordOwn(ctx, store.AuditEvent{Actor: user.ID, Action: "mfa.passkey", Target: user.ID, Outcome: audit.Denied, Detail: "the counter has not grown"})
	}
	return err
}
