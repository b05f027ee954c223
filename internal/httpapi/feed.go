package httpapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	// feedPage is how many entries a page has by default. A reader may ask for up to
	// feedMaxPage, and gets them unless feedMaxLarge such pages are being sent already.
	// feedBurst is how many entries a stream sends at once, and how many a page has while
	// feedMaxPages longer pages are being sent. Any client may ask for a page and read it
	// slowly, so what waits to be sent has to be little.
	feedPage     = 1000
	feedMaxPage  = 10000
	feedMaxLarge = 16
	feedMaxPages = 64
	feedBurst    = 100
	// feedMaxStreams bounds the event streams of a replica and the requests that wait: each
	// is a connection that any client may open. One address gets no more than feedMaxShare
	// of them. Many subscribers may share one proxy's address, but no client may keep all
	// others out. The machine's own address is a proxy's and has no share.
	// Each replica counts its own connections, which are what it has to bound: state.Limit
	// counts events, and for the whole cluster.
	feedMaxStreams = 10000
	feedMaxShare   = feedMaxStreams / 4
	// feedGather is the least time between two parts of a stream with entries: in a flood
	// of revocations, entries are sent together. The first entry after a while is sent at
	// once.
	feedGather = 20 * time.Millisecond
	// feedMaxWait is how long a page may be held back until there is a new entry. It is
	// shorter than the time that proxies wait for an answer.
	feedMaxWait = 20 * time.Second
	// feedZip is from how many bytes on a page is compressed.
	feedZip = 4 << 10
	// feedWriteTimeout is how long a subscriber may take to accept what it is sent
	// before it is cut off. It resumes where it was.
	feedWriteTimeout = 10 * time.Second
)

var (
	errFeedAfter   = problem.New(problem.Malformed, "invalid_after", "after must be a sequence number: 0 or more")
	errFeedLimit   = problem.New(problem.Malformed, "invalid_limit", "limit must be from 1 to %d", feedMaxPage)
	errFeedWait    = problem.New(problem.Malformed, "invalid_wait", "wait must be from 0 to %d seconds", int(feedMaxWait/time.Second))
	errFeedEventID = problem.New(problem.Malformed, "invalid_last_event_id", "Last-Event-ID must be an id that this feed has sent")
	errFeedFull    = problem.New(problem.Unavailable, "too_many_streams", "this replica serves as many event streams as it can, or as it gives to one address; poll for pages").After(10 * time.Second)
)

// Feed is the public feed of revocations, answered from memory.
//
// A page is JSON (revoked.Page); with wait it is held back until there is a new entry. As
// text/event-stream it begins with the event
// "snapshot", when the reader starts from the beginning, or "resume"; then come
// "revocation" for every entry, with <log>:<seq> as its id, and "head" whenever
// everything up to the head has been sent, at least once a Heartbeat. All but
// "revocation" carry a feedHead.
type Feed struct {
	View *revocation.View
	// Heartbeat is how often a subscriber receives the time as of which it knows
	// everything.
	Heartbeat time.Duration
	// Done is closed when the replica drains: the streams end, and their readers connect to
	// another replica.
	Done <-chan struct{}
	// Answer returns what authenticates a page for a peer that chose the nonce and
	// asked for that place of a log (package cluster), or an error for the peer.
	Answer func(nonce, log string, after int64, body []byte) (instance, mac string, err error)
	// Proxies are the addresses whose X-Forwarded-For is believed.
	Proxies httpkit.Proxies
	// MutualTLS: a peer is answered only if it has shown a certificate that the
	// listener has verified.
	MutualTLS bool

	streams atomic.Int64 // and waiting requests
	mu      sync.Mutex
	shares  map[string]int // of streams, by client address
	large   atomic.Int64   // answers of more than feedPage entries
	pages   atomic.Int64   // answers of more than feedBurst entries
}

// feedHead is a revoked.Page without the entries.
type feedHead struct {
	Log  string    `json:"log"`
	Head int64     `json:"head"`
	AsOf time.Time `json:"as_of"`
	Age  int64     `json:"age_ms"`
}

