package factors

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A remains is what was spent, by which nobody gets in any more.
type remains struct {
	p          *person
	assertions []json.RawMessage // of a login by passkey alone
	recovery   string
}

// spend spends one of everything.
func (c *cluster) spend() remains {
	c.t.Helper()
	r := remains{p: c.person(app, key, codes)}
	c.want(c.answer(0, c.begin(r.p, 1), "totp", r.p.next(c), nil), 200, "")
	c.want(c.answer(1, c.begin(r.p, 2), "backup_code", r.p.codes[0], nil), 200, "")
	options := kit.Decode[json.RawMessage](c.t, c.want(c.do(0, "POST", "/api/login/passkey/options", "", nil), 200, ""))
	r.assertions = append(r.assertions, r.p.get(c, options))
	c.want(c.do(1, "POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: r.assertions[0]}), 200, "")
	other := c.person(app)
	admin := c.worlds[0].Login("admin").AccessToken
	r.recovery = kit.Decode[httpapi.Recovery](c.t, c.want(c.do(1, "POST", "/api/users/"+other.id+"/recovery", admin, httpapi.NewRecovery{}), 201, "")).RecoveryToken
	c.want(c.do(2, "POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: r.recovery, NewPassword: kit.Password}), 204, "")
	return r
}

// staysSpent presents it all again at each replica.
func (c *cluster) staysSpent(r remains) {
	c.t.Helper()
	for i := range c.worlds {
		c.wantUsed(r.p, c.answer(i, c.begin(r.p, i), "totp", r.p.next(c), nil))
		c.want(c.answer(i, c.begin(r.p, i), "backup_code", r.p.codes[0], nil), 401, "code_used")
		for _, one := range r.assertions {
			c.want(c.do(i, "POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: one}), 401, "passkey_refused")
		}
		c.want(c.do(i, "POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: r.recovery, NewPassword: kit.Password}), 401, "invalid_recovery_token")
	}
}

// A server is killed while logins are finished, and comes back. What was spent stays spent. The
// logins go on, each with the same request: no code and no token is accepted twice.
func TestServerIsKilled(t *testing.T) {
	t.Parallel()
	for name, open := range replica.Durable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, database, change := open(t)
			c := startOn(t, name, 3, database, func(cfg *config.Config) {
				change(cfg)
				cfg.Database.AcquireTimeout = config.Default().Database.AcquireTimeout
			})
			spent := c.spend()
			const clients, before = 36, 3 // four for each code, each with a token of its own
			p := c.person(app, codes)
			sessions := c.sessions(p)
			tokens := c.begins(p, clients)
			var accepted [10]atomic.Int64
			var answered, unknown atomic.Int64
			killed, back := make(chan struct{}), make(chan struct{})
			var once sync.Once
			var all sync.WaitGroup
			for client := range clients {
				all.Go(func() {
					code := client % 9
					for i := client; ; i++ {
						a := c.answer(i, tokens[client], "backup_code", p.codes[code], nil)
						if a.Status == 503 && a.Header.Get("Retry-After") != "" {
							unknown.Add(1)
							<-back
							time.Sleep(10 * time.Millisecond) // connections are made anew
							continue
						}
						said := fmt.Sprintf("%d %s", a.Status, a.Code())
						switch {
						case a.Status == 200:
							accepted[code].Add(1)
						case !slices.Contains([]string{"401 code_used", "401 invalid_mfa_token"}, said):
							t.Errorf("%d %s", a.Status, a.Body)
						}
						if answered.Add(1) == before {
							once.Do(func() { server.Stop(); close(killed) })
						}
						return
					}
				})
			}
			select {
			case <-killed:
			case <-time.After(kit.Patience):
				t.Fatal("nobody was answered")
			}
			for _, w := range c.worlds {
				if a := c.answer(0, tokens[0], "backup_code", p.codes[9], nil); a.Status != 503 || a.Header.Get("Retry-After") == "" {
					t.Errorf("%v: %d %s", w.URL, a.Status, a.Body)
				}
			}
			server.Start(t)
			close(back)
			all.Wait()
			for _, w := range c.worlds {
				w.Await("a login", func() bool {
					return w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}).Status == 200
				})
			}
			total := 0
			for code := range accepted {
				n := int(accepted[code].Load())
				if total += n; n > 1 {
					t.Errorf("code %d was accepted %d times", code, n)
				}
			}
			began := c.sessions(p) - sessions
			t.Logf("summary: mfa: %d logins with 9 codes while %s is killed, 3 replicas: %d accepted, %d sessions, %d answered 503", clients, name, total, began, unknown.Load())
			if unknown.Load() == 0 || began > 9 || began < total {
				t.Errorf("%d sessions have begun, %d were answered 200, and %d 503", began, total, unknown.Load())
			}
			c.staysSpent(spent)
		})
	}
}

// Redis loses all that it had. What was spent stays spent, because that is in the database. What
// was under way ends with a 401, and is begun anew.
func TestRedisLosesEverything(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t)
	c := startOn(t, "redis", 3, testenv.Postgres(t), func(cfg *config.Config) { cfg.Redis.URL, cfg.State.Backend = redis, "redis" })
	spent := c.spend()
	p := c.person(app, key, codes)
	token := c.begin(p, 0)
	assertion := p.get(c, c.options(0, token))
	alone := p.get(c, kit.Decode[json.RawMessage](t, c.want(c.do(0, "POST", "/api/login/passkey/options", "", nil), 200, "")))
	enrolling := c.user()
	enrolling.token = c.worlds[0].Login(enrolling.name).AccessToken
	enrolling.enrol(c)
	p.makeCodes(c)
	kit.Flush(t, redis)

	for i := range c.worlds {
		c.want(c.answer(i, token, "totp", p.next(c), nil), 401, "invalid_mfa_token")
		c.want(c.answer(i, token, "passkey", "", assertion), 401, "invalid_mfa_token")
		c.want(c.do(i, "POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: alone}), 401, "passkey_refused")
	}
	c.staysSpent(spent)
	// Nothing of it was spent.
	c.want(c.answer(0, c.begin(p, 1), "totp", p.next(c), nil), 200, "")
	for _, p := range []*person{p, enrolling} {
		methods := c.methods(p, 1)
		if (p == enrolling) != (methods == nil) {
			t.Errorf("%v", methods)
		}
	}
	enrolling.token = c.worlds[2].Login(enrolling.name).AccessToken
	c.want(c.confirmApp(enrolling, 1), 409, "nothing_pending")
	enrolling.enrol(c)
	c.want(c.confirmApp(enrolling, 1), 200, "")
}
