package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// What a cluster promises, as it is held against the history of a run:
//
//   - No valid token is rejected: a token that was answered to a client, has not
//     expired and that no client began to revoke is accepted by whatever answers
//     at all, be it a replica, a strict resource server or package verify.
//   - No invalid token is accepted: nothing forged, ever; nothing that has
//     expired, beyond the leeway; nothing revoked, once max_staleness has
//     passed since that was answered.
//   - No session is renewed once its logout was answered.
//   - No request fails but by a trouble that the test made: see trouble.excuses.
//   - A client that tries again, as clients do, is answered in time.

// staleness is the clusters' revocation.max_staleness, its default.
const staleness = 5 * time.Second

// poll is a little more than the clusters' revocation.poll, its default.
const poll = 1500 * time.Millisecond

// leeway is by how much replicas forgive an exp.
const leeway = 5 * time.Second

// An event is one request and its answer.
type event struct {
	at, until time.Time
	who, what string
	replica   string // asked directly; empty: through the load balancer
	line      string // to the load balancer, over which it went, or from which the server that was asked has its knowledge
	served    string // through the load balancer: the replica that answered; empty: none
	token     *issued
	bound     time.Duration // within it, the server that was asked knows what was revoked; 0: it never does
	behind    time.Duration // by how much the clock of the server that was asked may be behind
	status    int           // 0: no answer
	code      string        // of the problem; empty: the load balancer's own answer, or none
	retry     bool          // Retry-After was there
	err       error
}

func (e event) String() string {
	through := e.replica
	if through == "" {
		through = "lb→" + e.served
	}
	return fmt.Sprintf("%s %s by %s at %s: %d %s %v (%d ms)", clock(e.at), e.what, e.who, through, e.status, e.code, e.err, e.until.Sub(e.at).Milliseconds())
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// own reports whether a replica itself asked to come again later.
func (e event) own503() bool { return e.status == 503 && e.code != "" && e.retry }

// balancer reports whether the load balancer answered in a replica's place.
func (e event) balancer() bool {
	return e.replica == "" && e.code == "" && (e.status == 502 || e.status == 503 || e.status == 504)
}

// An issued token is one that a client was answered.
type issued struct {
	compact string
	kid     string
	expires time.Time
	got     time.Time

	mu      sync.Mutex
	leaving time.Time // a logout was sent for the first time
	ended   time.Time // a logout was answered
}

func (t *issued) logoutSent(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leaving.IsZero() {
		t.leaving = now
	}
}

func (t *issued) logoutAnswered(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = now
}

// validUntil reports whether the token was valid from its issue to that moment.
func (t *issued) validUntil(moment time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return moment.Before(t.expires) && (t.leaving.IsZero() || moment.Before(t.leaving))
}

// deadAt reports whether the token must not be accepted from that moment on by a server
// that learns within bound what was revoked, and whose clock is behind.
func (t *issued) deadAt(moment time.Time, bound, behind time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return moment.After(t.expires.Add(leeway+behind)) || bound > 0 && !t.ended.IsZero() && moment.After(t.ended.Add(bound))
}

// keysUnavailable is the code of verify.ErrKeysUnavailable, and of a strict resource
// server whose key set is too old to say that there is no such key. keyTimeout is for
// how long either waits for a key set at most.
const (
	keysUnavailable = "key_set_unavailable"
	keyTimeout      = requestTime
)

// registryUnavailable is the code with which a replica refuses an unknown kid while its
// last look at the registry has failed. It looks every second, also when the database is
// back and it is ready; registryPoll is that and the time of a look.
const (
	registryUnavailable = "keys_unavailable"
	registryPoll        = 2 * time.Second
)

// renewAfterLogout is a renewal that must be refused.
const renewAfterLogout = "renew after logout"

// A kind of trouble.
type kind string

const (
	killed      kind = "kill -9"
	terminated  kind = "SIGTERM"
	frozen      kind = "SIGSTOP"
	unreachable kind = "load balancer cut off from replica"
	cutOff      kind = "replica cut off from database"
	database    kind = "database restarted"
	offline     kind = "cut off from the load balancer"
	starved     kind = "the machine was too busy"
)

// The lines to the load balancer: the clients of one are offline together.
const (
	people  = "clients"
	servers = "resource servers"
)

// A trouble is what the test did to a replica or to a line, and lasts until that was
// ready again.
type trouble struct {
	kind     kind
	where    string // empty: every replica
	from, to time.Time
}

// excuses reports whether a request may fail because of the trouble:
//
//   - kill -9: no answer, or the load balancer's 502, 503 or 504 in its place; and
//     503 with Retry-After of the next process, before the load balancer has noticed
//     that this one is not ready yet.
//   - SIGTERM: a client that asks the replica directly may be refused a connection;
//     behind the load balancer no client notices.
//   - SIGSTOP: as kill -9, and 503 with Retry-After until it is ready.
//   - the load balancer cannot reach it: as kill -9, but not for a client that asks directly.
//   - a resource server may say that it cannot look up a key while it waits for the
//     key set from a process that was killed or stopped, or was cut off from the load
//     balancer, or while it is offline itself.
//   - offline: no answer, for the clients of that line.
//   - it cannot reach the database: 503 with Retry-After; to verify, only when
//     max_staleness has passed; to the key set, never.
//   - the machine was too busy or stood still, which is no fault of the cluster: no answer, 503
//     with Retry-After but for the key set, or the load balancer's in a replica's place.
//     What is answered must be right all the same.
func (t *trouble) excuses(e event) bool {
	if e.code == keysUnavailable { // the fetch began before
		e.at = e.at.Add(-keyTimeout)
	}
	if e.code == registryUnavailable && (t.kind == database || t.kind == cutOff) {
		e.at = e.at.Add(-registryPoll)
	}
	if !e.until.After(t.from) || !t.to.IsZero() && e.at.After(t.to) {
		return false
	}
	none := e.status == 0
	if t.kind == starved {
		return none || e.own503() && e.what != "keys" || e.balancer()
	}
	if t.kind == offline {
		return e.line == t.where && (none || e.code == keysUnavailable)
	}
	if e.code == keysUnavailable {
		return t.kind == killed || t.kind == frozen || t.kind == unreachable
	}
	direct := e.replica != ""
	if t.where != "" && (direct && e.replica != t.where || !direct && e.served != t.where && e.served != "") {
		return false
	}
	switch t.kind {
	case killed:
		return none || e.balancer() || !direct && e.own503()
	case terminated:
		return none && direct
	case frozen:
		return none || e.balancer() || e.own503()
	case unreachable:
		return !direct && (none || e.balancer())
	case cutOff, database:
		if e.what == "keys" {
			return false
		}
		if e.what == "verify" && e.until.Before(t.from.Add(staleness-2*time.Second)) {
			return false
		}
		return e.own503() || !direct && (none || e.balancer())
	}
	return false
}

// A history is everything that happened.
type history struct {
	mu       sync.Mutex
	events   []event
	troubles []*trouble
	faults   map[string]int // by name
	tokens   []*issued
	wrong    []string // found on the way
}

func (h *history) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

func (h *history) violation(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = append(h.wrong, fmt.Sprintf(format, args...))
}

// count notes that a fault was made.
func (h *history) count(fault string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.faults == nil {
		h.faults = map[string]int{}
	}
	h.faults[fault]++
}

// begin notes a trouble, which lasts until end.
func (h *history) begin(k kind, where string) (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &trouble{kind: k, where: where, from: time.Now()}
	h.troubles = append(h.troubles, t)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		t.to = time.Now()
	}
}