// Mount adds the route.
func (f *Feed) Mount(api *httpkit.API) {
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/api/revocations", ID: "revocations", Tag: "revocations",
		Summary: "The feed of revocations: a page as JSON, or text/event-stream",
		Errors:  []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound},
		Parameters: []*huma.Param{
			{Name: "after", In: "query", Description: "the last sequence number that is known", Schema: between(0, math.MaxInt64)},
			{Name: "limit", In: "query", Description: "how many entries a page has", Schema: between(1, feedMaxPage)},
			{Name: "wait", In: "query", Description: "for how many seconds the page may be held back until there is a new entry", Schema: between(0, feedMaxWait.Seconds())},
			{Name: "Last-Event-ID", In: "header", Description: "the id of the last event that was received, to resume a stream", Schema: &huma.Schema{Type: "string"}},
			nonceHeader,
		},
		Status: http.StatusOK, Answer: revoked.Page{}, Type: jsonType,
		OtherAnswers: []httpkit.Other{{
			Status: http.StatusOK, Type: "text/event-stream",
			Answer: &huma.Schema{Type: "string", Description: "events snapshot or resume, revocation, head"},
		}},
	}, f.serve)
}

func (f *Feed) serve(w http.ResponseWriter, r *http.Request) {
	q, err := readFeedQuery(r)
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		q.limit = min(q.limit, feedBurst)
		f.stream(w, r, q)
		return
	}
	if q.limit > feedPage {
		defer f.large.Add(-1)
		if f.large.Add(1) > feedMaxLarge || q.wait > 0 {
			q.limit = feedPage
		}
	}
	page, err := f.first(r.Context(), q)
	if err == nil && q.wait > 0 {
		page, err = f.await(r, page, q)
	}
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	if len(page.Entries) > feedBurst {
		defer f.pages.Add(-1)
		if f.pages.Add(1) > feedMaxPages {
			page.Entries, page.More = page.Entries[:feedBurst], true
		}
	}
	f.writePage(w, r, q, page)
}

// A feedQuery is a reader's place in the log, and how much it asks for.
type feedQuery struct {
	log   string // empty: the reader has not named one
	after int64
	limit int
	wait  time.Duration
}

// readFeedQuery reads the query, or what an event stream sends when it reconnects.
func readFeedQuery(r *http.Request) (q feedQuery, err error) {
	query := r.URL.Query()
	q.limit = feedPage
	if s := query.Get("limit"); s != "" {
		if q.limit, err = strconv.Atoi(s); err != nil || q.limit < 1 || q.limit > feedMaxPage {
			return q, errFeedLimit
		}
	}
	if s := query.Get("wait"); s != "" {
		seconds, err := strconv.Atoi(s)
		if err != nil || seconds < 0 || seconds > int(feedMaxWait/time.Second) {
			return q, errFeedWait
		}
		q.wait = time.Duration(seconds) * time.Second
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		at := strings.LastIndexByte(id, ':')
		if at < 0 {
			return q, errFeedEventID
		}
		if q.after, err = strconv.ParseInt(id[at+1:], 10, 64); err != nil || q.after < 0 {
			return q, errFeedEventID
		}
		q.log = id[:at]
		return q, nil
	}
	if s := query.Get("after"); s != "" {
		if q.after, err = strconv.ParseInt(s, 10, 64); err != nil || q.after < 0 {
			return q, errFeedAfter
		}
	}
	return q, nil
}

// first returns the page with which an answer begins. A reader that comes from another
// replica may have seen more than this replica has. If that is still so after this replica
// has read the database, the reader's log is another one, and the reader is sent everything.
func (f *Feed) first(ctx context.Context, q feedQuery) (revoked.Page, error) {
	if head, asOf := f.View.Confirmed(); q.after > head && !asOf.IsZero() {
		ctx, cancel := context.WithTimeout(ctx, 2*f.Heartbeat)
		defer cancel()
		if err := f.View.Wait(ctx, 0); err != nil {
			return revoked.Page{}, revocation.ErrStale.After(f.Heartbeat)
		}
	}
	return f.View.Page(q.log, q.after, q.limit)
}

