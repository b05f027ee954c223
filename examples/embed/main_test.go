package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword"
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
	cfg.Revocation.MaxStaleness = time.Minute            // a machine that stands still is not what this is about
	cfg.Password.Memory, cfg.Password.Iterations = 64, 1 // costs little
	cfg.Admin.Username, cfg.Admin.Password = "admin", "correct horse battery staple"

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		defer listener.Close() // if it did not start, nobody waits for an answer
		ended <- run(ctx, cfg, listener)
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	var grant struct {
		AccessToken string `json:"access_token"`
	}
	login := call(t, "POST", url+"/api/login", "", `{"username":"admin","password":"correct horse battery staple"}`)
	if err := json.Unmarshal([]byte(login), &grant); err != nil {
		t.Fatalf("%v in %s", err, login)
	}
	hello := func() string { return call(t, "GET", url+"/hello", grant.AccessToken, "") }
	if got := hello(); got != "hello admin\n" {
		t.Errorf("the page says %q", got)
	}
	call(t, "POST", url+"/api/logout", grant.AccessToken, "")
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(hello(), "revoked"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after the logout the page still says %q", hello())
		}
	}
}

func call(t *testing.T, method, url, token, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}
