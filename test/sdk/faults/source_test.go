package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// heartbeat is how often a source confirms the head of its log.
const heartbeat = 250 * time.Millisecond

// A source is where one resource server gets its key set and its feed from: a cluster of which
// a test chooses each answer. The zero faults answer as Watchword does.
type source struct {
	t        *testing.T
	issuer   *verifytest.Issuer // signs, and has the key set
	link     *testenv.Link      // from the resource server
	handlers []*httptest.Server // replicas, the first of which is asked at first

	keySets, pages, streams atomic.Int64 // how often each was asked for
	sent                    atomic.Int64 // bytes of answers by flood

	mu      sync.Mutex // guards everything below
	closed  bool
	log     string
	entries []revoked.Entry
	news    chan struct{} // closed and replaced by each change
	faults  faults
	asked   []int64 // from where each page and stream was asked for
}

// faults are what a source does wrong. A handler takes the place of the usual one.
type faults struct {
	keys, page, stream http.HandlerFunc
	header             http.Header               // replaces that of each answer
	head               func(head map[string]any) // changes pages, and the data of snapshot, resume and head
	event              func(w io.Writer)         // writes more events before each head
	entry              func(e revoked.Entry) any // what is sent in place of an entry
}

func newSource(t *testing.T) *source {
	s := &source{t: t, log: "first", news: make(chan struct{})}
	for range 2 {
		replica := httptest.NewServer(s)
		s.handlers = append(s.handlers, replica)
		t.Cleanup(func() {
			replica.CloseClientConnections()
			replica.Close()
		})
	}
	s.link = testenv.NewLink(t, s.address(0))
	s.issuer = verifytest.NewAt(t, "http://"+s.link.Addr)
	t.Cleanup(func() { s.change(func() { s.closed = true }) }) // ends streams and pages, for which Close waits
	return s
}

// address is that of a replica.
func (s *source) address(replica int) string { return s.handlers[replica].Listener.Addr().String() }

// change changes what is guarded, and wakes whoever waits for it.
func (s *source) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.news)
	s.news = make(chan struct{})
}

// set replaces the faults that there are; the zero faults heal.
func (s *source) set(f faults) { s.change(func() { s.faults = f }) }

// revoke revokes tokens of a session.
func (s *source) revoke(sessions ...string) {
	s.change(func() {
		for _, name := range sessions {
			s.addLocked(revoked.Entry{Kind: revoked.Session, ID: revoked.Digest(revoked.Session, name)})
		}
	})
}

func (s *source) addLocked(e revoked.Entry) {
	e.Seq, e.ExpiresAt = int64(len(s.entries))+1, time.Now().Add(time.Hour).Unix()
	s.entries = append(s.entries, e)
}

// replaceLog begins another log, without entries.
func (s *source) replaceLog(name string) {
	s.change(func() { s.log, s.entries = name, nil })
}

// since are the places from which it was asked for pages and streams, after the first n.
func (s *source) since(n int) []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[n:]
}

// ServeHTTP is that of both replicas.
func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	log, after := s.place(r)
	s.mu.Lock()
	f := s.faults
	if r.URL.Path == "/api/revocations" {
		s.asked = append(s.asked, after)
	}
	s.mu.Unlock()
	var faulty http.HandlerFunc
	usual := http.NotFound
	switch {
	case r.URL.Path == "/.well-known/jwks.json":
		s.keySets.Add(1)
		faulty, usual = f.keys, s.keysFor(time.Second)
	case r.URL.Path == "/api/revocations" && r.Header.Get("Accept") == "text/event-stream":
		s.streams.Add(1)
		faulty, usual = f.stream, func(w http.ResponseWriter, r *http.Request) { s.serveStream(w, r, log, after) }
	case r.URL.Path == "/api/revocations":
		s.pages.Add(1)
		faulty, usual = f.page, func(w http.ResponseWriter, r *http.Request) { s.servePage(w, r, after) }
	}
	for name, values := range f.header {
		w.Header()[name] = values
	}
	if faulty != nil {
		usual = faulty
	}
	usual(w, r)
}