// await holds an empty page back until there is a new entry, or the reader has waited long
// enough. Then the page says as of when it is true. If too many requests wait already, the
// page is returned at once.
func (f *Feed) await(r *http.Request, page revoked.Page, q feedQuery) (revoked.Page, error) {
	select {
	case <-f.Done: // a reader that has waited asks again at once
		return page, nil
	default:
	}
	leave, ok := f.enter(r)
	if !ok {
		return page, nil
	}
	defer leave()
	began := time.Now()
	enough := time.NewTimer(q.wait)
	defer enough.Stop()
	log, over := page.Log, false
	for {
		next := f.View.Next()                      // before the page, so that none is missed
		waited := time.Since(began).Milliseconds() // too: the page is as of later
		page, err := f.View.Page(q.log, q.after, q.limit)
		if err != nil {
			return page, err
		}
		if over || page.Snapshot || page.Log != log || page.Head > q.after || len(page.Entries) > 0 {
			page.Waited = &waited
			return page, nil
		}
		select {
		case <-next:
		case <-enough.C:
			over = true
		case <-f.Done:
			over = true
		case <-r.Context().Done():
			return page, nil // the client is gone
		}
	}
}

// enter takes a place among the streams, if there is one for the client's address.
func (f *Feed) enter(r *http.Request) (leave func(), ok bool) {
	address := network(f.Proxies.Address(r))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams.Load() >= feedMaxStreams || address != "" && f.shares[address] >= feedMaxShare {
		return nil, false
	}
	if f.shares == nil {
		f.shares = map[string]int{}
	}
	f.streams.Add(1)
	f.shares[address]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.streams.Add(-1)
		if f.shares[address]--; f.shares[address] == 0 {
			delete(f.shares, address)
		}
	}, true
}

// network is an address, or the /64 of IPv6, which is what one client has; nothing
// for this machine.
func network(address string) string {
	a, err := netip.ParseAddr(address)
	switch {
	case err != nil || a.IsLoopback():
		return ""
	case a.Is4():
		return address
	}
	p, _ := a.WithZone("").Prefix(64) // it has 128 bits
	return p.String()
}

// writePage writes a page, compressed if that is worth while and understood: of an
// entry's 80 bytes only 16 are random. A peer, which asks with a nonce, can tell by
// the answer that a replica made it for this question.
func (f *Feed) writePage(w http.ResponseWriter, r *http.Request, q feedQuery, page revoked.Page) {
	if page.Entries == nil {
		page.Entries = []revoked.Entry{} // an empty array, not null
	}
	body, err := json.Marshal(page)
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	h := w.Header()
	if nonce := r.Header.Get(cluster.HeaderNonce); nonce != "" {
		if f.MutualTLS && !showedCertificate(r) {
			httpkit.WriteProblem(w, errNoCertificate)
			return
		}
		instance, mac, err := f.Answer(nonce, q.log, q.after, body)
		if err != nil {
			httpkit.WriteProblem(w, err)
			return
		}
		h.Set(cluster.HeaderInstance, instance)
		h.Set(cluster.HeaderMAC, mac)
	}
	h.Set("Content-Type", "application/json")
	// Not to be stored, and without an ETag: every answer says as of when it is
	// true, so no two are the same, and an old one would pass for a new one.
	h.Set("Cache-Control", "no-store")
	if len(body) >= feedZip && acceptsGzip(r.Header) {
		h.Set("Content-Encoding", "gzip")
		body = zipped(body)
	}
	writeSlowly(w, http.StatusOK, body)
}

// writeSlowly gives a client that may be anybody feedWriteTimeout to accept the body.
func writeSlowly(w http.ResponseWriter, status int, body []byte) {
	// The server's own deadline may have begun when the request did. One that knows
	// no deadlines has none to extend.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(feedWriteTimeout))
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client is gone
}

