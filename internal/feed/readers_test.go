package feed

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// A longLog is a log in memory, which is much faster than a database.
type longLog struct {
	store.Revocations // nil: nothing else is asked of it
	head              int64
	entries           []store.Revocation
}

func (l *longLog) RevocationsAfter(_ context.Context, after int64, limit int) ([]store.Revocation, store.LogHead, error) {
	i := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].Seq > after })
	return l.entries[i:min(i+limit, len(l.entries))], store.LogHead{ID: "long", Seq: l.head}, nil
}

// startLongFeed serves a log of so many numbers, of which those are live, or all.
func startLongFeed(t *testing.T, numbers int64, live []int64) *feedNode {
	t.Helper()
	l := &longLog{head: numbers}
	for seq := int64(1); seq <= numbers; seq++ {
		if _, isLive := slices.BinarySearch(live, seq); live == nil || isLive {
			l.entries = append(l.entries, store.Revocation{
				Seq: seq, Kind: string(revoked.Token), Subject: strconv.FormatInt(seq, 10), ExpiresAt: time.Now().Add(time.Hour),
			})
		}
	}
	view, err := revocation.NewView(revocation.Config{
		Store: l, Poll: 200 * time.Millisecond, MaxStaleness: time.Minute, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &feedNode{mux: http.NewServeMux(), done: make(chan struct{})}
	n.feed = &Feed{View: view, Heartbeat: 200 * time.Millisecond, Done: n.done}
	n.feed.Mount(httpkit.NewAPI(n.mux, "test", nil, httpkit.Proxies{}, nil))
	n.Server = httptest.NewServer(n.mux)
	t.Cleanup(n.Close)
	n.run(t)
	return n
}

// A sharing reader notes where in memory the large pieces are that it is sent.
type sharing struct {
	*httptest.ResponseRecorder
	pieces []*byte
	enough context.CancelFunc // called with the event "head"
}

func (s *sharing) SetWriteDeadline(time.Time) error { return nil }
func (s *sharing) Write(p []byte) (int, error) {
	if len(p) > feedFree {
		s.pieces = append(s.pieces, unsafe.SliceData(p))
	}
	if s.enough != nil && bytes.Contains(p, []byte("event: head")) {
		s.enough()
	}
	return s.ResponseRecorder.Write(p)
}

// An entry is encoded, and a segment compressed, once for all readers: all of them are sent
// the same bytes of memory.
func TestFeedReadersShareWhatTheyAreSent(t *testing.T) {
	n := startLongFeed(t, feedTail+2*feedSegment, nil)
	for name, c := range map[string]struct {
		query  string
		header []string
		pieces int // at least
	}{
		"a stream":        {"?after=3000", []string{"Accept", "text/event-stream"}, 10},
		"a page":          {"?limit=10000", nil, 6},
		"a zipped page":   {"?limit=10000", []string{"Accept-Encoding", "gzip"}, 6},
		"the default":     {"", nil, 1},
		"the end":         {"?after=5500", nil, 1},
		"the zipped end":  {"?after=6000", []string{"Accept-Encoding", "gzip"}, 0},
		"not from a head": {"?after=17&limit=10000", []string{"Accept-Encoding", "gzip"}, 6},
	} {
		var readers [2]sharing
		for i := range readers {
			ctx, enough := context.WithTimeout(t.Context(), time.Minute)
			readers[i] = sharing{ResponseRecorder: httptest.NewRecorder(), enough: enough}
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/revocations"+c.query, nil)
			for h := 0; h < len(c.header); h += 2 {
				r.Header.Set(c.header[h], c.header[h+1])
			}
			n.feed.serve(&readers[i], r)
			enough()
		}
		if got := len(readers[0].pieces); got < c.pieces || got != len(readers[1].pieces) || readers[0].Code != http.StatusOK {
			t.Errorf("%s: %d, with %d and %d pieces", name, readers[0].Code, got, len(readers[1].pieces))
			continue
		}
		for i, p := range readers[0].pieces {
			if p != readers[1].pieces[i] {
				t.Errorf("%s: piece %d was made twice", name, i)
			}
		}
	}
}

// Pages give every live entry once and in order, however a reader asks, and say the same in
// gzip.
func TestFeedPagesTogetherAreTheLog(t *testing.T) {
	const numbers = feedTail + 5*feedSegment + 300
	// Segments with all entries, with few, with none.
	var live []int64
	for seq := int64(1); seq <= numbers; seq++ {
		if segment := (seq - 1) / feedSegment % 4; segment == 0 || segment == 3 || segment == 1 && seq%397 == 0 {
			live = append(live, seq)
		}
	}
	n := startLongFeed(t, numbers, live)
	random := rand.New(rand.NewPCG(testenv.Seed(t), 0))
	for round := range 6 {
		after, limit := random.Int64N(numbers+1), 1+random.IntN(feedMaxPage)
		if round%4 == 0 {
			after = 0
		}
		if round%8 == 0 {
			limit = feedMaxPage
		}
		if round%5 == 3 {
			limit = 1 + random.IntN(3*feedBurst)
			after = max(0, numbers-3000)
		}
		want := live
		for len(want) > 0 && want[0] <= after {
			want = want[1:]
		}
		for first := true; ; first = false {
			query := fmt.Sprintf("?after=%d&limit=%d", after, limit)
			page := readPage(t, n, query, "identity")
			if zipped := readPage(t, n, query, "gzip"); fmt.Sprint(zipped.Entries, zipped.More, zipped.Head) != fmt.Sprint(page.Entries, page.More, page.Head) {
				t.Fatalf("%s: in gzip the page is another one", query)
			}
			if len(page.Entries) > limit || len(page.Entries) > len(want) || page.More && len(page.Entries) == 0 || page.Head != numbers {
				t.Fatalf("%s: %d entries, more: %t, head %d", query, len(page.Entries), page.More, page.Head)
			}
			for i, e := range page.Entries {
				if e.Seq != want[i] || e.ID != revoked.Digest(revoked.Token, strconv.FormatInt(e.Seq, 10)) {
					t.Fatalf("%s: entry %d is %d, want %d", query, i, e.Seq, want[i])
				}
			}
			want, after = want[len(page.Entries):], page.Next()
			if !page.More {
				break
			}
			if limit < feedBurst && !first {
				want = nil // some pages of few entries are enough
				break
			}
		}
		if len(want) > 0 {
			t.Fatalf("%d entries are missing, from %d on", len(want), want[0])
		}
	}
}

// readPage reads a page without Go's own decompression.
func readPage(t *testing.T, n *feedNode, query, encoding string) (p revoked.Page) {
	t.Helper()
	res := n.get(t, query, "Accept-Encoding", encoding)
	defer res.Body.Close()
	whole, err := io.ReadAll(res.Body)
	if err != nil || res.Header.Get("Content-Length") != strconv.Itoa(len(whole)) {
		t.Fatalf("%s: %d bytes, %v, %v", query, len(whole), res.Header, err)
	}
	if res.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(whole))
		if err != nil {
			t.Fatal(err)
		}
		z.Multistream(false) // some readers know one member only
		if whole, err = io.ReadAll(z); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	if err := json.Unmarshal(whole, &p); err != nil {
		t.Fatalf("%s: %v in %.200s", query, err, whole)
	}
	return p
}

// A stream begins near the head. A reader that asks for one from the beginning is sent to the
// pages, which lead it to where a stream begins.
func TestFeedStreamBeginsNearTheHead(t *testing.T) {
	const entries = feedTail + 500
	n := startLongFeed(t, entries, nil)
	res := n.get(t, "", "Accept", "text/event-stream")
	var refusal struct{ Code string }
	if err := json.NewDecoder(res.Body).Decode(&refusal); err != nil || res.StatusCode != http.StatusConflict || refusal.Code != "stream_too_far_behind" {
		t.Fatalf("from the beginning: %s, %+v, %v", res.Status, refusal, err)
	}
	page := n.page(t, "?limit=1000")
	id := func(seq int64) string { return page.Log + ":" + strconv.FormatInt(seq, 10) }
	all := events(t, n.get(t, "", "Accept", "text/event-stream", "Last-Event-ID", id(page.Next())))
	if e := next(t, all); e.name != "resume" {
		t.Errorf("it begins with %+v", e)
	}
	for seq := page.Next() + 1; seq <= entries; seq++ {
		if e := next(t, all); e.name != "revocation" || e.id != id(seq) {
			t.Fatalf("entry %d is %+v", seq, e)
		}
	}
	if e := next(t, all); e.name != "head" || e.id != id(entries) {
		t.Errorf("then comes %+v", e)
	}
}

// Package verify, as it was before streams had to begin near the head, reads pages first, and
// pages alone after a stream was refused. So it knows everything in both cases.
func TestFeedReachesResourceServersWithoutStreams(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.revokeAll(t, "before-", feedTail+feedSegment)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "text/event-stream" {
			r.Header.Set("Last-Event-ID", strings.Split(r.Header.Get("Last-Event-ID"), ":")[0]+":0") // as if it were far behind
		}
		n.mux.ServeHTTP(w, r)
	}))
	defer refusing.Close()
	issuer := verifytest.New(t)
	for name, url := range map[string]string{"near the head": n.URL, "far behind": refusing.URL} {
		cfg := issuer.Config()
		cfg.RevocationsURL = url + "/api/revocations"
		cfg.Logger = slog.New(slog.DiscardHandler)
		v, err := verify.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		began := time.Now()
		for !v.Status().Fresh { // on a busy machine the first pages may come late
			if time.Since(began) > time.Minute {
				t.Fatalf("%s: it never knows everything", name)
			}
			time.Sleep(time.Millisecond)
		}
		for _, i := range []int{0, feedSegment, feedTail + feedSegment - 1} {
			if _, err := v.Verify(t.Context(), issuer.Sign("u", map[string]any{"jti": fmt.Sprint("before-", i)})); !errors.Is(err, verify.ErrRevoked) {
				t.Errorf("%s, before-%d: %v", name, i, err)
			}
		}
		token := issuer.Sign("u", map[string]any{"jti": name})
		n.revoke(t, name)
		began = time.Now()
		for !errors.Is(err, verify.ErrRevoked) {
			if late := time.Since(began); err == nil && late > verify.DefaultMaxStaleness || late > time.Minute {
				t.Fatalf("%s: %v after %v", name, err, late)
			}
			time.Sleep(time.Millisecond) // a poll of what has no event
			_, err = v.Verify(t.Context(), token)
		}
	}
}

