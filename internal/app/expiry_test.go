package app

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
)

// A token ends with its exp, and in a cluster, whose clocks may differ, that much later.
func TestTokenEndsInTime(t *testing.T) {
	brief := func(c *config.Config) { c.Tokens.TokenDuration = 3 * time.Second }
	check := func(t *testing.T, w *world, forgive time.Duration) {
		token := w.login("admin").AccessToken
		end := w.Expiry(token).Add(forgive)
		time.Sleep(time.Until(end) - time.Nanosecond)
		w.verify(token)
		time.Sleep(time.Nanosecond)
		w.want(w.do("GET", "/api/verify", token, nil), 401, "token_expired")
	}
	t.Run("alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { check(t, newQuietWorld(t, brief), 0) })
	})
	t.Run("in a cluster", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) { check(t, b.join(brief), operator.Leeway) })
	})
}
