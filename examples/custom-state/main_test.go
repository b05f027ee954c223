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

// Who is signed in is so after a restart too, and who logged out is not.
func TestNode(t *testing.T) {
	dir := t.TempDir()
	start := func() (url string, stop func()) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := watchword.DefaultConfig()
		url = "http://" + listener.Addr().String()
		cfg.Server.PublicURL, cfg.Tokens.Issuer = url, "https://auth.example"
		cfg.Database.URL = "sqlite:" + filepath.Join(dir, "watchword.db")
		cfg.Revocation.MaxStaleness = time.Minute            // a machine that stands still is not what this is about
		cfg.Password.Memory, cfg.Password.Iterations = 64, 1 // costs little
		cfg.Admin.Username, cfg.Admin.Password = "admin", "correct horse battery staple"
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- run(ctx, cfg, listener, filepath.Join(dir, "sessions.jsonl")) }()
		return url, func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}

	url, stop := start()
	kept, ended := login(t, url), login(t, url)
	if status, _ := post(t, url+"/api/logout", ended.AccessToken, ""); status != http.StatusNoContent {
		t.Errorf("the logout was answered %d", status)
	}
	stop()

	url, stop = start()
	defer stop()
	if status := renew(t, url, ended); status != http.StatusUnauthorized {
		t.Errorf("after a logout and a restart, the renewal was answered %d", status)
	}
	if status := renew(t, url, kept); status != http.StatusOK {
		t.Errorf("after a restart, the renewal was answered %d", status)
	}
}

type grant struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

func login(t *testing.T, url string) (g grant) {
	t.Helper()
	status, body := post(t, url+"/api/login", "", `{"username":"admin","password":"correct horse battery staple"}`)
	if err := json.Unmarshal(body, &g); err != nil || status != http.StatusOK {
		t.Fatalf("the login was answered %d, %s", status, body)
	}
	return g
}

func renew(t *testing.T, url string, g grant) int {
	t.Helper()
	status, _ := post(t, url+"/api/renew", "", `{"refresh_token":"`+g.RefreshToken+`"}`)
	return status
}

func post(t *testing.T, url, token, body string) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
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
	return resp.StatusCode, answer
}