// An address that does not accept what it was sent gets short pages and no long pieces of a
// stream, while others get what they ask for.
func TestFeedBoundsWhatAnAddressDoesNotRead(t *testing.T) {
	n := startLongFeed(t, 3000, nil)
	ask := func(address string, header ...string) *httptest.ResponseRecorder {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &sharing{ResponseRecorder: httptest.NewRecorder(), enough: cancel}
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/revocations?limit=10000&after=1", nil)
		r.RemoteAddr = address + ":1"
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		n.feed.serve(w, r)
		return w.ResponseRecorder
	}
	entries := func(w *httptest.ResponseRecorder) int {
		var p revoked.Page
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if p.More != (len(p.Entries) < 2999) {
			t.Errorf("%d entries, more: %t", len(p.Entries), p.More)
		}
		return len(p.Entries)
	}
	const slow, other = "192.0.2.7", "198.51.100.7"
	release, ok := n.feed.hold(httpkit.Network(slow), feedUnread-feedFree)
	if !ok {
		t.Fatal("an address that has nothing may have nothing")
	}
	if got := entries(ask(slow)); got != feedBurst {
		t.Errorf("with all of it unread: a page of %d entries", got)
	}
	if got := ask(slow, "Accept", "text/event-stream").Body.String(); strings.Contains(got, "event: revocation") {
		t.Error("with all of it unread, a stream goes on")
	}
	if got := entries(ask(other)); got != 2999 {
		t.Errorf("another address: a page of %d entries", got)
	}
	release()
	if got := entries(ask(slow)); got != 2999 {
		t.Errorf("when it has read everything: a page of %d entries", got)
	}
	if got := strings.Count(ask(slow, "Accept", "text/event-stream").Body.String(), "event: revocation"); got != 2999 {
		t.Errorf("when it has read everything: a stream of %d entries", got)
	}
	for range 3 { // this machine is a proxy
		if _, ok := n.feed.hold(httpkit.Network("127.0.0.1"), feedUnread); !ok {
			t.Error("this machine has a share")
		}
	}
	if len(n.feed.unread) != 0 {
		t.Errorf("left are %v", n.feed.unread)
	}
}

