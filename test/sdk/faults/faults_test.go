// Package faults has resource servers of three languages follow a server that does wrong: each
// row of a table is a fault, each column a language.
package faults

import (
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/sdk/servers"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

const (
	// bound is the least staleness that a verifier takes, for the rows in which the feed is lost.
	// In the other rows a good token is accepted all the time, so the bound is far away.
	bound   = 3 * time.Second
	patient = 30 * time.Second
	// attached is within what a resource server knows of a revocation although its replica was
	// killed, and soon within what it does when nothing of the feed is lost.
	attached = time.Second
	soon     = 2 * time.Second
	// mostSent is how much of an endless answer may be sent, in bytes: a page has up to 16 MiB, and
	// the sockets hold some. Of an answer without a bound it would be endless.
	mostSent = 64 << 20
	endless  = 100 << 20
	// mostMemory is what a process may need for all its rows, in bytes.
	mostMemory = 256 << 20
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "100") // they wait
	servers.Main(m)
}

// A row is one fault.
type row struct {
	name  string
	bound time.Duration // of staleness
	from  func(*source) // what is so from the start; nil: nothing is wrong
	test  func(*trial)
}

// A trial is one row in one language.
type trial struct {
	*testing.T
	*source
	server *servers.Server
	good   string // a token that is good throughout
	gone   string // one that was revoked before the start
}

func TestFaults(t *testing.T) {
	for _, l := range servers.Languages {
		t.Run(string(l), func(t *testing.T) {
			t.Parallel()
			for _, most := range []time.Duration{bound, patient} {
				var sources []*source
				var issuers []string
				var chosen []row
				for _, r := range rows {
					if r.bound != most {
						continue
					}
					s := newSource(t)
					s.revoke("gone")
					if r.from != nil {
						r.from(s)
					}
					chosen, sources, issuers = append(chosen, r), append(sources, s), append(issuers, s.issuer.URL)
				}
				p := servers.Start(t, l, servers.Options{Audience: verifytest.Audience, MaxStaleness: most}, issuers...)
				t.Cleanup(func() {
					if used := p.PeakMemory(t); used > mostMemory {
						t.Errorf("the process has used %d MiB", used>>20)
					} else {
						t.Logf("staleness of %v: the process has used %d MiB at most", most, used>>20)
					}
				})
				for i, r := range chosen {
					t.Run(r.name, func(t *testing.T) {
						t.Parallel()
						s := sources[i]
						r.test(&trial{
							T: t, source: s, server: p.Servers[i].For(t),
							good: s.token("good"), gone: s.token("gone"),
						})
					})
				}
			}
		})
	}
}

