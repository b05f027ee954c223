package sqlstore

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

const selectFactors = "SELECT f.id, f.user_id, f.kind, f.digest, f.data, f.created_at, f.version FROM factors f"

func readFactor(scan sqldb.Scan) (f store.Factor, err error) {
	var created int64
	err = scan(&f.ID, &f.UserID, &f.Kind, &f.Digest, &f.Data, &created, &f.Version)
	f.CreatedAt = timeOf(created)
	return f, err
}

// CreateFactor implements store.Factors. It locks the user: factors of one user are
// created one after the other.
func (r records) CreateFactor(ctx context.Context, f store.Factor) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if _, err := one(ctx, q, readString, "SELECT id FROM users WHERE id = ?"+q.Dialect().ForUpdate(), f.UserID); err != nil {
			return err
		}
		taken, err := exists(ctx, q, "SELECT 1 FROM factors WHERE id = ? UNION ALL SELECT 1 FROM factors WHERE kind = ? AND digest = ?",
			f.ID, f.Kind, f.Digest)
		if err != nil {
			return err
		}
		if taken {
			return store.ErrConflict
		}
		return insert(ctx, q, "INSERT INTO factors (id, user_id, kind, digest, data, created_at, version) VALUES (?, ?, ?, ?, ?, ?, 1)",
			f.ID, f.UserID, f.Kind, f.Digest, f.Data, store.Micros(f.CreatedAt))
	})
}

// FactorsOfUser implements store.Factors.
func (r records) FactorsOfUser(ctx context.Context, userID string) ([]store.Factor, error) {
	return list(ctx, r.q, readFactor, selectFactors+" WHERE f.user_id = ? ORDER BY f.id"+r.lock(), userID)
}

// FactorByDigest implements store.Factors.
func (r records) FactorByDigest(ctx context.Context, kind, digest string) (store.Factor, error) {
	return one(ctx, r.q, readFactor, selectFactors+" WHERE f.kind = ? AND f.digest = ?"+r.lock(), kind, digest)
}

// UpdateFactor implements store.Factors. The version is compared here and not in the
// statement, because databases count the rows of an UPDATE in different ways.
func (r records) UpdateFactor(ctx context.Context, f store.Factor) error {
	return r.write(ctx, func(q sqldb.Q) error {
		version, err := lockFactor(ctx, q, f.ID)
		if errors.Is(err, store.ErrNotFound) || err == nil && version != f.Version {
			return store.ErrStale
		}
		if err != nil {
			return err
		}
		_, err = q.Exec(ctx, "UPDATE factors SET data = ?, version = version + 1 WHERE id = ?", f.Data, f.ID)
		return err
	})
}

// DeleteFactor implements store.Factors. Of concurrent calls, the one that has the lock
// finds the row.
func (r records) DeleteFactor(ctx context.Context, id string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if _, err := lockFactor(ctx, q, id); err != nil {
			return err
		}
		_, err := q.Exec(ctx, "DELETE FROM factors WHERE id = ?", id)
		return err
	})
}

// Factors implements store.Factors.
func (r records) Factors(ctx context.Context, after string, limit int) ([]store.Factor, error) {
	return list(ctx, r.q, readFactor, selectFactors+" WHERE f.id > ? ORDER BY f.id LIMIT ?", after, limit)
}

// lockFactor locks a factor and returns its version, or ErrNotFound.
func lockFactor(ctx context.Context, q sqldb.Q, id string) (int64, error) {
	return one(ctx, q, readInt, "SELECT version FROM factors WHERE id = ?"+q.Dialect().ForUpdate(), id)
}

// lock ends a SELECT. Inside a transaction, it locks the rows that the transaction is about
// to change, so that contenders queue up.
func (r records) lock() string {
	if r.db != nil {
		return ""
	}
	return r.q.Dialect().ForUpdate()
}
