package testenv

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

// StartProxy starts a reverse proxy for this test: nginx, caddy or haproxy. Files
// are written into its directory. In them and in the arguments DIR stands for that
// directory and LISTEN for the address that the proxy listens on. Certificates and keys
// are written as they are: in one of some hundreds the Base64 has these letters.
func StartProxy(t testing.TB, files map[string]string, name string, args ...string) *Server {
	t.Helper()
	s := newServer(t, name, "TERM")
	s.command = func() []string {
		fill := strings.NewReplacer("DIR", s.dir, "LISTEN", s.Addr)
		for file, text := range files {
			if !strings.HasPrefix(text, "-----BEGIN ") {
				text = fill.Replace(text)
			}
			s.write(t, file, text)
		}
		command := []string{program(t, name)}
		for _, a := range args {
			command = append(command, fill.Replace(a))
		}
		return command
	}
	s.answers = func(ctx context.Context) error {
		s.URL = "http://" + s.Addr
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		return res.Body.Close() // whatever it says
	}
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}
