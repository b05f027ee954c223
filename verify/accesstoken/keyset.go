package accesstoken

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// MaxKeySetLength bounds what ParseKeySet reads, in bytes: some thousand keys.
const MaxKeySetLength = 1 << 20

// A KeySet is a set of keys, each under its own name. It never changes, so it
// may be shared; the zero value and nil are empty sets.
type KeySet struct {
	keys []Key          // in the order given
	byID map[string]int // index into keys
}

// NewKeySet makes a set of public keys. The same kid twice is an error, and so is a key with
// a secret.
func NewKeySet(keys ...Key) (*KeySet, error) {
	s := &KeySet{keys: slices.Clone(keys), byID: make(map[string]int, len(keys))}
	for i, k := range s.keys {
		if err := checkKeyID(k.ID); err != nil {
			return nil, err
		}
		if k.HasSecret() {
			return nil, errSecret
		}
		if err := k.check(); err != nil {
			return nil, err
		}
		if _, twice := s.byID[k.ID]; twice {
			return nil, fmt.Errorf("key set: the kid %q twice", k.ID)
		}
		s.byID[k.ID] = i
	}
	return s, nil
}

// Key returns the key with that kid.
func (s *KeySet) Key(kid string) (Key, bool) {
	if s == nil {
		return Key{}, false
	}
	i, ok := s.byID[kid]
	if !ok {
		return Key{}, false
	}
	return s.keys[i], true
}

// Find is Key in the form that Rules.Check asks for.
func (s *KeySet) Find(kid string) (Key, error) {
	if k, ok := s.Key(kid); ok {
		return k, nil
	}
	return Key{}, ErrUnknownKey
}

// Keys returns all keys in the order in which they were given.
func (s *KeySet) Keys() []Key {
	if s == nil {
		return nil
	}
	return slices.Clone(s.keys)
}

// Len is the number of keys.
func (s *KeySet) Len() int {
	if s == nil {
		return 0
	}
	return len(s.keys)
}

// MarshalJSON gives the set as a JWK Set (RFC 7517 §5).
func (s *KeySet) MarshalJSON() ([]byte, error) {
	keys := s.Keys()
	if keys == nil {
		keys = []Key{}
	}
	return json.Marshal(struct {
		Keys []Key `json:"keys"`
	}{keys})
}

// ParseKeySet reads a JWK Set. A key that is not for us (another kty, curve,
// algorithm or use, or without kid) is passed over, as RFC 7517 §5 asks; a
// key of ours that is broken, a private key, or one kid for two keys makes the
// whole set an error, so that half a set is never taken for all of it.
func ParseKeySet(data []byte) (*KeySet, error) {
	if len(data) > MaxKeySetLength {
		return nil, fmt.Errorf("key set: longer than %d bytes", MaxKeySetLength)
	}
	m, err := decodeObject(string(data))
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	list, ok := m["keys"].([]any)
	if !ok {
		return nil, errors.New("key set: the member keys is not an array")
	}
	var keys []Key
	seen := make(map[string]Key, len(list))
	for _, v := range list {
		members, ok := v.(map[string]any)
		if !ok {
			return nil, errors.New("key set: a key is not an object")
		}
		k, err := keyFromMembers(members)
		if errors.Is(err, errUnsupported) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("key set: %w", err)
		}
		if first, twice := seen[k.ID]; twice {
			if !first.Equal(k) {
				return nil, fmt.Errorf("key set: the kid %q names two keys", k.ID)
			}
			continue
		}
		seen[k.ID] = k
		keys = append(keys, k)
	}
	return NewKeySet(keys...)
}
