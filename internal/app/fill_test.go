package app

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/store"
)

// rows returns how many events the audit trail has.
func (w *world) rows() (n int) {
	w.t.Helper()
	q := store.AuditQuery{Limit: 1000}
	for {
		page, err := w.node.store.AuditEvents(w.t.Context(), q)
		if err != nil {
			w.t.Fatal(err)
		}
		n += len(page.Events)
		if q.Before = page.Next; page.Next == "" {
			return n
		}
	}
}

// keyOf returns the kid of a token.
func keyOf(t *testing.T, token string) string {
	t.Helper()
	text, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	var header struct{ KID string }
	if err == nil {
		err = json.Unmarshal(raw, &header)
	}
	if err != nil {
		t.Fatal(err)
	}
	return header.KID
}

// What is done already, and what cannot be done, is written nowhere, in no use case.
func TestWhatChangesNothingWritesNothing(t *testing.T) {
	w := newWorld(t, nil)
	tester := w.user("tester", "log=r")
	admin, me, other, third := w.login("admin").AccessToken, w.login("tester"), w.login("tester"), w.login("tester")
	group := decode[httpapi.Group](t, w.want(w.do("POST", "/api/groups", admin, httpapi.NewGroup{Name: "g"}), 201, ""))
	claim := decode[httpapi.Claim](t, w.want(w.do("POST", "/api/claims", admin, httpapi.NewClaim{Name: "c", ShortName: "c", Value: "v"}), 201, ""))
	gone := decode[httpapi.User](t, w.want(w.do("POST", "/api/users", admin, httpapi.NewUser{Username: "gone"}), 201, ""))
	keyID := keyOf(t, admin)
	type call struct {
		method, path, token string
		body                any
		first, again        int // statuses
	}
	revoke := func(token string, body map[string]any) call {
		return call{"POST", "/api/revocations", token, body, 200, 200}
	}
	calls := []call{
		{"PATCH", "/api/users/tester", admin, map[string]any{"first_name": "T", "disabled": false}, 200, 200},
		{"PATCH", "/api/users/tester", admin, map[string]any{}, 200, 200},
		{"POST", "/api/users/tester/groups", admin, httpapi.GroupRef{Group: "g"}, 204, 204},
		{"POST", "/api/groups/g/claims", admin, httpapi.ClaimRef{Claim: "c"}, 204, 204},
		{"DELETE", "/api/groups/g/claims/c", admin, nil, 204, 204},
		{"DELETE", "/api/users/tester/groups/g", admin, nil, 204, 204},
		{"PATCH", "/api/groups/" + group.ID, admin, map[string]any{"name": "gg"}, 200, 200},
		{"PATCH", "/api/claims/" + claim.ID, admin, map[string]any{"value": "w"}, 200, 200},
		{"DELETE", "/api/groups/" + group.ID, admin, nil, 204, 404},
		{"DELETE", "/api/claims/" + claim.ID, admin, nil, 204, 404},
		{"DELETE", "/api/users/" + gone.ID, admin, nil, 204, 404},
		{"POST", "/api/users", admin, httpapi.NewUser{Username: "tester"}, 409, 409},
		revoke(admin, map[string]any{"jti": w.verify(third.AccessToken)["jti"]}),
		revoke(admin, map[string]any{"session_id": "0198c8c4-2f5e-4a63-9f3e-6b1d2f0c9a11"}),
		{"POST", "/api/revocations", admin, map[string]any{"user": "nobody"}, 404, 404},
	}
	// The membership has ended, and with it these tokens: log in again.
	for i, c := range calls[:len(calls)-3] {
		w.twice(i, c.method, c.path, c.token, c.body, c.first, c.again)
	}
	me, other, third = w.login("tester"), w.login("tester"), w.login("tester")
	own := append(calls[len(calls)-3:],
		revoke(me.AccessToken, map[string]any{"user": tester, "issued_before": time.Now().Add(-time.Hour).Unix()}),
		revoke(me.AccessToken, map[string]any{"token": other.AccessToken}),
		revoke(me.AccessToken, map[string]any{"session_id": other.SessionID}),
		call{"DELETE", "/api/sessions/" + third.SessionID, me.AccessToken, nil, 204, 404},
		call{"DELETE", "/api/sessions", me.AccessToken, nil, 204, 204},
		call{"POST", "/api/logout", me.AccessToken, nil, 204, 204},
		revoke(admin, map[string]any{"kid": keyID}),
	)
	own[0].body = map[string]any{"jti": w.verify(third.AccessToken)["jti"]}
	for i, c := range own {
		if again := strings.Contains(fmt.Sprint(c.body), keyID); again {
			// The administrator's own token was signed by that key.
			w.want(w.do(c.method, c.path, c.token, c.body), 200, "")
			w.await("another key signs", func() bool { return w.node.Ready() == nil })
			c.token = w.login("admin").AccessToken
			c.first = c.again
		}
		w.twice(100+i, c.method, c.path, c.token, c.body, c.first, c.again)
	}
}

