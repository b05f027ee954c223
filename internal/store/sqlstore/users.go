package sqlstore

import (
	"context"
	"database/sql"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

const userColumns = `u.id, u.username, u.name_key, u.email, u.first_name, u.last_name,
	u.password_hash, u.disabled, u.epoch, u.session_epoch, u.created_at, u.updated_at, u.version,
	COALESCE((SELECT v.email FROM verified_emails v WHERE v.user_id = u.id), '')`

func readUser(scan sqldb.Scan) (u store.User, err error) {
	var disabled int
	var created, updated int64
	var verified string
	err = scan(&u.ID, &u.Username, &u.NameKey, &u.Email, &u.FirstName, &u.LastName,
		&u.PasswordHash, &disabled, &u.Epoch, &u.SessionEpoch, &created, &updated, &u.Version, &verified)
	u.Disabled = disabled != 0
	// Here and not in the statement, because databases compare texts in different ways.
	u.EmailVerified = u.Email != "" && verified == u.Email
	u.CreatedAt, u.UpdatedAt = timeOf(created), timeOf(updated)
	return u, err
}

// CreateUser implements store.Users.
func (r records) CreateUser(ctx context.Context, u store.User) error {
	return r.write(ctx, func(q sqldb.Q) error {
		if err := free(ctx, q, "users", u.ID, u.NameKey); err != nil {
			return err
		}
		if err := insert(ctx, q, `INSERT INTO users (id, username, name_key, email, first_name, last_name,
			password_hash, disabled, epoch, session_epoch, created_at, updated_at, version)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)`,
			u.ID, u.Username, u.NameKey, u.Email, u.FirstName, u.LastName,
			u.PasswordHash, bit(u.Disabled), u.Epoch, u.SessionEpoch,
			store.Micros(u.CreatedAt), store.Micros(u.UpdatedAt)); err != nil {
			return err
		}
		return verifyEmail(ctx, q, u)
	})
}

// User implements store.Users.
func (r records) User(ctx context.Context, id string) (store.User, error) {
	return one(ctx, r.q, readUser, "SELECT "+userColumns+" FROM users u WHERE u.id = ?", id)
}

// UsersWithIDs implements store.Users.
func (r records) UsersWithIDs(ctx context.Context, ids []string) (users []store.User, err error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	for some := range slices.Chunk(ids, usersAtOnce) {
		found, err := list(ctx, r.q, readUser, "SELECT "+userColumns+" FROM users u WHERE u.id IN (?"+strings.Repeat(", ?", usersAtOnce-1)+
			") ORDER BY u.id", filled(some)...)
		if err != nil {
			return nil, err
		}
		users = append(users, found...)
	}
	return users, nil
}

// UserByName implements store.Users.
func (r records) UserByName(ctx context.Context, nameKey string) (store.User, error) {
	return one(ctx, r.q, readUser, "SELECT "+userColumns+" FROM users u WHERE u.name_key = ?", nameKey)
}

// Users implements store.Users.
func (r records) Users(ctx context.Context, p store.Page) ([]store.User, error) {
	return page(ctx, r.q, readUser, p, "u.name_key", "SELECT "+userColumns+" FROM users u WHERE 1 = 1")
}

// UpdateUser implements store.Users.
func (r records) UpdateUser(ctx context.Context, u store.User) error {
	return r.write(ctx, func(q sqldb.Q) error {
		err := lockVersion(ctx, q, "users", u.ID, u.NameKey, u.Version)
		if err != nil {
			return err
		}
		if _, err := q.Exec(ctx, "UPDATE memberships SET user_key = ? WHERE user_id = ? AND user_key <> ?",
			u.NameKey, u.ID, u.NameKey); err != nil {
			return err
		}
		if err := insert(ctx, q, `UPDATE users SET username = ?, name_key = ?, email = ?, first_name = ?,
			last_name = ?, password_hash = ?, disabled = ?, updated_at = ?, version = version + 1 WHERE id = ?`,
			u.Username, u.NameKey, u.Email, u.FirstName,
			u.LastName, u.PasswordHash, bit(u.Disabled), store.Micros(u.UpdatedAt), u.ID); err != nil {
			return err
		}
		return verifyEmail(ctx, q, u)
	})
}

// verifyEmail writes whether the user's e-mail address is verified.
func verifyEmail(ctx context.Context, q sqldb.Q, u store.User) error {
	if !u.EmailVerified {
		_, err := change(ctx, q, "DELETE FROM verified_emails WHERE user_id = ?", u.ID)
		return err
	}
	_, err := q.Exec(ctx, q.Dialect().Upsert("verified_emails", []string{"user_id"}, []string{"email"}), u.ID, u.Email)
	return err
}

// NextEpoch implements store.Users.
func (r records) NextEpoch(ctx context.Context, id string, endSessions bool) (epoch int64, err error) {
	err = r.write(ctx, func(q sqldb.Q) error {
		// MySQL divides with a fraction, which is rounded when it is kept: a time that is less
		// than one after the epoch may become the epoch itself.
		now := q.Dialect().Now() + " / 1000"
		rows, err := change(ctx, q, "UPDATE users SET epoch = CASE WHEN epoch + 1 < "+now+" THEN "+now+" ELSE epoch + 1 END WHERE id = ?", id)
		if err := mustMatch(store.ErrNotFound, rows, err); err != nil {
			return err
		}
		if endSessions {
			if _, err := change(ctx, q, endSessionsOf, id); err != nil {
				return err
			}
		}
		epoch, err = one(ctx, q, readInt, "SELECT epoch FROM users WHERE id = ?", id)
		return err
	})
	return epoch, err
}

// RaiseEpoch implements store.Users.
func (r records) RaiseEpoch(ctx context.Context, id string, from, to int64, endSessions bool) (raised bool, err error) {
	err = r.write(ctx, func(q sqldb.Q) error {
		rows, err := change(ctx, q, "UPDATE users SET epoch = ? WHERE id = ? AND epoch = ?", to, id, from)
		raised = rows > 0
		if raised && endSessions {
			_, err = change(ctx, q, endSessionsOf, id)
		}
		return err
	})
	return raised, err
}

// endSessionsOf is a statement of its own: in one that changes both columns, MySQL reads the
// new epoch and the others the old one.
const endSessionsOf = "UPDATE users SET session_epoch = epoch WHERE id = ?"

// DeleteUser implements store.Users.
func (r records) DeleteUser(ctx context.Context, id string) error {
	return r.remove(ctx, "DELETE FROM users WHERE id = ?", id)
}

// AddMember implements store.Users.
func (r records) AddMember(ctx context.Context, userID, groupID string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		key, err := one(ctx, q, readString, "SELECT name_key FROM users WHERE id = ?"+q.Dialect().ForUpdate(), userID)
		if err != nil {
			return err
		}
		if _, err := one(ctx, q, readInt, "SELECT 1 FROM usergroups WHERE id = ?", groupID); err != nil {
			return err
		}
		_, err = q.Exec(ctx, q.Dialect().InsertIfAbsent("memberships",
			[]string{"user_id", "group_id"}, []string{"user_key"}), userID, groupID, key)
		return err
	})
}

