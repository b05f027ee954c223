// Package node is a whole replica for the tests of what is used with one: resource
// servers and proxies. It has an administrator and a user, keeps its
// data in a temporary SQLite file, and serves real HTTP.
package node

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword"
)

// Password is everybody's.
const Password = "correct horse battery staple"

// people are the administrator "admin" and "tester", who may use the ship's account
// and read and write its log.
const people = `
claims:
  - {name: Superuser, short_name: admin, value: all}
  - {name: Ship account, short_name: ship, value: acc}
  - {name: Log reader, short_name: log, value: r}
  - {name: Log writer, short_name: log, value: w}
groups:
  - {name: Administrators, claims: [Superuser]}
  - {name: Crew, claims: [Ship account, Log reader, Log writer]}
users:
  - {username: admin, password: ` + Password + `, groups: [Administrators]}
  - {username: tester, password: ` + Password + `, email: tester@example.com, first_name: Travis, last_name: Ester, groups: [Crew]}
`

// A Node is a running replica.
type Node struct {
	URL string // its public URL and the tokens' issuer

	t      testing.TB
	node   *watchword.Node
	server *http.Server
}

// Start starts a replica, which ends with the test, with what is otherwise than here
// in its settings.
func Start(t testing.TB, change ...func(*watchword.Config)) *Node {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	initFile := filepath.Join(dir, "init.yaml")
	if err := os.WriteFile(initFile, []byte(people), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := watchword.DefaultConfig()
	cfg.Server.PublicURL = "http://" + listener.Addr().String()
	cfg.Database.URL = "sqlite:" + filepath.Join(dir, "watchword.db")
	cfg.Users.InitFile = initFile
	cfg.Password.Memory, cfg.Password.Iterations = 64, 1 // costs little
	// A machine that stands still for some seconds is nothing that a test is about.
	cfg.Revocation.MaxStaleness, cfg.Database.AcquireTimeout = time.Minute, time.Minute
	for _, f := range change {
		f(cfg)
	}
	n := &Node{URL: cfg.Server.PublicURL, t: t}
	if n.node, err = watchword.New(t.Context(), cfg, watchword.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		t.Fatal(err)
	}
	n.server = &http.Server{Handler: n.node.Handler(), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = n.server.Serve(listener) }()
	t.Cleanup(func() {
		n.Stop()
		<-served
		http.DefaultClient.CloseIdleConnections()
		if err := n.node.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// Stop has nobody answered any more.
func (n *Node) Stop() {
	n.node.Drain()
	_ = n.server.Close() // connections that break are what is wanted
}

// A Grant is what a login answers.
type Grant struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	SessionID    string `json:"session_id"`
}

// Login logs "admin" or "tester" in.
func (n *Node) Login(username string) Grant {
	n.t.Helper()
	var g Grant
	body := n.Do("POST", "/api/login", "", `{"username":"`+username+`","password":"`+Password+`"}`, http.StatusOK)
	if err := json.Unmarshal([]byte(body), &g); err != nil {
		n.t.Fatal(err)
	}
	return g
}

// Logout takes a token back.
func (n *Node) Logout(token string) {
	n.t.Helper()
	n.Do("POST", "/api/logout", token, "", http.StatusNoContent)
}

// Do makes a request, with a token unless it is empty, and returns the body of an
// answer that has the status.
func (n *Node) Do(method, path, token, body string, status int) string {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, n.URL+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		n.t.Fatalf("%s %s: %s %s, %v; want %d", method, path, res.Status, answer, err, status)
	}
	return string(answer)
}
