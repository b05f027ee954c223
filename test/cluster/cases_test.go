package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify"
)

// The cases by which other systems fail, one by one.

// brief is a cluster that is quick to join.
func brief(replicas int) plan {
	return plan{replicas: replicas, maxAge: time.Second, tokens: 25 * time.Second, keys: 30 * time.Second}
}

// at logs in at one replica.
func (c *client) at(r *replica) *issued {
	c.w.t.Helper()
	var e event
	var answer []byte
	await(c.w.t, "a login at "+r.name, func() bool {
		e, answer, _ = c.ask("login", r, http.MethodPost, "/api/login", "", map[string]string{"username": adminName, "password": adminPassword}, nil)
		return !long || e.status != 0 && !e.own503() // the machine or the database was too slow
	}, func() string { return e.String() + "\n" + r.tail() })
	if e.status != 200 {
		c.w.t.Fatalf("%s\n%s", e, r.tail())
	}
	_, t := c.token(answer)
	return t
}

// accepted asks each replica once: it has no second try but when the machine was too busy.
func (c *client) accepted(t *issued, by ...*replica) {
	c.w.t.Helper()
	for _, r := range by {
		if e := c.verify(r, t); e.status != 200 {
			c.w.t.Errorf("a valid token of %s: %s\n%s", t.kid, e, r.tail())
		}
	}
}

// A peer is down while the key sets are merged, and comes back: its next token is
// recognised everywhere at once.
func TestPeerIsDownDuringTheMerge(t *testing.T) {
	t.Parallel()
	p := brief(3)
	p.tokens, p.keys = 3*time.Minute, 3*time.Minute // longer than a peer is away on any machine
	w := newWorld(t, p)
	w.start(3)
	me := w.tester("me")
	a, b, c := w.replicas[0], w.replicas[1], w.replicas[2]
	type absence struct {
		how  string
		away func()
		back func()
	}
	const silent = 8 * time.Second // longer than the others count it as alive
	absences := []absence{
		{"stopped", c.stop, c.start},
		{"cut off", func() {
			c.network(testenv.Fault{HoldUp: true, HoldDown: true})
			pause(t.Context(), silent)
			c.network(testenv.Fault{})
		}, c.awaitReady},
	}
	if long { // TestFaults has these too, with keys that rotate
		absences = append(absences, absence{"killed", c.kill, c.start}, absence{"hung", func() { c.freeze(silent) }, c.awaitReady})
	}
	for _, goAway := range absences {
		t.Log(goAway.how)
		before, old := me.at(c), me.at(a).kid
		meanwhile := make(chan *issued)
		w.command(a, "keys", "rotate") // so that there is something to merge
		go func() {
			defer close(meanwhile)
			var token *issued
			await(t, "another key", func() bool {
				token = me.at(a)
				return token.kid != old
			}, a.tail)
			meanwhile <- token
		}()
		goAway.away()
		next, ok := <-meanwhile
		if !ok {
			return
		}
		// It may say that it is not ready, but not that the token is bad.
		if e := me.verify(c, next); e.status != 200 && e.status != 0 && !e.own503() {
			t.Errorf("%s: a valid token of %s: %s\n%s", goAway.how, next.kid, e, c.tail())
		}
		goAway.back()
		me.accepted(me.at(c), a, b, c)
		me.accepted(before, a, b)
		me.accepted(next, a, b, c)
	}
}

// network sets the fault of all that the replica reaches, and of all that reach
// it but its clients.
func (r *replica) network(f testenv.Fault) {
	r.database.Set(f)
	if r.redis != nil {
		r.redis.Set(f)
	}
	for _, l := range r.betweenPeers() {
		l.Set(f)
	}
}

// betweenPeers are the links to its peers and from them.
func (r *replica) betweenPeers() []*testenv.Link {
	links := slices.Clone(r.peers)
	for _, other := range r.world.replicas {
		links = append(links, other.peers[slices.Index(r.world.replicas, r)])
	}
	return links
}

