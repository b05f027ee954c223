package backends

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// onEachDatabase calls a function with a replica on each kind of database.
func onEachDatabase(t *testing.T, f func(t *testing.T, w *replica.World)) {
	for name, url := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "watchword.db") },
		"postgres": func(t *testing.T) string { return testenv.Postgres(t) },
		"mariadb":  func(t *testing.T) string { return testenv.MariaDB(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, replica.New(t, func(c *config.Config) { c.Database.URL = url(t); kit.StoredKeys(c) }))
		})
	}
}

// TestOnEachDatabase has what depends on the kind of database, with one replica for each.
func TestOnEachDatabase(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, w *replica.World) {
		t.Run("ids that nothing can have", func(t *testing.T) { idsThatNothingCanHave(t, w) })
		t.Run("after the database's own tools", func(t *testing.T) { afterTheDatabasesOwnTools(t, w) })
	})
}

// What no id can be is the client's mistake and never the database's.
func idsThatNothingCanHave(t *testing.T, w *replica.World) {
	admin := w.Login("admin").AccessToken
	before := w.Head()
	for what, id := range map[string]string{"long": strings.Repeat("x", 5000), "with a NUL": "a\x00b", "longer than a column": strings.Repeat("ö", 200)} {
		for _, field := range []string{"jti", "session_id", "user", "kid", "token"} {
			a := w.Do("POST", "/api/revocations", admin, map[string]any{field: id})
			if a.Status != 422 && a.Status != 404 {
				t.Errorf("%s %s: %d %s", field, what, a.Status, a.Body)
			}
		}
		for _, path := range []string{"/api/users/", "/api/groups/", "/api/claims/", "/api/sessions/"} {
			method := "GET"
			if path == "/api/sessions/" {
				method = "DELETE"
			}
			if a := w.Do(method, path+strings.NewReplacer("\x00", "%00").Replace(id), admin, nil); a.Status != 422 && a.Status != 404 {
				t.Errorf("%s %s: %d %s", path, what, a.Status, a.Body)
			}
		}
	}
	if head := w.Head(); head != before {
		t.Errorf("%d lines were written", head-before)
	}
	w.Verify(admin)
}