// RemoveMember implements store.Users.
func (r records) RemoveMember(ctx context.Context, userID, groupID string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		_, err := change(ctx, q, "DELETE FROM memberships WHERE user_id = ? AND group_id = ?", userID, groupID)
		return err
	})
}

// GroupsOfUser implements store.Users.
func (r records) GroupsOfUser(ctx context.Context, userID string) ([]store.Group, error) {
	return list(ctx, r.q, readGroup, "SELECT "+groupColumns+` FROM memberships m
		JOIN usergroups g ON g.id = m.group_id WHERE m.user_id = ? ORDER BY g.name_key`, userID)
}

// usersAtOnce is how many users one statement is about that is about several. Their number is
// fixed, so that there is one statement.
const usersAtOnce = 50

// filled are the arguments of such a statement. There are usersAtOnce ids at most.
func filled(ids []string) []any {
	all := make([]any, usersAtOnce)
	for i := range all {
		all[i] = ids[min(i, len(ids)-1)]
	}
	return all
}

// GroupsOfUsers implements store.Users.
func (r records) GroupsOfUsers(ctx context.Context, userIDs []string) (map[string][]store.Group, error) {
	type membership struct {
		user  string
		group store.Group
	}
	all := make(map[string][]store.Group)
	for some := range slices.Chunk(userIDs, usersAtOnce) {
		found, err := list(ctx, r.q, func(scan sqldb.Scan) (m membership, err error) {
			m.group, err = readGroup(func(group ...any) error { return scan(append(group, &m.user)...) })
			return m, err
		}, "SELECT "+groupColumns+`, m.user_id FROM memberships m JOIN usergroups g ON g.id = m.group_id
			WHERE m.user_id IN (?`+strings.Repeat(", ?", usersAtOnce-1)+`) ORDER BY g.name_key`, filled(some)...)
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			all[m.user] = append(all[m.user], m.group)
		}
	}
	return all, nil
}