// A replica is killed as soon as it has issued a token: the token is valid
// everywhere until it expires, also on a replica that joins later, and without
// database and Redis.
func TestIssuerIsKilled(t *testing.T) {
	t.Parallel()
	p := brief(4)
	p.redis, p.tokens, p.keys = true, 3*time.Minute, 3*time.Minute // longer than all the restarts take
	p.env = []string{"WATCHWORD_REVOCATION_ON_OUTAGE=allow"}       // or nothing is accepted without the database
	w := newWorld(t, p)
	w.start(3)
	me := w.tester("me")
	issuer, others, later := w.replicas[0], w.replicas[1:3], w.replicas[3]
	token := me.at(issuer)
	issuer.kill()
	me.accepted(token, others...)
	later.start()
	me.accepted(token, later)
	if long {
		for _, r := range others { // these know it from before, that one from the registry
			r.stop()
			r.start()
			me.accepted(token, r)
		}
	}
	// One who has it in memory alone.
	w.database.Stop()
	w.redis.Stop()
	everybody := append(slices.Clone(others), later)
	until := token.expires
	if !long {
		until = time.Now().Add(3 * time.Second)
	}
	for asked := 0; time.Now().Before(until); asked++ {
		for _, r := range everybody {
			e := me.verify(r, token)
			switch over := !token.validUntil(e.until); {
			case over && asked == 0:
				t.Fatal("the token expired before anybody was asked")
			case e.status != 200 && !over:
				t.Errorf("a valid token of %s: %s\n%s", token.kid, e, r.tail())
			}
			if e, answer, _ := me.ask("keys", r, http.MethodGet, "/api/pkeys", "", nil, nil); token.validUntil(e.until) && (e.status != 200 || !strings.Contains(string(answer), token.kid)) {
				t.Errorf("the key set without database: %s %s", e, answer)
			}
		}
		if t.Failed() {
			return
		}
		pause(t.Context(), 250*time.Millisecond)
	}
}

// A replica that takes the place of one that was killed waits until that must have
// been noticed everywhere. Every request before that is answered so at once.
func TestJoiningReplicaAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, brief(2))
	w.start(2)
	r := w.replicas[1]
	r.kill()
	w.lastBeatIsAhead(r)
	r.launch()
	me := w.client("me") // which takes the first answer that it gets
	var first event
	await(t, "the first answer", func() bool {
		first, _, _ = me.ask("login", r, http.MethodPost, "/api/login", "", map[string]string{"username": adminName, "password": adminPassword}, nil)
		return first.status != 0
	}, r.tail)
	if !first.own503() || first.code != "starting" {
		t.Errorf("the first answer: %s", first)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503} {
		var e event
		var answer []byte
		await(t, "an answer to "+path, func() bool {
			e, answer, _ = me.ask("probe", r, http.MethodGet, path, "", nil, nil)
			return e.status != 0
		}, r.tail)
		if ready := e.status == 200 && e.until.Sub(first.at) > 5*time.Second; e.status != want && !ready { // it waits for 7 s
			t.Errorf("%s %s", e, answer)
		}
	}
	me = w.tester("me")
	r.awaitReady()
	me.accepted(me.at(r), w.replicas...)
}