// A reader of a stream that stops to read is cut off, and nothing is left of it.
func TestFeedEndsStreamsThatAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFeed(t)
		n.run(t)
		server, client := net.Pipe() // without a buffer
		s := &stream{out: rawStream{server}, feed: n.feed, log: "", at: 0}
		_, leave, ok := n.feed.enter(httptest.NewRequest(http.MethodGet, "/", nil))
		if !ok {
			t.Fatal("there is no room")
		}
		began := time.Now()
		ended := make(chan time.Duration)
		go func() {
			s.follow(t.Context(), 0)
			leave()
			ended <- time.Since(began)
		}()
		if _, err := client.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		took := <-ended
		if took < feedWriteTimeout || took > feedWriteTimeout+time.Second || n.feed.streams.Load() != 0 || len(n.feed.unread) != 0 {
			t.Errorf("it ends after %v, and %d are left", took, n.feed.streams.Load())
		}
	})
}

// Segments that are not read are dropped, and those that are read are made anew, because
// entries expire.
func TestFeedDropsSegments(t *testing.T) {
	n := startLongFeed(t, feedTail+2*feedSegment, nil)
	l := &n.feed.log
	first, err := l.closed(n.page(t, "").Log, 0)
	if err != nil || len(first.seqs) != feedSegment {
		t.Fatal(len(first.seqs), err)
	}
	n.page(t, "?after=1000")
	for _, c := range []struct {
		name             string
		idle, old, sweep time.Duration // how long ago that was
		kept             bool
	}{
		{"in use", feedSegmentIdle / 2, feedSegmentLife / 2, 2 * feedSegmentIdle, true},
		{"idle, but it was swept lately", 2 * feedSegmentIdle, 0, feedSegmentIdle / 2, true},
		{"idle", 2 * feedSegmentIdle, 0, 2 * feedSegmentIdle, false},
		{"old", 0, 2 * feedSegmentLife, 2 * feedSegmentIdle, false},
	} {
		l.mu.Lock()
		now := time.Now()
		l.segments[0] = first
		first.read, first.made, l.swept = now.Add(-c.idle), now.Add(-c.old), now.Add(-c.sweep)
		l.sweepLocked()
		if kept := l.segments[0] != nil; kept != c.kept || l.segments[1] == nil {
			t.Errorf("%s: it is kept: %t; another one: %v", c.name, kept, l.segments[1] != nil)
		}
		l.mu.Unlock()
	}
}

