package backends

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// One password is tried at 400 accounts from 20 addresses, so that neither an account nor an
// address fails often. The cluster notices, and addresses that have never succeeded have to
// wait. Users who have signed in before do not, from where they did; and a newcomer's first
// attempt is no failure yet.
func TestSpraying(t *testing.T) {
	t.Parallel()
	worlds := countingReplicas(t, "redis", 3, func(cfg *config.Config) {
		cfg.Limits.Spray, cfg.Limits.Lockout = config.Default().Limits.Spray, config.Default().Limits.Lockout
		cfg.Limits.Spray.Total = config.Rate{Count: 75, Per: 5 * time.Minute}
	})
	limits := worlds[0].Config.Limits.Spray
	for _, user := range []string{"regular", "newcomer"} {
		worlds[0].User(user)
	}
	worlds[0].Want(patient(worlds[0], "198.51.100.1", "regular", kit.Password), 200, "")
	const accounts, addresses, clients = 400, 20, 32
	seed, began := rand.Uint64(), time.Now()
	var checked, unknown atomic.Int64
	flood{clients: clients, tries: accounts, seed: seed}.run(worlds, 0, func(w *replica.World, i int) {
		a := attempt(w, fmt.Sprintf("192.0.2.%d", i%addresses), fmt.Sprintf("account%d", i), "Summer2026!")
		switch {
		case refused(t, a):
		case a.Code() == "invalid_credentials":
			checked.Add(1)
		case a.Status == 503 && a.Header.Get("Retry-After") != "": // of a busy machine; it may have been counted
			unknown.Add(1)
		default:
			t.Errorf("%d %s", a.Status, a.Body)
		}
	})
	// What came back meanwhile, and what was under way when a replica noticed.
	most := limits.Total.Count + int(time.Since(began)/(limits.Total.Per/time.Duration(limits.Total.Count))) + 1 + clients + len(worlds)
	t.Logf("summary: limits: one password at %d accounts from %d addresses, 3 replicas: %d checked (seed %d)", accounts, addresses, checked.Load(), seed)
	if n := int(checked.Load()); n+int(unknown.Load()) < limits.Total.Count || n > most {
		t.Errorf("%d were checked, and not from %d to %d; %d were answered 503", n, limits.Total.Count, most, unknown.Load())
	}
	noticed := 0
	for i, w := range worlds {
		if n := w.Metric("watchword_limit_spraying"); n != 1 {
			t.Errorf("replica %d: watchword_limit_spraying is %v", i, n)
		}
		noticed += strings.Count(w.Log.String(), "many logins fail from addresses from which their users do not sign in")
		for range 3 {
			w.Want(patient(w, "198.51.100.1", "regular", kit.Password), 200, "")
		}
		w.Want(patient(w, "192.0.2.1", "newcomer", kit.Password), 429, "too_many_attempts")
		w.Want(patient(w, fmt.Sprintf("198.51.100.%d", 10+i), "newcomer", kit.Password), 200, "")
	}
	if noticed != 1 {
		t.Errorf("the logs say it %d times", noticed)
	}
	admin := kit.Decode[struct {
		Token string `json:"access_token"`
	}](t, worlds[0].Want(patient(worlds[0], "198.51.100.2", "admin", kit.Password), 200, "")).Token
	trail := func() int { return len(worlds[0].Trail(admin, url.Values{"action": {"spraying"}})) }
	worlds[0].Await("an entry in the audit trail", func() bool { return trail() > 0 })
	if n := trail(); n != 1 {
		t.Errorf("the audit trail says it %d times", n)
	}
}
