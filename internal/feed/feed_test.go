package feed

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// A feedNode is a replica that serves its feed from a real database.
type feedNode struct {
	*httptest.Server // nil: see newFeed
	db               *sqldb.DB
	feed             *Feed
	mux              *http.ServeMux
	log              *revocation.Log
	done             chan struct{} // closed to drain
}

func startFeed(t *testing.T) *feedNode {
	t.Helper()
	n := newFeed(t)
	n.Server = httptest.NewServer(n.mux)
	t.Cleanup(n.Close)
	return n
}

// newFeed makes a feedNode that does not listen.
func newFeed(t *testing.T) *feedNode {
	t.Helper()
	n := &feedNode{db: sqldbtest.Open(t), done: make(chan struct{})}
	s := sqlstore.New(n.db)
	view, err := revocation.NewView(revocation.Config{
		Store: s, Poll: 200 * time.Millisecond, MaxStaleness: time.Minute, Now: time.Now,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.log = &revocation.Log{Store: s, View: view, Now: time.Now}
	n.feed = &Feed{View: view, Heartbeat: 200 * time.Millisecond, Done: n.done}
	n.mux = http.NewServeMux()
	n.feed.Mount(httpkit.NewAPI(n.mux, "test", nil, httpkit.Proxies{}, nil))
	return n
}

// run loads and follows the log until the test ends.
func (n *feedNode) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); n.feed.View.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	if err := n.feed.View.Wait(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

func (n *feedNode) revoke(t *testing.T, jti string) {
	t.Helper()
	_, err := n.log.Revoke(t.Context(), store.Revocation{
		Kind: string(revoked.Token), Subject: jti, ExpiresAt: time.Now().Add(time.Hour), Reason: "logout",
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (n *feedNode) get(t *testing.T, query string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.URL+"/api/revocations"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := n.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func (n *feedNode) page(t *testing.T, query string) revoked.Page {
	t.Helper()
	res := n.get(t, query)
	var p revoked.Page
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", query, res.Status, err)
	}
	return p
}

func TestFeedPages(t *testing.T) {
	n := startFeed(t)
	res := n.get(t, "")
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("before the log was read: %s, %v", res.Status, res.Header)
	}
	if res := n.get(t, "", "Accept", "text/event-stream"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a stream before the log was read: %s", res.Status)
	}
	n.run(t)

	res = n.get(t, "")
	var raw map[string]json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&raw); err != nil || string(raw["entries"]) != "[]" || string(raw["head"]) != "0" {
		t.Errorf("an empty log is %s, %v", raw, err)
	}
	for _, name := range []string{"version", "log", "head", "as_of", "age_ms", "snapshot", "entries", "more"} {
		if _, ok := raw[name]; !ok {
			t.Errorf("the page lacks %s", name)
		}
	}
	if c := res.Header.Get("Cache-Control"); c != "no-store" {
		t.Errorf("Cache-Control is %q", c)
	}
	for i := range 5 {
		n.revoke(t, strconv.Itoa(i))
	}
	p := n.page(t, "?after=2&limit=2")
	if len(p.Entries) != 2 || p.Entries[0].Seq != 3 || !p.More || p.Snapshot || p.Entries[0].ID != revoked.Digest(revoked.Token, "2") {
		t.Errorf("page is %+v", p)
	}
	if since := time.Since(p.AsOf); since < 0 || since > time.Minute || p.Age < 0 || p.Age > 60_000 {
		t.Errorf("as of %v ago, age %d ms", since, p.Age)
	}
	if p := n.page(t, "?after=9"); !p.Snapshot || len(p.Entries) != 5 {
		t.Errorf("after more than there is comes %+v", p)
	}

	for query, code := range map[string]string{
		"?after=-1": "invalid_after", "?after=x": "invalid_after", "?after=1.5": "invalid_after", "?after=99999999999999999999": "invalid_after",
		"?limit=0": "invalid_limit", "?limit=10001": "invalid_limit", "?limit=x": "invalid_limit",
		"?wait=-1": "invalid_wait", "?wait=21": "invalid_wait", "?wait=1s": "invalid_wait",
		"?version=": "invalid_version", "?version=0": "invalid_version", "?version=-1": "invalid_version", "?version=%2B1": "invalid_version",
		"?version=1.5": "invalid_version", "?version=two": "invalid_version", "?version=2147483648": "invalid_version", "?version=99999999999999999999": "invalid_version",
	} {
		res := n.get(t, query)
		var p httpkit.Problem
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != http.StatusBadRequest || p.Code != code {
			t.Errorf("%s: %s, %+v, %v", query, res.Status, p, err)
		}
	}
	for _, id := range []string{"x", "log:x", "log:-1"} {
		if res := n.get(t, "", "Accept", "text/event-stream", "Last-Event-ID", id); res.StatusCode != http.StatusBadRequest {
			t.Errorf("Last-Event-ID %s: %s", id, res.Status)
		}
	}
	head, err := n.Client().Head(n.URL + "/api/revocations")
	if err != nil || head.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %v, %v", head, err)
	}
}

// A reader may know later versions of the feed than the server. It is answered in the server's,
// as a reader that names none, or the server's own.
func TestFeedVersion(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.revoke(t, "a")
	for _, query := range []string{"", "?version=1", "?version=7", "?version=2147483647"} {
		if p := n.page(t, query); p.Version != 1 || len(p.Entries) != 1 {
			t.Errorf("%q: the page is %+v", query, p)
		}
		all := events(t, n.get(t, query, "Accept", "text/event-stream"))
		for _, want := range []string{"snapshot", "revocation", "head"} {
			e := next(t, all)
			if e.name != want || want != "revocation" && !strings.HasPrefix(e.data, `{"version":1,"log":`) {
				t.Errorf("%q: event %s is %s, want %s", query, e.name, e.data, want)
			}
		}
	}
	for _, query := range []string{"?version=", "?version=0", "?version=x"} {
		if res := n.get(t, query, "Accept", "text/event-stream"); res.StatusCode != http.StatusBadRequest {
			t.Errorf("a stream with %s: %s", query, res.Status)
		}
	}
}

// What authenticates a page to a peer names the place from which it was read, however
// that was asked for.
func TestFeedVouchesForThePlace(t *testing.T) {
	n := startFeed(t)
	n.feed.Answer = func(nonce, log string, after int64, _ []byte) (instance, mac string, err error) {
		return "auth-1", fmt.Sprint(nonce, " ", log, " ", after), nil
	}
	n.run(t)
	n.revoke(t, "a")
	log := n.page(t, "").Log
	for query, want := range map[string]string{
		"":         "nonce " + log + " 0",
		"?after=1": "nonce " + log + " 0", // the header counts
	} {
		res := n.get(t, query, "Watchword-Nonce", "nonce", "Last-Event-ID", log+":0")
		if got := res.Header.Get("Watchword-MAC"); got != want {
			t.Errorf("%q: vouched for %q, want %q", query, got, want)
		}
	}
	if got := n.get(t, "?after=1", "Watchword-Nonce", "nonce").Header.Get("Watchword-MAC"); got != "nonce  1" {
		t.Errorf("without a log: vouched for %q", got)
	}
}

// A page without entries is held back until there is one.
func TestFeedHoldsAPageBack(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.revoke(t, "a")

	began := time.Now()
	p := n.page(t, "?wait=20")
	if p.Waited == nil || len(p.Entries) != 1 || time.Since(began) > 18*time.Second {
		t.Errorf("what is there already is answered after %v: %+v", time.Since(began), p)
	}
	if p := n.page(t, "?after=1"); p.Waited != nil {
		t.Errorf("a page without wait is held back: %+v", p)
	}
	began = time.Now()
	p = n.page(t, "?after=1&wait=1")
	if took := time.Since(began); took < time.Second || p.Waited == nil || *p.Waited < 1000 || *p.Waited > took.Milliseconds() || len(p.Entries) != 0 || p.Age > 60_000 {
		t.Errorf("after %v, %+v has no entry", took, p)
	}

	waiting := func(query string) <-chan revoked.Page {
		pages := make(chan revoked.Page, 1)
		go func() { pages <- n.page(t, query) }()
		n.await(t, 1)
		return pages
	}
	pages := waiting("?after=1&wait=20")
	n.revoke(t, "b")
	select {
	case p := <-pages:
		if len(p.Entries) != 1 || p.Entries[0].Seq != 2 || p.Head != 2 {
			t.Errorf("the new entry is %+v", p)
		}
	case <-time.After(18 * time.Second): // of the 20
		t.Error("the new entry does not come")
	}

	n.feed.streams.Store(feedMaxStreams)
	if p := n.page(t, "?after=2&wait=20"); p.Waited != nil {
		t.Errorf("one more than can be is held back: %+v", p)
	}
	n.feed.streams.Store(0)

	ctx, leave := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+"/api/revocations?after=2&wait=20", nil)
	left := make(chan error, 1)
	go func() { _, err := n.Client().Do(r); left <- err }()
	n.await(t, 1)
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("a client that leaves is answered %v", err)
	}
	n.await(t, 0)

	pages = waiting("?after=2&wait=20")
	close(n.done) // draining lets them go
	select {
	case <-pages:
	case <-time.After(18 * time.Second):
		t.Error("draining waits for pages that are held back")
	}
}

