package sqlstore

import (
	"context"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

const groupColumns = "g.id, g.name, g.name_key, g.created_at, g.updated_at, g.version"

func readGroup(scan sqldb.Scan) (g store.Group, err error) {
	var created, updated int64
	err = scan(&g.ID, &g.Name, &g.NameKey, &created, &updated, &g.Version)
	g.CreatedAt, g.UpdatedAt = timeOf(created), timeOf(updated)
	return g, err
}

// CreateGroup implements store.Groups.
func (r records) CreateGroup(ctx context.Context, g store.Group) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if err := free(ctx, q, "usergroups", g.ID, g.NameKey); err != nil {
			return err
		}
		return insert(ctx, q, `INSERT INTO usergroups (id, name, name_key, created_at, updated_at, version)
			VALUES (?, ?, ?, ?, ?, 1)`,
			g.ID, g.Name, g.NameKey, store.Micros(g.CreatedAt), store.Micros(g.UpdatedAt))
	})
}

// Group implements store.Groups.
func (r records) Group(ctx context.Context, id string) (store.Group, error) {
	return one(ctx, r.q, readGroup, "SELECT "+groupColumns+" FROM usergroups g WHERE g.id = ?", id)
}

// GroupByName implements store.Groups.
func (r records) GroupByName(ctx context.Context, nameKey string) (store.Group, error) {
	return one(ctx, r.q, readGroup, "SELECT "+groupColumns+" FROM usergroups g WHERE g.name_key = ?", nameKey)
}

// Groups implements store.Groups.
func (r records) Groups(ctx context.Context, p store.Page) ([]store.Group, error) {
	return page(ctx, r.q, readGroup, p, "g.name_key", "SELECT "+groupColumns+" FROM usergroups g WHERE 1 = 1")
}

// UpdateGroup implements store.Groups.
func (r records) UpdateGroup(ctx context.Context, g store.Group) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if err := lockVersion(ctx, q, "usergroups", g.ID, g.NameKey, g.Version); err != nil {
			return err
		}
		return insert(ctx, q, "UPDATE usergroups SET name = ?, name_key = ?, updated_at = ?, version = version + 1 WHERE id = ?",
			g.Name, g.NameKey, store.Micros(g.UpdatedAt), g.ID)
	})
}

// DeleteGroup implements store.Groups.
func (r records) DeleteGroup(ctx context.Context, id string) error {
	return r.remove(ctx, "DELETE FROM usergroups WHERE id = ?", id)
}

// AddClaim implements store.Groups.
func (r records) AddClaim(ctx context.Context, groupID, claimID string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if _, err := one(ctx, q, readInt, "SELECT 1 FROM usergroups WHERE id = ?", groupID); err != nil {
			return err
		}
		if _, err := one(ctx, q, readInt, "SELECT 1 FROM claims WHERE id = ?", claimID); err != nil {
			return err
		}
		_, err := q.Exec(ctx, q.Dialect().InsertIfAbsent("group_claims",
			[]string{"group_id", "claim_id"}, nil), groupID, claimID)
		return err
	})
}

// RemoveClaim implements store.Groups.
func (r records) RemoveClaim(ctx context.Context, groupID, claimID string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		_, err := change(ctx, q, "DELETE FROM group_claims WHERE group_id = ? AND claim_id = ?", groupID, claimID)
		return err
	})
}

// ClaimsOfGroup implements store.Groups.
func (r records) ClaimsOfGroup(ctx context.Context, groupID string) ([]store.Claim, error) {
	return list(ctx, r.q, readClaim, "SELECT "+claimColumns+` FROM group_claims gc
		JOIN claims c ON c.id = gc.claim_id WHERE gc.group_id = ?
		ORDER BY c.short_name, c.held_value, c.id`, groupID)
}
