package loadgen

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// watchers bounds the revoked tokens that are watched at once until they are refused.
	watchers = 4
	// watchEvery is how often each URL is asked about one of them.
	watchEvery = 5 * time.Millisecond
	// watchSeldom is how often it is asked while it does not know, or does not answer.
	watchSeldom = 100 * time.Millisecond
	// maxWaiting bounds the revoked tokens that wait for the question after the bound.
	maxWaiting = 10_000
	// maxAgain bounds those that are asked about once more at the end.
	maxAgain = 100
	// askers is how many revoked tokens are asked about at once after the bound.
	askers = 4
)

// A watch asks about the tokens that were revoked: some of them until each URL refuses them,
// to see how soon that is, and all of them, after the bound, to see that it is so.
type watch struct {
	*run
	slots   chan struct{}
	waiting chan *session
	asking  sync.WaitGroup

	mu        sync.Mutex
	total     int64 // revocations
	skipped   int64 // of these, not asked about after the bound
	questions int64
	silent    int64 // questions that were not answered
	seen      map[string]histogram
	again     []*session // that were asked about
}

func newWatch(r *run) *watch {
	w := &watch{run: r, slots: make(chan struct{}, watchers), waiting: make(chan *session, maxWaiting), seen: map[string]histogram{}}
	for _, url := range r.URLs {
		w.seen[url] = newHistogram(3)
	}
	return w
}

// revoked takes in a session whose revocation was answered.
func (w *watch) revoked(s *session) {
	w.mu.Lock()
	w.total++
	w.mu.Unlock()
	select {
	case w.slots <- struct{}{}:
		w.asking.Go(func() {
			w.until(s)
			<-w.slots
		})
	default:
	}
	w.wait(s)
}

// wait has a session wait for the question after the bound.
func (w *watch) wait(s *session) {
	select {
	case w.waiting <- s:
	default:
		w.skip(1)
	}
}

func (w *watch) skip(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skipped += n
}

// until asks each URL about a token until it is refused.
func (w *watch) until(s *session) {
	t, at := s.current(), s.revokedAt()
	var each sync.WaitGroup
	for _, url := range w.URLs {
		each.Go(func() {
			for time.Since(at) <= w.Bound {
				refused, accepted := w.ask(url, t, at)
				switch {
				case refused:
					return
				case accepted:
					time.Sleep(watchEvery)
				default:
					time.Sleep(watchSeldom)
				}
			}
		})
	}
	each.Wait()
}

// ask reports whether a token is refused or accepted; it may be neither.
func (w *watch) ask(url string, t *token, revoked time.Time) (refused, accepted bool) {
	accepted, a := w.caller.accepts(context.Background(), url, t)
	w.mu.Lock()
	w.questions++
	if a.err != nil {
		w.silent++
	}
	if refused = a.err == nil && !accepted && a.status < http.StatusInternalServerError && a.status != http.StatusTooManyRequests; refused {
		w.seen[url].add(a.ended.Sub(revoked))
	}
	w.mu.Unlock()
	if late := a.began.Sub(revoked); accepted && late > w.Bound && t.lives() {
		w.judge.tooLate(outcome{}, url, t, late)
	}
	return refused, accepted
}

// follow asks about each revoked token after the bound, until ctx ends.
func (w *watch) follow(ctx context.Context) {
	var each sync.WaitGroup
	for range askers {
		each.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case s := <-w.waiting:
					if !w.after(ctx, s) {
						w.wait(s)
					}
				}
			}
		})
	}
	each.Wait()
}

// after asks each URL about the tokens of a session when it was revoked longer ago than the
// bound. Whatever is not acceptance is right: a replica may know nothing, and say so.
// It returns false if ctx has ended before all were asked.
func (w *watch) after(ctx context.Context, s *session) bool {
	if !sleepUntil(ctx, s.revokedAt().Add(w.Bound+time.Millisecond)) {
		return false
	}
	tokens := []*token{s.current()}
	if s.first != tokens[0] {
		tokens = append(tokens, s.first)
	}
	for _, t := range tokens {
		for _, url := range w.URLs {
			accepted, a := w.caller.accepts(ctx, url, t)
			if ctx.Err() != nil {
				return false
			}
			w.mu.Lock()
			w.questions++
			if a.err != nil {
				w.silent++
			}
			w.mu.Unlock()
			if accepted && t.lives() {
				w.judge.tooLate(outcome{}, url, t, a.began.Sub(s.revokedAt()))
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.again = append(w.again, s)
	if len(w.again) > maxAgain {
		w.again = w.again[1:]
	}
	return true
}

// finish asks about what is left, and once more about the latest ones, when the load is over.
// It takes no longer than the bound and a time-out.
func (w *watch) finish(ctx context.Context) {
	w.asking.Wait()
	limit, cancel := context.WithTimeout(ctx, w.Bound+w.Timeout)
	defer cancel()
	asked := len(w.again)
	left := slices.Clone(w.again) // to which more is added meanwhile
	for range len(w.waiting) {
		left = append(left, <-w.waiting)
	}
	var next atomic.Int64
	var each sync.WaitGroup
	for range askers {
		each.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(left); i = int(next.Add(1)) - 1 {
				if !w.after(limit, left[i]) && i >= asked {
					w.skip(1)
				}
			}
		})
	}
	each.Wait()
}
