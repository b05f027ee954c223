package backends

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// accountRate is how many attempts of a lockout's test one account may have.
const accountRate = 40

// guesses is how many guesses are made at once: several times as many as the replicas have
// connections to a database together.
func guesses() int {
	if kit.Soak() {
		return 500
	}
	return 120
}

// TestLockouts has what three replicas lock together, over each kind of shared state in which
// attempts are counted.
func TestLockouts(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"postgres", "mariadb", "redis"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			worlds := countingReplicas(t, state, 3, func(cfg *config.Config) {
				cfg.Limits.Login.PerAccount = config.Rate{Count: accountRate, Per: long}
				cfg.Limits.Lockout = config.Default().Limits.Lockout
				cfg.Limits.Lockout.AfterAll = 20
				cfg.Limits.Lockout.Delay = cfg.Limits.Lockout.Max // so that no attempt passes later in the test
			})
			t.Run("guesses at once", func(t *testing.T) { guessesAtOnce(t, state, worlds) })
			t.Run("strangers", func(t *testing.T) { strangersLockNobodyOut(t, worlds) })
			if why := causes(worlds); len(why) > 0 {
				t.Logf("answered 503: %v", why)
			}
		})
	}
}

// lockedAttempts is how many attempts the replicas have locked so far.
func lockedAttempts(worlds []*replica.World) (n float64) {
	for _, w := range worlds {
		n += w.Metric("watchword_limit_locked_attempts_total")
	}
	return n
}

// guess makes attempts with a wrong password, so many at once. It returns how many were not
// refused, of how many of them the password was checked, and how many a busy machine answered
// 503, which may have been counted.
func guess(t *testing.T, worlds []*replica.World, atOnce, tries int, username string, address func(i int) string) (passed, checked, unknown int) {
	t.Helper()
	before := lockedAttempts(worlds)
	var n, u atomic.Int64
	flood{clients: atOnce, tries: tries, seed: rand.Uint64()}.run(worlds, 0, func(w *replica.World, i int) {
		a := attempt(w, address(i), username, "wrong")
		switch {
		case refused(t, a):
		case a.Code() == "invalid_credentials":
			n.Add(1)
		case a.Status == 503 && a.Header.Get("Retry-After") != "":
			u.Add(1)
		default:
			t.Errorf("%d %s", a.Status, a.Body)
		}
	})
	passed = int(n.Load())
	return passed, passed - int(lockedAttempts(worlds)-before), int(u.Load())
}

// Of many guesses at the same moment no more are checked than the lockout allows, and no more
// are answered than the rate allows. After them the right password gets what a wrong one gets.
func guessesAtOnce(t *testing.T, state string, worlds []*replica.World) {
	limits := worlds[0].Config.Limits.Lockout
	for k, one := range []struct {
		from    string
		address func(i int) string
		after   int
	}{
		{"one address", func(int) string { return "192.0.2.1" }, limits.After},
		{"as many addresses", func(i int) string { return fmt.Sprintf("10.1.%d.%d", i/250, i%250) }, limits.AfterAll},
	} {
		if k > 0 && state != "redis" && !kit.Soak() { // they differ in nothing but who waits for whom
			break
		}
		username := fmt.Sprintf("guessed-%d", k)
		if k == 0 { // the other does not exist
			worlds[0].User(username)
		}
		passed, checked, unknown := guess(t, worlds, guesses(), guesses(), username, one.address)
		t.Logf("summary: limits: %d guesses at once from %s, 3 replicas, limit %d, lockout after %d: %d passed, %d checked (%s)",
			guesses(), one.from, accountRate, one.after, passed, checked, state)
		if passed > accountRate || checked > one.after || passed+unknown < accountRate || checked+unknown < one.after {
			t.Errorf("%d guesses from %s: %d passed, and not %d; %d were checked, and not %d; %d were answered 503",
				guesses(), one.from, passed, accountRate, checked, one.after, unknown)
		}
	}
	// Without having used up the rate.
	worlds[0].User("quarry")
	if _, checked, _ := guess(t, worlds, 1, limits.After+3, "quarry", func(int) string { return "192.0.2.2" }); checked > limits.After {
		t.Errorf("%d were checked", checked)
	}
	for _, w := range worlds {
		wrong, right := patient(w, "192.0.2.2", "quarry", "wrong"), patient(w, "192.0.2.2", "quarry", kit.Password)
		w.Want(wrong, 401, "invalid_credentials")
		if right.Status != wrong.Status || string(right.Body) != string(wrong.Body) {
			t.Errorf("a wrong password: %d %s; the right one: %d %s", wrong.Status, wrong.Body, right.Status, right.Body)
		}
		w.Want(patient(w, "192.0.2.3", "quarry", kit.Password), 200, "") // the user, from elsewhere
	}
}

// Strangers use up the rate of an account and lock it. The user goes on signing in from where the
// user has signed in before, and waits as the strangers do from elsewhere, until an
// administrator lifts it.
func strangersLockNobodyOut(t *testing.T, worlds []*replica.World) {
	const home, cafe = "192.0.2.10", "192.0.2.11"
	stranger := func(i int) string { return fmt.Sprintf("10.2.%d.%d", i/250, i%250) }
	for _, one := range []struct {
		username string
		tries    int
		code     string // of the right password from elsewhere
	}{
		{"locked", worlds[0].Config.Limits.Lockout.AfterAll + 10, "invalid_credentials"},
		{"exhausted", accountRate + 20, "too_many_attempts"},
	} {
		worlds[0].User(one.username)
		worlds[0].Want(patient(worlds[0], home, one.username, kit.Password), 200, "")
		tries := one.tries
		worlds[0].Await("an answer to each guess", func() bool { // what was answered 503 may not have been counted
			_, _, tries = guess(t, worlds, 8, tries, one.username, stranger)
			return tries == 0
		})
		for _, w := range worlds {
			if a := patient(w, cafe, one.username, kit.Password); a.Code() != one.code {
				t.Errorf("%s, from elsewhere: %d %s", one.username, a.Status, a.Body)
			}
			for range 3 {
				w.Want(patient(w, home, one.username, kit.Password), 200, "")
			}
			w.Want(patient(w, home, one.username, "wrong"), 401, "invalid_credentials")
			w.Want(patient(w, home, one.username, kit.Password), 200, "")
		}
		// An administrator helps, at one replica. Each may remember a refusal for a second.
		admin := kit.Decode[httpapi.Grant](t, worlds[0].Want(patient(worlds[0], "198.51.100.1", "admin", kit.Password), 200, "")).AccessToken
		worlds[0].Want(worlds[0].Do("DELETE", "/api/limits/accounts/"+one.username, admin, nil), 204, "")
		for _, w := range worlds {
			w.Await("a login from elsewhere", func() bool { return attempt(w, cafe, one.username, kit.Password).Status == 200 })
		}
	}
}