// await waits until so many streams and waiting requests are counted.
func (n *feedNode) await(t *testing.T, want int64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); n.feed.streams.Load() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are counted, want %d", n.feed.streams.Load(), want)
		}
	}
}

func TestFeedCompressesLargePages(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.revokeAll(t, "", 200)
	for accept, zipped := range map[string]bool{
		"gzip": true, "GZIP": true, "br, gzip;q=0.5": true, "deflate,gzip ;q=1": true,
		"": false, "identity": false, "br": false, "gzip;q=0": false, "gzip; q=0.0": false, "gzip;q=x": false,
	} {
		res := n.get(t, "", "Accept-Encoding", accept)
		if got := res.Header.Get("Content-Encoding") == "gzip"; got != zipped || res.Header.Get("Vary") != "Accept, Accept-Encoding" {
			t.Errorf("%q is answered with %v", accept, res.Header)
			continue
		}
		body := io.Reader(res.Body)
		if zipped {
			var err error
			if body, err = gzip.NewReader(body); err != nil {
				t.Fatal(err)
			}
		}
		var p revoked.Page
		if err := json.NewDecoder(body).Decode(&p); err != nil || len(p.Entries) != 200 || p.Entries[7].ID != revoked.Digest(revoked.Token, "7") {
			t.Errorf("%q: %d entries, %v", accept, len(p.Entries), err)
		}
	}
	if res := n.get(t, "?limit=3", "Accept-Encoding", "gzip"); res.Header.Get("Content-Encoding") != "" {
		t.Errorf("a small page is compressed: %v", res.Header)
	}
}

