package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

func TestAuditOverHTTP(t *testing.T) {
	w := replica.New(t, nil)
	tester := w.User("tester")
	w.User("reader", "admin=audit:read")
	first, second := w.Login("tester"), w.Login("tester")
	w.Want(w.Do("POST", "/api/users", first.AccessToken, httpapi.NewUser{Username: "x"}), 403, "permission_missing")
	w.Want(w.Do("POST", "/api/logout", second.AccessToken, nil), 204, "")
	token := w.Login("reader").AccessToken

	all := w.Trail(token, url.Values{})
	if len(all) < 8 || !slices.IsSortedFunc(all, func(a, b httpapi.AuditEvent) int { return b.At.Compare(a.At.Time) }) {
		t.Fatalf("%d events: %+v", len(all), all)
	}
	denied := slices.IndexFunc(all, func(e httpapi.AuditEvent) bool { return e.Outcome == "denied" })
	if e := all[denied]; e.Actor != tester || e.Action != "user.create" || e.Address != "127.0.0.1" || e.Detail != "permission_missing" || e.ID == "" {
		t.Errorf("the refusal: %+v", e)
	}
	logout := slices.IndexFunc(all, func(e httpapi.AuditEvent) bool { return e.Action == "logout" })
	at := func(i int) string { return all[i].At.Format(time.RFC3339Nano) }
	for _, c := range []struct {
		name  string
		query url.Values
		want  func(e httpapi.AuditEvent) bool
		least int
	}{
		{"everything", url.Values{}, func(e httpapi.AuditEvent) bool { return true }, 8},
		{"an actor", url.Values{"actor": {tester}}, func(e httpapi.AuditEvent) bool { return e.Actor == tester }, 4},
		{"a target", url.Values{"target": {second.SessionID}}, func(e httpapi.AuditEvent) bool { return e.Target == second.SessionID }, 2},
		{"an action", url.Values{"action": {"login"}}, func(e httpapi.AuditEvent) bool { return e.Action == "login" }, 3},
		{"an outcome", url.Values{"outcome": {"denied"}}, func(e httpapi.AuditEvent) bool { return e.Outcome == "denied" }, 1},
		{"an address", url.Values{"address": {"::ffff:127.0.0.1"}}, func(e httpapi.AuditEvent) bool { return e.Address == "127.0.0.1" }, 5},
		{"several", url.Values{"actor": {tester}, "action": {"login"}, "outcome": {"ok"}, "target": {first.SessionID}},
			func(e httpapi.AuditEvent) bool { return e.Action == "login" && e.Target == first.SessionID }, 1},
		{"since", url.Values{"since": {at(logout)}}, func(e httpapi.AuditEvent) bool {
			return e.At.UnixMilli() >= all[logout].At.UnixMilli()
		}, 1},
		{"until", url.Values{"until": {at(logout)}}, func(e httpapi.AuditEvent) bool {
			return e.At.UnixMilli() < all[logout].At.UnixMilli()
		}, 1},
		{"an hour that has no events", url.Values{"until": {time.Now().Add(-time.Hour).Format(time.RFC3339)}},
			func(httpapi.AuditEvent) bool { return false }, 0},
		{"all of time", url.Values{"since": {"0001-01-01T00:00:00Z"}, "until": {"9999-12-31T23:59:59Z"}},
			func(httpapi.AuditEvent) bool { return true }, 8},
	} {
		var want []httpapi.AuditEvent
		for _, e := range all {
			if c.want(e) {
				want = append(want, e)
			}
		}
		if len(want) < c.least {
			t.Errorf("%s: only %d events are wanted", c.name, len(want))
		}
		for _, limit := range []string{"", "1", "3", "200"} {
			query := url.Values{"limit": {limit}}
			for name, values := range c.query {
				query[name] = values
			}
			if got := w.Trail(token, query); !slices.Equal(got, want) {
				t.Errorf("%s, limit %q: %d events, want %d", c.name, limit, len(got), len(want))
			}
		}
	}
}

// Nothing that a client writes into a filter finds more than what it says.
func TestAuditFiltersAreNoSQL(t *testing.T) {
	w := replica.New(t, nil)
	token := w.Login("admin").AccessToken
	for _, evil := range []string{
		"%", "_", "*", "?", "'", `"`, `\`, "''", "' OR '1'='1", "' OR 1=1 -- ", "'; DELETE FROM audit_events; --", `\' OR 1=1 #`,
		"$1", ":id", "{{bin}}", "\x00", "\xff", "login\x00", "LOGIN", " login", "login ", strings.Repeat("a", 64),
	} {
		for _, name := range []string{"actor", "action", "target"} {
			query := url.Values{name: {evil}}
			if got := w.Trail(token, query); len(got) != 0 {
				t.Errorf("%s=%q finds %d events", name, evil, len(got))
			}
		}
		for _, name := range []string{"outcome", "address", "after", "since", "until", "limit"} {
			if a := w.Do("GET", "/api/audit?"+url.Values{name: {evil}}.Encode(), token, nil); a.Status != 422 {
				t.Errorf("%s=%q: %d %s", name, evil, a.Status, a.Body)
			}
		}
	}
	if n := len(w.Trail(token, url.Values{})); n == 0 {
		t.Error("the trail is gone")
	}
}

