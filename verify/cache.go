package verify

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// DefaultCacheSize is the default of Config.CacheSize.
const DefaultCacheSize = 4096

// A cache keeps tokens whose signature has been verified, so that the next request with
// the same token need not verify it again. Nothing else is taken from the cache: every time
// the key must still be in the key set, and the times, the audience and the revocations are
// checked. Only good tokens are kept, so that nobody can fill the cache without valid
// tokens.
//
// A token is found by a hash that cannot be foreseen from outside, and is then compared as
// a whole, since the hash alone proves nothing.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
}

const cacheShards = 16

// A cacheShard forgets by generations. When the young generation is full it becomes the
// old one, and the former old one is dropped. A token that is found in the old one moves to
// the young one. So tokens in use stay, within a bound, and no list has to be kept in
// order.
type cacheShard struct {
	limit      int          // of each generation
	mu         sync.RWMutex // guards the generations
	young, old map[uint64]*known
}

// A cacheKey is a token and its hash.
type cacheKey struct {
	hash  uint64
	token string
}

// A known token is one that was verified. If it is in the cache, requests share it and get
// copies.
type known struct {
	text  string // the token as it was presented
	token *accesstoken.Token
	ids   revoked.IDs
	key   accesstoken.Key
	set   atomic.Pointer[accesstoken.KeySet] // a key set that has the key; nil: none was checked yet
}

func newCache(size int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].limit = max(1, (size+2*cacheShards-1)/(2*cacheShards))
		c.shards[i].young = map[uint64]*known{}
	}
	return c
}

func (c *cache) keyOf(token string) cacheKey {
	return cacheKey{hash: maphash.String(c.seed, token), token: token}
}

func (c *cache) shard(hash uint64) *cacheShard { return &c.shards[hash%cacheShards] }

// get returns a token that was put, unless it was forgotten or its key is no longer in the
// set.
func (c *cache) get(k cacheKey, set *accesstoken.KeySet) *known {
	s := c.shard(k.hash)
	s.mu.RLock()
	n, young := s.young[k.hash]
	if !young {
		n = s.old[k.hash]
	}
	s.mu.RUnlock()
	switch {
	case n == nil || n.text != k.token:
		return nil
	case !n.keyIn(set):
		s.drop(k.hash)
		return nil
	case !young:
		s.put(k.hash, n)
	}
	return n
}

// put keeps a token that has just been verified. The text is copied, because it may be a
// part of something large.
func (c *cache) put(k cacheKey, n *known) {
	n.text = strings.Clone(k.token)
	c.shard(k.hash).put(k.hash, n)
}

func (c *cache) drop(k cacheKey) { c.shard(k.hash).drop(k.hash) }

func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}

func (s *cacheShard) put(hash uint64, n *known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.young[hash]; !ok && len(s.young) >= s.limit {
		s.old, s.young = s.young, make(map[uint64]*known, s.limit)
	}
	delete(s.old, hash)
	s.young[hash] = n
}

func (s *cacheShard) drop(hash uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.young, hash)
	delete(s.old, hash)
}

// keyIn reports whether the key that verified the token is in the set, under its kid.
func (n *known) keyIn(set *accesstoken.KeySet) bool {
	if set == n.set.Load() {
		return set != nil
	}
	k, ok := set.Key(n.key.ID)
	if !ok || !k.Equal(n.key) {
		return false
	}
	n.set.Store(set)
	return true
}

// ownCopy returns a copy of a token that shares nothing changeable with it.
func ownCopy(t *accesstoken.Token) *accesstoken.Token {
	c := *t
	c.Audience = slices.Clone(t.Audience)
	return &c
}
