package verify

// Cached is how many verified tokens are remembered.
func (v *Verifier) Cached() int { return v.cache.len() }