// feedHead is the data of every event but "revocation".
type feedHead struct {
	Log  string    `json:"log"`
	Head int64     `json:"head"`
	AsOf time.Time `json:"as_of"`
	Age  int64     `json:"age_ms"`
}

// A sent event as a test reads it.
type sentEvent struct{ id, name, data string }

// events reads a stream in the background.
func events(t *testing.T, res *http.Response) <-chan sentEvent {
	t.Helper()
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %v", res.Status, res.Header)
	}
	all := make(chan sentEvent, 10000)
	go func() {
		defer close(all)
		var e sentEvent
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			name, value, _ := strings.Cut(s.Text(), ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = value
			case "":
				all <- e
				e = sentEvent{}
			}
		}
	}()
	return all
}

func next(t *testing.T, all <-chan sentEvent) sentEvent {
	t.Helper()
	select {
	case e, ok := <-all:
		if !ok {
			t.Fatal("the stream has ended")
		}
		return e
	case <-time.After(time.Minute):
		t.Fatal("no event for a minute")
	}
	return sentEvent{}
}

func TestFeedStream(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	log := n.page(t, "").Log
	n.revoke(t, "a")
	all := events(t, n.get(t, "", "Accept", "text/event-stream"))
	if e := next(t, all); e.name != "snapshot" || e.id != "" || !strings.Contains(e.data, log) {
		t.Errorf("it begins with %+v", e)
	}
	if e := next(t, all); e.name != "revocation" || e.id != log+":1" || !strings.Contains(e.data, `"seq":1,"kind":"jti"`) {
		t.Errorf("then comes %+v", e)
	}
	for range 3 { // heartbeats, though nothing happens
		e := next(t, all)
		var h feedHead
		if err := json.Unmarshal([]byte(e.data), &h); err != nil || e.name != "head" || e.id != log+":1" || h.Head != 1 || time.Since(h.AsOf) > time.Minute {
			t.Errorf("then comes %+v, %v", e, err)
		}
	}
	n.revoke(t, "b")
	e := next(t, all)
	for ; e.name == "head"; e = next(t, all) {
	}
	if e.name != "revocation" || e.id != log+":2" {
		t.Errorf("the new entry is %+v", e)
	}

	all = events(t, n.get(t, "", "Accept", "text/event-stream", "Last-Event-ID", log+":1"))
	if e := next(t, all); e.name != "resume" {
		t.Errorf("resumed with %+v", e)
	}
	if e := next(t, all); e.name != "revocation" || e.id != log+":2" {
		t.Errorf("resumed with %+v", e)
	}
	for name, id := range map[string]string{"another log": "other:2", "more than there is": log + ":7"} {
		all = events(t, n.get(t, "", "Accept", "text/event-stream", "Last-Event-ID", id))
		first, second := next(t, all), next(t, all)
		if first.name != "snapshot" || second.id != log+":1" {
			t.Errorf("%s: resumed with %+v, %+v", name, first, second)
		}
	}

	// A reader comes from a replica that has read more than this one so far.
	if _, err := n.log.Store.AppendRevocation(t.Context(), store.Revocation{
		Kind: "jti", Subject: "c", CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	all = events(t, n.get(t, "", "Accept", "text/event-stream", "Last-Event-ID", log+":3"))
	if first, second := next(t, all), next(t, all); first.name != "resume" || second.name != "head" || second.id != log+":3" {
		t.Errorf("resumed with %+v, %+v", first, second)
	}

	close(n.done) // draining ends them all
	for deadline := time.Now().Add(time.Minute); n.feed.streams.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d streams survive the drain", n.feed.streams.Load())
		}
	}
}

