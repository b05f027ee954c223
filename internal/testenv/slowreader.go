package testenv

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A ZeroWindow is a client of HTTP/2 that asks and then takes no byte of any body.
type ZeroWindow struct {
	conn   net.Conn
	framer *http2.Framer
	next   uint32 // stream
}

// DialZeroWindow connects to a server.
func DialZeroWindow(t testing.TB, server *httptest.Server) *ZeroWindow {
	t.Helper()
	conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	z := &ZeroWindow{conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
	if err := z.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	return z
}

// Ask sends requests, and returns when the headers of all answers are there.
func (z *ZeroWindow) Ask(t testing.TB, requests int, path string) {
	t.Helper()
	for range requests {
		var block bytes.Buffer
		e := hpack.NewEncoder(&block)
		for _, f := range [][2]string{
			{":method", http.MethodGet}, {":scheme", "https"}, {":authority", "localhost"}, {":path", path}, {"accept-encoding", "gzip"},
		} {
			_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // into memory: cannot fail
		}
		err := z.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: z.next, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		if err != nil {
			t.Fatal(err)
		}
		z.next += 2
	}
	for answered := 0; answered < requests; {
		f, err := z.framer.ReadFrame()
		if err != nil {
			t.Fatalf("after %d answers: %v", answered, err)
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			answered++
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = z.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			err = z.framer.WritePing(true, f.Data)
		case *http2.GoAwayFrame: // one stream may have ended: it has been slow for long enough
			t.Fatalf("after %d answers comes %v", answered, f)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// StartHTTP2 starts a server of HTTP/2.
func StartHTTP2(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// Heap is how much memory is in use.
func Heap() int64 {
	runtime.GC()
	runtime.GC() // what a sync.Pool has is let go in the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
