package keyring

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// ErrUnknownKey: there is no signing key with that kid.
var ErrUnknownKey = problem.New(problem.NotFound, "unknown_key", "there is no signing key with this id")

// RevokeIn revokes a key inside the caller's transaction. The entry in the revocation log
// (kind "kid", valid until the returned key's RemoveAt at least) belongs into the same
// transaction. Revoking a key twice changes nothing. Rings drop and replace the key within
// a second of the commit; ReplaceRevoked does it at once.
//
// The row stays as a tombstone, without the private half. Only a row that was vouched for
// is vouched for again: else revoking a forged row would make it a replica's.
func RevokeIn(ctx context.Context, r store.Records, by Voucher, kid string, now time.Time) (store.Key, error) {
	rows, err := r.Keys(ctx)
	if err != nil {
		return store.Key{}, err
	}
	for _, k := range rows {
		if k.ID != kid {
			continue
		}
		if k.RevokedAt.IsZero() {
			k = bury(k, by.Vouched(k), by.Authenticate, now)
			err = r.UpdateKey(ctx, k)
		}
		return k, err
	}
	return store.Key{}, ErrUnknownKey
}

// bury returns the tombstone of a row. It leaves nothing of what made the row believed before:
// whoever comes to write the database later could put it together again.
func bury(k store.Key, believed bool, authenticate func(store.Key) store.Key, now time.Time) store.Key {
	k.Sealed, k.SourceMAC, k.StateMAC, k.RevokedAt = nil, nil, nil, now.UTC().Truncate(time.Microsecond)
	if believed {
		k = authenticate(k)
	}
	return k
}

// AdoptIn makes those rows rows of this version that an older one made and that the source
// opens, and returns their kids. An older version authenticated neither a key's times nor that it was
// revoked, so an operator decides about it. A key that is adopted lives for the given time at
// most. A row that this version has made is never adopted, whatever it lacks.
func AdoptIn(ctx context.Context, r store.Records, source keysource.Sealed, now time.Time, longest time.Duration) (kids []string, err error) {
	rows, err := r.Keys(ctx)
	if err != nil {
		return nil, err
	}
	end := now.Add(longest).UTC().Truncate(time.Microsecond)
	for _, k := range rows {
		if k.Sealed == nil || State(k, now) == Revoked || State(k, now) == Removed {
			continue
		}
		opened, err := source.Open(k.ID, k.Sealed)
		if !errors.Is(err, keysource.ErrFormer) {
			continue
		}
		signer, err := token.NewSigner(k.ID, k.Algorithm, opened.Signer)
		if err != nil {
			return nil, fmt.Errorf("signing keys: %w", err)
		}
		if k.Sealed, err = source.Seal(k.ID, opened.Signer, k.Algorithm, end); err != nil {
			return nil, fmt.Errorf("signing keys: %w", err)
		}
		jwk, err := signer.Public().MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("signing keys: %w", err)
		}
		k.PublicJWK = markState(jwk)
		k.RetireAt, k.RemoveAt = earliest(k.RetireAt, end), earliest(k.RemoveAt, end)
		k.MAC, k.StateMAC, k.SourceMAC = nil, nil, source.MAC(k.ID, Statement(k))
		if err := r.UpdateKey(ctx, k); err != nil {
			return nil, err
		}
		kids = append(kids, k.ID)
	}
	return kids, nil
}

// settingRotateBefore holds the moment before which no key may have been made.
const settingRotateBefore = "signing_keys.rotate_before"

// RequestRotation asks every running replica to replace the keys that were made before
// now. A replica sees the request within a second, and its next key signs after the key
// set's max-age. Tokens of the old keys stay valid.
func RequestRotation(ctx context.Context, s store.Settings, now time.Time) error {
	return s.PutSetting(ctx, settingRotateBefore, now.UTC().Format(time.RFC3339Nano))
}

// rotateBefore reads the latest request. It returns the zero time if there was none.
func rotateBefore(ctx context.Context, s store.Settings) (time.Time, error) {
	text, err := s.Setting(ctx, settingRotateBefore)
	if errors.Is(err, store.ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("signing keys: %w", err)
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("signing keys: the setting %s is not a time: %w", settingRotateBefore, err)
	}
	return t, nil
}

// fresh is a key that was just made: a row without times, and its private half.
type fresh struct {
	row    store.Key
	signer *token.Signer
	end    time.Time
}

// newKey makes a key, which lives until end at most. Its kid is the instance id and the
// RFC 7638 thumbprint.
func newKey(cfg Config, end time.Time) (*fresh, error) {
	name := func(public crypto.PublicKey) string {
		return cfg.InstanceID + "-" + accesstoken.Key{Algorithm: cfg.Algorithm, Public: public}.Thumbprint()
	}
	private, sealed, err := cfg.Source.New(cfg.Algorithm, end, name)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	kid := name(private.Public())
	signer, err := token.NewSigner(kid, cfg.Algorithm, private)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	row := store.Key{ID: kid, Instance: cfg.InstanceID, Algorithm: cfg.Algorithm, Sealed: sealed}
	jwk, err := signer.Public().MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	row.PublicJWK = markState(jwk)
	return &fresh{row: row, signer: signer, end: end}, nil
}

// openKey makes the private half of a row usable, and returns until when it may live. The
// public half is derived from it and not read from the row.
func openKey(source keysource.Source, row store.Key) (*token.Signer, time.Time, error) {
	opened, err := source.Open(row.ID, row.Sealed)
	if err != nil {
		return nil, time.Time{}, err
	}
	if opened.Algorithm != row.Algorithm {
		return nil, time.Time{}, fmt.Errorf("the signing key %s in the database is not one for %s", row.ID, row.Algorithm)
	}
	signer, err := token.NewSigner(row.ID, opened.Algorithm, opened.Signer)
	return signer, opened.End, err
}
