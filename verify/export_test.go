package verify

// Cached is how many verified tokens are remembered.
func (v *Verifier) Cached() int { return v.cache.len() }

// Remembers says whether the token is among them.
func (v *Verifier) Remembers(token string) bool {
	return v.cache.get(cacheKeyOf(token), v.keys.current()) != nil
}

// Unknown is how many kids are remembered as unknown.
func (v *Verifier) Unknown() int {
	v.keys.mu.Lock()
	defer v.keys.mu.Unlock()
	return len(v.keys.unknown)
}
