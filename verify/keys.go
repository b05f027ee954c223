package verify

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	// A key set is fetched again before the max-age of its answer has passed, but after
	// minKeyLife at the earliest and maxKeyLife at the latest. If the answer has no max-age,
	// defaultKeyLife is used.
	minKeyLife     = time.Second
	defaultKeyLife = 30 * time.Second
	// staleKeyLife is used for an answer that must not be stored, or is too old already.
	staleKeyLife = 5 * time.Second
	maxKeyLife   = time.Hour
	// keyCooldown is the least time between a fetch and one because of an unknown kid:
	// a client that invents kids causes twelve fetches a minute at most.
	keyCooldown = 5 * time.Second
	// maxUnknown bounds how many kids are remembered as unknown, and unknownLife
	// for how long.
	maxUnknown  = 1024
	unknownLife = time.Minute
	keyTimeout  = 5 * time.Second
	// keyOutage is how long a set is used after its last good answer. The server keeps the
	// revocation of a key for as long, and relies on it that no resource server uses the key
	// after that.
	keyOutage = 24 * time.Hour
	// The pause after failed fetches begins with minKeyRetry and doubles up to maxKeyRetry.
	minKeyRetry = time.Second
	maxKeyRetry = 30 * time.Second
)

// A keySource keeps the key set fresh. The last good set is used until there is a newer
// one, for keyOutage at most. An answer that is an error, garbage, or empty without
// Config.Secrets changes nothing.
type keySource struct {
	cfg     Config
	set     atomic.Pointer[accesstoken.KeySet] // the last good one
	asOf    atomic.Pointer[time.Time]          // when the server last confirmed it; nil: never
	tried   chan struct{}                      // closed after the first fetch
	stopped chan struct{}                      // closed after the last
	wake    chan struct{}                      // asks run to fetch now
	outage  outage                             // only run uses it
	etag    string                             // only run uses it

	mu      sync.Mutex           // guards everything below
	begun   time.Time            // when the last fetch began
	failed  error                // how it ended
	running chan struct{}        // closed when the present or requested fetch ends; nil: there is none
	unknown map[string]time.Time // kids that a fetch did not bring, and until when they count as unknown
}

func newKeySource(cfg Config) *keySource {
	return &keySource{
		cfg:   cfg,
		tried: make(chan struct{}), stopped: make(chan struct{}), wake: make(chan struct{}, 1),
		outage:  outage{logger: cfg.Logger, what: "the key set"},
		unknown: map[string]time.Time{},
	}
}

// run fetches the key set: at once, then before each answer is too old, and when it is
// woken. Nothing else fetches it, so there is never more than one fetch at a time.
func (k *keySource) run(ctx context.Context) {
	defer close(k.stopped)
	pause := time.NewTimer(0)
	defer pause.Stop()
	failures := 0
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		case <-k.wake:
		}
		k.begin()
		life, err := k.fetch(ctx)
		k.end(err)
		if first {
			close(k.tried)
		}
		if ctx.Err() != nil {
			return
		}
		k.outage.note(err)
		if err != nil {
			pause.Reset(retryPause(failures, minKeyRetry, maxKeyRetry))
			failures++
			continue
		}
		failures = 0
		pause.Reset(jitter(life*90/100, life*98/100))
	}
}

// current returns the set that may be used, or nil if there is none.
func (k *keySource) current() *accesstoken.KeySet {
	if asOf := k.asOf.Load(); asOf == nil || revoked.Age(*asOf, k.cfg.Now()) > keyOutage {
		return nil
	}
	return k.set.Load()
}

// find returns the key. The error is accesstoken.ErrUnknownKey if a fetch, now or not long
// ago, did not bring it, and ErrKeysUnavailable if it is not known whether there is such a
// key.
func (k *keySource) find(ctx context.Context, kid string) (accesstoken.Key, error) {
	if key, ok := k.cfg.secrets[kid]; ok { // before the key set, which cannot take its place
		return key, nil
	}
	if key, ok := k.current().Key(kid); ok {
		return key, nil
	}
	if len(kid) > accesstoken.MaxKeyID {
		return accesstoken.Key{}, accesstoken.ErrUnknownKey
	}
	if err := k.wait(ctx, k.tried); err != nil {
		return accesstoken.Key{}, err
	}
	ended, err := k.ask(kid)
	if err != nil {
		return accesstoken.Key{}, err
	}
	if err := k.wait(ctx, ended); err != nil {
		return accesstoken.Key{}, err
	}
	if key, ok := k.current().Key(kid); ok {
		return key, nil
	}
	return accesstoken.Key{}, k.remember(kid)
}

