package sqlstore

import (
	"context"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

const markColumns = "k.kind, k.digest, k.user_id, k.until_at"

func readMark(scan sqldb.Scan) (m store.Mark, err error) {
	var until int64
	err = scan(&m.Kind, &m.Digest, &m.UserID, &until)
	m.Until = timeOf(until)
	return m, err
}

// MarksOfUser implements store.Marks.
func (r records) MarksOfUser(ctx context.Context, userID string) ([]store.Mark, error) {
	return list(ctx, r.q, readMark, "SELECT "+markColumns+" FROM identity_marks k WHERE k.user_id = ? ORDER BY k.kind, k.digest", userID)
}

// TakenMark implements store.Marks. The transaction is serializable: of two that find
// nothing and then write, the second one runs again.
func (r records) TakenMark(ctx context.Context, kind, digest, userID string, at time.Time) (store.Mark, error) {
	return one(ctx, r.q, readMark, "SELECT "+markColumns+` FROM identity_marks k
		WHERE k.digest = ? AND k.kind = ? AND k.user_id <> ?
			AND (k.until_at > ? OR k.until_at = 0 AND EXISTS (SELECT 1 FROM users u WHERE u.id = k.user_id))
		ORDER BY k.until_at, k.user_id LIMIT 1`, digest, kind, userID, store.Micros(at))
}

// PutMark implements store.Marks.
func (r records) PutMark(ctx context.Context, m store.Mark) error {
	return r.write(ctx, func(q sqldb.Q) error {
		_, err := q.Exec(ctx, q.Dialect().Upsert("identity_marks", []string{"digest", "kind", "user_id"}, []string{"until_at"}),
			m.Digest, m.Kind, m.UserID, store.Micros(m.Until))
		return err
	})
}

// DeleteMark implements store.Marks.
func (r records) DeleteMark(ctx context.Context, kind, digest, userID string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		_, err := change(ctx, q, "DELETE FROM identity_marks WHERE digest = ? AND kind = ? AND user_id = ?", digest, kind, userID)
		return err
	})
}

// DeleteExpiredMarks implements store.Marks.
func (r records) DeleteExpiredMarks(ctx context.Context, t time.Time, limit int) (n int, err error) {
	err = r.write(ctx, func(q sqldb.Q) error {
		rows, err := q.Exec(ctx, q.Dialect().DeleteSome("identity_marks", "digest, kind, user_id", "until_at > 0 AND until_at < ?", "until_at"),
			store.Micros(t), limit)
		n = int(rows)
		return err
	})
	return n, err
}

// ClaimsOfMarked implements store.Marks.
func (r records) ClaimsOfMarked(ctx context.Context, digest, userID string) ([]store.Claim, error) {
	return list(ctx, r.q, readClaim, "SELECT DISTINCT "+claimColumns+` FROM identity_marks k
		JOIN memberships m ON m.user_id = k.user_id
		JOIN group_claims gc ON gc.group_id = m.group_id
		JOIN claims c ON c.id = gc.claim_id
		WHERE k.digest = ? AND k.until_at = 0 AND k.user_id <> ?
		ORDER BY c.short_name, c.held_value, c.id`, digest, userID)
}

// UsersNamed implements store.Marks. It is a UNION, because with OR not every database uses
// both indexes.
func (r records) UsersNamed(ctx context.Context, nameKey, kind, digest string) ([]store.User, error) {
	return list(ctx, r.q, readUser, "SELECT "+userColumns+` FROM (
			SELECT id FROM users WHERE name_key = ?
			UNION ALL SELECT user_id FROM identity_marks WHERE digest = ? AND kind = ? AND until_at = 0
		) named JOIN users u ON u.id = named.id LIMIT ?`,
		nameKey, digest, kind, store.MaxNamed+1)
}

// UsersWithoutMark implements store.Marks.
func (r records) UsersWithoutMark(ctx context.Context, kind, after string, limit int) ([]store.User, error) {
	return list(ctx, r.q, readUser, "SELECT "+userColumns+` FROM users u WHERE u.id > ? AND NOT EXISTS (
			SELECT 1 FROM identity_marks k WHERE k.user_id = u.id AND k.kind = ? AND k.until_at = 0)
		ORDER BY u.id LIMIT ?`, after, kind, limit)
}
