package keyring

import "time"

// Ripening is for how long a new key is in the key set before it signs, if the keys
// live so long and a key set may be cached for maxAge. Replicas that are late to
// know it may make it longer.
func Ripening(keyDuration, maxAge time.Duration) time.Duration {
	return policy{keyDuration: keyDuration, maxAge: maxAge}.ripen()
}