// lastBeatIsAhead has the replica that takes the place of one that was killed wait
// for as long as right after the kill, however long the start takes.
func (w *world) lastBeatIsAhead(r *replica) {
	w.t.Helper()
	db, err := sql.Open("pgx", w.database.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	done, err := db.ExecContext(w.t.Context(), "UPDATE replicas SET beat_at = beat_at + 3600000000 WHERE instance = $1", "auth-"+strings.TrimPrefix(r.name, "s"))
	if err != nil {
		w.t.Fatal(err)
	}
	if n, err := done.RowsAffected(); err != nil || n != 1 {
		w.t.Fatalf("%d rows, %v", n, err)
	}
}

// A peer accepts connections and never answers: no request on the others takes
// longer than before.
func TestPeerHangs(t *testing.T) {
	t.Parallel()
	p := brief(3)
	p.tokens, p.keys = 3*time.Minute, 3*time.Minute // longer than a round takes on any machine
	w := newWorld(t, p)
	w.start(3)
	me := w.tester("me")
	others, hung := w.replicas[:2], w.replicas[2]
	var token *issued
	measure := func(takes time.Duration) []time.Duration {
		var asked []event
		end := time.Now().Add(takes)
		var strangers sync.WaitGroup
		defer strangers.Wait()
		for _, r := range others { // must not make any client wait for the peer either
			strangers.Go(func() {
				for time.Now().Before(end) {
					if e, _, _ := me.ask("forged", r, http.MethodGet, "/api/verify", unknownKey(t), nil, nil); e.status != 401 && !e.own503() { // 503: the registry was too slow
						t.Errorf("%s", e)
					}
				}
			})
		}
		for time.Now().Before(end) {
			for _, r := range others {
				e := me.verify(r, token)
				if e.status != 200 {
					t.Errorf("%s", e)
				}
				asked = append(asked, event{at: e.at, until: e.until})
			}
			pause(t.Context(), time.Millisecond)
		}
		machine.awaitJudged(t.Context(), time.Now())
		var times []time.Duration
		for _, e := range asked {
			if !machine.excuses(e) { // or it says nothing of the peer
				times = append(times, e.until.Sub(e.at))
			}
		}
		slices.Sort(times)
		return times
	}
	at := func(times []time.Duration, of int) time.Duration { return times[(len(times)-1)*of/1000] }
	// In turn, so that what else the machine does is the same for both: longer than the
	// others count it as alive, and shorter.
	rounds := []time.Duration{9 * time.Second}
	if long {
		rounds = append(rounds, 4*time.Second, 9*time.Second, 4*time.Second, 4*time.Second)
	}
	var before, during quantiles
	for _, takes := range rounds {
		token = me.at(hung)
		quiet := measure(3 * time.Second)
		var frozen sync.WaitGroup
		frozen.Go(func() { hung.freeze(takes) })
		busy := measure(takes - 500*time.Millisecond)
		frozen.Wait()
		hung.awaitReady()
		if len(quiet) > 0 && len(busy) > 0 {
			before.add(at(quiet, 500), at(quiet, 990), at(quiet, 1000))
			during.add(at(busy, 500), at(busy, 990), at(busy, 1000))
		}
	}
	if len(before[0]) == 0 {
		t.Log("the machine was too busy in each round for a comparison")
		return
	}
	summarise(t, "verify: %v; with a hung peer: %v", before, during)
	// The machine may be busy; a request that waits for a peer waits for a second at least.
	for i, more := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 900 * time.Millisecond} {
		if b, d := before.middle(i), during.middle(i); d > 2*b+more {
			t.Errorf("requests take longer while a peer hangs: %s %v and before %v", quantileNames[i], d, b)
		}
	}
}

// quantiles are the median, p99 and maximum of several rounds. The middle one of the
// rounds is not moved by one in which the machine did something else.
type quantiles [3][]time.Duration

var quantileNames = [...]string{"median", "p99", "max"}

func (q *quantiles) add(of ...time.Duration) {
	for i, d := range of {
		q[i] = append(q[i], d)
	}
}

func (q quantiles) middle(i int) time.Duration {
	sorted := slices.Sorted(slices.Values(q[i]))
	return sorted[len(sorted)/2]
}

func (q quantiles) String() string {
	var parts []string
	for i, name := range quantileNames {
		parts = append(parts, name+" "+q.middle(i).String())
	}
	return strings.Join(parts, ", ")
}

// unknownKey is a token with a kid that looks like one of ours and that no replica has.
func unknownKey(t *testing.T) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	thumbprint := make([]byte, 32)
	_, _ = rand.Read(thumbprint) // never fails
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": issuer, "aud": issuer, "sub": "x", "jti": "x", "sid": "x", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()})
	token.Header["kid"], token.Header["typ"] = "auth-0-"+base64.RawURLEncoding.EncodeToString(thumbprint), "at+jwt"
	compact, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// A hundred tokens with an unknown kid at once make one look-up. A flood of random
