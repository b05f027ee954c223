package factors

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A login with a backup code is two steps, each on one thing of its own: it spends the code, and
// then it ends its mfa_token. A use is one of these steps.
type use struct {
	thing string // which code or token
	token int    // with which the code is presented; of a token 0
}

// A found is what a step found, as far as the answer tells.
type found int

const (
	took     found = iota // it was there, and is not any more
	there                 // it was there
	gone                  // it was spent before: a code by another token
	perhaps               // it was taken, or nothing was done
	whenever              // it failed, so that it may be taken at any time later
)

// register is a code or a token: it is there until one takes it. Its state is the set of what it may be:
// bit 0 stands for being there, bit n+1 for having been taken by n. By whom a code was taken may
// take it once more, because its token is taken only once.
func register() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
			at := map[string]int{}
			for _, op := range history {
				thing := op.Input.(use).thing
				if _, ok := at[thing]; !ok {
					at[thing] = len(parts)
					parts = append(parts, nil)
				}
				parts[at[thing]] = append(parts[at[thing]], op)
			}
			return parts
		},
		Init: func() any { return uint64(1) },
		Step: func(s, input, output any) (bool, any) {
			may, u := s.(uint64), input.(use)
			mine := uint64(1) << (u.token + 1)
			again := mine
			if strings.HasPrefix(u.thing, "token") {
				again = 0
			}
			switch output.(found) {
			case took:
				if may&(1|again) == 0 {
					return false, may
				}
				may = mine
			case there:
				may &= 1
			case gone:
				may &^= 1 | again
			case perhaps, whenever:
				if may&1 != 0 {
					may |= mine
				}
			}
			return may != 0, may
		},
	}
}

// The model refuses what must not happen.
func TestRegister(t *testing.T) {
	step := func(at int64, token int, thing string, f found) porcupine.Operation {
		op := porcupine.Operation{Input: use{thing, token}, Call: at, Output: f, Return: at + 1}
		if f == whenever {
			op.Return = math.MaxInt64
		}
		return op
	}
	for name, one := range map[string]struct {
		history []porcupine.Operation
		right   bool
	}{
		"a code once":                          {[]porcupine.Operation{step(0, 1, "code", took), step(10, 2, "code", gone)}, true},
		"a code twice":                         {[]porcupine.Operation{step(0, 1, "code", took), step(10, 2, "code", took)}, false},
		"a code by the same token":             {[]porcupine.Operation{step(0, 1, "code", took), step(10, 1, "code", took)}, true},
		"a code that nobody used":              {[]porcupine.Operation{step(0, 1, "code", gone), step(10, 2, "code", took)}, false},
		"a code that failed and was used":      {[]porcupine.Operation{step(0, 1, "code", whenever), step(10, 2, "code", gone)}, true},
		"a code that failed and was not":       {[]porcupine.Operation{step(0, 1, "code", whenever), step(10, 2, "code", took), step(20, 1, "code", gone)}, true},
		"a code that failed, taken by another": {[]porcupine.Operation{step(0, 1, "code", whenever), step(10, 2, "code", took), step(20, 1, "code", took)}, false},
		"a token once":                         {[]porcupine.Operation{step(0, 0, "token", there), step(10, 0, "token", took), step(20, 0, "token", gone)}, true},
		"a token twice":                        {[]porcupine.Operation{step(0, 0, "token", took), step(10, 0, "token", took)}, false},
		"a token that came back":               {[]porcupine.Operation{step(0, 0, "token", took), step(10, 0, "token", there)}, false},
		"a token that failed and was used":     {[]porcupine.Operation{step(0, 0, "token", whenever), step(10, 0, "token", gone)}, true},
		"a token that failed and was not":      {[]porcupine.Operation{step(0, 0, "token", whenever), step(10, 0, "token", took)}, true},
		"a token that nobody used":             {[]porcupine.Operation{step(0, 0, "token", gone)}, false},
	} {
		if got := porcupine.CheckOperations(register(), one.history); got != one.right {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// linked starts replicas, each with a link of its own to the server whose name a fault is to
// cut off.
func linked(t *testing.T, name string) (c *cluster, links []*testenv.Link) {
	t.Helper()
	database, change := backends[name].open(t)
	c = startOn(t, name, 0, database, change)
	if name == "sqlite" {
		return startOn(t, name, 1, database, change), nil
	}
	for i := range 3 {
		configure := func(cfg *config.Config) {
			settings(cfg)
			change(cfg)
			cfg.Database.AcquireTimeout = config.Default().Database.AcquireTimeout
		}
		url := database
		if name == "redis" && i > 0 { // of one the database is cut off
			inner := configure
			configure = func(cfg *config.Config) {
				inner(cfg)
				var l *testenv.Link
				l, cfg.Redis.URL = replica.Link(t, cfg.Redis.URL)
				links = append(links, l)
			}
		} else {
			var l *testenv.Link
			l, url = replica.Link(t, database)
			links = append(links, l)
		}
		c.worlds = append(c.worlds, replica.JoinWith(t, url, replica.Options{Quiet: true}, configure))
	}
	return c, links
}

// Whatever order logins with few codes and few tokens come in, through whichever replicas, and
// though connections break while answers are under way: each code and each token is accepted
// once. What failed may have been spent.
func TestUsesAreLinearizable(t *testing.T) {
	t.Parallel()
	for name := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, links := linked(t, name)
			rounds := 5
			if kit.Soak() {
				rounds = 100
			}
			p := c.person(app)
			steps, failed, accepted := 0, 0, 0
			for round := range rounds {
				p.makeCodes(c)
				c.want(c.do(round, "POST", "/api/mfa/backup-codes/confirm", p.token, httpapi.Code{Code: p.codes[0]}), 200, "")
				h := &history{c: c, p: p, seed: rand.Uint64(), tokens: c.begins(p, historyTokens)}
				var fault testenv.Fault
				switch round % 5 {
				case 1, 2:
					fault.HoldDown = true // done, and not answered
				case 3, 4:
					fault.HoldUp = true // not done
				}
				if links == nil {
					h.run(nil, testenv.Fault{})
				} else {
					h.run(links[round%3], fault)
				}
				if got := porcupine.CheckOperationsTimeout(register(), h.steps, kit.Patience); got != porcupine.Ok {
					t.Errorf("round %d, seed %d, %+v: %s: %+v", round, h.seed, fault, got, h.steps)
				}
				steps += len(h.steps)
				failed += h.failed
				accepted += h.accepted
			}
			t.Logf("summary: mfa: %d steps of logins with %d codes and %d tokens through %s are linearizable (%s): %d logins failed while a connection was cut, %d accepted",
				steps, rounds*len(p.codes), rounds*historyTokens, c.replicas(), name, failed, accepted)
			if accepted == 0 || (failed == 0) != (links == nil) {
				t.Errorf("%d failed and %d were accepted", failed, accepted)
			}
		})
	}
}

