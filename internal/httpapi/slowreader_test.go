package httpapi

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A zeroWindow is a client of HTTP/2 that asks and then takes no byte of any body.
type zeroWindow struct {
	conn   net.Conn
	framer *http2.Framer
	next   uint32 // stream
}

func dialZeroWindow(t *testing.T, server *httptest.Server) *zeroWindow {
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
	z := &zeroWindow{conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
	if err := z.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	return z
}

// ask sends requests, and returns when the headers of all answers are there.
func (z *zeroWindow) ask(t *testing.T, requests int, path string) {
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

// Clients that ask for pages and never read them must fit into memory.
func TestFeedPagesHoldLittle(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.revokeAll(t, "", 2*feedPage)
	server := startHTTP2(t, n.Config.Handler)
	const streams = 200
	before := heap()
	dialZeroWindow(t, server).ask(t, streams, "/api/revocations?limit=10000")
	if held := heap() - before; held > streams*(100<<10) {
		t.Errorf("%d answers that nobody reads hold %d KiB", streams, held>>10)
	}
}

// The same for the metrics; and a client that reads them does not wait.
func TestMetricsHoldLittle(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	many := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "many"}, []string{"n"})
	registry.MustRegister(many)
	for i := range 600 {
		many.WithLabelValues(fmt.Sprintf("%x", revoked.Digest(revoked.Token, strconv.Itoa(i)))).Inc()
	}
	mux := http.NewServeMux()
	(&Metrics{Registry: registry}).Mount(httpkit.NewAPI(mux, "test", nil, nil, nil))
	server := startHTTP2(t, mux)
	const streams = 100
	before := heap()
	dialZeroWindow(t, server).ask(t, streams, "/metrics")
	if held := heap() - before; held > streams*(100<<10) {
		t.Errorf("%d answers that nobody reads hold %d KiB", streams, held>>10)
	}
	res, err := server.Client().Get(server.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), fmt.Sprintf("%x", revoked.Digest(revoked.Token, "599"))) {
		t.Errorf("another reader gets %s, %v, %d bytes", res.Status, err, len(body))
	}
}

func startHTTP2(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// heap is how much memory is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what a sync.Pool has is let go in the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
