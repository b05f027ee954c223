package factors

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// origin is of the page on which users present their passkeys, as kit.Config has it.
const origin = "https://auth.example.com"

// A backend is where replicas keep what they share.
type backend struct {
	replicas int
	open     func(t testing.TB) (database string, change func(*config.Config))
}

func onlyDatabase(url string) (string, func(*config.Config)) { return url, func(*config.Config) {} }

var backends = map[string]backend{
	"sqlite":   {1, func(t testing.TB) (string, func(*config.Config)) { return onlyDatabase(sqldbtest.SQLite(t)) }},
	"postgres": {3, func(t testing.TB) (string, func(*config.Config)) { return onlyDatabase(testenv.Postgres(t)) }},
	"mariadb":  {3, func(t testing.TB) (string, func(*config.Config)) { return onlyDatabase(testenv.MariaDB(t)) }},
	"redis": {3, func(t testing.TB) (string, func(*config.Config)) {
		redis := testenv.Redis(t)
		return testenv.Postgres(t), func(cfg *config.Config) { cfg.Redis.URL, cfg.State.Backend = redis, "redis" }
	}},
}

// A cluster is the replicas on one backend.
type cluster struct {
	t      *testing.T
	name   string // of the backend
	worlds []*replica.World
	users  int
}

// settings are those of each replica.
func settings(cfg *config.Config) {
	kit.StoredKeys(cfg)
	cfg.Password.Queue = 1000
	cfg.Sessions.MaxPerUser = 1000
	cfg.Database.MaxConnections, cfg.Database.AcquireTimeout = 8, config.MaxAcquireTimeout // for which hundreds wait
	cfg.MFA.Required = config.Required{Mode: config.RequiredClaims, Claims: []config.ClaimPattern{{Name: "needs-factor"}}}
	cfg.MFA.RememberDevice = time.Hour
}

// start starts the replicas. They have no network, which costs tests of many requests more than
// all else.
func start(t *testing.T, name string) *cluster {
	t.Helper()
	b := backends[name]
	database, change := b.open(t)
	return startOn(t, name, b.replicas, database, change)
}

func startOn(t *testing.T, name string, replicas int, database string, change func(*config.Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, name: name}
	configure := func(cfg *config.Config) {
		settings(cfg)
		change(cfg)
	}
	if replicas == 1 {
		c.worlds = append(c.worlds, replica.NewWith(t, replica.Options{Quiet: true}, func(cfg *config.Config) {
			cfg.Database.URL = database
			configure(cfg)
		}))
	}
	for len(c.worlds) < replicas {
		c.worlds = append(c.worlds, replica.JoinWith(t, database, replica.Options{Quiet: true}, configure))
	}
	return c
}

// causes are why requests were answered 500 or 503, and how often.
func (c *cluster) causes() map[string]int {
	why := map[string]int{}
	for _, w := range c.worlds {
		for line := range strings.Lines(w.Log.String()) {
			if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, `"msg":"request refused"`) {
				_, line, _ = strings.Cut(line, `"level":`)
				why[line]++
			}
		}
	}
	return why
}

// A person is a user with what the user has.
type person struct {
	name     string
	id       string
	token    string // an access token of a fresh login
	secret   string // of the app, in base32
	enrolled time.Time
	used     time.Time // of the step of next
	codes    []string
	key      *passkeytest.Authenticator
}

// user makes a user without factors.
func (c *cluster) user(claims ...string) *person {
	c.users++
	p := &person{name: fmt.Sprintf("user%d", c.users), key: &passkeytest.Authenticator{Origin: origin, Verifies: true, Synced: true}}
	p.id = c.worlds[0].User(p.name, claims...)
	return p
}

// What a person may have.
const (
	app         = "app"
	key         = "key"
	countingKey = "key that counts"
	codes       = "codes"
)

// person makes a user with factors, of whom each request meets another replica.
func (c *cluster) person(has ...string) *person {
	c.t.Helper()
	p := c.user()
	p.token = c.worlds[0].Login(p.name).AccessToken
	for _, one := range has {
		switch one {
		case app:
			p.enrol(c)
			p.token = kit.Decode[httpapi.Grant](c.t, c.want(c.confirmApp(p, 1), 200, "")).AccessToken
		case key, countingKey:
			p.key.Synced = one == key
			made := kit.Decode[json.RawMessage](c.t, c.want(c.do(2, "POST", "/api/mfa/passkeys", p.token, nil), 200, ""))
			p.token = kit.Decode[httpapi.Grant](c.t, c.want(c.confirmKey(p, 0, p.create(c, made)), 200, "")).AccessToken
		case codes:
			p.makeCodes(c)
			c.want(c.do(1, "POST", "/api/mfa/backup-codes/confirm", p.token, httpapi.Code{Code: p.codes[0]}), 200, "")
		}
	}
	return p
}

