package verify_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
)

// The revocation of a stolen signing key is kept for a day. By then a resource server
// that cannot fetch the key set any more, and so does not know that the key has left
// it, uses the set no longer.
func TestAnOldKeySetIsGivenUp(t *testing.T) {
	for name, size := range map[string]int{"with a cache": 0, "without": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				v := start(t, f, func(cfg *verify.Config) {
					cfg.CacheSize, cfg.WithoutRevocations = size, true // a feed would cost a day of heartbeats
				})
				expect(t, v, f.issuer.Token("u", nil), nil)
				f.onlyKeys(fail)
				time.Sleep(24*time.Hour - time.Minute)
				token := f.issuer.Token("u", nil)
				expect(t, v, token, nil) // an outage is survived
				time.Sleep(time.Minute + 1)
				expect(t, v, token, verify.ErrKeysUnavailable)
				if s := v.Status(); s.Keys != 0 {
					t.Errorf("%d keys are used", s.Keys)
				}
				f.answer(nil)
				time.Sleep(time.Minute)
				expect(t, v, token, nil)
			})
		})
	}
}
