package feed

import (
	"bytes"
	"encoding/json"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	// feedSegment is how many numbers of the log a segment spans.
	feedSegment = 1000
	// feedTail is how many of the last entries streams are served at least. A change of
	// rights revokes 2,000 users at once at most; streams survive two of them.
	feedTail = 4096
	// A segment is dropped when it has not been read for feedSegmentIdle, and made anew after
	// feedSegmentLife, because entries expire.
	feedSegmentIdle = time.Minute
	feedSegmentLife = 10 * time.Minute
)

// A feedLog is the log in the form in which the readers of the feed get it. An entry is
// encoded, and a part of the log compressed, once for all readers. What was given to a reader
// is never changed, so that all of them read the same memory.
type feedLog struct {
	view *revocation.View

	mu       sync.Mutex         // guards what follows
	tail     *tail              // nil: none yet. Readers have it: it is replaced, not changed
	open     *segment           // the part of the tail that is in no closed segment
	segments map[int64]*segment // closed ones of the tail's log, by their index
	swept    time.Time
}

// A run is entries in the order of their numbers, encoded.
type run struct {
	seqs []int64
	json []byte // joined by commas
	ends []int  // where each entry ends in json
}

func (r *run) add(e revoked.Entry) {
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // plain structs of numbers and strings
	}
	if len(r.seqs) > 0 {
		r.json = append(r.json, ',')
	}
	r.json = append(r.json, body...)
	r.seqs, r.ends = append(r.seqs, e.Seq), append(r.ends, len(r.json))
}

// after is the index of the first entry with a greater number.
func (r *run) after(seq int64) int {
	return sort.Search(len(r.seqs), func(i int) bool { return r.seqs[i] > seq })
}

// slice is the JSON of the entries from i to before j, which are not none.
func (r *run) slice(i, j int) []byte {
	if i == 0 {
		return r.json[:r.ends[j-1]]
	}
	return r.json[r.ends[i-1]+1 : r.ends[j-1]]
}

// A tail is the end of the log: all live entries with numbers from above floor to last.
type tail struct {
	run
	log         string
	quoted      []byte // log as JSON
	floor, last int64
	events      []byte // of an event stream
	eventEnds   []int  // where the event of each entry ends in events
}

func (t *tail) add(e revoked.Entry) {
	start := len(t.json)
	if start > 0 {
		start++ // after the comma
	}
	t.run.add(e)
	t.events = appendEvent(t.events, "revocation", t.log, e.Seq, t.json[start:])
	t.eventEnds = append(t.eventEnds, len(t.events))
}

// slice is the events of the entries from i to before j, which are not none.
func (t *tail) slice(i, j int) []byte {
	if i == 0 {
		return t.events[:t.eventEnds[j-1]]
	}
	return t.events[t.eventEnds[i-1]:t.eventEnds[j-1]]
}

// pieceFrom is the index after the entries from i on whose events make about feedPiece.
func (t *tail) pieceFrom(i int) int {
	start := 0
	if i > 0 {
		start = t.eventEnds[i-1]
	}
	n := sort.Search(len(t.eventEnds)-i, func(k int) bool { return t.eventEnds[i+k]-start > feedPiece })
	return i + max(n, 1)
}

// appendHead appends an event about the head: version, log, head, as_of and age_ms of the page. Only
// "head" itself has an id: after it, the reader has everything.
func (t *tail) appendHead(b []byte, event string, p revoked.Page) []byte {
	var buf [160]byte
	data := strconv.AppendInt(append(buf[:0], `{"version":`...), revoked.Version, 10)
	data = append(append(data, `,"log":`...), t.quoted...)
	data = strconv.AppendInt(append(data, `,"head":`...), p.Head, 10)
	data = p.AsOf.UTC().AppendFormat(append(data, `,"as_of":"`...), httpkit.TimeFormat)
	data = strconv.AppendInt(append(data, `","age_ms":`...), p.Age, 10)
	data = append(data, '}')
	if event == "head" {
		return appendEvent(b, event, t.log, t.last, data)
	}
	return appendEvent(b, event, "", 0, data)
}

