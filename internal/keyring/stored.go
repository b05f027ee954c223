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
func RevokeIn(ctx context.Context, r store.Records, kid string, now time.Time) (store.Key, error) {
	rows, err := r.Keys(ctx)
	if err != nil {
		return store.Key{}, err
	}
	for _, k := range rows {
		if k.ID != kid {
			continue
		}
		if k.RevokedAt.IsZero() {
			k.RevokedAt = now.UTC().Truncate(time.Microsecond)
			err = r.UpdateKey(ctx, k)
		}
		return k, err
	}
	return store.Key{}, ErrUnknownKey
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
}

// newKey makes a key. Its kid is the instance id and the RFC 7638 thumbprint.
func newKey(cfg Config) (*fresh, error) {
	name := func(public crypto.PublicKey) string {
		return cfg.InstanceID + "-" + accesstoken.Key{Algorithm: cfg.Algorithm, Public: public}.Thumbprint()
	}
	private, sealed, err := cfg.Source.New(cfg.Algorithm, name)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	kid := name(private.Public())
	signer, err := token.NewSigner(kid, cfg.Algorithm, private)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	row := store.Key{ID: kid, Instance: cfg.InstanceID, Algorithm: cfg.Algorithm, Sealed: sealed}
	if row.PublicJWK, err = signer.Public().MarshalJSON(); err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	return &fresh{row: row, signer: signer}, nil
}

// openKey makes the private half of a row usable. The public half is derived from it and not
// read from the row, so that writing to the database is not enough to add a key.
func openKey(source keysource.Source, row store.Key) (*token.Signer, error) {
	private, err := source.Open(row.ID, row.Sealed)
	if err != nil {
		return nil, err
	}
	return token.NewSigner(row.ID, row.Algorithm, private)
}
