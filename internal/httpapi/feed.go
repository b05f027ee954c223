package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	feedPage    = 1000  // entries of a page, if the reader does not say
	feedMaxPage = 10000 // and at most
	// feedMaxStreams bounds the event streams of a replica: each is a connection
	// that anybody may open.
	feedMaxStreams = 10000
	// feedWriteTimeout is how long a subscriber may take to accept what it is sent
	// before it is cut off. It resumes where it was.
	feedWriteTimeout = 10 * time.Second
)

var (
	errFeedAfter   = problem.New(problem.Malformed, "invalid_after", "after must be a sequence number: 0 or more")
	errFeedLimit   = problem.New(problem.Malformed, "invalid_limit", "limit must be from 1 to %d", feedMaxPage)
	errFeedEventID = problem.New(problem.Malformed, "invalid_last_event_id", "Last-Event-ID must be an id that this feed has sent")
	errFeedFull    = problem.New(problem.Unavailable, "too_many_streams", "this replica serves as many event streams as it can; poll for pages").After(10 * time.Second)
)

// Feed is the public feed of what was taken back, answered from memory.
//
// A page is JSON (revoked.Page). As text/event-stream it begins with the event
// "snapshot", when the reader starts from the beginning, or "resume"; then come
// "revocation" for every entry, with <log>:<seq> as its id, and "head" whenever
// everything up to the head has been sent, at least once a Heartbeat. All but
// "revocation" carry a feedHead.
type Feed struct {
	View *revocation.View
	// Heartbeat is how often a subscriber is told as of when he knows everything.
	Heartbeat time.Duration
	// Done is closed when the replica drains: the streams end, their readers go to
	// another.
	Done <-chan struct{}

	streams atomic.Int64
}

// feedHead is a revoked.Page without the entries.
type feedHead struct {
	Log  string    `json:"log"`
	Head int64     `json:"head"`
	AsOf time.Time `json:"as_of"`
	Age  int64     `json:"age_ms"`
}

// Mount adds the route.
func (f *Feed) Mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/revocations", f.serve)
}

func (f *Feed) serve(w http.ResponseWriter, r *http.Request) {
	log, after, limit, err := feedQuery(r)
	if err != nil {
		WriteProblem(w, r, err)
		return
	}
	w.Header().Set("Vary", "Accept")
	if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		f.stream(w, r, log, after, limit)
		return
	}
	page, err := f.first(r.Context(), log, after, limit)
	if err != nil {
		WriteProblem(w, r, err)
		return
	}
	if page.Entries == nil {
		page.Entries = []revoked.Entry{} // an empty array, not null
	}
	// Not to be stored, and without an ETag: every answer says as of when it is
	// true, so no two are the same, and an old one would pass for a new one.
	writeJSON(w, http.StatusOK, page)
}

// feedQuery reads where the reader is: after, or what an event stream sends when
// it reconnects.
func feedQuery(r *http.Request) (log string, after int64, limit int, err error) {
	query := r.URL.Query()
	limit = feedPage
	if s := query.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > feedMaxPage {
			return "", 0, 0, errFeedLimit
		}
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		at := strings.LastIndexByte(id, ':')
		if at < 0 {
			return "", 0, 0, errFeedEventID
		}
		if after, err = strconv.ParseInt(id[at+1:], 10, 64); err != nil || after < 0 {
			return "", 0, 0, errFeedEventID
		}
		return id[:at], after, limit, nil
	}
	if s := query.Get("after"); s != "" {
		if after, err = strconv.ParseInt(s, 10, 64); err != nil || after < 0 {
			return "", 0, 0, errFeedAfter
		}
	}
	return "", after, limit, nil
}

// first returns the page with which an answer begins. A reader who comes from
// another replica may have seen more than this one has; only if that is still so
// after it has asked the database is his log not this one, and he is sent all.
func (f *Feed) first(ctx context.Context, log string, after int64, limit int) (revoked.Page, error) {
	if head, asOf := f.View.Confirmed(); after > head && !asOf.IsZero() {
		ctx, cancel := context.WithTimeout(ctx, 2*f.Heartbeat)
		defer cancel()
		if err := f.View.Wait(ctx, 0); err != nil {
			return revoked.Page{}, revocation.ErrStale.After(f.Heartbeat)
		}
	}
	return f.View.Page(log, after, limit)
}

// stream sends events until the reader goes, falls behind, or the replica drains.
func (f *Feed) stream(w http.ResponseWriter, r *http.Request, log string, after int64, limit int) {
	defer f.streams.Add(-1)
	if f.streams.Add(1) > feedMaxStreams {
		WriteProblem(w, r, errFeedFull)
		return
	}
	page, err := f.first(r.Context(), log, after, limit)
	if err != nil {
		WriteProblem(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the events back

	s := stream{ResponseController: http.NewResponseController(w), w: w}
	event := "resume"
	if page.Snapshot || after == 0 {
		event = "snapshot"
	}
	if s.head(event, page); s.send(page) != nil {
		return
	}
	f.follow(r.Context(), &s, page, limit)
}

// follow goes on after a page that has been sent.
func (f *Feed) follow(ctx context.Context, s *stream, last revoked.Page, limit int) {
	beat := time.NewTicker(f.Heartbeat)
	defer beat.Stop()
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
		}
		if due, last = false, page; page.More {
			continue
		}
		select {
		case <-next:
		case <-beat.C:
			due = true
		case <-ctx.Done():
			return
		case <-f.Done:
			return
		}
	}
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