// kids makes one at its beginning and one every 30 seconds after it, and no valid token
// is rejected. How many kids come in a second depends on the machine and is printed: at
// ten thousand and on, package cluster has a test with a clock of its own.
func TestUnknownKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, brief(2))
	w.start(2)
	r := w.replicas[0]
	looks := func() float64 {
		return r.metric(`watchword_cluster_lookups_total{result="unknown"}`)
	}
	var crowd sync.WaitGroup
	begin := make(chan struct{})
	unknown := unknownKey(t)
	before := looks()
	var late atomic.Int64 // answered that the registry was too slow
	for range 100 {
		crowd.Go(func() {
			me := w.tester("stranger")
			<-begin
			if e, _, _ := me.ask("forged", r, http.MethodGet, "/api/verify", unknown, nil, nil); e.own503() {
				late.Add(1)
			} else if e.status != 401 {
				t.Errorf("%s", e)
			}
		})
	}
	close(begin)
	crowd.Wait()
	if n := looks() - before; n > 1 || n < 1 && late.Load() == 0 {
		t.Errorf("100 tokens with an unknown kid made %v look-ups", n)
	}

	// The flood, with one good token after the other in between. Those who flood do not
	// wait to sign: only the kid matters, so they change it in a ready token. They meet a
	// replica that has not looked for anything yet.
	r = w.replicas[1]
	const cooldown = 30 * time.Second
	takes, strangers := 8*time.Second, 100
	if long {
		takes, strangers = 40*time.Second, 300 // more than may wait for the next look at the registry
	}
	began := time.Now()
	end := began.Add(takes)
	header, rest, _ := strings.Cut(unknown, ".")
	plain, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	kid := "auth-0-"
	at := strings.Index(string(plain), kid) + len(kid)
	var sent atomic.Int64
	late.Store(0)
	before = looks()
	for range strangers {
		crowd.Go(func() {
			me := newHTTPClient(patience)
			name := slices.Clone(plain)
			for time.Now().Before(end) {
				const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
				for i := range 43 {
					name[at+i] = letters[mrand.IntN(len(letters))]
				}
				req, err := http.NewRequest(http.MethodGet, r.url+"/api/verify", nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+base64.RawURLEncoding.EncodeToString(name)+"."+rest)
				asked := time.Now()
				resp, err := me.Do(req)
				if err != nil {
					if e := (event{at: asked, until: time.Now()}); !machine.disturbed(t.Context(), e) {
						t.Error(err)
					}
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body) // the answer is in the status
				resp.Body.Close()
				switch resp.StatusCode {
				case 401:
				case 503:
					late.Add(1)
				default:
					t.Errorf("a random kid: %d", resp.StatusCode)
				}
				sent.Add(1)
				pause(t.Context(), 200*time.Millisecond) // or it is a flood of requests
			}
		})
	}
	me := w.tester("me")
	me.http.Timeout = patience // the machine is busy, too
	good := 0
	var slowest time.Duration
	for ; time.Now().Before(end); good++ {
		token := me.at(w.replicas[0])
		e := me.verify(r, token)
		if e.status != 200 {
			t.Errorf("a valid token in the flood: %s", e)
		}
		slowest = max(slowest, e.until.Sub(e.at))
		pause(t.Context(), 50*time.Millisecond)
	}
	crowd.Wait()
	n, took := looks()-before, time.Since(began)
	summarise(t, "%d random kids in %v (%d a second) made %v look-ups; %d valid tokens in between, the slowest took %v", sent.Load(), took.Round(time.Second), sent.Load()*int64(time.Second)/int64(took), n, good, slowest)
	if most := 1 + int(took/cooldown); n > float64(most) || n < 1 && late.Load() == 0 {
		t.Errorf("the flood made %v look-ups: 1 to %d would be right; %d were told that the registry is too slow", n, most, late.Load())
	}
}