// appendEvent appends an event (WHATWG HTML, §9.2), with an id if there is a log.
func appendEvent(b []byte, event, log string, seq int64, data []byte) []byte {
	if log != "" {
		b = append(append(b, "id: "...), log...)
		b = strconv.AppendInt(append(b, ':'), seq, 10)
		b = append(b, '\n')
	}
	b = append(append(b, "event: "...), event...)
	b = append(append(b, "\ndata: "...), data...)
	return append(b, "\n\n"...)
}

// latest returns what is known at this moment: a page without entries, and the tail, which
// has everything up to the page's head.
func (l *feedLog) latest() (revoked.Page, *tail, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tail == nil {
		l.tail = &tail{}
	}
	for {
		page, err := l.view.Page(l.tail.log, l.tail.last, 2*feedTail)
		if err != nil {
			return page, nil, err
		}
		if page.Log != l.tail.log || page.Snapshot || page.More {
			if err := l.beginLocked(page); err != nil {
				return page, nil, err
			}
			continue
		}
		if last := page.Next(); last > l.tail.last {
			t := *l.tail // readers have the former one
			for _, e := range page.Entries {
				t.add(e)
			}
			t.last = last
			l.tail = t.trimmed(page.Head)
		}
		page.Entries = nil
		l.sweepLocked()
		return page, l.tail, nil
	}
}

// beginLocked begins a tail that is empty, so far before the head that it will have the last
// entries.
func (l *feedLog) beginLocked(page revoked.Page) error {
	if page.Log != l.tail.log {
		l.segments, l.open = map[int64]*segment{}, nil
	}
	quoted, err := json.Marshal(page.Log)
	floor := max(0, page.Head-feedTail)
	l.tail = &tail{log: page.Log, quoted: quoted, floor: floor, last: floor}
	return err
}

// trimmed returns the end of a tail that has become long. The floor stays so far below the
// head that the segment of every earlier entry is closed.
func (t *tail) trimmed(head int64) *tail {
	cut := len(t.seqs) - feedTail
	if cut < feedTail || t.seqs[cut-1] > head-feedSegment {
		return t
	}
	shorter := &tail{log: t.log, quoted: t.quoted, floor: t.seqs[cut-1], last: t.last}
	shorter.seqs = slices.Clone(t.seqs[cut:])
	shorter.json = bytes.Clone(t.json[t.ends[cut-1]+1:])
	shorter.events = bytes.Clone(t.events[t.eventEnds[cut-1]:])
	for i := cut; i < len(t.seqs); i++ {
		shorter.ends = append(shorter.ends, t.ends[i]-t.ends[cut-1]-1)
		shorter.eventEnds = append(shorter.eventEnds, t.eventEnds[i]-t.eventEnds[cut-1])
	}
	return shorter
}

// A segment is the live entries with numbers from above from to upTo. If all of these numbers
// have been given out, it is closed: it never gets another entry.
type segment struct {
	run
	deflated   []byte // the whole of json as blocks of DEFLATE (RFC 1951), none of them final
	from, upTo int64
	made       time.Time
	read       time.Time // guarded by feedLog.mu
	making     sync.Once // guards the run, deflated and err: other readers wait for it
	err        error     // it could not be made
}

// closed returns the closed segment of that index, which is from / feedSegment.
func (l *feedLog) closed(log string, index int64) (*segment, error) {
	s := l.closedUnmade(log, index)
	if s == nil {
		return nil, revocation.ErrStale
	}
	s.making.Do(func() {
		page, err := l.view.Page(log, s.from, feedSegment)
		if err == nil && page.Snapshot {
			err = revocation.ErrStale // the log is another one now
		}
		if s.err = err; err != nil {
			l.drop(index, s)
			return
		}
		for _, e := range page.Entries {
			if e.Seq <= s.upTo {
				s.add(e)
			}
		}
		s.deflated = httpkit.Deflated(s.json)
	})
	return s, s.err
}

