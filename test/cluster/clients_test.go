package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// requestTime is how long a client waits for an answer, and answerTime how long
// it tries in all.
const (
	requestTime = 8 * time.Second
	answerTime  = 60 * time.Second
)

// pace is how long a client that presents all live tokens waits after each. A token lives for a
// thousand of it, and is presented everywhere at once when it is new.
const pace = 10 * time.Millisecond

// A client sends requests under a name, which the history keeps.
type client struct {
	w    *world
	name string
	line string // to the load balancer
	http *http.Client
	rand *rand.Rand // for one goroutine
	// insists: a request that the machine left without an answer is sent again. So a test may
	// take each answer for the cluster's.
	insists bool
}

// tester is a client for a test that looks at each answer itself.
func (w *world) tester(name string) *client {
	c := w.client(name)
	c.insists = true
	return c
}

func (w *world) client(name string) *client {
	return &client{w: w, name: name, line: people, http: newHTTPClient(requestTime), rand: w.random(name)}
}

// ask sends one request to a replica, or through the load balancer, and writes
// down what came of it.
func (c *client) ask(what string, to *replica, method, path, bearer string, in any, token *issued) (event, []byte, http.Header) {
	for deadline := time.Now().Add(patience); ; {
		e, answer, header := c.once(what, to, method, path, bearer, in, token)
		if !c.insists || time.Now().After(deadline) || e.status != 0 && e.status != 503 || !machine.disturbed(c.w.t.Context(), e) {
			return e, answer, header
		}
	}
}

