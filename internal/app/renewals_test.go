package app

import (
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
)

// One refresh token that many present at once, to all replicas, is spent once: they
// are all given its one successor, and that goes on.
func oneTokenRenewedByMany(t *testing.T, worlds []*world) {
	const callers = 16
	rounds := 2
	if soak() {
		rounds = 20
	}
	worlds[0].user("many")
	g := worlds[0].login("many")
	for range rounds {
		var grants [callers]httpapi.Grant
		var people sync.WaitGroup
		ready, start := make(chan struct{}, callers), make(chan struct{})
		for i := range callers {
			people.Go(func() {
				ready <- struct{}{}
				<-start
				grants[i] = worlds[i%2].insist(g.RefreshToken)
			})
		}
		for range callers {
			<-ready
		}
		close(start)
		people.Wait()
		for i, got := range grants {
			if got.RefreshToken == "" || got.RefreshToken == g.RefreshToken || got.RefreshToken != grants[0].RefreshToken {
				t.Fatalf("caller %d has another successor than the first: %q and %q", i, got.RefreshToken, grants[0].RefreshToken)
			}
			if got.SessionID != g.SessionID {
				t.Errorf("caller %d is in the session %s, not %s", i, got.SessionID, g.SessionID)
			}
			worlds[(i+1)%2].verify(got.AccessToken)
		}
		g = grants[0]
	}
	worlds[1].insist(g.RefreshToken)
}

// insist renews, and tries again when told that this is too often, or to.
func (w *world) insist(token string) (g httpapi.Grant) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		a := w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: token})
		if a.status == 200 {
			return decode[httpapi.Grant](w.t, a)
		}
		if a.status != 429 && a.status != 503 || time.Now().After(deadline) {
			w.t.Errorf("a renewal was answered %d %s", a.status, a.body)
			return g
		}
	}
}
