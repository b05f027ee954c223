package factors

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/test/kit"
)

// many is how many try the same at once: more than the replicas have connections to a database
// together. some is for where that differs little from what many do.
var many, some = 40, 10

func init() {
	if kit.Soak() {
		many, some = 100, 20
	}
}

// atOnce does the same many times at the same moment. All of them may wait for one row, on a busy
// machine some for longer than a transaction may take.
func atOnce(n int, do func(i int) kit.Answer) []kit.Answer {
	answers := make([]kit.Answer, n)
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-begin
			answers[i] = kit.Patiently(func() kit.Answer { return do(i) }, func(a kit.Answer) int { return a.Status })
		})
	}
	close(begin)
	all.Wait()
	return answers
}

// once fails the test unless exactly one of the answers has the status, and all others are one of the
// problems, each written "status code". It returns the number of the one.
func (c *cluster) once(t *testing.T, what string, answers []kit.Answer, status int, refusals ...string) int {
	t.Helper()
	accepted, refused, wrong, first := 0, map[string]int{}, map[string]int{}, 0
	for i, a := range answers {
		switch problem := fmt.Sprintf("%d %s", a.Status, a.Code()); {
		case a.Status == status:
			accepted++
			first = i
		case slices.Contains(refusals, problem):
			refused[problem]++
		default:
			wrong[problem]++
		}
	}
	what = fmt.Sprintf("%d %s", len(answers), what)
	t.Logf("summary: mfa: %s, %s: %d accepted, %d refused (%s)", what, c.replicas(), accepted, len(answers)-accepted, c.name)
	if accepted != 1 || len(wrong) > 0 {
		t.Errorf("%s: %d accepted, refused %v, and %v, which must not be", what, accepted, refused, wrong)
	}
	return first
}

func (c *cluster) replicas() string {
	if len(c.worlds) == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", len(c.worlds))
}

// answer presents a code or a passkey for a login.
func (c *cluster) answer(i int, token, method, code string, credential json.RawMessage) kit.Answer {
	return c.do(i, "POST", "/api/login/mfa", "", httpapi.MFARequest{MFAToken: token, Method: method, Code: code, Credential: credential})
}

// What is good once is accepted once, of whichever replicas it is asked how often at the same
// moment.
func TestRaces(t *testing.T) {
	t.Parallel()
	for name := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, name)
			for _, race := range []struct {
				name string
				run  func(t *testing.T, c *cluster)
			}{
				{"codes", codesAtOnce},
				{"passkeys", passkeysAtOnce},
				{"one token", tokenAtOnce},
				{"enrolments", enrolmentsAtOnce},
				{"enrolments at login", enrolmentsAtLogin},
				{"recovery", recoveryAtOnce},
				{"step-up", stepUpAtOnce},
				{"right and wrong", rightAndWrong},
				{"devices", devices},
			} {
				t.Run(race.name, func(t *testing.T) {
					race.run(t, c)
					if t.Failed() {
						t.Logf("%v", c.causes())
					}
				})
			}
		})
	}
}

// One code for many logins, and one code for one login many times.
func codesAtOnce(t *testing.T, c *cluster) {
	for _, kind := range []struct {
		name, method string
		has          []string
		code         func(p *person) string
	}{
		{"backup code", "backup_code", []string{app, codes}, func(p *person) string { return p.codes[3] }},
		{"TOTP step", "totp", []string{app}, func(p *person) string { return p.next(c) }},
	} {
		p := c.person(kind.has...)
		before := c.sessions(p)
		tokens := c.begins(p, many)
		code := kind.code(p)
		answers := atOnce(many, func(i int) kit.Answer { return c.answer(i, tokens[i], kind.method, code, nil) })
		won := c.once(t, "uses of one "+kind.name+" at once", answers, 200, "401 code_used")
		c.want(c.answer(won+1, tokens[won], kind.method, code, nil), 401, "invalid_mfa_token")
		for i := range c.worlds { // the token of a loser goes on, with another code
			a := c.answer(i, tokens[(won+1)%many], kind.method, code, nil)
			if kind.method == "totp" {
				c.wantUsed(p, a)
			} else {
				c.want(a, 401, "code_used")
			}
		}
		if n := c.sessions(p) - before; n != 1 {
			t.Errorf("%d sessions have begun", n)
		}

		p = c.person(kind.has...)
		before = c.sessions(p)
		token := c.begin(p, 0)
		code = kind.code(p)
		answers = atOnce(many, func(i int) kit.Answer { return c.answer(i, token, kind.method, code, nil) })
		c.once(t, "uses of one "+kind.name+" with one mfa_token at once", answers, 200, "401 invalid_mfa_token")
		if n := c.sessions(p) - before; n != 1 {
			t.Errorf("%d sessions have begun", n)
		}
	}
}