// twice has a call made two times, and fails if the second one writes anything.
func (w *world) twice(i int, method, path, token string, body any, first, again int) {
	w.t.Helper()
	if a := w.do(method, path, token, body); a.status != first {
		w.t.Fatalf("%d %s %s: %d %s", i, method, path, a.status, a.body)
	}
	rows, head := w.rows(), w.head()
	a := w.do(method, path, token, body)
	if a.status != again {
		w.t.Errorf("%d %s %s %v again: %d %s", i, method, path, body, a.status, a.body)
	}
	if r, h := w.rows(), w.head(); r != rows || h != head {
		w.t.Errorf("%d %s %s %v again writes %d events and %d entries", i, method, path, body, r-rows, h-head)
	}
}

// Many requests at one moment that end one session, or revoke everything of the user who
// makes them, write one entry and one event.
func TestManyRequestsForOneRevocation(t *testing.T) {
	w := newWorld(t, nil)
	tester := w.user("tester")
	for name, c := range map[string]struct {
		path string
		body any
		ok   int
	}{
		"logout": {"/api/logout", nil, 204}, "session": {"/api/revocations", nil, 200}, "user": {"/api/revocations", map[string]any{"user": tester}, 200},
	} {
		g := w.login("tester")
		if name == "session" {
			c.body = map[string]any{"session_id": g.SessionID}
		}
		rows, head := w.rows(), w.head()
		var all sync.WaitGroup
		begin := make(chan struct{})
		statuses := make(chan int, 30)
		for range cap(statuses) {
			all.Go(func() {
				<-begin
				statuses <- w.do("POST", c.path, g.AccessToken, c.body).status
			})
		}
		close(begin)
		all.Wait()
		close(statuses)
		done := 0
		for status := range statuses {
			switch status {
			case c.ok:
				done++
			case 401:
			default:
				t.Errorf("%s: %d", name, status)
			}
		}
		if h := w.head() - head; done == 0 || h != 1 {
			t.Errorf("%s: %d are done, %d entries are written", name, done, h)
		}
		// Those that have joined the first one may have an event each.
		if r := w.rows() - rows; r < 1 || r > done {
			t.Errorf("%s: %d are done, %d events are written", name, done, r)
		}
		w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
	}
}

