package stoke

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/userfile"
)

// page is how many users are read at a time.
const page = 500

// A Database is that of a Stoke. It may be used by one goroutine at a time.
type Database struct {
	db      *sqldb.Foreign
	sources bool // users have one
	Left    Left
}

// Left counts what a Database has that Each does not give to the sink.
type Left struct {
	GroupLinks int // from groups of LDAP and other sources to groups
	NoPassword int // users whose password another source knows
}

// Open opens the database of the URL, which is one as in database.url, and makes sure that it is
// Stoke's.
func Open(ctx context.Context, url string) (_ *Database, err error) {
	db, err := sqldb.OpenForeign(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("the database of Stoke: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	d := &Database{db: db}
	for _, table := range []struct {
		name    string
		columns []string
	}{
		{"users", []string{"id", "fname", "lname", "email", "username", "password", "salt"}},
		{"claim_groups", []string{"id", "name"}},
		{"claims", []string{"id", "name", "short_name", "value"}},
		{"claim_group_users", []string{"claim_group_id", "user_id"}},
		{"claim_claim_groups", []string{"claim_id", "claim_group_id"}},
		{"group_links", []string{"id"}},
	} {
		has, err := db.Columns(ctx, table.name)
		if err != nil {
			return nil, fmt.Errorf("this is no database of Stoke: %w", err)
		}
		for _, column := range table.columns {
			if !slices.Contains(has, column) {
				return nil, fmt.Errorf("this is no database of Stoke: the table %s has no column %s", table.name, column)
			}
		}
		if table.name == "users" {
			d.sources = slices.Contains(has, "source")
		}
	}
	return d, nil
}

// Close closes the database.
func (d *Database) Close() error { return d.db.Close() }

// Each gives all claims, groups and users to a sink. The rows have no lines. Of the users, and what
// they are members of, it holds one page at a time.
func (d *Database) Each(ctx context.Context, to userfile.Sink) error {
	d.Left = Left{}
	claims, err := d.claims(ctx)
	if err != nil {
		return fmt.Errorf("the claims of Stoke: %w", err)
	}
	for _, id := range sortedKeys(claims) {
		if err := to.Claim(claims[id]); err != nil {
			return err
		}
	}
	groups, err := d.groups(ctx, claims)
	if err != nil {
		return fmt.Errorf("the groups of Stoke: %w", err)
	}
	for _, id := range sortedKeys(groups) {
		if err := to.Group(groups[id]); err != nil {
			return err
		}
	}
	if err := d.db.Each(ctx, "SELECT COUNT(*) FROM group_links", nil, func(scan sqldb.Scan) error { return scan(&d.Left.GroupLinks) }); err != nil {
		return fmt.Errorf("the links of Stoke: %w", err)
	}
	after := int64(-1 << 62)
	for {
		users, err := d.users(ctx, after)
		if err == nil && len(users) > 0 {
			err = d.memberships(ctx, users, after, users[len(users)-1].id, groups)
		}
		if err != nil {
			return fmt.Errorf("the users of Stoke: %w", err)
		}
		for _, u := range users {
			if err := to.User(u.row()); err != nil {
				return err
			}
			if !u.password.Valid {
				d.Left.NoPassword++
			}
		}
		if len(users) < page {
			return nil
		}
		after = users[len(users)-1].id
	}
}

func sortedKeys[T any](of map[int64]T) []int64 {
	keys := make([]int64, 0, len(of))
	for id := range of {
		keys = append(keys, id)
	}
	slices.Sort(keys)
	return keys
}

func (d *Database) claims(ctx context.Context) (map[int64]userfile.Claim, error) {
	claims := map[int64]userfile.Claim{}
	return claims, d.db.Each(ctx, "SELECT id, name, short_name, value FROM claims", nil, func(scan sqldb.Scan) error {
		var id int64
		var c userfile.Claim
		err := scan(&id, &c.Name, &c.ShortName, &c.Value)
		claims[id] = c
		return err
	})
}

// groups returns the groups with the names of their claims.
func (d *Database) groups(ctx context.Context, claims map[int64]userfile.Claim) (map[int64]userfile.Group, error) {
	groups := map[int64]userfile.Group{}
	err := d.db.Each(ctx, "SELECT id, name FROM claim_groups", nil, func(scan sqldb.Scan) error {
		var id int64
		var g userfile.Group
		err := scan(&id, &g.Name)
		groups[id] = g
		return err
	})
	if err != nil {
		return nil, err
	}
	return groups, d.db.Each(ctx, "SELECT claim_group_id, claim_id FROM claim_claim_groups ORDER BY claim_group_id, claim_id", nil, func(scan sqldb.Scan) error {
		var group, claim int64
		if err := scan(&group, &claim); err != nil {
			return err
		}
		if g, ok := groups[group]; ok { // else a group that is gone, where nothing keeps keys together
			g.Claims = append(g.Claims, claims[claim].Name)
			groups[group] = g
		}
		return nil
	})
}

// A user is a row of the table.
type user struct {
	id             int64
	password, salt sql.NullString
	userfile.User
}

// users returns the next page.
func (d *Database) users(ctx context.Context, after int64) (users []*user, err error) {
	source := "'LOCAL'"
	if d.sources {
		source = "source"
	}
	err = d.db.Each(ctx, "SELECT id, username, email, fname, lname, password, salt, "+source+" FROM users WHERE id > ? ORDER BY id LIMIT ?",
		[]any{after, page}, func(scan sqldb.Scan) error {
			var u user
			var from string
			err := scan(&u.id, &u.Username, &u.Email, &u.FirstName, &u.LastName, &u.password, &u.salt, &from)
			// Stoke lets nobody else in by a password of its own.
			u.password.Valid = u.password.String != "" && from == "LOCAL"
			users = append(users, &u)
			return err
		})
	return users, err
}

// memberships adds the names of their groups to the users of a page, who have the ids after one and up
// to another.
func (d *Database) memberships(ctx context.Context, users []*user, after, last int64, groups map[int64]userfile.Group) error {
	return d.db.Each(ctx, "SELECT user_id, claim_group_id FROM claim_group_users WHERE user_id > ? AND user_id <= ? ORDER BY user_id, claim_group_id",
		[]any{after, last}, func(scan sqldb.Scan) error {
			var id, group int64
			if err := scan(&id, &group); err != nil {
				return err
			}
			at, found := slices.BinarySearchFunc(users, id, func(u *user, id int64) int { return cmp.Compare(u.id, id) })
			if g, ok := groups[group]; ok && found {
				users[at].Groups = append(users[at].Groups, g.Name)
			}
			return nil
		})
}

// row returns the user as Watchword reads users.
func (u *user) row() userfile.Row {
	if u.password.Valid {
		var ok bool
		if u.PasswordHash, ok = hash(u.password.String, u.salt.String); !ok {
			return userfile.MadeOf(u.User, problem.New(problem.Invalid, "invalid_password_hash", "the password is not hashed as Stoke does it"))
		}
	}
	return userfile.MadeOf(u.User, nil)
}

// hash returns the PHC string of a password and salt, and false if they are no hash.
func hash(password, salt string) (string, bool) {
	sum, err := base64.StdEncoding.Strict().DecodeString(password)
	if err != nil || len(sum) != 64 || salt == "" {
		return "", false
	}
	b64 := base64.RawStdEncoding
	return "$argon2id$v=19$m=19456,t=2,p=1$" + b64.EncodeToString([]byte(salt)) + "$" + b64.EncodeToString(sum), true
}
