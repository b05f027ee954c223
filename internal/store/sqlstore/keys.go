package sqlstore

import (
	"context"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

const selectKeys = `SELECT k.id, k.instance, k.algorithm, k.public_jwk, k.sealed,
	k.created_at, k.activate_at, k.retire_at, k.remove_at, k.revoked_at, r.mac, s.mac, s.source_mac, COALESCE(r.version, 0)
	FROM signing_keys k LEFT JOIN registered_keys r ON r.id = k.id LEFT JOIN key_states s ON s.id = k.id ORDER BY k.created_at, k.id`

func readKey(scan sqldb.Scan) (k store.RegisteredKey, err error) {
	var created, activate, retire, remove, revoked int64
	err = scan(&k.ID, &k.Instance, &k.Algorithm, &k.PublicJWK, &k.Sealed,
		&created, &activate, &retire, &remove, &revoked, &k.MAC, &k.StateMAC, &k.SourceMAC, &k.Version)
	k.CreatedAt, k.ActivateAt, k.RetireAt = timeOf(created), timeOf(activate), timeOf(retire)
	k.RemoveAt, k.RevokedAt = timeOf(remove), timeOf(revoked)
	return k, err
}

// CreateKey implements store.Keys. The kid of a deleted key stays in used_kids.
func (r records) CreateKey(ctx context.Context, k store.Key) error {
	return r.write(ctx, func(q sqldb.Q) error {
		version, err := raiseRegistry(ctx, q)
		if err != nil {
			return err
		}
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
			store.Micros(k.CreatedAt), store.Micros(k.ActivateAt), store.Micros(k.RetireAt),
			store.Micros(k.RemoveAt), store.Micros(k.RevokedAt))
		if err != nil {
			return err
		}
		_, err = q.Exec(ctx, q.Dialect().Upsert("registered_keys", []string{"id"}, []string{"mac", "version"}), k.ID, k.MAC, version)
		if err != nil {
			return err
		}
		return putKeyState(ctx, q, k)
	})
}

func putKeyState(ctx context.Context, q sqldb.Q, k store.Key) error {
	_, err := q.Exec(ctx, q.Dialect().Upsert("key_states", []string{"id"}, []string{"mac", "source_mac"}), k.ID, k.StateMAC, k.SourceMAC)
	return err
}

// Keys implements store.Keys. A transaction that reads the keys is about to change them,
// so it locks the registry's head first, as every change of a key does. Of two
// transactions that had both read the keys, only one could go on.
func (r records) Keys(ctx context.Context) ([]store.Key, error) {
	if lock := r.q.Dialect().ForUpdate(); r.db == nil && lock != "" {
		if _, err := one(ctx, r.q, readInt, "SELECT version FROM registry_head WHERE id = 1"+lock); err != nil {
			return nil, err
		}
	}
	return list(ctx, r.prompt, func(scan sqldb.Scan) (store.Key, error) {
		k, err := readKey(scan)
		return k.Key, err
	}, selectKeys)
}

// UpdateKey implements store.Keys.
func (r records) UpdateKey(ctx context.Context, k store.Key) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if _, err := raiseRegistry(ctx, q); err != nil {
			return err
		}
		rows, err := q.Exec(ctx, `UPDATE signing_keys SET instance = ?, algorithm = ?, public_jwk = ?, sealed = ?, created_at = ?, activate_at = ?,
			retire_at = ?, remove_at = ?, revoked_at = ? WHERE id = ?`,
			k.Instance, k.Algorithm, k.PublicJWK, k.Sealed, store.Micros(k.CreatedAt), store.Micros(k.ActivateAt),
			store.Micros(k.RetireAt), store.Micros(k.RemoveAt), store.Micros(k.RevokedAt), k.ID)
		if err := mustMatch(store.ErrNotFound, rows, err); err != nil {
			return err
		}
		_, err = q.Exec(ctx, q.Dialect().Upsert("registered_keys", []string{"id"}, []string{"mac"}), k.ID, k.MAC)
		if err != nil {
			return err
		}
		return putKeyState(ctx, q, k)
	})
}

// DeleteKey implements store.Keys.
func (r records) DeleteKey(ctx context.Context, id string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if _, err := raiseRegistry(ctx, q); err != nil {
			return err
		}
		rows, err := change(ctx, q, "DELETE FROM signing_keys WHERE id = ?", id)
		if err := mustMatch(store.ErrNotFound, rows, err); err != nil {
			return err
		}
		for _, statement := range []string{"DELETE FROM registered_keys WHERE id = ?", "DELETE FROM key_states WHERE id = ?"} {
			if _, err := q.Exec(ctx, statement, id); err != nil {
				return err
			}
		}
		return nil
	})
}
