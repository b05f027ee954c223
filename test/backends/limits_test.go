package backends

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// long is the time of a rate of which nothing comes back during a test.
const long = 24 * time.Hour

// behindProxies has replicas believe the addresses that attempt writes, and share a key.
func behindProxies(cfg *config.Config) {
	kit.StoredKeys(cfg)
	cfg.Server.TrustedProxies = []string{"127.0.0.1"}
	cfg.Password.Queue = 1000
	cfg.Sessions.MaxPerUser = 1000
	cfg.Database.MaxConnections = 4 // of which the server has two hundred for all tests
}

// countingReplicas starts replicas over a shared state that is named as in backends. They
// have no network, which costs tests of many requests more than all else.
func countingReplicas(t *testing.T, state string, n int, change func(*config.Config)) (worlds []*replica.World) {
	t.Helper()
	database, backend := backends[state](t)
	for range n {
		worlds = append(worlds, replica.JoinWith(t, database, replica.Options{Quiet: true}, func(cfg *config.Config) {
			backend(cfg)
			behindProxies(cfg)
			cfg.Database.AcquireTimeout = config.MaxAcquireTimeout // hundreds wait
			change(cfg)
		}))
	}
	return worlds
}

// attempt is a login that comes from an address.
func attempt(w *replica.World, address, username, password string) kit.Answer {
	w.T.Helper()
	r := w.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: username, Password: password})
	r.Header.Set("X-Forwarded-For", address)
	return w.Send(r)
}

// patient is an attempt that is made again where a busy machine answers 503. The one before may
// have been counted.
func patient(w *replica.World, address, username, password string) kit.Answer {
	w.T.Helper()
	return kit.Patiently(func() kit.Answer { return attempt(w, address, username, password) }, func(a kit.Answer) int { return a.Status })
}

// refused reports whether an answer refuses an attempt because there were too many.
func refused(t *testing.T, a kit.Answer) bool {
	t.Helper()
	if a.Status != 429 {
		return false
	}
	if a.Code() != "too_many_attempts" || a.Header.Get("Retry-After") == "" {
		t.Errorf("429 %v %s", a.Header, a.Body)
	}
	return true
}

// causes are why attempts were answered 503, and how often.
func causes(worlds []*replica.World) map[string]int {
	why := map[string]int{}
	for _, w := range worlds {
		for line := range strings.Lines(w.Log.String()) {
			if _, err, found := strings.Cut(line, `"msg":"request refused",`); found {
				why[err]++
			}
		}
	}
	return why
}

// A flood is many attempts at the same time, of clients that each choose another replica
// every time.
type flood struct {
	clients int
	tries   int
	seed    uint64
}

// run makes the attempts, numbered from first on.
func (f flood) run(worlds []*replica.World, first int, attempt func(w *replica.World, i int)) {
	var clients sync.WaitGroup
	var next atomic.Int64
	for client := range f.clients {
		clients.Go(func() {
			choose := rand.New(rand.NewPCG(f.seed, uint64(client)))
			for {
				i := int(next.Add(1)) - 1
				if i >= f.tries {
					return
				}
				attempt(worlds[choose.IntN(len(worlds))], first+i)
			}
		})
	}
	clients.Wait()
}

// The rates are low: what is proved happens at the last attempt that passes, with dozens beside it.
const (
	perAddress = 50
	perAccount = 20
)

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// An entrance is where attempts are made that share one bound.
type entrance struct {
	name     string
	replicas int
	limit    int
	answer   int // to an attempt that passes
	// try makes an attempt. All have the address or the account in common.
	try func(w *replica.World, i int) kit.Answer

	passed, unknown atomic.Int64
}

