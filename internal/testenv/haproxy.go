package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// HAProxy starts a load balancer for this test in front of servers that may not be
// there yet, given as host:port. It asks each for /readyz four times a second and
// sends no requests to one that twice does not answer 200. Each answer says in
// X-Served-By which server it is of, "s0" for the first and so on, or "<NOSRV>".
func HAProxy(t testing.TB, servers ...string) *Server {
	t.Helper()
	s := newServer(t, "haproxy", "KILL")
	var backend strings.Builder
	for i, addr := range servers {
		fmt.Fprintf(&backend, "  server s%d %s\n", i, addr)
	}
	s.command = func() []string {
		config := s.write(t, "haproxy.cfg", fmt.Sprintf(`global
  maxconn 2000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 5s
  timeout queue 1s
  timeout check 1s
  option redispatch
  retries 2
frontend front
  bind %s
  monitor-uri /%s
  http-after-response set-header X-Served-By %%s
  default_backend replicas
backend replicas
  balance roundrobin
  option httpchk GET /readyz
  option forwardfor
  default-server check inter 250ms fall 2 rise 2
%s`, s.Addr, s.secret, backend.String()))
		return []string{program(t, "haproxy"), "-db", "-f", config}
	}
	s.answers = func(ctx context.Context) error {
		s.URL = "http://" + s.Addr
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/"+s.secret, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New("another server answers")
		}
		return nil
	}
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}