// closedUnmade returns the segment, which may have no entries yet, or nil if the log is
// another one now.
func (l *feedLog) closedUnmade(log string, index int64) *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tail.log != log {
		return nil
	}
	now := time.Now()
	s := l.segments[index]
	if s == nil {
		s = &segment{from: index * feedSegment, upTo: (index + 1) * feedSegment, made: now}
		l.segments[index] = s
	}
	s.read = now
	return s
}

func (l *feedLog) drop(index int64, s *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.segments[index] == s {
		delete(l.segments, index)
	}
}

// rest returns a segment that is not closed: the tail's entries with greater numbers than
// from.
func (l *feedLog) rest(t *tail, from int64) *segment {
	l.mu.Lock()
	s := l.open
	if s == nil || t.log != l.tail.log || s.from != from || s.upTo != t.last {
		s = &segment{from: from, upTo: t.last}
		if t.log == l.tail.log {
			l.open = s
		}
	}
	l.mu.Unlock()
	s.making.Do(func() {
		i := t.after(from)
		if i == len(t.seqs) {
			return
		}
		s.seqs, s.json = t.seqs[i:], t.run.slice(i, len(t.seqs))
		for _, end := range t.ends[i:] {
			s.ends = append(s.ends, end-t.ends[len(t.ends)-1]+len(s.json))
		}
		s.deflated = httpkit.Deflated(s.json)
	})
	return s
}

// sweepLocked drops segments now and then.
func (l *feedLog) sweepLocked() {
	now := time.Now()
	if now.Sub(l.swept) < feedSegmentIdle {
		return
	}
	l.swept = now
	for index, s := range l.segments {
		if now.Sub(s.read) > feedSegmentIdle || now.Sub(s.made) > feedSegmentLife {
			delete(l.segments, index)
		}
	}
}

// parts returns the entries after a number up to the tail's end, limit of them at most, and
// whether there are more up to the head. It may return fewer than there are, but then at
// least one.
func (l *feedLog) parts(t *tail, head, after int64, limit int) (parts []httpkit.Part, more bool, err error) {
	if i := t.after(after); after >= t.floor && len(t.seqs)-i <= feedBurst {
		j := min(i+limit, len(t.seqs))
		if i == j {
			return nil, false, nil
		}
		return []httpkit.Part{{Plain: t.run.slice(i, j)}}, j < len(t.seqs) && t.seqs[j-1] < head, nil
	}
	count, last := 0, after
	for index := after / feedSegment; ; index++ {
		var s *segment
		isRest := index >= head/feedSegment
		if isRest {
			s = l.rest(t, head/feedSegment*feedSegment)
		} else if s, err = l.closed(t.log, index); err != nil {
			return nil, false, err
		}
		i := s.after(after)
		n := len(s.seqs) - i
		if n > limit-count && count > 0 {
			return parts, last < head, nil // a page of whole segments
		}
		if n = min(n, limit-count); n > 0 {
			p := httpkit.Part{Plain: s.slice(i, i+n)}
			if n == len(s.seqs) {
				p.Deflated = s.deflated
			}
			parts, last, count = append(parts, p), s.seqs[i+n-1], count+n
		}
		switch {
		case isRest:
			return parts, i+n < len(s.seqs) && last < head, nil
		case i+n < len(s.seqs), count == limit, len(parts) > feedMaxPage/feedSegment:
			return parts, true, nil
		case n == 0:
			// Many segments may be empty, so the next live entry is looked for.
			page, err := l.view.Page(t.log, (index+1)*feedSegment, 1)
			switch {
			case err != nil:
				return nil, false, err
			case page.Snapshot:
				return nil, false, revocation.ErrStale
			case len(page.Entries) == 0:
				index = head/feedSegment - 1
			default:
				index = min((page.Entries[0].Seq-1)/feedSegment, head/feedSegment) - 1
			}
		}
	}
}