const (
	historyTries  = 8 // of each client
	historyTokens = 2 * historyTries
)

// A history is what happened to the codes and tokens of a user.
type history struct {
	c      *cluster
	p      *person
	seed   uint64
	tokens []string

	clock            atomic.Int64
	mu               sync.Mutex
	steps            []porcupine.Operation
	failed, accepted int
}

// run has clients log in. In the middle a link has a fault while some logins begin, and then its
// connections are cut. At the end each code is presented once more, with a token of which it is
// the only one.
func (h *history) run(link *testenv.Link, fault testenv.Fault) {
	const clients = 6
	h.c.t.Helper()
	mended, begun := make(chan struct{}), make(chan struct{}, clients*historyTries)
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			random := rand.New(rand.NewPCG(h.seed, uint64(client)))
			for try := range historyTries {
				begun <- struct{}{}
				// Clients have the same tokens at about the same time.
				if !h.login(client, random.IntN(len(h.c.worlds)), random.IntN(len(h.p.codes)), 2*try+random.IntN(2)) {
					<-mended
				}
			}
		})
	}
	// A login that holds a lock of the database behind the link may stop all clients.
	after := func(logins int) {
		for patience := time.After(300 * time.Millisecond); logins > 0; logins-- {
			select {
			case <-begun:
			case <-patience:
				return
			}
		}
	}
	if fault == (testenv.Fault{}) {
		close(mended)
	} else {
		after(clients * 3 / 2)
		link.Set(fault)
		after(clients) // of which some stay where they are
		link.Set(testenv.Fault{Cut: true})
		link.Set(testenv.Fault{})
		close(mended)
	}
	all.Wait()
	for i, w := range h.c.worlds { // its connections are made anew
		w.Await("a login", func() bool {
			return h.c.do(i, "POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}).Status == 200
		})
	}
	for code := range h.p.codes {
		h.tokens = append(h.tokens, h.c.begin(h.p, code))
		h.login(0, code, code, len(h.tokens)-1)
	}
}

// login tries one code with one token at one replica and notes the two steps. It reports whether
// it was answered.
func (h *history) login(client, replica, code, token int) bool {
	call := h.clock.Add(1)
	a := h.c.answer(replica, h.tokens[token], "backup_code", h.p.codes[code], nil)
	end := h.clock.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	var spend, take found
	switch said := fmt.Sprintf("%d %s", a.Status, a.Code()); {
	case a.Status == 200:
		spend, take = took, took
		h.accepted++
	case said == "401 code_used":
		spend, take = gone, there
	case said == "401 invalid_mfa_token":
		spend, take = perhaps, gone
	case a.Status == 503 && a.Header.Get("Retry-After") != "":
		spend, take = whenever, whenever
		end = math.MaxInt64
		h.failed++
	default:
		h.c.t.Errorf("%d %s", a.Status, a.Body)
		return true
	}
	h.steps = append(h.steps,
		porcupine.Operation{ClientId: client, Input: use{fmt.Sprint("code ", code), token}, Call: call, Output: spend, Return: end},
		porcupine.Operation{ClientId: client, Input: use{fmt.Sprint("token ", token), 0}, Call: call, Output: take, Return: end})
	return end != math.MaxInt64
}
