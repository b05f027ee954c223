package feed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
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
	// feedPage is how many entries a page has by default, and the most if it is held back. A
	// reader may ask for up to feedMaxPage. feedBurst is how many entries a page has for an
	// address that has used up its feedUnread, and from how many on pages share segments.
	feedPage    = 1000
	feedMaxPage = 10000
	feedBurst   = 100
	// feedUnread is how many bytes of answers one address may have that it has been sent and
	// has not accepted yet. What net/http buffers in any case, feedFree, does not count. The
	// machine's own address is a proxy's and may have any number. The memory is shared by all
	// readers; what counts is the work, and what the kernel buffers.
	feedUnread = 4 << 20
	feedFree   = 4 << 10
	// feedPiece is how much is written to a stream at once, about, so that a reader has
	// feedWriteTimeout for each of them.
	feedPiece = 32 << 10
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
	// feedMaxVersion is the highest version of the feed that a reader may say that it knows.
	feedMaxVersion = math.MaxInt32
	// feedZip is from how many bytes of entries on a page is compressed.
	feedZip = 4 << 10
	// feedWriteTimeout is how long a subscriber may take to accept what it is sent
	// before it is cut off. It resumes where it was.
	feedWriteTimeout = httpkit.WriteTimeout
)

var (
	errFeedAfter   = problem.New(problem.Malformed, "invalid_after", "after must be a sequence number: 0 or more")
	errFeedLimit   = problem.New(problem.Malformed, "invalid_limit", "limit must be from 1 to %d", feedMaxPage)
	errFeedWait    = problem.New(problem.Malformed, "invalid_wait", "wait must be from 0 to %d seconds", int(feedMaxWait/time.Second))
	errFeedVersion = problem.New(problem.Malformed, "invalid_version", "version must be the number of a version of the feed, from 1 to %d: the highest one that the reader knows", feedMaxVersion)
	errFeedEventID = problem.New(problem.Malformed, "invalid_last_event_id", "Last-Event-ID must be an id that this feed has sent")
	errFeedBehind  = problem.New(problem.Conflict, "stream_too_far_behind", "an event stream begins at most some thousand entries before the head of the log; read pages first, ?after=SEQ, and begin a stream where they end")
	errFeedFull    = problem.New(problem.Unavailable, "too_many_streams", "this replica serves as many event streams as it can, or as it gives to one address; poll for pages").After(10 * time.Second)
)

// Feed is the public feed of revocations, answered from memory.
//
// A page is JSON (revoked.Page); with wait it is held back until there is a new entry. A
// text/event-stream begins with the event "snapshot", when the reader starts from the
// beginning, or "resume"; then come "revocation" for every entry, with <log>:<seq> as its id,
// and "head" whenever everything up to the head has been sent, at least once a Heartbeat. All
// but "revocation" carry version, log, head, as_of and age_ms of a revoked.Page. A stream that would
// begin too far before the head is refused with 409; its reader reads pages first.
//
// A reader names the highest version of the feed that it knows. As yet there is revoked.Version
// alone, which every reader knows, so every answer is in that one and says so.
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
	// Proxies are believed about a client's address.
	Proxies httpkit.Proxies
	// MutualTLS: a peer is answered only if it has shown a certificate that the
	// listener has verified.
	MutualTLS bool

	log     feedLog
	streams atomic.Int64     // and waiting requests
	waiting atomic.Int64     // of them
	mu      sync.Mutex       // guards what follows
	shares  map[string]int   // of streams, by client address
	unread  map[string]int64 // bytes, by client address
}

// Mount adds the route.
func (f *Feed) Mount(api *httpkit.API) {
	f.log.view = f.View
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/api/revocations", ID: "revocations", Tag: "revocations",
		Summary: "The feed of revocations: a page as JSON, or text/event-stream",
		Errors:  []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusConflict},
		Parameters: []*huma.Param{
			{Name: "after", In: "query", Description: "the last sequence number that is known", Schema: httpkit.Between(0, math.MaxInt64)},
			{Name: "limit", In: "query", Description: "how many entries a page has", Schema: httpkit.Between(1, feedMaxPage)},
			{Name: "wait", In: "query", Description: "for how many seconds the page may be held back until there is a new entry", Schema: httpkit.Between(0, feedMaxWait.Seconds())},
			{Name: "version", In: "query", Description: "the highest version of the feed that the reader knows; the answer is in that one or a lower one", Schema: httpkit.Between(1, feedMaxVersion)},
			{Name: "Last-Event-ID", In: "header", Description: "the id of the last event that was received, to resume a stream", Schema: &huma.Schema{Type: "string"}},
			httpkit.NonceHeader,
		},
		Status: http.StatusOK, Answer: revoked.Page{}, Type: httpkit.JSON,
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
	w.Header().Add("Vary", "Accept, Accept-Encoding")
	if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		f.stream(w, r, q)
		return
	}
	f.page(w, r, q)
}

