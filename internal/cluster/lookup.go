package cluster

import (
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/poll"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// What became of looking for a key that a token named and this replica did not know.
const (
	found   = "found"
	unknown = "unknown"
	refused = "refused" // without looking
	// unavailable: no one that would know the key could be asked.
	unavailable = "unavailable"
)

const (
	// cooldown is for how long no look is made after one that found nothing.
	cooldown = 30 * time.Second
	// forgetAfter is how long a kid that was looked for in vain is remembered.
	forgetAfter = 5 * time.Minute
	// maxNegatives bounds how many such kids strangers can make this replica remember,
	// and maxWaiting how many requests they can make wait.
	maxNegatives = 1024
	maxWaiting   = 256
)

// ErrKeysUnavailable: it cannot be found out at the moment whether there is such a key.
var ErrKeysUnavailable = problem.New(problem.Unavailable, "keys_unavailable",
	"the key that the token names cannot be looked up at the moment")

// lookup has the registry read for requests that cannot be answered without, and has
// them wait for it.
type lookup struct {
	*common
	registry *registry
	peers    *peers
	bell     poll.Bell     // has the registry read
	timeout  time.Duration // timing.LookTimeout, but in some tests
	unknown  negatives

	// mu guards everything below.
	mu        sync.Mutex
	begun     int64         // looks at the registry
	ended     int64         // the last of them that has ended
	endedAt   time.Time     // when it ended
	failed    bool          // it did not succeed
	succeeded int64         // the last of them that has succeeded
	next      chan struct{} // closed and replaced when a look ends
}

func newLookup(shared *common, r *registry, p *peers) *lookup {
	return &lookup{
		common: shared, registry: r, peers: p, timeout: timing.LookTimeout,
		bell: poll.NewBell(), next: make(chan struct{}),
	}
}

// begin notes that a look at the registry begins.
func (l *lookup) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun++
}

// end notes how the look ended that began last.
func (l *lookup) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended, l.endedAt, l.failed = l.begun, l.cfg.Now(), err != nil
	if err == nil {
		l.succeeded = l.begun
	}
	close(l.next)
	l.next = make(chan struct{})
}

// outdate has the next request look at the registry.
func (l *lookup) outdate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endedAt = time.Time{}
}

// lastFailed reports whether the last look at the registry failed.
func (l *lookup) lastFailed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Keys returns the keys of all replicas that may have signed a living token. It is
// the same pointer until a key comes or goes.
//
// A replica that has not looked at the registry for longer than others wait for it (it
// was suspended, for example) looks first: the others may have begun to sign with keys
// that it does not know.
func (c *Cluster) Keys() *accesstoken.KeySet {
	c.lookup.awake()
	return c.registry.current()
}

// Find returns the key of a token: one of the merged set, or what one look at the
// registry finds. While the registry is away, the answer of a peer counts, too. The
// error is accesstoken.ErrUnknownKey, or ErrKeysUnavailable if nobody could be asked.
//
// However many tokens name unknown keys, there is one look at a time, and none for a
// while after a look that found nothing. Meanwhile a few of them wait for the look that
// is made every second anyway, and the others are refused.
func (c *Cluster) Find(kid string) (accesstoken.Key, error) { return c.lookup.find(kid) }

func (l *lookup) find(kid string) (accesstoken.Key, error) {
	if k, ok := l.registry.current().Key(kid); ok {
		return k, nil
	}
	maker, ours := makerOf(kid)
	if !ours {
		l.metrics.lookups.WithLabelValues(refused).Inc()
		return accesstoken.Key{}, l.findSecret(kid)
	}
	l.awake()
	if k, ok := l.registry.current().Key(kid); ok {
		return k, nil
	}
	result := refused
	switch now := l.cfg.Now(); l.unknown.ask(kid, now) {
	case askNow:
		result = l.lookFor(kid, maker, true)
		l.unknown.answer(kid, result, now)
	case askLater:
		if result = l.lookFor(kid, maker, false); result == unknown {
			result = refused // the look was not made for it
		}
		l.unknown.leave()
	case askNot:
		if l.cutOff() {
			result = unavailable
		}
	}
	l.metrics.lookups.WithLabelValues(result).Inc()
	k, err := l.registry.current().Find(kid)
	if err != nil && result == unavailable {
		err = ErrKeysUnavailable
	}
	return k, err
}

