package cluster

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// An entry is a public key that was taken in.
type entry struct {
	key     accesstoken.Key
	maker   string    // instance id
	made    time.Time // by its maker's clock
	until   time.Time // when the last token that it can have signed has expired
	version int64     // of the registry in which it was made; 0: it did not come from there
	listed  bool      // it was there at the last look
	heard   time.Time // when it was taken in
	revoked bool
	had     time.Time // when every other replica was seen to have it; zero: not yet
	heldUp  bool      // it was logged that a live one takes long
}

// view is the merged set as callers see it; it never changes.
type view struct {
	local *accesstoken.KeySet // what it was made with
	set   *accesstoken.KeySet
}

// Keys returns the keys of all replicas that may have signed a living token. It is
// the same pointer until a key comes or goes.
//
// A replica that has not looked at the registry for longer than others wait for it
// (it was suspended, say) looks first: they may have begun to sign with keys that
// it does not know.
func (c *Cluster) Keys() *accesstoken.KeySet {
	c.awake()
	return c.current()
}

// current is Keys without looking.
func (c *Cluster) current() *accesstoken.KeySet {
	v := c.view.Load()
	if v.local == c.local.Public() {
		return v.set
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.merge()
	return c.view.Load().set
}

// merge makes the view anew. c.mu is held.
func (c *Cluster) merge() {
	now := c.cfg.Now()
	local := c.local.Public()
	keys := local.Keys()
	maps.DeleteFunc(c.entries, func(_ string, e *entry) bool { return !now.Before(e.until) })
	for kid, e := range c.entries {
		if _, own := local.Key(kid); !own && !e.revoked {
			keys = append(keys, e.key)
		}
	}
	// In the same order on every replica, so that they serve the same bytes.
	slices.SortFunc(keys, func(a, b accesstoken.Key) int { return cmp.Compare(a.ID, b.ID) })
	old := c.view.Load()
	if old.set != nil && slices.EqualFunc(keys, old.set.Keys(), func(a, b accesstoken.Key) bool { return a.ID == b.ID }) {
		c.view.Store(&view{local, old.set})
		return
	}
	set, err := accesstoken.NewKeySet(keys...)
	if err != nil {
		panic(err) // each was checked when it was taken in, and stands here once
	}
	c.view.Store(&view{local, set})
	c.metrics.keys.Set(float64(set.Len()))
}

// takeIn adds a key that is vouched for, or takes over what is new about it, or
// returns why not. What was revoked stays so, and no key's life is cut short: who
// would say so is not its maker. c.mu is held.
func (c *Cluster) takeIn(ctx context.Context, k store.RegisteredKey) (reason string) {
	e := c.entries[k.ID]
	if e == nil {
		if !c.cfg.Now().Before(k.RemoveAt) {
			return ""
		}
		key, reason := c.check(k.Key)
		if reason != "" {
			c.reject(ctx, reason, "signing key", k.ID)
			return reason
		}
		e = &entry{key: key, maker: k.Instance, made: k.CreatedAt, heard: c.cfg.Now()}
		c.entries[k.ID] = e
		if k.Instance != c.cfg.Instance {
			c.cfg.Logger.InfoContext(ctx, "key of another replica", "kid", k.ID, "until", k.RemoveAt)
		}
	}
	e.version, e.listed = k.Version, k.Version > 0
	e.until = later(e.until, k.RemoveAt)
	e.revoked = e.revoked || !k.RevokedAt.IsZero()
	return ""
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// check returns the key of a row, or why it is not taken in. The MAC was compared.
func (c *Cluster) check(k store.Key) (accesstoken.Key, string) {
	key, err := accesstoken.ParseJWK(k.PublicJWK)
	switch {
	case err != nil:
		return key, wrongKey
	case key.ID != k.ID || k.ID != k.Instance+"-"+key.Thumbprint():
		return key, wrongOwner
	case key.Algorithm != k.Algorithm || !slices.Contains(c.cfg.Algorithms, key.Algorithm):
		return key, wrongAlgorithm
	}
	return key, ""
}

// reject counts and logs what is not believed, each thing once. c.mu is held.
func (c *Cluster) reject(ctx context.Context, reason, what, name string) {
	id := reason + " " + what + " " + name
	if c.rejected[id] {
		return
	}
	c.metrics.rejected.WithLabelValues(reason).Inc()
	if len(c.rejected) < maxRejected {
		c.rejected[id] = true
		c.cfg.Logger.WarnContext(ctx, "not believed: "+what+" in another replica's name", "name", name, "reason", reason)
	}
}

// maxRejected bounds what is remembered of what was rejected.
const maxRejected = 1000
