package mfa

import (
	"context"
	"errors"
	"fmt"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
)

// place is where the data of a factor is sealed for: no row counts for another user, as
// another kind, under another id, or is found by another digest.
func place(f store.Factor) string {
	return "factors/" + f.UserID + "/" + f.Kind + "/" + f.Digest + "/" + f.ID
}

// resealPage is how many factors are read at once, of some hundred bytes each.
const resealPage = 100

// Sealed are the second factors in the store; it implements seal.Holder.
type Sealed struct {
	Store store.Store
}

var _ seal.Holder = Sealed{}

// Sealed implements seal.Holder.
func (Sealed) Sealed() string { return "second factors" }

// Reseal implements seal.Holder. Each factor that is to be sealed anew has a transaction of
// its own, which reads the factor again, so that factors may be spent, added and removed
// meanwhile.
func (s Sealed) Reseal(ctx context.Context, b *seal.Box) (seal.Resealed, error) {
	var done seal.Resealed
	var closed []error
	for after := ""; ; {
		rows, err := s.Store.Factors(ctx, after, resealPage)
		if err != nil {
			return done, fmt.Errorf("second factors: %w", err)
		}
		for _, row := range rows {
			changed, found, err := s.reseal(ctx, b, row)
			switch {
			case errors.Is(err, seal.ErrUnknownKey):
				closed = append(closed, fmt.Errorf("the second factor %s of the user %s is sealed under a key that was not given: add it to storage.previous_keys (AUTH_STORAGE_KEY_PREVIOUS), or set the cluster.secret under which it was made", row.ID, row.UserID))
			case errors.Is(err, seal.ErrOpen):
				closed = append(closed, fmt.Errorf("the second factor %s of the user %s is damaged: restore it, or remove it", row.ID, row.UserID))
			case err != nil:
				return done, fmt.Errorf("second factors: %w", err)
			case changed:
				done.Changed++
			case found:
				done.Current++
			}
		}
		if len(rows) < resealPage {
			return done, errors.Join(closed...)
		}
		after = rows[len(rows)-1].ID
	}
}

// reseal seals one factor anew. It reports whether that changed anything, and whether the
// factor is still there.
func (s Sealed) reseal(ctx context.Context, b *seal.Box, row store.Factor) (changed, found bool, err error) {
	if _, needed, err := b.Reseal(row.Data, place(row)); err == nil && !needed {
		return false, true, nil
	}
	err = s.Store.Update(ctx, func(r store.Records) error {
		changed, found = false, false
		now, err := r.FactorByDigest(ctx, row.Kind, row.Digest)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		found = true
		if now.Data, changed, err = b.Reseal(now.Data, place(now)); err != nil || !changed {
			return err
		}
		return r.UpdateFactor(ctx, now)
	})
	return changed, found, err
}
