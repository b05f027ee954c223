// Package subscribers has a hundred resource servers follow one replica's feed, and
// measures how soon each of them refuses what was revoked.
package subscribers

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/watchword-auth/watchword/test/node"
	"github.com/watchword-auth/watchword/verify"
)

func TestMain(m *testing.M) {
	// A goroutine that waits for a server of testenv waits until the end of the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait"))
}

const (
	servers = 100
	// aim is what most of them keep on a busy machine, too, as long as the
	// stream brings them the news. What all of them keep is the bound that verify promises.
	aim = 250 * time.Millisecond
)

func TestARevocationReachesAHundredResourceServers(t *testing.T) {
	rounds := 4
	if os.Getenv("WATCHWORD_SOAK") != "" {
		rounds = 20
	}
	n := node.Start(t)
	verifiers := make([]*verify.Verifier, servers)
	for i := range verifiers {
		v, err := verify.New(verify.Config{Issuer: n.URL, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		verifiers[i] = v
	}
	admin := n.Login("admin").AccessToken
	for _, v := range verifiers {
		awaitAccepted(t, v, admin)
	}

	var took []time.Duration
	for range rounds {
		token := n.Login("tester").AccessToken
		for _, v := range verifiers {
			awaitAccepted(t, v, token)
		}
		n.Do("POST", "/api/revocations", admin, fmt.Sprintf(`{"token":%q}`, token), 200)
		answered := time.Now()
		took = append(took, refusals(t, verifiers, token, answered, verify.DefaultMaxStaleness)...)
	}
	slices.Sort(took)
	at := func(share float64) time.Duration {
		return took[int(share*float64(len(took)-1))].Round(100 * time.Microsecond)
	}
	t.Logf("%d revocations, %d resource servers: refused after p50 %v, p99 %v, max %v", rounds, servers, at(0.5), at(0.99), at(1))
	if at(0.5) > aim {
		t.Errorf("half of them took %v and longer, the aim is %v", at(0.5), aim)
	}
	for _, v := range verifiers {
		awaitAccepted(t, v, admin) // it is fresh
		if s := v.Status(); s.Revocations < rounds {
			t.Errorf("in the end a server knows %+v", s)
		}
	}
}

// awaitAccepted waits until a good token is accepted; on a busy machine a server may have
// heard nothing for too long, and says so.
func awaitAccepted(t *testing.T, v *verify.Verifier, token string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		_, err := v.Verify(t.Context(), token)
		if err == nil {
			return
		}
		if !errors.Is(err, verify.ErrStale) && !errors.Is(err, verify.ErrKeysUnavailable) || time.Now().After(deadline) {
			t.Fatalf("a good token is refused: %v", err)
		}
	}
}

// refusals is how long after it was answered each of them refused the token.
func refusals(t *testing.T, verifiers []*verify.Verifier, token string, answered time.Time, bound time.Duration) []time.Duration {
	took := make([]time.Duration, len(verifiers))
	var wg sync.WaitGroup
	for i, v := range verifiers {
		wg.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for {
				asked := time.Since(answered)
				_, err := v.Verify(t.Context(), token)
				took[i] = time.Since(answered)
				if errors.Is(err, verify.ErrRevoked) {
					return
				}
				late := err == nil && asked > bound || asked > time.Minute
				if late || err != nil && !errors.Is(err, verify.ErrStale) {
					t.Errorf("server %d, after %v: %v", i, asked, err)
					return
				}
				<-tick.C
			}
		})
	}
	wg.Wait()
	return took
}
