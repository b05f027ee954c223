package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// From SQLite to PostgreSQL: who is signed in stays so, what was taken back too.
func TestMove(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	from := newWorld(t, nil)
	kept, ended := from.login("admin"), from.login("admin")
	from.want(from.do("POST", "/api/logout", ended.AccessToken, nil), 204, "")
	file := filepath.Join(t.TempDir(), "file")
	if _, err := Backup(t.Context(), from.cfg, quiet, file, ""); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(strings.TrimPrefix(from.cfg.Database.URL, sqliteScheme) + ".key")
	if err != nil {
		t.Fatal(err)
	}

	url := testenv.Postgres(t)
	move := func(c *config.Config) {
		c.Database.URL, c.Storage.Key = url, string(key)
		c.Admin.Username, c.Admin.Password = "", ""
	}
	cfg := testConfig(t)
	move(cfg)
	cfg.Complete()
	if _, err := Restore(t.Context(), cfg, quiet, file, "", false); err != nil {
		t.Fatal(err)
	}
	to := newWorld(t, move)
	to.verify(kept.AccessToken)
	to.want(to.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: kept.RefreshToken}), 200, "")
	to.want(to.do("GET", "/api/verify", ended.AccessToken, nil), 401, "token_revoked")
	to.want(to.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: ended.RefreshToken}), 401, "invalid_refresh_token")
	events, err := to.node.parts.Store.AuditEvents(t.Context(), store.AuditQuery{Limit: 50})
	if err != nil || !slices.ContainsFunc(events, func(e store.AuditEvent) bool { return e.Action == "storage.restore" }) {
		t.Errorf("the trail has %+v, %v", events, err)
	}
}
