package cluster

import (
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// What became of a key that a token named and nobody here had heard of.
const (
	found   = "found"
	unknown = "unknown"
	refused = "refused" // without looking
	// unavailable: nobody could be asked who would know it.
	unavailable = "unavailable"
)

const (
	// cooldown is how long after a look that found nothing no other is made.
	cooldown = 30 * time.Second
	// forgetAfter is how long a kid that was looked for in vain is known as such.
	forgetAfter = 5 * time.Minute
	// maxNegatives and maxWaiting bound what strangers can make this replica
	// remember, and have wait.
	maxNegatives = 1024
	maxWaiting   = 256
	// lookTimeout bounds how long a request waits for a look, but in some tests.
	lookTimeout = 1500 * time.Millisecond
)

// ErrKeysUnavailable: it cannot be found out at the moment whether there is such a
// key.
var ErrKeysUnavailable = problem.New(problem.Unavailable, "keys_unavailable",
	"the key that the token names cannot be looked up at the moment")

// Find returns the key of a token: one of the merged set or, if there is none of
// that name, what one look at the registry finds, or its maker's answer while that is
// away. The error is accesstoken.ErrUnknownKey, or ErrKeysUnavailable if neither
// could be asked.
//
// However many tokens name unknown keys, there is one look at a time and none for a
// while after one in vain. Meanwhile a few of them wait for the look that is made
// every second anyway, and the others are refused.
func (c *Cluster) Find(kid string) (accesstoken.Key, error) {
	if k, ok := c.current().Key(kid); ok {
		return k, nil
	}
	maker, ours := makerOf(kid)
	if !ours {
		c.metrics.lookups.WithLabelValues(refused).Inc()
		return accesstoken.Key{}, accesstoken.ErrUnknownKey
	}
	c.awake()
	if k, ok := c.current().Key(kid); ok {
		return k, nil
	}
	result := refused
	switch now := c.cfg.Now(); c.unknown.ask(kid, now) {
	case askNow:
		result = c.lookFor(kid, maker, true)
		c.unknown.answer(kid, result, now)
	case askLater:
		if result = c.lookFor(kid, maker, false); result == unknown {
			result = refused // the look was none of its own
		}
		c.unknown.leave()
	case askNot:
		if c.cutOff() {
			result = unavailable
		}
	}
	c.metrics.lookups.WithLabelValues(result).Inc()
	k, err := c.current().Find(kid)
	if err != nil && result == unavailable {
		err = ErrKeysUnavailable
	}
	return k, err
}

// lookFor waits until the key is there, or those have been asked after the call who
// would know it: the registry, or its maker. With now the registry is looked at at
// once. While it fails, Run has the peers asked.
func (c *Cluster) lookFor(kid, maker string, now bool) (result string) {
	since := c.cfg.Now()
	c.mu.Lock()
	called := c.begun
	c.mu.Unlock()
	if now {
		c.Ring()
	}
	result = unavailable
	c.waitUntil(func() bool {
		c.mu.Lock()
		succeeded, ended := c.succeeded, c.ended
		c.mu.Unlock()
		if _, ok := c.current().Key(kid); ok {
			result = found
		} else if succeeded > called || c.peers.heardFrom(maker, since) {
			result = unknown
		}
		return result != unavailable || ended > called && len(c.Others()) == 0
	})
	return result
}

// cutOff says whether the last look at the registry failed, or is overdue.
func (c *Cluster) cutOff() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed || c.cfg.Now().Sub(c.endedAt) > pollEvery+c.lookTimeout
}

// awake returns when this replica has looked at the registry, or has tried to,
// within LiveFor.
func (c *Cluster) awake() {
	c.mu.Lock()
	last := c.endedAt
	c.mu.Unlock()
	now := c.cfg.Now()
	// By the wall clock, too: the other one may have stood still with the machine.
	if now.Sub(last) > LiveFor || now.Round(0).Sub(last.Round(0)) > LiveFor {
		c.wait()
	}
}

// wait returns when a round has ended that began after the call, or after a while.
// The round begins now.
func (c *Cluster) wait() {
	c.mu.Lock()
	called := c.begun
	c.mu.Unlock()
	c.Ring()
	c.waitUntil(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ended > called
	})
}

// waitUntil returns when done says so, which is asked whenever a round or a question
// to a peer has ended, or after a while.
func (c *Cluster) waitUntil(done func() bool) {
	patience := time.NewTimer(c.lookTimeout)
	defer patience.Stop()
	for {
		c.mu.Lock()
		round := c.next
		c.mu.Unlock()
		answer := c.peers.nextAnswer()
		if done() {
			return
		}
		select {
		case <-round:
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

// negatives are the kids that were looked for in vain, and who is looking.
type negatives struct {
	mu      sync.Mutex
	until   map[string]time.Time // by kid
	quiet   time.Time            // no look before
	looking bool
	waiting int
}

// ask says what a request for a kid may do.
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

// answer ends a look for a kid.
func (n *negatives) answer(kid, result string, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looking = false
	if result == found {
		return
	}
	n.quiet = now.Add(cooldown)
	if result == unavailable { // nothing is known of it
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

func (n *negatives) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting--
}

// makerOf returns the instance id with which a kid begins, and whether a thumbprint
// follows it, as in all of ours.
func makerOf(kid string) (instance string, ours bool) {
	const thumbprint = 43 // characters of a SHA-256 in base64url
	end := len(kid) - thumbprint - 1
	if end <= 0 || kid[end] != '-' || strings.Trim(kid[end+1:], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return "", false
	}
	return kid[:end], true
}
