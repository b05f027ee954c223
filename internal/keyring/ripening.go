package keyring

import (
	"time"

	"github.com/watchword-auth/watchword/internal/timing"
)

// Ripening is how long a new key is in the key set before it signs, if a key is active
// for keyDuration and a key set may be cached for maxAge. It takes longer if a replica is
// late to read the key.
func Ripening(keyDuration, maxAge time.Duration) time.Duration {
	return policy{keyDuration: keyDuration, maxAge: maxAge}.ripen()
}

// Following is how long a key that follows another is in the key set before it signs, if
// tokens.key_publish_ahead is ahead.
func Following(keyDuration, maxAge, ahead time.Duration) time.Duration {
	return policy{keyDuration: keyDuration, ahead: max(ahead, maxAge)}.follow()
}

// LongestLife is how long any row may let a key live that is active for keyDuration and signs
// tokens that live for tokenDuration, if a key set may be cached for maxAge and a key that follows another is published
// for ahead before.
func LongestLife(keyDuration, tokenDuration, maxAge, ahead time.Duration) time.Duration {
	return policy{
		keyDuration: keyDuration, tokenDuration: tokenDuration, maxAge: maxAge, ahead: max(ahead, maxAge), leeway: timing.Leeway, patience: timing.Patience,
	}.longest()
}
