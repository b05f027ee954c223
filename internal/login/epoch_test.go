package login

import (
	"context"
	"errors"
	"testing"

	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// atRaise is a store in which something happens just before an epoch is raised, once.
type atRaise struct {
	store.Store
	happens func() error
}

func (s *atRaise) RaiseEpoch(ctx context.Context, id string, from, to int64, endSessions bool) (bool, error) {
	if happens := s.happens; happens != nil {
		s.happens = nil
		if err := happens(); err != nil {
			return false, err
		}
	}
	return s.Store.RaiseEpoch(ctx, id, from, to, endSessions)
}

// What is revoked while a user's epoch is raised to the floor stays revoked: the epoch with
// which a token is signed is never above that of a revocation which began before.
func TestRevokedWhileTheEpochIsRaised(t *testing.T) {
	// revokeAll revokes everything of ada, and does not go by the clock: a new epoch may be
	// lower than the floor.
	revokeAll := func(s *Service, endSessions bool) error {
		from, err := s.Store.User(t.Context(), adaID)
		if err != nil {
			return err
		}
		if _, err := s.Store.RaiseEpoch(t.Context(), adaID, from.Epoch, from.Epoch+1, endSessions); err != nil {
			return err
		}
		entry := s.entry(revoked.User, adaID, "", "user_revoked")
		entry.Epoch = from.Epoch + 1
		_, err = s.append(t.Context(), entry)
		return err
	}
	t.Run("login", func(t *testing.T) {
		s, _ := newService(t)
		records := s.Store
		s.Store = &atRaise{records, func() error { s.Store = records; return revokeAll(s, true) }}
		step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(t.Context(), step.Grant.AccessToken); err == nil {
			t.Error("a login from before everything was revoked gave a token that is good")
		}
		if _, err := s.Renew(t.Context(), step.Grant.RefreshToken, "", Client{}); !errors.Is(err, session.ErrInvalid) {
			t.Errorf("its session is renewed: %v", err)
		}
	})
	t.Run("login, tokens alone", func(t *testing.T) {
		s, p := newService(t)
		records := s.Store
		s.Store = &atRaise{records, func() error { s.Store = records; p.claims = nil; return revokeAll(s, false) }}
		step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.Verify(t.Context(), step.Grant.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		if got := token.Claim("log"); got != "" {
			t.Errorf("the token has the claim that was taken away meanwhile: %q", got)
		}
	})
	t.Run("renewal", func(t *testing.T) {
		s, p := newService(t)
		step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
		if err != nil {
			t.Fatal(err)
		}
		// As after the start of another replica, or a log that was replaced.
		if err := s.Store.RenewLog(t.Context(), s.View.LogID()); err != nil {
			t.Fatal(err)
		}
		if err := s.View.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		records := s.Store
		s.Store = &atRaise{records, func() error { s.Store = records; p.claims = nil; return revokeAll(s, false) }}
		grant, err := s.Renew(t.Context(), step.Grant.RefreshToken, "", Client{})
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.Verify(t.Context(), grant.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		if got := token.Claim("log"); got != "" {
			t.Errorf("the token has the claim that was taken away meanwhile: %q", got)
		}
	})
}

// A token from before the epoch was raised is as good as one from after it, also for what
// looks at the epoch in the database. Raising it writes once.
func TestTokensFromBeforeTheFloor(t *testing.T) {
	s, _ := newService(t)
	before := signedIn(t, s, "ada")
	if err := s.Store.RenewLog(t.Context(), s.View.LogID()); err != nil {
		t.Fatal(err)
	}
	if err := s.View.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := signedIn(t, s, "ada")
	if after.Epoch <= before.Epoch || after.Epoch != s.View.Floor() {
		t.Errorf("the epochs %d and %d, the floor %d", before.Epoch, after.Epoch, s.View.Floor())
	}
	if err := s.View.Check(t.Context(), before); err != nil {
		t.Errorf("a token from before is refused: %v", err)
	}
	s.Store = &atRaise{s.Store, func() error { return errors.New("it is raised again") }}
	if again := signedIn(t, s, "ada"); again.Epoch != after.Epoch {
		t.Errorf("the epoch %d has become %d", after.Epoch, again.Epoch)
	}
	if _, err := s.Revoke(t.Context(), before, Target{User: adaID}, Client{}); err != nil {
		t.Errorf("everything cannot be revoked with a token from before: %v", err)
	}
	if s.View.Check(t.Context(), before) == nil || s.View.Check(t.Context(), after) == nil {
		t.Error("not all of them are revoked")
	}
}
