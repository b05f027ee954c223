package backends

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// While the server that counts is away, attempts are answered 503. When it is back, counting goes
// on where it was: what passed before counts.
func TestLimitsWhileTheirStoreIsAway(t *testing.T) {
	t.Parallel()
	for name, start := range replica.Durable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, database, backend := start(t)
			const limit, before, clients = 100, 40, 24
			var worlds []*replica.World
			for range 3 {
				worlds = append(worlds, replica.JoinWith(t, database, replica.Options{Quiet: true}, func(cfg *config.Config) {
					backend(cfg)
					behindProxies(cfg)
					cfg.Limits.Login.PerAddress = config.Rate{Count: limit, Per: long}
				}))
			}
			var passed, unknown atomic.Int64
			killed, back := make(chan struct{}), make(chan struct{})
			var all sync.WaitGroup
			for client := range clients {
				all.Go(func() {
					for i := 0; ; i++ {
						a := attempt(worlds[(client+i)%3], "192.0.2.1", "nobody", "wrong")
						switch {
						case refused(t, a):
							return
						case a.Code() == "invalid_credentials":
							if passed.Add(1) == before {
								server.Stop()
								close(killed)
							}
						case a.Status == 503 && a.Header.Get("Retry-After") != "":
							unknown.Add(1)
							<-back
							time.Sleep(10 * time.Millisecond) // connections are made anew
						default:
							t.Errorf("%d %s", a.Status, a.Body)
							return
						}
					}
				})
			}
			select {
			case <-killed:
			case <-time.After(kit.Patience):
				t.Fatalf("only %d passed", passed.Load())
			}
			for _, w := range worlds {
				if a := attempt(w, "192.0.2.2", "admin", kit.Password); a.Status != 503 || a.Header.Get("Retry-After") == "" {
					t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
				}
			}
			server.Start(t)
			close(back)
			all.Wait()
			t.Logf("summary: limits: %d clients, 3 replicas, limit %d: %d passed, %d were answered 503 while %s was away", clients, limit, passed.Load(), unknown.Load(), name)
			if p, u := passed.Load(), unknown.Load(); p > limit || p+u < limit || u == 0 {
				t.Errorf("%d passed, and %d may have", p, u)
			}
			for _, w := range worlds {
				w.Await("a login", func() bool { return attempt(w, "192.0.2.3", "admin", kit.Password).Status == 200 })
			}
		})
	}
}

