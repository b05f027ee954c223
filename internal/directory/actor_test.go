package directory

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Only a token for the API alone is one of the API.
func TestHolder(t *testing.T) {
	const issuer, ships = "https://auth.example.com", "https://ships.example"
	at := time.Unix(1_800_000_000, 0)
	for _, one := range []struct {
		audience []string
		api      bool
	}{
		{[]string{issuer}, true},
		{[]string{ships}, false},
		{[]string{issuer, ships}, false},
		{[]string{ships, issuer}, false},
		{[]string{issuer + "/"}, false},
		{nil, false},
	} {
		got := Holder(&accesstoken.Token{Issuer: issuer, Audience: one.audience, Subject: "id", AuthTime: at}, "192.0.2.1")
		if want := (Actor{ID: "id", Address: "192.0.2.1", API: one.api, AuthTime: at}); got != want {
			t.Errorf("%q: %+v, want %+v", one.audience, got, want)
		}
	}
}

// Every permission needs a token for the API, and every one to change something needs a login
// that is not long ago. Who does not hold the permission is not sent to log in again.
func TestWhatATokenIsGoodFor(t *testing.T) {
	w := newWorld(t)
	now := time.Now().Truncate(time.Second)
	w.Now = func() time.Time { return now }
	root, nobody := w.superuser("root"), w.user("nobody")
	actor := func(u store.User, api bool, authTime time.Time) Actor {
		return Actor{ID: u.ID, API: api, AuthTime: authTime}
	}
	reads := []string{UsersRead, GroupsRead, ClaimsRead, SessionsRead, KeysRead, LimitsRead, AuditRead}
	for _, permission := range permissions {
		stale := "reauthentication_required"
		if slices.Contains(reads, permission) {
			stale = ""
		}
		for _, one := range []struct {
			actor Actor
			want  string
		}{
			{System(), ""},
			{Actor{}, "wrong_audience"},
			{actor(root, false, now), "wrong_audience"},
			{actor(nobody, false, now), "wrong_audience"},
			{actor(nobody, true, now), "permission_missing"},
			{actor(nobody, true, time.Time{}), "permission_missing"},
			{actor(root, true, now), ""},
			{actor(root, true, now.Add(time.Second)), ""}, // by the clock of another replica
			{actor(root, true, now.Add(-freshFor)), ""},
			{actor(root, true, now.Add(-freshFor-time.Second)), stale},
			{actor(root, true, time.Time{}), stale},
		} {
			err := w.Authorize(t.Context(), one.actor, permission)
			w.want(err, one.want)
			_, onErr := w.AuthorizeOn(t.Context(), one.actor, permission, nobody.ID)
			w.want(onErr, one.want)
			if p := problem.From(err); errors.Is(err, ErrReauthenticate) && p.MaxAge != freshFor {
				t.Errorf("%s: within %v, want %v", permission, p.MaxAge, freshFor)
			}
		}
	}
}

// What a token is not good for is in the audit trail, because somebody else may hold it.
func TestRefusedTokensAreInTheAuditTrail(t *testing.T) {
	w := newWorld(t)
	root, victim := w.superuser("root"), w.user("victim")
	service := as(root)
	service.API = false
	late := as(root)
	late.AuthTime = late.AuthTime.Add(-freshFor - time.Second)
	w.want(w.DeleteUser(t.Context(), service, victim.ID), "wrong_audience")
	w.want(w.SetPassword(t.Context(), late, victim.ID, secret+secret), "reauthentication_required")
	var got []string
	for _, e := range w.events(victim.ID) {
		if e.Outcome == "denied" {
			got = append(got, e.Action+" "+e.Detail)
		}
	}
	if want := []string{"user.update reauthentication_required", "user.delete wrong_audience"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
