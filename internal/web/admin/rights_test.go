package admin_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/watchword-auth/watchword/internal/directory"
)

// TestOversightRights walks the pages of sessions, revocations, limits and the audit trail, and what they
// do, as administrators of every single permission, and compares with what the API answers them for the same.
func TestOversightRights(t *testing.T) {
	o := newBureau(t)
	people := map[string][]string{"plain": nil, "superuser": {directory.Superuser}}
	for _, p := range []string{
		directory.UsersRead, directory.UsersWrite, directory.UsersVerify, directory.GroupsRead, directory.GroupsWrite, directory.ClaimsRead,
		directory.ClaimsWrite, directory.SessionsRead, directory.SessionsWrite, directory.Revoke, directory.KeysRead, directory.KeysWrite,
		directory.LimitsRead, directory.LimitsWrite, directory.AuditRead,
	} {
		people[p] = []string{p}
	}
	type call struct {
		method, path string
		body         any
	}
	// Each operation has a victim to whom nothing has been done: one of its own, or one for whom
	// operations were refused.
	type victim struct{ id, session, token string }
	victims := 0
	fresh := func() victim {
		victims++
		name := fmt.Sprintf("victim%d", victims)
		id := o.user(name).ID
		g := o.begin(name, false, "192.0.2.1", "app")
		return victim{id, g.SessionID, g.AccessToken}
	}
	get := func(path string) func(*desk, victim) seen {
		return func(d *desk, v victim) seen { return d.get(path + v.id) }
	}
	desks, tokens := make(map[string]*desk), make(map[string]string)
	for who, permissions := range people {
		o.user(who, permissions...)
		desks[who], tokens[who] = o.desk(who), o.begin(who, false, "192.0.2.7", "app").AccessToken
	}
	v := fresh()
	noKid := map[string]string{"kid": "no-such-key", "reason": "test"}
	for name, op := range map[string]struct {
		page    func(*desk, victim) seen
		api     func(v victim) call
		allowed int // of how many of the people; the superuser is one
	}{
		"sessions of a user": {get("/admin/sessions?user="), func(v victim) call { return call{"GET", "/api/users/" + v.id + "/sessions", nil} }, 3},
		"end a session": {
			func(d *desk, v victim) seen {
				return d.post("/admin/sessions/end", "id", v.session, "user", v.id)
			},
			func(v victim) call { return call{"DELETE", "/api/users/" + v.id + "/sessions", nil} }, 3,
		},
		"ask before all sessions of a user end": {get("/admin/sessions/end-all?user="), func(v victim) call { return call{"DELETE", "/api/users/" + v.id + "/sessions", nil} }, 2},
		"end all sessions": {
			func(d *desk, v victim) seen { return d.post("/admin/sessions/end-all", "user", v.id) },
			func(v victim) call { return call{"DELETE", "/api/users/" + v.id + "/sessions", nil} }, 2,
		},
		"revoke a token": {
			func(d *desk, v victim) seen { return d.post("/admin/revocations/token", "token", v.token) },
			func(v victim) call { return call{"POST", "/api/revocations", map[string]string{"token": v.token}} }, 2,
		},
		"revoke a session": {
			func(d *desk, v victim) seen { return d.post("/admin/revocations/session", "session_id", v.session) },
			func(v victim) call {
				return call{"POST", "/api/revocations", map[string]string{"session_id": v.session}}
			}, 2,
		},
		"ask before all of a user is revoked": {get("/admin/revocations/user?user="), func(v victim) call { return call{"POST", "/api/revocations", map[string]string{"user": v.id}} }, 2},
		"revoke all of a user": {
			func(d *desk, v victim) seen { return d.post("/admin/revocations/user", "user", v.id) },
			func(v victim) call { return call{"POST", "/api/revocations", map[string]string{"user": v.id}} }, 2,
		},
		"revoke a key": {
			func(d *desk, v victim) seen {
				return d.post("/admin/revocations/key", "kid", noKid["kid"], "reason", noKid["reason"])
			},
			func(v victim) call { return call{"POST", "/api/revocations", noKid} }, 0,
		},
		"limits":               {get("/admin/limits?x="), func(v victim) call { return call{"GET", "/api/limits", nil} }, 3},
		"limits of a user":     {get("/admin/limits/account?user="), func(v victim) call { return call{"GET", "/api/limits/accounts/" + v.id, nil} }, 3},
		"limits of an address": {get("/admin/limits/address?address=192.0.2.1&x="), func(v victim) call { return call{"GET", "/api/limits/addresses/192.0.2.1", nil} }, 3},
		"lift those of a user": {
			func(d *desk, v victim) seen { return d.post("/admin/limits/account/lift", "user", v.id) },
			func(v victim) call { return call{"DELETE", "/api/limits/accounts/" + v.id, nil} }, 2,
		},
		"lift those of an address": {
			func(d *desk, v victim) seen { return d.post("/admin/limits/address/lift", "address", "192.0.2.1") },
			func(v victim) call { return call{"DELETE", "/api/limits/addresses/192.0.2.1", nil} }, 2,
		},
		"audit trail":         {get("/admin/audit?actor="), func(v victim) call { return call{"GET", "/api/audit", nil} }, 2},
		"export of the trail": {get("/admin/audit/export?form=csv&actor="), func(v victim) call { return call{"GET", "/api/audit", nil} }, 2},
	} {
		allowed := 0
		for who := range people {
			shown := op.page(desks[who], v)
			if alike(shown.Code) == http.StatusOK {
				v = fresh()
			}
			c := op.api(v)
			answered := o.call(tokens[who], c.method, c.path, c.body)
			if name == "end a session" && answered.Code == http.StatusForbidden { // the API knows two ways
				answered = o.call(tokens[who], "POST", "/api/revocations", map[string]string{"session_id": v.session})
			}
			if alike(answered.Code) == http.StatusOK {
				v = fresh()
			}
			if alike(shown.Code) != alike(answered.Code) {
				t.Errorf("%s, as %s: the page answers %d, the API %d: %s", name, who, shown.Code, answered.Code, answered.Body)
			}
			if alike(shown.Code) == http.StatusOK {
				allowed++
			}
		}
		if allowed != op.allowed {
			t.Errorf("%s: allowed to %d of %d, want %d", name, allowed, len(people), op.allowed)
		}
	}
}

// alike is a status as it is compared between faces: what was done, is done in either.
func alike(status int) int {
	if status == http.StatusSeeOther || status == http.StatusNoContent {
		return http.StatusOK
	}
	return status
}