// once sends one request.
func (c *client) once(what string, to *replica, method, path, bearer string, in any, token *issued) (event, []byte, http.Header) {
	e := event{who: c.name, what: what, token: token, bound: staleness}
	base := c.w.front(c.line)
	if to != nil {
		base, e.replica, e.behind = to.url, to.name, max(0, -to.ahead)
	} else {
		e.line = c.line
	}
	var body io.Reader
	if in != nil {
		encoded, _ := json.Marshal(in) // strings
		body = bytes.NewReader(encoded)
	}
	req, err := http.NewRequest(method, base+path, body)
	if err != nil {
		panic(err) // the test's own mistake
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	e.at = time.Now()
	resp, err := c.http.Do(req)
	var answer []byte
	var header http.Header
	if err == nil {
		answer, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		header = resp.Header
		e.served = strings.TrimPrefix(header.Get("X-Served-By"), "<NOSRV>")
		if err == nil {
			e.status, e.retry = resp.StatusCode, header.Get("Retry-After") != ""
			var p struct {
				Code string `json:"code"`
			}
			if e.status >= 400 && json.Unmarshal(answer, &p) == nil {
				e.code = p.Code
			}
		}
	}
	e.until, e.err = time.Now(), err
	c.w.history.add(e)
	return e, answer, header
}

// insist asks through the load balancer, again and again, until there is an answer
// to the question: what a careful client does. ok is false when ctx ended first.
func (c *client) insist(ctx context.Context, what, path string, in any, token *issued) (e event, answer []byte, ok bool) {
	bearer := ""
	if token != nil {
		bearer = token.compact
	}
	deadline := time.Now().Add(answerTime)
	for {
		e, answer, _ = c.ask(what, nil, http.MethodPost, path, bearer, in, token)
		if e.status != 0 && e.status < 500 && e.status != 429 {
			return e, answer, true
		}
		if time.Now().After(deadline) {
			c.w.history.violation("not answered in time: %s", e)
			return e, nil, false
		}
		pause(ctx, 300*time.Millisecond)
		if ctx.Err() != nil {
			return e, nil, false
		}
	}
}

// grant is what a login and a renewal answer.
type grant struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

// token reads what was answered and shares it with all clients that present tokens.
func (c *client) token(answer []byte) (grant, *issued) {
	var g grant
	if err := json.Unmarshal(answer, &g); err != nil {
		panic(err) // a 200 with another body
	}
	t := &issued{compact: g.AccessToken, got: time.Now()}
	parsed, _, err := jwt.NewParser().ParseUnverified(g.AccessToken, jwt.MapClaims{})
	if err != nil {
		panic(err)
	}
	exp, err := parsed.Claims.GetExpirationTime()
	if err != nil {
		panic(err)
	}
	t.kid, _ = parsed.Header["kid"].(string)
	t.expires = exp.Time
	c.w.history.issue(t)
	return g, t
}

// logIn returns ok false when ctx ended.
func (c *client) logIn(ctx context.Context) (grant, *issued, bool) {
	e, answer, ok := c.insist(ctx, "login", "/api/login", map[string]string{"username": adminName, "password": adminPassword}, nil)
	if !ok || e.status != 200 {
		return grant{}, nil, false
	}
	g, t := c.token(answer)
	return g, t, true
}

// verify presents a token to a replica.
func (c *client) verify(r *replica, t *issued) event {
	e, _, _ := c.ask("verify", r, http.MethodGet, "/api/verify", t.compact, nil, t)
	return e
}

// A crowd is the clients of a run.
type crowd struct {
	w        *world
	ctx      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup
	services []*service
	users    []*verify.Verifier
	probe    *client
}

// service is a strict resource server: it fetches the key set when its max-age has
// passed, and for no other reason.
type service struct {
	*client
	mu    sync.Mutex
	set   *accesstoken.KeySet
	fresh time.Time // until when
	next  time.Time // no fetch before
}

// populate starts the clients: people who log in, so many who verify at each replica,
// strict resource servers, and such as use package verify.
func (w *world) populate(loggers, verifiers, services, verifies int) *crowd {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	c := &crowd{w: w, ctx: ctx, stop: stop, probe: w.client("first look")}
	for i := range services {
		s := &service{client: w.client(fmt.Sprintf("service %d", i))}
		s.line = servers
		c.services = append(c.services, s)
	}
	for range verifies {
		v, err := verify.New(verify.Config{
			Issuer: issuer, Audience: []string{issuer},
			KeySetURL: w.front(servers) + "/.well-known/jwks.json", RevocationsURL: w.front(servers) + "/api/revocations",
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(v.Close)
		c.users = append(c.users, v)
	}
	for i := range loggers {
		c.running.Go(func() { c.logger(ctx, w.client(fmt.Sprintf("person %d", i))) })
	}
	for _, r := range w.replicas {
		for i := range verifiers {
			c.verifyAt(fmt.Sprintf("verifier %d of %s", i, r.name), r)
		}
	}
	c.running.Go(func() { c.resourceServers(ctx) })
	c.running.Go(func() { c.forger(ctx, w.client("forger")) })
	return c
}

// end stops the clients and waits for them.
func (c *crowd) end() {
	c.stop()
	c.running.Wait()
}

// logger is a person who logs in, renews for a while and mostly logs out.
func (c *crowd) logger(ctx context.Context, me *client) {
	for ctx.Err() == nil {
		g, t, ok := me.logIn(ctx)
		if !ok {
			continue
		}
		c.everywhere(t)
		var mine []*issued
		mine = append(mine, t)
		for range 2 + me.rand.IntN(5) {
			pause(ctx, time.Duration(200+me.rand.IntN(800))*time.Millisecond)
			e, answer, ok := me.insist(ctx, "renew", "/api/renew", map[string]string{"refresh_token": g.RefreshToken}, nil)
			if !ok {
				return
			}
			if e.status != 200 {
				me.w.history.violation("a session was lost: %s", e)
				break
			}
			g, t = me.token(answer)
			mine = append(mine, t)
			c.everywhere(t)
		}
		if me.rand.IntN(4) == 0 || !t.validUntil(time.Now().Add(answerTime)) && me.rand.IntN(2) == 0 {
			continue
		}
		for _, t := range mine {
			t.logoutSent(time.Now())
		}
		e, _, ok := me.insist(ctx, "logout", "/api/logout", nil, t)
		if !ok {
			return
		}
		if e.status == 204 || e.code == "token_revoked" {
			for _, t := range mine {
				t.logoutAnswered(time.Now())
			}
			me.insist(ctx, renewAfterLogout, "/api/renew", map[string]string{"refresh_token": g.RefreshToken}, nil)
		}
	}
}

// everywhere presents a new token to every server at once.
func (c *crowd) everywhere(t *issued) {
	var all sync.WaitGroup
	for _, r := range c.w.replicas {
		if r.isUp() {
			all.Go(func() { c.probe.verify(r, t) })
		}
	}
	for _, s := range c.services {
		all.Go(func() { s.check(t) })
	}
	for i, v := range c.users {
		all.Go(func() { c.ask(i, v, "verify", t.compact, t) })
	}
	all.Wait()
}

// verifyAt starts a client that presents every live token to these replicas, over and
// over.
func (c *crowd) verifyAt(name string, replicas ...*replica) {
	c.running.Go(func() {
		me := c.w.client(name)
		for c.ctx.Err() == nil {
			pause(c.ctx, 50*time.Millisecond)
			live := c.w.history.live()
			me.rand.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
			for _, t := range live {
				for _, r := range replicas {
					if r.isUp() && c.ctx.Err() == nil {
						me.verify(r, t)
						pause(c.ctx, pace)
					}
				}
			}
		}
	})
}

// resourceServers present every live token to the resource servers.
func (c *crowd) resourceServers(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, 100*time.Millisecond)
		for _, t := range c.w.history.live() {
			for _, s := range c.services {
				s.check(t)
			}
			for i, v := range c.users {
				c.ask(i, v, "verify", t.compact, t)
			}
			pause(ctx, pace)
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// check presents a token to a strict resource server.
func (s *service) check(t *issued) { s.judge("signature", t.compact, t) }

// judge is what a strict resource server does with a token.
func (s *service) judge(what, compact string, t *issued) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().After(s.next) {
		s.fetch()
	}
	e := event{who: s.name, what: what, replica: s.name, line: s.line, token: t, at: time.Now()}
	rules := accesstoken.Rules{Issuer: issuer, Audience: []string{issuer}}
	_, err := rules.Check(compact, time.Now(), s.set.Find)
	e.until = time.Now()
	switch {
	case err == nil:
		e.status = 200
	case errors.Is(err, accesstoken.ErrUnknownKey) && e.at.After(s.fresh):
		e.status, e.code, e.err = 503, keysUnavailable, err
	default:
		e.status, e.err = 401, err
	}
	s.w.history.add(e)
}

// fetch takes the key set for as long as it may be kept, which counts from the
// question (RFC 9111 §4.2.3); one that cannot be had leaves the old one.
func (s *service) fetch() {
	e, answer, header := s.ask("keys", nil, http.MethodGet, "/api/pkeys", "", nil, nil)
	s.next = time.Now().Add(time.Second)
	if e.status != 200 {
		return
	}
	set, err := accesstoken.ParseKeySet(answer)
	if err != nil {
		s.w.history.violation("a key set that cannot be read: %v", err)
		return
	}
	_, age, _ := strings.Cut(header.Get("Cache-Control"), "max-age=")
	age, _, _ = strings.Cut(age, ",")
	seconds, err := strconv.Atoi(age)
	if err != nil {
		s.w.history.violation("a key set without max-age: %q", header.Get("Cache-Control"))
	}
	s.set, s.fresh = set, e.at.Add(time.Duration(seconds)*time.Second)
	s.next = s.fresh
}

// ask presents a token to a resource server that uses package verify.
func (c *crowd) ask(number int, v *verify.Verifier, what, compact string, t *issued) {
	name := fmt.Sprintf("verify %d", number)
	e := event{who: name, what: what, replica: name, line: servers, token: t, bound: verify.DefaultMaxStaleness, at: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	_, err := v.Verify(ctx, compact)
	e.until = time.Now()
	switch {
	case err == nil:
		e.status = 200
	case errors.Is(err, verify.ErrStale):
		e.status, e.err = 503, err
	case errors.Is(err, verify.ErrKeysUnavailable):
		e.status, e.code, e.err = 503, keysUnavailable, err
	default:
		e.status, e.err = 401, err
	}
	c.w.history.add(e)
}

// forger presents to every server what none may accept.
func (c *crowd) forger(ctx context.Context, me *client) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		panic(err)
	}
	for ctx.Err() == nil {
		pause(ctx, 40*time.Millisecond)
		live := c.w.history.live()
		if len(live) == 0 {
			continue
		}
		forged := forge(live[me.rand.IntN(len(live))], own, me.rand)
		n := me.rand.IntN(len(c.w.replicas) + len(c.services) + len(c.users))
		if n < len(c.w.replicas) {
			if r := c.w.replicas[n]; r.isUp() {
				me.ask("forged", r, http.MethodGet, "/api/verify", forged, nil, nil)
			}
			continue
		}
		n -= len(c.w.replicas)
		if n < len(c.services) {
			c.services[n].judge("forged", forged, nil)
			continue
		}
		n -= len(c.services)
		c.ask(n, c.users[n], "forged", forged, nil)
	}
}

// forge makes something of a token that is not valid.
func forge(t *issued, own *ecdsa.PrivateKey, rand *rand.Rand) string {
	parts := strings.Split(t.compact, ".")
	encode := base64.RawURLEncoding.EncodeToString
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1]) // it is a token
	var claims jwt.MapClaims
	_ = json.Unmarshal(payload, &claims)
	claims["exp"] = time.Now().Add(time.Hour).Unix()
	sign := func(method jwt.SigningMethod, kid string, key any) string {
		forged := jwt.NewWithClaims(method, claims)
		forged.Header["kid"], forged.Header["typ"] = kid, "at+jwt"
		compact, err := forged.SignedString(key)
		if err != nil {
			panic(err)
		}
		return compact
	}
	switch rand.IntN(6) {
	case 0: // another payload under the same signature
		claims["admin"] = "all"
		payload, _ = json.Marshal(claims)
		return parts[0] + "." + encode(payload) + "." + parts[2]
	case 1: // another signature
		signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
		signature[rand.IntN(len(signature))] ^= 1
		return parts[0] + "." + parts[1] + "." + encode(signature)
	case 2: // our own key under a good name
		return sign(jwt.SigningMethodES256, t.kid, own)
	case 3: // under a name that nobody knows
		return sign(jwt.SigningMethodES256, fmt.Sprintf("auth-0-%d", rand.Int64()), own)
	case 4: // none
		return sign(jwt.SigningMethodNone, t.kid, jwt.UnsafeAllowNoneSignatureType)
	default: // the name as the secret
		return sign(jwt.SigningMethodHS256, t.kid, []byte(t.kid))
	}
}
