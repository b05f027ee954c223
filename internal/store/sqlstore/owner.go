package sqlstore

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

// claimsLikeUsers are the columns of a claim in the places of userColumns. Each type fits.
const claimsLikeUsers = "c.id, c.name, c.name_key, c.short_name, c.held_value, '', '', 0, 0, 0, c.created_at, c.updated_at, c.version, ''"

// SelectWithOwner returns a SELECT of one row of another table and of the user to whom it
// belongs, with their claims: on every database one statement reads one snapshot. It finds
// nothing if there is no such row, or no such user. Its arguments are those of where, and then
// the user's id. A claim has a row of its own, in which none stands in the place of columns.
func SelectWithOwner(columns, none, table, owner, where string) string {
	return "SELECT " + columns + ", " + userColumns + " FROM " + table + " JOIN users u ON u.id = " + owner + " WHERE " + where +
		" UNION ALL SELECT " + none + ", " + claimsLikeUsers + ` FROM memberships m
		JOIN group_claims gc ON gc.group_id = m.group_id
		JOIN claims c ON c.id = gc.claim_id
		WHERE m.user_id = ?`
}

// ReadWithOwner runs a SELECT of SelectWithOwner. read reads the columns of the other table
// and reports whether they are those of its row. Without a row the Subject is nil.
func ReadWithOwner(ctx context.Context, q sqldb.Q, read func(sqldb.Scan) (bool, error), query string, args ...any) (*store.Subject, error) {
	var found *store.Subject
	var claims []store.Claim
	_, err := sqldb.All(ctx, q, func(scan sqldb.Scan) (none struct{}, err error) {
		var isRow bool
		u, err := readUser(func(user ...any) (err error) {
			isRow, err = read(func(other ...any) error { return scan(append(other, user...)...) })
			return err
		})
		if isRow {
			found = &store.Subject{User: u}
			return none, err
		}
		claims = append(claims, store.Claim{
			ID: u.ID, Name: u.Username, NameKey: u.NameKey, ShortName: u.Email, Value: u.FirstName,
			CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, Version: u.Version,
		})
		return none, err
	}, query, args...)
	if err != nil || found == nil {
		return nil, err
	}
	slices.SortFunc(claims, func(a, b store.Claim) int {
		return cmp.Or(strings.Compare(a.ShortName, b.ShortName), strings.Compare(a.Value, b.Value), strings.Compare(a.ID, b.ID))
	})
	// A claim from several groups has several rows.
	found.Claims = slices.CompactFunc(claims, func(a, b store.Claim) bool { return a.ID == b.ID })
	return found, nil
}
