package app

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
)

// Thirty connections from one address that guess passwords fill a queue of eight. They are
// answered 429, and nobody else notices: neither another client behind the same proxy, nor
// the owner of the account, nor one whose body comes slowly takes a place in the queue.
func TestAFloodOfLogins(t *testing.T) {
	w := newWorld(t, func(cfg *config.Config) {
		cfg.Server.TrustedProxies = []string{"127.0.0.1/32"}
		cfg.Password.Memory, cfg.Password.Workers, cfg.Password.Queue = 2<<10, 1, 8
	})
	w.user("tester")
	w.user("other")
	for range 100 { // bodies that do not come
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /api/login HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.9\r\nContent-Length: 50\r\n\r\n{")
	}
	login := func(address, username, secret string) answer {
		r := w.request("POST", "/api/login", "", httpapi.LoginRequest{Username: username, Password: secret})
		r.Header.Set("X-Forwarded-For", address)
		return w.send(r)
	}
	ctx, end := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	var mu sync.Mutex
	codes := map[string]int{}
	full := make(chan struct{})
	for i := range 30 {
		flood.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				a := login("198.51.100.7", []string{"tester", "nobody", fmt.Sprint(i, n)}[n%3], "wrong")
				mu.Lock()
				if codes[a.code()]++; a.status == 429 && codes["too_many_logins"] == 10 {
					close(full)
				}
				mu.Unlock()
				if a.status == 429 && a.header.Get("Retry-After") != "10" {
					t.Errorf("%v", a.header)
				}
			}
		})
	}
	<-full
	for n := range 4 {
		for _, username := range []string{"tester", "other"} {
			if a := login(fmt.Sprint("203.0.113.", n), username, password); a.status != 200 {
				t.Errorf("%s is refused: %d %s", username, a.status, a.body)
			}
		}
	}
	end()
	flood.Wait()
	if codes["login_busy"] > 0 || codes["too_many_logins"] == 0 || codes["invalid_credentials"] == 0 || len(codes) != 2 {
		t.Errorf("the flood is answered %v", codes)
	}
	if n := strings.Count(w.log.String(), "login refused"); n > 100 || n == 0 {
		t.Errorf("%d entries in the log about %v", n, codes)
	}
}
