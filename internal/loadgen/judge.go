package loadgen

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Violation is a kind of broken promise.
type Violation string

// The kinds of violations.
const (
	RevokedAccepted Violation = "revoked token accepted after the bound"
	ValidRejected   Violation = "valid token or password rejected"
	ForgedAccepted  Violation = "forged token accepted"
	LimitOverrun    Violation = "limit overrun"
	WrongAnswer     Violation = "wrong answer"
)

// Violations are all kinds, the worst first.
var Violations = []Violation{RevokedAccepted, ForgedAccepted, ValidRejected, LimitOverrun, WrongAnswer}

// maxExamples bounds how many violations of each kind are kept in words.
const maxExamples = 10

// A judge remembers what was wrong, and counts what limits count.
type judge struct {
	mu       sync.Mutex
	began    time.Time
	counts   map[Violation]int64
	examples map[Violation][]string
	subjects map[int]string // by user
	known    map[int]string // by user: the block from which they have logged in
	rates    []Limit        // that are expected, and that answers have named
	limits   map[limitKey]*tally
	overrun  map[string]bool // by name of a limit, so that each is told once
}

type limitKey struct {
	name, block string
	user        int // -1: of an address
}

func newJudge(expected []Limit) *judge {
	return &judge{
		began: time.Now(), counts: map[Violation]int64{}, examples: map[Violation][]string{}, subjects: map[int]string{},
		known: map[int]string{}, rates: slices.Clone(expected), limits: map[limitKey]*tally{}, overrun: map[string]bool{},
	}
}

func (j *judge) note(v Violation, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.noteLocked(v, format, args...)
}

func (j *judge) noteLocked(v Violation, format string, args ...any) {
	j.counts[v]++
	if len(j.examples[v]) < maxExamples {
		j.examples[v] = append(j.examples[v], fmt.Sprintf("%.1f s: ", time.Since(j.began).Seconds())+fmt.Sprintf(format, args...))
	}
}

// wrong notes a violation and returns its outcome.
func (j *judge) wrong(v Violation, o outcome, base, format string, args ...any) outcome {
	j.note(v, "%s: %s", base, fmt.Sprintf(format, args...))
	if o.failure == "" {
		o.failure = string(v)
	}
	return o
}

func (j *judge) tooLate(o outcome, base string, t *token, late time.Duration) outcome {
	return j.wrong(RevokedAccepted, o, base, "a token is accepted %v after its revocation was answered (jti %s)", late.Round(time.Millisecond), t.ID)
}

func (j *judge) total() (n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.counts {
		n += c
	}
	return n
}

func (j *judge) firstExample() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, v := range Violations {
		if len(j.examples[v]) > 0 {
			return "; " + j.examples[v][0]
		}
	}
	return ""
}

// sameSubject returns an error for a user whose tokens name several subjects.
func (j *judge) sameSubject(user int, subject string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if before, ok := j.subjects[user]; ok && before != subject {
		return errors.New("the token names another subject than the user's earlier one")
	}
	for other, s := range j.subjects {
		if other != user && s == subject {
			return errors.New("the token names the subject of another user")
		}
	}
	j.subjects[user] = subject
	return nil
}

// isKnown reports whether the user has logged in from here. The service counts an account by
// another counter until then.
func (j *judge) isKnown(user int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.known[user]
	return ok
}

func (j *judge) setKnown(user int, block string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.known[user] = block
}

// policies finds limits in RateLimit-Policy.
var policies = regexp.MustCompile(`"((?:login|renew|api)-(?:address|account))";q=(\d{1,9});w=(\d{1,9})`)

// count counts a request of a class in the limits that are expected, and in those that answers
// of the class have named: all replicas have to hold to them, whatever each of them says. known
// reports whether the user had logged in from here when the request began.
func (j *judge) count(class string, user int, known bool, a *answer) {
	if a.err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, found := range policies.FindAllStringSubmatch(a.header.Get("RateLimit-Policy"), -1) {
		n, _ := strconv.Atoi(found[2])
		w, _ := strconv.Atoi(found[3])
		if n > 0 && w > 0 && !slices.ContainsFunc(j.rates, func(l Limit) bool { return l.Name == found[1] }) {
			j.rates = append(j.rates, Limit{found[1], n, time.Duration(w) * time.Second})
		}
	}
	for _, l := range j.rates {
		if !strings.HasPrefix(l.Name, class+"-") {
			continue
		}
		key := limitKey{l.Name, a.block, user}
		if strings.HasSuffix(l.Name, "-address") {
			key.user = -1
		} else if !known || class == "login" && j.known[user] != a.block {
			continue
		}
		t := j.limits[key]
		if t == nil {
			t = &tally{limit: l}
			j.limits[key] = t
		}
		if a.status == http.StatusTooManyRequests {
			t.refused++
			continue
		}
		// The store of the counters may be away, and the request not counted.
		if a.status < 500 && t.allow(a.began, a.ended) && !j.overrun[l.Name] {
			j.overrun[l.Name] = true
			j.noteLocked(LimitOverrun, "%s: %d requests were allowed in %v, though the limit is %d, and as many more in %v",
				l.Name, t.count, a.ended.Sub(t.since).Round(time.Millisecond), l.N, l.Window)
		}
	}
}

// limitOf returns the number of a limit that an answer has named or that is expected.
func (j *judge) limitOf(name string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.rates {
		if l.Name == name {
			return l.N
		}
	}
	return 0
}

// A tally holds the requests that a limit has allowed against it. A rate allows N at once and
// as many more within each window, so that within any time T no more than N + N·T/window
// pass. When the service has counted a request lies between its beginning and its end; the
// tally goes by what is best for the service.
type tally struct {
	limit            Limit
	allowed, refused int64
	count            int64     // of the requests since then
	since            time.Time // the earliest beginning of these
	most             float64   // the most that passed, in what was allowed
}

// allow counts a request that was allowed, and reports whether that is too many. Of the
// stretches of time that end now it looks at the one that says most.
func (t *tally) allow(began, ended time.Time) bool {
	t.allowed++
	since := t.since
	if t.count == 0 || began.Before(since) {
		since = began
	}
	if longer := t.excess(t.count+1, ended.Sub(since)); t.count > 0 && longer >= t.excess(1, ended.Sub(began)) {
		t.count, t.since = t.count+1, since
	} else {
		t.count, t.since = 1, began
	}
	over := t.excess(t.count, ended.Sub(t.since))
	t.most = max(t.most, over/float64(t.limit.N))
	return over > float64(t.limit.N)
}

// excess is how many of the requests have not come back within the time.
func (t *tally) excess(count int64, in time.Duration) float64 {
	return float64(count) - float64(t.limit.N)*in.Seconds()/t.limit.Window.Seconds()
}
