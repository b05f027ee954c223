package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword"
	"github.com/watchword-auth/watchword/test/kit"
)

func TestEmbed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := watchword.DefaultConfig()
	url := "http://" + listener.Addr().String()
	cfg.Server.PublicURL = url
	cfg.Database.URL = "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
	kit.Cheap(cfg)
	cfg.Admin.Username, cfg.Admin.Password = "admin", kit.Password

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		defer listener.Close() // if it did not start, no client waits for an answer
		ended <- run(ctx, cfg, listener)
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	c := &kit.Client{T: t, URL: url}
	token := c.Login("admin").AccessToken
	hello := func() string { return string(c.Do("GET", "/hello", token, nil).Body) }
	if got := hello(); got != "hello admin\n" {
		t.Errorf("the page says %q", got)
	}
	c.Do("POST", "/api/logout", token, nil)
	kit.Await(t, "the page refuses the token", func() bool { return strings.Contains(hello(), "revoked") }, hello)
}