func (k *keySource) wait(ctx context.Context, event <-chan struct{}) error {
	select {
	case <-event:
		return nil
	case <-ctx.Done():
		return because(ErrKeysUnavailable, ctx.Err())
	case <-k.stopped:
		return because(ErrKeysUnavailable, errClosed)
	}
}

// closed is what a caller gets that need not wait.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// ask has the set fetched because of a kid, unless a fetch is under way. It returns a
// channel that is closed when the fetch ends, or an error if it is too early for one.
func (k *keySource) ask(kid string) (<-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.current().Key(kid); ok {
		return closed, nil // a fetch has brought it meanwhile
	}
	if k.cfg.Now().Before(k.unknown[kid]) {
		return nil, accesstoken.ErrUnknownKey
	}
	failed := k.failed
	if k.running == nil {
		if wait := keyCooldown - k.cfg.Now().Sub(k.begun); wait > 0 {
			return nil, because(ErrKeysUnavailable, fmt.Errorf("unknown kid; the next fetch may be in %v", wait))
		}
		k.running = make(chan struct{})
		k.wake <- struct{}{} // has room: only one caller finds that running is nil
	}
	if failed != nil {
		return nil, because(ErrKeysUnavailable, failed) // the next one may hang, too
	}
	return k.running, nil
}

// remember notes that a fetch did not bring the kid, unless the fetch failed.
func (k *keySource) remember(kid string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed != nil {
		return because(ErrKeysUnavailable, k.failed)
	}
	if len(k.unknown) >= maxUnknown {
		clear(k.unknown) // costs a fetch at worst, and those are limited
	}
	k.unknown[kid] = k.cfg.Now().Add(unknownLife)
	return accesstoken.ErrUnknownKey
}

func (k *keySource) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.wake: // this fetch is the requested one
	default:
	}
	k.begun = k.cfg.Now()
	if k.running == nil {
		k.running = make(chan struct{})
	}
}

func (k *keySource) end(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failed = err
	close(k.running)
	k.running = nil
}

// fetch asks for the set and returns how long the answer is fresh.
func (k *keySource) fetch(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.cfg.KeySetURL, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if k.etag != "" {
		req.Header.Set("If-None-Match", k.etag)
	}
	asked := k.cfg.Now()
	res, err := k.cfg.HTTPClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	asOf := asked.Add(-age(res.Header)) // it may come from a cache
	if res.StatusCode == http.StatusNotModified && k.etag != "" {
		k.asOf.Store(&asOf)
		return keyLife(res.Header), nil
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s answers %s", k.cfg.KeySetURL, res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, accesstoken.MaxKeySetLength+1))
	if err != nil {
		return 0, err
	}
	set, err := accesstoken.ParseKeySet(body)
	if err != nil {
		return 0, err
	}
	if set.Len() == 0 && len(k.cfg.secrets) == 0 {
		return 0, fmt.Errorf("%s answers with a set without keys", k.cfg.KeySetURL)
	}
	k.set.Store(set)
	k.asOf.Store(&asOf)
	k.etag = res.Header.Get("ETag")
	return keyLife(res.Header), nil
}

// keyLife is how long an answer is fresh (RFC 9111 §4.2), within the bounds above.
func keyLife(h http.Header) time.Duration {
	life := defaultKeyLife
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return staleKeyLife
		case "max-age":
			if n, err := strconv.Atoi(strings.Trim(value, `"`)); err == nil && n >= 0 {
				life = min(time.Duration(min(n, 1<<30))*time.Second, maxKeyLife)
			}
		}
	}
	left := life - age(h)
	if left <= 0 {
		return staleKeyLife
	}
	return max(left, minKeyLife)
}

// age is how long a cache on the way has held an answer (RFC 9111 §5.1).
func age(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Age"))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(min(n, 1<<30)) * time.Second
}

// jitter returns a random time between two, so that many clients do not ask in step.
func jitter(least, most time.Duration) time.Duration {
	return least + rand.N(most-least)
}

// retryPause doubles with every failure, up to a bound.
func retryPause(failures int, first, most time.Duration) time.Duration {
	d := min(first<<min(failures, 16), most)
	return jitter(d/2, d)
}
