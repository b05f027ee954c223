package watchword_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// A replica on the backends of another program: they are used, and stay that program's
// to close.
func TestOwnBackends(t *testing.T) {
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "own.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "not-used.db")
	cfg := watchword.DefaultConfig()
	cfg.Database.URL = "sqlite:" + elsewhere
	cfg.Server.PublicURL = "https://auth.example.com"
	cfg.Tokens.Keys = "memory"
	cfg.Admin.Username, cfg.Admin.Password = "admin", "correct horse battery staple"
	node, err := watchword.New(t.Context(), cfg, watchword.WithStore(sqlstore.New(db)), watchword.WithState(memstate.New(time.Now)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(node.Handler())
	defer server.Close()
	resp, err := http.Post(server.URL+"/api/login", "application/json",
		strings.NewReader(`{"username":"admin","password":"correct horse battery staple"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var grant struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&grant); err != nil || grant.AccessToken == "" {
		t.Fatal(resp.Status, err)
	}
	if err := node.Close(); err != nil {
		t.Error(err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("the program's own database was closed: %v", err)
	}
	if made, _ := filepath.Glob(elsewhere + "*"); len(made) != 0 {
		t.Errorf("database.url was used as well: %v", made)
	}
}