func TestAuditRefusals(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester", "admin=users:write", "log=r")
	w.User("reader", "admin=audit:read")
	tester, reader := w.Login("tester").AccessToken, w.Login("reader").AccessToken
	w.Want(w.Do("GET", "/api/audit", "", nil), 401, "token_missing")
	w.Want(w.Do("GET", "/api/audit", tester, nil), 403, "permission_missing")
	w.Want(w.Do("GET", "/api/audit?actor=x", tester, nil), 403, "permission_missing")
	w.Want(w.Do("GET", "/api/audit/chain", "", nil), 401, "token_missing")
	w.Want(w.Do("GET", "/api/audit/chain", tester, nil), 403, "permission_missing")
	if a := w.Want(w.Do("GET", "/api/audit/chain", reader, nil), 200, ""); !strings.Contains(string(a.Body), `"state":"unchecked"`) {
		t.Errorf("%s", a.Body) // it has a key, and has just started
	}
	w.Want(w.Do("POST", "/api/audit", reader, nil), 405, "method_not_allowed")
	w.Want(w.Do("DELETE", "/api/audit", reader, nil), 405, "method_not_allowed")
	w.Want(w.Do("GET", "/api/users", reader, nil), 403, "permission_missing")
	for query, code := range map[string]string{
		"limit=-1": "invalid_request", "limit=201": "invalid_request", "limit=x": "invalid_request", "limit=1e9": "invalid_request",
		"since=yesterday": "invalid_request", "since=2026-01-01": "invalid_request", "until=1767225600": "invalid_request",
		"since=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00Z": "invalid_time_range",
		"since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z": "invalid_time_range",
		"outcome=OK": "invalid_request", "after=x": "invalid_cursor", "after=" + strings.Repeat("a", 65): "invalid_request",
		"action=" + strings.Repeat("a", 65): "invalid_request", "actor=" + strings.Repeat("a", 257): "invalid_request",
		"prefix=a": "invalid_request", "user=a": "invalid_request", "Actor=a": "invalid_request", "before=a": "invalid_request",
	} {
		a := w.Do("GET", "/api/audit?"+query, reader, nil)
		if a.Status != 422 || a.Code() != code {
			t.Errorf("%s: %d %s, want 422 %s", query, a.Status, a.Body, code)
		}
	}
	w.Want(w.Do("PATCH", "/api/users/reader", w.Login("admin").AccessToken, map[string]any{"disabled": true}), 200, "")
	w.Want(w.Do("GET", "/api/audit", reader, nil), 401, "token_revoked")
}

// Whoever may not end the sessions of another user leaves an event, and whoever names nobody
// leaves none.
func TestRefusedEndOfSessionsIsInTheAuditTrail(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	w.User("ender", "admin=sessions:write")
	w.Want(w.Do("DELETE", "/api/users/admin/sessions", w.Login("tester").AccessToken, nil), 403, "permission_missing")
	w.Want(w.Do("DELETE", "/api/users/nobody/sessions", w.Login("ender").AccessToken, nil), 404, "user_not_found")
	got := w.Trail(w.Login("admin").AccessToken, url.Values{"action": {"session_end_all"}})
	if len(got) != 1 || got[0].Outcome != "denied" || got[0].Detail != "permission_missing" {
		t.Errorf("the trail has %+v", got)
	}
}

// However much there is, a page is a page.
func TestAuditPagesAreBounded(t *testing.T) {
	w := replica.New(t, nil)
	token := w.Login("admin").AccessToken
	for i := range 60 {
		w.Want(w.Do("POST", "/api/groups", token, httpapi.NewGroup{Name: fmt.Sprint("g", i)}), 201, "")
	}
	for _, query := range []string{"", "?limit=0", "?since=0001-01-01T00:00:00Z&until=9999-12-31T23:59:59Z", "?action=group.create"} {
		page := kit.Decode[httpapi.AuditList](t, w.Want(w.Do("GET", "/api/audit"+query, token, nil), 200, ""))
		if len(page.Events) != 50 || page.Next == "" {
			t.Errorf("%q: %d events, next %q", query, len(page.Events), page.Next)
		}
	}
}

// Refused attempts to revoke a session do not push the login out of sight by which an
// administrator of sessions may revoke it.
func TestRefusalsDoNotHideTheLoginOfASession(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	w.User("other")
	w.User("revoker", "admin=revoke")
	session, other, revoker := w.Login("tester"), w.Login("other").AccessToken, w.Login("revoker").AccessToken
	body := map[string]string{"session_id": session.SessionID}
	w.Want(w.Do("POST", "/api/revocations", other, body), 403, "permission_missing")
	denied := w.Trail(w.Login("admin").AccessToken, url.Values{"target": {session.SessionID}, "outcome": {"denied"}})
	if len(denied) != 1 {
		t.Fatalf("%+v", denied)
	}
	one := store.AuditEvent{Actor: denied[0].Actor, Action: denied[0].Action, Target: denied[0].Target, Outcome: denied[0].Outcome}
	// Four minutes of them.
	if err := w.Parts().Store.Update(t.Context(), func(r store.Records) error {
		for range 240 {
			if err := w.Parts().Audit.RecordIn(t.Context(), r, one); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.Want(w.Do("POST", "/api/revocations", revoker, body), 200, "")
	w.Want(w.Do("GET", "/api/verify", session.AccessToken, nil), 401, "token_revoked")
}