// GrantsOfUser implements store.Users.
func (r records) GrantsOfUser(ctx context.Context, userID string) ([]store.Grant, error) {
	return list(ctx, r.q, func(scan sqldb.Scan) (g store.Grant, err error) {
		g.Claim, err = readClaim(func(claim ...any) (err error) {
			g.Group, err = readGroup(func(group ...any) error { return scan(append(claim, group...)...) })
			return err
		})
		return g, err
	}, "SELECT "+claimColumns+", "+groupColumns+` FROM memberships m
		JOIN usergroups g ON g.id = m.group_id
		JOIN group_claims gc ON gc.group_id = m.group_id
		JOIN claims c ON c.id = gc.claim_id
		WHERE m.user_id = ? ORDER BY c.short_name, c.held_value, c.id, g.name_key`, userID)
}

// MembersOfGroup implements store.Users.
func (r records) MembersOfGroup(ctx context.Context, groupID string, p store.Page) ([]store.User, error) {
	return page(ctx, r.q, readUser, p, "m.user_key", "SELECT "+userColumns+` FROM memberships m
		JOIN users u ON u.id = m.user_id WHERE m.group_id = ?`, groupID)
}

// ClaimsOfUser implements store.Users.
func (r records) ClaimsOfUser(ctx context.Context, userID string) ([]store.Claim, error) {
	return list(ctx, r.q, readClaim, "SELECT DISTINCT "+claimColumns+` FROM memberships m
		JOIN group_claims gc ON gc.group_id = m.group_id
		JOIN claims c ON c.id = gc.claim_id
		WHERE m.user_id = ? ORDER BY c.short_name, c.held_value, c.id`, userID)
}

// ClaimsOfMembers implements store.Users. It finds the groups first: there are fewer of
// them than of memberships.
func (r records) ClaimsOfMembers(ctx context.Context, groupID string) ([]store.Claim, error) {
	return list(ctx, r.q, readClaim, "SELECT DISTINCT "+claimColumns+` FROM (
			SELECT DISTINCT o.group_id FROM memberships m JOIN memberships o ON o.user_id = m.user_id WHERE m.group_id = ?) g
		JOIN group_claims gc ON gc.group_id = g.group_id
		JOIN claims c ON c.id = gc.claim_id
		ORDER BY c.short_name, c.held_value, c.id`, groupID)
}

// UserWithClaims implements store.Users. On every database one statement reads one
// snapshot.
func (r records) UserWithClaims(ctx context.Context, id string) (store.User, []store.Claim, error) {
	var user store.User
	var claims []store.Claim
	rows, err := list(ctx, r.q, func(scan sqldb.Scan) (struct{}, error) {
		var id, name, key, short, value sql.NullString
		var created, updated, version sql.NullInt64
		u, err := readUser(func(dest ...any) error {
			return scan(append(dest, &id, &name, &key, &short, &value, &created, &updated, &version)...)
		})
		user = u
		// A claim from several groups has several rows, one after the other.
		if n := len(claims); id.Valid && (n == 0 || claims[n-1].ID != id.String) {
			claims = append(claims, store.Claim{
				ID: id.String, Name: name.String, NameKey: key.String, ShortName: short.String, Value: value.String,
				CreatedAt: timeOf(created.Int64), UpdatedAt: timeOf(updated.Int64), Version: version.Int64,
			})
		}
		return struct{}{}, err
	}, "SELECT "+userColumns+", "+claimColumns+` FROM users u
		LEFT JOIN memberships m ON m.user_id = u.id
		LEFT JOIN group_claims gc ON gc.group_id = m.group_id
		LEFT JOIN claims c ON c.id = gc.claim_id
		WHERE u.id = ? ORDER BY c.short_name, c.held_value, c.id`, id)
	if err == nil && len(rows) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.User{}, nil, err
	}
	return user, claims, nil
}

