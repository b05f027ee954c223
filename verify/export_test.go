package verify

// Cached is how many verified tokens are remembered.
func (v *Verifier) Cached() int { return v.known.Len() }

// Unknown is how many kids are remembered as unknown.
func (v *Verifier) Unknown() int {
	v.keys.mu.Lock()
	defer v.keys.mu.Unlock()
	return len(v.keys.unknown)
}
