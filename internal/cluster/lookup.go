package cluster

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// What became of a key that a token named and nobody here had heard of.
const (
	found   = "found"
	unknown = "unknown"
	refused = "refused" // without looking
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
	// lookTimeout bounds how long a request waits for a look.
	lookTimeout = 1500 * time.Millisecond
)

// Find returns the key of a token: one of the merged set or, if there is none of
// that name, what one look at the registry finds. The error is
// accesstoken.ErrUnknownKey.
//
// However many tokens name unknown keys, there is one look at a time and none for a
// while after one in vain. Meanwhile a few of them wait for the look that is made
// every second anyway, and the others are refused.
func (c *Cluster) Find(kid string) (accesstoken.Key, error) {
	if k, ok := c.current().Key(kid); ok {
		return k, nil
	}
	c.awake()
	if k, ok := c.current().Key(kid); ok {
		return k, nil
	}
	now := c.cfg.Now()
	result := refused
	switch c.unknown.ask(kid, now) {
	case askNow:
		c.wait(true, kid)
		if c.cutOff() {
			c.askAndWait()
		}
		result = c.unknown.answer(kid, c.current(), now)
	case askLater:
		c.wait(false, kid)
		c.unknown.leave()
		if _, ok := c.current().Key(kid); ok {
			result = found
		}
	}
	c.metrics.lookups.WithLabelValues(result).Inc()
	return c.current().Find(kid)
}

// cutOff says whether the last look at the registry failed.
func (c *Cluster) cutOff() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
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
		c.wait(true, "")
	}
}

// wait returns when a round has ended that began after the call, when the key is
// there, or after a while. With ring the round begins now.
func (c *Cluster) wait(ring bool, kid string) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	c.mu.Lock()
	called := c.begun
	c.mu.Unlock()
	if ring {
		c.Ring()
	}
	for {
		c.mu.Lock()
		ended, next := c.ended, c.next
		c.mu.Unlock()
		if _, ok := c.current().Key(kid); ok || ended > called {
			return
		}
		select {
		case <-next:
		case <-ctx.Done():
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
	if !looksLikeOurs(kid) {
		return askNot
	}
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
func (n *negatives) answer(kid string, set *accesstoken.KeySet, now time.Time) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looking = false
	if _, ok := set.Key(kid); ok {
		return found
	}
	n.quiet = now.Add(cooldown)
	if len(n.until) >= maxNegatives {
		clear(n.until)
	}
	if n.until == nil {
		n.until = map[string]time.Time{}
	}
	n.until[kid] = now.Add(forgetAfter)
	return unknown
}

func (n *negatives) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting--
}

// looksLikeOurs says whether a kid is an instance id and a thumbprint.
func looksLikeOurs(kid string) bool {
	const thumbprint = 43 // characters of a SHA-256 in base64url
	maker := len(kid) - thumbprint - 1
	return maker > 0 && kid[maker] == '-' && strings.Trim(kid[maker+1:], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}
