package keyring

import "time"

// Ripening is how long a new key is in the key set before it signs, if a key is active
// for keyDuration and a key set may be cached for maxAge. It takes longer if a replica is
// late to read the key.
func Ripening(keyDuration, maxAge time.Duration) time.Duration {
	return policy{keyDuration: keyDuration, maxAge: maxAge}.ripen()
}
