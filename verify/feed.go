package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	// streamLife is how long a stream lives at most; then it is begun again. This clock and
	// the server's drift apart, and replicas come and go.
	streamLife = 10 * time.Minute
	// withoutStream is how long pages are read after a stream that brought nothing in time:
	// something on the way may hold streams back. It doubles each time, up to
	// maxWithoutStream, because nothing is learned while a stream is tried.
	withoutStream    = time.Minute
	maxWithoutStream = 15 * time.Minute
	// streamLag is how late the events of a stream may be; pages come sooner.
	streamLag = 2 * time.Second
	// maxWait is how long the server may hold a page back until there is something new.
	// From a server that holds no page back, pages are read every pollEvery.
	maxWait     = 20 * time.Second
	pollEvery   = time.Second
	pageTimeout = 5 * time.Second
	// minPatience is how long the next bytes of a page are waited for at least.
	minPatience  = 500 * time.Millisecond
	pageLimit    = 10_000   // entries
	maxPage      = 16 << 20 // bytes
	minFeedRetry = 500 * time.Millisecond
	maxFeedRetry = 3 * time.Second
	// A stream that was useful for pollEvery and then ends is begun again within
	// maxReattach: its replica has ended, and another one is there. A stream that ends
	// sooner, for an unknown reason, is begun again more slowly.
	maxReattach = 100 * time.Millisecond
	// clockSkew is how long entries are kept after they have expired.
	clockSkew  = 10 * time.Minute
	sweepEvery = time.Minute
	// clockDrift is by how much two clocks may differ about what lies between two
	// moments half a minute apart.
	clockDrift = 50 * time.Millisecond
)

// A follower keeps the entries of the feed, and knows as of when it has all of them.
type follower struct {
	cfg       Config
	list      revoked.List
	confirmed atomic.Pointer[time.Time] // when everything was last known, by this clock; nil: never
	tried     chan struct{}             // closed after the feed was asked for the first time
	stopped   chan struct{}             // closed when run ends
	stale     atomic.Bool               // the present outage has been logged

	// Only run uses what follows.
	log  string        // id of the log; empty: none has been read
	next int64         // entries up to this number have been applied
	beat time.Duration // how often the server confirms the head, by its own account; 0: unknown
	// elsewhere: the last answer was useless or has ended, so the next request should
	// reach another replica.
	elsewhere bool
	failures  int // pages that failed in a row
	// confirming are the last pages that had everything up to the head.
	confirming [4]confirmingPage
	feed       outage
	streams    outage
	swept      time.Time
}

func newFollower(cfg Config) *follower {
	return &follower{
		cfg: cfg, tried: make(chan struct{}), stopped: make(chan struct{}),
		feed:    outage{logger: cfg.Logger, what: "the feed of revocations"},
		streams: outage{logger: cfg.Logger, what: "the event stream of revocations (pages are polled instead)"},
	}
}

// check refuses a token that was revoked. If that is not known well enough for the route,
// it does what the route's OnStale says.
func (f *follower) check(ctx context.Context, t *accesstoken.Token, ids *revoked.IDs, c *conditions) error {
	if err := f.wait(ctx); err != nil {
		return err
	}
	// The confirmation is read before the list, which then has all of it. The list might
	// lack an entry of a later confirmation.
	confirmed := f.lastConfirmed()
	if _, ok := f.list.RevokedByIDs(t, ids); ok {
		return ErrRevoked
	}
	if f.within(confirmed, time.Duration(c.maxStaleness)) {
		return nil
	}
	if !f.within(confirmed, f.cfg.MaxStaleness) && f.stale.CompareAndSwap(false, true) {
		f.cfg.Logger.Error("it is not known any more which tokens have been revoked",
			"confirmed", confirmed, "max_staleness", f.cfg.MaxStaleness, "fail_open", f.cfg.OnStale == FailOpen)
	}
	if c.onStale == FailOpen && !confirmed.IsZero() {
		return nil
	}
	return ErrStale
}

// wait returns when the feed has been asked for the first time.
func (f *follower) wait(ctx context.Context) error {
	select {
	case <-f.tried:
		return nil
	default:
	}
	select {
	case <-f.tried:
	case <-ctx.Done():
		return because(ErrStale, ctx.Err())
	case <-f.stopped:
	}
	return nil
}

// lastConfirmed returns when everything was last known, or zero if it never was.
func (f *follower) lastConfirmed() time.Time {
	if c := f.confirmed.Load(); c != nil {
		return *c
	}
	return time.Time{}
}

// within reports whether a confirmation is recent enough.
func (f *follower) within(confirmed time.Time, enough time.Duration) bool {
	return !confirmed.IsZero() && revoked.Age(confirmed, f.cfg.Now()) <= enough
}