// entrances are where many try at several replicas, each from an address or for an account that
// is used nowhere else. User k is for the k-th of them alone, and eight users are for all.
func entrances(worlds []*replica.World) (list []*entrance) {
	add := func(replicas int, byAccount bool, what string, answer int, username func(k, i int) string, try func(w *replica.World, address, username string) kit.Answer) {
		k := len(list) + 1
		if replicas > len(worlds) {
			return
		}
		e := &entrance{name: "by address, " + what, replicas: replicas, limit: perAddress, answer: answer}
		e.try = func(w *replica.World, i int) kit.Answer { return try(w, fmt.Sprintf("192.0.2.%d", k), username(k, i)) }
		if byAccount {
			e.name, e.limit = "by account, "+what, perAccount
			e.try = func(w *replica.World, i int) kit.Answer {
				return try(w, fmt.Sprintf("10.%d.%d.%d", k, i/250, i%250), username(k, 0))
			}
		}
		list = append(list, e)
	}
	several := func(_, i int) string { return fmt.Sprintf("user%d", i%8) }
	own := func(k, _ int) string { return fmt.Sprintf("user-of-%d", k) }
	nobody := func(k, i int) string { return fmt.Sprintf("nobody-%d-%d", k, i) }
	login := func(password string) func(w *replica.World, address, username string) kit.Answer {
		return func(w *replica.World, address, username string) kit.Answer {
			if rand.IntN(2) == 0 { // all spellings of a name are one account
				username = strings.ToUpper(username)
			}
			return attempt(w, address, username, password)
		}
	}
	var once sync.Mutex
	tokens := map[string]string{} // by username
	token := func(username string) string {
		once.Lock()
		defer once.Unlock()
		if tokens[username] == "" {
			tokens[username] = kit.Decode[httpapi.Grant](worlds[0].T, attempt(worlds[0], "198.51.100.1", username, kit.Password)).AccessToken
		}
		return tokens[username]
	}
	verify := func(w *replica.World, address, username string) kit.Answer {
		r := w.Request("GET", "/api/verify", token(username), nil)
		r.Header.Set("X-Forwarded-For", address)
		return w.Send(r)
	}
	for _, replicas := range []int{1, 3, 5} {
		most := replicas == 3 || kit.Soak()
		if most {
			add(replicas, false, "wrong passwords", 401, several, login("wrong"))
			add(replicas, false, "right passwords", 200, several, login(kit.Password))
			add(replicas, true, "right passwords", 200, own, login(kit.Password))
			add(replicas, true, "names that do not exist", 401, nobody, login(kit.Password))
			add(replicas, false, "GET /api/verify", 200, several, verify)
			add(replicas, true, "GET /api/verify", 200, own, verify)
		}
		if most || replicas == 1 {
			add(replicas, false, "names that do not exist", 401, nobody, login(kit.Password))
		}
		add(replicas, true, "wrong passwords", 401, own, login("wrong"))
	}
	return list
}

// However many clients try, at however many replicas, and though all replicas begin anew in the
// middle, no more attempts pass than the rate allows, and no fewer.
func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	rates := func(cfg *config.Config) {
		rates := config.Limit{PerAddress: config.Rate{Count: perAddress, Per: long}, PerAccount: config.Rate{Count: perAccount, Per: long}}
		cfg.Limits.Login, cfg.Limits.API = rates, rates
	}
	sqlite := func(t *testing.T) []*replica.World {
		url := "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
		return []*replica.World{replica.NewWith(t, replica.Options{Quiet: true}, func(cfg *config.Config) {
			cfg.Database.URL = url
			behindProxies(cfg)
			rates(cfg)
		})}
	}
	replicas := 3
	if kit.Soak() {
		replicas = 5
	}
	shared := func(state string) func(t *testing.T) []*replica.World {
		return func(t *testing.T) []*replica.World { return countingReplicas(t, state, replicas, rates) }
	}
	for name, start := range map[string]func(t *testing.T) []*replica.World{
		"sqlite": sqlite, "postgres": shared("postgres"), "mariadb": shared("mariadb"), "redis": shared("redis"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exact(t, name, start(t))
		})
	}
}

func exact(t *testing.T, store string, worlds []*replica.World) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	list := entrances(worlds)
	for i := range 8 {
		worlds[0].User(fmt.Sprintf("user%d", i))
	}
	for k := range list {
		worlds[0].User(fmt.Sprintf("user-of-%d", k+1))
	}
	const clients = 64
	halves := func(half int) {
		for _, e := range list {
			f := flood{clients, e.limit * 6 / 10, seed + uint64(half)}
			f.run(worlds[:e.replicas], half*f.tries, func(w *replica.World, i int) {
				a := e.try(w, i)
				switch {
				case refused(t, a):
				case a.Status == e.answer:
					e.passed.Add(1)
				case a.Status == 503 && a.Header.Get("Retry-After") != "": // by a busy machine
					e.unknown.Add(1)
				default:
					t.Errorf("%s: %d %s", e.name, a.Status, a.Body)
				}
			})
		}
	}
	halves(0)
	for _, w := range worlds {
		w.Restart()
	}
	halves(1)
	if why := causes(worlds); len(why) > 0 {
		t.Logf("answered 503: %v", why)
	}
	for _, e := range list {
		passed, unknown := int(e.passed.Load()), int(e.unknown.Load())
		t.Logf("summary: limits: %d clients, %s, limit %d: %d passed (%s, %s)", clients, count(e.replicas, "replica"), e.limit, passed, store, e.name)
		if passed > e.limit || passed+unknown < e.limit {
			t.Errorf("%s, %d replicas: %d passed, and not %d; %d were answered 503", e.name, e.replicas, passed, e.limit, unknown)
		}
	}
}
