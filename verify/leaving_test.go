package verify_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// faultyReplica is one replica of three behind a load balancer, which goes on sending
// every third request to it.
type faultyReplica struct {
	front *front
	// answer is what it does with a request while the fault lasts.
	answer func(r *faultyReplica, w http.ResponseWriter, req *http.Request)
	// noStreams: a proxy before the three refuses every stream, so that pages are read,
	// which the server holds back until there is something to tell.
	noStreams bool

	mu     sync.Mutex
	began  chan struct{} // closed when the fault begins
	ended  chan struct{} // closed when it ends
	asked  atomic.Int64  // requests that the balancer has passed on
	known  revoked.Page  // the head at the beginning of the fault
	wasHit atomic.Int64  // requests that met the fault
}

func (r *faultyReplica) state() (began, ended chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.began, r.ended
}

func (r *faultyReplica) heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		close(r.ended)
	}
	r.began, r.ended = make(chan struct{}), make(chan struct{})
}

// breakDown begins the fault.
func (r *faultyReplica) breakDown(t *testing.T) {
	record := httptest.NewRecorder()
	r.front.issuer.ServeHTTP(record, httptest.NewRequest("GET", "/api/revocations", nil))
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := json.Unmarshal(record.Body.Bytes(), &r.known); err != nil {
		t.Fatal(err)
	}
	close(r.began)
}

// balance passes a request to the next replica. Until the fault begins, that is always
// the faulty one.
func (r *faultyReplica) balance(w http.ResponseWriter, req *http.Request) {
	began, _ := r.state()
	isBroken := false
	select {
	case <-began:
		isBroken = true
	default:
	}
	switch {
	case isStream(req) && r.noStreams:
		fail(w, req)
	case !isBroken:
		r.serve(w, req)
	case isBroken && r.asked.Add(1)%3 == 0:
		r.wasHit.Add(1)
		r.answer(r, w, req)
	default:
		r.front.issuer.ServeHTTP(w, req)
	}
}

// serve answers as the issuer does until the fault begins, which may happen in the middle
// of a stream, or of a page that is held back.
func (r *faultyReplica) serve(w http.ResponseWriter, req *http.Request) {
	began, _ := r.state()
	g := &gate{ResponseWriter: w, header: http.Header{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.front.issuer.ServeHTTP(g, req)
	}()
	select {
	case <-began:
		g.shut()
		r.wasHit.Add(1)
		r.answer(r, w, req)
		<-done
	case <-done:
	}
}

// A gate lets an answer through until it is shut.
type gate struct {
	http.ResponseWriter
	header http.Header

	mu             sync.Mutex // also while something is let through
	isShut, headed bool
}

func (g *gate) Flush() {}

func (g *gate) Header() http.Header { return g.header }

func (g *gate) WriteHeader(status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.isShut {
		g.writeHeaderLocked(status)
	}
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isShut {
		return len(p), nil
	}
	g.writeHeaderLocked(http.StatusOK)
	return g.ResponseWriter.Write(p)
}

func (g *gate) writeHeaderLocked(status int) {
	if g.headed {
		return
	}
	g.headed = true
	maps.Copy(g.ResponseWriter.Header(), g.header)
	g.ResponseWriter.WriteHeader(status)
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = true
}

// freezes accepts connections and says nothing more on any, like a stopped process.
func freezes(r *faultyReplica, _ http.ResponseWriter, req *http.Request) {
	_, ended := r.state()
	select {
	case <-ended:
	case <-req.Context().Done():
	}
}

// freezesWithin is frozen when it has sent a part of its answer.
func freezesWithin(r *faultyReplica, w http.ResponseWriter, req *http.Request) {
	text := `{"log":`
	w.Header().Set("Content-Type", "application/json")
	if isStream(req) {
		text = "event: resume\n"
		w.Header().Set("Content-Type", "text/event-stream")
	}
	_, _ = io.WriteString(w, text) // the reader may have left
	freezes(r, w, req)
}

// dies resets connections.
func dies(*faultyReplica, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// losesItsLog answers and knows nothing new, like a replica that is cut off from the
// database and from its peers.
func losesItsLog(r *faultyReplica, w http.ResponseWriter, req *http.Request) {
	state := func(format string) {
		now := r.known
		now.Age = time.Since(now.AsOf).Milliseconds()
		text, _ := json.Marshal(now)
		fmt.Fprintf(w, format, text)
	}
	if !isStream(req) {
		w.Header().Set("Content-Type", "application/json")
		state("%s")
		return
	}
	_, ended := r.state()
	w.Header().Set("Content-Type", "text/event-stream")
	state("event: resume\ndata: %s\n\n")
	for {
		state("event: head\ndata: %s\n\n")
		select {
		case <-time.After(time.Second):
		case <-ended:
			return
		case <-req.Context().Done():
			return
		}
	}
}

// soak reports whether long tests are to run in their long form.
func soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// One replica of three is frozen, killed or cut off, and the load balancer does not
// notice: a resource server learns of revocations from the others before half of the
// bound has passed, so that no client is answered 503 because of that replica.
func TestOneBadReplicaOfThreeIsLeftInTime(t *testing.T) {
	rounds := 4
	if soak() {
		rounds = 60
	}
	var reached []string
	for name, c := range map[string]struct {
		fault     func(*faultyReplica, http.ResponseWriter, *http.Request)
		noStreams bool
	}{
		"frozen": {freezes, false}, "killed": {dies, false}, "cut off": {losesItsLog, false},
		"frozen, without streams": {freezes, true}, "killed, without streams": {dies, true}, "cut off, without streams": {losesItsLog, true},
		"frozen within an answer": {freezesWithin, false}, "frozen within an answer, without streams": {freezesWithin, true},
	} {
		for _, bound := range []time.Duration{verify.DefaultMaxStaleness, 30 * time.Second} {
			t.Run(fmt.Sprint(name, " ", bound), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFront(t)
					r := &faultyReplica{front: f, answer: c.fault, noStreams: c.noStreams}
					r.heal()
					f.onlyFeed(r.balance)
					v := start(t, f, func(c *verify.Config) { c.MaxStaleness = bound })
					settle()
					longest := time.Duration(0)
					const often = 100 * time.Millisecond // how often it is asked what is known
					for round := range rounds {
						time.Sleep(time.Duration(2000+274*round) * time.Millisecond) // at another place between two heartbeats
						r.breakDown(t)
						jti := strconv.Itoa(round)
						f.issuer.Revoke(revoked.Token, jti)
						for range int(3 * bound / often) {
							time.Sleep(often)
							longest = max(longest, time.Since(v.Status().Confirmed))
						}
						expect(t, v, f.issuer.Sign("u", map[string]any{"jti": jti}), verify.ErrRevoked)
						expect(t, v, f.issuer.Token("u", nil), nil)
						r.heal()
						f.broken.Swap(newBreaker()).cancel() // the next stream is at this replica again
					}
					t.Logf("the longest staleness is %v; %d requests met the fault", longest, r.wasHit.Load())
					if bound == verify.DefaultMaxStaleness {
						reached = append(reached, fmt.Sprintf("%s %v", name, longest.Round(10*time.Millisecond)))
					}
					if longest+often >= bound/2 {
						t.Errorf("it knew nothing new for %v, want less than half of %v", longest, bound)
					}
					if r.wasHit.Load() < int64(rounds) {
						t.Errorf("only %d requests met the fault: this has tested nothing", r.wasHit.Load())
					}
				})
			})
		}
	}
	slices.Sort(reached)
	t.Logf("summary: longest staleness of %v: %s", verify.DefaultMaxStaleness, strings.Join(reached, "; "))
}
