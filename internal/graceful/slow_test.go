package graceful

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener has one client, whose connection does not use the system's network, so that
// it works on the clock of a bubble. Like a full socket, it takes nothing until the client
// reads.
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

// A client that does not finish its header or its body, does not read the answer, or sends
// no further request is cut off in time.
func TestSlowClientIsCutOff(t *testing.T) {
	answers := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
			return
		}
		_, _ = w.Write(make([]byte, 1<<20))
	})
	for name, c := range map[string]struct {
		sends, answer string
		reads         bool
		after         time.Duration
	}{
		"header": {"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", "", true, readHeaderTimeout},
		"body":   {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{", "408 Request Timeout", true, readTimeout},
		"reader": {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", false, writeTimeout},
		"idle":   {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK", true, idleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &pipeListener{conns: make(chan net.Conn, 1)}
				client, conn := net.Pipe()
				l.conns <- conn
				defer client.Close()
				server := newHTTPServer(answers, discard)
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
					t.Errorf("%.200s %v", answer, err)
				}
				if took := time.Since(began); took < c.after || took > c.after+time.Second {
					t.Errorf("cut off after %v, want %v", took, c.after)
				}
			})
		})
	}
}