func (h *history) issue(t *issued) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens = append(h.tokens, t)
}

// live are the tokens that may still be presented to a server: also for a while
// after they ended.
func (h *history) live() []*issued {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*issued
	for _, t := range slices.Backward(h.tokens) {
		if time.Since(t.got) > 2*time.Minute {
			break
		}
		if time.Since(t.expires) < leeway+10*time.Second {
			list = append(list, t)
		}
	}
	return list
}

// judge says what is wrong with an event.
func (h *history) judge(e event) string {
	good := e.status >= 200 && e.status < 300 || e.status == 304
	switch {
	case e.what == "forged" && good:
		return "a forged token was accepted"
	case e.token != nil && good && e.token.deadAt(e.at, e.bound, e.behind):
		return "a dead token was accepted"
	case e.what == renewAfterLogout && good:
		return "a session was renewed after its logout"
	case e.what == renewAfterLogout && e.status == 401:
		return ""
	case e.what == "logout" && e.status == 401:
		// It was done before, and that answer was lost; or it came too late.
		if e.code != "token_revoked" && e.until.Before(e.token.expires) {
			return "a valid token was rejected"
		}
		return ""
	case e.token != nil && e.status == 401 && e.token.validUntil(e.until):
		return "a valid token was rejected"
	case e.token != nil && (good || e.status == 401):
		return ""
	case e.what == "forged" && (e.status == 401 || e.code == keysUnavailable), good:
		return ""
	case e.token != nil && e.at.After(e.token.expires): // by now nobody need know it
		return ""
	}
	for _, t := range h.troubles {
		if t.excuses(e) {
			return ""
		}
	}
	if machine.excuses(e) {
		return ""
	}
	return "a request failed"
}