// An ordinary user writes a bounded number of events and entries, whatever they do, and is
// answered 429 where more would be written. What ends sessions is never refused. What an
// administrator does to others is always there.
func TestAnOrdinaryUserDoesNotFillTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that no budget grows while the machine works
		w := newQuietWorld(t, nil)
		tester := w.user("tester")
		w.user("other")
		admin := w.login("admin").AccessToken
		attack := func(what string, tries int, rows, entries int64, f func(i int) (answer, bool)) {
			t.Helper()
			before, head, refused := w.rows(), w.head(), 0
			for i := range tries {
				a, mayBeRefused := f(i)
				if a.status == 429 {
					refused++
					if !mayBeRefused || a.header.Get("Retry-After") == "" {
						t.Fatalf("%s: %v %s", what, a.header, a.body)
					}
				}
			}
			r, h := int64(w.rows()-before), w.head()-head
			t.Logf("%s: %d events, %d entries, %d of %d are answered 429", what, r, h, refused, tries)
			if r > rows || h > entries {
				t.Errorf("%s: %d events and %d entries, want %d and %d at most", what, r, h, rows, entries)
			}
		}
		g := w.login("tester")
		attack("refusals", 50, 31, 0, func(int) (answer, bool) {
			return w.do("POST", "/api/users", g.AccessToken, httpapi.NewUser{Username: "x"}), false
		})
		attack("ending nothing", 20, 0, 0, func(int) (answer, bool) { return w.do("DELETE", "/api/sessions", g.AccessToken, nil), false })
		attack("revoking up to a moment", 100, 30, 60, func(i int) (answer, bool) {
			return w.do("POST", "/api/revocations", g.AccessToken, map[string]any{"user": tester, "issued_before": 1_000_000 + i}), true
		})
		attack("guessing", 50, 31, 0, func(int) (answer, bool) {
			return w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: "wrong"}), false
		})
		attack("guessing the own password", 50, 31, 0, func(int) (answer, bool) {
			return w.do("PUT", "/api/me/password", g.AccessToken, map[string]string{"current_password": "wrong password", "new_password": "another password"}), false
		})
		attack("logging in and out", 620, 30, 600, func(int) (answer, bool) {
			a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: password})
			if a.status == 200 {
				a = w.want(w.do("POST", "/api/logout", decode[httpapi.Grant](t, a).AccessToken, nil), 204, "")
			}
			return a, true
		})

		// All budgets are spent. The others have their own, and an administrator none for
		// what concerns others.
		w.login("other")
		before := w.rows()
		for range 100 {
			w.want(w.do("POST", "/api/revocations", admin, map[string]any{"user": "other"}), 200, "")
		}
		if r := w.rows() - before; r != 100 {
			t.Errorf("%d events of 100 that an administrator caused", r)
		}
		w.want(w.do("POST", "/api/revocations", g.AccessToken, map[string]any{"user": tester}), 200, "")
		w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")

		a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: password})
		w.want(a, 429, "logging_in_too_fast")
		time.Sleep(2 * time.Second)
		w.login("tester")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		admin = w.login("admin").AccessToken
		var stands int
		for _, e := range w.Trail(admin, url.Values{"actor": {tester}, "action": {"logout"}}) {
			var n int
			if _, err := fmt.Sscanf(e.Detail, "%d times", &n); err != nil {
				n = 1
			}
			stands += n
		}
		if stands != 599 { // 600 logins, one of them for the attacks before
			t.Errorf("the events stand for %d logouts, want 599", stands)
		}
	})
}

// Whoever guesses at one account is seen by its id, and nothing else tells that it exists.
func TestGuessesAreInTheAuditTrail(t *testing.T) {
	w := newWorld(t, nil)
	tester := w.user("tester")
	admin := w.login("admin").AccessToken
	w.want(w.do("PATCH", "/api/users/"+w.user("disabled"), admin, map[string]any{"disabled": true}), 200, "")
	rows := w.rows()
	known := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: "wrong"})
	unknown := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "nobody", Password: "wrong"})
	disabled := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "disabled", Password: password})
	for _, a := range []answer{known, unknown, disabled} {
		w.want(a, 401, "invalid_credentials")
		for _, name := range []string{"Date", "X-Request-Id"} { // of each answer
			known.header.Set(name, a.header.Get(name))
		}
		if string(a.body) != string(known.body) || fmt.Sprint(a.header) != fmt.Sprint(known.header) {
			t.Errorf("%v %s\nand %v %s", a.header, a.body, known.header, known.body)
		}
	}
	got := w.Trail(admin, url.Values{"target": {tester}, "outcome": {"denied"}})
	if len(got) != 1 || got[0].Action != "login" || got[0].Actor != "" || got[0].Address != "127.0.0.1" || got[0].Detail != "invalid_credentials" {
		t.Errorf("%+v", got)
	}
	w.want(w.do("GET", "/api/audit", admin, nil), 200, "")
	if r := w.rows() - rows; r != 2 {
		t.Errorf("%d events, want those of the two who exist", r)
	}
	if log := w.log.String(); strings.Contains(log, "nobody") || strings.Count(log, "login refused") != 3 {
		t.Errorf("the log: %s", log)
	}
}
