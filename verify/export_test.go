package verify

// Cached is how many verified tokens are remembered.
func (v *Verifier) Cached() int { return v.cache.len() }

// Remembers reports whether the token is among them.
func (v *Verifier) Remembers(token string) bool {
	return v.cache.get(v.cache.keyOf(token), v.keys.current()) != nil
}

// TakesFor reports whether the cache takes another token for one that it knows, if their
// hashes are the same.
func (v *Verifier) TakesFor(known, other string) bool {
	k := v.cache.keyOf(known)
	k.token = other
	return v.cache.get(k, v.keys.current()) != nil
}

// Unknown is how many kids are remembered as unknown.
func (v *Verifier) Unknown() int {
	v.keys.mu.Lock()
	defer v.keys.mu.Unlock()
	return len(v.keys.unknown)
}
