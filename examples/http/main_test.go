package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/node"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestHTTP(t *testing.T) {
	auth := node.Start(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, auth.URL) }()

	tester, admin := auth.Login("tester").AccessToken, auth.Login("admin").AccessToken
	crossed := tester[:strings.LastIndexByte(tester, '.')] + admin[strings.LastIndexByte(admin, '.'):]
	service := &kit.Client{T: t, URL: "http://" + listener.Addr().String()}
	ask := func(method, path, token string) (int, string) {
		a := service.Do(method, path, token, nil)
		return a.Status, string(a.Body)
	}
	for _, c := range []struct {
		request, token string
		status         int
		answer         string
	}{
		{"GET /health", "", 200, `"Fresh":true`},
		{"GET /hello", "", 401, "token_missing"},
		{"GET /hello", tester, 200, "hello tester"},
		{"GET /hello", crossed, 401, "token_signature"},
		{"GET /log", tester, 200, "hello tester"},
		{"POST /log", tester, 200, "hello tester"},
		{"GET /log", admin, 403, "log=r"},
		{"POST /pay", tester, 403, "ship=bursar or admin=all"},
		{"POST /pay", admin, 200, "hello admin"},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		for deadline := time.Now().Add(kit.Patience); ; time.Sleep(10 * time.Millisecond) {
			status, answer := ask(method, path, c.token)
			if status == c.status && strings.Contains(answer, c.answer) {
				break
			}
			notSure := c.request == "GET /health" || status == 503 // the revocations may not be fresh
			if !notSure || time.Now().After(deadline) {
				t.Errorf("%s: %d %s, want %d %s", c.request, status, answer, c.status, c.answer)
				break
			}
		}
	}
	auth.Logout(tester)
	kit.Eventually(t, func() error {
		if status, answer := ask("GET", "/hello", tester); status != 401 || !strings.Contains(answer, "token_revoked") {
			return fmt.Errorf("after the logout: %d %s", status, answer)
		}
		return nil
	})

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
