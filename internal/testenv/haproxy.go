package testenv

import (
	"fmt"
	"strings"
	"testing"
)

// HAProxy starts a load balancer for this test in front of servers that may not be
// there yet, given as host:port. It asks each for /readyz four times a second and
// sends no requests to one that twice does not answer 200. While none does, it goes by
// /api/pkeys instead, as examples/balancer does. Each answer says in
// X-Served-By which server it is of, "s0" for the first and so on, or "<NOSRV>".
// The part of an answer that is there goes out at once, and who cannot be connected
// to a server gets another at once.
func HAProxy(t testing.TB, servers ...string) *Server {
	t.Helper()
	var backend strings.Builder
	for i, addr := range servers {
		fmt.Fprintf(&backend, "  server s%d %s\n", i, addr)
	}
	return StartProxy(t, map[string]string{"haproxy.cfg": `global
  maxconn 2000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 5s
  timeout queue 1s
  timeout check 1s
  option redispatch 1
  option http-no-delay
  retries 2
frontend front
  bind LISTEN
  http-after-response set-header X-Served-By %s
  use_backend serving unless { nbsrv(ready) gt 0 }
  default_backend ready
backend ready
  balance roundrobin
  option httpchk GET /readyz
  option forwardfor
  default-server check inter 250ms fall 2 rise 2
` + backend.String() + `backend serving
  balance roundrobin
  option httpchk GET /api/pkeys
  option forwardfor
  default-server check inter 250ms fall 2 rise 2
` + backend.String()}, "haproxy", "-db", "-f", "DIR/haproxy.cfg")
}
