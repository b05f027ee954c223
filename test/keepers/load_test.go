package keepers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A keeperLoad logs in at each replica without a pause, and has every token verified by each.
type keeperLoad struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	logins  map[string]int // by what was answered: "200", or "503 signer_unavailable"
	refused []string       // what was answered to tokens that were not accepted
	last    string         // the latest token
	checks  int
}

func startKeeperLoad(t testing.TB, replicas ...*replica.World) *keeperLoad {
	l := &keeperLoad{stop: make(chan struct{}), logins: map[string]int{}}
	for _, w := range replicas {
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
					l.round(t, w, replicas)
				}
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *keeperLoad) round(t testing.TB, w *replica.World, replicas []*replica.World) {
	a, err := w.Try(w.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}))
	if err != nil {
		t.Errorf("a login: %v", err)
		return
	}
	if a.Status == 503 && a.Header.Get("Retry-After") == "" {
		t.Errorf("a 503 without Retry-After: %s", a.Body)
	}
	var grant httpapi.Grant
	l.mu.Lock()
	outcome := fmt.Sprint(a.Status)
	if a.Status != 200 {
		outcome += " " + a.Code()
	} else if err := json.NewDecoder(bytes.NewReader(a.Body)).Decode(&grant); err != nil {
		t.Error(err)
	}
	l.logins[outcome]++
	if grant.AccessToken != "" {
		l.last = grant.AccessToken
	}
	token := l.last
	l.mu.Unlock()
	if a.Status != 200 {
		time.Sleep(10 * time.Millisecond) // as a client does
	}
	if token == "" {
		return
	}
	for _, other := range replicas {
		v, err := other.Try(other.Request("GET", "/api/verify", token, nil))
		l.mu.Lock()
		l.checks++
		if err != nil || v.Status != 200 {
			l.refused = append(l.refused, fmt.Sprint(v.Status, " ", string(v.Body), err))
		}
		l.mu.Unlock()
	}
}

func (l *keeperLoad) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

// expect ends the load, and fails the test unless every token was accepted and no login had
// another outcome than 200 or one of the others.
func (l *keeperLoad) expect(t testing.TB, others ...string) {
	t.Helper()
	l.end()
	t.Logf("logins: %v; %d verifications", l.logins, l.checks)
	if len(l.refused) > 0 {
		t.Errorf("%d of %d valid tokens refused: %s", len(l.refused), l.checks, l.refused[0])
	}
	for outcome, n := range l.logins {
		allowed := outcome == "200"
		for _, o := range others {
			allowed = allowed || o == outcome
		}
		if !allowed {
			t.Errorf("%d logins were answered %s", n, outcome)
		}
	}
	for _, o := range append(others, "200") {
		if l.logins[o] == 0 {
			t.Errorf("no login was answered %s", o)
		}
	}
}

// count is how many logins had an outcome so far.
func (l *keeperLoad) count(outcome string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.logins[outcome]
}