// One assertion many times: as the second factor and as the only one. The authenticator does not
// count, so that nothing but the challenge holds.
func passkeysAtOnce(t *testing.T, c *cluster) {
	p := c.person(key)
	before := c.sessions(p)
	tokens := c.begins(p, 10)
	assertion := p.get(c, c.options(0, tokens[0]))
	for i := range tokens {
		c.options(i, tokens[i]) // another challenge
	}
	assertion2 := p.get(c, c.options(0, tokens[0]))
	for i, token := range tokens {
		for _, one := range []json.RawMessage{assertion, assertion2} {
			if a := c.answer(i, token, "passkey", "", one); (i > 0 || string(one) == string(assertion)) && a.Code() != "passkey_refused" {
				t.Errorf("an assertion for another challenge: %d %s", a.Status, a.Body)
			}
		}
	}
	if n := c.sessions(p) - before; n != 1 {
		t.Errorf("%d sessions have begun", n)
	}

	token := c.begin(p, 1)
	assertion = p.get(c, c.options(2, token))
	answers := atOnce(many, func(i int) kit.Answer { return c.answer(i, token, "passkey", "", assertion) })
	c.once(t, "uses of one passkey challenge at once, the second factor", answers, 200, "401 invalid_mfa_token")
	if n := c.sessions(p) - before; n != 2 {
		t.Errorf("%d sessions have begun", n)
	}

	options := kit.Decode[json.RawMessage](t, c.want(c.do(0, "POST", "/api/login/passkey/options", "", nil), 200, ""))
	assertion = p.get(c, options)
	alone := func(i int) kit.Answer {
		return c.do(i, "POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: assertion})
	}
	c.once(t, "uses of one passkey challenge at once, the only factor", atOnce(many, alone), 200, "401 passkey_refused")
	if n := c.sessions(p) - before; n != 3 {
		t.Errorf("%d sessions have begun", n)
	}
}

// One mfa_token with all that its user has.
func tokenAtOnce(t *testing.T, c *cluster) {
	p := c.person(app, key, codes)
	before := c.sessions(p)
	token := c.begin(p, 0)
	assertion, code := p.get(c, c.options(1, token)), p.next(c)
	answers := atOnce(many, func(i int) kit.Answer {
		switch i % 12 {
		case 10:
			return c.answer(i, token, "totp", code, nil)
		case 11:
			return c.answer(i, token, "passkey", "", assertion)
		}
		return c.answer(i, token, "backup_code", p.codes[i%12], nil)
	})
	c.once(t, "uses of one mfa_token at once", answers, 200, "401 invalid_mfa_token")
	if n := c.sessions(p) - before; n != 1 {
		t.Errorf("%d sessions have begun", n)
	}
}

// methods are those that a login is asked for; nil: the password is enough.
func (c *cluster) methods(p *person, i int) []string {
	a := c.do(i, "POST", "/api/login", "", httpapi.LoginRequest{Username: p.name, Password: kit.Password})
	if a.Status == 200 {
		return nil
	}
	return kit.Decode[httpapi.LoginRefusal](c.t, c.want(a, 401, "mfa_required")).Methods
}

// One enrolment confirmed many times, and two at once.
func enrolmentsAtOnce(t *testing.T, c *cluster) {
	ended := []string{"401 token_revoked", "409 already_enrolled", "409 nothing_pending"}
	p := c.user()
	p.token = c.worlds[0].Login(p.name).AccessToken
	p.enrol(c)
	answers := atOnce(many, func(i int) kit.Answer { return c.confirmApp(p, i) })
	won := c.once(t, "confirmations of one TOTP enrolment at once", answers, 200, ended...)
	p.token = kit.Decode[httpapi.Grant](t, answers[won]).AccessToken
	c.replica(0).Accepts(p.token)
	c.want(c.answer(0, c.begin(p, 1), "totp", p.next(c), nil), 200, "")

	p.makeCodes(c)
	answers = atOnce(some, func(i int) kit.Answer {
		return c.do(i, "POST", "/api/mfa/backup-codes/confirm", p.token, httpapi.Code{Code: p.codes[i%10]})
	})
	c.once(t, "confirmations of one set of backup codes at once", answers, 200, ended...)
	for i, code := range p.codes {
		c.want(c.answer(i, c.begin(p, i), "backup_code", code, nil), 200, "")
	}

	p = c.user()
	p.token = c.worlds[0].Login(p.name).AccessToken
	options := kit.Decode[json.RawMessage](t, c.want(c.do(1, "POST", "/api/mfa/passkeys", p.token, nil), 200, ""))
	made := p.create(c, options)
	answers = atOnce(some, func(i int) kit.Answer { return c.confirmKey(p, i, made) })
	c.once(t, "confirmations of one passkey at once", answers, 200, append(ended, "401 passkey_refused")...)
	token := c.begin(p, 0)
	c.want(c.answer(2, token, "passkey", "", p.get(c, c.options(1, token))), 200, "")

	// Two apps are enrolled at once, from two sessions: one of them counts.
	p = c.user()
	tokens := []string{c.worlds[0].Login(p.name).AccessToken, c.replica(1).Login(p.name).AccessToken}
	begun := atOnce(2, func(i int) kit.Answer { return c.do(i, "POST", "/api/mfa/totp", tokens[i], nil) })
	secrets := make([]string, 2)
	for i, a := range begun {
		secrets[i] = kit.Decode[httpapi.Enrolment](t, c.want(a, 200, "")).Secret
	}
	p.mark()
	answers = atOnce(2, func(i int) kit.Answer {
		return c.do(i, "POST", "/api/mfa/totp/confirm", tokens[i], httpapi.Code{Code: mfatest.Code(t, secrets[i], p.enrolled)})
	})
	won = c.once(t, "TOTP enrolments at once", answers, 200, append(ended, "401 invalid_code")...)
	p.secret = secrets[won]
	c.want(c.answer(0, c.begin(p, 1), "totp", p.next(c), nil), 200, "")

	// And an app and a passkey: which the user is told of the user has, and nothing else.
	p = c.user()
	tokens = []string{c.worlds[0].Login(p.name).AccessToken, c.replica(1).Login(p.name).AccessToken}
	p.token = tokens[0]
	p.enrol(c)
	made = p.create(c, kit.Decode[json.RawMessage](t, c.want(c.do(1, "POST", "/api/mfa/passkeys", tokens[1], nil), 200, "")))
	answers = atOnce(2, func(i int) kit.Answer {
		if i == 0 {
			return c.confirmApp(p, i)
		}
		return c.do(i, "POST", "/api/mfa/passkeys/confirm", tokens[1], httpapi.NewPasskey{Credential: made})
	})
	won = c.once(t, "enrolments of an app and a passkey at once, from two sessions", answers, 200, ended...)
	if got, want := c.methods(p, 0), []string{"totp", "passkey"}[won:won+1]; !slices.Equal(got, want) {
		t.Errorf("%v, and not %v", got, want)
	}
}

// Users who must have a factor enrol it when they log in, once.
func enrolmentsAtLogin(t *testing.T, c *cluster) {
	for _, method := range []string{"totp", "passkey"} {
		p := c.user("needs-factor=yes")
		token := c.begin(p, 0)
		a := c.want(c.do(1, "POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: token, Method: method}), 200, "")
		p.mark()
		var code string
		var made json.RawMessage
		if method == "totp" {
			p.secret = kit.Decode[httpapi.Enrolment](t, a).Secret
			code = mfatest.Code(t, p.secret, p.enrolled)
		} else {
			made = p.create(c, a.Body)
		}
		answers := atOnce(some, func(i int) kit.Answer { return c.answer(i, token, method, code, made) })
		c.once(t, "enrolments by "+method+" with one mfa_token at once", answers, 200, "401 invalid_mfa_token", "409 nothing_pending")
		if got := c.methods(p, 2); !slices.Equal(got, []string{method}) {
			t.Errorf("%v", got)
		}
		if n := c.sessions(p); n != 1 {
			t.Errorf("%d sessions have begun", n)
		}

		// Two logins enrol at once: one of them counts.
		p = c.user("needs-factor=yes")
		tokens, codes, keys := make([]string, 2), make([]string, 2), make([]json.RawMessage, 2)
		for i := range tokens {
			tokens[i] = c.begin(p, i)
			a := c.want(c.do(i+1, "POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: tokens[i], Method: method}), 200, "")
			p.mark()
			if method == "totp" {
				codes[i] = mfatest.Code(t, kit.Decode[httpapi.Enrolment](t, a).Secret, p.enrolled)
			} else {
				keys[i] = p.create(c, a.Body)
			}
		}
		answers = atOnce(2, func(i int) kit.Answer { return c.answer(i, tokens[i], method, codes[i], keys[i]) })
		c.once(t, "logins enrol by "+method+" at once", answers, 200, "401 token_revoked", "401 invalid_mfa_token", "409 already_enrolled")
		if n := c.sessions(p); n != 1 {
			t.Errorf("%d sessions have begun", n)
		}
	}
}

// One recovery token many times. The password is that of the one who was answered 204.
func recoveryAtOnce(t *testing.T, c *cluster) {
	p := c.person(app, codes)
	admin := c.worlds[0].Login("admin").AccessToken
	recovery := kit.Decode[httpapi.Recovery](t, c.want(c.do(1, "POST", "/api/users/"+p.id+"/recovery", admin, httpapi.NewRecovery{}), 201, "")).RecoveryToken
	password := func(i int) string { return fmt.Sprintf("a new password that is long, %d", i) }
	answers := atOnce(many, func(i int) kit.Answer {
		return c.do(i, "POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: recovery, NewPassword: password(i)})
	})
	won := c.once(t, "uses of one recovery token at once", answers, 204, "401 invalid_recovery_token")
	for i := range c.worlds {
		c.want(c.do(i, "POST", "/api/login", "", httpapi.LoginRequest{Username: p.name, Password: password(won)}), 200, "")
		c.want(c.do(i, "POST", "/api/login", "", httpapi.LoginRequest{Username: p.name, Password: password(won + 1)}), 401, "invalid_credentials")
	}
	if n := c.sessions(p); n != len(c.worlds) {
		t.Errorf("%d sessions", n)
	}
}

// One code, or one assertion, for many step-ups of a session.
func stepUpAtOnce(t *testing.T, c *cluster) {
	p := c.person(app, key, codes)
	up := func(n int, body httpapi.StepUp) []kit.Answer {
		return atOnce(n, func(i int) kit.Answer { return c.do(i, "POST", "/api/login/step-up", p.token, body) })
	}
	c.once(t, "step-ups with one TOTP step at once", up(many, httpapi.StepUp{Method: "totp", Code: p.next(c)}), 200, "401 code_used")
	c.once(t, "step-ups with one backup code at once", up(some, httpapi.StepUp{Method: "backup_code", Code: p.codes[1]}), 200, "401 code_used")
	options := kit.Decode[json.RawMessage](t, c.want(c.do(1, "POST", "/api/login/step-up/options", p.token, nil), 200, ""))
	c.once(t, "step-ups with one passkey challenge at once", up(some, httpapi.StepUp{Method: "passkey", Credential: p.get(c, options)}), 200, "401 passkey_refused", "409 nothing_pending")
	if n := c.sessions(p); n != 1 {
		t.Errorf("%d sessions", n)
	}
	// The same code does not log anybody in either.
	c.wantUsed(p, c.answer(0, c.begin(p, 1), "totp", p.next(c), nil))
	c.want(c.answer(2, c.begin(p, 1), "backup_code", p.codes[1], nil), 401, "code_used")
}

// A right code and wrong ones at the same moment: the right one is accepted, unless five wrong ones
// have ended the login. No wrong one is, and of many no more are of use than one after the other.
func rightAndWrong(t *testing.T, c *cluster) {
	p := c.person(app, codes)
	for round, wrong := range []int{1, 4, 4, 9, 20} {
		token := c.begin(p, round)
		right := round * 3 % (wrong + 1)
		if wrong == 20 {
			right = -1 // none
		}
		answers := atOnce(wrong+1, func(i int) kit.Answer {
			if i == right {
				return c.answer(round+i, token, "backup_code", p.codes[round], nil)
			}
			return c.answer(round+i, token, "backup_code", fmt.Sprintf("AAAA-BBBB-CCCC-%d%d%d%d", i/8+2, i%8+2, 7, 7), nil)
		})
		said := map[string]int{}
		for i, a := range answers {
			code := fmt.Sprintf("%d %s", a.Status, a.Code())
			said[code]++
			ok := i == right && a.Status == 200 || i == right && code == "401 invalid_mfa_token" && wrong >= 5 ||
				i != right && (code == "401 invalid_code" || code == "401 invalid_mfa_token")
			if !ok {
				t.Errorf("%d codes, the right one: %t: %d %s", len(answers), i == right, a.Status, a.Body)
			}
		}
		if n := said["401 invalid_code"]; n > 5 {
			t.Errorf("%d wrong codes were judged", n)
		}
		c.want(c.answer(round, token, "backup_code", p.codes[9], nil), 401, "invalid_mfa_token")
		t.Logf("summary: mfa: %d codes at once, %d of them wrong, %s: %d accepted, %d wrong ones judged (%s)", len(answers), len(answers)-min(1, right+1), c.replicas(), said["200 "], said["401 invalid_code"], c.name)
	}
}

// A device that is remembered at one replica is known to all, however many logins use it at once.
func devices(t *testing.T, c *cluster) {
	p := c.person(app)
	a := c.do(1, "POST", "/api/login/mfa", "", httpapi.MFARequest{MFAToken: c.begin(p, 0), Method: "totp", Code: p.next(c), RememberDevice: true})
	device := kit.Decode[httpapi.Grant](t, c.want(a, 200, "")).DeviceToken
	for i, a := range atOnce(30, func(i int) kit.Answer {
		return c.do(i, "POST", "/api/login", "", httpapi.LoginRequest{Username: p.name, Password: kit.Password, DeviceToken: device})
	}) {
		if a.Status != 200 {
			t.Errorf("%d: %d %s", i, a.Status, a.Body)
		}
	}
}