// With limits.on_outage: local each replica goes on by itself while the state is away, with its
// part of the rate. When it is back, replicas count together again, from where they were.
func TestLimitsCountedLocally(t *testing.T) {
	t.Parallel()
	const limit, before = 30, 6
	local := func(cfg *config.Config) {
		behindProxies(cfg)
		rate := config.Limit{PerAddress: config.Rate{Count: limit, Per: long}}
		cfg.Limits.Login, cfg.Limits.API = rate, rate
		cfg.Limits.OnOutage = config.LimitsLocal
		cfg.Revocation.MaxStaleness = 5 * time.Minute // tokens are accepted for as long as a busy machine needs
	}
	// An outage is one of the state. What can be answered meanwhile depends on what is there.
	type outage struct {
		database   string
		begin, end func()
		change     func(*config.Config)
		answer     int // to what passes
	}
	for name, start := range map[string]func(t *testing.T) (outage, func(w *replica.World, address string) kit.Answer){
		// Wrong passwords are answered, and a right one cannot begin a session.
		"passwords while Redis is away": func(t *testing.T) (outage, func(w *replica.World, address string) kit.Answer) {
			server, database, backend := replica.Durable["redis"](t)
			return outage{database, server.Stop, func() { server.Start(t) }, backend, 401}, func(w *replica.World, address string) kit.Answer {
				return attempt(w, address, "nobody", "wrong")
			}
		},
		// Tokens are verified, of which the replicas know which are revoked.
		"tokens while the database is away": func(t *testing.T) (outage, func(w *replica.World, address string) kit.Answer) {
			link, url := replica.Link(t, testenv.Postgres(t))
			var token string
			var once sync.Once
			return outage{url, func() { link.Set(testenv.Fault{Cut: true}) }, func() { link.Set(testenv.Fault{}) }, func(*config.Config) {}, 200}, func(w *replica.World, address string) kit.Answer {
				once.Do(func() { token = w.Login("admin").AccessToken })
				r := w.Request("GET", "/api/verify", token, nil)
				r.Header.Set("X-Forwarded-For", address)
				return w.Send(r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, try := start(t)
			var worlds []*replica.World
			for range 3 {
				worlds = append(worlds, replica.JoinWith(t, o.database, replica.Options{Quiet: true}, func(cfg *config.Config) {
					o.change(cfg)
					local(cfg)
				}))
			}
			for _, w := range worlds {
				w.Await("it knows all three replicas", func() bool { return w.Metric(`watchword_cluster_replicas{state="live"}`) == 3 })
			}
			// passed returns how many of several attempts pass, and how many a busy machine answered 503,
			// which may have been counted.
			passed := func(w *replica.World, address string, tries int) (n, unknown int) {
				for range tries {
					switch a := try(w, address); {
					case refused(t, a):
					case a.Status == 503 && a.Header.Get("Retry-After") != "":
						unknown++
					default:
						w.Want(a, o.answer, a.Code())
						n++
					}
				}
				return n, unknown
			}
			// A busy machine may have an outage of its own.
			begun := func(w *replica.World) int {
				return strings.Count(w.Log.String(), "this replica counts attempts by itself")
			}
			ended := func(w *replica.World) int { return strings.Count(w.Log.String(), "counted over all replicas again") }
			lost := 0
			for _, w := range worlds {
				n, unknown := passed(w, "192.0.2.1", before/3)
				if n+unknown != before/3 {
					t.Fatalf("%d passed", n)
				}
				if begun(w) > 0 {
					unknown = before / 3
				}
				lost += unknown
			}
			o.begin()
			address, tries := "192.0.2.1", 0
			kit.Eventually(t, func() error {
				// A replica that a busy machine keeps from its beat does not count as one of three for a
				// moment. The parts are others then, and are asked for again, with another address.
				if tries++; tries > 1 {
					address = fmt.Sprintf("198.51.%d.%d", tries/250, tries%250)
				}
				for i, w := range worlds {
					n, _ := passed(w, address, limit)
					if part := limit / int(w.Metric(`watchword_cluster_replicas{state="live"}`)); n != part {
						return fmt.Errorf("replica %d: %d passed, and not its part, %d", i, n, part)
					}
				}
				time.Sleep(1100 * time.Millisecond) // until they ask the state again
				for i, w := range worlds {
					if n, _ := passed(w, address, 2); n != 0 {
						return fmt.Errorf("replica %d: %d passed in the end", i, n)
					}
				}
				return nil
			})
			if a := attempt(worlds[0], "192.0.2.2", "admin", kit.Password); a.Status != 503 || a.Header.Get("Retry-After") == "" {
				t.Errorf("%d %s", a.Status, a.Body)
			}
			for i, w := range worlds {
				if n := w.Metric("watchword_limit_counting_locally"); n != 1 {
					t.Errorf("replica %d: watchword_limit_counting_locally is %v", i, n)
				}
				if n := begun(w) - ended(w); n != 1 {
					t.Errorf("replica %d has logged it %d times", i, n)
				}
			}
			o.end()
			for i, w := range worlds {
				tries := 0
				w.Await("it counts in the state", func() bool { // from a new address each time
					tries++
					return !refused(t, try(w, fmt.Sprintf("10.%d.%d.%d", i, tries/250, tries%250))) && w.Metric("watchword_limit_counting_locally") == 0
				})
				if n := ended(w); n != begun(w) {
					t.Errorf("it has logged %d times that it counts by itself, and %d times that it ends", begun(w), n)
				}
			}
			total, unknown := 0, 0
			for i := range 2 * limit {
				n, u := passed(worlds[i%3], "192.0.2.1", 1)
				total, unknown = total+n, unknown+u
			}
			if total > limit-before+lost || total+unknown < limit-before {
				t.Errorf("%d passed afterwards, and not %d; %d and before %d were answered 503", total, limit-before, unknown, lost)
			}
		})
	}
}
