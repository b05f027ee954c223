// Package node is a whole replica for the tests of resource servers and proxies. It has an
// administrator and a user, keeps its data in a temporary SQLite file, and serves real HTTP.
package node

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-auth/watchword"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
)

// Password is the password of every user.
const Password = kit.Password

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

	client kit.Client
	node   *watchword.Node
	server *http.Server
}

// Start starts a replica, which ends with the test. A function may change its settings.
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
	kit.Cheap(cfg)
	kit.Unlimited(cfg)
	for _, f := range change {
		f(cfg)
	}
	n := &Node{URL: cfg.Server.PublicURL, client: kit.Client{T: t, URL: cfg.Server.PublicURL}}
	if n.node, err = watchword.New(t.Context(), cfg, watchword.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		t.Fatal(err)
	}
	n.server = &http.Server{Handler: n.node.Handler(), ReadHeaderTimeout: time.Minute, MaxHeaderBytes: 32 << 10}
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

// Stop ends the server: no request is answered any more.
func (n *Node) Stop() {
	n.node.Drain()
	_ = n.server.Close() // connections that break are what is wanted
}

// Login logs "admin" or "tester" in.
func (n *Node) Login(username string) httpapi.Grant {
	n.client.T.Helper()
	return n.client.Login(username)
}

// Logout ends the session of a token.
func (n *Node) Logout(token string) {
	n.client.T.Helper()
	n.Do("POST", "/api/logout", token, "", http.StatusNoContent)
}

// Do makes a request, with a token unless it is empty, and returns the body of an
// answer that has the status.
func (n *Node) Do(method, path, token, body string, status int) string {
	n.client.T.Helper()
	a := n.client.Do(method, path, token, body)
	if a.Status != status {
		n.client.T.Fatalf("%s %s: %d %s, want %d", method, path, a.Status, a.Body, status)
	}
	return string(a.Body)
}
