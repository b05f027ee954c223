package backup

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// one returns the one value that a query finds, "" if it finds none.
func one(t *testing.T, db *sqldb.DB, query string) string {
	t.Helper()
	found, err := sqldb.All(t.Context(), db, func(scan sqldb.Scan) (s string, err error) { return s, scan(&s) }, query)
	if err != nil || len(found) > 1 {
		t.Fatalf("%s: %q, %v", query, found, err)
	}
	return strings.Join(found, "")
}

const (
	theInstallation = "SELECT value FROM settings WHERE name = 'installation'"
	theLog          = "SELECT log_id FROM revocation_head"
)

// What is separated from a copy has the same users, and nothing that leads to the original.
func TestSeparate(t *testing.T) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": nil, "postgres": testenv.Postgres, "mariadb": testenv.MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var db *sqldb.DB
			if url == nil {
				db = sqlite(t)
			} else {
				db = open(t, url(t))
			}
			fill(t, db)
			s := sqlstore.New(db)
			if err := s.PutSetting(t.Context(), InstallationSetting, "original"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.EnterRegistry(t.Context(), store.Replica{Instance: "i", Incarnation: "1", URL: "https://original", MAC: []byte("m")}, time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := s.CreateFactor(t.Context(), store.Factor{ID: "link", UserID: "user-0", Kind: "recovery", Digest: "d", Data: []byte("sealed")}); err != nil {
				t.Fatal(err)
			}
			log := one(t, db, theLog)
			if err := Separate(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			if id := one(t, db, theInstallation); id == "" || id == "original" {
				t.Errorf("the installation is %q", id)
			}
			if one(t, db, theLog) == log {
				t.Error("the log has the same id")
			}
			for _, table := range []string{"replicas", "replica_secrets", "signing_keys", "registered_keys", "key_states", "state_records"} {
				if n := one(t, db, "SELECT COUNT(*) FROM "+table); n != "0" {
					t.Errorf("%s has %s rows", table, n)
				}
			}
			if n := one(t, db, "SELECT COUNT(*) FROM users"); n != "5" {
				t.Errorf("there are %s users", n)
			}
			// Without its factors the copy would let users in with the password alone.
			if n := one(t, db, "SELECT COUNT(*) FROM factors"); n != "5" {
				t.Errorf("there are %s factors", n)
			}
			if _, err := s.FactorByDigest(t.Context(), "recovery", "d"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("the link of the original: %v", err)
			}
		})
	}
}

// A restored installation is the one of the backup: it finds its sessions in Redis. After
// SignOut it is another one. That the empty database had an id by itself does not matter.
func TestRestoredInstallation(t *testing.T) {
	secret := Secret{Box: box(t, 1)}
	for name, tt := range map[string]struct {
		has     string // "": the backup is of a version without
		signOut bool
		want    func(id string) bool
	}{
		"the same":              {"original", false, func(id string) bool { return id == "original" }},
		"signed out":            {"original", true, func(id string) bool { return len(id) == 16 }},
		"of an earlier version": {"", false, func(id string) bool { return id == "" }},
		"both":                  {"", true, func(id string) bool { return len(id) == 16 }},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := sqlite(t), sqlite(t)
			fill(t, from)
			if tt.has != "" {
				if err := sqlstore.New(from).PutSetting(t.Context(), InstallationSetting, tt.has); err != nil {
					t.Fatal(err)
				}
			}
			if err := sqlstore.New(to).PutSetting(t.Context(), InstallationSetting, "its own"); err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(t.Context(), bytes.NewReader(dump(t, from, secret)), secret, Target{DB: to, Keys: secret.Box, SignOut: tt.signOut}); err != nil {
				t.Fatal(err)
			}
			if id := one(t, to, theInstallation); !tt.want(id) {
				t.Errorf("the installation is %q", id)
			}
		})
	}
}

// The revocation of a signing secret, which is kept for ten years, has the same end after each way
// of making one database from another one.
func TestTenYears(t *testing.T) {
	secret := Secret{Box: box(t, 1)}
	entry := store.Revocation{Kind: "key", Subject: "kid", ExpiresAt: now.AddDate(10, 0, 0), CreatedAt: now, Actor: "root", Reason: "key_revoked"}
	for name, move := range map[string]func(*testing.T, *sqldb.DB) *sqldb.DB{
		"separate": func(t *testing.T, db *sqldb.DB) *sqldb.DB {
			if err := Separate(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			return db
		},
		"restore": func(t *testing.T, db *sqldb.DB) *sqldb.DB {
			to := sqlite(t)
			restore(t, to, dump(t, db, secret), secret)
			return to
		},
		"restore, signed out": func(t *testing.T, db *sqldb.DB) *sqldb.DB {
			to := sqlite(t)
			target := Target{DB: to, Keys: secret.Box, SignOut: true}
			if _, err := Restore(t.Context(), bytes.NewReader(dump(t, db, secret)), secret, target); err != nil {
				t.Fatal(err)
			}
			return to
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := sqlite(t)
			fill(t, db)
			if _, err := sqlstore.New(db).AppendRevocation(t.Context(), entry); err != nil {
				t.Fatal(err)
			}
			lines, _, err := sqlstore.New(move(t, db)).RevocationsAfter(t.Context(), 0, 100)
			if err != nil || !slices.ContainsFunc(lines, func(r store.Revocation) bool {
				return r.Kind == entry.Kind && r.Subject == entry.Subject && r.ExpiresAt.Equal(entry.ExpiresAt)
			}) {
				t.Errorf("the log has %+v, %v", lines, err)
			}
		})
	}
}