// run follows the feed until ctx ends. It reads pages until it has all, then follows the
// stream until that ends, and so on. While streams bring nothing, it reads pages alone.
func (f *follower) run(ctx context.Context) {
	defer close(f.stopped)
	var streamAgain time.Time
	pause := time.NewTimer(0)
	defer pause.Stop()
	without := withoutStream
	mayWait := false // everything was known a moment ago
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		held, err := f.poll(ctx, mayWait)
		byPages := f.cfg.Now().Before(streamAgain)
		waited := held || !mayWait // without mayWait it is not known whether the server holds pages back
		mayWait = err == nil && byPages
		if first {
			close(f.tried)
		}
		if ctx.Err() != nil {
			return
		}
		f.sweep()
		f.feed.note(err)
		switch {
		case err != nil:
			f.leave()
			pause.Reset(f.pageRetry())
			f.failures++
			continue
		case byPages && waited:
			pause.Reset(jitter(pollEvery/20, pollEvery/10))
		case byPages:
			pause.Reset(jitter(pollEvery*8/10, pollEvery))
		default:
			f.elsewhere = false
			begun := f.cfg.Now()
			useful, err := f.stream(ctx)
			f.leave()
			if useful {
				f.streams.note(nil)
				without = withoutStream
			} else {
				f.streams.note(err)
				streamAgain = f.cfg.Now().Add(jitter(without/2, without))
				without = min(2*without, maxWithoutStream)
			}
			if useful && f.cfg.Now().Sub(begun) >= pollEvery {
				pause.Reset(jitter(0, maxReattach))
			} else {
				pause.Reset(jitter(pollEvery/10, pollEvery/2))
			}
		}
		f.failures = 0
		if byPages {
			f.elsewhere = false
		}
	}
}

// leave has the next request use a new connection. The kept ones may all lead to the
// replica whose answer was just useless; it may still accept requests.
func (f *follower) leave() {
	f.elsewhere = true
	f.cfg.closeIdle()
}

// pageRetry is the pause after a page that failed. After the first two failures it is
// short: another replica is asked, and once more, because the load balancer may have
// chosen the same one again.
func (f *follower) pageRetry() time.Duration {
	if f.failures <= 1 {
		return jitter(0, maxReattach)
	}
	return retryPause(f.failures-1, minFeedRetry, maxFeedRetry)
}

// silence is how long a stream may bring nothing, and how old the server's own knowledge
// may be, before another replica is asked. It is so short that the answer comes before half
// of MaxStaleness has passed, but no shorter than two heartbeats if there is room for
// them.
func (f *follower) silence() time.Duration {
	return min(max(2*f.beat, f.cfg.MaxStaleness/4), f.cfg.MaxStaleness/2)
}

// patience is how long the first bytes of a page, and the next ones, are waited for. A
// frozen replica accepts connections and never answers, or stops in the middle of an
// answer, so another one is asked soon. A server that is merely slow is given twice as long
// after each failure.
func (f *follower) patience() time.Duration {
	first := max(f.cfg.MaxStaleness/8, minPatience)
	return min(first<<min(max(f.failures-1, 0), 16), pageTimeout)
}

// poll reads pages up to the head. With mayWait, the server may hold a page back until
// there is something new; poll reports whether it did.
func (f *follower) poll(ctx context.Context, mayWait bool) (held bool, err error) {
	for {
		begun := f.cfg.Now()
		page, cached, err := f.page(ctx, mayWait)
		if err != nil {
			return false, err
		}
		mayWait = false // the next page is there already
		held = held || page.Waited != nil
		if page.Log != f.log || page.Snapshot {
			asked := f.next
			f.startAnew(page.Log)
			if asked > 0 && !page.Snapshot {
				continue // the page begins in the middle of another log
			}
		}
		next := page.Next()
		if page.More && next <= f.next {
			return false, errors.New("the feed has more, but does not go on")
		}
		if err := f.list.Apply(page.Entries...); err != nil {
			return false, err
		}
		f.next = max(f.next, next)
		if !page.More {
			f.confirm(f.firstSeen(page, f.writtenAfter(begun, page).Add(-revoked.Milliseconds(page.Age)).Add(-cached)))
			return held, f.current(page.Age)
		}
	}
}

// writtenAfter returns a moment after which the page was written: when it was asked for,
// and as much later as the server says that it held the page back. If the server says that
// it was held back for longer than has passed, a cache has answered with somebody else's
// page; then only the moment of the request counts.
func (f *follower) writtenAfter(asked time.Time, page revoked.Page) time.Time {
	if page.Waited == nil || *page.Waited < 0 {
		return asked
	}
	waited, passed := revoked.Milliseconds(*page.Waited), f.cfg.Now().Sub(asked)
	if waited > passed+clockDrift {
		return asked
	}
	return asked.Add(min(waited, passed))
}