var rows = []row{
	{"a replica is killed", patient, nil, func(t *trial) {
		t.goesOn(func() {
			killed := time.Now()
			t.move(1)
			t.revokes("at the kill", killed, attached)
		})
	}},
	{"the server is restarted", patient, nil, func(t *trial) {
		t.accepts("/any", t.good)
		before := len(t.since(0))
		t.goesOn(func() {
			t.link.Lead(testenv.Address(t))
			t.reset()
			t.revoke("meanwhile")
			time.Sleep(attached) // it takes that long
			back := time.Now()
			t.move(1)
			t.refuses(t.token("meanwhile"), back, 2*soon)
			t.revokes("after it", time.Now(), soon)
		})
		for _, after := range t.since(before) {
			if after == 0 {
				t.Error("the log is read anew")
			}
		}
	}},
	{"connections are reset", bound, nil, func(t *trial) { t.outage(testenv.Fault{Cut: true}) }},
	{"connections are silent", bound, nil, func(t *trial) { t.outage(testenv.Fault{HoldUp: true, HoldDown: true}) }},
	{"the feed is never there", bound, broken(faults{page: says(500, "text/plain", "no"), stream: says(500, "text/plain", "no")}), func(t *trial) {
		for _, path := range []string{"/any", "/open"} { // who has never read the feed knows nothing
			t.answers(path, t.good, http.StatusServiceUnavailable, "revocation_stale")
		}
		t.heal()
		t.accepts("/any", t.good)
		t.refuses(t.gone, time.Now(), 0)
	}},
	{"the log is replaced", patient, nil, func(t *trial) {
		t.refuses(t.gone, time.Now(), patient)
		before := len(t.since(0))
		t.goesOn(func() {
			t.replaceLog("second")
			t.revokes("in the second log", time.Now(), soon)
			t.answers("/any", t.gone, http.StatusUnauthorized, "token_revoked")
		})
		anew := false
		for _, after := range t.since(before) {
			anew = anew || after == 0
		}
		if !anew && t.streams.Load() < 2 {
			t.Error("the second log was not read from its beginning")
		}
	}},

	{"the server's clock is an hour ahead", patient, broken(clock(time.Hour)), (*trial).usual},
	{"the server's clock is an hour behind", patient, broken(clock(-time.Hour)), (*trial).usual},
	{"the server's clock is set", patient, nil, func(t *trial) {
		t.usual()
		t.set(clock(time.Hour))
		t.goesOn(func() { t.revokes("an hour ahead", time.Now(), soon) })
		t.set(clock(-time.Hour))
		t.goesOn(func() { t.revokes("an hour behind", time.Now(), soon) })
	}},
	{"as_of stands still", patient, broken(member("as_of", "2026-01-01T00:00:00.000Z")), (*trial).usual},
	{"as_of runs ahead", bound, func(s *source) { s.set(aheadOfAll()) }, func(t *trial) {
		t.accepts("/any", t.good)
		t.passes(3 * heartbeat)
		t.outage(testenv.Fault{Cut: true})
	}},
	{"as_of is missing", bound, nil, func(t *trial) { t.isStale(member("as_of", nil)) }},
	{"age_ms is an hour", bound, nil, func(t *trial) { t.isStale(member("age_ms", 3_600_000)) }},
	{"age_ms is negative", bound, nil, func(t *trial) { t.isStale(member("age_ms", -3_600_000)) }},
	{"waited_ms is an hour", patient, broken(faults{
		stream: says(404, "text/plain", "no"), head: func(head map[string]any) { head["waited_ms"] = 3_600_000 },
	}), (*trial).usual},

	{"10,000 random kids", patient, func(s *source) { s.set(faults{keys: s.keysFor(time.Hour)}) }, func(t *trial) {
		t.accepts("/any", t.good)
		asked, began := t.keySets.Load(), time.Now()
		_, rest, _ := strings.Cut(t.good, ".")
		t.goesOn(func() {
			for range 20 {
				var tokens []string
				for range 500 {
					header := fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"at+jwt"}`, rand.Text())
					tokens = append(tokens, base64.RawURLEncoding.EncodeToString([]byte(header))+"."+rest)
				}
				for _, code := range t.server.Codes(tokens...) {
					if code != "token_key_unknown" && code != "key_set_unavailable" {
						t.Fatalf("an invented kid: %q", code)
					}
				}
			}
		})
		// At once, and then one in five seconds.
		if n, most := t.keySets.Load()-asked, 1+int64(time.Since(began)/(5*time.Second)); n > most {
			t.Errorf("the key set was fetched %d times, %d at most are right", n, most)
		}
		t.issuer.Rotate()
		t.accepts("/any", t.token("of a new key"))
	}},
	{"the key set is an error", patient, nil, badKeys(2, says(500, "text/plain", "no"))},
	{"the key set is garbage", patient, nil, badKeys(2, says(200, "application/json", `{"keys":[{"kid":`))},
	{"the key set is empty", patient, nil, badKeys(2, says(200, "application/json", `{"keys":[]}`))},
	{"the key set is endless", patient, nil, func(t *trial) {
		badKeys(2, t.flood("application/json", `{"keys":[`, " ", endless))(t)
		t.wasBounded()
	}},
	{"the key set comes a byte at a time", patient, nil, badKeys(1, drip("application/json", `{"keys":[`, " "))},
	{"the key set is elsewhere", patient, nil, func(t *trial) {
		attacker := verifytest.NewAt(t, t.issuer.URL) // with another key of the same kid
		elsewhere := httptest.NewServer(attacker)
		t.Cleanup(elsewhere.Close)
		badKeys(2, http.RedirectHandler(elsewhere.URL+"/.well-known/jwks.json", http.StatusFound).ServeHTTP)(t)
		t.answers("/any", attacker.Token("attacker", nil), http.StatusUnauthorized, "token_signature")
	}},
	{"the key set is garbage from the start", patient, broken(faults{keys: says(200, "application/json", "<html>")}), func(t *trial) {
		t.answers("/any", t.good, http.StatusServiceUnavailable, "key_set_unavailable")
		t.heal()
		t.accepts("/any", t.good)
	}},

	{"a line of the stream is endless", patient, func(s *source) {
		s.set(faults{stream: s.flood("text/event-stream", "data: ", "a", endless)})
	}, func(t *trial) {
		t.byPages()
		t.wasBounded()
	}},
	{"an event of the stream is endless", patient, func(s *source) {
		s.set(faults{stream: s.flood("text/event-stream", "event: head\n", "data: "+strings.Repeat("a", 1000)+"\n", endless)})
	}, func(t *trial) {
		t.byPages()
		t.wasBounded()
	}},
	{"the stream is comments alone", bound, broken(faults{stream: drip("text/event-stream", ":\n", ":\n")}), (*trial).byPages},
	{"the stream is refused", patient, broken(faults{stream: says(503, "text/plain", "no")}), func(t *trial) {
		t.byPages()
		asked, began := t.pages.Load(), time.Now()
		t.passes(attached)
		if n, most := t.pages.Load()-asked, 2+int64(time.Since(began)/(500*time.Millisecond)); n > most {
			t.Errorf("%d pages in %v", n, time.Since(began))
		}
	}},
	{"a page is endless", bound, nil, func(t *trial) {
		t.isStale(faults{
			stream: says(503, "text/plain", "no"),
			page:   t.flood("application/json", `{"log":"first","entries":[`, " ", endless),
		})
		t.wasBounded()
	}},
	{"a page comes a byte at a time", bound, nil, func(t *trial) {
		t.isStale(faults{stream: says(503, "text/plain", "no"), page: drip("application/json", `{"log":"first","entries":[`, " ")})
	}},
	{"an entry is of an unknown kind", bound, nil, func(t *trial) {
		t.isStale(faults{entry: func(e revoked.Entry) any { e.Kind = "client"; return e }})
	}},
	{"the feed is of a version that was not asked for", bound, nil, func(t *trial) { t.isStale(member("version", 2)) }},
	{"the feed is elsewhere", bound, nil, func(t *trial) { // where all is well, and nothing is revoked
		attacker := verifytest.NewAt(t, t.issuer.URL)
		elsewhere := httptest.NewServer(attacker)
		t.Cleanup(elsewhere.Close)
		redirect := http.RedirectHandler(elsewhere.URL+"/api/revocations", http.StatusTemporaryRedirect).ServeHTTP
		t.isStale(faults{page: redirect, stream: redirect})
	}},
	{"unknown events and members", patient, broken(faults{
		head: func(head map[string]any) { head["mood"] = map[string]any{"entries": []int{1}} },
		event: func(w io.Writer) {
			_, _ = io.WriteString(w, ": a comment\nid: 7\nretry: 1\nevent: weather\ndata: {\"log\":\"none\"}\n\n")
		},
		entry: func(e revoked.Entry) any {
			return map[string]any{"seq": e.Seq, "kind": e.Kind, "id": e.ID, "exp": e.ExpiresAt, "why": "logout"}
		},
	}), (*trial).usual},
	{"the log has 100,000 entries", patient, func(s *source) {
		var sessions []string
		for i := range 100_000 {
			sessions = append(sessions, fmt.Sprint("session ", i))
		}
		s.revoke(sessions...)
	}, func(t *trial) {
		t.accepts("/any", t.good)
		for i, code := range t.server.Codes(t.token("session 0"), t.token("session 50000"), t.token("session 99999")) {
			if code != "token_revoked" {
				t.Errorf("token %d: %q", i, code)
			}
		}
		if n := t.server.Status().Revocations; n != 100_001 {
			t.Errorf("%d revocations are known", n)
		}
		t.usual()
	}},
}

// broken has a fault be there from the start.
func broken(f faults) func(*source) { return func(s *source) { s.set(f) } }

// clock is a server's clock that is wrong, but goes.
func clock(by time.Duration) faults {
	return faults{
		header: http.Header{"Date": {time.Now().Add(by).UTC().Format(http.TimeFormat)}},
		head:   func(head map[string]any) { head["as_of"] = time.Now().Add(by).UTC().Format(time.RFC3339Nano) },
	}
}

// aheadOfAll is a clock that gains an hour with each answer.
func aheadOfAll() faults {
	now := time.Now()
	return faults{head: func(head map[string]any) { // under the lock of its source
		now = now.Add(time.Hour)
		head["as_of"] = now.UTC().Format(time.RFC3339Nano)
	}}
}

// member replaces a member of pages, and of the data of events; nil leaves it out.
func member(name string, value any) faults {
	return faults{head: func(head map[string]any) {
		if head[name] = value; value == nil {
			delete(head, name)
		}
	}}
}

// badKeys is a row in which the key set is wrong for a number of fetches at least. What is known
// stays known.
func badKeys(fetches int64, h http.HandlerFunc) func(*trial) {
	return func(t *trial) {
		t.accepts("/any", t.good)
		t.goesOn(func() {
			asked := t.keySets.Load()
			t.set(faults{keys: h})
			kit.Await(t, "the key set to be asked for", func() bool { return t.keySets.Load() >= asked+fetches }, t.server.Log.Tail)
			if n := t.server.Status().Keys; n != 1 {
				t.Errorf("%d keys are known", n)
			}
		})
		t.heal()
		t.issuer.Rotate()
		t.accepts("/any", t.token("of a new key"))
	}
}

// token issues one of a session.
func (s *source) token(session string) string {
	return s.issuer.Sign("user of "+session, map[string]any{"sid": session, "ship": "acc"})
}

// heal ends all faults.
func (s *source) heal() { s.set(faults{}) }

// reset resets all connections.
func (s *source) reset() {
	s.link.Set(testenv.Fault{Cut: true})
	s.link.Set(testenv.Fault{})
}

// move has another replica be asked, and all connections be reset.
func (s *source) move(to int) {
	s.link.Lead(s.address(to))
	s.reset()
}

// passes lets time pass, in which something is to go on or not to happen.
func (t *trial) passes(d time.Duration) { time.Sleep(d) }

// accepts waits until a token is accepted; before that, it may not be known whether it is good.
func (t *trial) accepts(path, token string) {
	t.Helper()
	kit.Eventually(t, func() error {
		a := t.server.Get(path, token)
		if a.Status != http.StatusOK && a.Status != http.StatusServiceUnavailable {
			t.Fatalf("%s: a good token: %d %s\n%s", path, a.Status, a.Body, t.server.Log.Tail())
		}
		if a.Status != http.StatusOK {
			return fmt.Errorf("%d %s\n%s", a.Status, a.Body, t.server.Log.Tail())
		}
		return nil
	})
}

// answers fails the test unless the answer is that one, now.
func (t *trial) answers(path, token string, status int, code string) {
	t.Helper()
	a := t.server.Want(t.server.Get(path, token), status, code)
	if status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
		t.Errorf("%s: 503 without Retry-After", path)
	}
}

// refuses waits until a token is refused because it was revoked, which must be within a time of
// a moment, unless the machine is busy.
func (t *trial) refuses(token string, since time.Time, most time.Duration) {
	t.Helper()
	if code := t.server.Refused(token); code != "token_revoked" {
		t.Errorf("a revoked token: %q", code)
	}
	if most > 0 {
		kit.Within(t, "refused", time.Since(since), most, func() { t.server.Status() })
	}
	for _, path := range []string{"/any", "/open", "/ship"} {
		t.answers(path, token, http.StatusUnauthorized, "token_revoked")
	}
}

// revokes revokes a token, which has to be refused within a time of a moment.
func (t *trial) revokes(session string, since time.Time, most time.Duration) {
	t.Helper()
	token := t.token(session)
	t.revoke(session)
	t.refuses(token, since, most)
}

// usual is that good tokens are accepted, and revoked ones soon refused.
func (t *trial) usual() {
	t.Helper()
	t.accepts("/any", t.good)
	t.goesOn(func() { t.revokes(rand.Text(), time.Now(), soon) })
	t.answers("/any", t.gone, http.StatusUnauthorized, "token_revoked")
}

// goesOn fails the test unless a good token is accepted all the time while something is done.
func (t *trial) goesOn(do func()) {
	t.Helper()
	t.accepts("/any", t.good)
	done := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			if a := t.server.Get("/any", t.good); a.Status != http.StatusOK {
				t.Errorf("a good token: %d %s\n%s", a.Status, a.Body, t.server.Log.Tail())
				return
			}
			select {
			case <-done:
				return
			case <-time.After(25 * time.Millisecond):
			}
		}
	})
	defer asking.Wait()
	defer close(done)
	do()
}

// outage is a row in which the feed is out of reach for longer than the bound.
func (t *trial) outage(f testenv.Fault) {
	t.Helper()
	t.accepts("/any", t.good)
	t.link.Set(f)
	t.becomesStale(time.Now())
	t.revoke("meanwhile")
	t.link.Set(testenv.Fault{})
	t.comesBack()
}

// isStale is a row in which the feed is there, and tells nothing that may be believed.
func (t *trial) isStale(f faults) {
	t.Helper()
	t.accepts("/any", t.good)
	t.change(func() {
		t.faults = f
		t.addLocked(revoked.Entry{Kind: revoked.Session, ID: revoked.Digest(revoked.Session, "meanwhile")})
	})
	t.becomesStale(time.Now())
	t.heal()
	t.comesBack()
}

// becomesStale waits until it is not known any more what was revoked, of which nothing was told
// since a moment. No request is answered 200 that begins later than the bound after it.
func (t *trial) becomesStale(since time.Time) {
	t.Helper()
	kit.Eventually(t, func() error {
		asked := time.Since(since)
		a := t.server.Get("/any", t.good)
		if a.Status == http.StatusOK {
			if asked > bound+bound/10 {
				t.Fatalf("accepted %v after the feed was lost", asked)
			}
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		t.server.Want(a, http.StatusServiceUnavailable, "revocation_stale")
		return nil
	})
	t.answers("/any", t.good, http.StatusServiceUnavailable, "revocation_stale")
	t.answers("/ship", t.good, http.StatusServiceUnavailable, "revocation_stale")
	t.answers("/open", t.good, http.StatusOK, "")
	t.answers("/any", t.gone, http.StatusUnauthorized, "token_revoked")
	t.answers("/open", t.gone, http.StatusUnauthorized, "token_revoked")
	if s := t.server.Status(); s.Fresh || s.ConfirmedAge == nil || *s.ConfirmedAge < bound.Milliseconds() {
		t.Errorf("stale, and the status is %+v", s)
	}
}

// comesBack waits until it is known again what was revoked.
func (t *trial) comesBack() {
	t.Helper()
	healed := time.Now()
	t.accepts("/any", t.good)
	t.Logf("it is known again what was revoked after %v", time.Since(healed).Round(time.Millisecond))
	t.refuses(t.token("meanwhile"), healed, 0)
	if s := t.server.Status(); s.Revocations < 2 {
		t.Errorf("it has come back with %+v", s)
	}
}

// byPages is a row in which streams are of no use from the start, and pages bring what was revoked.
func (t *trial) byPages() {
	t.Helper()
	kit.Await(t, "pages in place of a stream", func() bool { return t.streams.Load() > 0 && t.pages.Load() > 1 }, t.server.Log.Tail)
	t.accepts("/any", t.good)
	t.revokes("by pages", time.Now(), soon)
	t.accepts("/any", t.good)
}

// wasBounded fails the test if too much of an endless answer was sent.
func (t *trial) wasBounded() {
	t.Helper()
	kit.Await(t, "the endless answer to be given up", func() bool { return t.sent.Load() > 0 })
	if n := t.sent.Load(); n > mostSent {
		t.Errorf("%d bytes of an endless answer were sent", n)
	}
}
