package login

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/problem"
)

// A session is its user's own while it lives.
func TestOwnSession(t *testing.T) {
	s, _ := newService(t)
	ada, bob := signedIn(t, s, "ada"), signedIn(t, s, "bob")
	if one, err := s.OwnSession(t.Context(), ada, ada.SessionID); err != nil || one.ID != ada.SessionID || one.UserID != adaID {
		t.Errorf("%+v, %v", one, err)
	}
	for _, id := range []string{bob.SessionID, "", "x"} {
		if _, err := s.OwnSession(t.Context(), ada, id); problem.From(err).Kind != problem.NotFound {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := s.Sessions.Stop(t.Context(), adaID, ada.SessionID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OwnSession(t.Context(), ada, ada.SessionID); problem.From(err).Kind != problem.NotFound {
		t.Errorf("a session that has ended: %v", err)
	}
}
