package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/feed"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
)

// feedOf serves the feed of a log with so many entries, in this process.
func feedOf(b *testing.B, entries int) *httptest.Server {
	b.Helper()
	l := &longLog{lines: make([]store.Revocation, entries)}
	for i := range l.lines {
		l.lines[i] = store.Revocation{Seq: int64(i + 1), Kind: "jti", Subject: fmt.Sprint("gone-", i), ExpiresAt: time.Now().Add(time.Hour)}
	}
	view, err := revocation.NewView(revocation.Config{
		Store: l, Poll: time.Second, MaxStaleness: time.Minute, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); view.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-ended })
	if err := view.Wait(ctx, int64(entries)); err != nil {
		b.Fatal(err)
	}
	mux := http.NewServeMux()
	drain := make(chan struct{})
	(&feed.Feed{View: view, Heartbeat: time.Second, Done: drain}).Mount(httpkit.NewAPI(mux, "bench", nil, httpkit.Proxies{}, nil))
	server := httptest.NewServer(mux)
	b.Cleanup(server.Close)
	b.Cleanup(func() { close(drain) })
	return server
}

// ownCPU is the CPU time of this process: of the server and of its clients.
func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const snapshotEntries = 20_000

// 200 clients ask for event streams from the beginning of the log, never read, and come
// again when they are cut off.
func BenchmarkFeedNeverRead(b *testing.B) {
	const streams, watched, again = 200, 20 * time.Second, 10 * time.Second
	server := feedOf(b, snapshotEntries)
	for b.Loop() {
		ctx, stop := context.WithTimeout(b.Context(), watched)
		var clients sync.WaitGroup
		before := ownCPU(b)
		for i := range streams {
			clients.Go(func() {
				life := time.Duration(i+1) * again / streams // they do not come in step
				for ctx.Err() == nil {
					c, err := net.Dial("tcp", server.Listener.Addr().String())
					if err != nil {
						b.Error(err)
						return
					}
					fmt.Fprint(c, "GET /api/revocations HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
					select {
					case <-ctx.Done():
					case <-time.After(life):
					}
					c.Close()
					life = again
				}
			})
		}
		clients.Wait()
		stop()
		b.ReportMetric((ownCPU(b)-before).Seconds()/watched.Seconds(), "cores")
		b.ReportMetric(0, "ns/op")
	}
}

// 16 clients, as many as may have pages of 10,000 entries at once, read a snapshot of 20,000
// entries, each ten times, and throw it away.
func BenchmarkFeedReaders(b *testing.B) {
	const readers, times = 16, 10
	server := feedOf(b, snapshotEntries)
	for b.Loop() {
		for _, encoding := range []string{"identity", "gzip"} {
			var clients sync.WaitGroup
			before := ownCPU(b)
			for range readers {
				clients.Go(func() {
					for range times {
						discardSnapshot(b, server.URL, encoding)
					}
				})
			}
			clients.Wait()
			b.ReportMetric(float64((ownCPU(b)-before).Microseconds())/1e3/readers/times, encoding+"-cpu-ms/snapshot")
		}
		b.ReportMetric(0, "ns/op")
	}
}

// discardSnapshot asks for the pages of a log that is known to have no gaps.
func discardSnapshot(b *testing.B, url, encoding string) {
	for after := 0; after < snapshotEntries; after += 10_000 {
		r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/api/revocations?limit=10000&after=%d", url, after), nil)
		if err != nil {
			b.Error(err)
			return
		}
		r.Header.Set("Accept-Encoding", encoding)
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// BenchmarkFeedIdleStreams opens as many streams as a replica serves, about, and beside it as
// many of a bare server. It needs 20,000 open files.
func BenchmarkFeedIdleStreams(b *testing.B) {
	bare := httptest.NewServer(http.HandlerFunc(bareStream))
	defer bare.Close()
	server := feedOf(b, snapshotEntries)
	for b.Loop() {
		b.ReportMetric(perStream(b, server), "B/stream")
		b.ReportMetric(perStream(b, bare), "bare-B/stream")
		b.ReportMetric(0, "ns/op")
	}
}

// perStream is the memory for each of many idle streams, with that for this process's end of
// the connection.
func perStream(b *testing.B, server *httptest.Server) float64 {
	const streams = 9_900 // some of the 10,000 files are for other things
	before := inUse()
	var clients []net.Conn
	for range streams {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		clients = append(clients, c)
		fmt.Fprintf(c, "GET /api/revocations HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nLast-Event-ID: long:%d\r\n\r\n", snapshotEntries)
		answer := make([]byte, 512)
		if n, err := c.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200") {
			b.Fatalf("%q, %v", answer, err)
		}
	}
	time.Sleep(5 * time.Second) // the streams go through some heartbeats
	used := inUse() - before
	for _, c := range clients {
		c.Close()
	}
	return float64(used) / streams
}

// inUse is the memory of the heap and of stacks that is in use.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if testing.Verbose() {
		fmt.Println("heap", m.HeapInuse>>10, "stack", m.StackInuse>>10, "goroutines", runtime.NumGoroutine())
	}
	return int64(m.HeapInuse + m.StackInuse)
}
