package sqlstore

import (
	"context"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

func readKey(scan sqldb.Scan) (k store.Key, err error) {
	var created, activate, retire, remove, revoked int64
	err = scan(&k.ID, &k.Instance, &k.Algorithm, &k.PublicJWK, &k.Sealed,
		&created, &activate, &retire, &remove, &revoked)
	k.CreatedAt, k.ActivateAt, k.RetireAt = sqldb.Time(created), sqldb.Time(activate), sqldb.Time(retire)
	k.RemoveAt, k.RevokedAt = sqldb.Time(remove), sqldb.Time(revoked)
	return k, err
}

// CreateKey implements store.Keys. Names of keys that are gone stay in used_kids.
func (r records) CreateKey(ctx context.Context, k store.Key) error {
	return r.write(ctx, func(q sqldb.Q) error {
		used, err := exists(ctx, q, "SELECT 1 FROM used_kids WHERE id = ?", k.ID)
		if err != nil {
			return err
		}
		if used {
			return store.ErrConflict
		}
		if err := insert(ctx, q, "INSERT INTO used_kids (id) VALUES (?)", k.ID); err != nil {
			return err
		}
		_, err = q.Exec(ctx, `INSERT INTO signing_keys (id, instance, algorithm, public_jwk, sealed,
			created_at, activate_at, retire_at, remove_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			k.ID, k.Instance, k.Algorithm, k.PublicJWK, k.Sealed,
			sqldb.Micros(k.CreatedAt), sqldb.Micros(k.ActivateAt), sqldb.Micros(k.RetireAt),
			sqldb.Micros(k.RemoveAt), sqldb.Micros(k.RevokedAt))
		return err
	})
}

// Keys implements store.Keys.
func (r records) Keys(ctx context.Context) ([]store.Key, error) {
	return list(ctx, r.q, readKey, `SELECT id, instance, algorithm, public_jwk, sealed,
		created_at, activate_at, retire_at, remove_at, revoked_at FROM signing_keys ORDER BY created_at, id`)
}

// UpdateKey implements store.Keys.
func (r records) UpdateKey(ctx context.Context, k store.Key) error {
	return r.write(ctx, func(q sqldb.Q) error {
		rows, err := q.Exec(ctx, `UPDATE signing_keys SET sealed = ?, created_at = ?, activate_at = ?,
			retire_at = ?, remove_at = ?, revoked_at = ? WHERE id = ?`,
			k.Sealed, sqldb.Micros(k.CreatedAt), sqldb.Micros(k.ActivateAt),
			sqldb.Micros(k.RetireAt), sqldb.Micros(k.RemoveAt), sqldb.Micros(k.RevokedAt), k.ID)
		return mustMatch(store.ErrNotFound, rows, err)
	})
}

// DeleteKey implements store.Keys.
func (r records) DeleteKey(ctx context.Context, id string) error {
	return r.remove(ctx, "DELETE FROM signing_keys WHERE id = ?", id)
}
