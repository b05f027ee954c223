package app

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
)

// While clients from many networks keep the queue of hashes full, those beyond it are
// answered 503 with Retry-After, and verifications and renewals do not wait for hashes: all
// of them together take less time than half as many hashes as there were if each waited in
// the queue. Counted in hashes, the bound is the same on a slow machine.
func TestALoginStormStarvesNoVerification(t *testing.T) {
	const queue, clients, probes = 16, 40, 20
	w := newWorld(t, func(cfg *config.Config) {
		cfg.Server.TrustedProxies = []string{"127.0.0.1/32"}
		cfg.Password.Memory, cfg.Password.Workers, cfg.Password.Queue = 8<<10, 0, queue
	})
	w.user("tester")
	grant := w.login("tester")
	var computed, refused atomic.Int64
	ctx, end := context.WithCancel(t.Context())
	var storm sync.WaitGroup
	for i := range clients {
		storm.Go(func() {
			for n := 0; ctx.Err() == nil; n++ { // each time another client and account
				r := w.request("POST", "/api/login", "", httpapi.LoginRequest{Username: fmt.Sprint("nobody", i, "-", n), Password: "wrong"})
				r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", i, n/256, n%256))
				switch a := w.send(r); {
				case a.status == 401:
					computed.Add(1)
				case a.code() == "login_busy" && a.status == 503 && a.header.Get("Retry-After") == "1":
					refused.Add(1)
					time.Sleep(50 * time.Millisecond) // less than Retry-After, and no busy loop
				default:
					t.Errorf("the storm is answered %d %s, %v", a.status, a.body, a.header)
					return
				}
			}
		})
	}
	w.await("the queue is full", func() bool { return refused.Load() >= clients })
	before := computed.Load()
	for range probes {
		w.accepts(grant.AccessToken)
		next, a := w.renew(grant.RefreshToken)
		w.want(a, 200, "")
		grant.RefreshToken = next
	}
	meanwhile := computed.Load() - before
	end()
	storm.Wait()
	t.Logf("%d verifications and as many renewals took as long as %d hashes", probes, meanwhile)
	if meanwhile > probes*queue {
		t.Errorf("%d verifications and as many renewals took as long as %d hashes", probes, meanwhile)
	}
}