// zipped is the body in gzip. It is whole before anything is sent: a compressor has
// a megabyte of tables, which no slow reader may hold, and there are no more of them
// than can work at once.
func zipped(body []byte) []byte {
	zipping <- struct{}{}
	defer func() { <-zipping }()
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	var out bytes.Buffer
	z.Reset(&out)
	_, _ = z.Write(body) // into memory: cannot fail
	_ = z.Close()
	return out.Bytes()
}

var zipping = make(chan struct{}, runtime.GOMAXPROCS(0))

var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // a level that there is
	return z
}}

// acceptsGzip reads Accept-Encoding (RFC 9110 §12.5.3) as far as gzip goes.
func acceptsGzip(h http.Header) bool {
	for one := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(one, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			_, q, weighted := strings.Cut(weight, "=")
			n, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
			return !weighted || err == nil && n > 0
		}
	}
	return false
}

// stream sends events until the reader goes, falls behind, or the replica drains.
func (f *Feed) stream(w http.ResponseWriter, r *http.Request, q feedQuery) {
	leave, ok := f.enter(r)
	if !ok {
		httpkit.WriteProblem(w, errFeedFull)
		return
	}
	defer leave()
	page, err := f.first(r.Context(), q)
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the events back

	s := stream{ResponseController: http.NewResponseController(w), w: w}
	event := "resume"
	if page.Snapshot || q.after == 0 {
		event = "snapshot"
	}
	if s.head(event, page); s.send(page) != nil {
		return
	}
	f.follow(r.Context(), &s, page, q.limit)
}

// follow goes on after a page that has been sent.
func (f *Feed) follow(ctx context.Context, s *stream, last revoked.Page, limit int) {
	beat := time.NewTicker(f.Heartbeat)
	defer beat.Stop()
	sent := time.Now()
	for due := false; ; {
		next := f.View.Next() // before the page, so that none is missed
		page, err := f.View.Page(last.Log, last.Next(), limit)
		if err != nil {
			return // cannot be: the view has been loaded
		}
		if page.Snapshot {
			s.head("snapshot", page)
		}
		if due || len(page.Entries) > 0 || page.Head != last.Head || page.Log != last.Log {
			if s.send(page) != nil {
				return
			}
			beat.Reset(f.Heartbeat)
			sent = time.Now()
		}
		if due, last = false, page; page.More {
			continue
		}
		select {
		case <-next:
			if !f.pause(ctx, feedGather-time.Since(sent)) {
				return
			}
		case <-beat.C:
			due = true
		case <-ctx.Done():
			return
		case <-f.Done:
			return
		}
	}
}

// pause waits, and reports whether the stream goes on.
func (f *Feed) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return true
	case <-ctx.Done():
	case <-f.Done:
	}
	return false
}

// A stream writes events (WHATWG HTML, §9.2).
type stream struct {
	*http.ResponseController
	w   http.ResponseWriter
	buf bytes.Buffer
}

// send writes what is waiting and the page, and flushes.
func (s *stream) send(page revoked.Page) error {
	for _, e := range page.Entries {
		s.event("revocation", page.Log, e.Seq, e)
	}
	if !page.More {
		s.head("head", page)
	}
	if err := s.SetWriteDeadline(time.Now().Add(feedWriteTimeout)); err != nil {
		return err
	}
	_, err := s.buf.WriteTo(s.w)
	if err != nil {
		return err
	}
	return s.Flush()
}

// head puts an event about the head of the log into the buffer. Only "head"
// itself has an id: after it, the reader has everything.
func (s *stream) head(event string, p revoked.Page) {
	head := feedHead{p.Log, p.Head, p.AsOf, p.Age}
	if event == "head" {
		s.event(event, p.Log, p.Next(), head)
		return
	}
	s.event(event, "", 0, head)
}

func (s *stream) event(event, log string, seq int64, data any) {
	if log != "" {
		fmt.Fprintf(&s.buf, "id: %s:%d\n", log, seq)
	}
	body, err := json.Marshal(data)
	if err != nil {
		panic(err) // plain structs of numbers and strings
	}
	fmt.Fprintf(&s.buf, "event: %s\ndata: %s\n\n", event, body)
}
