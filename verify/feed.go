package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	// A stream is ended by us within streamLife and begun again: our clock and the
	// server's drift apart, and replicas come and go.
	streamLife = 10 * time.Minute
	// withoutStream is for how long pages are read instead after a stream that
	// brought nothing in time: something on the way may hold streams back. It doubles
	// each time, up to maxWithoutStream: nothing is learned while a stream is tried.
	withoutStream    = time.Minute
	maxWithoutStream = 15 * time.Minute
	// streamLag is how late the events of a stream may be; pages come sooner.
	streamLag = 2 * time.Second
	// A page may be held back by the server until there is something to tell, for
	// maxWait at most. From a server that holds none back it is read every pollEvery.
	maxWait     = 20 * time.Second
	pollEvery   = time.Second
	pageTimeout = 5 * time.Second
	// minPatience is for how long the next bytes of a page are waited for at least.
	minPatience  = 500 * time.Millisecond
	pageLimit    = 10_000   // entries
	maxPage      = 16 << 20 // bytes
	maxFeedRetry = 3 * time.Second
	// A stream that was well for pollEvery and then ends is begun again within
	// maxReattach: its replica is gone, and another is there. One that ends sooner
	// is begun again more slowly: nobody knows yet why it does.
	maxReattach = 100 * time.Millisecond
	// clockSkew is for how long entries are kept after they expired.
	clockSkew  = 10 * time.Minute
	sweepEvery = time.Minute
	// clockDrift is by how much two clocks may differ about what lies between two
	// moments half a minute apart.
	clockDrift = 50 * time.Millisecond
)

// A follower knows what the feed has told, and as of when.
type follower struct {
	cfg       Config
	list      revoked.List
	confirmed atomic.Pointer[time.Time] // everything was known then, by our clock; nil: never
	tried     chan struct{}             // closed after the feed was asked for the first time
	stopped   chan struct{}             // closed when run ends
	stale     atomic.Bool               // the present outage has been logged

	// What follows is run's alone.
	log  string        // which log this is; empty: none has been read
	next int64         // everything up to here has been applied
	beat time.Duration // how often the server confirms the head, as it says; 0: unknown
	// elsewhere: the last answer was of no use or has ended, so the next one should
	// come from another replica.
	elsewhere bool
	failures  int // of pages, one after the other
	feed      outage
	streams   outage
	swept     time.Time
}

func newFollower(cfg Config) *follower {
	return &follower{
		cfg: cfg, tried: make(chan struct{}), stopped: make(chan struct{}),
		feed:    outage{logger: cfg.Logger, what: "the feed of revocations"},
		streams: outage{logger: cfg.Logger, what: "the event stream of revocations (pages are polled instead)"},
	}
}

