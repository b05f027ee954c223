package sqlstore

import (
	"context"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

const claimColumns = "c.id, c.name, c.name_key, c.short_name, c.held_value, c.created_at, c.updated_at, c.version"

func readClaim(scan sqldb.Scan) (c store.Claim, err error) {
	var created, updated int64
	err = scan(&c.ID, &c.Name, &c.NameKey, &c.ShortName, &c.Value, &created, &updated, &c.Version)
	c.CreatedAt, c.UpdatedAt = timeOf(created), timeOf(updated)
	return c, err
}

// CreateClaim implements store.Claims.
func (r records) CreateClaim(ctx context.Context, c store.Claim) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if err := free(ctx, q, "claims", c.ID, c.NameKey); err != nil {
			return err
		}
		return insert(ctx, q, `INSERT INTO claims (id, name, name_key, short_name, held_value, created_at, updated_at, version)
			VALUES (?, ?, ?, ?, ?, ?, ?, 1)`,
			c.ID, c.Name, c.NameKey, c.ShortName, c.Value, store.Micros(c.CreatedAt), store.Micros(c.UpdatedAt))
	})
}

// Claim implements store.Claims.
func (r records) Claim(ctx context.Context, id string) (store.Claim, error) {
	return one(ctx, r.q, readClaim, "SELECT "+claimColumns+" FROM claims c WHERE c.id = ?", id)
}

// ClaimByName implements store.Claims.
func (r records) ClaimByName(ctx context.Context, nameKey string) (store.Claim, error) {
	return one(ctx, r.q, readClaim, "SELECT "+claimColumns+" FROM claims c WHERE c.name_key = ?", nameKey)
}

// Claims implements store.Claims.
func (r records) Claims(ctx context.Context, p store.Page) ([]store.Claim, error) {
	return page(ctx, r.q, readClaim, p, "c.name_key", "SELECT "+claimColumns+" FROM claims c WHERE 1 = 1")
}

// UpdateClaim implements store.Claims.
func (r records) UpdateClaim(ctx context.Context, c store.Claim) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if err := lockVersion(ctx, q, "claims", c.ID, c.NameKey, c.Version); err != nil {
			return err
		}
		return insert(ctx, q, `UPDATE claims SET name = ?, name_key = ?, short_name = ?, held_value = ?,
			updated_at = ?, version = version + 1 WHERE id = ?`,
			c.Name, c.NameKey, c.ShortName, c.Value, store.Micros(c.UpdatedAt), c.ID)
	})
}

// DeleteClaim implements store.Claims.
func (r records) DeleteClaim(ctx context.Context, id string) error {
	return r.remove(ctx, "DELETE FROM claims WHERE id = ?", id)
}

// GroupsWithClaim implements store.Claims.
func (r records) GroupsWithClaim(ctx context.Context, claimID string) ([]store.Group, error) {
	return list(ctx, r.q, readGroup, "SELECT "+groupColumns+` FROM group_claims gc
		JOIN usergroups g ON g.id = gc.group_id WHERE gc.claim_id = ? ORDER BY g.name_key`, claimID)
}