// AnyoneHolds implements store.Users. It looks for the first enabled member of each group
// that gives the claim, in the order of an index. The OFFSET keeps PostgreSQL from
// joining the subquery: a join reads all memberships if the planner expects large groups,
// which takes longest when this group is small.
func (r records) AnyoneHolds(ctx context.Context, shortName, value string) (bool, error) {
	return exists(ctx, r.q, anyoneHolds("c.short_name = ? AND c.held_value = ?"), shortName, value)
}

// AnyoneHoldsAny implements store.Users.
func (r records) AnyoneHoldsAny(ctx context.Context, shortName string) (bool, error) {
	return exists(ctx, r.q, anyoneHolds("c.short_name = ?"), shortName)
}

// PasswordHashes implements store.Users. The cost of an Argon2id hash is of no interest, and that of
// bcrypt has its place.
func (r records) PasswordHashes(ctx context.Context) (map[string]int64, error) {
	type part struct {
		begins string
		users  int64
	}
	parts, err := list(ctx, r.q, func(scan sqldb.Scan) (p part, err error) { err = scan(&p.begins, &p.users); return p, err },
		`SELECT k.begins, COUNT(*) FROM (
			SELECT SUBSTR(password_hash, 1, CASE WHEN password_hash LIKE '$argon2%' THEN 9 WHEN password_hash LIKE '$2%' THEN 7 ELSE ? END) AS begins FROM users
		) k GROUP BY k.begins`, store.HashBegins)
	all := make(map[string]int64, len(parts))
	for _, p := range parts {
		all[p.begins] += p.users
	}
	return all, err
}

func anyoneHolds(which string) string {
	return `SELECT 1 FROM claims c
		JOIN group_claims gc ON gc.claim_id = c.id
		WHERE ` + which + ` AND EXISTS (
			SELECT 1 FROM memberships m JOIN users u ON u.id = m.user_id
			WHERE m.group_id = gc.group_id AND u.disabled = 0
			ORDER BY m.user_key LIMIT 1 OFFSET 0)
		LIMIT 1`
}

// free returns ErrConflict if the id or the name of a new user, group or claim is taken.
// It is a UNION, because with OR not every database uses both indexes.
func free(ctx context.Context, q sqldb.Q, table, id, nameKey string) error {
	taken, err := exists(ctx, q, "SELECT 1 FROM "+table+" WHERE id = ? UNION ALL SELECT 1 FROM "+table+" WHERE name_key = ?",
		id, nameKey)
	if err == nil && taken {
		return store.ErrConflict
	}
	return err
}

// lockVersion locks a user, group or claim. It returns ErrStale if the version has
// changed, and ErrConflict if the name that the record is to have is taken.
func lockVersion(ctx context.Context, q sqldb.Q, table, id, nameKey string, version int64) error {
	type row struct {
		key     string
		version int64
	}
	found, err := list(ctx, q, func(scan sqldb.Scan) (r row, err error) { return r, scan(&r.key, &r.version) },
		"SELECT name_key, version FROM "+table+" WHERE id = ?"+q.Dialect().ForUpdate(), id)
	if err != nil {
		return err
	}
	if len(found) == 0 || found[0].version != version {
		return store.ErrStale
	}
	if found[0].key == nameKey {
		return nil
	}
	taken, err := exists(ctx, q, "SELECT 1 FROM "+table+" WHERE name_key = ?", nameKey)
	if err == nil && taken {
		return store.ErrConflict
	}
	return err
}

// remove deletes one row by id, or returns ErrNotFound.
func (r records) remove(ctx context.Context, query, id string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		rows, err := change(ctx, q, query, id)
		return mustMatch(store.ErrNotFound, rows, err)
	})
}

func readString(scan sqldb.Scan) (s string, err error) { return s, scan(&s) }

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
