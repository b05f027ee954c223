package app

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener has one client, which is connected without the system's network: time in a
// bubble passes for it. What is not read it does not take, like a full socket.
type pipeListener struct {
	conns chan net.Conn
	close sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	conn, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l *pipeListener) Close() error {
	l.close.Do(func() { close(l.conns) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A client that does not go on with its header, its body, or with reading what it asked
// for, is cut off in time.
func TestSlowClientIsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		sends, answer string
		reads         bool
		after         time.Duration
	}{
		"header": {"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ", "", true, readHeaderTimeout},
		"body":   {"POST /api/login HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{", `"request_timeout"`, true, readTimeout},
		"reader": {"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n", "", false, writeTimeout},
		"idle":   {"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK", true, idleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig(t)
				cfg.Complete()
				logger := slog.New(slog.DiscardHandler)
				node, err := New(t.Context(), Options{Config: cfg, Logger: logger})
				if err != nil {
					t.Fatal(err)
				}
				defer node.Close()
				l := &pipeListener{conns: make(chan net.Conn, 1)}
				client, conn := net.Pipe()
				l.conns <- conn
				defer client.Close()
				server := newServer(node.Handler(), logger)
				go server.Serve(l)
				defer server.Close()

				began := time.Now()
				_ = client.SetDeadline(began.Add(c.after + time.Minute)) // a pipe has deadlines
				if _, err := io.WriteString(client, c.sends); err != nil {
					t.Fatal(err)
				}
				if !c.reads {
					time.Sleep(c.after)
					synctest.Wait()
				}
				answer, err := io.ReadAll(client)
				if err != nil || !strings.Contains(string(answer), c.answer) {
					t.Errorf("%s %v", answer, err)
				}
				if took := time.Since(began); took < c.after || took > c.after+time.Second {
					t.Errorf("cut off after %v, want %v", took, c.after)
				}
			})
		})
	}
}