// check refuses a token that was taken back, and, if that is not known well enough
// for the route, does as its OnStale says.
func (f *follower) check(ctx context.Context, n *known, c *conditions) error {
	if err := f.wait(ctx); err != nil {
		return err
	}
	// Before the list, which has no less; judged by a later one, it might lack an entry.
	confirmed := f.lastConfirmed()
	if _, ok := f.list.RevokedByIDs(n.token, &n.ids); ok {
		return ErrRevoked
	}
	if f.within(confirmed, time.Duration(c.maxStaleness)) {
		return nil
	}
	if !f.within(confirmed, f.cfg.MaxStaleness) && f.stale.CompareAndSwap(false, true) {
		f.cfg.Logger.Error("it is not known any more which tokens have been taken back",
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

// lastConfirmed is when everything was last known; zero: never.
func (f *follower) lastConfirmed() time.Time {
	if c := f.confirmed.Load(); c != nil {
		return *c
	}
	return time.Time{}
}

// within says whether what was confirmed at a time is recent enough.
func (f *follower) within(confirmed time.Time, enough time.Duration) bool {
	return !confirmed.IsZero() && revoked.Age(confirmed, f.cfg.Now()) <= enough
}

// run follows the feed until ctx ends. It catches up by pages, then follows the
// stream until that ends, and so on; while streams bring nothing, by pages alone.
func (f *follower) run(ctx context.Context) {
	defer close(f.stopped)
	var streamAgain time.Time
	pause := time.NewTimer(0)
	defer pause.Stop()
	without := withoutStream
	mayWait := false // a moment ago everything was known
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		held, err := f.poll(ctx, mayWait)
		byPages := f.cfg.Now().Before(streamAgain)
		waited := held || !mayWait // or it has not been tried whether the server holds pages back
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

// leave has the next request use a new connection: those that are kept may all lead to
// the replica that was just of no use, which may still accept them.
func (f *follower) leave() {
	f.elsewhere = true
	f.cfg.closeIdle()
}

// pageRetry is the pause after a page that failed. Another replica is asked at once, and
// once more: a load balancer may have chosen the same one again.
func (f *follower) pageRetry() time.Duration {
	if f.failures <= 1 {
		return jitter(0, maxReattach)
	}
	return retryPause(f.failures-1, pollEvery/2, maxFeedRetry)
}

// silence is for how long a stream may bring nothing, and how old what the server knows
// may be, before another replica is asked: so short that the answer comes before half of
// MaxStaleness has passed, and never shorter than two heartbeats.
func (f *follower) silence() time.Duration {
	return min(max(2*f.beat, f.cfg.MaxStaleness/4), f.cfg.MaxStaleness/2)
}

// patience is for how long the first bytes of a page, and the next ones, are waited for.
// A replica that is frozen accepts connections and never answers, or stops in the middle
// of an answer, so another one is asked soon; a server that is merely slow is given twice
// as long each time.
func (f *follower) patience() time.Duration {
	first := max(f.cfg.MaxStaleness/8, minPatience)
	return min(first<<min(max(f.failures-1, 0), 16), pageTimeout)
}

// poll reads pages up to the head. If it may wait, it says whether the server has
// held the page back until there was something to tell.
func (f *follower) poll(ctx context.Context, mayWait bool) (held bool, err error) {
	for {
		begun := f.cfg.Now()
		page, cached, err := f.page(ctx, mayWait)
		if err != nil {
			return false, err
		}
		mayWait = false // the next one is there already
		held = held || page.Waited != nil
		if page.Log != f.log || page.Snapshot {
			asked := f.next
			f.startAnew(page.Log)
			if asked > 0 && !page.Snapshot {
				continue // the page begins at a place in another log
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
			f.confirm(f.writtenAfter(begun, page).Add(-milliseconds(page.Age) - cached))
			return held, f.current(page.Age)
		}
	}
}

// writtenAfter is a moment after which the answer to a question was written: that
// of the question, and later by what the server says to have waited. If that cannot
// be, a cache has given us the answer to another's question.
func (f *follower) writtenAfter(asked time.Time, page revoked.Page) time.Time {
	if page.Waited == nil || *page.Waited < 0 {
		return asked
	}
	waited, passed := milliseconds(*page.Waited), f.cfg.Now().Sub(asked)
	if waited > passed+clockDrift {
		return asked
	}
	return asked.Add(min(waited, passed))
}

// wait is for how long the server may hold a page back: so short that what is known
// never comes near to being stale.
func (c *Config) wait() time.Duration {
	return max(time.Second, min(c.MaxStaleness/4, maxWait).Truncate(time.Second))
}

// page asks for one page, and says for how long a cache has had it.
func (f *follower) page(ctx context.Context, mayWait bool) (page revoked.Page, cached time.Duration, err error) {
	timeout, patience := min(pageTimeout, f.cfg.MaxStaleness), f.patience()
	u, err := url.Parse(f.cfg.RevocationsURL)
	if err != nil {
		return page, 0, err
	}
	query := u.Query()
	query.Set("after", strconv.FormatInt(f.next, 10))
	query.Set("limit", strconv.Itoa(pageLimit))
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
	u.RawQuery = query.Encode()
	silent := time.AfterFunc(patience, func() { giveUp(errSilent) })
	defer silent.Stop()
	res, err := f.get(ctx, u.String(), "application/json", "")
	if err != nil {
		return page, 0, f.silenceOr(ctx, err, patience)
	}
	defer res.Body.Close()
	patience = f.patience() // it is not held back any more
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
	if page.Log == "" || page.AsOf.IsZero() || page.Age < 0 {
		return page, 0, errors.New("this is not a page of the feed")
	}
	f.beat = milliseconds(max(page.Heartbeat, 0))
	if res.Header.Get("Age") != "" {
		cached = age(res.Header) + time.Second // it counts whole seconds
	}
	return page, cached, nil
}

// errSilent is why a page is given up of which nothing comes for too long.
var errSilent = errors.New("silent")

// silenceOr is the error of a page that failed.
func (f *follower) silenceOr(ctx context.Context, err error, patience time.Duration) error {
	if context.Cause(ctx) == errSilent {
		return fmt.Errorf("%s does not answer within %v", f.cfg.RevocationsURL, patience)
	}
	return err
}

// A watchedReader sets its timer anew whenever something has come.
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

// stream follows the event stream until it ends, is silent for too long, or has
// lived long enough, and says whether it was of use: what it confirmed was new.
func (f *follower) stream(ctx context.Context) (useful bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, jitter(streamLife/2, streamLife))
	defer cancel()
	silence := f.silence()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()

	s := streaming{follower: f, begun: f.cfg.Now()}
	res, err := f.get(ctx, f.cfg.RevocationsURL, "text/event-stream", fmt.Sprintf("%s:%d", f.log, f.next))
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

func (f *follower) get(ctx context.Context, address, accept, lastEventID string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	req.Close = f.elsewhere // not kept for the next one
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
		return nil, fmt.Errorf("%s answers %s, %s", address, res.Status, kind)
	}
	return res, nil
}

// streaming is one event stream.
type streaming struct {
	*follower
	// The stream begins at begun by our clock, which was not later than server by
	// the server's. So what the server says it knew at a time, it knew, by our
	// clock, not before begun plus what passed there in between, however long the
	// event was on its way. Only differences within one clock are used.
	begun, server time.Time
	useful        bool
}

// head is what the events of a stream but "revocation" carry.
type head struct {
	Log  string    `json:"log"`
	Head int64     `json:"head"`
	AsOf time.Time `json:"as_of"`
	Age  int64     `json:"age_ms"`
}

func (s *streaming) handle(e event) error {
	switch e.name {
	case "snapshot", "resume", "head":
		var h head
		if err := json.Unmarshal(e.data, &h); err != nil {
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
	return nil // an event of another name says nothing about revocations
}

func (s *streaming) handleHead(name string, h head) error {
	if s.server.IsZero() {
		s.server = h.AsOf.Add(milliseconds(h.Age))
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
	bySum, byAge := s.begun.Add(h.AsOf.Sub(s.server)), s.cfg.Now().Add(-milliseconds(h.Age))
	if byAge.Before(bySum) {
		bySum = byAge
	}
	s.confirm(bySum)
	s.useful = byAge.Sub(bySum) <= min(streamLag, s.cfg.MaxStaleness/2)
	if !s.useful {
		return errors.New("the stream is far behind, or a clock was set")
	}
	return s.current(h.Age)
}

// errCutOff: the replica that answers does not itself know what was revoked lately.
var errCutOff = errors.New("this replica of the server is cut off from the log of revocations")

// current is errCutOff if what the server knows is so old that we would be stale
// soon: another replica may know more.
func (f *follower) current(age int64) error {
	if milliseconds(age) > f.silence() {
		return errCutOff
	}
	return nil
}

// startAnew is for the beginning of a log. What was known stays known.
func (f *follower) startAnew(log string) {
	if log == f.log && f.next == 0 {
		return
	}
	if f.log != "" {
		f.cfg.Logger.Warn("the feed of revocations begins anew; what was known to be taken back stays so",
			"log", f.log, "read_to", f.next, "new_log", log)
	}
	f.list.Detach()
	f.log, f.next = log, 0
}

// confirm notes that everything that was taken back before t is known.
func (f *follower) confirm(t time.Time) {
	if last := f.confirmed.Load(); last != nil && last.After(t) {
		return
	}
	f.confirmed.Store(&t)
	if f.within(t, f.cfg.MaxStaleness) && f.stale.Swap(false) {
		f.cfg.Logger.Info("it is known again which tokens have been taken back")
	}
}

// sweep forgets the expired, now and then.
func (f *follower) sweep() {
	if now := f.cfg.Now(); now.Sub(f.swept) >= sweepEvery {
		f.swept = now
		f.list.Expire(now.Add(-clockSkew))
	}
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