// lookFor waits until the key is there, or until one that would know the key was asked
// after the call: the registry, or the key's maker. A key without one maker may be known to
// any peer, so all of them are. With now, the registry is read at once. While that fails,
// Run has the peers asked.
func (l *lookup) lookFor(kid, maker string, now bool) (result string) {
	since := l.cfg.Now()
	called := l.lastBegun()
	if now {
		l.bell.Ring()
	}
	result = unavailable
	l.waitUntil(func() bool {
		l.mu.Lock()
		succeeded, ended := l.succeeded, l.ended
		l.mu.Unlock()
		if _, ok := l.registry.current().Key(kid); ok {
			result = found
		} else if succeeded > called || l.peers.heardFromMaker(maker, since) {
			result = unknown
		}
		return result != unavailable || ended > called && len(l.peers.others()) == 0
	})
	return result
}

func (l *lookup) lastBegun() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// cutOff reports whether the last look at the registry failed, or is overdue.
func (l *lookup) cutOff() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed || l.cfg.Now().Sub(l.endedAt) > timing.RegistryPoll+l.timeout
}

// awake returns when this replica has looked at the registry, or has tried to, within
// timing.LiveFor.
func (l *lookup) awake() {
	l.mu.Lock()
	last := l.endedAt
	l.mu.Unlock()
	now := l.cfg.Now()
	// By the wall clock, too: the monotonic one may have stood still with the machine.
	if now.Sub(last) > timing.LiveFor || now.Round(0).Sub(last.Round(0)) > timing.LiveFor {
		l.wait()
	}
}

// wait has the registry read now, and returns when a look has ended that began after
// the call, or after a while.
func (l *lookup) wait() {
	called := l.lastBegun()
	l.bell.Ring()
	l.waitUntil(func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.ended > called
	})
}

// waitUntil returns when done reports true, or after a while. It calls done whenever
// a look, or a question to a peer, has ended.
func (l *lookup) waitUntil(done func() bool) {
	patience := time.NewTimer(l.timeout)
	defer patience.Stop()
	for {
		l.mu.Lock()
		look := l.next
		l.mu.Unlock()
		answer := l.peers.nextAnswer()
		if done() {
			return
		}
		select {
		case <-look:
		case <-answer:
		case <-patience.C:
			return
		}
	}
}

// What a request with an unknown kid may do.
type permission int

const (
	askNot   permission = iota
	askNow              // answer must follow
	askLater            // leave must follow
)

// negatives are the kids that were looked for in vain, and how many requests look for
// one now.
type negatives struct {
	mu      sync.Mutex           // guards everything below
	until   map[string]time.Time // until when a kid is remembered
	quiet   time.Time            // no look is made before
	looking bool                 // a request has a look made
	waiting int                  // how many others wait for the look that is made anyway
}

// ask returns what a request for a kid may do.
func (n *negatives) ask(kid string, now time.Time) permission {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case now.Before(n.until[kid]):
		return askNot
	case !n.looking && !now.Before(n.quiet):
		n.looking = true
		return askNow
	case n.waiting < maxWaiting:
		n.waiting++
		return askLater
	}
	return askNot
}

// answer ends the look that was made for a kid.
func (n *negatives) answer(kid, result string, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looking = false
	if result == found {
		return
	}
	n.quiet = now.Add(cooldown)
	if result == unavailable { // nothing was learned about it
		return
	}
	if len(n.until) >= maxNegatives {
		clear(n.until)
	}
	if n.until == nil {
		n.until = map[string]time.Time{}
	}
	n.until[kid] = now.Add(forgetAfter)
}

// leave ends waiting for a look.
func (n *negatives) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting--
}

// makerOf reports whether a kid is a thumbprint, or an instance id and a thumbprint, as are
// all kids that replicas make. It returns the instance id; none if several replicas may sign
// with the key.
func makerOf(kid string) (instance string, ours bool) {
	const thumbprint = 43 // characters of a SHA-256 in base64url
	end := len(kid) - thumbprint
	if end < 0 || end == 1 || end > 1 && kid[end-1] != '-' || strings.Trim(kid[end:], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return "", false
	}
	return kid[:max(end-1, 0)], true
}
