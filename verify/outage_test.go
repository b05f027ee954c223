package verify_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
)

// A client that the Verifier was given has connections of others, too. They are left;
// the Verifier's own requests do not stay with a replica that was of no use.
func TestAGivenClientKeepsItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		closing := &closing{front: f}
		v := start(t, f, func(cfg *verify.Config) { cfg.HTTPClient.Transport = closing })
		settle()
		f.onlyFeed(fail)
		f.broken.Load().cancel()
		time.Sleep(10 * time.Second)
		v.Close()
		if n := closing.times.Load(); n != 0 {
			t.Errorf("its idle connections were closed %d times", n)
		}
		if kept, ended := closing.kept.Load(), closing.ended.Load(); kept > 3 || ended < 3 {
			t.Errorf("%d connections were kept for the next request and %d ended, most of them after a failure", kept, ended)
		}
	})
}

// closing counts the calls to close idle connections, and what becomes of
// the connections on which the feed is asked for.
type closing struct {
	*front
	times, kept, ended atomic.Int64
}

func (c *closing) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case !strings.HasSuffix(r.URL.Path, "/revocations"):
	case r.Close:
		c.ended.Add(1)
	default:
		c.kept.Add(1)
	}
	return c.front.RoundTrip(r)
}

func (c *closing) CloseIdleConnections() { c.times.Add(1) }

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
