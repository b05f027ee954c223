package app

import (
	"fmt"
	"net/url"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

const another = "another battery staple"

// changePassword changes the own password of a token's holder.
func (w *world) changePassword(token, current, next string) answer {
	w.t.Helper()
	return w.do("PUT", "/api/me/password", token, map[string]string{"current_password": current, "new_password": next})
}

func TestUsersChangeTheirOwnPassword(t *testing.T) {
	w := newWorld(t, nil)
	tester := w.user("tester", "log=r")
	me, thief := w.login("tester"), w.login("tester")
	rows, head := w.rows(), w.head()
	for _, c := range []struct {
		current, next string
		status        int
		code          string
	}{
		{"wrong password", another, 401, "invalid_credentials"},
		{"\x00", another, 401, "invalid_credentials"},
		{password, password, 422, "password_unchanged"},
		{password, "short", 422, "password_too_short"},
		{password, "", 422, "invalid_request"},
		{"", another, 422, "invalid_request"},
	} {
		w.want(w.changePassword(me.AccessToken, c.current, c.next), c.status, c.code)
	}
	if r, h := w.rows()-rows, w.head()-head; r != 2 || h != 0 {
		t.Errorf("refusals write %d events and %d entries", r, h)
	}
	w.want(w.changePassword("", password, another), 401, "token_missing")

	mine := decode[httpapi.Grant](t, w.want(w.changePassword(me.AccessToken, password, another), 200, ""))
	if mine.SessionID == me.SessionID || mine.TokenType != "Bearer" {
		t.Errorf("%+v", mine)
	}
	for _, old := range []httpapi.Grant{me, thief} {
		w.want(w.do("GET", "/api/verify", old.AccessToken, nil), 401, "token_revoked")
		_, a := w.renew(old.RefreshToken)
		w.want(a, 401, "invalid_refresh_token")
	}
	w.verify(mine.AccessToken)
	if _, a := w.renew(mine.RefreshToken); a.status != 200 {
		t.Errorf("the new session cannot be renewed: %s", a.body)
	}
	list := decode[httpapi.SessionList](t, w.want(w.do("GET", "/api/sessions", mine.AccessToken, nil), 200, ""))
	if len(list.Sessions) != 1 || !list.Sessions[0].Current {
		t.Errorf("%+v", list)
	}
	for secret, status := range map[string]int{password: 401, another: 200} {
		if a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: secret}); a.status != status {
			t.Errorf("%q: %d %s", secret, a.status, a.body)
		}
	}
	admin := w.login("admin").AccessToken
	done := w.Trail(admin, url.Values{"target": {tester}, "action": {"user.password"}})
	if len(done) != 3 || done[0].Actor != tester || done[0].Outcome != "ok" || done[1].Outcome != "denied" || done[1].Actor != tester || done[1].Address == "" {
		t.Errorf("%+v", done)
	}
}

// Nobody gets past the question for the present password, whatever they may do to others.
func TestNobodySetsTheirOwnPassword(t *testing.T) {
	w := newWorld(t, nil)
	delegate := w.user("delegate", "admin=users:write")
	w.user("tester")
	admin := w.login("admin")
	adminID := fmt.Sprint(w.verify(admin.AccessToken)["sub"])
	patch := map[string]any{"password": another, "first_name": "X"}
	token := w.login("delegate").AccessToken
	for _, id := range []string{delegate, "delegate", "DELEGATE"} {
		w.want(w.do("PATCH", "/api/users/"+id, token, patch), 403, "own_password")
	}
	for _, id := range []string{adminID, "admin"} {
		w.want(w.do("PATCH", "/api/users/"+id, admin.AccessToken, patch), 403, "own_password")
	}
	w.want(w.do("PATCH", "/api/users/admin", admin.AccessToken, map[string]any{"first_name": "X"}), 200, "")
	w.login("admin")
	w.login("delegate")
	w.want(w.do("PATCH", "/api/users/tester", token, patch), 200, "")
	w.want(w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: password}), 401, "invalid_credentials")
}

// No session that was begun with the old password is left when the change has been answered,
// and of several changes at one moment one is made, whichever replicas are asked.
func TestAPasswordChangeBesideLogins(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	patient := func(cfg *config.Config) { cfg.Database.AcquireTimeout = config.MaxAcquireTimeout } // each is done again for as long
	worlds := []*world{join(t, database, patient), join(t, database, patient)}
	kit.SameKeySet(t, 2, &worlds[0].Client, &worlds[1].Client)
	worlds[0].user("tester")
	current, rounds := password, 2
	if kit.Soak() {
		rounds = 8
	}
	for round := range rounds {
		next, former := fmt.Sprint("password number ", round), current
		var first httpapi.Grant
		for _, w := range worlds {
			a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: former})
			first = decode[httpapi.Grant](t, w.want(a, 200, ""))
		}
		worlds[0].accepts(first.AccessToken)
		worlds[1].accepts(first.AccessToken)

		var mu sync.Mutex
		old := []httpapi.Grant{first} // that the old password, or a session of it, has given
		keep := func(a answer) bool {
			if a.status != 200 {
				return false
			}
			mu.Lock()
			defer mu.Unlock()
			old = append(old, decode[httpapi.Grant](t, a))
			return true
		}
		ended := make(chan struct{})
		var beside, changes sync.WaitGroup
		for i := range 4 {
			beside.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-ended:
						return
					default:
					}
					w := worlds[(i+n)%2]
					a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: former})
					if !keep(a) {
						continue
					}
					keep(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: decode[httpapi.Grant](t, a).RefreshToken}))
				}
			})
		}
		type change struct {
			answer
			to string
		}
		answers := make(chan change, 4)
		for i := range cap(answers) {
			changes.Go(func() {
				to := fmt.Sprint(next, " ", i)
				a := kit.Patiently(func() answer { return worlds[i%2].changePassword(first.AccessToken, former, to) }, func(a answer) int { return a.status })
				answers <- change{a, to}
			})
		}
		changes.Wait()
		close(ended)
		close(answers)
		var grant httpapi.Grant
		made := 0
		for c := range answers {
			switch {
			case c.status == 200:
				made++
				grant, current = decode[httpapi.Grant](t, c.answer), c.to
			case c.code() == "changed_meanwhile", c.code() == "token_revoked", c.code() == "invalid_credentials":
			default:
				t.Errorf("a change is answered %d %s", c.status, c.body)
			}
		}
		if made != 1 {
			t.Fatalf("%d changes are made", made)
		}
		beside.Wait()
		for _, g := range old {
			for _, w := range worlds {
				w.await("a token of the old password is refused", func() bool {
					return w.do("GET", "/api/verify", g.AccessToken, nil).code() == "token_revoked"
				})
				if _, a := w.renew(g.RefreshToken); a.status == 200 {
					t.Errorf("round %d: a session of the old password is renewed", round)
				}
			}
		}
		for _, w := range worlds {
			w.accepts(grant.AccessToken)
		}
	}
}
