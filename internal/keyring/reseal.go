package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
)

// Sealed are the private keys in the store; it implements seal.Holder.
type Sealed struct {
	Store Store
	Now   func() time.Time
}

var _ seal.Holder = Sealed{}

// Sealed implements seal.Holder.
func (Sealed) Sealed() string { return "signing keys" }

// Reseal implements seal.Holder. Each key has a transaction of its own, which reads the
// key again, so that rings may change its times meanwhile. Keys that are revoked or
// removed are left as they are, since they are not opened any more.
func (s Sealed) Reseal(ctx context.Context, b *seal.Box) (seal.Resealed, error) {
	var done seal.Resealed
	rows, err := s.Store.Keys(ctx)
	if err != nil {
		return done, fmt.Errorf("signing keys: %w", err)
	}
	var closed []error
	for _, row := range rows {
		changed, found := false, false
		err := s.Store.Update(ctx, func(r store.Records) (err error) {
			changed, found, err = resealKey(ctx, r, b, row.ID, s.Now())
			return err
		})
		switch {
		case errors.Is(err, seal.ErrUnknownKey):
			closed = append(closed, fmt.Errorf("the signing key %s is sealed under a storage key that was not given: add it to storage.previous_keys (AUTH_STORAGE_KEY_PREVIOUS)", row.ID))
		case errors.Is(err, seal.ErrOpen):
			closed = append(closed, fmt.Errorf("the signing key %s is damaged: restore it, or revoke it with \"watchword keys revoke\"", row.ID))
		case err != nil:
			return done, fmt.Errorf("signing keys: %w", err)
		case changed:
			done.Changed++
		case found:
			done.Current++
		}
	}
	return done, errors.Join(closed...)
}

// resealKey seals one key anew. It reports whether that changed anything, and whether
// there is anything sealed at all.
func resealKey(ctx context.Context, r store.Records, b *seal.Box, kid string, now time.Time) (changed, found bool, err error) {
	rows, err := r.Keys(ctx)
	if err != nil {
		return false, false, err
	}
	for _, row := range rows {
		if row.ID != kid || row.Sealed == nil {
			continue
		}
		if phase := State(row, now); phase == Revoked || phase == Removed {
			continue
		}
		stored := keysource.Sealed{Box: b}
		var source keysource.Source = stored
		if !stored.Opens(row.Sealed) {
			source = keysource.Outside{Name: keysource.NameOf(row.Sealed), Box: b}
		}
		authentic := Authentic(source, row) // else it is left as it is
		if stored.Opens(row.Sealed) {
			if row.Sealed, changed, err = stored.Reseal(kid, row.Sealed); err != nil {
				return false, false, err
			}
		}
		if authentic && !b.Current(row.SourceMAC) {
			row.SourceMAC, changed = source.MAC(kid, Statement(row)), true
		}
		if !changed {
			return false, true, nil
		}
		return true, true, r.UpdateKey(ctx, row)
	}
	return false, false, nil
}
