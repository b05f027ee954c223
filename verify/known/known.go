package known

import (
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Tokens are tokens that were verified. Only good tokens are kept, so that nobody can fill
// the memory without valid tokens. A nil *Tokens remembers none.
//
// A token is found by a hash that cannot be foreseen from outside, and is then compared as
// a whole, since the hash alone proves nothing.
type Tokens struct {
	seed   maphash.Seed
	shards [shards]shard
}

const shards = 16

// ordinary is how many bytes of a token count as one token. A longer one counts as several,
// so that the memory is bounded whatever claims tokens have.
const ordinary = 2048

// A shard forgets by generations. When the young generation is full it becomes the old one,
// and the former old one is dropped. A token that is found in the old one moves to the young
// one. So tokens in use stay, within a bound, and no list has to be kept in order.
type shard struct {
	limit      int          // of each generation
	mu         sync.RWMutex // guards what follows
	young, old map[uint64]*Token
	size       int // of the young generation, in ordinary tokens
}

// A Token is one that was verified. Callers share it and do not change it.
type Token struct {
	text  string // as it was presented
	token *accesstoken.Token
	key   accesstoken.Key

	// IDs are those by which the token may be revoked.
	IDs revoked.IDs
}

// New remembers about size tokens, each of which takes some 3 KB.
func New(size int) *Tokens {
	k := &Tokens{seed: maphash.MakeSeed()}
	for i := range k.shards {
		k.shards[i].limit = max(1, (size+2*shards-1)/(2*shards))
		k.shards[i].young = map[uint64]*Token{}
	}
	return k
}

// Check is rules.Check: it accepts the same tokens, and refuses the others with the same
// errors. key is called each time, whether or not the token is remembered. The rules of two
// calls may differ in their issuer, audience and leeway, but in nothing else.
func (k *Tokens) Check(rules *accesstoken.Rules, compact string, now time.Time, key func(kid string) (accesstoken.Key, error)) (*Token, error) {
	if k == nil {
		return check(rules, compact, now, key)
	}
	hash := maphash.String(k.seed, compact)
	s := &k.shards[hash%shards]
	if t := s.get(hash, compact); t != nil {
		known, err := t.recheck(rules, now, key)
		if known && err == nil {
			return t, nil
		}
		s.drop(hash)
		if err != nil {
			return nil, err
		}
	}
	t, err := check(rules, compact, now, key)
	if err != nil {
		return nil, err
	}
	t.text = strings.Clone(compact) // it may be a part of something large
	s.put(hash, t)
	return t, nil
}

// Len returns how many tokens are remembered.
func (k *Tokens) Len() int {
	n := 0
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}

func check(rules *accesstoken.Rules, compact string, now time.Time, find func(kid string) (accesstoken.Key, error)) (*Token, error) {
	var key accesstoken.Key
	t, err := rules.Check(compact, now, func(kid string) (_ accesstoken.Key, err error) {
		key, err = find(kid)
		return key, err
	})
	if err != nil {
		return nil, err
	}
	return &Token{token: t, key: key, IDs: revoked.IDsOf(t)}, nil
}

// recheck reports whether the signature that was verified still counts: it was by the key
// that now has the kid. The error is what rules.Check would say of such a token.
func (t *Token) recheck(rules *accesstoken.Rules, now time.Time, find func(kid string) (accesstoken.Key, error)) (known bool, err error) {
	key, err := find(t.key.ID)
	switch {
	case errors.Is(err, accesstoken.ErrUnknownKey):
		return false, accesstoken.ErrUnknownKey
	case err != nil:
		return false, err
	case key.ID != t.key.ID || !key.Equal(t.key):
		return false, nil
	}
	return true, rules.Recheck(t.token, now)
}

// Own returns a copy of the token that shares nothing changeable with it.
func (t *Token) Own() *accesstoken.Token {
	c := *t.token
	c.Audience, c.AMR = slices.Clone(c.Audience), slices.Clone(c.AMR)
	return &c
}

// Shared returns the token itself, which the caller does not change.
func (t *Token) Shared() *accesstoken.Token { return t.token }

// get returns a token that was put, unless it was forgotten.
func (s *shard) get(hash uint64, text string) *Token {
	s.mu.RLock()
	t, young := s.young[hash]
	if !young {
		t = s.old[hash]
	}
	s.mu.RUnlock()
	if t == nil || t.text != text {
		return nil
	}
	if !young {
		s.put(hash, t)
	}
	return t
}

func (s *shard) put(hash uint64, t *Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(hash)
	if s.size >= s.limit {
		s.old, s.young, s.size = s.young, make(map[uint64]*Token, len(s.young)), 0
	}
	s.young[hash] = t
	s.size += t.size()
}

func (s *shard) drop(hash uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(hash)
}

func (s *shard) dropLocked(hash uint64) {
	delete(s.old, hash)
	if t := s.young[hash]; t != nil {
		delete(s.young, hash)
		s.size -= t.size()
	}
}

func (t *Token) size() int { return 1 + len(t.text)/ordinary }