// No replica has a configured name, and one has a clock that is behind: it works all
// the same.
func TestNoInstanceID(t *testing.T) {
	t.Parallel()
	p := brief(3)
	p.unnamed, p.redis = true, true
	p.ahead = map[int]time.Duration{1: -5 * time.Second}
	w := newWorld(t, p)
	w.start(3)
	w.clocksDiffer()
	crowd := w.populate(2, 1, 1, 0)
	me := w.tester("me")
	names := map[string]bool{}
	look := func(r *replica) {
		kid := me.at(r).kid
		names[kid[:len(kid)-44]] = true
	}
	d := &director{world: w}
	for _, r := range w.replicas {
		look(r)
	}
	restarted := w.replicas
	if !long {
		restarted = restarted[:2]
	}
	for i, r := range restarted {
		if i == 0 {
			d.terminate(r)
		} else {
			d.kill(r)
		}
		look(r)
	}
	crowd.end()
	w.history.report(t)
	if want := len(w.replicas) + len(restarted); len(names) < want {
		t.Errorf("%d names for %d processes: %v", len(names), want, names)
	}
}

// A kid never names two keys, over rotations and restarts on MariaDB (the long form: 200
// and 20), with clients whose keys never fail them. A replica that is restarted has a new
// key for that, so each round rotates one key less than there are replicas.
func TestRotations(t *testing.T) {
	t.Parallel()
	rounds, size := 2, 3
	if long {
		rounds, size = 23, 10
	}
	p := plan{replicas: size, mariadb: true, maxAge: time.Second, tokens: 10 * time.Second, keys: 30 * time.Second}
	w := newWorld(t, p)
	w.start(size)
	crowd := w.populate(2, 0, 2, 0)
	crowd.verifyAt("verifier", w.replicas...)
	me := w.tester("me")

	keys := map[string]string{} // kid to key
	look := func(r *replica) {
		e, answer, _ := me.ask("keys", r, http.MethodGet, "/api/pkeys", "", nil, nil)
		var set struct{ Keys []map[string]string }
		if e.status != 200 || json.Unmarshal(answer, &set) != nil {
			t.Fatalf("%s %s", e, answer)
		}
		for _, k := range set.Keys {
			key := k["kty"] + " " + k["crv"] + " " + k["x"] + " " + k["y"]
			if old, ok := keys[k["kid"]]; ok && old != key {
				t.Errorf("the kid %s names two keys: %s and %s", k["kid"], old, key)
			}
			keys[k["kid"]] = key
		}
	}
	signing := map[*replica]string{}
	rotations := 0
	for round := range rounds {
		for _, r := range w.replicas {
			signing[r] = me.at(r).kid
		}
		w.command(w.replicas[0], "keys", "rotate")
		r := w.replicas[round%size] // restarts meanwhile
		how, down := terminated, r.stop
		if round%5 == 4 || !long && round == 1 {
			how, down = killed, r.kill
		}
		w.history.count(string(how))
		end := w.history.begin(how, r.name)
		down()
		r.start()
		end()
		for _, rotated := range w.replicas {
			await(t, rotated.name+" to sign with another key", func() bool {
				look(rotated)
				return me.at(rotated).kid != signing[rotated]
			}, rotated.tail)
			if rotated != r {
				rotations++
				w.history.count("rotation")
			}
		}
	}
	crowd.end()
	w.history.report(t)
	if t.Failed() {
		t.Log(w.logs())
	}
	same := map[string]string{} // key to kid
	for kid, key := range keys {
		if other, ok := same[key]; ok {
			t.Errorf("one key under two names: %s and %s", kid, other)
		}
		same[key] = kid
	}
	summarise(t, "%d rotations, %d restarts, %d keys", rotations, rounds, len(keys))
	if want := rounds * (size - 1); rotations < want || len(keys) < want {
		t.Errorf("there were %d rotations and %d keys, want %d at least", rotations, len(keys), want)
	}
}