// A confirmingPage is what no two pages of one sender have in common, and what such a page
// has confirmed.
type confirmingPage struct {
	log       string
	written   time.Time // by the sender's clock
	confirmed time.Time
}

// firstSeen returns what a page confirms: t, or what it confirmed when it came before. Then a
// cache that sends no Age has answered with it again, whatever has been revoked since.
func (f *follower) firstSeen(page revoked.Page, t time.Time) time.Time {
	this := confirmingPage{page.Log, page.AsOf.Add(revoked.Milliseconds(page.Age)), t}
	for _, seen := range f.confirming {
		if seen.log == this.log && seen.written.Equal(this.written) && seen.confirmed.Before(t) {
			return seen.confirmed
		}
	}
	copy(f.confirming[1:], f.confirming[:])
	f.confirming[0] = this
	return t
}

// wait is how long the server may hold a page back. It is so short that a confirmation
// never comes close to MaxStaleness.
func (c *Config) wait() time.Duration {
	return max(time.Second, min(c.MaxStaleness/4, maxWait).Truncate(time.Second))
}

// page asks for one page. It returns for how long a cache has held it.
func (f *follower) page(ctx context.Context, mayWait bool) (page revoked.Page, cached time.Duration, err error) {
	timeout, patience := min(pageTimeout, f.cfg.MaxStaleness), f.patience()
	query := url.Values{"after": {strconv.FormatInt(f.next, 10)}, "limit": {strconv.Itoa(pageLimit)}}
	if mayWait {
		wait := f.cfg.wait()
		timeout = wait + min(pageTimeout, f.cfg.MaxStaleness-wait)
		patience += wait
		query.Set("wait", strconv.Itoa(int(wait/time.Second)))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	silent := time.AfterFunc(patience, func() { giveUp(errSilent) })
	defer silent.Stop()
	res, err := f.get(ctx, query, "application/json", "")
	if err != nil {
		return page, 0, f.silenceOr(ctx, err, patience)
	}
	defer res.Body.Close()
	patience = f.patience() // the page is not held back any more
	silent.Reset(patience)
	body, err := io.ReadAll(io.LimitReader(&watchedReader{res.Body, silent, patience}, maxPage+1))
	if err != nil {
		return page, 0, f.silenceOr(ctx, err, patience)
	}
	if len(body) > maxPage {
		return page, 0, fmt.Errorf("a page of more than %d bytes", maxPage)
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return page, 0, err
	}
	if err := revoked.CheckVersion(page.Version); err != nil {
		return page, 0, err
	}
	if page.Log == "" || page.AsOf.IsZero() || page.Age < 0 {
		return page, 0, errors.New("this is not a page of the feed")
	}
	f.beat = revoked.Milliseconds(max(page.Heartbeat, 0))
	if res.Header.Get("Age") != "" {
		cached = age(res.Header) + time.Second // it counts whole seconds
	}
	return page, cached, nil
}

// errSilent: a page was given up because nothing of it came for too long.
var errSilent = errors.New("silent")

// silenceOr is the error of a page that failed.
func (f *follower) silenceOr(ctx context.Context, err error, patience time.Duration) error {
	if context.Cause(ctx) == errSilent {
		return fmt.Errorf("%s does not answer within %v", f.cfg.RevocationsURL, patience)
	}
	return err
}

// A watchedReader resets its timer whenever it has read something.
type watchedReader struct {
	io.Reader
	timer    *time.Timer
	patience time.Duration
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.timer.Reset(r.patience)
	}
	return n, err
}

// stream follows the event stream until it ends, is silent for too long, or has lived long
// enough. It reports whether the stream was useful: whether it confirmed something new.
func (f *follower) stream(ctx context.Context) (useful bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, jitter(streamLife/2, streamLife))
	defer cancel()
	silence := f.silence()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()

	s := streaming{follower: f, begun: f.cfg.Now()}
	res, err := f.get(ctx, url.Values{}, "text/event-stream", fmt.Sprintf("%s:%d", f.log, f.next))
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	events := newEventReader(res.Body)
	for {
		e, err := events.next()
		if err != nil {
			return s.useful, fmt.Errorf("the stream ended: %w", err)
		}
		watchdog.Reset(silence)
		if err := s.handle(e); err != nil {
			return s.useful, err
		}
	}
}

