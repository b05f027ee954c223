package login

import (
	"errors"
	"testing"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

func TestSessionOf(t *testing.T) {
	s, give := newDirected(t)
	ctx, client := t.Context(), Client{Address: "192.0.2.1"}
	begin := func(name string) string {
		t.Helper()
		step, err := s.Begin(ctx, Credential{Username: name, Password: "right"}, "", client)
		ok(t, err)
		return step.Grant.SessionID
	}
	bobs := begin("bob")
	ada := atHome(adaID)
	code := func(err error) string { return problem.From(err).Code }

	if _, err := s.SessionOf(ctx, ada, "bob", bobs, client); !errors.Is(err, directory.ErrPermissionMissing) {
		t.Errorf("without a right: %v", err)
	}
	give(adaID, directory.Admin, directory.SessionsRead)
	one, err := s.SessionOf(ctx, ada, "bob", bobs, client)
	ok(t, err)
	if one.Session.ID != bobs || one.User.ID != bobID || one.User.PasswordHash != "" {
		t.Errorf("found %+v", one)
	}
	if _, err := s.SessionOf(ctx, ada, "ada", bobs, client); code(err) != "session_not_found" {
		t.Errorf("bob's session as ada's: %v", err)
	}

	if err := s.EndSessionOf(ctx, ada, "bob", bobs, client); !errors.Is(err, directory.ErrPermissionMissing) {
		t.Errorf("ended with the right to read: %v", err)
	}
	give(adaID, directory.Admin, directory.SessionsWrite)
	if err := s.EndSessionOf(ctx, ada, adaID, bobs, client); code(err) != "session_not_found" {
		t.Errorf("bob's session as one's own: %v", err)
	}
	other := begin("bob")
	ok(t, s.EndSessionOf(ctx, ada, "bob", bobs, client))
	if !s.View.SessionRevoked(bobs) || s.View.SessionRevoked(other) {
		t.Error("the wrong session was revoked")
	}
	log, _, err := s.RevocationLog(ctx, ada, 0, 1, client)
	ok(t, err)
	if e := log[0]; e.What != revoked.Session || e.Subject != bobs || e.Actor != adaID {
		t.Errorf("the log has %+v", e)
	}
	if err := s.EndSessionOf(ctx, ada, "bob", bobs, client); code(err) != "session_not_found" {
		t.Errorf("ended twice: %v", err)
	}

	// A user with a right that ada lacks is out of reach.
	give(bobID, directory.Admin, directory.KeysWrite)
	for _, err := range []error{
		s.EndSessionOf(ctx, ada, "bob", other, client),
		func() error { _, err := s.SessionOf(ctx, ada, "bob", other, client); return err }(),
	} {
		if !errors.Is(err, directory.ErrBeyondOwnRights) {
			t.Errorf("a more mighty user: %v", err)
		}
	}
	// One's own needs no right.
	ok(t, s.EndSessionOf(ctx, &accesstoken.Token{Subject: bobID, Issuer: "i", Audience: []string{"i"}}, bobID, other, client))
	if !s.View.SessionRevoked(other) {
		t.Error("the user's own session goes on")
	}
}