// command runs Watchword's command line as on a replica's machine.
func (w *world) command(r *replica, args ...string) {
	w.t.Helper()
	var out []byte
	await(w.t, fmt.Sprint("the command ", args), func() bool { // the database may be busy
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = w.dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir}, r.env...)
		var err error
		out, err = cmd.CombinedOutput()
		return err == nil
	}, func() string { return string(out) })
}

// A resource server that uses package verify fetches the key set before max-age is over,
// but not before nine tenths of it, however many tokens come and however often keys
// change; and in a flood of unknown kids every 5 seconds.
func TestVerifyFetches(t *testing.T) {
	t.Parallel()
	p := brief(2)
	p.maxAge, p.keys = 6*time.Second, 60*time.Second
	w := newWorld(t, p)
	w.start(2)
	target, err := url.Parse(w.balancer.URL)
	if err != nil {
		t.Fatal(err)
	}
	var fetches, failed atomic.Int64 // what fails may be asked for again at once
	pass := httputil.NewSingleHostReverseProxy(target)
	pass.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode == http.StatusOK || r.StatusCode == http.StatusNotModified {
			fetches.Add(1)
		} else {
			failed.Add(1)
		}
		return nil
	}
	counter := httptest.NewServer(pass)
	defer counter.Close()
	v, err := verify.New(verify.Config{
		Issuer: issuer, Audience: []string{issuer},
		KeySetURL: counter.URL + "/.well-known/jwks.json", RevocationsURL: w.balancer.URL + "/api/revocations",
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	me := w.tester("me")
	accepts := func(token *issued) {
		e := event{what: "verify", at: time.Now()}
		_, err := v.Verify(t.Context(), token.compact)
		if e.until = time.Now(); err != nil && (!errors.Is(err, verify.ErrStale) && !errors.Is(err, verify.ErrKeysUnavailable) || !machine.disturbed(t.Context(), e)) {
			t.Errorf("a valid token: %v", err)
		}
	}
	kids := map[string]bool{}
	began := time.Now()
	ages, keys, between := time.Duration(2), 4, 4*time.Second
	if long {
		ages, keys, between = 5, 6, 8*time.Second
	}
	for rotated := began; time.Since(began) < ages*p.maxAge || len(kids) < keys && time.Since(began) < patience; {
		if time.Since(rotated) > between {
			rotated = time.Now()
			w.command(w.replicas[0], "keys", "rotate")
		}
		for _, r := range w.replicas {
			token := me.at(r)
			kids[token.kid] = true
			accepts(token)
		}
		pause(t.Context(), 20*time.Millisecond)
	}
	took := time.Since(began)
	n := int(fetches.Load())
	summarise(t, "%d fetches in %v with max-age %v, for tokens of %d keys; %d failed", n, took, p.maxAge, len(kids), failed.Load())
	if len(kids) < keys {
		t.Errorf("tokens of %d keys alone: this has tested nothing", len(kids))
	}
	if most := atMost(took, p.maxAge*9/10); n > most {
		t.Errorf("%d fetches in %v: %d are right at most", n, took, most)
	}

	began = time.Now()
	strangers := 0
	for ; time.Since(began) < max(ages-1, 1)*p.maxAge; strangers++ {
		if _, err := v.Verify(t.Context(), unknownKey(t)); err == nil {
			t.Error("a token of an unknown key was accepted")
		}
		accepts(me.at(w.replicas[strangers%2]))
		pause(t.Context(), 5*time.Millisecond)
	}
	took = time.Since(began)
	n = int(fetches.Load()) - n
	summarise(t, "%d fetches in %v with %d unknown kids", n, took, strangers)
	if most := atMost(took, 5*time.Second); n < 1 || n > most {
		t.Errorf("%d fetches in %v of unknown kids: 1 to %d would be right", n, took, most)
	}
}

// atMost is how many things can begin in a time if so much lies between each two.
func atMost(took, between time.Duration) int {
	return int((took+between-1)/between) + 1
}
