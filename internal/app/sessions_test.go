package app

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
)

// One sign-in too many ends the oldest, wherever it was begun.
func TestMaxPerUserOverReplicas(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		limited := func(cfg *config.Config) { cfg.Sessions.MaxPerUser = 3 }
		worlds := []*world{b.join(limited), b.join(limited)}
		var grants []httpapi.Grant
		for i := range 5 {
			grants = append(grants, worlds[i%2].login("admin"))
		}
		time.Sleep(worlds[0].cfg.Revocation.Poll + time.Millisecond)
		for i, g := range grants {
			for _, w := range worlds {
				if i < 2 {
					w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
				} else {
					w.verify(g.AccessToken)
				}
			}
		}
	})
}