// keysFor serves the key set, to be fetched again before a time has passed.
func (s *source) keysFor(life time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		record := httptest.NewRecorder()
		s.issuer.ServeHTTP(record, r)
		w.Header().Set("Content-Type", record.Header().Get("Content-Type"))
		w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", int(life.Seconds())))
		_, _ = w.Write(record.Body.Bytes())
	}
}

// place is from where a request wants to read, of which log.
func (s *source) place(r *http.Request) (log string, after int64) {
	id := r.URL.Query().Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		log, id, _ = strings.Cut(last, ":")
	}
	after, _ = strconv.ParseInt(id, 10, 64)
	return log, after
}

// A view is what a source tells at one moment.
type view struct {
	head    map[string]any
	entries []any
	next    int64
	more    bool
	faults  faults
	news    <-chan struct{}
	closed  bool
}

func (s *source) viewLocked(after int64, limit int) view {
	n := int64(len(s.entries))
	from := min(after, n)
	to := min(from+int64(limit), n)
	v := view{next: to, more: to < n, faults: s.faults, news: s.news, closed: s.closed, entries: []any{}}
	for _, e := range s.entries[from:to] {
		var sent any = e
		if s.faults.entry != nil {
			sent = s.faults.entry(e)
		}
		v.entries = append(v.entries, sent)
	}
	v.head = map[string]any{
		"log": s.log, "head": n, "as_of": time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"), "age_ms": 0,
		"heartbeat_ms": heartbeat.Milliseconds(),
	}
	if s.faults.head != nil {
		s.faults.head(v.head)
	}
	return v
}

func (s *source) view(after int64, limit int) view {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.viewLocked(after, limit)
}

// servePage holds the page back until it has something new, or the reader's time is over.
func (s *source) servePage(w http.ResponseWriter, r *http.Request, after int64) {
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	limit = cmp.Or(limit, 1000)
	wait, _ := strconv.Atoi(r.URL.Query().Get("wait"))
	began := time.Now()
	over := time.After(time.Duration(wait) * time.Second)
	v := s.view(after, limit)
	for waiting := wait > 0; waiting && len(v.entries) == 0 && !v.closed; v = s.view(after, limit) {
		select {
		case <-v.news:
		case <-over:
			waiting = false
		case <-r.Context().Done():
			return
		}
	}
	if wait > 0 {
		v.head["waited_ms"] = time.Since(began).Milliseconds()
	}
	v.head["snapshot"], v.head["entries"], v.head["more"] = false, v.entries, v.more
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v.head) // an error means that the reader has gone
}

// serveStream tells entries as they come, until the log is another one.
func (s *source) serveStream(w http.ResponseWriter, r *http.Request, log string, after int64) {
	w.Header().Set("Content-Type", "text/event-stream")
	v := s.view(after, 1000)
	first, current := "resume", v.head["log"]
	if log != current {
		first, after = "snapshot", 0
		v = s.view(after, 1000)
	}
	event(w, first, v.head)
	for {
		for _, e := range v.entries {
			event(w, "revocation", e)
		}
		if !v.more {
			if v.faults.event != nil {
				v.faults.event(w)
			}
			event(w, "head", v.head)
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		if !v.more {
			select {
			case <-v.news:
			case <-time.After(heartbeat):
			case <-r.Context().Done():
				return
			}
		}
		after = v.next
		if v = s.view(after, 1000); v.closed || v.head["log"] != current || v.faults.stream != nil {
			return
		}
	}
}

func event(w io.Writer, name string, data any) {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // it is one of this test's
	}
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, text)
}

// flood answers with a head, and a text over and over, up to a number of bytes.
func (s *source) flood(kind, head, text string, bytes int64) http.HandlerFunc {
	chunk := []byte(strings.Repeat(text, max(1, 64<<10/len(text))))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, err := io.WriteString(w, head)
		var sent int64
		for err == nil && sent < bytes {
			var n int
			n, err = w.Write(chunk)
			sent += int64(n)
		}
		s.sent.Store(max(s.sent.Load(), sent))
	}
}

// drip answers with a head, and then a byte every tenth of a second, until the reader goes.
func drip(kind, head, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, head)
		for http.NewResponseController(w).Flush() == nil {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(heartbeat / 3):
				_, _ = io.WriteString(w, text)
			}
		}
	}
}

// says answers with a status and a text.
func says(status int, kind, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}
