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
		if !source.Opens(k.Sealed) || State(k, now) == Revoked || State(k, now) == Removed {
			continue
		}
		opened, err := source.Open(ctx, k.ID, k.Algorithm, k.Sealed)
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

// settingRotateBefore holds the moment before which no key may have come to sign, and
// settingRotateAtOnce the latest of those with atOnce.
const (
	settingRotateBefore = "signing_keys.rotate_before"
	settingRotateAtOnce = "signing_keys.rotate_at_once"
)

// A rotation is what was asked for last.
type rotation struct {
	before time.Time // a key that came to sign before is to be replaced
	atOnce time.Time // if it did before that, the next one need not wait for PublishAhead
}

// RequestRotation asks every running replica to replace the keys that came to sign before
// now. A replica sees the request within a second, and its next key signs when it has been
// published for Config.PublishAhead; with atOnce, for Config.MaxAge, and verifiers that keep a
// key set for longer than its max-age may refuse its tokens at first. Tokens of the old keys
// stay valid.
func RequestRotation(ctx context.Context, s store.Settings, now time.Time, atOnce bool) error {
	text := now.UTC().Format(time.RFC3339Nano)
	if atOnce {
		if err := s.PutSetting(ctx, settingRotateAtOnce, text); err != nil {
			return err
		}
	}
	return s.PutSetting(ctx, settingRotateBefore, text)
}

// rotationAsked reads the latest requests.
func rotationAsked(ctx context.Context, s store.Settings) (asked rotation, err error) {
	if asked.before, err = moment(ctx, s, settingRotateBefore); err != nil || asked.before.IsZero() {
		return rotation{}, err
	}
	asked.atOnce, err = moment(ctx, s, settingRotateAtOnce)
	return asked, err
}

// moment reads a setting that is a time. It returns the zero time if there is none.
func moment(ctx context.Context, s store.Settings, name string) (time.Time, error) {
	text, err := s.Setting(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("signing keys: %w", err)
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("signing keys: the setting %s is not a time: %w", name, err)
	}
	return t, nil
}

// fresh is a key that was just made: a row without times, and its private half.
type fresh struct {
	row    store.Key
	signer *token.Signer
	end    time.Time
}

// newKey has the source make a key, or give one that was never used. A key that it makes lives
// until end at most. Its kid is the RFC 7638
// thumbprint, after the instance id if the key is this process's alone.
func newKey(ctx context.Context, cfg Config, algorithm string, end time.Time, used func(kid string) bool) (*fresh, error) {
	name := func(public crypto.PublicKey) string {
		thumbprint := accesstoken.Key{Algorithm: algorithm, Public: public}.Thumbprint()
		if cfg.Source.Shared() {
			return thumbprint
		}
		return cfg.InstanceID + "-" + thumbprint
	}
	made, sealed, err := cfg.Source.New(ctx, algorithm, end, used, name)
	if err != nil {
		return nil, err
	}
	kid := name(made.Public())
	signer, err := token.NewSigner(kid, algorithm, made.Signer)
	if err != nil {
		return nil, err
	}
	row := store.Key{ID: kid, Instance: cfg.InstanceID, Algorithm: algorithm, Sealed: sealed}
	jwk, err := signer.Public().MarshalJSON()
	if err != nil {
		return nil, err
	}
	row.PublicJWK = markState(jwk)
	return &fresh{row: row, signer: signer, end: made.End}, nil
}

// openKey makes the private half of a row usable, and returns until when it may live. The
// public half is derived from it and not read from the row.
func openKey(ctx context.Context, source keysource.Source, row store.Key) (*token.Signer, time.Time, error) {
	opened, err := source.Open(ctx, row.ID, row.Algorithm, row.Sealed)
	if err != nil {
		return nil, time.Time{}, err
	}
	if opened.Algorithm != row.Algorithm {
		return nil, time.Time{}, fmt.Errorf("the signing key %s in the database is not one for %s", row.ID, row.Algorithm)
	}
	signer, err := token.NewSigner(row.ID, opened.Algorithm, opened.Signer)
	return signer, opened.End, err
}
