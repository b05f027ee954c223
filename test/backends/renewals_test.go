package backends

import (
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// One refresh token that many present at once, to all replicas, is spent once: they
// are all given its one successor, and that goes on.
func oneTokenRenewedByMany(t *testing.T, worlds []*replica.World) {
	const callers = 16
	rounds := 2
	if kit.Soak() {
		rounds = 20
	}
	worlds[0].User("many")
	g := worlds[0].Login("many")
	for range rounds {
		var grants [callers]httpapi.Grant
		var people sync.WaitGroup
		ready, start := make(chan struct{}, callers), make(chan struct{})
		for i := range callers {
			people.Go(func() {
				ready <- struct{}{}
				<-start
				grants[i] = renewed(worlds[i%2], g.RefreshToken)
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
			worlds[(i+1)%2].Verify(got.AccessToken)
		}
		g = grants[0]
	}
	renewed(worlds[1], g.RefreshToken)
}

// renewed renews, and tries again after a 429 or a 503.
func renewed(w *replica.World, token string) (g httpapi.Grant) {
	for deadline := time.Now().Add(kit.Patience); ; time.Sleep(10 * time.Millisecond) {
		a := w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: token})
		if a.Status == 200 {
			return kit.Decode[httpapi.Grant](w.T, a)
		}
		if a.Status != 429 && a.Status != 503 || time.Now().After(deadline) {
			w.T.Errorf("a renewal was answered %d %s", a.Status, a.Body)
			return g
		}
	}
}