// report judges everything and prints the summary.
func (h *history) report(t *testing.T) {
	t.Helper()
	machine.awaitJudged(t.Context(), time.Now())
	h.mu.Lock()
	defer h.mu.Unlock()
	wrong := slices.Clone(h.wrong)
	counts := map[string]int{}
	accepted, rejected, failed := 0, 0, 0
	for _, e := range h.events {
		counts[e.what]++
		switch {
		case e.what != "verify" && e.what != "forged":
		case e.status == 200:
			accepted++
		case e.status == 401:
			rejected++
		}
		if e.status == 0 || e.status >= 500 {
			failed++
		}
		if verdict := h.judge(e); verdict != "" {
			about := ""
			if e.token != nil {
				about = fmt.Sprintf(", token of %s, got %s, expires %s, revoked %s", e.token.kid, clock(e.token.got), clock(e.token.expires), clock(e.token.ended))
			}
			wrong = append(wrong, verdict+": "+e.String()+about)
		}
	}
	summarise(t, "seed %d", *seed)
	summarise(t, "%d tokens issued by %d keys, verified %d times (%d accepted, %d rejected), %d requests in all, %d failed on a broken part",
		len(h.tokens), len(h.kids()), counts["verify"]+counts["forged"], accepted, rejected, len(h.events), failed)
	summarise(t, "requests: %s", list(counts))
	summarise(t, "faults: %s", list(h.faults))
	for who, took := range h.lastAccepted() {
		summarise(t, "last accepted after the logout's answer by %s: %s (%d tokens)", who, spread(took), len(took))
	}
	summarise(t, "violations: %d; the machine was too busy %d times since the first test began", len(wrong), machine.times())
	if len(wrong) > 0 {
		for _, tr := range append(slices.Clone(h.troubles), machine.troubles()...) {
			to := "the end"
			if !tr.to.IsZero() {
				to = clock(tr.to)
			}
			t.Logf("trouble: %s %s from %s to %s", tr.kind, tr.where, clock(tr.from), to)
		}
	}
	for i, w := range wrong {
		if i == 40 {
			t.Errorf("… and %d more", len(wrong)-i)
			break
		}
		t.Error(w)
	}
	same := map[string]int{}
	for _, w := range wrong {
		verdict, rest, _ := strings.Cut(w, ": ")
		_, rest, _ = strings.Cut(rest, " ")
		about, _, _ := strings.Cut(rest, " (")
		same[verdict+": "+about]++
	}
	for _, what := range slices.Sorted(maps.Keys(same)) {
		t.Logf("%6d × %s", same[what], what)
	}
}

// summarise prints a line that scripts/test.sh shows of a test that succeeds, too.
func summarise(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("summary: %s: %s", t.Name(), fmt.Sprintf(format, args...))
}

// presented reports whether a valid token of a key that is not in a set was presented to a
// replica after a moment.
func (h *history) presented(replica string, after time.Time, set *accesstoken.KeySet) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range slices.Backward(h.events) {
		if e.at.Before(after.Add(-patience)) {
			break
		}
		if e.replica != replica || e.token == nil || !e.at.After(after) {
			continue
		}
		if _, known := set.Key(e.token.kid); !known && e.token.validUntil(e.until) {
			return true
		}
	}
	return false
}

// recent are the last requests.
func (h *history) recent() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, e := range h.events[max(0, len(h.events)-200):] {
		b.WriteString(e.String() + "\n")
	}
	return b.String() + strings.Join(h.wrong, "\n")
}

// lastAccepted is, for each kind of server that learns what was revoked, and of each
// token that they were asked about after its logout was answered, how long after that
// the last request began that they accepted; 0: none.
func (h *history) lastAccepted() map[string][]time.Duration {
	kinds := map[time.Duration]string{staleness: "replicas", verify.DefaultMaxStaleness: "package verify"}
	last := map[string]map[*issued]time.Duration{}
	for _, e := range h.events {
		kind := kinds[e.bound]
		if kind == "" || e.what != "verify" || e.status == 0 || e.token.ended.IsZero() || !e.at.After(e.token.ended) {
			continue
		}
		if last[kind] == nil {
			last[kind] = map[*issued]time.Duration{}
		}
		after := time.Duration(0)
		if e.status == 200 {
			after = e.at.Sub(e.token.ended)
		}
		last[kind][e.token] = max(last[kind][e.token], after)
	}
	took := map[string][]time.Duration{}
	for kind, tokens := range last {
		took[kind] = slices.Collect(maps.Values(tokens))
	}
	return took
}

func (h *history) kids() map[string]bool {
	kids := map[string]bool{}
	for _, t := range h.tokens {
		kids[t.kid] = true
	}
	return kids
}

func list(counts map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(parts, ", ")
}
