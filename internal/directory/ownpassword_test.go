package directory

import (
	"context"
	"errors"
	"testing"

	"github.com/watchword-auth/watchword/internal/store"
)

// A meanwhile is a store in which something happens between what a use case reads first and
// its transaction.
type meanwhile struct {
	store.Store
	happens func() error
}

func (m *meanwhile) Update(ctx context.Context, f func(r store.Records) error) error {
	if happens := m.happens; happens != nil {
		m.happens = nil
		if err := happens(); err != nil {
			return err
		}
	}
	return m.Store.Update(ctx, f)
}

// Whoever knows the password of a moment ago does not set another one: the password and the
// user's epoch are those of the transaction in which it is changed.
func TestAPasswordThatIsChangedMeanwhile(t *testing.T) {
	w := newWorld(t)
	u, other := w.user("tester"), w.stored(w.user("other"))
	records := w.Store
	for want, happens := range map[string]func(r store.Records) error{
		"changed_meanwhile": func(r store.Records) error { // by a release that knows no epoch
			now, err := r.User(t.Context(), u.ID)
			now.PasswordHash = other.PasswordHash
			return errors.Join(err, r.UpdateUser(t.Context(), now))
		},
		"token_revoked": func(r store.Records) error { _, err := r.NextEpoch(t.Context(), u.ID, true); return err },
	} {
		var then store.User
		w.Store = &meanwhile{records, func() error {
			err := records.Update(t.Context(), happens)
			then = w.stored(u)
			return err
		}}
		_, err := w.ChangeOwnPassword(t.Context(), as(u), w.stored(u).Epoch, secret, "another battery staple")
		w.want(err, want)
		if now := w.stored(u); now != then {
			t.Errorf("%s: %+v has become %+v", want, then, now)
		}
	}
	if n := len(w.revocations()); n != 0 {
		t.Errorf("%d revocations", n)
	}
}
