package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/watchword-auth/watchword"
	"github.com/watchword-auth/watchword/test/kit"
)

// A session goes on after a restart, and one that was ended does not.
func TestNode(t *testing.T) {
	dir := t.TempDir()
	start := func() (c *kit.Client, stop func()) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := watchword.DefaultConfig()
		url := "http://" + listener.Addr().String()
		cfg.Server.PublicURL, cfg.Tokens.Issuer = url, "https://auth.example"
		cfg.Database.URL = "sqlite:" + filepath.Join(dir, "watchword.db")
		kit.Cheap(cfg)
		cfg.Admin.Username, cfg.Admin.Password = "admin", kit.Password
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- run(ctx, cfg, listener, filepath.Join(dir, "sessions.jsonl")) }()
		return &kit.Client{T: t, URL: url}, func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}

	c, stop := start()
	kept, ended := c.Login("admin"), c.Login("admin")
	if a := c.Do("POST", "/api/logout", ended.AccessToken, nil); a.Status != http.StatusNoContent {
		t.Errorf("the logout was answered %d", a.Status)
	}
	stop()

	c, stop = start()
	defer stop()
	if _, a := c.Renew(ended.RefreshToken); a.Status != http.StatusUnauthorized {
		t.Errorf("after a logout and a restart, the renewal was answered %d", a.Status)
	}
	if _, a := c.Renew(kept.RefreshToken); a.Status != http.StatusOK {
		t.Errorf("after a restart, the renewal was answered %d", a.Status)
	}
}
