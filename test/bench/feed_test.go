package bench

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// bareStream is an event stream that says as much once a second and knows nothing.
func bareStream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		_, err := io.WriteString(w, "id: 01a20b76-e578-73b2-b763-5b1e8e896907:1\nevent: head\ndata: "+strings.Repeat("x", 110)+"\n\n")
		if err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-beat.C:
		case <-r.Context().Done():
			return
		}
	}
}

const (
	subscribers = 2000
	watched     = 10 * time.Second
	revokedEach = 50
)

// subscribe opens event streams and returns the count of events by name. They are
// read and thrown away.
func subscribe(b *testing.B, s *server, path string, n int) (heads, revocations *atomic.Int64) {
	b.Helper()
	heads, revocations = new(atomic.Int64), new(atomic.Int64)
	for range n {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n", path)
		go func() {
			for lines := bufio.NewScanner(c); lines.Scan(); {
				switch lines.Text() {
				case "event: head":
					heads.Add(1)
				case "event: revocation":
					revocations.Add(1)
				}
			}
		}()
	}
	await(b, "every subscriber has heard something", func() bool { return heads.Load() >= int64(n) })
	return heads, revocations
}

func await(b *testing.B, what string, happened func() bool) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("not within a minute: " + what)
		}
	}
}

// resident is the memory that the process holds.
func (s *server) resident(b *testing.B) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kilobytes << 10
}

// quietly is what a server's CPU does for its subscribers while nothing happens, as
// a share of a core.
func (s *server) quietly(b *testing.B) float64 {
	before := s.cpu(b)
	time.Sleep(watched) // the measured interval
	return (s.cpu(b) - before).Seconds() / watched.Seconds()
}

// What a subscriber costs a replica: while nothing happens, and for each revocation.
func BenchmarkFeedSubscribers(b *testing.B) {
	watchword, bare, grants := servers(b)
	for b.Loop() {
		idle, idleBare := watchword.quietly(b), bare.quietly(b)
		memory, memoryBare := watchword.resident(b), bare.resident(b)
		_, revocations := subscribe(b, watchword, "/api/revocations", subscribers)
		subscribe(b, bare, "/stream", subscribers)
		perSubscriber := func(x float64) float64 { return x * 1e6 / subscribers }
		b.ReportMetric(perSubscriber(watchword.quietly(b)-idle), "µs-cpu/subscriber-s")
		b.ReportMetric(perSubscriber(bare.quietly(b)-idleBare), "bare-µs-cpu/subscriber-s")
		b.ReportMetric(float64(watchword.resident(b)-memory)/subscribers/1e3, "kB/subscriber")
		b.ReportMetric(float64(bare.resident(b)-memoryBare)/subscribers/1e3, "bare-kB/subscriber")

		heard, before := revocations.Load(), watchword.cpu(b)
		for i := range revokedEach {
			jti := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "token-%010d", i))
			r := post(watchword, "/api/revocations", map[string]string{"jti": jti})
			r.Header.Set("Authorization", "Bearer "+grants[0].AccessToken)
			res, err := watchword.client.Do(r)
			if err != nil || res.StatusCode != http.StatusOK {
				b.Fatal(res, err)
			}
			res.Body.Close()
			want := heard + int64(i+1)*subscribers
			await(b, "every subscriber hears of it", func() bool { return revocations.Load() >= want })
		}
		b.ReportMetric(float64((watchword.cpu(b)-before).Microseconds())/revokedEach/subscribers, "µs-cpu/subscriber-revocation")
		b.ReportMetric(0, "ns/op")
	}
}

// A long log in memory, of tokens.
type longLog struct {
	store.Revocations // nil: nothing else is asked of it
	lines             []store.Revocation
}

func (l *longLog) Setting(context.Context, string) (string, error) { return "", store.ErrNotFound }
func (l *longLog) DeleteExpiredRevocations(context.Context, time.Time, int) (int, error) {
	return 0, nil
}

func (l *longLog) RevocationsAfter(_ context.Context, after int64, limit int) ([]store.Revocation, store.LogHead, error) {
	lines := l.lines[after:]
	return lines[:min(limit, len(lines))], store.LogHead{ID: "long", Seq: int64(len(l.lines))}, nil
}

// A resource server starts, while a million tokens are revoked.
func BenchmarkFeedSnapshot(b *testing.B) {
	const million = 1_000_000
	server := feedOf(b, million)
	issuer := verifytest.New(b)
	token := issuer.Token("u", nil)

	for b.Loop() {
		for _, encoding := range []string{"identity", "gzip"} {
			began := time.Now()
			size := download(b, server.URL, encoding)
			b.ReportMetric(time.Since(began).Seconds(), encoding+"-s")
			b.ReportMetric(float64(size)/1e6, encoding+"-MB")
		}
		cfg := issuer.Config()
		cfg.RevocationsURL = server.URL + "/api/revocations"
		cfg.Logger = slog.New(slog.DiscardHandler)
		began := time.Now()
		v, err := verify.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := v.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "ready-s")
		if n := v.Status().Revocations; n != million {
			b.Errorf("the resource server knows %d", n)
		}
		v.Close()
		b.ReportMetric(0, "ns/op")
	}
}

// download reads the whole log by pages of 10,000 and says how many bytes came.
func download(b *testing.B, url, encoding string) (size int64) {
	b.Helper()
	for after := int64(0); ; {
		r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/api/revocations?limit=10000&after=%d", url, after), nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", encoding)
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		counted := &counter{Reader: res.Body}
		body := io.Reader(counted)
		if res.Header.Get("Content-Encoding") == "gzip" { // a page may be too small for it
			if body, err = gzip.NewReader(body); err != nil {
				b.Fatal(err)
			}
		}
		var page revoked.Page
		if err := json.NewDecoder(body).Decode(&page); err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, body) // so that the connection is used again
		res.Body.Close()
		size, after = size+counted.n, page.Next()
		if !page.More {
			return size
		}
	}
}

type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}