func TestFeedStreamEndsWithItsReader(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	for range 20 {
		res := n.get(t, "", "Accept", "text/event-stream")
		next(t, events(t, res))
		res.Body.Close()
	}
	for deadline := time.Now().Add(time.Minute); n.feed.streams.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d streams survive their readers", n.feed.streams.Load())
		}
	}
}

// In a flood, what comes in between goes out together.
func TestFeedGathersAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFeed(t)
		n.run(t)
		ctx, cancel := context.WithCancel(t.Context())
		reader := &measuring{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/revocations", nil)
		r.Header.Set("Accept", "text/event-stream")
		var streaming sync.WaitGroup
		streaming.Go(func() { n.feed.serve(reader, r) })
		time.Sleep(time.Second)
		const flood, every = 60, 2 * time.Millisecond
		for i := range flood {
			n.revoke(t, strconv.Itoa(i))
			time.Sleep(every)
		}
		time.Sleep(time.Second)
		cancel()
		streaming.Wait()
		body := reader.Body.String()
		first, last := strings.Index(body, "event: revocation"), strings.LastIndex(body, "event: revocation")
		if got := strings.Count(body, "event: revocation"); got != flood {
			t.Fatalf("%d revocations came", got)
		}
		if parts := strings.Count(body[first:last], "event: head"); parts > int(flood*every/feedGather)+2 {
			t.Errorf("%d revocations in %v came in %d parts", flood, flood*every, parts)
		}
	})
}

// A slowReader accepts a first write, and then times out as a connection does.
type slowReader struct {
	http.ResponseWriter
	writes   int
	deadline time.Time
}

var errSlow = errors.New("i/o timeout")

func (s *slowReader) SetWriteDeadline(t time.Time) error { s.deadline = t; return nil }
func (s *slowReader) FlushError() error                  { return nil }
func (s *slowReader) Write(p []byte) (int, error) {
	if s.writes++; s.writes > 1 {
		return 0, errSlow
	}
	return len(p), nil
}

func TestFeedCutsOffSlowReaders(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	w := &slowReader{ResponseWriter: httptest.NewRecorder()}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/revocations", nil)
	r.Header.Set("Accept", "text/event-stream")
	began := time.Now()
	n.feed.serve(w, r) // returns
	if after := w.deadline.Sub(began); w.writes != 2 || after < feedWriteTimeout || time.Until(w.deadline) > feedWriteTimeout {
		t.Errorf("after %d writes, with a deadline %v after the beginning", w.writes, after)
	}
}

func TestFeedHasRoomForSoManyStreams(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.feed.streams.Store(feedMaxStreams)
	if res := n.get(t, "", "Accept", "text/event-stream"); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "10" {
		t.Errorf("one more stream: %s, %v", res.Status, res.Header)
	}
	if res := n.get(t, ""); res.StatusCode != http.StatusOK {
		t.Errorf("a page: %s", res.Status)
	}
	if left := n.feed.streams.Load(); left != feedMaxStreams {
		t.Errorf("%d streams are counted", left)
	}
}

// One client leaves room for others, however many addresses of its network it has.
func TestFeedHasRoomForOthersThanOne(t *testing.T) {
	f := &Feed{Proxies: httpkit.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}}
	from := func(address string) *http.Request {
		r := httptest.NewRequest("GET", "/api/revocations", nil) // its peer is 192.0.2.1
		r.Header.Set("X-Forwarded-For", address)
		return r
	}
	var leave []func()
	for i := range feedMaxShare {
		_, l, ok := f.enter(from(fmt.Sprintf("2001:db8::%x", i)))
		if !ok {
			t.Fatalf("number %d has no room", i)
		}
		leave = append(leave, l)
	}
	if _, _, ok := f.enter(from("2001:db8::ffff:1")); ok {
		t.Error("one address may have more than its share")
	}
	for _, other := range []string{"2001:db8:0:1::1", "198.51.100.1", "::1"} {
		_, l, ok := f.enter(from(other))
		if !ok {
			t.Errorf("%s has no room", other)
		}
		leave = append(leave, l)
	}
	for _, l := range leave {
		l()
	}
	if f.streams.Load() != 0 || len(f.shares) != 0 {
		t.Errorf("left are %d, %v", f.streams.Load(), f.shares)
	}
}