func (c *cluster) replica(i int) *replica.World { return c.worlds[i%len(c.worlds)] }

// do makes a request to a replica, and once more if its user has too many under way there.
func (c *cluster) do(i int, method, path, token string, body any) kit.Answer {
	w := c.replica(i)
	for {
		a := w.Do(method, path, token, body)
		if a.Code() != "too_many_at_once" {
			return a
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (c *cluster) want(a kit.Answer, status int, code string) kit.Answer {
	c.t.Helper()
	if a.Status != status || a.Code() != code {
		c.t.Fatalf("got %d %q, want %d %q\n%s\n%v", a.Status, a.Code(), status, code, a.Body, c.causes())
	}
	return a
}

// enrol begins the enrolment of an app.
func (p *person) enrol(c *cluster) {
	c.t.Helper()
	p.secret = kit.Decode[httpapi.Enrolment](c.t, c.want(c.do(0, "POST", "/api/mfa/totp", p.token, nil), 200, "")).Secret
	p.mark()
}

// mark notes the step of the code that is used now.
func (p *person) mark() { p.enrolled = time.Now() }

func (c *cluster) confirmApp(p *person, i int) kit.Answer {
	return c.do(i, "POST", "/api/mfa/totp/confirm", p.token, httpapi.Code{Code: mfatest.Code(c.t, p.secret, p.enrolled)})
}

func (c *cluster) confirmKey(p *person, i int, credential json.RawMessage) kit.Answer {
	return c.do(i, "POST", "/api/mfa/passkeys/confirm", p.token, httpapi.NewPasskey{Credential: credential})
}

// next is a code of the app that has not been used when it is called for the first time. It is
// good for half a minute from then on, and one that a replica is asked for later is the same.
func (p *person) next(c *cluster) string {
	if p.used.IsZero() {
		p.used = p.enrolled.Add(mfatest.Step)
		if now := time.Now(); now.After(p.used) {
			p.used = now
		}
	}
	return mfatest.Code(c.t, p.secret, p.used)
}

// wantUsed is want for next, which is spent. A busy machine may ask so late that it is wrong.
func (c *cluster) wantUsed(p *person, a kit.Answer) {
	c.t.Helper()
	if a.Code() == "invalid_code" && time.Now().Unix()/30 > p.used.Unix()/30+1 {
		return
	}
	c.want(a, 401, "code_used")
}

// create and get are what the person's browser answers to options.
func (p *person) create(c *cluster, options json.RawMessage) json.RawMessage {
	c.t.Helper()
	answer, err := p.key.Create(options)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer
}

func (p *person) get(c *cluster, options json.RawMessage) json.RawMessage {
	c.t.Helper()
	answer, err := p.key.Get(options)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer
}

func (p *person) makeCodes(c *cluster) {
	c.t.Helper()
	p.codes = kit.Decode[httpapi.BackupCodes](c.t, c.want(c.do(0, "POST", "/api/mfa/backup-codes", p.token, nil), 200, "")).Codes
}

// begin presents the password and returns the mfa_token.
func (c *cluster) begin(p *person, i int) string {
	c.t.Helper()
	a := c.do(i, "POST", "/api/login", "", httpapi.LoginRequest{Username: p.name, Password: kit.Password})
	return kit.Decode[httpapi.LoginRefusal](c.t, c.want(a, 401, "mfa_required")).MFAToken
}

// begins is begin many times at once.
func (c *cluster) begins(p *person, n int) []string {
	c.t.Helper()
	tokens := make([]string, n)
	atOnce(n, func(i int) kit.Answer { tokens[i] = c.begin(p, i); return kit.Answer{} })
	return tokens
}

// options begins the ceremony by which a login is answered with a passkey.
func (c *cluster) options(i int, token string) json.RawMessage {
	c.t.Helper()
	return kit.Decode[json.RawMessage](c.t, c.want(c.do(i, "POST", "/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: token}), 200, ""))
}

// sessions is how many sessions a user has.
func (c *cluster) sessions(p *person) int {
	c.t.Helper()
	admin := c.worlds[0].Login("admin").AccessToken
	a := c.want(c.do(0, "GET", "/api/users/"+p.id+"/sessions?limit=1000", admin, nil), 200, "")
	return len(kit.Decode[httpapi.SessionList](c.t, a).Sessions)
}