// get asks for the feed, in the version that this package knows. The query adds to that of
// the Config's RevocationsURL.
func (f *follower) get(ctx context.Context, query url.Values, accept, lastEventID string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.cfg.RevocationsURL, nil)
	if err != nil {
		return nil, err
	}
	all := req.URL.Query()
	all.Set("version", strconv.Itoa(revoked.Version))
	maps.Copy(all, query)
	req.URL.RawQuery = all.Encode()
	req.Header.Set("Accept", accept)
	req.Close = f.elsewhere // the connection is not kept for the next request
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	res, err := f.cfg.HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK || kind != accept {
		res.Body.Close()
		if res.StatusCode == http.StatusGone {
			return nil, fmt.Errorf("%s has ended version %d of the feed: package verify must be updated", req.URL, revoked.Version)
		}
		return nil, fmt.Errorf("%s answers %s, %s", req.URL, res.Status, kind)
	}
	return res, nil
}

// streaming is one event stream.
type streaming struct {
	*follower
	// The request was sent at begun, by this clock. The server's first event is of the
	// moment server, by the server's clock, which was not before begun. So a moment t of the
	// server's clock was not before begun + (t − server) by this clock, however long an event
	// was on the way. Only differences within one clock are used.
	begun, server time.Time
	useful        bool
}

// head is the data of all events of a stream except "revocation".
type head struct {
	Version int       `json:"version"` // as in a revoked.Page
	Log     string    `json:"log"`
	Head    int64     `json:"head"`
	AsOf    time.Time `json:"as_of"`
	Age     int64     `json:"age_ms"`
}

func (s *streaming) handle(e event) error {
	switch e.name {
	case "snapshot", "resume", "head":
		var h head
		if err := json.Unmarshal(e.data, &h); err != nil {
			return err
		}
		if err := revoked.CheckVersion(h.Version); err != nil {
			return err
		}
		if h.Log == "" || h.AsOf.IsZero() || h.Age < 0 {
			return fmt.Errorf("the event %q says nothing", e.name)
		}
		return s.handleHead(e.name, h)
	case "revocation":
		var entry revoked.Entry
		if err := json.Unmarshal(e.data, &entry); err != nil {
			return err
		}
		if s.server.IsZero() {
			return errors.New("the stream does not say where it begins")
		}
		if err := s.list.Apply(entry); err != nil {
			return err
		}
		s.next = max(s.next, entry.Seq)
	}
	return nil // events of other names are not about revocations
}

func (s *streaming) handleHead(name string, h head) error {
	if s.server.IsZero() {
		s.server = h.AsOf.Add(revoked.Milliseconds(h.Age))
	}
	if name == "snapshot" {
		s.startAnew(h.Log)
		return nil
	}
	if h.Log != s.log {
		return fmt.Errorf("the stream goes on with another log, %q", h.Log)
	}
	if name == "resume" {
		return nil
	}
	s.next = max(s.next, h.Head)
	bySum, byAge := s.begun.Add(h.AsOf.Sub(s.server)), s.cfg.Now().Add(-revoked.Milliseconds(h.Age))
	if byAge.Before(bySum) {
		bySum = byAge
	}
	s.confirm(bySum)
	// By both clocks: what this stream confirms would stay old if the wall clock was set on.
	s.useful = revoked.Age(bySum, byAge) <= min(streamLag, s.cfg.MaxStaleness/2)
	if !s.useful {
		return errors.New("the stream is far behind, or a clock was set")
	}
	return s.current(h.Age)
}

// errCutOff: the replica that answers does not know itself what was revoked lately.
var errCutOff = errors.New("this replica of the server is cut off from the log of revocations")

// current returns errCutOff if the server's own knowledge is so old that this reader would
// be stale soon. Another replica may know more.
func (f *follower) current(age int64) error {
	if revoked.Milliseconds(age) > f.silence() {
		return errCutOff
	}
	return nil
}

// startAnew begins to read a log from its beginning. What was known stays known.
func (f *follower) startAnew(log string) {
	if log == f.log && f.next == 0 {
		return
	}
	if f.log != "" {
		f.cfg.Logger.Warn("the feed of revocations begins anew; what was known to be revoked stays revoked",
			"log", f.log, "read_to", f.next, "new_log", log)
	}
	f.list.Detach()
	f.log, f.next = log, 0
}

// confirm notes that everything that was revoked before t is known.
func (f *follower) confirm(t time.Time) {
	if last := f.confirmed.Load(); last != nil && last.After(t) {
		return
	}
	f.confirmed.Store(&t)
	if f.within(t, f.cfg.MaxStaleness) && f.stale.Swap(false) {
		f.cfg.Logger.Info("it is known again which tokens have been revoked")
	}
}

// sweep forgets expired entries now and then.
func (f *follower) sweep() {
	if now := f.cfg.Now(); now.Sub(f.swept) >= sweepEvery {
		f.swept = now
		f.list.Expire(now.Add(-clockSkew))
	}
}
