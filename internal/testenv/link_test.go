package testenv

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// echo sends back each line.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// talk sends a line and waits for it.
func talk(c net.Conn, within time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return err
}

func TestLink(t *testing.T) {
	p := NewLink(t, echo(t))
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	// ask is for when a new connection may be reset, before the dial has returned or after.
	ask := func() error {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			return err
		}
		defer c.Close()
		return talk(c, time.Minute)
	}
	const long, short = time.Minute, 100 * time.Millisecond

	old := dial()
	if err := talk(old, long); err != nil {
		t.Fatal(err)
	}
	for _, f := range []Fault{{HoldUp: true}, {HoldDown: true}, {HoldUp: true, HoldDown: true}} {
		p.Set(f)
		for _, c := range []net.Conn{old, dial()} {
			if err := talk(c, short); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%+v: %v", f, err)
			}
		}
		p.Set(Fault{})
		// What was held arrives, and then what is said now.
		if err := talk(old, long); err != nil {
			t.Errorf("after %+v: %v", f, err)
		}
		old = dial()
	}

	p.Set(Fault{Delay: short})
	began := time.Now()
	if err := talk(old, long); err != nil || time.Since(began) < 2*short {
		t.Errorf("delayed: %v after %v", err, time.Since(began))
	}

	p.Set(Fault{Cut: true})
	if err := talk(old, long); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("cut: %v", err)
	}
	if err := ask(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("new while cut: %v", err)
	}
	p.Set(Fault{})
	if err := talk(dial(), long); err != nil {
		t.Errorf("healed: %v", err)
	}

	p.Lead(freeAddr(t))
	if err := ask(); err == nil {
		t.Error("it leads where it led before")
	}
	p.Lead(echo(t))
	if err := talk(dial(), long); err != nil {
		t.Errorf("led elsewhere: %v", err)
	}
}

// Only a server that says that it is ready gets requests. While none is, those get them that
// have a key set.
func TestHAProxy(t *testing.T) {
	var ready, serving atomic.Bool
	ready.Store(true)
	serving.Store(true)
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" && !ready.Load() || r.URL.Path == "/api/pkeys" && !serving.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer first.Close()
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer second.Close()
	lb := HAProxy(t, first.Listener.Addr().String(), second.Listener.Addr().String(), freeAddr(t))
	by := func() string {
		resp, err := http.Get(lb.URL + "/x")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get("X-Served-By")
	}
	always := func(what, served string) {
		t.Helper()
		row := 0
		await(t, what, func() bool {
			if row++; by() != served {
				row = 0
			}
			return row == 4
		})
	}
	always("the first server alone", "s0")
	ready.Store(false)
	await(t, "the second server", func() bool { return by() == "s1" })
	await(t, "the first one beside it", func() bool { return by() == "s0" })
	serving.Store(false)
	always("the second server alone", "s1")
	second.CloseClientConnections()
	second.Close()
	await(t, "no server", func() bool { return by() == "<NOSRV>" })
	ready.Store(true)
	await(t, "the first server again", func() bool { return by() == "s0" })
}