// TestFeedReachesResourceServers runs the whole way: the log in the database, the
// view, the feed over HTTP, the client.
func TestFeedReachesResourceServers(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.revokeAll(t, "before-", 1500)
	issuer := verifytest.New(t)
	cfg := issuer.Config()
	cfg.RevocationsURL = n.URL + "/api/revocations"
	cfg.Logger = slog.New(slog.DiscardHandler)
	v, err := verify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	token := func(jti string) string { return issuer.Sign("u", map[string]any{"jti": jti}) }
	for _, i := range []int{0, 1, 999, 1000, 1499} {
		if _, err := v.Verify(t.Context(), token(fmt.Sprint("before-", i))); !errors.Is(err, verify.ErrRevoked) {
			t.Errorf("before-%d: %v", i, err)
		}
	}
	var slowest time.Duration
	for i := range 20 {
		jti := fmt.Sprint("live-", i)
		tok := token(jti)
		if _, err := v.Verify(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		n.revoke(t, jti)
		answered := time.Now()
		for {
			asked := time.Since(answered)
			_, err := v.Verify(t.Context(), tok)
			if errors.Is(err, verify.ErrRevoked) {
				break
			}
			late := err == nil && asked > verify.DefaultMaxStaleness || asked > time.Minute
			if late || err != nil && !errors.Is(err, verify.ErrStale) {
				t.Fatalf("%s, %v after it was revoked: %v", jti, asked, err)
			}
			time.Sleep(time.Millisecond)
		}
		slowest = max(slowest, time.Since(answered))
	}
	t.Logf("20 revocations over the stream: the slowest was seen %v after its 2xx", slowest)
}

// A measuring is a reader that notes the largest piece that it was sent at once.
type measuring struct {
	*httptest.ResponseRecorder
	largest int
}

func (m *measuring) Write(p []byte) (int, error) {
	m.largest = max(m.largest, len(p))
	return m.ResponseRecorder.Write(p)
}

func (m *measuring) SetWriteDeadline(time.Time) error { return nil }

// What is written to a slow reader at once is little.
func TestFeedStreamsHoldLittle(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	const entries = 300
	n.revokeAll(t, "", entries)
	for _, query := range []string{"", "?limit=1000"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		m := &measuring{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequestWithContext(ctx, "GET", "/api/revocations"+query, nil)
		r.Header.Set("Accept", "text/event-stream")
		ended := make(chan struct{})
		go func() { defer close(ended); n.feed.serve(&until{m, cancel}, r) }()
		<-ended
		if got := strings.Count(m.Body.String(), "event: revocation\n"); got != entries || m.largest > 32<<10 {
			t.Errorf("%q: %d entries in pieces of up to %d bytes", query, got, m.largest)
		}
	}
}

// revokeAll revokes many tokens at once, in a log that is empty. Their ids are the
// prefix and a number from 0.
func (n *feedNode) revokeAll(t *testing.T, prefix string, entries int) {
	t.Helper()
	now := store.Micros(time.Now())
	err := n.db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
		if _, err := q.Exec(ctx, `WITH RECURSIVE number(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM number WHERE i + 1 < ?)
			INSERT INTO revocations (seq, kind, subject, epoch, issued_before, expires_at, created_at, actor, reason)
			SELECT i + 1, ?, ? || i, 0, 0, ?, ?, '', 'logout' FROM number`,
			entries, string(revoked.Token), prefix, now+time.Hour.Microseconds(), now); err != nil {
			return err
		}
		_, err := q.Exec(ctx, "UPDATE revocation_head SET seq = ? WHERE id = 1", entries)
		return err
	})
	if err == nil {
		err = n.log.Settle(t.Context(), int64(entries))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// until leaves when it has everything up to the head.
type until struct {
	*measuring
	leave func()
}

func (u *until) Write(p []byte) (int, error) {
	n, err := u.measuring.Write(p)
	if strings.Contains(string(p), "event: head") {
		u.leave()
	}
	return n, err
}