func (f *Feed) page(w http.ResponseWriter, r *http.Request, q feedQuery) {
	if q.log == revoked.Former {
		f.writePage(w, r, q, revoked.Page{}, nil)
		return
	}
	page, t, err := f.first(r.Context(), &q)
	if err == nil && q.wait > 0 {
		q.limit = min(q.limit, feedPage)
		page, t, err = f.await(r, page, t, &q)
	}
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	f.writePage(w, r, q, page, t)
}

// A feedQuery is a reader's place in the log, and how much it asks for.
type feedQuery struct {
	log   string // empty: the reader has not named one
	after int64
	limit int
	wait  time.Duration
	from  int64 // after, or 0 if that was in another log
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
	if query.Has("version") {
		if version, err := strconv.ParseUint(query.Get("version"), 10, 64); err != nil || version < 1 || version > feedMaxVersion {
			return q, errFeedVersion
		}
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

// first returns what an answer begins with. A reader that comes from another replica may
// have seen more than this replica has. If that is still so after this replica has read the
// database, the reader's log is another one, and the reader is sent everything.
func (f *Feed) first(ctx context.Context, q *feedQuery) (revoked.Page, *tail, error) {
	if head, asOf := f.View.Confirmed(); q.after > head && !asOf.IsZero() {
		ctx, cancel := context.WithTimeout(ctx, 2*f.Heartbeat)
		defer cancel()
		if err := f.View.Wait(ctx, 0); err != nil {
			return revoked.Page{}, nil, revocation.ErrStale.After(f.Heartbeat)
		}
	}
	return f.latest(q)
}

// latest returns what is known now. A reader of another log begins at 0.
func (f *Feed) latest(q *feedQuery) (revoked.Page, *tail, error) {
	page, t, err := f.log.latest()
	if err == nil && (q.after > t.last || q.log != "" && q.log != page.Log) {
		page.Snapshot, q.from = true, 0
	} else {
		q.from = q.after
	}
	return page, t, err
}

// await holds an empty page back until there is a new entry, or the reader has waited long
// enough. Then the page says as of when it is true. If too many requests wait already, the
// page is returned at once.
func (f *Feed) await(r *http.Request, page revoked.Page, t *tail, q *feedQuery) (revoked.Page, *tail, error) {
	select {
	case <-f.Done: // a reader that has waited asks again at once
		return page, t, nil
	default:
	}
	_, leave, ok := f.enter(r)
	if !ok {
		return page, t, nil
	}
	defer leave()
	f.waiting.Add(1)
	defer f.waiting.Add(-1)
	began := time.Now()
	enough := time.NewTimer(q.wait)
	defer enough.Stop()
	log, over := page.Log, false
	for {
		next := f.View.Next()                      // before the page, so that none is missed
		waited := time.Since(began).Milliseconds() // too: the page is as of later
		page, t, err := f.latest(q)
		if err != nil {
			return page, t, err
		}
		if over || page.Snapshot || page.Log != log || t.last > q.after {
			page.Waited = &waited
			return page, t, nil
		}
		select {
		case <-next:
		case <-enough.C:
			over = true
		case <-f.Done:
			over = true
		case <-r.Context().Done():
			return page, t, nil // the client is gone
		}
	}
}

// enter takes a place among the streams, if there is one for the client's address.
func (f *Feed) enter(r *http.Request) (address string, leave func(), ok bool) {
	address = httpkit.Network(f.Proxies.Address(r))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams.Load() >= feedMaxStreams || address != "" && f.shares[address] >= feedMaxShare {
		return address, nil, false
	}
	if f.shares == nil {
		f.shares = map[string]int{}
	}
	f.streams.Add(1)
	f.shares[address]++
	return address, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.streams.Add(-1)
		if f.shares[address]--; f.shares[address] == 0 {
			delete(f.shares, address)
		}
	}, true
}

// hold counts bytes that are sent to an address, until release is called. It reports whether
// the address may have so many.
func (f *Feed) hold(address string, bytes int) (release func(), ok bool) {
	if address == "" || bytes <= feedFree {
		return func() {}, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := int64(bytes)
	if f.unread[address]+n > feedUnread {
		return nil, false
	}
	if f.unread == nil {
		f.unread = map[string]int64{}
	}
	f.unread[address] += n
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.unread[address] -= n; f.unread[address] == 0 {
			delete(f.unread, address)
		}
	}, true
}

// writePage writes a page, compressed if that is understood and a whole segment is in it: of
// an entry's 80 bytes only 16 are random. A peer, which asks with a nonce, can tell by the
// answer that a replica made it for this question.
func (f *Feed) writePage(w http.ResponseWriter, r *http.Request, q feedQuery, page revoked.Page, t *tail) {
	body, err := f.body(q, page, t)
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	zip := httpkit.AcceptsGzip(r.Header) && body.compressed()
	pieces, size := body.pieces(zip)
	release, ok := f.hold(httpkit.Network(f.Proxies.Address(r)), size)
	if !ok {
		q.limit = min(q.limit, feedBurst)
		if body, err = f.body(q, page, t); err != nil {
			httpkit.WriteProblem(w, err)
			return
		}
		zip = false
		pieces, size = body.pieces(zip)
		release = func() {}
	}
	defer release()
	h := w.Header()
	if nonce := r.Header.Get(cluster.HeaderNonce); nonce != "" {
		if f.MutualTLS && !httpkit.ShowedCertificate(r) {
			httpkit.WriteProblem(w, httpkit.ErrNoCertificate)
			return
		}
		text, _ := body.pieces(false)
		instance, mac, err := f.Answer(nonce, q.log, q.after, slices.Concat(text...))
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
	if zip {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(size))
	httpkit.WriteSlowly(w, http.StatusOK, pieces...)
}

// A body is a page in pieces. The entries are shared with other readers.
type body struct {
	before, after []byte
	parts         []httpkit.Part
}

// body makes the answer to a query.
func (f *Feed) body(q feedQuery, page revoked.Page, t *tail) (b body, err error) {
	if q.log == revoked.Former { // rarely asked for, so it is encoded for this reader
		if page, err = f.View.Page(q.log, q.after, min(q.limit, feedPage)); err != nil {
			return b, err
		}
		b.before, err = encode(page)
		return b, err
	}
	if b.parts, page.More, err = f.log.parts(t, page.Head, q.from, q.limit); err != nil {
		return b, err
	}
	page.Entries = []revoked.Entry{} // an empty array, not null
	whole, err := encode(page)
	if err != nil {
		return b, err
	}
	const empty = `"entries":[`
	at := bytes.LastIndex(whole, []byte(empty)) + len(empty)
	b.before, b.after = whole[:at], whole[at:]
	return b, nil
}

// encode writes a page with its version, and its time as all answers have it.
func encode(page revoked.Page) ([]byte, error) {
	page.Version = revoked.Version
	return json.Marshal(struct {
		revoked.Page
		AsOf httpkit.Time `json:"as_of"`
	}{page, httpkit.At(page.AsOf)})
}

// compressed reports whether gzip makes the page shorter: a part of it was compressed.
func (b *body) compressed() bool {
	size := 0
	for _, p := range b.parts {
		size += len(p.Plain)
	}
	return size >= feedZip && slices.ContainsFunc(b.parts, func(p httpkit.Part) bool { return p.Deflated != nil })
}

// pieces returns what is to be written, and how many bytes that is.
func (b *body) pieces(zip bool) (pieces [][]byte, size int) {
	parts := []httpkit.Part{{Plain: b.before}}
	for i, p := range b.parts {
		if i > 0 {
			parts = append(parts, httpkit.Part{Plain: comma})
		}
		parts = append(parts, p)
	}
	parts = append(parts, httpkit.Part{Plain: b.after})
	if zip {
		pieces = httpkit.Gzipped(parts)
	} else {
		for _, p := range parts {
			pieces = append(pieces, p.Plain)
		}
	}
	for _, p := range pieces {
		size += len(p)
	}
	return pieces, size
}

var comma = []byte{','}

// stream sends events until the reader goes, falls behind, or the replica drains.
func (f *Feed) stream(w http.ResponseWriter, r *http.Request, q feedQuery) {
	address, leave, ok := f.enter(r)
	if !ok {
		httpkit.WriteProblem(w, errFeedFull)
		return
	}
	page, t, err := f.first(r.Context(), &q)
	if err == nil && q.from < t.floor {
		err = errFeedBehind
	}
	if err != nil {
		leave()
		httpkit.WriteProblem(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the events back

	event := "resume"
	if page.Snapshot || q.after == 0 {
		event = "snapshot"
	}
	s := &stream{out: plainStream{http.NewResponseController(w), w}, feed: f, address: address, log: t.log, at: q.from}
	if s.send(event, page, t) != nil {
		leave()
		return
	}
	if r.ProtoMajor == 1 && r.ProtoMinor == 1 {
		if conn, _, err := s.out.(plainStream).Hijack(); err == nil {
			s.out = rawStream{conn}
			go func() {
				defer conn.Close()
				defer leave()
				s.follow(context.Background(), page.Head)
				_, _ = conn.Write(lastChunk) // an error means that the client is gone
			}()
			return
		}
	}
	defer leave()
	s.follow(r.Context(), page.Head)
}

// A stream writes events (WHATWG HTML, §9.2).
type stream struct {
	out interface {
		io.Writer
		SetWriteDeadline(time.Time) error
		Flush() error
	}
	feed    *Feed
	address string // of the client; see network
	log     string
	at      int64 // the number up to which entries were sent
}

// A plainStream writes as handlers do.
type plainStream struct {
	*http.ResponseController
	http.ResponseWriter
}

// A rawStream goes on with a response of HTTP/1.1 on its bare connection, in chunks (RFC 9112
// §7.1). net/http keeps buffers of 10 KB and a stack of 16 KB for each connection on which a
// handler runs; a stream can do without them.
type rawStream struct{ net.Conn }

func (rawStream) Flush() error { return nil }

func (s rawStream) Write(p []byte) (int, error) {
	if len(p) > len(scratchBuffer{})/2 {
		chunk := net.Buffers{strconv.AppendInt(nil, int64(len(p)), 16), crlf, p, crlf}
		_, err := chunk.WriteTo(s.Conn)
		return len(p), err
	}
	own := scratch.Get().(*scratchBuffer)
	defer scratch.Put(own)
	b := append(strconv.AppendInt(own[:0], int64(len(p)), 16), crlf...)
	b = append(append(b, p...), crlf...)
	_, err := s.Conn.Write(b)
	return len(p), err
}

var (
	crlf      = []byte("\r\n")
	lastChunk = []byte("0\r\n\r\n")
)

// scratch is for the few bytes that are different for each stream.
var scratch = sync.Pool{New: func() any { return new(scratchBuffer) }}

type scratchBuffer [1 << 10]byte

// follow goes on after what has been sent up to a head.
func (s *stream) follow(ctx context.Context, head int64) {
	beat := time.NewTicker(s.feed.Heartbeat)
	defer beat.Stop()
	sent := time.Now()
	for due := false; ; {
		next := s.feed.View.Next() // before the page, so that none is missed
		wrote, ok := s.goOn(due, &head)
		if !ok {
			return
		}
		if wrote {
			beat.Reset(s.feed.Heartbeat)
			sent = time.Now()
		}
		due = false
		select {
		case <-next:
			if !s.feed.pause(ctx, feedGather-time.Since(sent)) {
				return
			}
		case <-beat.C:
			due = true
		case <-ctx.Done():
			return
		case <-s.feed.Done:
			return
		}
	}
}

// goOn sends what is new since the head, or the present head if a heartbeat is due. It reports
// whether it wrote, and whether the stream goes on. It is not a part of follow, which waits
// with a stack that is as small as can be.
func (s *stream) goOn(due bool, head *int64) (wrote, ok bool) {
	page, t, err := s.feed.log.latest()
	if err != nil {
		return false, true // the view reads another log; View.Next tells when it has
	}
	event := ""
	if t.log != s.log {
		event, s.log, s.at = "snapshot", t.log, 0
	}
	if s.at < t.floor {
		return false, false // the reader is too slow, or the new log is long: it reads pages
	}
	if !due && event == "" && t.last <= s.at && page.Head == *head {
		return false, true
	}
	*head = page.Head
	return true, s.send(event, page, t) == nil
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

// send writes an event about the head, if it is to begin with one, then the tail's entries
// that were not sent yet, and the event "head": then the reader has everything.
func (s *stream) send(event string, page revoked.Page, t *tail) error {
	own := scratch.Get().(*scratchBuffer)
	defer scratch.Put(own)
	if event != "" {
		if err := s.write(t.appendHead(own[:0], event, page)); err != nil {
			return err
		}
	}
	for i := t.after(s.at); i < len(t.seqs); {
		j := t.pieceFrom(i)
		if err := s.write(t.slice(i, j)); err != nil {
			return err
		}
		i = j
	}
	s.at = max(s.at, t.last)
	if err := s.write(t.appendHead(own[:0], "head", page)); err != nil {
		return err
	}
	return s.out.Flush()
}

// write gives the reader feedWriteTimeout to accept a piece.
func (s *stream) write(piece []byte) error {
	release, ok := s.feed.hold(s.address, len(piece))
	if !ok {
		return errTooMuchUnread
	}
	defer release()
	if err := s.out.SetWriteDeadline(time.Now().Add(feedWriteTimeout)); err != nil {
		return err
	}
	_, err := s.out.Write(piece)
	return err
}

var errTooMuchUnread = errors.New("the readers at this address have not accepted what they were sent")
