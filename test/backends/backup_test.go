package backends

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// From SQLite to PostgreSQL: users stay signed in, and what was revoked stays revoked.
func TestMove(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	from := replica.New(t, nil)
	kept, ended := from.Login("admin"), from.Login("admin")
	from.Want(from.Do("POST", "/api/logout", ended.AccessToken, nil), 204, "")
	file := filepath.Join(t.TempDir(), "file")
	if _, err := operator.Backup(t.Context(), from.Config, quiet, file, ""); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(sqliteFile(from.Config) + ".key")
	if err != nil {
		t.Fatal(err)
	}

	url := testenv.Postgres(t)
	move := func(c *config.Config) {
		c.Database.URL, c.Storage.Key = url, string(key)
		c.Admin.Username, c.Admin.Password = "", ""
	}
	cfg := kit.Config(t)
	move(cfg)
	cfg.Complete()
	if _, err := operator.Restore(t.Context(), cfg, quiet, file, "", false); err != nil {
		t.Fatal(err)
	}
	to := replica.New(t, move)
	to.Verify(kept.AccessToken)
	to.Want(to.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: kept.RefreshToken}), 200, "")
	to.Want(to.Do("GET", "/api/verify", ended.AccessToken, nil), 401, "token_revoked")
	to.Want(to.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: ended.RefreshToken}), 401, "invalid_refresh_token")
	trail, err := to.Parts().Store.AuditEvents(t.Context(), store.AuditQuery{Limit: 50})
	if err != nil || !slices.ContainsFunc(trail.Events, func(e store.AuditEvent) bool { return e.Action == "storage.restore" }) {
		t.Errorf("the trail has %+v, %v", trail, err)
	}
}

// A backup that a binary made which knew the first migration alone, with the storage
// key of 32 zero bytes: one user with a claim, an administrator, a key, a session and a
// logout.
func TestBackupOfTheFirstSchema(t *testing.T) {
	cfg := kit.Config(t)
	cfg.Storage.Key, cfg.Admin.Username, cfg.Admin.Password = strings.Repeat("00", 32), "", ""
	cfg.Complete()
	done, err := operator.Restore(t.Context(), cfg, slog.New(slog.DiscardHandler), "testdata/level-1.backup", "", false)
	if err != nil {
		t.Fatal(err)
	}
	for table, rows := range map[string]int{"users": 2, "signing_keys": 1, "revocations": 1, "audit_events": 13, "state_records": 1} {
		if done.Rows[table] != rows {
			t.Errorf("%d rows of %s, want %d", done.Rows[table], table, rows)
		}
	}
	w := replica.New(t, func(c *config.Config) { *c = *cfg })
	if got := w.Verify(w.Login("tester").AccessToken)["log"]; got != "r" {
		t.Errorf("the claim log is %v", got)
	}
}

// sqliteFile is where a replica's database is.
func sqliteFile(c *config.Config) string {
	file, _ := sqldb.SQLiteFile(c.Database.URL)
	return file
}

// The database and its key lie side by side, in whichever form the URL is.
func TestKeyBesideTheDatabase(t *testing.T) {
	for _, form := range []string{"sqlite:", "sqlite://"} {
		t.Chdir(t.TempDir())
		if err := os.Mkdir("somewhere", 0o700); err != nil {
			t.Fatal(err)
		}
		replica.New(t, func(c *config.Config) { c.Database.URL = form + "somewhere/w.db" }).Login("admin")
		for _, file := range []string{"somewhere/w.db", "somewhere/w.db.key"} {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %v", form, err)
			}
		}
	}
}

// After a restore with the database's own tools, what docs/storage.md says to run
// leaves nothing from before that is accepted, and followers notice the other log.
func afterTheDatabasesOwnTools(t *testing.T, w *replica.World) {
	page, err := os.ReadFile("../../docs/storage.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "```sql\n")
	block, _, ended := strings.Cut(block, "```")
	if !found || !ended {
		t.Fatal("the page has no SQL")
	}
	statements := regexp.MustCompile(`(?m)^([A-Z][^;]+);`).FindAllStringSubmatch(block, -1)
	if len(statements) != 3 {
		t.Fatalf("the page says to run %q", statements)
	}
	logName := func() string {
		return kit.Decode[revoked.Page](t, w.Want(w.Do("GET", "/api/revocations", "", nil), 200, "")).Log
	}
	grant, before := w.Login("admin"), logName()
	w.Stop()
	db := other(t, w.Config.Database.URL)
	for _, s := range statements {
		if n, err := db.Exec(t.Context(), s[1]); err != nil || n == 0 {
			t.Errorf("%s: %d rows, %v", s[1], n, err)
		}
	}
	w.Start()
	w.Want(w.Do("GET", "/api/verify", grant.AccessToken, nil), 401, "invalid_token")
	w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 401, "invalid_refresh_token")
	w.Verify(w.Login("admin").AccessToken)
	if logName() == before {
		t.Error("nobody can tell that the log is another one")
	}
}