// A log that takes the place of another one is sent from its beginning; a tail of the former
// one is not.
func TestFeedGoesOnWithAnotherLog(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.revokeAll(t, "", 1200)
	former := n.page(t, "").Log
	early, err := n.feed.log.closed(former, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := events(t, n.get(t, "?after=1200", "Accept", "text/event-stream"))
	if err := n.log.Store.(interface {
		RenewLog(context.Context, string) error
	}).RenewLog(t.Context(), former); err != nil {
		t.Fatal(err)
	}
	var e sentEvent
	for e = next(t, all); e.name != "snapshot"; e = next(t, all) {
	}
	for seq := 1; seq <= 1200; seq++ {
		if e := next(t, all); e.name != "revocation" || !strings.HasSuffix(e.id, ":"+strconv.Itoa(seq)) || strings.HasPrefix(e.id, former) {
			t.Fatalf("entry %d is %+v", seq, e)
		}
	}
	p := n.page(t, "?limit=10000")
	if p.Log == former || len(p.Entries) != 1200 {
		t.Errorf("a page has %d entries of the log %s", len(p.Entries), p.Log)
	}
	l := &n.feed.log
	if _, err := l.closed(former, 0); !errors.Is(err, revocation.ErrStale) {
		t.Errorf("a segment of the former log: %v", err)
	}
	if s, err := l.closed(p.Log, 0); err != nil || s == early {
		t.Errorf("a segment is the former log's: %t, %v", s == early, err)
	}
	l.mu.Lock()
	l.tail, l.segments = &tail{log: former}, map[int64]*segment{} // the view alone knows of the new log
	l.mu.Unlock()
	if _, err := l.closed(former, 0); !errors.Is(err, revocation.ErrStale) {
		t.Errorf("a segment that is made of the former log: %v", err)
	}
}

// 10,000 idle streams take less than 200 MB: 20 kB each, with this test's end of the
// connections.
func TestFeedStreamsAreSmall(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	const streams = 500
	used := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	before := used()
	var clients []net.Conn
	for range streams {
		c, err := net.Dial("tcp", n.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
		fmt.Fprint(c, "GET /api/revocations HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
	}
	for _, c := range clients {
		var answer []byte
		for part := make([]byte, 512); bytes.Count(answer, []byte("event: head")) < 3; { // it has gone through heartbeats
			got, err := c.Read(part)
			if err != nil {
				t.Fatal(err)
			}
			answer = append(answer, part[:got]...)
		}
	}
	if each := (used() - before) / streams; each > 20_000 {
		t.Errorf("a stream takes %d bytes", each)
	} else {
		t.Logf("a stream takes %d bytes", each)
	}
	n.await(t, streams)
}
